%% The module is loaded, purged and deleted again and again.
-module(iommap_reload_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_files, [file/2, mapping/2]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_processes, [eventually/1, in_a_process/1, during/2]).
-import(test_system, [held/1]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [load_file_keeps_handles_and_views,
     load_file_under_load,
     purge_is_harmless,
     delete_and_load_again].

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

load_file_keeps_handles_and_views(Config) ->
    %% code:load_file succeeds as often as one likes, and handles and views of every loading work on.
    Directory = ?config(directory, Config),
    Generation = fun() ->
        Path = file(Directory, bytes(3 * page())),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, page(), page()),
        {Handle, View}
    end,
    Generations = [begin
        Made = Generation(),
        true = code:soft_purge(iommap),
        ?assertEqual({module, iommap}, code:load_file(iommap)),
        Made
    end || _ <- lists:seq(1, 10)],
    [begin
         ?assertEqual({ok, bytes(3 * page())}, iommap:pread(Handle, 0, 3 * page())),
         ?assertEqual(binary:part(bytes(3 * page()), page(), page()), View),
         ?assertEqual(ok, iommap:pwrite(Handle, page(), <<"new">>)),
         ?assertMatch(<<"new", _/binary>>, View),
         ?assertEqual(ok, iommap:truncate(Handle, 4 * page())),
         ?assertEqual({ok, 4 * page()}, iommap:position(Handle)),
         ?assertEqual(ok, iommap:sync(Handle)),
         ?assertMatch({ok, #{mode := read_write}}, iommap:info(Handle)),
         ?assertMatch({ok, <<"new">>}, iommap:region_binary(Handle, page(), 3)),
         ?assertEqual(ok, iommap:close(Handle)),
         ?assertEqual({error, closed}, iommap:close(Handle)),
         ?assertMatch(<<"new", _/binary>>, View)
     end || {Handle, View} <- Generations].

load_file_under_load(Config) ->
    %% Loading and purging while processes open, read, write, view and close disturbs none of them.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    Expected = binary:part(bytes(3 * page()), 0, page()),
    Steps = [
        fun() -> ?assertEqual({ok, Expected}, iommap:pread(Handle, 0, page())) end,
        fun() -> ?assertEqual(ok, iommap:pwrite(Handle, 2 * page(), bytes(100))) end,
        fun() -> ?assertEqual({ok, Expected}, iommap:region_binary(Handle, 0, page())) end,
        fun() ->
            {ok, Other} = iommap:open(Path, read, []),
            ?assertEqual({ok, Expected}, iommap:pread(Other, 0, page())),
            ok = iommap:close(Other)
        end
    ],
    during(Steps ++ Steps, fun() ->
        [begin
             %% Anything but a soft purge would end a process that is still in old code.
             ok = eventually(fun() -> code:soft_purge(iommap) end),
             ?assertEqual({module, iommap}, code:load_file(iommap))
         end || _ <- lists:seq(1, 30)]
    end).

purge_is_harmless(Config) ->
    %% Purging the old code, with nothing old and with something old, leaves handles and views whole.
    {_Path, Handle} = mapping(Config, bytes(3 * page())),
    {ok, View} = iommap:region_binary(Handle, 0, page()),
    [begin
         _ = code:purge(iommap),
         _ = code:purge(iommap),
         {module, iommap} = code:load_file(iommap),
         _ = code:purge(iommap),
         true = code:soft_purge(iommap),
         ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())),
         ?assertEqual(bytes(page()), View)
     end || _ <- lists:seq(1, 5)],
    ?assertEqual(ok, iommap:close(Handle)),
    ?assertEqual(bytes(page()), View).

delete_and_load_again(Config) ->
    %% With the module deleted and purged, views live on, are collected, and the module loads again.
    Path = file(?config(directory, Config), bytes(3 * page())),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, page()),
        _ = code:purge(iommap),
        true = code:delete(iommap),
        _ = code:purge(iommap),
        ?assertEqual(bytes(page()), View),
        ?assertEqual({module, iommap}, code:load_file(iommap)),
        ?assertEqual(bytes(page()), View),
        {ok, Other} = iommap:open(Path, read, []),
        ?assertEqual({ok, bytes(page())}, iommap:pread(Other, 0, page()))
    end),
    case os:type() of
        {unix, linux} -> ok = eventually(fun() -> held(Path) =:= {[], []} end);
        _ -> ok
    end.
