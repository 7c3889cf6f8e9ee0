#!/usr/bin/env escript
%% Runs every property, prop_*/0, of the compiled modules prop_* in a directory, which has those that they need in support/:
%%
%%     properties.escript DIRECTORY [RUNS=100]
%%
%% The exit status is 0 if all of them hold.
-mode(compile).

main([Directory]) -> main([Directory, "100"]);
main([Directory, Runs]) ->
    ok = code:add_pathsa([Directory, filename:join(Directory, "support")]),
    Modules = [list_to_atom(filename:basename(File, ".beam")) || File <- filelib:wildcard("prop_*.beam", Directory)],
    Results = [holds(Module, Property, list_to_integer(Runs)) || Module <- Modules, Property <- properties(Module)],
    Passed = length([held || true <- Results]),
    Failed = length(Results) - Passed,
    io:format("Properties: ~b passed, ~b failed~n", [Passed, Failed]),
    halt(case Passed > 0 andalso Failed =:= 0 of true -> 0; false -> 1 end).

properties(Module) ->
    [Name || {Name, 0} <- Module:module_info(exports), lists:prefix("prop_", atom_to_list(Name))].

%% A property that sets its own number of runs keeps it.
holds(Module, Property, Runs) ->
    io:format("~n~s:~s~n", [Module, Property]),
    {Microseconds, Holds} = timer:tc(proper, quickcheck, [Module:Property(), [{numtests, Runs}]]),
    io:format("~.1f s~n", [Microseconds / 1.0e6]),
    true =:= Holds.
