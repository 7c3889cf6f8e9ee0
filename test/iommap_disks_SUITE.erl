%% Disks that are full or read-only, and disks that are mapped themselves.
-module(iommap_disks_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("kernel/include/file.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_files, [file/2]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_processes, [in_a_process/1]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [open_size_on_a_full_disk_is_enospc,
     truncate_on_a_full_disk_leaves_the_handle,
     open_on_a_read_only_disk_is_erofs,
     block_device_is_mapped].

init_per_suite(Config) ->
    case {os:type(), test_system:is_root()} of
        {{unix, linux}, true} -> Config;
        {{unix, linux}, _} -> {skip, "only root can mount a disk of its own"};
        _ -> {skip, "the disks are Linux's tmpfs and loop devices"}
    end.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

open_size_on_a_full_disk_is_enospc(_Config) ->
    %% Where there is no room for the size asked for the answer is enospc, and an existing file stays as it was.
    on_a_disk("size=1m", fun(Disk) ->
        Path = file(Disk, bytes(10)),
        [begin
             ?assertEqual({error, enospc}, iommap:open(Path, Mode, [{size, 2_000_000} | Options])),
             ?assertEqual({ok, bytes(10)}, file:read_file(Path))
         end || Mode <- [write, read_write], Options <- [[], [private], [create]]],
        ?assertEqual({error, enospc}, iommap:open(filename:join(Disk, "new"), [create, {size, 2_000_000}])),
        ?assertMatch({ok, _}, iommap:open(Path, [{size, 500_000}]))
    end).

truncate_on_a_full_disk_leaves_the_handle(_Config) ->
    %% truncate that finds no room is enospc; handle, file and views go on as if it had not been called.
    [on_a_disk("size=1m", fun(Disk) ->
         Path = file(Disk, bytes(3 * page())),
         {ok, Handle} = iommap:open(Path, read_write, Options),
         {ok, View} = iommap:region_binary(Handle, 0, page()),
         ok = iommap:pwrite(Handle, 0, <<"before">>),
         [begin
              ?assertEqual({error, enospc}, iommap:truncate(Handle, 2_000_000)),
              ?assertEqual({ok, 3 * page()}, iommap:position(Handle)),
              ?assertEqual(3 * page(), filelib:file_size(Path)),
              ?assertMatch({ok, <<"before", _/binary>>}, iommap:pread(Handle, 0, 3 * page())),
              ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 3 * page(), 1)),
              ?assertMatch(<<"before", _/binary>>, View)
          end || _ <- lists:seq(1, 3)],
         ?assertEqual(ok, iommap:pwrite(Handle, page(), <<"after">>)),
         ?assertEqual({ok, <<"after">>}, iommap:pread(Handle, page(), 5)),
         ?assertEqual(ok, iommap:truncate(Handle, 5 * page())),
         ?assertMatch({ok, <<"before", _/binary>>}, iommap:pread(Handle, 0, 5 * page()))
     end) || Options <- [[], [private]]].

open_on_a_read_only_disk_is_erofs(_Config) ->
    %% A disk that is mounted read-only gives readers their file and writers erofs.
    on_a_disk("size=1m", fun(Disk) ->
        Path = file(Disk, bytes(10)),
        _ = test_system:run("mount", ["-o", "remount,ro", Disk]),
        ?assertMatch({ok, _}, iommap:open(Path, read, [])),
        [?assertEqual({error, erofs}, iommap:open(Path, Mode, [])) || Mode <- [write, read_write]],
        ?assertEqual({error, erofs}, iommap:open(filename:join(Disk, "new"), [create, {size, 10}]))
    end).

block_device_is_mapped(Config) ->
    %% A block device is mapped like a file, as long as the device is.
    Path = file(?config(directory, Config), bytes(64 * 1024)),
    case os:cmd("losetup --find --show " ++ Path) of
        "/dev/" ++ _ = Line ->
            Device = string:trim(Line),
            try in_a_process(fun() -> block_device(Device) end) after os:cmd("losetup --detach " ++ Device) end,
            ?assertMatch({ok, <<"new", _/binary>>}, file:read_file(Path));
        Refused ->
            {skip, "no loop device to be had: " ++ Refused}
    end.

block_device(Device) ->
    {ok, Handle} = iommap:open(Device, read_write, []),
    ?assertEqual({ok, 64 * 1024}, iommap:position(Handle)),
    ?assertEqual({ok, bytes(64 * 1024)}, iommap:pread(Handle, 0, 64 * 1024)),
    ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 64 * 1024, 1)),
    ok = iommap:pwrite(Handle, 0, <<"new">>),
    ok = iommap:sync(Handle),
    [begin
         ?assertMatch({error, _}, iommap:truncate(Handle, Size)),
         ?assertEqual({ok, 64 * 1024}, iommap:position(Handle)),
         ?assertMatch({ok, <<"new", _/binary>>}, iommap:pread(Handle, 0, 64 * 1024))
     end || Size <- [1, 32 * 1024, 128 * 1024]],
    ok = iommap:close(Handle),
    block_device_as_an_io_device(Device),
    block_device_by_descriptor(Device).

%% As `file' says of it: a device, which has no size of its own.
block_device_as_an_io_device(Path) ->
    {ok, Raw} = file:open(Path, [raw, read, binary]),
    {ok, Device} = iommap_file:open(Path, [read, binary]),
    ?assertEqual(file:pread(Raw, 0, 100), file:pread(Device, 0, 100)),
    ?assertEqual(eof, file:pread(Device, 64 * 1024, 1)),
    {ok, Info} = file:read_file_info(Raw),
    ?assertMatch({ok, #file_info{type = device, access = read_write}}, file:read_file_info(Device)),
    ?assertEqual({ok, Info}, file:read_file_info(Device)),
    ok = file:close(Device),
    ok = file:close(Raw).

%% Neither the size nor a refused resize moves the position of a descriptor of the device.
block_device_by_descriptor(Device) ->
    {ok, File} = file:open(Device, [raw, read, write, binary]),
    {ok, 777} = file:position(File, 777),
    <<Fd:32/native>> = prim_file:get_handle(File),
    {ok, Handle} = iommap:open({fd, Fd}, read_write, []),
    ?assertEqual({ok, 64 * 1024}, iommap:remap(Handle)),
    ?assertMatch({error, _}, iommap:truncate(Handle, 128 * 1024)),
    ?assertMatch({ok, <<"new", _/binary>>}, iommap:pread(Handle, 0, 64 * 1024)),
    ?assertEqual({ok, 777}, file:position(File, {cur, 0})),
    ok = iommap:close(Handle),
    ok = file:close(File).

%% A file system in memory, mounted for the test alone. The handles are gone before it is.
on_a_disk(MountOptions, Test) ->
    test_files:with_directory(fun(Directory) ->
        _ = test_system:run("mount", ["-t", "tmpfs", "-o", MountOptions, "tmpfs", Directory]),
        try in_a_process(fun() -> Test(Directory) end)
        after test_system:run("umount", ["--lazy", Directory])
        end
    end).
