%% Nobody waits for another's disk: a file system that hangs, is frozen or fails keeps no scheduler and no other
%% file system's mappings, and what failed there is told. Every case has a VM of its own.
-module(iommap_waiting_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

-define(LARGE, (16 bsl 20)).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_close_that_hangs_keeps_no_other_file_system_waiting,
     who_opens_and_drops_handles_meets_no_limit_of_descriptors,
     who_opens_and_drops_handles_meets_no_limit_of_mappings,
     who_opens_and_drops_handles_meets_no_limit_of_address_space,
     ten_thousand_handles_of_a_frozen_file_system_are_collected_at_once,
     a_hot_read_of_dropped_pages_of_a_hanging_file_system_keeps_no_scheduler,
     a_hot_write_to_a_hanging_file_system_keeps_no_scheduler,
     a_hot_write_to_a_frozen_file_system_keeps_no_scheduler,
     cold_reads_of_a_file_given_away_fault_on_no_scheduler,
     a_failed_write_back_is_told_by_every_sync_until_remap_or_truncate,
     an_asynchronous_sync_of_an_overlay_writes_to_its_layer].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% ---- Letting go -------------------------------------------------------------------------------

%% While a file on FUSE hangs in close, 400 collected handles of a file on each other file system, another FUSE server's
%% among them, lose their descriptors.
a_close_that_hangs_keeps_no_other_file_system_waiting(Config) ->
    test_scene:outliving(Config, faultfs, fun(Mount, Vm) ->
        ok = test_vm:run(Vm, fun() -> hang_in_close(Mount) end),
        Kinds = [{tmpfs, "size=32m"}, ext4, xfs, btrfs, overlayfs, faultfs],
        Rows = [{Kind, lets_go(Config, Kind, Mount, Vm)} || Kind <- Kinds],
        print("collected beside a close that hangs", ["handles", "left", "ms"], Rows),
        true = lists:keymember(tmpfs, 1, [{name(Kind), Row} || {Kind, [_, _, _] = Row} <- Rows])
    end).

hang_in_close(Mount) ->
    Path = test_mounts:path(Mount, "slow"),
    ok = file:write_file(Path, <<"slow">>),
    ok = collected(fun() ->
        Opened = iommap:open(Path, read, []),
        ok = test_mounts:control(Mount, "slow", {hang_close, []}),
        {ok, _} = Opened
    end),
    test_processes:eventually(fun() -> test_mounts:closing(Mount, "slow") > 0 end).

lets_go(Config, Kind, Hanging, Vm) ->
    Other = filename:join(?config(directory, Config), "other"),
    test_scene:on_mount([{directory, Other} | Config], Kind, fun(Mount) ->
        test_vm:run(Vm, fun() ->
            Path = large(test_mounts:path(Mount, "file")),
            ok = collected(fun() ->
                Opened = [iommap:open(Path, read, []) || _ <- lists:seq(1, 400)],
                400 = descriptors(Path),
                [] = [Error || {error, Error} <- Opened]
            end),
            Begun = erlang:monotonic_time(millisecond),
            ok = test_processes:eventually(fun() -> descriptors(Path) =:= 0 end),
            true = test_mounts:closing(Hanging, "slow") > 0,
            ok = test_scene:every_scheduler_runs(),
            [400, 0, erlang:monotonic_time(millisecond) - Begun]
        end)
    end).

%% A process does something, and dies; what it held is garbage.
collected(Function) ->
    {Pid, Monitor} = spawn_monitor(fun() -> _ = Function() end),
    receive {'DOWN', Monitor, process, Pid, Reason} -> normal = Reason, ok end.

%% The descriptors of the file that this VM has.
descriptors(Path) ->
    length([Entry || Entry <- filelib:wildcard("/proc/self/fd/*"), file:read_link(Entry) =:= {ok, Path}]).

%% A sparse file, so large that to unmap it takes a while.
large(Path) ->
    [] = os:cmd("truncate -s " ++ integer_to_list(?LARGE) ++ " " ++ Path),
    Path.

%% A loop that opens files and forgets the handles has its descriptors back in time.
who_opens_and_drops_handles_meets_no_limit_of_descriptors(Config) ->
    test_scene:limited(Config, "ulimit -n 100; exec \"$@\"", [], fun(Path) ->
        fill_and_drop(large(Path ++ ".large"), emfile, 50)
    end).

%% And its map entries, where few are left.
who_opens_and_drops_handles_meets_no_limit_of_mappings(Config) ->
    test_limits:alone(fun() ->
        test_scene:limited(Config, "exec \"$@\"", [], fun(Path) ->
            {Splitter, Handles} = test_limits:exhaust_map_count(Path),
            %% Neighbours that are alike again are one entry: room for some sixty mappings.
            ok = iommap:advise(Splitter, 0, 200 * test_pattern:page(), normal),
            ok = fill_and_drop(large(Path ++ ".large"), enomem, 50),
            [{ok, <<_>>} = iommap:pread(Handle, 0, 1) || Handle <- [Splitter | Handles]],
            ok
        end)
    end).

%% And its address space.
who_opens_and_drops_handles_meets_no_limit_of_address_space(Config) ->
    test_scene:limited(Config, "exec \"$@\"", [], fun(Path) ->
        Large = large(Path ++ ".large"),
        %% Each takes about the double, to grow: what is in use fits, what waits as well does not.
        ok = test_limits:limit_address_space(26 * ?LARGE div 1024),
        open_and_drop(Large, 3000, 8)
    end).

%% Opens the file until that is refused, forgets the handles, and opens it at once, so many times.
fill_and_drop(_, _, 0) ->
    ok;
fill_and_drop(Path, Refusal, Times) ->
    Refusal = fill(Path),
    erlang:garbage_collect(),
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, <<0>>} = iommap:pread(Handle, Times, 1),
    fill_and_drop(Path, Refusal, Times - 1).

fill(Path) ->
    {[_, _, _ | _], Refusal} = test_limits:open_until_error(Path, 1000),
    Refusal.

%% Opens the file so often; the handles are collected so many at once.
open_and_drop(_, 0, _) ->
    ok;
open_and_drop(Path, Times, AtOnce) ->
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, <<0>>} = iommap:pread(Handle, Times rem ?LARGE, 1),
    Times rem AtOnce =:= 0 andalso erlang:garbage_collect(),
    open_and_drop(Path, Times - 1, AtOnce).

%% 10,000 handles of a file on a frozen xfs are collected, which with blocks allocated behind the end would wait for the disk
%% as soon as one is closed: the collection ends, every scheduler runs, and all is let go when the file system goes on.
ten_thousand_handles_of_a_frozen_file_system_are_collected_at_once(Config) ->
    Count = 10_000,
    test_scene:on_mount(Config, xfs, fun(#{point := Point} = Mount) ->
        Path = test_mounts:path(Mount, "file"),
        Vm = test_vm:start(#{wrapper => "ulimit -n 15000 && exec \"$@\"", args => ["+S", "1:1"]}),
        try
            Collector = test_vm:begin_run(Vm, fun() ->
                Other = large(test_mounts:path(Mount, "other")),
                Thawed = collect(fun() -> open_many(Other, Count) end),
                ok = test_processes:eventually(fun() -> descriptors(Other) =:= 0 end),
                %% Whoever appends has the file open, so that the handles are the first to close it.
                {ok, Appender} = file:open(Path, [append, raw]),
                [ok = file:write(Appender, test_pattern:bytes(100_000)) || _ <- lists:seq(1, 20)],
                Frozen = collect(fun() ->
                    Handles = open_many(Path, Count),
                    {0, _} = test_system:shell(["fsfreeze -f ", Point]),
                    Handles
                end),
                Open = descriptors(Path),
                ok = test_scene:every_scheduler_runs(),
                {Thawed div Count, Frozen div Count, Open - 1, Appender}
            end),
            receive
                {Collector, {Thawed, Frozen, Open, _}} ->
                    print("10,000 handles collected", ["ns each", "open then"],
                          [{xfs, [Thawed, "-"]}, {'frozen xfs', [Frozen, Open]}]),
                    %% The one that is being closed has none any more.
                    true = Open >= Count - 1,
                    ok = test_processes:eventually(fun() -> test_scene:waiting_threads(Vm, "iommap_unmap") =:= 1 end),
                    test_scene:thaw(Point);
                {Collector, Failed} ->
                    error(Failed)
            after 60_000 ->
                error(waits)
            end,
            ok = test_vm:run(Vm, fun() -> test_processes:eventually(fun() -> descriptors(Path) =< 1 end) end)
        after
            test_scene:thaw(Point),
            test_vm:stop(Vm)
        end
    end).

open_many(Path, Count) ->
    [begin {ok, Handle} = iommap:open(Path, read_write, []), Handle end || _ <- lists:seq(1, Count)].

%% The nanoseconds that collecting what the function makes keeps the only scheduler, which runs destructors after the collection.
collect(Make) ->
    put(handles, Make()),
    erase(handles),
    Begun = erlang:monotonic_time(nanosecond),
    erlang:garbage_collect(),
    erlang:yield(),
    erlang:monotonic_time(nanosecond) - Begun.

%% ---- Hot calls --------------------------------------------------------------------------------

%% The kernel drops the pages of a file on FUSE, as it does here when somebody opens it, right after they were read; the next
%% read waits for the server that hangs, on a dirty I/O scheduler.
a_hot_read_of_dropped_pages_of_a_hanging_file_system_keeps_no_scheduler(Config) ->
    test_scene:outliving(Config, faultfs, fun(Mount, Vm) ->
        Path = test_mounts:path(Mount, "slow"),
        waits_alone(Mount, Vm, fun() ->
            ok = file:write_file(Path, test_pattern:bytes(100_000)),
            {ok, Handle} = iommap:open(Path, read, []),
            [{ok, _} = iommap:pread(Handle, 0, 100_000) || _ <- lists:seq(1, 3)],
            {ok, Again} = file:open(Path, [read, raw]),
            ok = test_mounts:control(Mount, "slow", {hang, []}),
            {fun() -> iommap:pread(Handle, 0, 100_000) =:= {ok, test_pattern:bytes(100_000)} end, Again}
        end)
    end).

%% Somebody else's sync of a file on FUSE hangs right after a page of it was written; the next write to that page waits for
%% the server, on a dirty I/O scheduler.
a_hot_write_to_a_hanging_file_system_keeps_no_scheduler(Config) ->
    test_scene:outliving(Config, faultfs, fun(Mount, Vm) ->
        Path = test_mounts:path(Mount, "slow"),
        waits_alone(Mount, Vm, fun() ->
            ok = file:write_file(Path, test_pattern:bytes(100_000)),
            {ok, Handle} = iommap:open(Path, read_write, []),
            [ok = iommap:pwrite(Handle, 0, <<N>>) || N <- lists:seq(1, 3)],
            ok = test_mounts:control(Mount, "slow", {hang, []}),
            [] = os:cmd("sync " ++ Path ++ " >/dev/null 2>&1 &"),
            ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
            {fun() -> iommap:pwrite(Handle, 0, <<4>>) =:= ok end, Handle}
        end)
    end).

%% What Prepare gives, {Call, Kept}, is called in the VM while the file "slow" hangs, and gives true when it is released.
%% Meanwhile every scheduler runs.
waits_alone(Mount, Vm, Prepare) ->
    Caller = test_vm:begin_run(Vm, fun() ->
        {Call, Kept} = Prepare(),
        Self = self(),
        Waiter = spawn(fun() -> Self ! {self(), Call()} end),
        ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
        [receive after 10 -> test_scene:every_scheduler_runs() end || _ <- lists:seq(1, 20)],
        true = is_process_alive(Waiter),
        ok = test_mounts:control(Mount, "slow", {release, []}),
        receive {Waiter, Result} -> {Result, Kept} end
    end),
    receive
        {Caller, {'EXIT', Reason}} -> error(Reason);
        {Caller, {Result, _}} -> true = Result
    after 60_000 ->
        error(a_scheduler_waits)
    end.

%% A page that was written half a second before its file system was frozen is written again: that waits, on a dirty I/O
%% scheduler. (Within a quarter of a second, and what the clock is late, it would wait on a scheduler.)
a_hot_write_to_a_frozen_file_system_keeps_no_scheduler(Config) ->
    Rows = [{Kind, test_scene:on_mount(Config, Kind, fun(Mount) -> writes_when_frozen(Config, Mount) end)}
            || Kind <- [ext4, xfs, btrfs]],
    print("written again when frozen, the last write being so many ms old", ["ms", "schedulers", "write"], Rows),
    case [Skip || {_, {skip, _} = Skip} <- Rows] of
        [_, _, Skip] -> Skip;
        _ -> ok
    end.

writes_when_frozen(Config, #{point := Point, kind := Kind} = Mount) ->
    Path = test_mounts:path(Mount, "file"),
    Frozen = filename:join(?config(directory, Config), [atom_to_list(Kind), "-is-frozen"]),
    Vm = test_vm:start(),
    try
        Writer = test_vm:begin_run(Vm, fun() ->
            ok = file:write_file(Path, test_pattern:bytes(100_000)),
            {ok, Handle} = iommap:open(Path, read_write, []),
            [ok = iommap:pwrite(Handle, 50_000, <<N>>) || N <- lists:seq(1, 1000)],
            Last = erlang:monotonic_time(millisecond),
            receive after 500 -> ok end,
            {0, _} = test_system:shell(["fsfreeze -f ", Point, " && touch ", Frozen]),
            Age = erlang:monotonic_time(millisecond) - Last,
            {iommap:pwrite(Handle, 50_000, <<"written">>), iommap:pread(Handle, 50_000, 7), Age}
        end),
        ok = test_processes:eventually(fun() -> filelib:is_file(Frozen) andalso test_scene:waiting_threads(Vm) > 0 end),
        Others = test_vm:begin_run(Vm, fun test_scene:every_scheduler_runs/0),
        receive {Others, Ran} -> ok = Ran after 60_000 -> error(a_scheduler_waits) end,
        true = is_process_alive(Writer),
        test_scene:thaw(Point),
        receive {Writer, {Written, Read, Age}} -> {ok, {ok, <<"written">>}} = {Written, Read}, [Age, "run", "waits"] end
    after
        test_scene:thaw(Point),
        test_vm:stop(Vm)
    end.

%% A file that was given to another owner after it was opened, for which mincore(2) then says that all is in memory: its cold
%% reads fetch on dirty I/O schedulers, and no scheduler takes a page fault for a page of the disk.
cold_reads_of_a_file_given_away_fault_on_no_scheduler(Config) ->
    Count = 256,
    test_scene:on_mount(Config, ext4, fun(#{point := Point} = Mount) ->
        Path = test_mounts:path(Mount, "file"),
        {0, _} = test_system:shell(["head -c 32M /dev/urandom > ", Path, " && sync ", Path, " && chown 65534 ", Path, " && chmod 755 ", Point]),
        Vm = test_vm:start(#{wrapper => "exec setpriv --reuid=65534 --clear-groups \"$@\"", args => ["+S", "1:1"]}),
        try
            Reader = test_vm:run(Vm, fun() -> start_reader(Path) end),
            {0, _} = test_system:shell(["chown root ", Path]),
            {ok, Expected} = file:read_file(Path),
            ok = test_files:drop_cache(Path),
            {InSchedulers, Bytes} = test_vm:run(Vm, fun() ->
                Reader ! {read, self(), [N * 131_072 || N <- lists:seq(0, Count - 1)]},
                receive {Reader, Faults, Read} -> {Faults, Read} end
            end),
            Bytes = << <<(binary:at(Expected, N * 131_072))>> || N <- lists:seq(0, Count - 1) >>,
            print("cold reads of a file given away", ["reads", "faults"], [{ext4, [Count, InSchedulers]}]),
            true = InSchedulers < Count div 10
        after
            test_vm:stop(Vm)
        end
    end).

%% A process of the VM that has the file open, and reads single bytes; it counts the page faults of schedulers that waited for
%% a disk.
start_reader(Path) ->
    Self = self(),
    Reader = spawn(fun() ->
        {ok, Handle} = iommap:open(Path, read_write, []),
        %% A fault brings in one page, not its neighbours.
        ok = iommap:advise(Handle, 0, 0, random),
        %% Once, so that the code is in memory.
        {ok, _} = iommap:pread(Handle, 4096, 1),
        Self ! {self(), opened},
        receive {read, From, Offsets} ->
            Before = faults_of_schedulers(),
            Bytes = << <<Byte/binary>> || Offset <- Offsets, {ok, Byte} <- [iommap:pread(Handle, Offset, 1)] >>,
            From ! {self(), faults_of_schedulers() - Before, Bytes}
        end
    end),
    receive {Reader, opened} -> Reader end.

faults_of_schedulers() ->
    Stats = [file:read_file(Stat) || Stat <- filelib:wildcard("/proc/self/task/*/stat")],
    lists:sum([faults(Fields) || {ok, Stat} <- Stats,
                                 {match, [Fields]} <- [re:run(Stat, "\\((?:erts_sched_|[0-9]+_scheduler).*\\) (.*)", [{capture, all_but_first, list}])]]).

%% The twelfth field of /proc/PID/stat, after the name's two: major faults.
faults(Fields) ->
    list_to_integer(lists:nth(10, string:lexemes(Fields, " "))).

%% ---- Writing back -----------------------------------------------------------------------------

%% A block device refuses the blocks of a file: every sync tells, also when the device is well again, until remap/1 or
%% truncate/2; then what is written reaches the disk.
a_failed_write_back_is_told_by_every_sync_until_remap_or_truncate(Config) ->
    Rows = [{Kind, on_failing_disk(Config, Kind, Make)} || {Kind, Make} <- [{ext4, "32M"}, {xfs, "320M"}]],
    print("syncs of a file whose blocks failed", ["failing", "healed", "anew"], Rows),
    [] = [Row || {_, [Failing, Healed, Anew]} = Row <- Rows, {Failing, Healed, Anew} =/= {"5 eio", "3 eio", "2 ok"}],
    case [Skip || {_, {skip, _} = Skip} <- Rows] of
        [_, Skip] -> Skip;
        _ -> ok
    end.

on_failing_disk(Config, Kind, Size) ->
    Directory = filename:join(?config(directory, Config), Kind),
    test_scene:on([{directory, Directory} | Config], faultfs, fun(Disk) ->
        Image = test_mounts:path(Disk, "disk"),
        Point = filename:join(Directory, "on-disk"),
        ok = filelib:ensure_path(Point),
        case test_system:shell(["truncate -s ", Size, " ", Image, " && mkfs.", atom_to_list(Kind), " -q ", Image,
                              " && mount -o loop ", Image, " ", Point]) of
            {0, _} ->
                try
                    fail_to_write_back(Disk, filename:join(Point, "file"))
                after
                    test_mounts:control(Disk, "disk", {clear, []}),
                    {0, _} = test_system:shell(["umount -l ", Point])
                end;
            {_, Output} ->
                test_scene:skip(["cannot mount an image on FUSE: ", Output])
        end
    end).

fail_to_write_back(Disk, Path) ->
    Size = 1 bsl 20,
    {ok, Handle} = iommap:open(Path, read_write, [create, {size, Size}]),
    ok = iommap:pwrite(Handle, 0, test_pattern:bytes(Size)),
    ok = iommap:sync(Handle),
    {Start, End} = blocks(Path),
    ok = test_mounts:control(Disk, "disk", {eio_write, [Start, End - Start]}),
    Lost = binary:copy(<<"lost">>, Size div 4),
    ok = iommap:pwrite(Handle, 0, Lost),
    Failing = [iommap:sync(Handle, Mode) || Mode <- [sync, sync, sync, async, sync]],
    {ok, Lost} = iommap:pread(Handle, 0, Size),
    ok = test_mounts:control(Disk, "disk", {clear, []}),
    Healed = [iommap:sync(Handle, Mode) || Mode <- [sync, async, sync]],
    Anew = [begin
        _ = Begin(),
        Written = binary:copy(<<N:32>>, Size div 4),
        ok = iommap:pwrite(Handle, 0, Written),
        Synced = iommap:sync(Handle),
        ok = test_files:drop_cache(Path),
        {ok, <<Written:Size/binary, _/binary>>} = file:read_file(Path),
        Synced
    end || {N, Begin} <- [{1, fun() -> iommap:remap(Handle) end}, {2, fun() -> iommap:truncate(Handle, Size + 4096) end}]],
    ok = iommap:close(Handle),
    [words(Failing), words(Healed), words(Anew)].

words(Answers) ->
    Words = [case Answer of ok -> ok; {error, Error} -> Error end || Answer <- Answers],
    Runs = [{Word, length([Word || Same <- Words, Same =:= Word])} || Word <- lists:usort(Words)],
    lists:flatten(lists:join(", ", [io_lib:format("~b ~s", [Times, Word]) || {Word, Times} <- Runs])).

%% Where on its device the file's bytes are: the first of them, and the end of the last.
blocks(Path) ->
    {0, Output} = test_system:shell(["filefrag -b1024 -v ", Path]),
    {match, Extents} = re:run(Output, "^ *\\d+: *\\d+\\.\\. *\\d+: *(\\d+)\\.\\. *(\\d+):",
                              [multiline, global, {capture, all_but_first, list}]),
    {lists:min([list_to_integer(First) || [First, _] <- Extents]) * 1024,
     lists:max([list_to_integer(Last) + 1 || [_, Last] <- Extents]) * 1024}.

%% What was written through an overlay is on the disk of its upper layer soon after an asynchronous sync.
an_asynchronous_sync_of_an_overlay_writes_to_its_layer(Config) ->
    MiB = 1 bsl 20,
    Row = test_scene:on(Config, overlayfs, fun(Mount) ->
        Path = test_mounts:path(Mount, "file"),
        Layer = test_mounts:behind(Mount, "file"),
        {ok, Handle} = iommap:open(Path, read_write, [create, {size, 32 * MiB}]),
        case written_and_dirty(Handle, Layer, 30) of
            {ok, Before} ->
                ok = iommap:sync(Handle, async),
                _ = try test_processes:eventually(fun() -> dirty_pages(Layer) =:= {ok, 0} end) catch error:_ -> late end,
                {ok, After} = dirty_pages(Layer),
                ok = iommap:close(Handle),
                [Before, After];
            {error, Why} ->
                test_scene:skip(["the system does not tell which pages are dirty: ", Why])
        end
    end),
    print("dirty pages of 32 MiB written through an overlay", ["before", "after"], [{overlayfs, Row}]),
    case Row of
        [Before, After] -> {true, 0} = {Before > 0, After};
        Skip -> Skip
    end.

%% Writes all of it, again if the system was so quick to write it back that no page is dirty any more.
written_and_dirty(Handle, Layer, Attempts) ->
    MiB = 1 bsl 20,
    [ok = iommap:pwrite(Handle, N * MiB, binary:copy(<<N>>, MiB)) || N <- lists:seq(0, 31)],
    case dirty_pages(Layer) of
        {ok, 0} when Attempts > 1 -> written_and_dirty(Handle, Layer, Attempts - 1);
        Found -> Found
    end.

%% How many pages of the file are not on the disk: cachestat(2), Linux 6.5. Dirty ones, and those on their way.
dirty_pages(Path) ->
    Program = "open(F, '<', $ARGV[0]) || die $!; my ($all, $counts) = (pack('Q2', 0, 0), pack('Q5', 0)); "
              "syscall(451, fileno(F), $all, $counts, 0) == 0 || die $!; my @c = unpack('Q5', $counts); print $c[1] + $c[2]",
    case test_system:shell(["perl -e '", string:replace(Program, "'", "'\\''", all), "' ", Path]) of
        {0, Number} -> {ok, binary_to_integer(Number)};
        {_, Output} -> {error, Output}
    end.

%% ---- Tables -----------------------------------------------------------------------------------

print(Title, Columns, Rows) ->
    Line = fun(Name, Cells) -> [io_lib:format("  ~-12s", [Name]), [io_lib:format("~12s", [text(Cell)]) || Cell <- Cells], $\n] end,
    Table = [Title, $\n, Line("", Columns),
             [case Cells of
                 {skip, _} -> Line(name(Kind), ["skipped"]);
                 _ -> Line(name(Kind), Cells)
             end || {Kind, Cells} <- Rows]],
    ct:log("<pre>~ts</pre>", [Table], [no_css]),
    io:put_chars(user, [$\n, Table]).

name({Kind, _}) -> Kind;
name(Kind) -> Kind.

text(Number) when is_integer(Number) -> integer_to_list(Number);
text(Text) -> Text.
