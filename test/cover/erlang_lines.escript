#!/usr/bin/env escript
%% What OTP's cover has counted, one line each: `MODULE LINE CALLS`.
%%
%%     erlang_lines.escript DIRECTORY EBIN
%%
%% DIRECTORY holds *.coverdata, EBIN the modules that they are of.

main([Directory, Ebin]) ->
    {ok, _} = cover:start(),
    {group_leader, Leader} = process_info(self(), group_leader),
    %% cover says on its own output what it imports.
    {ok, Null} = file:open("/dev/null", [write]),
    true = group_leader(Null, whereis(cover_server)),
    [ok = cover:import(File) || File <- filelib:wildcard(filename:join(Directory, "*.coverdata"))],
    true = group_leader(Leader, self()),
    Modules = [list_to_atom(filename:basename(File, ".beam")) || File <- filelib:wildcard(filename:join(Ebin, "*.beam"))],
    {result, Lines, _} = cover:analyse(Modules, calls, line),
    [io:format("~s ~b ~b~n", [Module, Line, Calls]) || {{Module, Line}, Calls} <- Lines, Line > 0].
