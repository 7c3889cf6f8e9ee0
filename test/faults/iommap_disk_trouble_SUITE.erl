%% Disks that are full, failing, hanging or gone, and limits that are reached: the right error, the
%% other handles unharmed, and work goes on when room is back. Every case has a VM of its own.
-module(iommap_disk_trouble_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_files, [drop_cache/1]).
-import(test_scene, [on/3, on_mount/3, limited/4, open_uncached/2, another_file_works/1,
                      every_scheduler_runs/0, thaw/1, waiting_threads/1, skip/1]).

-compile(export_all).

-define(MAP_COUNT, "/proc/sys/vm/max_map_count").

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_hole_without_room_on_a_full_tmpfs_loses_nothing_else,
     growing_on_a_full_tmpfs_is_enospc_and_changes_nothing,
     a_hole_over_quota_loses_nothing_else,
     growing_over_quota_is_edquot_and_changes_nothing,
     a_failing_disk_under_ext4_is_sigbus_until_it_heals,
     sync_takes_what_was_written_to_the_file_system,
     sync_tells_that_the_file_system_failed,
     a_hanging_file_system_keeps_only_its_callers_waiting,
     a_hanging_file_system_keeps_only_its_writers_waiting,
     what_is_in_memory_of_a_hanging_file_system_is_at_hand,
     what_is_in_memory_of_a_hanging_layer_is_at_hand,
     a_handle_of_a_hanging_file_system_is_closed_from_elsewhere,
     a_hanging_file_system_does_not_keep_the_vm_from_halting,
     a_hanging_write_does_not_keep_the_vm_from_halting,
     a_reader_of_a_hanging_view_goes_on_when_the_file_system_does,
     a_hanging_view_does_not_keep_the_vm_from_being_killed,
     a_frozen_file_system_keeps_only_its_writer_waiting,
     a_file_system_that_goes_away_is_an_error,
     descriptors_exhausted_is_emfile,
     address_space_exhausted_is_enomem,
     memory_that_may_not_be_locked_is_mapped_unlocked,
     map_count_exhausted_is_enomem,
     a_lost_view_is_read_though_the_map_count_is_exhausted,
     every_lost_view_is_read_at_the_limit_of_mappings,
     thirty_thousand_mappings_fit_the_usual_limit,
     a_hundred_thousand_mappings_fit_a_raised_limit,
     fifty_thousand_views_are_safe].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = test_files:case_directory(Config),
    [{directory, Directory}, {max_map_count, max_map_count()} | Config].

end_per_testcase(_Case, Config) ->
    Before = ?config(max_map_count, Config),
    thaw(filename:join(?config(directory, Config), "ext4")),
    max_map_count() =:= Before orelse file:write_file(?MAP_COUNT, integer_to_list(Before)).

%% ---- Full disks -------------------------------------------------------------------------------

%% A sparse file is larger than the tmpfs. Writing to a hole fails once the room is used up; what was
%% written stays, and the holes take data again when there is room.
a_hole_without_room_on_a_full_tmpfs_loses_nothing_else(Config) ->
    on(Config, {tmpfs, "size=1m"}, fun(Mount) ->
        Page = test_pattern:page(),
        Path = test_mounts:path(Mount, "sparse"),
        Ballast = test_mounts:path(Mount, "ballast"),
        ok = file:write_file(Ballast, test_pattern:bytes(256 * 1024)),
        fill_holes(Path, Page, fun() -> ok = file:delete(Ballast) end, [ok])
    end).

%% The same when the room is a quota.
a_hole_over_quota_loses_nothing_else(Config) ->
    with_quota(Config, fun(Volume) ->
        More = ["btrfs qgroup limit 64M ", Volume],
        fill_holes(filename:join(Volume, "sparse"), test_pattern:page(),
                   fun() -> {0, _} = test_system:shell(More) end,
                   %% A file system that copies on write needs room for a page that it has.
                   [ok, {error, sigbus}])
    end).

%% A directory with a quota of a megabyte.
with_quota(Config, Function) ->
    on(Config, btrfs, fun(Mount) ->
        Point = maps:get(point, Mount),
        Volume = filename:join(Point, "volume"),
        Commands = ["btrfs quota enable ", Point, " && btrfs subvolume create ", Volume,
                    " && btrfs qgroup limit 1M ", Volume],
        case test_system:shell(Commands) of
            {0, _} -> Function(Volume);
            {_, Output} -> {skip, "no btrfs quota here: " ++ binary_to_list(Output)}
        end
    end).

%% Room is made by MakeRoom once the file system takes no more. Again: what writing a page that was
%% written before may answer until then.
fill_holes(Path, Page, MakeRoom, Again) ->
    Pages = 1024,
    {0, _} = test_system:shell(["truncate -s ", integer_to_list(Pages * Page), " ", Path]),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Written, Error} = fill(Handle, Page, 0, Pages),
    true = Written > 0,
    true = lists:member(Error, [sigbus, enospc, edquot]),
    ok = check(Handle, Page, Written),
    true = lists:member(iommap:pwrite(Handle, 0, test_pattern:bytes(Page)), Again),
    ok = check(Handle, Page, Written),
    {ok, #{faulted := false}} = iommap:info(Handle),
    MakeRoom(),
    ok = test_processes:eventually(fun() ->
        iommap:pwrite(Handle, Written * Page, test_pattern:bytes(Written * Page, Page)) =:= ok
    end),
    ok = check(Handle, Page, Written + 1),
    ok = iommap:sync(Handle),
    ok = iommap:close(Handle).

fill(_, _, Pages, Pages) ->
    {Pages, nothing};
fill(Handle, Page, Index, Pages) ->
    case iommap:pwrite(Handle, Index * Page, test_pattern:bytes(Index * Page, Page)) of
        ok -> fill(Handle, Page, Index + 1, Pages);
        {error, Error} -> {Index, Error}
    end.

check(Handle, Page, Pages) ->
    Expected = {ok, test_pattern:bytes(Pages * Page)},
    Expected = iommap:pread(Handle, 0, Pages * Page),
    ok.

%% open with a size and truncate take their blocks at once: a full disk is told there and then.
growing_on_a_full_tmpfs_is_enospc_and_changes_nothing(Config) ->
    on(Config, {tmpfs, "size=1m"}, fun(Mount) -> grow(test_mounts:path(Mount, "grow"), enospc) end).

%% And so is a quota that is used up.
growing_over_quota_is_edquot_and_changes_nothing(Config) ->
    with_quota(Config, fun(Volume) -> grow(filename:join(Volume, "grow"), edquot) end).

grow(Path, Error) ->
    ok = file:write_file(Path, test_pattern:bytes(10_000)),
    {error, Error} = iommap:open(Path, read_write, [{size, 4_000_000}]),
    10_000 = filelib:file_size(Path),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {error, Error} = iommap:truncate(Handle, 4_000_000),
    {ok, 10_000} = iommap:position(Handle),
    10_000 = filelib:file_size(Path),
    ok = check(Handle, 1000, 10),
    ok = iommap:pwrite(Handle, 0, <<1>>),
    ok = iommap:truncate(Handle, 20_000),
    ok = iommap:close(Handle).

%% ---- Failing disks ----------------------------------------------------------------------------

%% A block device fails under a mounted ext4 (its image lies on a FUSE file system that answers EIO):
%% reads are {error, sigbus}, a view is zeros that intact/1 denies, and all is well when the disk is.
a_failing_disk_under_ext4_is_sigbus_until_it_heals(Config) ->
    on(Config, faultfs, fun(Disk) ->
        Image = test_mounts:path(Disk, "disk"),
        Point = filename:join(filename:dirname(maps:get(point, Disk)), "on-disk"),
        ok = filelib:ensure_path(Point),
        case test_system:shell(["truncate -s 32M ", Image, " && mkfs.ext4 -q -E lazy_itable_init=0 ", Image,
                              " && mount -o loop ", Image, " ", Point]) of
            {0, _} ->
                try
                    failing_disk(Disk, Image, filename:join(Point, "file"))
                after
                    test_mounts:control(Disk, "disk", {clear, []}),
                    %% Descriptors are closed a moment after the last view is collected.
                    ok = test_processes:eventually(fun() -> element(1, test_system:shell(["umount ", Point])) =:= 0 end)
                end;
            {_, Output} ->
                {skip, "cannot mount an image on FUSE: " ++ binary_to_list(Output)}
        end
    end).

failing_disk(Disk, Image, Path) ->
    Size = 1_000_000,
    ok = file:write_file(Path, test_pattern:bytes(Size)),
    {0, _} = test_system:shell(["sync ", Path, " ", Image]),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    ok = test_mounts:control(Disk, "disk", {eio, [0, 32 * 1024 * 1024]}),
    ok = drop_cache(Path),
    ok = drop_cache(Image),
    {error, sigbus} = iommap:pread(Handle, 500_000, 1000),
    true = iommap:intact(View),
    Zeros = test_pattern:zeros(Size),
    Zeros = binary:copy(View),
    false = iommap:intact(View),
    {error, sigbus} = iommap:pread(Handle, 0, 1),
    ok = test_mounts:control(Disk, "disk", {clear, []}),
    {ok, Size} = iommap:remap(Handle),
    Expected = {ok, test_pattern:bytes(Size)},
    Expected = iommap:pread(Handle, 0, Size),
    ok = iommap:close(Handle).

%% ---- Writing back -----------------------------------------------------------------------------

%% What was written is in the cache, which the file system has not seen; sync takes it there.
sync_takes_what_was_written_to_the_file_system(Config) ->
    on(Config, faultfs, fun(Mount) ->
        {Handle, Behind} = written_back(Mount),
        Whole = test_pattern:bytes(100_000),
        ok = iommap:pwrite(Handle, 50_000, <<"written">>),
        {ok, Whole} = file:read_file(Behind),
        ok = iommap:sync(Handle),
        {ok, <<Before:50_000/binary, "written", After/binary>>} = file:read_file(Behind),
        Whole = <<Before/binary, (binary:part(Whole, 50_000, 7))/binary, After/binary>>,
        ok = iommap:pwrite(Handle, 0, <<"again">>),
        {ok, <<1, _/binary>>} = file:read_file(Behind),
        ok = iommap:sync(Handle, async),
        ok = test_processes:eventually(fun() -> {ok, <<Now:5/binary, _/binary>>} = file:read_file(Behind), Now =:= <<"again">> end)
    end).

%% A file system that cannot take it answers eio, as often as it is asked to, until the handle is mapped anew; the handle
%% goes on.
sync_tells_that_the_file_system_failed(Config) ->
    on(Config, faultfs, fun(Mount) ->
        {Handle, Behind} = written_back(Mount),
        ok = test_mounts:control(Mount, "file", {eio_write, [0, 100_000]}),
        ok = iommap:pwrite(Handle, 50_000, <<"written">>),
        {error, eio} = iommap:sync(Handle),
        {ok, <<"written">>} = iommap:pread(Handle, 50_000, 7),
        {ok, #{faulted := false}} = iommap:info(Handle),
        ok = test_mounts:control(Mount, "file", {clear, []}),
        [{error, eio} = iommap:sync(Handle, Mode) || Mode <- [sync, sync, async, sync]],
        {ok, 100_000} = iommap:remap(Handle),
        ok = iommap:pwrite(Handle, 50_000, <<"written">>),
        ok = iommap:sync(Handle),
        {ok, <<_:50_000/binary, "written", _/binary>>} = file:read_file(Behind)
    end).

%% A handle of a file, and the path by which the file system keeps it.
written_back(Mount) ->
    Path = test_mounts:path(Mount, "file"),
    ok = file:write_file(Path, test_pattern:bytes(100_000)),
    {0, _} = test_system:shell(["sync ", Path]),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Handle, test_mounts:behind(Mount, "file")}.

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
        ok = test_mounts:control(Mount, "slow", {hang, []}),
        ok = test_mounts:control(Mount, "slow", {hang_close, []}),
        receive after 1500 -> ok end,
        %% The system may tell late of closes that came before: of who wrote the file, for one.
        Before = test_mounts:waiting(Mount, "slow"),
        Seen = {iommap:pread(Handle, 0, 100_000) =:= {ok, Zeros}, iommap:intact(View), View =:= Zeros},
        Before = test_mounts:waiting(Mount, "slow"),
        Dropper ! drop,
        ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > Before end),
        ok = every_scheduler_runs(),
        Seen
    end),
    receive {Reader, Result} -> {true, true, true} = Result after 20_000 -> error(waits) end.

%% close/1 from another process harms no scheduler and does not wait; the reads end once they can.
a_handle_of_a_hanging_file_system_is_closed_from_elsewhere(Config) ->
    hanging(Config, fun(Handle, Readers, Release, _Directory) ->
        Self = self(),
        Closer = spawn_link(fun() -> Self ! {self(), iommap:close(Handle)} end),
        ok = every_scheduler_runs(),
        receive {Closer, Closed} -> ok = Closed after 10_000 -> error(close_waits) end,
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
        receive {Others, Worked} -> ok = Worked after 20_000 -> error(others_wait) end,
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

%% ---- Limits -----------------------------------------------------------------------------------

%% Out of descriptors: emfile, every handle that is open works, and one that is closed makes room.
descriptors_exhausted_is_emfile(Config) ->
    limited(Config, "ulimit -n 200; exec \"$@\"", [], fun(Path) ->
        {Handles, Error} = test_limits:open_until_error(Path, 1000),
        emfile = Error,
        true = length(Handles) > 50,
        [{ok, <<_>>} = iommap:pread(Handle, 0, 1) || Handle <- Handles],
        ok = iommap:close(hd(Handles)),
        ok = test_processes:eventually(fun() ->
            case iommap:open(Path, read, []) of
                {ok, Handle} -> iommap:close(Handle) =:= ok;
                {error, emfile} -> false
            end
        end)
    end).

%% Out of address space: enomem from open and truncate, which leave all as it was.
address_space_exhausted_is_enomem(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Large = Path ++ ".large",
        [] = os:cmd("truncate -s 1G " ++ Large),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 5000),
        test_limits:limit_address_space(300_000),
        {error, enomem} = iommap:open(Large, read, []),
        {error, enomem} = iommap:truncate(Handle, 1_000_000_000),
        10_000 = filelib:file_size(Path),
        {ok, 10_000} = iommap:position(Handle),
        ok = iommap:pwrite(Handle, 0, test_pattern:bytes(10_000)),
        ok = iommap:truncate(Handle, 20_000),
        {ok, Small} = iommap:open(Path, read, []),
        ok = iommap:close(Small),
        [] = os:cmd("prlimit --pid " ++ os:getpid() ++ " --as=unlimited:"),
        {ok, Now} = iommap:open(Large, read, []),
        ok = iommap:close(Now),
        true = iommap:intact(View)
    end).

%% lock that the system refuses is no error; info/1 tells.
memory_that_may_not_be_locked_is_mapped_unlocked(Config) ->
    Wrapper = "ulimit -l 64; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$@\"",
    limited(Config, Wrapper, [], fun(Path) ->
        Large = Path ++ ".large",
        [] = os:cmd("truncate -s 1M " ++ Large),
        {ok, Unlocked} = iommap:open(Large, read_write, [lock]),
        {ok, #{locked := false}} = iommap:info(Unlocked),
        ok = iommap:pwrite(Unlocked, 0, <<"data">>),
        {ok, Locked} = iommap:open(Path, read_write, [lock]),
        {ok, #{locked := true}} = iommap:info(Locked),
        {ok, Again} = iommap:open(Large, read_write, [lock]),
        {ok, #{locked := false}} = iommap:info(Again)
    end).

%% Out of map entries: enomem, and room comes back with a close.
map_count_exhausted_is_enomem(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        {ok, Before} = iommap:open(Path, read_write, []),
        {Splitter, Handles} = test_limits:exhaust_map_count(Path),
        {error, enomem} = iommap:open(Path, read, []),
        {ok, <<_>>} = iommap:pread(Before, 0, 1),
        [{ok, <<_>>} = iommap:pread(Handle, 0, 1) || Handle <- Handles],
        ok = iommap:close(Splitter),
        ok = test_processes:eventually(fun() ->
            case iommap:open(Path, read, []) of
                {ok, Handle} -> iommap:close(Handle) =:= ok;
                {error, enomem} -> false
            end
        end)
    end).

%% Putting zero pages under a view may need one entry more than there is.
a_lost_view_is_read_though_the_map_count_is_exhausted(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Page = test_pattern:page(),
        ok = file:write_file(Path, test_pattern:bytes(3 * Page)),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * Page),
        _Held = test_limits:exhaust_map_count(Path),
        [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Page, Path])),
        <<_:Page/binary, 0, _/binary>> = View,
        false = iommap:intact(View),
        {error, sigbus} = iommap:pread(Handle, 0, 1)
    end).

%% Thirty thousand mappings where the system allows as many entries as it usually does.
thirty_thousand_mappings_fit_the_usual_limit(Config) ->
    many_mappings_are_safe(Config, 65_530, 30_000).

%% A hundred thousand mappings where it allows more.
a_hundred_thousand_mappings_fit_a_raised_limit(Config) ->
    many_mappings_are_safe(Config, 300_000, 100_000).

%% A file lost under any of the mappings is told apart from the rest. A truncate to less leaves the mapping before to its
%% view, so that a hundred need one descriptor.
many_mappings_are_safe(Config, Limit, Count) ->
    Page = test_pattern:page(),
    case allow_mappings(Limit) of
        Limit ->
            limited(Config, "exec \"$@\"", [], fun(Path) ->
                Handles = [{N rem 10, open_new(Path, N rem 10)} || N <- lists:seq(1, Count div 100)],
                Mapped = [begin
                    {ok, View} = iommap:region_binary(Handle, 0, Page + 1000),
                    ok = iommap:truncate(Handle, 3 * Page - N),
                    {Kind, View}
                end || {Kind, Handle} <- Handles, N <- lists:seq(1, 100)],
                Count = length(Mapped),
                true = map_count() > 2 * Count,
                true = map_count() < Limit,
                [] = os:cmd("truncate -s 0 " ++ Path ++ ".0-*"),
                Whole = test_pattern:bytes(Page + 1000),
                Zeros = test_pattern:zeros(Page + 1000),
                [case Kind of
                    0 -> {Zeros, false} = {binary:copy(View), iommap:intact(View)};
                    _ -> {Whole, true} = {binary:copy(View), iommap:intact(View)}
                end || {Kind, View} <- Mapped],
                [case Kind of
                    0 -> {error, sigbus} = iommap:pread(Handle, 0, 1);
                    _ -> {ok, <<1>>} = iommap:pread(Handle, 0, 1)
                end || {Kind, Handle} <- Handles],
                [ok = iommap:close(Handle) || {_, Handle} <- Handles],
                ok
            end);
        Other ->
            {skip, lists:flatten(io_lib:format("the limit of mappings is ~b and not ours to change", [Other]))}
    end.

%% At the limit of mappings every lost view is read, however many there are and whoever reads them.
every_lost_view_is_read_at_the_limit_of_mappings(Config) ->
    Page = test_pattern:page(),
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Views = [begin
            {ok, View} = iommap:region_binary(open_new(Path, 0), 0, Page + 1000),
            View
        end || _ <- lists:seq(1, 400)],
        _Held = test_limits:exhaust_map_count(Path),
        [] = os:cmd("truncate -s 10 " ++ Path ++ ".0-*"),
        Readers = [spawn_monitor(fun() ->
            [<<_:Page/binary, 0:1000/unit:8>> = View || View <- Views],
            [false = iommap:intact(View) || View <- Views]
        end) || _ <- lists:seq(1, 4)],
        [receive {'DOWN', Monitor, process, Reader, Reason} -> normal = Reason end || {Reader, Monitor} <- Readers],
        ok
    end).

open_new(Path, Kind) ->
    New = lists:flatten(io_lib:format("~s.~b-~b", [Path, Kind, erlang:unique_integer([positive])])),
    {ok, _} = file:copy(Path, New),
    {ok, Handle} = iommap:open(New, read_write, []),
    Handle.

%% The map entries of this VM.
map_count() ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    length(binary:matches(Maps, <<"\n">>)).

%% Sets the limit of map entries, if we may; what it is then. end_per_testcase/2 puts it back.
allow_mappings(Limit) ->
    max_map_count() =:= Limit orelse file:write_file(?MAP_COUNT, integer_to_list(Limit)),
    max_map_count().

max_map_count() ->
    {ok, Limit} = file:read_file(?MAP_COUNT),
    binary_to_integer(string:trim(Limit)).

%% Fifty thousand views of a few mappings: intact/1 speaks of each.
fifty_thousand_views_are_safe(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Page = test_pattern:page(),
        ok = file:write_file(Path, test_pattern:bytes(50 * Page)),
        {ok, Handle} = iommap:open(Path, read, []),
        Views = [begin
            {ok, View} = iommap:region_binary(Handle, N rem 50 * Page + N rem 100, 200),
            {N rem 50, View}
        end || N <- lists:seq(1, 50_000)],
        [] = os:cmd("truncate -s " ++ integer_to_list(25 * Page) ++ " " ++ Path),
        [case Index >= 25 of
            true -> {<<0:200/unit:8>>, false} = {View, iommap:intact(View)};
            false -> {nomatch, true} = {binary:match(View, <<0>>), iommap:intact(View)}
        end || {Index, View} <- Views],
        ok
    end).
