%% What the library tells of itself where that takes a slow file, a fault or another generation of the library. Every case has a VM
%% and a copy of the application of its own.
-module(iommap_seeing_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_generations, [in_vm/2, over_generations/3, reload/0, put_in_place/2, open/3]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [stats_count_what_a_cold_read_fetches,
     stats_are_sums_over_all_generations].

init_per_suite(Config) ->
    test_generations:build(Config).

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    test_generations:start_vm(Config, #{}).

end_per_testcase(_Case, Config) ->
    test_generations:stop_vm(Config).

%% ---- stats ------------------------------------------------------------------------------------

%% A read of pages that are not in memory moves once, and counts the pages of its range.
stats_count_what_a_cold_read_fetches(Config) ->
    test_scene:on_faultfs(Config, fun(_Mount, Path) ->
        in_vm(Config, fun(_Directory) ->
            {ok, Handle} = iommap:open(Path, read, []),
            test_files:drop_cache(Path),
            Before = iommap:stats(),
            Page = test_pattern:page(),
            {ok, _} = iommap:pread(Handle, Page - 10, 20),
            #{moved_pages := 1, pages_fetched := 2, moved_lock := 0, moved_length := 0} = more(Before)
        end)
    end).

%% What the calls of one generation, and views of its mappings, met is in the sum that the newest one gives.
stats_are_sums_over_all_generations(Config) ->
    in_vm(Config, fun(Directory) ->
        Page = test_pattern:page(),
        Before = iommap:stats(),
        Views = over_generations(Directory, 4, fun(Generation) ->
            {Path, Handle} = open(Directory, Generation, 2 bsl 20),
            {ok, _} = iommap:pread(Handle, 0, 2 bsl 20),
            {ok, View} = iommap:region_binary(Handle, 0, 3 * Page),
            {Path, View}
        end),
        #{moved_length := 4, faults := 0, zero_pages := 0} = more(Before),
        [begin
             [] = os:cmd(io_lib:format("truncate -s ~b '~ts'", [Page, Path])),
             _ = erlang:crc32(View)
         end || {Path, View} <- Views],
        Lost = 4 * ((2 bsl 20) div Page - 1),
        #{moved_length := 4, faults := 4, zero_pages := Lost} = more(Before)
    end).

more(Before) ->
    maps:map(fun(Name, Count) -> Count - maps:get(Name, Before) end, iommap:stats()).
