%% File systems that hang, are frozen or go away: only who asks for their pages waits, and the VM can always end.
-module(iommap_hanging_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_files, [drop_cache/1]).
-import(test_scene, [on/3, on_mount/3, open_uncached/2, another_file_works/1, every_scheduler_runs/0,
                     thaw/1, waiting_threads/1, skip/1]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_hanging_file_system_keeps_only_its_callers_waiting,
     a_hanging_file_system_keeps_only_its_writers_waiting,
     a_sync_that_hangs_holds_up_no_reader_and_no_writer,
     the_cold_ranges_of_a_batch_are_all_asked_for_at_once,
     what_is_in_memory_of_a_hanging_file_system_is_at_hand,
     what_is_in_memory_of_a_hanging_layer_is_at_hand,
     a_handle_of_a_hanging_file_system_is_closed_from_elsewhere,
     a_hanging_file_system_does_not_keep_the_vm_from_halting,
     a_hanging_write_does_not_keep_the_vm_from_halting,
     a_reader_of_a_hanging_view_goes_on_when_the_file_system_does,
     a_hanging_view_does_not_keep_the_vm_from_being_killed,
     a_frozen_file_system_keeps_only_its_writer_waiting,
     a_file_system_that_goes_away_is_an_error].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    thaw(filename:join(?config(directory, Config), "ext4")).

%% ---- Hanging file systems ---------------------------------------------------------------------

%% Reads of a file that hangs wait; every scheduler, the other handles and the calls that need no
%% page go on, and the reads end well when the file system does.
a_hanging_file_system_keeps_only_its_callers_waiting(Config) ->
    hanging(Config, fun(Handle, Readers, Release, Directory) ->
        ok = every_scheduler_runs(),
        {ok, 1_000_000} = iommap:position(Handle),
        {ok, #{faulted := false}} = iommap:info(Handle),
        {ok, View} = iommap:region_binary(Handle, 0, 1_000_000),
        true = iommap:intact(View),
        ok = another_file_works(Directory),
        ok = every_scheduler_runs(),
        true = lists:all(fun is_process_alive/1, Readers),
        Release(),
        [receive {Reader, Result} -> {ok, <<_:1000/binary>>} = Result end || Reader <- Readers],
        ok
    end).

%% So do a pwrite, a truncate and a sync of files that hang.
a_hanging_file_system_keeps_only_its_writers_waiting(Config) ->
    Directory = ?config(directory, Config),
    on(Config, faultfs, fun(Mount) ->
        Calls = [{"pwrite", fun(Handle) -> iommap:pwrite(Handle, 500_000, <<"written">>) end},
                 {"truncate", fun(Handle) -> iommap:truncate(Handle, 2_000_000) end},
                 {"sync", fun iommap:sync/1}],
        Self = self(),
        Callers = [begin
            {ok, Handle} = open_uncached(Mount, Name),
            ok = iommap:pwrite(Handle, 0, <<"before">>),
            ok = test_mounts:control(Mount, Name, {hang, []}),
            {spawn(fun() -> Self ! {self(), Call(Handle)} end), Name, Handle}
        end || {Name, Call} <- Calls],
        try
            [ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, Name) > 0 end) || {_, Name, _} <- Callers],
            ok = every_scheduler_runs(),
            ok = another_file_works(Directory),
            ok = every_scheduler_runs(),
            true = lists:all(fun({Caller, _, _}) -> is_process_alive(Caller) end, Callers)
        after
            [test_mounts:control(Mount, Name, {release, []}) || {_, Name, _} <- Callers]
        end,
        [receive {Caller, Result} -> ok = Result end || {Caller, _, _} <- Callers],
        [{ok, <<"before">>} = iommap:pread(Handle, 0, 6) || {_, _, Handle} <- Callers],
        ok
    end).

%% While the sync of a range hangs, the same handle reads in that range and writes in others, and tells what it is.
a_sync_that_hangs_holds_up_no_reader_and_no_writer(Config) ->
    outliving(Config, fun(Mount, Vm) ->
        Caller = test_vm:begin_run(Vm, fun() ->
            {ok, Handle} = open_uncached(Mount, "slow"),
            [ok = iommap:pwrite(Handle, Offset, <<"before">>) || Offset <- [0, 500_000]],
            ok = test_mounts:control(Mount, "slow", {hang, []}),
            Self = self(),
            Syncer = spawn(fun() -> Self ! {self(), iommap:sync(Handle, 0, 6, sync)} end),
            ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
            {ok, <<"before">>} = iommap:pread(Handle, 0, 6),
            ok = iommap:pwrite(Handle, 500_000, <<"beside">>),
            {ok, <<"beside">>} = iommap:pread(Handle, 500_000, 6),
            {ok, View} = iommap:region_binary(Handle, 0, 6),
            <<"before">> = View,
            {ok, #{faulted := false}} = iommap:info(Handle),
            true = is_process_alive(Syncer),
            ok = test_mounts:control(Mount, "slow", {release, []}),
            receive {Syncer, Synced} -> Synced end
        end),
        receive {Caller, Result} -> ok = Result after 60_000 -> error(waits) end
    end).

%% A pread of many cold ranges, and a pwrite to as many, has asked for all of them before the first is answered; meanwhile every
%% scheduler runs. (The file system is counted on, not a clock: nothing is answered until all were asked for.)
the_cold_ranges_of_a_batch_are_all_asked_for_at_once(Config) ->
    Offsets = [N * 3 * test_pattern:page() + 17 || N <- lists:seq(1, 64)],
    Ranges = [{Offset, 8} || Offset <- Offsets],
    Expected = test_pattern:bytes(1_000_000),
    outliving(Config, fun(Mount, Vm) ->
        Before = {ok, [binary:part(Expected, Range) || Range <- Ranges]},
        Before = asked_for_at_once(Mount, Vm, fun(Handle) -> iommap:pread(Handle, Ranges) end, Ranges),
        Written = {ok, [<<Offset:64>> || Offset <- Offsets]},
        Written = asked_for_at_once(Mount, Vm, fun(Handle) ->
            ok = iommap:pwrite(Handle, [{Offset, <<Offset:64>>} || Offset <- Offsets]),
            iommap:pread(Handle, Ranges)
        end, Ranges),
        ok
    end).

asked_for_at_once(Mount, Vm, Call, Ranges) ->
    Caller = test_vm:begin_run(Vm, fun() ->
        {ok, Handle} = open_uncached(Mount, "slow"),
        ok = test_mounts:control(Mount, "slow", {hang, []}),
        Before = test_mounts:reads(Mount, "slow"),
        Self = self(),
        Batch = spawn(fun() -> Self ! {self(), Call(Handle)} end),
        ok = test_processes:eventually(fun() -> test_mounts:reads(Mount, "slow") - Before >= length(Ranges) end),
        ok = every_scheduler_runs(),
        true = is_process_alive(Batch),
        ok = test_mounts:control(Mount, "slow", {release, []}),
        receive {Batch, Answer} -> Answer end
    end),
    receive {Caller, Answer} -> Answer after 60_000 -> error(waits) end.

%% Reads and views of pages in memory wait for nothing, not even where a page of zeros raises the question how long the file
%% is, and the kernel would have to ask again. (It believes an answer for a second.) A handle that is collected meanwhile, and
%% whose file is closed with it, keeps no scheduler.
what_is_in_memory_of_a_hanging_file_system_is_at_hand(Config) ->
    outliving(Config, fun(Mount, Vm) -> zeros_are_at_hand(Mount, test_mounts:path(Mount, "slow"), Vm) end).

%% The same where an overlay, as containers have, shows the file of a file system that hangs.
what_is_in_memory_of_a_hanging_layer_is_at_hand(Config) ->
    Directory = ?config(directory, Config),
    [Upper, Overlay] = Made = [filename:join(Directory, Name) || Name <- ["upper", "overlay"]],
    outliving(Config, fun(#{point := Lower} = Mount, Vm) ->
        {0, _} = test_system:shell(["mkdir ", lists:join(" ", Made)]),
        %% The upper layer has to be on a file system that can be one.
        {0, _} = test_system:shell(["mount -t tmpfs iommap-test ", Upper, " && mkdir ", Upper, "/u ", Upper, "/w"]),
        Options = ["lowerdir=", Lower, ",upperdir=", Upper, "/u,workdir=", Upper, "/w"],
        try test_system:shell(["mount -t overlay -o ", Options, " iommap-test ", Overlay]) of
            {0, _} -> zeros_are_at_hand(Mount, filename:join(Overlay, "slow"), Vm);
            {_, Output} -> skip(["no overlay: ", Output])
        after
            ok = test_mounts:control(Mount, "slow", {release, []}),
            test_system:shell(["umount -l ", Overlay, "; umount -l ", Upper])
        end
    end).

zeros_are_at_hand(Mount, Path, Vm) ->
    Zeros = test_pattern:zeros(100_000),
    ok = file:write_file(test_mounts:path(Mount, "slow"), Zeros),
    Reader = test_vm:begin_run(Vm, fun() ->
        Self = self(),
        %% Before anything is read: to open a file takes it out of memory here.
        Dropper = spawn(fun() -> {ok, _} = Other = iommap:open(Path, read, []), Self ! opened, receive drop -> Other end end),
        receive opened -> ok end,
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, Zeros} = iommap:pread(Handle, 0, 100_000),
        {ok, View} = iommap:region_binary(Handle, 0, 100_000),
        %% Collected while closes hang, it would be the one that hangs, and the other would wait behind it.
        put(held, {Handle, View}),
        ok = test_mounts:control(Mount, "slow", {hang, []}),
        ok = test_mounts:control(Mount, "slow", {hang_close, []}),
        receive after 1500 -> ok end, % longer than it is believed unasked that pages are in memory
        Seen = {iommap:pread(Handle, 0, 100_000) =:= {ok, Zeros}, iommap:intact(View), View =:= Zeros},
        {0, 0} = {test_mounts:waiting(Mount, "slow"), test_mounts:closing(Mount, "slow")},
        Dropper ! drop,
        ok = test_processes:eventually(fun() -> test_mounts:closing(Mount, "slow") > 0 end),
        ok = every_scheduler_runs(),
        Seen
    end),
    receive {Reader, Result} -> {true, true, true} = Result after 60_000 -> error(waits) end.

%% close/1 from another process harms no scheduler and does not wait; the reads end once they can.
a_handle_of_a_hanging_file_system_is_closed_from_elsewhere(Config) ->
    hanging(Config, fun(Handle, Readers, Release, _Directory) ->
        Self = self(),
        Closer = spawn_link(fun() -> Self ! {self(), iommap:close(Handle)} end),
        ok = every_scheduler_runs(),
        receive {Closer, Closed} -> ok = Closed after 60_000 -> error(close_waits) end,
        ok = every_scheduler_runs(),
        Release(),
        [receive {Reader, Result} -> true = Result =:= {error, closed} orelse element(1, Result) =:= ok end
         || Reader <- Readers],
        {error, closed} = iommap:pread(Handle, 0, 1)
    end).

%% halt does not wait for the file system.
a_hanging_file_system_does_not_keep_the_vm_from_halting(Config) ->
    outliving(Config, fun(Mount, Vm) ->
        test_vm:run(Vm, fun() -> _ = test_scene:hang(Mount), ok end),
        {status, 3} = test_vm:death(Vm, erlang, halt, [3])
    end).

%% Not for a write either.
a_hanging_write_does_not_keep_the_vm_from_halting(Config) ->
    outliving(Config, fun(Mount, Vm) ->
        test_vm:run(Vm, fun() ->
            {ok, Handle} = open_uncached(Mount, "slow"),
            ok = test_mounts:control(Mount, "slow", {hang, []}),
            _ = spawn(fun() -> iommap:pwrite(Handle, 500_000, <<"written">>) end),
            test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end)
        end),
        {status, 3} = test_vm:death(Vm, erlang, halt, [3])
    end).

%% A view is read by a scheduler, and that waits; nothing else is lost.
a_reader_of_a_hanging_view_goes_on_when_the_file_system_does(Config) ->
    outliving(Config, fun(Mount, Vm) ->
        Reader = read_a_hanging_view(Mount, Vm),
        ok = test_mounts:control(Mount, "slow", {release, []}),
        Expected = {erlang:crc32(test_pattern:bytes(1_000_000)), true},
        receive {Reader, Result} -> Expected = Result end,
        ok = test_vm:run(Vm, fun test_scene:every_scheduler_runs/0)
    end).

%% Whatever waits, SIGKILL ends the VM.
a_hanging_view_does_not_keep_the_vm_from_being_killed(Config) ->
    outliving(Config, fun(Mount, Vm) ->
        _ = read_a_hanging_view(Mount, Vm),
        {0, _} = test_system:shell(["kill -KILL ", test_vm:os_pid(Vm)]),
        {Microseconds, {signal, 9}} = timer:tc(test_vm, death, [Vm]),
        %% Sooner than the reader's patience ends, which kills the VM too.
        true = Microseconds < 10_000_000
    end).

%% The answer comes as a message from the process that this gives.
read_a_hanging_view(Mount, Vm) ->
    Reader = test_vm:begin_run(Vm, fun() ->
        {ok, Handle} = open_uncached(Mount, "slow"),
        {ok, View} = iommap:region_binary(Handle, 0, 1_000_000),
        ok = test_mounts:control(Mount, "slow", {hang, []}),
        {erlang:crc32(View), iommap:intact(View)}
    end),
    ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
    Reader.

%% A file system that is frozen, for a snapshot say, keeps a write waiting; but not whoever needs memory,
%% another file or a process meanwhile. The write ends well when the file system goes on.
a_frozen_file_system_keeps_only_its_writer_waiting(Config) ->
    case os:version() >= {6, 7, 0} of
        true -> on_mount(Config, ext4, fun(Mount) -> write_to_a_frozen_file_system(Config, Mount) end);
        false -> skip("before Linux 6.7 any fault that waits holds the lock of the whole address space")
    end.

write_to_a_frozen_file_system(Config, #{point := Point} = Mount) ->
    Directory = ?config(directory, Config),
    Path = test_mounts:path(Mount, "file"),
    Frozen = filename:join(Directory, "frozen"),
    Vm = test_vm:start(),
    try
        Writer = test_vm:begin_run(Vm, fun() ->
            ok = file:write_file(Path, test_pattern:bytes(100_000)),
            {ok, Handle} = iommap:open(Path, read_write, []),
            {0, _} = test_system:shell(["fsfreeze -f ", Point, " && touch ", Frozen]),
            {iommap:pwrite(Handle, 50_000, <<"written">>), iommap:pread(Handle, 50_000, 7)}
        end),
        ok = test_processes:eventually(fun() -> filelib:is_file(Frozen) andalso waiting_threads(Vm) > 0 end),
        Others = test_vm:begin_run(Vm, fun() -> everything_else_works(Directory) end),
        receive {Others, Worked} -> ok = Worked after 60_000 -> error(others_wait) end,
        true = waiting_threads(Vm) > 0,
        true = is_process_alive(Writer),
        thaw(Point),
        receive {Writer, Written} -> {ok, {ok, <<"written">>}} = Written end
    after
        thaw(Point),
        test_vm:stop(Vm)
    end.

%% Memory, processes and mappings, all of which need the lock of the address space.
everything_else_works(Directory) ->
    [begin
        ok = every_scheduler_runs(),
        Large = binary:copy(<<N>>, 64_000_000),
        Large = binary:copy(Large),
        {_, Monitor} = spawn_monitor(fun() -> exit(lists:sum(lists:seq(1, 100_000))) end),
        receive {'DOWN', Monitor, process, _, 5_000_050_000} -> ok end,
        [spawn(fun() -> ok end) || _ <- lists:seq(1, 10_000)],
        ok = another_file_works(Directory)
    end || N <- lists:seq(1, 3)],
    ok.

%% Evaluates the function with a VM that may die while the file "slow" hangs.
outliving(Config, Function) ->
    test_scene:outliving(Config, faultfs, Function).

hanging(Config, Function) ->
    Directory = ?config(directory, Config),
    on(Config, faultfs, fun(Mount) ->
        {Handle, Readers} = test_scene:hang(Mount),
        Release = fun() -> test_mounts:control(Mount, "slow", {release, []}) end,
        try Function(Handle, Readers, Release, Directory) after Release() end
    end).

%% The other side of a network file system is gone: reads fail, views are zeros, handles close.
a_file_system_that_goes_away_is_an_error(Config) ->
    on(Config, faultfs, fun(Mount) ->
        Path = test_mounts:path(Mount, "file"),
        ok = file:write_file(Path, test_pattern:bytes(1_000_000)),
        {0, _} = test_system:shell(["sync ", Path]),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 1_000_000),
        ok = drop_cache(Path),
        %% -f tells the kernel that no answer will come; the mount stays, being in use.
        _ = test_system:shell(["umount -f ", maps:get(point, Mount)]),
        ok = test_processes:eventually(fun() -> file:read_file_info(Path) =:= {error, enotconn} end),
        {error, Reason} = iommap:pread(Handle, 500_000, 1000),
        true = lists:member(Reason, [sigbus, enotconn, eio]),
        Zeros = test_pattern:zeros(1_000_000),
        Zeros = binary:copy(View),
        false = iommap:intact(View),
        {error, sigbus} = iommap:pread(Handle, 0, 1),
        {error, _} = iommap:remap(Handle),
        {error, _} = iommap:truncate(Handle, 5000),
        {error, sigbus} = iommap:pread(Handle, 0, 1),
        {ok, 1_000_000} = iommap:position(Handle),
        ok = iommap:close(Handle)
    end).
