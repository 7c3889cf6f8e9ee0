%% Handles and views of one generation of the library, used and lost in another. Every case has a VM and a copy of the
%% application of its own.
-module(iommap_generations_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_generations, [in_vm/2, over_generations/3, reload/0, put_in_place/2, open/3, everything_works/2]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [handles_of_every_generation_work_in_the_newest,
     arrays_of_every_generation_work_in_the_newest,
     views_of_every_generation_are_safe_in_the_newest,
     mappings_of_every_generation_are_listed_oldest_first,
     a_fault_of_an_old_generation_is_known_to_the_newest,
     old_code_is_purged_while_its_handles_live,
     the_module_is_deleted_and_purged_while_its_views_live,
     a_lost_view_of_a_later_generation_is_read_though_the_map_count_is_exhausted,
     writing_a_lost_view_of_an_old_generation_is_an_error_and_harms_neither_file,
     writing_a_failing_view_of_an_old_generation_is_an_error_and_harms_neither_file,
     writing_a_lost_view_with_a_handle_of_an_old_generation_is_an_error_and_harms_neither_file,
     objects_of_an_unknown_abi_raise_badarg_and_are_collected,
     a_panic_is_an_exception_of_its_caller_alone].

init_per_suite(Config) ->
    test_generations:build(Config).

end_per_suite(_Config) ->
    ok.

init_per_testcase(a_panic_is_an_exception_of_its_caller_alone, Config) ->
    %% Nobody reads the backtraces of panics on purpose.
    test_generations:start_vm(Config, #{env => [{"RUST_BACKTRACE", "0"}]});
init_per_testcase(_Case, Config) ->
    test_generations:start_vm(Config, #{}).

end_per_testcase(_Case, Config) ->
    test_generations:stop_vm(Config).

%% A handle opened by any generation takes every call of the newest, and so does one that was opened before the very same
%% file was loaded again.
handles_of_every_generation_work_in_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        Handles = over_generations(Directory, 6, fun(Generation) ->
            Before = open(Directory, {before, Generation}, 10_000),
            ok = reload(),
            [Before, open(Directory, Generation, 10_000)]
        end),
        [everything_works(Path, Handle) || {Path, Handle} <- lists:append(Handles)],
        ok
    end).

%% An array made by any generation, and one made now of a handle of any, are the words of the file in the newest; when they are
%% collected, what they had is given back.
arrays_of_every_generation_work_in_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        Paths = test_processes:in_a_process(fun() ->
            Made = over_generations(Directory, 6, fun(Generation) ->
                {Path, Handle} = open(Directory, {array, Generation}, 10_000),
                ok = iommap:pwrite(Handle, 0, <<0:128>>),
                {Path, Handle, iommap_atomics:new(Handle, 8, 100, [{signed, false}])}
            end),
            [begin
                ok = iommap_atomics:add(Array, 1, 5),
                Anew = iommap_atomics:new(Handle, 0, 2, []),
                3 = iommap_atomics:sub_get(Anew, 2, 2),
                ok = iommap_atomics:compare_exchange(Array, 1, 3, 16#FFFFFFFFFFFFFFFF),
                -1 = iommap_atomics:get(Anew, 2),
                #{size := 100, min := 0} = iommap_atomics:info(Array),
                badarg = try iommap_atomics:get(Array, 101) catch error:Reason -> Reason end,
                [] = os:cmd("truncate -s 0 " ++ Path),
                sigbus = try iommap_atomics:'bor'(Array, 1, 1) catch error:Lost -> Lost end,
                ok = iommap:truncate(Handle, 20_000),
                1 = iommap_atomics:bor_get(Array, 1, 1)
            end || {Path, Handle, Array} <- Made],
            [Path || {Path, _, _} <- Made]
        end),
        [ok = test_processes:eventually(fun() -> test_system:held(Path) =:= {[], []} end) || Path <- Paths],
        ok
    end).

%% A view taken by any generation is read, and survives the loss of its file, in the newest.
views_of_every_generation_are_safe_in_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        Page = test_pattern:page(),
        Size = 12 * Page + 848,
        Views = over_generations(Directory, 6, fun(Generation) ->
            {Path, Handle} = open(Directory, Generation, Size),
            {ok, View} = iommap:region_binary(Handle, 0, Size),
            {Path, Handle, View}
        end),
        Whole = test_pattern:bytes(Size),
        [begin
            true = View =:= Whole,
            true = iommap:intact(View),
            [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Page, Path])),
            {error, sigbus} = iommap:pread(Handle, 0, Size),
            false = iommap:intact(View),
            true = iommap:intact(binary:part(View, 0, Page)),
            true = View =:= <<(test_pattern:bytes(Page))/binary, (test_pattern:zeros(Size - Page))/binary>>,
            {error, sigbus} = iommap:pread(Handle, 0, 1),
            {ok, Page} = iommap:remap(Handle),
            {ok, <<1>>} = iommap:pread(Handle, 0, 1),
            false = iommap:intact(View)
        end || {Path, Handle, View} <- Views],
        ok
    end).

%% list/0 of the newest generation has the mappings of all, in the order in which they were made, with what is open, what only a view
%% keeps, and what is lost.
mappings_of_every_generation_are_listed_oldest_first(Config) ->
    in_vm(Config, fun(Directory) ->
        Kept = over_generations(Directory, 6, fun(Generation) ->
            {Lost, Open} = open(Directory, {lost, Generation}, 20_000),
            {_, Closed} = open(Directory, {closed, Generation}, 10_000),
            {ok, View} = iommap:region_binary(Closed, 0, 10_000),
            {ok, _} = {ok, LostView} = iommap:region_binary(Open, 0, 20_000),
            [] = os:cmd("truncate -s 0 '" ++ Lost ++ "'"),
            _ = erlang:crc32(LostView),
            ok = iommap:close(Closed),
            {Open, View, LostView}
        end),
        Expected = [{filename:basename(Name), State, Faulted, 1}
            || Generation <- lists:seq(1, 6),
               {Name, State, Faulted} <- [{io_lib:format("file-~p", [{lost, Generation}]), open, true},
                                          {io_lib:format("file-~p", [{closed, Generation}]), closed, false}]],
        Listed = [{binary_to_list(filename:basename(Path)), State, Faulted, Views}
            || #{path := Path, handle := State, faulted := Faulted, views := Views} <- iommap:list()],
        {Expected, Expected} = {Listed, Expected},
        6 = length(Kept)
    end).

%% What one generation noticed, the next one tells.
a_fault_of_an_old_generation_is_known_to_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        {Path, Handle} = open(Directory, fault, 50_000),
        {ok, View} = iommap:region_binary(Handle, 0, 50_000),
        [] = os:cmd("truncate -s 0 " ++ Path),
        _ = erlang:crc32(View),
        put_in_place(Directory, alternate_layout),
        ok = reload(),
        [] = os:cmd("truncate -s 50000 " ++ Path),
        {error, sigbus} = iommap:pread(Handle, 0, 1),
        false = iommap:intact(View),
        ok = iommap:truncate(Handle, 20_000),
        {ok, <<0>>} = iommap:pread(Handle, 0, 1)
    end).

%% Purging the code of a generation, or what is purged already, leaves its handles, views and handler alone.
old_code_is_purged_while_its_handles_live(Config) ->
    in_vm(Config, fun(Directory) ->
        Whole = test_pattern:bytes(50_000),
        {Path, Handle} = open(Directory, purge, 50_000),
        {ok, View} = iommap:region_binary(Handle, 0, 50_000),
        [begin
            _ = code:purge(iommap),
            Library =:= unchanged orelse put_in_place(Directory, Library),
            ok = reload(),
            _ = code:purge(iommap),
            false = erlang:check_old_code(iommap),
            {ok, Whole} = iommap:pread(Handle, 0, 50_000),
            Whole = binary:copy(View)
        end || Library <- [unchanged, alternate_layout, unchanged, same]],
        everything_works(Path, Handle),
        true = iommap:intact(View)
    end).

%% With no code of ours left at all, a view that loses its file is still safe, and intact/1 speaks of it
%% once the library is back. The VM has forgotten what the handles were: they are no handles any more. What they had is given
%% back all the same.
the_module_is_deleted_and_purged_while_its_views_live(Config) ->
    in_vm(Config, fun(Directory) ->
        Page = test_pattern:page(),
        Size = 12 * Page + 848,
        Path = test_processes:in_a_process(fun() -> delete_and_load_again(Directory, Page, Size) end),
        ok = test_processes:eventually(fun() -> test_system:held(Path) =:= {[], []} end),
        {Other, New} = open(Directory, anew, 10_000),
        everything_works(Other, New)
    end).

delete_and_load_again(Directory, Page, Size) ->
    {Path, Handle} = open(Directory, delete, Size),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    {module, iommap} = code:load_file(iommap),
    code:purge(iommap),
    true = code:delete(iommap),
    code:purge(iommap),
    false = erlang:module_loaded(iommap),
    [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Page, Path])),
    true = View =:= <<(test_pattern:bytes(Page))/binary, (test_pattern:zeros(Size - Page))/binary>>,
    {module, iommap} = code:load_file(iommap),
    false = iommap:intact(View),
    true = iommap:intact(binary:part(View, 0, Page)),
    badarg = try iommap:pread(Handle, 0, 1) catch error:Reason -> Reason end,
    Path.

%% Putting zero pages under a view may need one map entry more than there is, also for a generation that
%% was not the first.
a_lost_view_of_a_later_generation_is_read_though_the_map_count_is_exhausted(Config) ->
    test_limits:alone(fun() ->
        in_vm(Config, fun(Directory) ->
            {_, _Old} = open(Directory, old, 10_000),
            put_in_place(Directory, alternate_layout),
            ok = reload(),
            Page = test_pattern:page(),
            {Path, Handle} = open(Directory, new, 3 * Page),
            {ok, View} = iommap:region_binary(Handle, 0, 3 * Page),
            _Held = test_limits:exhaust_map_count(Path),
            [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Page, Path])),
            Zeros = test_pattern:zeros(2 * Page),
            Zeros = binary:copy(binary:part(View, Page, 2 * Page)),
            false = iommap:intact(View),
            {error, sigbus} = iommap:pread(Handle, 0, 1)
        end)
    end).

%% A view of one generation that has lost its file, as data for a handle of the next one: the write is
%% an error, its target is what it was, and the view's own handle has met no fault.
writing_a_lost_view_of_an_old_generation_is_an_error_and_harms_neither_file(Config) ->
    in_vm(Config, fun(Directory) ->
        {Path, Source} = open(Directory, source, 10_000),
        write_a_view_of_an_old_generation(Directory, Source, fun() -> [] = os:cmd("truncate -s 0 " ++ Path) end),
        ok = file:write_file(Path, test_pattern:bytes(10_000)),
        everything_works(Path, Source)
    end).

%% The same with a view whose pages cannot be read.
writing_a_failing_view_of_an_old_generation_is_an_error_and_harms_neither_file(Config) ->
    test_scene:on_faultfs(Config, fun(Mount, Path) ->
        in_vm(Config, fun(Directory) ->
            {ok, Source} = iommap:open(Path, read_write, []),
            write_a_view_of_an_old_generation(Directory, Source, fun() ->
                ok = test_mounts:control(Mount, "slow", {eio, [0, 10_000]}),
                test_files:drop_cache(Path)
            end),
            ok = test_mounts:control(Mount, "slow", {clear, []}),
            everything_works(Path, Source)
        end)
    end).

write_a_view_of_an_old_generation(Directory, Source, MakeTrouble) ->
    {ok, View} = iommap:region_binary(Source, 0, 10_000),
    put_in_place(Directory, alternate_layout),
    ok = reload(),
    {Path, Target} = open(Directory, target, 20_000),
    Whole = test_pattern:bytes(20_000),
    ok = iommap:pwrite(Target, 0, Whole),
    MakeTrouble(),
    {error, sigbus} = iommap:pwrite(Target, 5000, View),
    {error, sigbus} = iommap:pwrite(Target, 5000, [<<"begin">>, View]),
    {ok, #{faulted := false}} = iommap:info(Source),
    {ok, #{faulted := false}} = iommap:info(Target),
    {ok, Whole} = iommap:pread(Target, 0, 20_000),
    everything_works(Path, Target).

%% The other way round: a view of the next generation that has lost its file, and showed it, as data for a
%% handle of the one before.
writing_a_lost_view_with_a_handle_of_an_old_generation_is_an_error_and_harms_neither_file(Config) ->
    in_vm(Config, fun(Directory) ->
        {Path, Target} = open(Directory, target, 20_000),
        put_in_place(Directory, alternate_layout),
        ok = reload(),
        {Lost, Source} = open(Directory, source, 10_000),
        {ok, View} = iommap:region_binary(Source, 0, 10_000),
        [] = os:cmd("truncate -s 0 " ++ Lost),
        Zeros = test_pattern:zeros(10_000),
        Zeros = binary:copy(View),
        false = iommap:intact(View),
        {error, sigbus} = iommap:pwrite(Target, 0, View),
        {error, sigbus} = iommap:pwrite(Target, 0, [<<"begin">>, View]),
        {ok, #{faulted := false}} = iommap:info(Target),
        Whole = test_pattern:bytes(20_000),
        {ok, Whole} = file:read_file(Path),
        0 = filelib:file_size(Lost),
        everything_works(Path, Target)
    end).

%% A generation that cannot be understood: its handles raise badarg, its views are read on, and neither
%% harms the VM when it is collected.
objects_of_an_unknown_abi_raise_badarg_and_are_collected(Config) ->
    in_vm(Config, fun(Directory) ->
        put_in_place(Directory, unknown_abi),
        {Holder, Monitor} = spawn_monitor(fun() ->
            {_, Handle} = open(Directory, unknown, 10_000),
            {ok, View} = iommap:region_binary(Handle, 0, 10_000),
            Array = iommap_atomics:new(Handle, 0, 8, []),
            put_in_place(Directory, same),
            ok = reload(),
            [badarg = try Call(Handle) catch error:Reason -> Reason end || Call <- every_call()],
            [badarg = try Call() catch error:Reason -> Reason end
             || Call <- [fun() -> iommap_atomics:new(Handle, 0, 8, []) end, fun() -> iommap_atomics:get(Array, 1) end]],
            Whole = test_pattern:bytes(10_000),
            Whole = binary:copy(View),
            true = iommap:intact(View),
            exit(done)
        end),
        receive {'DOWN', Monitor, process, Holder, Reason} -> done = Reason end,
        [erlang:garbage_collect(Process) || Process <- processes()],
        {Path, Ours} = open(Directory, ours, 10_000),
        everything_works(Path, Ours)
    end).

every_call() ->
    [fun(Handle) -> iommap:pread(Handle, 0, 1) end,
     fun(Handle) -> iommap:pwrite(Handle, 0, <<1>>) end,
     fun(Handle) -> iommap:pread(Handle, [{0, 1}]) end,
     fun(Handle) -> iommap:pwrite(Handle, [{0, <<1>>}]) end,
     fun(Handle) -> iommap:region_binary(Handle, 0, 1) end,
     fun(Handle) -> iommap:sync(Handle) end,
     fun(Handle) -> iommap:sync(Handle, async) end,
     fun(Handle) -> iommap:sync(Handle, 0, 1, sync) end,
     fun(Handle) -> iommap:resident(Handle, 0, 1) end,
     fun(Handle) -> iommap:lock(Handle, 0, 1) end,
     fun(Handle) -> iommap:unlock(Handle, 0, 1) end,
     fun(Handle) -> iommap:truncate(Handle, 10) end,
     fun(Handle) -> iommap:remap(Handle) end,
     fun(Handle) -> iommap:advise(Handle, 0, 0, random) end,
     fun(Handle) -> iommap:position(Handle) end,
     fun(Handle) -> iommap:info(Handle) end,
     fun(Handle) -> iommap:close(Handle) end].

%% A panic inside the library raises where it was called; the VM and the other handles go on. This
%% library panics on purpose.
a_panic_is_an_exception_of_its_caller_alone(Config) ->
    in_vm(Config, fun(Directory) ->
        put_in_place(Directory, unknown_abi),
        {Path, Handle} = open(Directory, before, 10_000),
        [nif_panicked = try iommap:open(<<"panic on purpose">>, read, []) catch error:Reason -> Reason end
         || _ <- lists:seq(1, 10)],
        everything_works(Path, Handle),
        {Other, New} = open(Directory, afterwards, 10_000),
        everything_works(Other, New)
    end).
