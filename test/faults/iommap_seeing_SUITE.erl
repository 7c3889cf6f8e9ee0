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
     stats_are_sums_over_all_generations,
     a_subscription_lives_on_over_generations,
     a_subscription_of_the_newest_generation_is_told_of_all,
     a_subscription_lives_on_when_the_module_is_deleted,
     a_load_and_a_subscription_at_once_miss_no_fault].

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

%% ---- subscribe --------------------------------------------------------------------------------

%% A process that subscribed in the first generation is told once of each fault, in mappings of every generation, also of those that
%% were made later; and of none after it unsubscribed in the newest.
a_subscription_lives_on_over_generations(Config) ->
    in_vm(Config, fun(Directory) ->
        {First, FirstView} = viewed(Directory, first),
        ok = iommap:subscribe(),
        Later = over_generations(Directory, 5, fun(Generation) ->
            Viewed = viewed(Directory, Generation),
            {Path, View} = viewed(Directory, {lost, Generation}),
            lose(Path, View),
            Path = told(),
            Viewed
        end),
        [begin lose(Path, View), Path = told() end || {Path, View} <- [{First, FirstView} | Later]],
        ok = iommap:unsubscribe(),
        {Path, View} = viewed(Directory, last),
        lose(Path, View),
        [] = unheard(Directory)
    end).

%% Who subscribes in the newest generation is told of faults in mappings of the ones before, and not of those that were.
a_subscription_of_the_newest_generation_is_told_of_all(Config) ->
    in_vm(Config, fun(Directory) ->
        Made = over_generations(Directory, 5, fun(Generation) ->
            {Path, View} = viewed(Directory, {lost, Generation}),
            lose(Path, View),
            viewed(Directory, Generation)
        end),
        ok = iommap:subscribe(),
        ok = iommap:subscribe(),
        [begin lose(Path, View), Path = told() end || {Path, View} <- Made],
        [] = unheard(Directory)
    end).

%% With no code of ours left a subscriber is told; and it can unsubscribe when the module is back.
a_subscription_lives_on_when_the_module_is_deleted(Config) ->
    in_vm(Config, fun(Directory) ->
        {Path, View} = viewed(Directory, kept),
        {Other, OtherView} = viewed(Directory, other),
        ok = iommap:subscribe(),
        code:purge(iommap),
        true = code:delete(iommap),
        code:purge(iommap),
        lose(Path, View),
        Path = told(),
        {module, iommap} = code:load_file(iommap),
        ok = iommap:unsubscribe(),
        lose(Other, OtherView),
        [] = unheard(Directory)
    end).

%% While the library is loaded again and again, processes subscribe, lose a mapping that they open then, and are told.
a_load_and_a_subscription_at_once_miss_no_fault(Config) ->
    in_vm(Config, fun(Directory) ->
        Listen = fun(Name) ->
            ok = iommap:subscribe(),
            {Path, View} = viewed(Directory, {Name, erlang:unique_integer([positive])}),
            lose(Path, View),
            told_of(Path),
            ok = iommap:unsubscribe(),
            flush()
        end,
        test_processes:during([fun() -> Listen(Name) end || Name <- [a, b]], fun() ->
            [begin put_in_place(Directory, Library), ok = reload() end
                || _ <- lists:seq(1, 10), Library <- [alternate_layout, same]]
        end),
        ok
    end).

%% A file of two pages, and a view of it. Its handle is closed.
viewed(Directory, Name) ->
    {Path, Handle} = open(Directory, Name, 2 * test_pattern:page()),
    {ok, View} = iommap:region_binary(Handle, 0, 2 * test_pattern:page()),
    ok = iommap:close(Handle),
    {Path, View}.

lose(Path, View) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    ok = file:truncate(File),
    ok = file:close(File),
    _ = erlang:crc32(View).

%% The path of the mapping that the next message tells of. Half a minute stands for never.
told() ->
    receive {iommap, faulted, #{path := Path, faulted := true}} -> binary_to_list(Path) after 30_000 -> error(never) end.

told_of(Path) ->
    case told() of
        Path -> ok;
        _ -> told_of(Path)
    end.

%% The messages that are there when another process was told of a fault that came after all others.
unheard(Directory) ->
    ok = test_processes:in_a_process(fun() ->
        ok = iommap:subscribe(),
        {Path, View} = viewed(Directory, unheard),
        lose(Path, View),
        told_of(Path)
    end),
    [Told || Told <- flush(), filename:basename(Told) =/= "file-unheard"].

flush() ->
    receive {iommap, faulted, #{path := Path}} -> [binary_to_list(Path) | flush()] after 0 -> [] end.

more(Before) ->
    maps:map(fun(Name, Count) -> Count - maps:get(Name, Before) end, iommap:stats()).
