%% When opening or growing a file fails, nothing is lost and nothing is left: neither this file's, nor
%% what another OS process put in its place, appended to it or needs the room for. On every file system.
-module(iommap_lost_files_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

%% More bytes than the file systems that are made here have; and than the machine's, which is under faultfs.
-define(NO_ROOM, (1 bsl 36)).
-define(NO_ROOM_ANYWHERE, (1 bsl 60)).

suite() ->
    [{timetrap, {minutes, 6}}].

all() ->
    [a_failed_open_never_removes_a_file_that_was_renamed_there,
     a_failed_open_never_removes_a_file_that_another_vm_opened,
     what_others_append_is_kept_when_growing_fails,
     the_room_of_a_failed_growth_is_given_back,
     a_file_is_not_emptied_before_there_is_room_for_its_new_contents,
     a_file_is_not_emptied_while_others_fill_the_disk,
     a_file_that_cannot_be_mapped_is_neither_made_nor_changed,
     a_new_file_belongs_to_whom_the_system_would_give_it,
     a_new_file_appears_whole_and_alone,
     growing_beyond_the_limit_of_file_sizes_is_efbig].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_) ->
    ok.

init_per_testcase(Case, Config) ->
    Directory = filename:join(?config(priv_dir, Config), Case),
    ok = filelib:ensure_path(Directory),
    [{directory, Directory} | Config].

end_per_testcase(_, _) ->
    ok.

%% ---- Another's file ---------------------------------------------------------------------------

%% While an open with create fails for lack of room, another process renames its file to the path, as
%% soon as there is one or after a while: the file is there afterwards, every time.
a_failed_open_never_removes_a_file_that_was_renamed_there(Config) ->
    Lost = everywhere(Config, disks(), fun(Vm, Rival, Mount) ->
        Path = test_mounts:path(Mount, "path"),
        Mine = test_mounts:path(Mount, "mine"),
        count(60, fun(Round) ->
            Contents = integer_to_binary(Round),
            ok = file:write_file(Mine, Contents),
            [_, ok] = at_once([{Vm, fun() -> fail_to_open(Path, 30) end},
                               {Rival, fun() -> rename_soon(Mine, Path, 10) end}]),
            Survived = file:read_file(Path) =:= {ok, Contents},
            _ = file:delete(Path),
            not Survived
        end)
    end),
    none(Lost).

%% Two VMs open the same new path, one with a size that fails: what the other wrote, synced and was
%% answered ok for is there afterwards.
a_failed_open_never_removes_a_file_that_another_vm_opened(Config) ->
    Lost = everywhere(Config, disks(), fun(Vm, Rival, Mount) ->
        Path = test_mounts:path(Mount, "path"),
        count(60, fun(Round) ->
            Contents = binary:copy(<<Round:64>>, 1000),
            [_, ok] = at_once([{Vm, fun() -> fail_to_open(Path, 20) end},
                               {Rival, fun() -> write_soon(Path, Contents, 10) end}]),
            Survived = file:read_file(Path) =:= {ok, Contents},
            _ = file:delete(Path),
            not Survived
        end)
    end),
    none(Lost).

fail_to_open(Path, Milliseconds) ->
    for(Milliseconds, fun() ->
        {error, enospc} = iommap:open(Path, read_write, [create, {size, ?NO_ROOM}])
    end).

rename_soon(From, To, Milliseconds) ->
    soon(To, Milliseconds),
    ok = file:rename(From, To).

write_soon(Path, Contents, Milliseconds) ->
    soon(Path, Milliseconds),
    case iommap:open(Path, read_write, [create, {size, byte_size(Contents)}]) of
        {ok, Handle} ->
            ok = iommap:pwrite(Handle, 0, Contents),
            ok = iommap:sync(Handle),
            ok = iommap:close(Handle);
        %% The other's try has the disk's room for a moment.
        {error, enospc} ->
            write_soon(Path, Contents, Milliseconds)
    end.

%% Waits until the file is there, or so long.
soon(Path, Milliseconds) ->
    Deadline = erlang:monotonic_time(millisecond) + Milliseconds,
    wait_for(Path, Deadline).

wait_for(Path, Deadline) ->
    case file:read_link_info(Path, [raw]) of
        {error, enoent} ->
            erlang:monotonic_time(millisecond) < Deadline andalso wait_for(Path, Deadline);
        {ok, _} ->
            true
    end.

%% ---- Another's appends ------------------------------------------------------------------------

%% While growing fails for lack of room, again and again, by truncate and by open, another process
%% appends: every record that it was told is written is there, once, in order.
what_others_append_is_kept_when_growing_fails(Config) ->
    Lost = everywhere(Config, disks(), fun(Vm, Rival, Mount) ->
        Path = test_mounts:path(Mount, "log"),
        ok = file:write_file(Path, binary:copy(<<0:64>>, 512)),
        [_, Appended] = at_once([{Vm, fun() -> fail_to_grow(Path, 1500) end},
                                 {Rival, fun() -> append(Path, 1000) end}]),
        {ok, <<_:4096/binary, Records/binary>>} = file:read_file(Path),
        true = Appended > 0,
        io:format(user, "~p: ~b records~n", [maps:get(kind, Mount), Appended]),
        case [Record || <<Record:64>> <= Records] =:= lists:seq(1, Appended) of
            true -> 0;
            false -> max(1, Appended - length([Record || <<Record:64>> <= Records, Record =/= 0]))
        end
    end),
    none(Lost).

fail_to_grow(Path, Milliseconds) ->
    {ok, Handle} = iommap:open(Path, read_write, []),
    for(Milliseconds, fun() ->
        {error, enospc} = iommap:truncate(Handle, ?NO_ROOM),
        {error, enospc} = iommap:open(Path, read_write, [{size, ?NO_ROOM}])
    end).

append(Path, Milliseconds) ->
    {ok, File} = file:open(Path, [append, raw, binary]),
    Deadline = erlang:monotonic_time(millisecond) + Milliseconds,
    append(File, 1, Deadline).

append(File, Record, Deadline) ->
    case file:write(File, <<Record:64>>) of
        ok ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true -> append(File, Record + 1, Deadline);
                false -> Record
            end;
        {error, enospc} ->
            append(File, Record, Deadline)
    end.

%% ---- Room -------------------------------------------------------------------------------------

%% A growth that fails leaves the disk as full as it was, whether it is refused at once or fails halfway. (What
%% lies far behind the end of the file counts as its own, so that the system is asked although there is no room.)
the_room_of_a_failed_growth_is_given_back(Config) ->
    Missing = everywhere(Config, disks(), fun(Vm, _, Mount) ->
        Path = test_mounts:path(Mount, "file"),
        Contents = test_pattern:bytes(10_000),
        lists:sum([begin
            ok = file:write_file(Path, Contents),
            {0, _} = test_system:shell([Before, " && sync -f ", maps:get(point, Mount)]),
            Free = settled_free(Mount),
            Size = total(Mount) + (10 bsl 20),
            {error, enospc} = test_vm:run(Vm, fun() -> Grow(Path, Size) end),
            {ok, Contents} = file:read_file(Path),
            ok = test_mounts:sync(Mount),
            Lost = max(0, Free - settled_free(Mount) - (64 bsl 10)),
            ok = file:delete(Path),
            Lost
        end || Before <- ["true", ["fallocate -n -o 1G -l 20M ", Path]],
               Grow <- [fun grow_open/2, fun grow_by_open/2]])
    end),
    none(Missing).

grow_open(Path, Size) ->
    {ok, Handle} = iommap:open(Path, read_write, []),
    Answer = iommap:truncate(Handle, Size),
    ok = iommap:close(Handle),
    Answer.

grow_by_open(Path, Size) ->
    iommap:open(Path, read_write, [{size, Size}]).

free(Mount) ->
    blocks(Mount, "%f").

total(Mount) ->
    blocks(Mount, "%b").

blocks(#{point := Point}, Which) ->
    {0, Told} = test_system:shell(["stat -f -c '", Which, " %S' ", Point]),
    [Blocks, Size] = [binary_to_integer(Number) || Number <- string:lexemes(string:trim(Told), " ")],
    Blocks * Size.

%% Once the file system has freed what it frees later on.
settled_free(Mount) ->
    Free = free(Mount),
    receive after 300 -> ok end,
    ok = test_mounts:sync(Mount),
    case free(Mount) of
        Free -> Free;
        _ -> settled_free(Mount)
    end.

%% ---- Emptying ---------------------------------------------------------------------------------

%% With truncate and a size, on a full disk: either the file is emptied, or it is enospc and the file what
%% it was. Also where its blocks are compressed or another file's too, and give no room when they are freed.
a_file_is_not_emptied_before_there_is_room_for_its_new_contents(Config) ->
    Size = 8 bsl 20,
    Contents = binary:copy(test_pattern:bytes(1 bsl 16), Size bsr 16),
    Lost = everywhere(Config, disks(), fun(Vm, _, Mount) ->
        length([lost || {Copy, New} <- [{"true", Size}, {"true", 2 * Size}, {"true", Size div 2},
                                        {"cp --reflink=always path copy", Size}],
                        begin
            Path = test_mounts:path(Mount, "path"),
            ok = file:write_file(Path, Contents),
            {_, _} = test_system:shell(["cd ", maps:get(point, Mount), " && sync -f . && ", Copy]),
            fill(test_mounts:path(Mount, "ballast")),
            Answer = test_vm:run(Vm, fun() -> empty(Path, New) end),
            Survived = is_whole(Path, Answer, New, Contents),
            io:format(user, "~p ~s ~b: ~p~n", [maps:get(kind, Mount), Copy, New, Answer]),
            {0, _} = test_system:shell(["cd ", maps:get(point, Mount), " && rm -f path copy ballast && sync -f ."]),
            not Survived
        end])
    end),
    none(Lost).

%% The same while another process fills the disk as fast as it can.
a_file_is_not_emptied_while_others_fill_the_disk(Config) ->
    Size = 1 bsl 20,
    Contents = binary:copy(test_pattern:bytes(1 bsl 16), Size bsr 16),
    Lost = everywhere(Config, disks(), fun(Vm, Rival, Mount) ->
        Path = test_mounts:path(Mount, "path"),
        Ballast = test_mounts:path(Mount, "ballast"),
        fill(Ballast),
        count(60, fun(Round) ->
            _ = file:delete(Path),
            {0, _} = test_system:shell(["truncate -s -4M ", Ballast, " && sync -f ", Ballast]),
            ok = file:write_file(Path, Contents),
            ok = test_mounts:sync(Mount),
            [Answer, _] = at_once([{Vm, fun() -> pause(Round * 50), empty(Path, Size) end},
                                   {Rival, fun() -> fill(Ballast) end}]),
            not is_whole(Path, Answer, Size, Contents)
        end)
    end),
    %% xfs gives the blocks up for a moment, as the guide says; so its count is only shown.
    {value, {xfs, InTheMoment}, Others} = lists:keytake(xfs, 1, Lost),
    io:format(user, "    xfs, in the moment without blocks: ~p~n", [InTheMoment]),
    none(Others).

empty(Path, Size) ->
    case iommap:open(Path, read_write, [truncate, {size, Size}]) of
        {ok, Handle} -> iommap:close(Handle);
        Error -> Error
    end.

is_whole(Path, ok, Size, _) ->
    {ok, Now} = file:read_file(Path),
    Now =:= <<0:Size/unit:8>>;
is_whole(Path, {error, enospc}, _, Contents) ->
    file:read_file(Path) =:= {ok, Contents}.

%% Bytes that cannot be compressed, until there is no room.
fill(Path) ->
    {ok, File} = file:open(Path, [append, raw, binary]),
    fill_more(File, crypto:strong_rand_bytes(1 bsl 16)),
    _ = file:sync(File),
    file:close(File).

fill_more(File, Bytes) ->
    case file:write(File, Bytes) of
        ok -> fill_more(File, Bytes);
        {error, enospc} -> ok
    end.

pause(Microseconds) ->
    Deadline = erlang:monotonic_time(microsecond) + Microseconds,
    spin(Deadline).

spin(Deadline) ->
    erlang:monotonic_time(microsecond) < Deadline andalso spin(Deadline).

%% ---- Mappings that cannot be made -------------------------------------------------------------

%% A file system that maps nothing (FUSE with direct I/O): enodev, and the file is neither made, also not
%% through a link, nor emptied, nor grown.
a_file_that_cannot_be_mapped_is_neither_made_nor_changed(Config) ->
    on_mount(Config, faultfs_direct_io, fun(#{point := Point} = Mount) ->
        Contents = test_pattern:bytes(10_000),
        Path = test_mounts:path(Mount, "file"),
        ok = file:write_file(Path, Contents),
        ok = file:make_symlink("target", Point ++ ".backing/link"),
        Vm = test_vm:start(),
        try
            [begin
                {error, enodev} = test_vm:call(Vm, iommap, open, [filename:join(Point, Name), read_write, Options]),
                {ok, Contents} = file:read_file(Path),
                {ok, Names} = file:list_dir(Point),
                ["file", "link"] = lists:sort(Names)
            end || {Name, Options} <- [{"new", [create, {size, 5000}]},
                                       {"link", [create, {size, 5000}]},
                                       {"file", [truncate, {size, 5000}]},
                                       {"file", [{size, 20_000}]}]]
        after
            test_vm:stop(Vm)
        end
    end).

%% ---- New files --------------------------------------------------------------------------------

%% Mode, group and access list of a new file are those that the system gives: under a umask, in a
%% directory that hands its group on, and in one with a default access list.
a_new_file_belongs_to_whom_the_system_would_give_it(Config) ->
    Wrapper = "umask 027; exec \"$@\"",
    Different = everywhere(Config, disks() ++ [vfat, faultfs], #{wrapper => Wrapper}, fun(Vm, _, #{point := Point}) ->
        Directories = [begin
            {Status, _} = test_system:shell(["mkdir ", Point, "/", Name, " && cd ", Point, "/", Name, " && ", Command]),
            {Status, filename:join(Point, Name)}
        end || {Name, Command} <- [{"plain", "true"}, {"group", "chown :12 . && chmod 2775 ."},
                                   {"list", "setfacl -d -m u:1234:rwx,g::rx,o::- ."}]],
        length([Directory || {0, Directory} <- Directories, begin
            {ok, _} = test_vm:call(Vm, iommap, open, [filename:join(Directory, "ours"), [create, {size, 5000}]]),
            ok = test_vm:run(Vm, fun() ->
                %% A file that open(2) makes, with the mode that the library asks for.
                [] = os:cmd("umask 0; cd " ++ Directory ++ "; umask 027; "
                            "perl -MFcntl -e 'sysopen(F, \"theirs\", O_CREAT|O_RDWR, 0644) or die'"),
                ok
            end),
            owned(Directory, "ours") =/= owned(Directory, "theirs")
        end])
    end),
    none(Different).

owned(Directory, Name) ->
    {0, Owned} = test_system:shell(["cd ", Directory, " && stat -c '%a %u %g %h' ", Name,
                                  " && (getfacl -c ", Name, " || true)"]),
    Owned.

%% Nobody ever sees a new file shorter than it is asked for, nor any other file beside it, also on file
%% systems that have no files without a name: their one shows as a name of its own until then.
a_new_file_appears_whole_and_alone(Config) ->
    Short = everywhere(Config, disks() ++ [vfat, faultfs], fun(Vm, Rival, #{point := Point} = Mount) ->
        {0, _} = test_system:shell(["mkdir ", Point, "/new"]),
        Path = test_mounts:path(Mount, "new/file"),
        [_, Short] = at_once([{Vm, fun() -> make_and_delete(Path, 1000) end},
                              {Rival, fun() -> watch_size(Path, 100_000, 900) end}]),
        {error, _} = test_vm:call(Vm, iommap, open, [Path, [create, {size, ?NO_ROOM_ANYWHERE}]]),
        {ok, []} = file:list_dir(test_mounts:path(Mount, "new")),
        Short
    end),
    none(Short).

make_and_delete(Path, Milliseconds) ->
    for(Milliseconds, fun() ->
        {ok, Handle} = iommap:open(Path, [create, {size, 100_000}]),
        {ok, ["file"]} = file:list_dir(filename:dirname(Path)),
        ok = file:delete(Path),
        ok = iommap:close(Handle)
    end).

%% How often the file was there and of another size.
watch_size(Path, Size, Milliseconds) ->
    Deadline = erlang:monotonic_time(millisecond) + Milliseconds,
    watch_size(Path, Size, Deadline, 0).

watch_size(Path, Size, Deadline, Count) ->
    Other = case file:read_link_info(Path, [raw]) of
        {error, enoent} -> 0;
        {ok, Info} when element(2, Info) =:= Size -> 0;
        {ok, _} -> 1
    end,
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> watch_size(Path, Size, Deadline, Count + Other);
        false -> Count + Other
    end.

%% ---- Limits -----------------------------------------------------------------------------------

%% A VM under a limit like `ulimit -f` lives on, and no file was made, grown or emptied.
growing_beyond_the_limit_of_file_sizes_is_efbig(Config) ->
    Directory = ?config(directory, Config),
    Path = filename:join(Directory, "file"),
    Contents = test_pattern:bytes(10_000),
    ok = file:write_file(Path, Contents),
    Vm = test_vm:start(),
    try
        %% Not before it runs: it keeps its code in a file of 64 MiB.
        {0, _} = test_system:shell(["prlimit --pid ", test_vm:os_pid(Vm), " --fsize=1000000:"]),
        ok = test_vm:run(Vm, fun() ->
            {ok, Handle} = iommap:open(Path, read_write, []),
            {error, efbig} = iommap:truncate(Handle, 2_000_000),
            {error, efbig} = iommap:open(Path, read_write, [{size, 2_000_000}]),
            {error, efbig} = iommap:open(Path, read_write, [truncate, {size, 2_000_000}]),
            {error, efbig} = iommap:open(Path ++ ".new", read_write, [create, {size, 2_000_000}]),
            ok = iommap:truncate(Handle, 20_000),
            ok = iommap:truncate(Handle, 10_000),
            iommap:close(Handle)
        end),
        {ok, Contents} = file:read_file(Path),
        {ok, ["file"]} = file:list_dir(Directory)
    after
        test_vm:stop(Vm)
    end.

%% ---- Every file system ------------------------------------------------------------------------

disks() ->
    [ext4, xfs, btrfs, {btrfs, "compress-force=zstd"}, {tmpfs, "size=64m"}, overlayfs].

%% Evaluates the function on each file system, with two VMs. What it gave, by file system.
everywhere(Config, Kinds, Function) ->
    everywhere(Config, Kinds, #{}, Function).

everywhere(Config, Kinds, Options, Function) ->
    [{Kind, on_mount(Config, Kind, fun(Mount) ->
        Vm = test_vm:start(Options),
        Rival = test_vm:start(Options),
        try
            Function(Vm, Rival, Mount)
        after
            test_vm:stop(Vm),
            test_vm:stop(Rival)
        end
    end)} || Kind <- Kinds].

%% Shows the counts, which are to be 0.
none(Counts) ->
    [io:format(user, "    ~-24s ~w~n", [io_lib:format("~p", [Kind]), Count])
     || {Kind, Count} <- Counts, is_integer(Count)],
    [] = [Of || {_, Count} = Of <- Counts, is_integer(Count), Count =/= 0],
    true = lists:any(fun({_, Count}) -> Count =:= 0 end, Counts),
    ok.

on_mount(Config, Kind, Function) ->
    case test_mounts:mount(Kind, ?config(directory, Config)) of
        {ok, Mount} -> try Function(Mount) after test_mounts:unmount(Mount) end;
        Skip -> Skip
    end.

%% Evaluates functions in VMs at the same time.
at_once(Functions) ->
    Self = self(),
    Runs = [spawn_link(fun() -> Self ! {self(), test_vm:run(Vm, Function)} end) || {Vm, Function} <- Functions],
    [receive {Run, Result} -> Result end || Run <- Runs].

count(Rounds, Is) ->
    length([Round || Round <- lists:seq(1, Rounds), Is(Round)]).

%% Evaluates the function again and again for so long.
for(Milliseconds, Function) ->
    until(erlang:monotonic_time(millisecond) + Milliseconds, Function).

until(Deadline, Function) ->
    _ = Function(),
    erlang:monotonic_time(millisecond) < Deadline andalso until(Deadline, Function).
