#!/usr/bin/env escript
%% Runs every property, prop_*/0, of the compiled modules prop_* in a directory, which has those that they need in support/ and faults/:
%%
%%     properties.escript DIRECTORY [RUNS=100 [SEED [quick]]]
%%
%% `quick' ends with the first property that fails, and does not look for the shortest run that does. The same seed draws the same
%% calls; what processes do at the same time is in another order each time. The exit status is 0 if all properties hold.
-mode(compile).

main([Directory]) -> main([Directory, "100"]);
main([Directory, Runs]) -> main([Directory, Runs, integer_to_list(erlang:system_time(second))]);
main([Directory, Runs, Seed]) -> main([Directory, Runs, Seed, "all"]);
main([Directory, Runs, Seed, How]) ->
    ok = code:add_pathsa([Directory | [filename:join(Directory, Needed) || Needed <- ["support", "faults"]]]),
    io:format("Properties: make test-properties RUNS=~s SEED=~s~n", [Runs, Seed]),
    Modules = [list_to_atom(filename:basename(File, ".beam")) || File <- filelib:wildcard("prop_*.beam", Directory)],
    Options = [{numtests, list_to_integer(Runs)} | [noshrink || How =:= "quick"]],
    Results = results([{Module, Property} || Module <- Modules, Property <- properties(Module)], How, Options, list_to_integer(Seed)),
    Passed = length([held || true <- Results]),
    Failed = length(Results) - Passed,
    io:format("Properties: ~b passed, ~b failed~n", [Passed, Failed]),
    halt(case Passed > 0 andalso Failed =:= 0 of true -> 0; false -> 1 end).

properties(Module) ->
    [Name || {Name, 0} <- Module:module_info(exports), lists:prefix("prop_", atom_to_list(Name))].

results([], _, _, _) ->
    [];
results([{Module, Property} | Rest], How, Options, Seed) ->
    case holds(Module, Property, Options, Seed) of
        false when How =:= "quick" -> [false];
        Holds -> [Holds | results(Rest, How, Options, Seed)]
    end.

%% A property that sets its own number of runs keeps it. PropEr goes on with the seed that its process has.
holds(Module, Property, Options, Seed) ->
    io:format("~n~s:~s~n", [Module, Property]),
    _ = rand:seed(exsplus, Seed),
    {Microseconds, Holds} = timer:tc(proper, quickcheck, [Module:Property(), Options]),
    io:format("~s ~s:~s, ~.1f s~n", [case Holds of true -> "Holds:"; _ -> "FAILS:" end, Module, Property, Microseconds / 1.0e6]),
    true =:= Holds.
