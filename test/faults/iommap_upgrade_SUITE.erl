%% The library is loaded again and again in a VM that never stops: the same file, and one that was built
%% again with other layouts and statics; by hand and by a release upgrade. Every case has a VM and a
%% copy of the application of its own.
-module(iommap_upgrade_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [the_same_library_is_loaded_again_under_load,
     a_rebuilt_library_is_loaded_under_load,
     objects_are_made_while_the_library_is_loaded_without_a_pause,
     handles_of_every_generation_work_in_the_newest,
     views_of_every_generation_are_safe_in_the_newest,
     a_fault_of_an_old_generation_is_known_to_the_newest,
     old_code_is_purged_while_its_handles_live,
     the_module_is_deleted_and_purged_while_its_views_live,
     a_lost_view_of_a_later_generation_is_read_though_the_map_count_is_exhausted,
     writing_a_lost_view_of_an_old_generation_is_an_error_and_harms_neither_file,
     writing_a_failing_view_of_an_old_generation_is_an_error_and_harms_neither_file,
     writing_a_lost_view_with_a_handle_of_an_old_generation_is_an_error_and_harms_neither_file,
     objects_of_an_unknown_abi_raise_badarg_and_are_collected,
     a_panic_is_an_exception_of_its_caller_alone,
     a_call_inside_the_old_generation_ends_well_in_the_new_one,
     a_call_inside_the_old_generation_is_killed_by_a_purge_and_the_vm_lives,
     sixty_generations_pass_on_a_foreign_handlers_fault,
     sixty_generations_end_the_vm_by_sigbus_for_nobodys_fault,
     handles_collected_in_a_later_generation_give_everything_back,
     a_release_upgrade_keeps_handles_and_views].

init_per_suite(Config) ->
    ok = test_tools:build(),
    ok = test_tools:build("alternate_layout"),
    ok = test_tools:build("unknown_abi"),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = test_files:case_directory(Config),
    Application = filename:join(Directory, "iommap"),
    {0, _} = test_system:shell(["cp -r ", test_tools:built("iommap"), " ", Application]),
    Vm = test_vm:start(#{application => Application}),
    [{vm, Vm}, {directory, Directory} | Config].

end_per_testcase(_Case, Config) ->
    test_vm:stop(?config(vm, Config)).

%% ---- Loading under load -----------------------------------------------------------------------

%% code:load_file/1 succeeds as often as one likes while many processes read, write and take views,
%% and none of them notices.
the_same_library_is_loaded_again_under_load(Config) ->
    in_vm(Config, fun(Directory) ->
        Workers = start_workers(Directory),
        [load(Workers, Directory) || _ <- lists:seq(1, 30)],
        stop_workers(Workers)
    end).

%% The same with a library that was built again: a new image each time, in turns of two layouts.
a_rebuilt_library_is_loaded_under_load(Config) ->
    in_vm(Config, fun(Directory) ->
        Workers = start_workers(Directory),
        [load(Workers, Directory, Library) || _ <- lists:seq(1, 10), Library <- [alternate_layout, same]],
        stop_workers(Workers)
    end).

%% Handles and views are made and collected while one load follows the other: the VM takes over the types
%% of objects that are just being made, goes on, and everything comes back.
objects_are_made_while_the_library_is_loaded_without_a_pause(Config) ->
    Directory = ?config(directory, Config),
    Loads = test_vm:run(?config(vm, Config), fun() ->
        ok = logger:set_primary_config(level, none),
        {Path, Handle} = open(Directory, made, 10_000),
        Makers = [spawn_monitor(fun() -> make_objects(Path) end) || _ <- lists:seq(1, 6)],
        Made = load_until(erlang:monotonic_time(millisecond) + 10_000, 0),
        [Maker ! stop || {Maker, _} <- Makers],
        [receive {'DOWN', Monitor, process, _, Reason} -> stopped = Reason end || {_, Monitor} <- Makers],
        everything_works(Path, Handle),
        ok = test_processes:eventually(fun() -> mappings(Directory) =:= 0 end),
        ok = test_processes:eventually(fun() -> descriptors(Directory) =:= 0 end),
        Made
    end, 45_000),
    true = Loads > 200.

make_objects(Path) ->
    receive
        stop -> exit(stopped)
    after 0 ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 5000, 1000),
        true = View =:= test_pattern:bytes(5000, 1000),
        make_objects(Path)
    end.

%% How often the library was loaded by then.
load_until(Deadline, Loads) ->
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> load_until(Deadline, Loads + load_if_possible());
        false -> Loads
    end.

load_if_possible() ->
    case code:soft_purge(iommap) of
        true -> {module, iommap} = code:load_file(iommap), 1;
        false -> 0
    end.

load(Workers, Directory) ->
    Before = count(Workers),
    ok = reload(),
    %% Every worker has gone on before the next one comes.
    ok = test_processes:eventually(fun() ->
        lists:all(fun({Old, New}) -> New > Old end, lists:zip(Before, count(Workers)))
    end),
    true = lists:all(fun({Worker, _, _}) -> is_process_alive(Worker) end, Workers),
    {ok, _} = file:list_dir(Directory).

load(Workers, Directory, Library) ->
    put_in_place(Directory, Library),
    load(Workers, Directory).

%% ---- Objects of other generations -------------------------------------------------------------

%% A handle opened by any generation takes every call of the newest.
handles_of_every_generation_work_in_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        Handles = over_generations(Directory, 6, fun(Generation) ->
            {Path, Handle} = open(Directory, Generation, 10_000),
            {Path, Handle}
        end),
        [everything_works(Path, Handle) || {Path, Handle} <- Handles],
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

%% Purging the code of a generation leaves its handles, views and handler alone.
old_code_is_purged_while_its_handles_live(Config) ->
    in_vm(Config, fun(Directory) ->
        {Path, Handle} = open(Directory, purge, 50_000),
        {ok, View} = iommap:region_binary(Handle, 0, 50_000),
        put_in_place(Directory, alternate_layout),
        ok = reload(),
        code:purge(iommap),
        false = erlang:check_old_code(iommap),
        everything_works(Path, Handle),
        true = is_binary(binary:copy(View))
    end).

%% With no code of ours left at all, a view that loses its file is still safe, and intact/1 speaks of it
%% once the library is back. The VM has forgotten what the handles were: they are no handles any more.
the_module_is_deleted_and_purged_while_its_views_live(Config) ->
    in_vm(Config, fun(Directory) ->
        Page = test_pattern:page(),
        Size = 12 * Page + 848,
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
        {Other, New} = open(Directory, anew, 10_000),
        everything_works(Other, New)
    end).

%% Putting zero pages under a view may need one map entry more than there is, also for a generation that
%% was not the first.
a_lost_view_of_a_later_generation_is_read_though_the_map_count_is_exhausted(Config) ->
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
    on_faultfs(Config, fun(Mount, Path) ->
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
            put_in_place(Directory, same),
            ok = reload(),
            [badarg = try Call(Handle) catch error:Reason -> Reason end || Call <- every_call()],
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
     fun(Handle) -> iommap:region_binary(Handle, 0, 1) end,
     fun(Handle) -> iommap:sync(Handle) end,
     fun(Handle) -> iommap:sync(Handle, async) end,
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

%% ---- A call that is under way -----------------------------------------------------------------

%% A read hangs in the file system while the library is replaced: it ends with the right bytes.
a_call_inside_the_old_generation_ends_well_in_the_new_one(Config) ->
    with_hanging_read(Config, fun(Directory, Reader, Release) ->
        put_in_place(Directory, alternate_layout),
        {module, iommap} = code:load_file(iommap),
        {_, Handle} = open(Directory, meanwhile, 10_000),
        {ok, _} = iommap:pread(Handle, 0, 10_000),
        Release(),
        Expected = {ok, test_pattern:bytes(10_000)},
        receive {Reader, Result} -> Expected = Result end,
        ok
    end).

%% A purge kills the process that still runs the old code, as OTP says; nothing else is harmed.
a_call_inside_the_old_generation_is_killed_by_a_purge_and_the_vm_lives(Config) ->
    with_hanging_read(Config, fun(Directory, Reader, Release) ->
        Monitor = monitor(process, Reader),
        put_in_place(Directory, alternate_layout),
        {module, iommap} = code:load_file(iommap),
        Purger = spawn_monitor(fun() -> code:purge(iommap) end),
        receive {'DOWN', Monitor, process, Reader, Reason} -> killed = Reason end,
        {_, Handle} = open(Directory, meanwhile, 10_000),
        {ok, _} = iommap:pread(Handle, 0, 10_000),
        Release(),
        receive {'DOWN', _, process, _, _} = Down -> {Process, Reference} = Purger,
                {'DOWN', Reference, process, Process, normal} = Down end,
        {Path, Other} = open(Directory, afterwards, 10_000),
        everything_works(Path, Other)
    end).

with_hanging_read(Config, Function) ->
    on_faultfs(Config, fun(Mount, Path) ->
        in_vm(Config, fun(Directory) ->
            Self = self(),
            {ok, Handle} = iommap:open(Path, read, []),
            ok = test_mounts:control(Mount, "slow", {hang, []}),
            test_files:drop_cache(Path),
            Reader = spawn(fun() -> Self ! {self(), iommap:pread(Handle, 0, 10_000)} end),
            ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
            Function(Directory, Reader, fun() -> ok = test_mounts:control(Mount, "slow", {release, []}) end)
        end)
    end).

%% Evaluates the function with the path of a file that may be in trouble.
on_faultfs(Config, Function) ->
    case test_mounts:mount(faultfs, ?config(directory, Config)) of
        {ok, Mount} ->
            Path = test_mounts:path(Mount, "slow"),
            ok = file:write_file(Path, test_pattern:bytes(10_000)),
            {0, _} = test_system:shell(["sync ", Path]),
            try
                Function(Mount, Path)
            after
                test_mounts:control(Mount, "slow", {clear, []}),
                test_mounts:unmount(Mount)
            end;
        Skip ->
            Skip
    end.

%% ---- Many generations -------------------------------------------------------------------------

%% A VM that was upgraded sixty times has sixty images of the library and one signal stack: a
%% foreign handler's fault still finds its way to that handler, and a view of the first generation to us.
sixty_generations_pass_on_a_foreign_handlers_fault(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(not_chaining),
        [{Path, _, View} | _] = sixty_generations(Directory),
        recovered = foreign_handler:recover(),
        recovered = foreign_handler:recover_dirty(),
        [] = os:cmd("truncate -s 0 " ++ Path),
        Zeros = test_pattern:zeros(10_000),
        Zeros = binary:copy(View),
        false = iommap:intact(View)
    end).

%% And nobody's fault ends the VM by SIGBUS, not by a stack that overflows.
sixty_generations_end_the_vm_by_sigbus_for_nobodys_fault(Config) ->
    in_vm(Config, fun sixty_generations/1),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

sixty_generations(Directory) ->
    over_generations(Directory, 60, fun(Generation) ->
        {Path, Handle} = open(Directory, Generation, 10_000),
        {ok, View} = iommap:region_binary(Handle, 0, 10_000),
        {Path, Handle, View}
    end).

%% Destructors of any generation run in the newest: descriptors and address ranges come back.
handles_collected_in_a_later_generation_give_everything_back(Config) ->
    in_vm(Config, fun(Directory) ->
        Holder = spawn_link(fun() ->
            Held = over_generations(Directory, 6, fun(Generation) ->
                [open(Directory, {Generation, N}, 10_000) || N <- lists:seq(1, 50)]
            end),
            receive finish -> length(Held) end
        end),
        ok = test_processes:eventually(fun() -> mappings(Directory) =:= 300 end),
        Holder ! finish,
        ok = test_processes:eventually(fun() -> mappings(Directory) =:= 0 end),
        ok = test_processes:eventually(fun() -> descriptors(Directory) =:= 0 end)
    end).

mappings(Directory) ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    length(binary:matches(Maps, list_to_binary(filename:join(Directory, "file-")))).

descriptors(Directory) ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    Targets = [Target || Name <- Names, {ok, Target} <- [file:read_link(filename:join("/proc/self/fd", Name))]],
    length([Target || Target <- Targets, string:find(Target, filename:join(Directory, "file-")) =/= nomatch]).

%% ---- A release upgrade ------------------------------------------------------------------------

%% release_handler installs a release with another build of iommap; a process that keeps a handle and
%% a view across it goes on with both, an application that runs on iommap does not notice, and the release
%% is made permanent.
a_release_upgrade_keeps_handles_and_views(Config) ->
    Root = filename:join(?config(directory, Config), "release"),
    Old = release(Root, "1", "2.0.0-old", test_tools:built("iommap/priv/iommap_nif.so"), []),
    New = release(Root, "2", "2.0.0-new", test_tools:built("alternate_layout/iommap_nif.so"), ["2.0.0-old"]),
    make_relup(Root, New, Old),
    Vm = test_vm:start(#{
        application => maps:get(application, Old),
        args => ["-boot", filename:join([Root, "releases", "1", "start"]),
                 "-kernel", "logger_level", "error",
                 "-pa", filename:join([Root, "lib", "tally-1.0.0", "ebin"]),
                 "-tally", "file", "\"" ++ filename:join(Root, "tally") ++ "\""],
        env => [{"RELDIR", filename:join(Root, "releases")}]
    }),
    try
        test_vm:run(Vm, fun() -> upgrade(Root, Old, New) end)
    after
        test_vm:stop(Vm)
    end.

upgrade(Root, Old, New) ->
    Libraries = filename:join(Root, "lib"),
    ok = release_handler:create_RELEASES(code:root_dir(), filename:join(Root, "releases"), maps:get(rel, Old),
                                         [{iommap, "2.0.0-old", Libraries}, {tally, "1.0.0", Libraries}]),
    {Path, Handle} = open(Root, kept, 50_000),
    {ok, View} = iommap:region_binary(Handle, 0, 50_000),
    [1, 2] = [tally:next() || _ <- [a, b]],
    Tally = whereis(tally),
    OldImages = images(),
    {ok, "2"} = release_handler:set_unpacked(maps:get(rel, New),
                                             [{iommap, "2.0.0-new", Libraries}, {tally, "1.0.0", Libraries}]),
    {ok, "1", _} = release_handler:install_release("2"),
    ok = release_handler:make_permanent("2"),
    {ok, "2.0.0-new"} = application:get_key(iommap, vsn),
    true = images() > OldImages,
    true = iommap:intact(View),
    everything_works(Path, Handle),
    Tally = whereis(tally),
    [3, 4] = [tally:next() || _ <- [a, b]],
    {ok, <<4:64>>} = file:read_file(filename:join(Root, "tally")).

%% How many libraries of ours the VM has loaded.
images() ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    Files = [lists:last(string:lexemes(Line, " ")) || Line <- string:lexemes(binary_to_list(Maps), "\n"),
                                                       string:find(Line, "iommap_nif") =/= nomatch],
    length(lists:usort(Files)).

release(Root, Version, Vsn, Library, UpgradesFrom) ->
    Application = filename:join([Root, "lib", "iommap-" ++ Vsn]),
    Tally = filename:join([Root, "lib", "tally-1.0.0"]),
    {0, _} = test_system:shell(["mkdir -p ", Tally, " ", Root, "/releases/", Version,
                              " && cp -r ", test_tools:built("tally/ebin"), " ", Tally,
                              " && cp -r ", test_tools:built("iommap"), " ", Application,
                              " && cp ", Library, " ", Application, "/priv/iommap_nif.so"]),
    complete(Application, iommap, Vsn),
    complete(Tally, tally, "1.0.0"),
    Instructions = [{From, [{load_module, iommap}]} || From <- UpgradesFrom],
    write_term(filename:join([Application, "ebin", "iommap.appup"]), {Vsn, Instructions, Instructions}),
    Rel = filename:join([Root, "releases", Version, "iommap_release.rel"]),
    write_term(Rel, {release, {"iommap_release", Version}, {erts, erlang:system_info(version)},
                     [{iommap, Vsn}, {tally, "1.0.0"} | [{App, version(App)} || App <- [kernel, stdlib, sasl]]]}),
    Path = [filename:join(Application, "ebin"), filename:join(Tally, "ebin")
            | [filename:join(code:lib_dir(App), "ebin") || App <- [kernel, stdlib, sasl]]],
    ok = systools:make_script(filename:rootname(Rel), [{path, Path}, {outdir, filename:dirname(Rel)}, no_warn_sasl]),
    {0, _} = test_system:shell(["cp ", filename:rootname(Rel), ".boot ", filename:dirname(Rel), "/start.boot"]),
    #{rel => Rel, application => Application, path => Path}.

%% Writes what a build tool writes into an application's file.
complete(Directory, App, Vsn) ->
    File = filename:join([Directory, "ebin", atom_to_list(App) ++ ".app"]),
    {ok, [{application, App, Properties}]} = file:consult(File),
    Modules = [list_to_atom(filename:basename(Beam, ".beam")) || Beam <- filelib:wildcard(Directory ++ "/ebin/*.beam")],
    write_term(File, {application, App, [{vsn, Vsn}, {modules, Modules}
                                         | lists:keydelete(vsn, 1, lists:keydelete(modules, 1, Properties))]}).

make_relup(Root, #{rel := New, path := NewPath}, #{rel := Old, path := OldPath}) ->
    ok = systools:make_relup(filename:rootname(New), [filename:rootname(Old)], [filename:rootname(Old)],
                             [{path, NewPath ++ OldPath}, {outdir, filename:join([Root, "releases", "2"])}]).

version(App) ->
    _ = application:load(App),
    {ok, Vsn} = application:get_key(App, vsn),
    Vsn.

write_term(Path, Term) ->
    ok = file:write_file(Path, io_lib:format("~p.~n", [Term])).

%% ---- In the VM --------------------------------------------------------------------------------

in_vm(Config, Function) ->
    Directory = ?config(directory, Config),
    test_vm:run(?config(vm, Config), fun() -> Function(Directory) end).

%% What the function makes in each of so many generations, in turns of two layouts.
over_generations(Directory, Count, Make) ->
    [begin
        Made = Make(Generation),
        put_in_place(Directory, lists:nth(1 + Generation rem 2, [same, alternate_layout])),
        ok = reload(),
        Made
    end || Generation <- lists:seq(1, Count)].

%% The code of the generation before may still be running a call: it is not ours to kill.
reload() ->
    ok = test_processes:eventually(fun() -> code:soft_purge(iommap) end),
    {module, iommap} = code:load_file(iommap),
    ok.

%% Another library file with a rename, as a package manager does.
put_in_place(Directory, Library) ->
    Source = case Library of
        same -> test_tools:built("iommap/priv/iommap_nif.so");
        _ -> test_tools:built(filename:join(Library, "iommap_nif.so"))
    end,
    Target = filename:join([Directory, "iommap", "priv", "iommap_nif.so"]),
    {ok, _} = file:copy(Source, Target ++ ".new"),
    ok = file:rename(Target ++ ".new", Target).

open(Directory, Name, Size) ->
    Path = filename:join(Directory, lists:flatten(io_lib:format("file-~p", [Name]))),
    ok = file:write_file(Path, test_pattern:bytes(Size)),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Path, Handle}.

everything_works(Path, Handle) ->
    {ok, Size} = iommap:position(Handle),
    Whole = test_pattern:bytes(Size),
    {ok, Whole} = iommap:pread(Handle, 0, Size),
    ok = iommap:pwrite(Handle, 10, <<"written">>),
    {ok, View} = iommap:region_binary(Handle, 10, 7),
    <<"written">> = View,
    true = iommap:intact(View),
    ok = iommap:sync(Handle),
    ok = iommap:advise(Handle, 0, 0, random),
    ok = iommap:truncate(Handle, Size + 5000),
    {ok, <<0:5000/unit:8>>} = iommap:pread(Handle, Size, 5000),
    ok = file:write_file(Path, <<"more">>, [append]),
    {ok, More} = iommap:remap(Handle),
    More = Size + 5004,
    {ok, <<"more">>} = iommap:pread(Handle, Size + 5000, 4),
    {ok, #{size := More, faulted := false, mode := read_write}} = iommap:info(Handle),
    ok = iommap:close(Handle),
    {error, closed} = iommap:close(Handle),
    <<"written">> = View.

%% Processes that read, write and take views of a file each, and of one that they share, checking
%% every answer.
start_workers(Directory) ->
    {_, Shared} = open(Directory, shared, 200_000),
    [begin
        Counter = counters:new(1, []),
        {Pid, Monitor} = spawn_monitor(fun() ->
            {_, Own} = open(Directory, {worker, N}, 100_000),
            work(Own, Shared, Counter)
        end),
        {Pid, Monitor, Counter}
    end || N <- lists:seq(1, 8)].

work(Own, Shared, Counter) ->
    receive
        stop -> exit(stopped)
    after 0 ->
        Offset = rand:uniform(90_000),
        Bytes = test_pattern:bytes(Offset, 5000),
        ok = iommap:pwrite(Own, Offset, Bytes),
        {ok, Bytes} = iommap:pread(Own, Offset, 5000),
        {ok, Bytes} = iommap:region_binary(Shared, Offset, 5000),
        {ok, <<_, _/binary>>} = iommap:pread(Shared, 0, 200_000),
        counters:add(Counter, 1, 1),
        work(Own, Shared, Counter)
    end.

count(Workers) ->
    [counters:get(Counter, 1) || {_, _, Counter} <- Workers].

stop_workers(Workers) ->
    [Pid ! stop || {Pid, _, _} <- Workers],
    [receive {'DOWN', Monitor, process, _, Reason} -> stopped = Reason end || {_, Monitor, _} <- Workers],
    ok.
