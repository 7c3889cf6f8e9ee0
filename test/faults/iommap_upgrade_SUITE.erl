%% The library is loaded again and again in a VM that never stops: the same file, and one that was built again with other
%% layouts and statics; by hand and by a release upgrade. Every case has a VM and a copy of the application of its own.
-module(iommap_upgrade_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_generations, [in_vm/2, over_generations/3, reload/0, put_in_place/2, open/3, everything_works/2]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [the_same_library_is_loaded_again_under_load,
     a_rebuilt_library_is_loaded_under_load,
     objects_are_made_while_the_library_is_loaded_without_a_pause,
     a_call_inside_the_old_generation_ends_well_in_the_new_one,
     a_call_inside_the_old_generation_is_killed_by_a_purge_and_the_vm_lives,
     sixty_generations_pass_on_a_foreign_handlers_fault,
     sixty_generations_end_the_vm_by_sigbus_for_nobodys_fault,
     handles_collected_in_a_later_generation_give_everything_back,
     a_release_upgrade_keeps_handles_and_views].

init_per_suite(Config) ->
    test_generations:build(Config).

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    test_generations:start_vm(Config, #{}).

end_per_testcase(_Case, Config) ->
    test_generations:stop_vm(Config).

%% ---- Loading under load -----------------------------------------------------------------------

%% code:load_file/1 succeeds as often as one likes while many processes open, read, write, take views and close,
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
    test_vm:run(?config(vm, Config), fun() ->
        ok = logger:set_primary_config(level, none),
        {Path, Handle} = open(Directory, made, 10_000),
        Makers = [spawn_monitor(fun() -> make_objects(Path) end) || _ <- lists:seq(1, 6)],
        ok = load_until(erlang:monotonic_time(millisecond) + 10_000, 200),
        [Maker ! stop || {Maker, _} <- Makers],
        [receive {'DOWN', Monitor, process, _, Reason} -> stopped = Reason end || {_, Monitor} <- Makers],
        everything_works(Path, Handle),
        ok = test_processes:eventually(fun() -> mappings(Directory) =:= 0 end),
        ok = test_processes:eventually(fun() -> descriptors(Directory) =:= 0 end)
    end).

make_objects(Path) ->
    receive
        stop -> exit(stopped)
    after 0 ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 5000, 1000),
        true = View =:= test_pattern:bytes(5000, 1000),
        make_objects(Path)
    end.

%% Loads the library over and over until then, and so many times at least.
load_until(Deadline, Least) ->
    case Least > 0 orelse erlang:monotonic_time(millisecond) < Deadline of
        true -> load_until(Deadline, Least - load_if_possible());
        false -> ok
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
    test_scene:on_faultfs(Config, fun(Mount, Path) ->
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

%% ---- Who works meanwhile -----------------------------------------------------------------------

%% Processes that open, read, write and take views of a file each, and of one that they share, checking
%% every answer.
start_workers(Directory) ->
    {_, Shared} = open(Directory, shared, 200_000),
    [begin
        Counter = counters:new(1, []),
        {Pid, Monitor} = spawn_monitor(fun() ->
            {Path, Own} = open(Directory, {worker, N}, 100_000),
            work(Path, Own, Shared, Counter)
        end),
        {Pid, Monitor, Counter}
    end || N <- lists:seq(1, 8)].

work(Path, Own, Shared, Counter) ->
    receive
        stop -> exit(stopped)
    after 0 ->
        Offset = rand:uniform(90_000),
        Bytes = test_pattern:bytes(Offset, 5000),
        ok = iommap:pwrite(Own, Offset, Bytes),
        {ok, Bytes} = iommap:pread(Own, Offset, 5000),
        {ok, Bytes} = iommap:region_binary(Shared, Offset, 5000),
        {ok, <<_, _/binary>>} = iommap:pread(Shared, 0, 200_000),
        {ok, #{size := 100_000}} = iommap:info(Own),
        {ok, Other} = iommap:open(Path, read, []),
        {ok, Bytes} = iommap:pread(Other, Offset, 5000),
        ok = iommap:close(Other),
        counters:add(Counter, 1, 1),
        work(Path, Own, Shared, Counter)
    end.

count(Workers) ->
    [counters:get(Counter, 1) || {_, _, Counter} <- Workers].

stop_workers(Workers) ->
    [Pid ! stop || {Pid, _, _} <- Workers],
    [receive {'DOWN', Monitor, process, _, Reason} -> stopped = Reason end || {_, Monitor, _} <- Workers],
    ok.
