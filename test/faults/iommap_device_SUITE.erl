%% Devices of iommap_file where raw files have trouble: disks that are full or failing, VMs that are killed; and over generations
%% of the library. Every case has a VM of its own.
-module(iommap_device_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_files, [drop_cache/1]).
-import(test_generations, [in_vm/2, over_generations/3, open/3]).
-import(test_scene, [on/3]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_killed_vm_loses_nothing_that_was_written,
     a_full_disk_is_enospc_as_for_a_raw_file,
     a_hole_without_room_is_enospc_as_for_a_raw_file,
     a_failing_disk_is_eio_until_it_heals,
     devices_of_every_generation_work_in_the_newest].

init_per_suite(Config) ->
    test_generations:build(Config).

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config)
        when Case =:= devices_of_every_generation_work_in_the_newest; Case =:= a_killed_vm_loses_nothing_that_was_written ->
    test_generations:start_vm(Config, #{});
init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(Case, Config)
        when Case =:= devices_of_every_generation_work_in_the_newest; Case =:= a_killed_vm_loses_nothing_that_was_written ->
    test_generations:stop_vm(Config);
end_per_testcase(_Case, _Config) ->
    ok.

%% A VM that is killed while it appends and overwrites leaves every record that was answered `ok', and no byte behind the last.
a_killed_vm_loses_nothing_that_was_written(Config) ->
    Path = filename:join(proplists:get_value(directory, Config), "log"),
    Told = Path ++ ".told",
    Vm = proplists:get_value(vm, Config),
    _ = test_vm:begin_run(Vm, fun() ->
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        {ok, Tell} = file:open(Told, [raw, write]),
        append(Device, Tell, 1)
    end),
    ok = test_processes:eventually(fun() -> filelib:file_size(Told) > 8 * 2000 end),
    test_vm:stop(Vm),
    {ok, Answered} = file:read_file(Told),
    Count = byte_size(Answered) div 8,
    {ok, Log} = file:read_file(Path),
    %% A record may have been written and not been told of.
    true = byte_size(Log) rem 16 =:= 0 andalso byte_size(Log) div 16 - Count =< 1,
    [<<Number:64, Number:64>> = binary:part(Log, 16 * (Number - 1), 16) || Number <- lists:seq(1, Count - 1)].

append(Device, Tell, Number) ->
    ok = file:write(Device, <<Number:64, 0:64>>),
    ok = file:pwrite(Device, 16 * Number - 8, <<Number:64>>),
    ok = file:write(Tell, <<Number:64>>),
    append(Device, Tell, Number + 1).

%% On a disk that is full, writes behind the end answer enospc, having written as much as a raw file does.
a_full_disk_is_enospc_as_for_a_raw_file(Config) ->
    [Raw, Device] = [on(Config, {tmpfs, "size=64k"}, fun(Mount) ->
        {ok, File} = Module:open(test_mounts:path(Mount, "file"), [read, write, binary, raw]),
        Answers = [call(File, Call) || Call <- [{write, [test_pattern:bytes(60_000)]}, {write, [test_pattern:bytes(60_000)]},
                                                {position, [cur]}, {position, [eof]}, {pwrite, [70_000, <<"a">>]},
                                                {pwrite, [[{0, <<"a">>}, {70_000, <<"b">>}]]}, {position, [eof]},
                                                {allocate, [0, 200_000]}, {pread, [59_990, 100_000]}]],
        ok = file:close(File),
        Answers
    end) || Module <- [file, iommap_file]],
    {error, enospc} = lists:nth(2, Raw),
    Raw = Device.

%% A hole of a sparse file, inside the mapping, for which there is no room answers enospc, not a fault.
a_hole_without_room_is_enospc_as_for_a_raw_file(Config) ->
    [Raw, Device] = [on(Config, {tmpfs, "size=64k"}, fun(Mount) ->
        Path = test_mounts:path(Mount, "sparse"),
        ok = test_system:truncate(Path, 1_000_000),
        {ok, File} = Module:open(Path, [read, write, binary, raw]),
        Page = test_pattern:page(),
        Answers = [call(File, {pwrite, [Number * Page, <<"data">>]}) || Number <- lists:seq(0, 40)],
        Reads = [call(File, {pread, [Number * Page, 4]}) || Number <- [0, 200]],
        ok = file:close(File),
        {Answers, Reads}
    end) || Module <- [file, iommap_file]],
    {[ok | Answers], _} = Raw,
    true = lists:member({error, enospc}, Answers),
    Raw = Device.

call(File, {Name, Arguments}) ->
    apply(file, Name, [File | Arguments]).

%% A block device fails under a mounted ext4: reads answer eio, as those of a raw file, and data when the disk is well again.
a_failing_disk_is_eio_until_it_heals(Config) ->
    on(Config, faultfs, fun(Disk) ->
        Image = test_mounts:path(Disk, "disk"),
        Point = filename:join(filename:dirname(maps:get(point, Disk)), "on-disk"),
        ok = filelib:ensure_path(Point),
        case test_system:shell(["truncate -s 32M ", Image, " && mkfs.ext4 -q -E lazy_itable_init=0 ", Image,
                                " && mount -o loop ", Image, " ", Point]) of
            {0, _} ->
                try
                    test_processes:in_a_process(fun() -> failing_disk(Disk, Image, filename:join(Point, "file")) end)
                after
                    test_mounts:control(Disk, "disk", {clear, []}),
                    ok = test_processes:eventually(fun() -> element(1, test_system:shell(["umount ", Point])) =:= 0 end)
                end;
            {_, Output} ->
                {skip, "cannot mount an image on FUSE: " ++ binary_to_list(Output)}
        end
    end).

failing_disk(Disk, Image, Path) ->
    Bytes = test_pattern:bytes(1_000_000),
    ok = file:write_file(Path, Bytes),
    {0, _} = test_system:shell(["sync ", Path, " ", Image]),
    {ok, Raw} = file:open(Path, [read, raw, binary]),
    {ok, Device} = iommap_file:open(Path, [read, binary]),
    ok = test_mounts:control(Disk, "disk", {eio, [0, 32 * 1024 * 1024]}),
    ok = drop_cache(Path),
    ok = drop_cache(Image),
    [{error, eio} = file:pread(File, 500_000, 1000) || File <- [Raw, Device]],
    {error, eio} = file:read(Device, 10),
    {error, eio} = file:read_line(Device),
    ok = test_mounts:control(Disk, "disk", {clear, []}),
    {ok, Bytes} = file:pread(Device, 0, 2_000_000),
    {ok, 0} = file:position(Device, cur),
    [ok = file:close(File) || File <- [Raw, Device]],
    ok.

%% A device that any generation opened, or made of a handle, does every call of the newest.
devices_of_every_generation_work_in_the_newest(Config) ->
    in_vm(Config, fun(Directory) ->
        Devices = over_generations(Directory, 6, fun(Generation) ->
            {Path, Handle} = open(Directory, Generation, 10_000),
            {ok, Own} = iommap_file:open(Path, [read, write, binary]),
            {ok, Borrowed} = iommap_file:from(Handle),
            {Path, Handle, [Own, Borrowed]}
        end),
        [everything_works(Path, Handle, Device) || {Path, Handle, Both} <- Devices, Device <- Both],
        [[ok = file:close(Device) || Device <- Both] || {_, _, Both} <- Devices],
        [begin
             {ok, Late} = iommap_file:from(Handle),
             {ok, <<"line\n">>} = file:read_line(Late),
             ok = file:close(Late),
             ok = iommap:close(Handle)
         end || {_, Handle, _} <- Devices],
        ok
    end).

everything_works(Path, _Handle, Device) ->
    ok = file:write_file(Path, test_pattern:bytes(10_000)),
    Bytes = test_pattern:bytes(10_000),
    {ok, Bytes} = file:pread(Device, 0, 20_000),
    {ok, 10_000} = file:position(Device, eof),
    ok = file:write(Device, <<"appended">>),
    {ok, <<"appended">>} = file:pread(Device, 10_000, 100),
    ok = file:pwrite(Device, 0, <<"line\n">>),
    {ok, 0} = file:position(Device, bof),
    {ok, <<"line\n">>} = file:read_line(Device),
    ok = file:sync(Device),
    ok = file:advise(Device, 0, 0, random),
    ok = file:allocate(Device, 0, 12_000),
    {ok, 12_000} = file:position(Device, eof),
    {ok, 11_000} = file:position(Device, 11_000),
    ok = file:truncate(Device),
    eof = file:read(Device, 1),
    {ok, _} = file:read_file_info(Device, []),
    ok.
