%% Disks that are full or failing: the right error, the other handles unharmed, and work goes on when the disk does. Every
%% case has a VM of its own.
-module(iommap_disk_trouble_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_files, [drop_cache/1]).
-import(test_scene, [on/3]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_hole_without_room_on_a_full_tmpfs_loses_nothing_else,
     a_hole_over_quota_loses_nothing_else,
     growing_over_quota_is_edquot_and_changes_nothing,
     a_failing_disk_under_ext4_is_sigbus_until_it_heals,
     sync_takes_what_was_written_to_the_file_system,
     sync_tells_that_the_file_system_failed,
     sync_of_a_range_takes_its_pages_to_the_file_system,
     sync_of_a_range_reaches_the_device,
     sync_of_any_range_tells_an_error_that_is_remembered].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

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

%% open with a size and truncate take their blocks at once: a quota that is used up is told there and then.
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
                    %% A process that lives on might keep the view where the collector seldom looks.
                    test_processes:in_a_process(fun() -> failing_disk(Disk, Image, filename:join(Point, "file")) end)
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

%% Of what was written, the pages of the range are taken to the file system, synchronously or not.
sync_of_a_range_takes_its_pages_to_the_file_system(Config) ->
    on(Config, faultfs, fun(Mount) ->
        {Handle, Behind} = written_back(Mount),
        [begin
             ok = iommap:pwrite(Handle, Offset, <<"written">>),
             ok = iommap:sync(Handle, Offset + 7, 1, Mode),
             ok = test_processes:eventually(fun() ->
                 {ok, <<_:Offset/binary, Now:7/binary, _/binary>>} = file:read_file(Behind),
                 Now =:= <<"written">>
             end)
         end || {Offset, Mode} <- [{50_000, sync}, {20_000, sync}, {70_000, async}]],
        ok
    end).

%% The bytes of the range are on the disk when the sync is over: they are found in its image.
sync_of_a_range_reaches_the_device(Config) ->
    on(Config, ext4, fun(#{point := Point} = Mount) ->
        Path = test_mounts:path(Mount, "file"),
        ok = file:write_file(Path, test_pattern:bytes(1_000_000)),
        {0, _} = test_system:shell(["sync -f ", Path]),
        {ok, Handle} = iommap:open(Path, read_write, []),
        [begin
             Mark = crypto:strong_rand_bytes(32),
             ok = iommap:pwrite(Handle, Offset, Mark),
             ok = iommap:sync(Handle, Offset, 32, sync),
             {ok, Image} = file:read_file(Point ++ ".image"),
             {_, 32} = binary:match(Image, Mark)
         end || Offset <- [0, 4096, 500_001, 999_968]],
        ok = iommap:close(Handle)
    end).

%% A page that could not be written back is told by the sync of every range, of nothing too, until the handle is mapped anew.
sync_of_any_range_tells_an_error_that_is_remembered(Config) ->
    on(Config, faultfs, fun(Mount) ->
        {Handle, Behind} = written_back(Mount),
        ok = test_mounts:control(Mount, "file", {eio_write, [40_960, 4096]}),
        ok = iommap:pwrite(Handle, 41_000, <<"written">>),
        ok = iommap:sync(Handle, 0, 100, sync),
        {error, eio} = iommap:sync(Handle, 41_000, 7, sync),
        ok = test_mounts:control(Mount, "file", {clear, []}),
        [{error, eio} = iommap:sync(Handle, Offset, Length, Mode)
            || {Offset, Length} <- [{0, 1}, {41_000, 7}, {99_999, 1}, {0, 0}, {100_000, 0}], Mode <- [sync, async]],
        {error, out_of_bounds} = iommap:sync(Handle, 100_000, 1, sync),
        {ok, 100_000} = iommap:remap(Handle),
        ok = iommap:sync(Handle, 0, 0, sync),
        ok = iommap:pwrite(Handle, 41_000, <<"written">>),
        ok = iommap:sync(Handle, 41_000, 7, sync),
        {ok, <<_:41_000/binary, "written", _/binary>>} = file:read_file(Behind)
    end).

%% A handle of a file, and the path by which the file system keeps it.
written_back(Mount) ->
    Path = test_mounts:path(Mount, "file"),
    ok = file:write_file(Path, test_pattern:bytes(100_000)),
    {0, _} = test_system:shell(["sync ", Path]),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Handle, test_mounts:behind(Mount, "file")}.
