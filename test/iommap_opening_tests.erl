%% How files are opened beyond the original: room to grow, new files' permissions, descriptors, memory without a name, windows.
-module(iommap_opening_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [with_directory/1, with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, bytes/2, zeros/1, page/0]).

%% Growing ahead: ensure_size, {reserve, N}

ensure_size_makes_file_and_mapping_at_least_so_long_test() ->
    %% Whatever size is asked for, both are as long as it answers, which is the larger of that and half as much again; new bytes are zero.
    [with_mapping(bytes(Old), Mode, Options, fun(Handle, Path) ->
         Size = if Bytes > Old -> max(Bytes, Old + Old div 2); true -> Old end,
         ?assertEqual({Old, Bytes, {ok, Size}}, {Old, Bytes, iommap:ensure_size(Handle, Bytes)}),
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         Expected = <<(bytes(Old))/binary, (zeros(Size - Old))/binary>>,
         ?assertEqual({ok, Expected}, file:read_file(Path)),
         Mode =:= write orelse ?assertEqual({ok, Expected}, iommap:pread(Handle, 0, Size)),
         ?assertEqual(ok, iommap:pwrite(Handle, Size - 1, <<"a">>)),
         ?assertEqual({error, out_of_bounds}, iommap:pwrite(Handle, Size, <<"a">>))
     end) || {Mode, Options} <- [{write, []}, {read_write, []}, {read_write, [private]}],
             Old <- [1, 10, page() - 1, page(), 3 * page() + 17],
             Bytes <- [0, 1, Old - 1, Old, Old + 1, Old + page(), 3 * Old, 1_000_000]].

ensure_size_of_what_is_long_enough_touches_nothing_test() ->
    %% The file keeps its size also if another process made it longer: nobody looks.
    with_mapping(bytes(1000), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 2000),
        ?assertEqual({ok, 1000}, iommap:ensure_size(Handle, 1000)),
        ?assertEqual({ok, 1000}, iommap:position(Handle)),
        ?assertEqual(2000, filelib:file_size(Path))
    end).

ensure_size_makes_appending_grow_seldom_test() ->
    %% Of 20,000 appends of 64 bytes few make the file longer, each by half at least; the bytes are those of a plain binary.
    with_mapping(<<0>>, fun(Handle, Path) ->
        Record = fun(Number) -> <<Number:64, (bytes(56))/binary>> end,
        Sizes = [begin
                     End = Number * 64,
                     {ok, Size} = iommap:ensure_size(Handle, End),
                     ok = iommap:pwrite(Handle, End - 64, Record(Number)),
                     Size
                 end || Number <- lists:seq(1, 20_000)],
        Steps = lists:uniq(Sizes),
        ?assertEqual(Steps, lists:sort(Steps)),
        [?assert(Larger >= Smaller + Smaller div 2) || {Smaller, Larger} <- lists:zip(lists:droplast(Steps), tl(Steps))],
        ok = iommap:truncate(Handle, 20_000 * 64),
        ?assertEqual({ok, << <<(Record(Number))/binary>> || Number <- lists:seq(1, 20_000) >>}, file:read_file(Path))
    end).

ensure_size_keeps_what_others_appended_test() ->
    %% What another process appended is part of the mapping then, however much it is.
    [with_mapping(bytes(1000), read_write, Options, fun(Handle, Path) ->
         ok = iommap:pwrite(Handle, 0, <<"mine">>),
         Appended = bytes(1000, Length),
         ok = file:write_file(Path, Appended, [append]),
         Size = max(1500, 1000 + Length),
         ?assertEqual({ok, Size}, iommap:ensure_size(Handle, 1001)),
         ?assertEqual(Size, filelib:file_size(Path)),
         Expected = <<"mine", (bytes(4, 996))/binary, Appended/binary, (zeros(Size - 1000 - Length))/binary>>,
         ?assertEqual({ok, Expected}, iommap:pread(Handle, 0, Size))
     end) || Options <- [[], [private]], Length <- [1, 100, 5000, 300_000]].

ensure_size_leaves_the_padding_at_close_test() ->
    %% The file is as long after close as ensure_size said.
    with_mapping(bytes(1000), fun(Handle, Path) ->
        {ok, 1500} = iommap:ensure_size(Handle, 1001),
        ok = iommap:close(Handle),
        ?assertEqual({ok, <<(bytes(1000))/binary, (zeros(500))/binary>>}, file:read_file(Path))
    end).

ensure_size_keeps_views_test() ->
    %% A view shows the same memory as the handle, however far the mapping has grown since.
    with_mapping(bytes(1000), fun(Handle, _Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 1000),
        [{ok, _} = iommap:ensure_size(Handle, Bytes) || Bytes <- [1001, 100_000, 10_000_000]],
        ok = iommap:pwrite(Handle, 500, <<"new">>),
        ?assertEqual(<<"new">>, binary:part(View, 500, 3)),
        ?assert(iommap:intact(View))
    end).

ensure_size_of_a_faulted_mapping_is_sigbus_test() ->
    %% A handle that lost bytes says so to ensure_size, too, also if it is long enough, and the file stays as it is.
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        ok = test_system:truncate(Path, page()),
        _ = binary:last(View),
        [?assertEqual({error, sigbus}, iommap:ensure_size(Handle, Bytes)) || Bytes <- [0, 1, 3 * page(), 10 * page()]],
        ?assertEqual(page(), filelib:file_size(Path)),
        {ok, _} = iommap:remap(Handle),
        ?assertEqual({ok, 2 * page()}, iommap:ensure_size(Handle, 2 * page()))
    end).

ensure_size_does_not_hide_that_the_file_was_cut_test() ->
    %% Where the file lost bytes that nobody has read yet, growing would show zeros in their place: sigbus, and the file stays.
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 2 * page()),
        ?assertEqual({error, sigbus}, iommap:ensure_size(Handle, 4 * page())),
        ?assertEqual(2 * page(), filelib:file_size(Path)),
        ?assertEqual({ok, bytes(2 * page())}, iommap:pread(Handle, 0, 2 * page()))
    end).

ensure_size_beyond_what_a_file_can_be_is_an_error_test() ->
    %% Sizes that no file can have change nothing.
    with_mapping(bytes(1000), fun(Handle, Path) ->
        [?assertMatch({Bytes, {error, Reason}} when Reason =:= efbig; Reason =:= enomem; Reason =:= enospc,
            {Bytes, iommap:ensure_size(Handle, Bytes)}) || Bytes <- [1 bsl 62, 1 bsl 63, 1 bsl 64 - 1]],
        ?assertEqual({ok, bytes(1000)}, file:read_file(Path)),
        ?assertEqual({ok, bytes(1000)}, iommap:pread(Handle, 0, 1000))
    end).

ensure_size_by_many_processes_loses_nothing_test_() ->
    %% Processes that append to parts of their own, each making room for itself, find all of their bytes in the file.
    {timeout, 300, ?_test(with_mapping(<<0>>, fun(Handle, Path) ->
        Numbers = lists:seq(1, 8),
        Append = fun(Part) ->
            [begin
                 Start = (Round * 8 + Part - 1) * 100,
                 {ok, Size} = iommap:ensure_size(Handle, Start + 100),
                 ?assert(Size >= Start + 100),
                 ok = iommap:pwrite(Handle, Start, bytes(Start, 100))
             end || Round <- lists:seq(0, 499)]
        end,
        _ = test_processes:together([fun() -> Append(Part) end || Part <- Numbers]),
        ?assertEqual(bytes(400_000), binary:part(element(2, file:read_file(Path)), 0, 400_000))
    end))}.

reserve_keeps_room_to_grow_where_the_mapping_is_test() ->
    %% With room reserved a mapping that has a view grows a thousandfold where it is: one range of addresses, not two.
    Grown = fun(Options, Grow) ->
        with_mapping(bytes(page()), read_write, Options, fun(Handle, Path) ->
            {ok, View} = iommap:region_binary(Handle, 0, page()),
            ok = Grow(Handle, Path),
            ok = iommap:pwrite(Handle, 1000 * page() - 3, <<"end">>),
            Ranges = length(test_system:ranges(Path)),
            ?assertEqual(bytes(page()), View),
            Ranges
        end)
    end,
    Size = 1000 * page(),
    Ways = [fun(Handle, _) -> iommap:truncate(Handle, Size) end,
            fun(Handle, _) -> {ok, Size} = iommap:ensure_size(Handle, Size), ok end,
            fun(Handle, Path) -> ok = test_system:truncate(Path, Size), {ok, Size} = iommap:remap(Handle), ok end],
    [begin
         ?assertEqual(2, Grown([], Grow)),
         ?assertEqual(1, Grown([{reserve, Size}], Grow))
     end || Grow <- Ways].

reserve_that_cannot_be_had_is_no_error_test() ->
    %% However much address space is asked for, the file is mapped, and can be resized.
    [with_mapping(bytes(1000), read_write, [{reserve, Bytes}], fun(Handle, _Path) ->
         ?assertEqual({ok, 1000}, iommap:position(Handle)),
         ok = iommap:truncate(Handle, 200_000),
         ok = iommap:truncate(Handle, 500),
         ?assertEqual({ok, bytes(500)}, iommap:pread(Handle, 0, 500))
     end) || Bytes <- [0, 1, 1 bsl 30, 1 bsl 40, 1 bsl 47, 1 bsl 62, 1 bsl 63, 1 bsl 64 - 1]].

%% {permissions, M}

permissions_are_those_of_a_new_file_test() ->
    %% A file that create makes has the permissions given, under the umask; the last of two counts.
    Umask = umask(),
    [with_directory(fun(Directory) ->
         Path = filename:join(Directory, "new"),
         {ok, Handle} = iommap:open(Path, read_write, [create, {size, 5000} | Options]),
         ?assertEqual({Options, Mode band bnot Umask}, {Options, permissions(Path)}),
         ok = iommap:pwrite(Handle, 0, <<"written">>),
         ?assertEqual({ok, <<"written">>}, iommap:pread(Handle, 0, 7))
     end) || {Options, Mode} <- [{[], 8#644}] ++ [{[{permissions, Mode}], Mode} ||
                 Mode <- [0, 8#200, 8#400, 8#600, 8#660, 8#666, 8#755, 8#777, 8#1600, 8#2770, 8#4711, 8#7777]]
                 ++ [{[{permissions, 8#777}, {permissions, 8#600}], 8#600}]].

permissions_of_a_file_that_is_there_stay_test() ->
    %% Without create, and where there is a file already, permissions are accepted and change nothing.
    with_file(bytes(10), fun(Path) ->
        ok = file:change_mode(Path, 8#640),
        [begin
             ?assertMatch({ok, _}, iommap:open(Path, Mode, [{permissions, 8#777} | Options])),
             ?assertEqual(8#640, permissions(Path))
         end || {Mode, Options} <- [{read, []}, {write, [create]}, {read_write, [create, truncate, {size, 20}]}]]
    end).

permissions(Path) ->
    {ok, #file_info{mode = Mode}} = file:read_file_info(Path),
    Mode band 8#7777.

umask() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Umask]} = re:run(Status, "Umask:\\s*(\\d+)", [{capture, all_but_first, list}]),
    list_to_integer(Umask, 8).

%% {fd, N}

a_descriptor_is_mapped_as_its_file_is_test() ->
    %% Through a descriptor, in every mode, reads, writes and resizes are those of its file, and its position stays.
    [with_descriptor(bytes(5000), [read, write], fun(Fd, File, Path) ->
         {ok, 1234} = file:position(File, 1234),
         {ok, Handle} = iommap:open({fd, Fd}, Mode, Options),
         ?assertEqual({ok, 5000}, iommap:position(Handle)),
         Mode =:= write orelse ?assertEqual({ok, bytes(5000)}, iommap:pread(Handle, 0, 5000)),
         Mode =:= read orelse begin
             ok = iommap:pwrite(Handle, 10, <<"new">>),
             ok = iommap:truncate(Handle, 200_000),
             {ok, 300_000} = iommap:ensure_size(Handle, 200_001),
             ok = iommap:sync(Handle),
             ok = iommap:truncate(Handle, 20),
             Written = case lists:member(private, Options) of true -> bytes(10, 3); false -> <<"new">> end,
             ?assertEqual({ok, <<(bytes(10))/binary, Written/binary, (bytes(13, 7))/binary>>}, file:read_file(Path))
         end,
         ok = iommap:close(Handle),
         ?assertEqual({ok, 1234}, file:position(File, {cur, 0}))
     end) || Mode <- [read, write, read_write], Options <- [[], [private], [populate, lock]]].

a_descriptor_takes_options_as_a_path_does_test() ->
    %% size and truncate do with a descriptor what they do with a path; create and permissions are ignored, in every mode.
    [with_descriptor(bytes(100), [read, write], fun(Fd, _File, Path) ->
         Answer = case iommap:open({fd, Fd}, Mode, Options) of {ok, _} -> ok; Error -> Error end,
         ?assertEqual({Mode, Options, Expected}, {Mode, Options, Answer}),
         ?assertEqual({Mode, Options, {ok, Bytes}}, {Mode, Options, file:read_file(Path)})
     end) || {Mode, Options, Expected, Bytes} <- [
         {read, [create, {permissions, 8#777}], ok, bytes(100)},
         {read, [truncate], {error, einval}, bytes(100)},
         {read, [{size, 101}], {error, einval}, bytes(100)},
         {read, [{size, 100}], ok, bytes(100)},
         {read_write, [truncate], {error, einval}, bytes(100)},
         {read_write, [truncate, create, {size, 50}], ok, zeros(50)},
         {write, [{size, 150}], ok, <<(bytes(100))/binary, (zeros(50))/binary>>}]].

a_descriptor_without_the_access_is_eacces_test() ->
    %% The mode needs what it needs of a path's file: to read always, to write unless the mode is read.
    [with_descriptor(bytes(100), Modes, fun(Fd, _File, Path) ->
         [?assertEqual({Mode, {error, eacces}}, {Mode, iommap:open({fd, Fd}, Mode, [])}) || Mode <- Refused],
         ?assertEqual(100, filelib:file_size(Path))
     end) || {Modes, Refused} <- [{[read], [write, read_write]}, {[append], [read, write, read_write]}]].

a_descriptor_that_is_none_of_a_file_is_refused_test() ->
    %% What is not open is ebadf, a directory eisdir, a pipe and an empty file einval; what is no number from 0 on raises.
    [?assertEqual({error, ebadf}, iommap:open({fd, Fd}, read, [])) || Fd <- [100_000, 1 bsl 31, 1 bsl 64, 1 bsl 200]],
    [?assertError(badarg, iommap:open({fd, Fd}, read, [])) || Fd <- [-1, -(1 bsl 70), atom, 1.0, <<1>>, "1", {}]],
    [?assertError(badarg, iommap:open({fd, Fd}, [])) || Fd <- [-1, atom]],
    [?assertEqual({error, badarg}, iommap:open(Source, [])) || Source <- [{fd}, {fd, 1, 2}, {file, 1}, fd]],
    {ok, Socket} = socket:open(local, stream),
    {ok, SocketFd} = socket:getopt(Socket, {otp, fd}),
    ?assertEqual({error, einval}, iommap:open({fd, SocketFd}, read, [])),
    with_descriptor(<<>>, [read, write], fun(Fd, _File, Path) ->
        ?assertEqual({error, einval}, iommap:open({fd, Fd}, read_write, [])),
        {ok, Directory} = file:open(filename:dirname(Path), [read, raw, binary, directory]),
        ?assertEqual({error, eisdir}, iommap:open({fd, descriptor(Directory)}, read, [])),
        ?assertEqual({error, eisdir}, iommap:open({fd, descriptor(Directory)}, read_write, []))
    end).

a_descriptor_may_be_closed_after_test() ->
    %% The mapping has a descriptor of its own, which is closed in other programs, and goes with the handle.
    with_descriptor(bytes(100), [read, write], fun(Fd, File, Path) ->
        Before = test_system:descriptors(Path),
        {ok, Handle} = iommap:open({fd, Fd}, read_write, []),
        [Own] = test_system:descriptors(Path) -- Before,
        {ok, Facts} = file:read_file("/proc/self/fdinfo/" ++ Own),
        {match, [Flags]} = re:run(Facts, "flags:\\s*(\\d+)", [{capture, all_but_first, list}]),
        ?assertEqual(8#2000000, list_to_integer(Flags, 8) band 8#2000000),
        ok = file:close(File),
        ok = iommap:truncate(Handle, 200),
        ?assertEqual({ok, <<(bytes(100))/binary, (zeros(100))/binary>>}, iommap:pread(Handle, 0, 200)),
        ok = iommap:close(Handle),
        ?assertEqual([], test_system:descriptors(Path))
    end).

a_descriptor_that_a_socket_received_is_mapped_test() ->
    %% A file whose name is gone is mapped by the descriptor that came over a socket.
    with_directory(fun(Directory) ->
        with_descriptor(bytes(100), [read, write], fun(Fd, File, Path) ->
            Received = pass(Fd, filename:join(Directory, "socket")),
            ok = file:delete(Path),
            {ok, Handle} = iommap:open({fd, Received}, read_write, []),
            ok = iommap:pwrite(Handle, 0, <<"shared">>),
            ?assertEqual({ok, <<"shared">>}, file:pread(File, 0, 6))
        end)
    end).

%% The number that a descriptor has after it went through a socket.
pass(Fd, Path) ->
    {ok, Listener} = socket:open(local, stream),
    ok = socket:bind(Listener, #{family => local, path => Path}),
    ok = socket:listen(Listener),
    {ok, Sender} = socket:open(local, stream),
    ok = socket:connect(Sender, #{family => local, path => Path}),
    {ok, Receiver} = socket:accept(Listener),
    Rights = #{level => socket, type => rights, data => <<Fd:32/native>>},
    ok = socket:sendmsg(Sender, #{iov => [<<"x">>], ctrl => [Rights]}),
    {ok, #{ctrl := [#{type := rights, data := <<Received:32/native>>}]}} = socket:recvmsg(Receiver),
    Received.

%% A descriptor of a file with these contents, and what the file module has of it.
with_descriptor(Contents, Modes, Test) ->
    with_file(Contents, fun(Path) ->
        {ok, File} = file:open(Path, [raw, binary | Modes]),
        try Test(descriptor(File), File, Path) after file:close(File) end
    end).

descriptor(File) ->
    <<Fd:32/native>> = prim_file:get_handle(File),
    Fd.

%% Memory without a name

anonymous_memory_is_zeros_of_the_size_asked_for_test() ->
    %% It has exactly the size, and behaves as a file of zeros does: written, grown, viewed, synced, closed.
    [begin
         {ok, Handle} = iommap:open(anonymous, read_write, [{size, Size} | Options]),
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         ?assertEqual({ok, zeros(Size)}, iommap:pread(Handle, 0, Size)),
         ok = iommap:pwrite(Handle, 0, bytes(Size)),
         {ok, View} = iommap:region_binary(Handle, 0, Size),
         ?assertEqual({ok, Size}, iommap:remap(Handle)),
         ?assertEqual(ok, iommap:sync(Handle)),
         ?assertEqual(ok, iommap:truncate(Handle, 3 * Size)),
         ?assertEqual({ok, <<(bytes(Size))/binary, (zeros(2 * Size))/binary>>}, iommap:pread(Handle, 0, 3 * Size)),
         ?assertEqual({ok, 3 * Size + 3 * Size div 2}, iommap:ensure_size(Handle, 3 * Size + 1)),
         ok = iommap:close(Handle),
         ?assertEqual(bytes(Size), View),
         ?assert(iommap:intact(View))
     end || Size <- [1, page() - 1, page(), page() + 1, 3_000_000],
            Options <- [[], [shared, create, truncate, {permissions, 8#777}], [populate, lock, {reserve, 1 bsl 30}]]].

anonymous_memory_needs_a_size_and_writing_and_sharing_test() ->
    %% Without a size, or of mode read or private, there is nothing to share; of mode write it cannot be read.
    [?assertEqual({error, einval}, iommap:open(anonymous, Mode, Options)) || {Mode, Options} <- [
        {read_write, []}, {read_write, [{size, 0}]}, {read_write, [create, truncate]}, {read, [{size, 10}]},
        {read_write, [private, {size, 10}]}, {write, []}]],
    ?assertEqual({error, einval}, iommap:open(anonymous, [])),
    ?assertMatch({ok, _}, iommap:open(anonymous, [{size, 1}])),
    {ok, Handle} = iommap:open(anonymous, write, [{size, 10}]),
    ?assertEqual({error, eacces}, iommap:pread(Handle, 0, 1)),
    ?assertEqual(ok, iommap:pwrite(Handle, 0, <<"a">>)).

anonymous_memory_never_gets_shorter_test() ->
    %% truncate to less is eperm, and changes nothing.
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 5000}]),
    ok = iommap:pwrite(Handle, 0, bytes(5000)),
    [?assertEqual({error, eperm}, iommap:truncate(Handle, Size)) || Size <- [1, 4096, 4999]],
    ?assertEqual({error, einval}, iommap:truncate(Handle, 0)),
    ?assertEqual(ok, iommap:truncate(Handle, 5000)),
    ?assertEqual({ok, bytes(5000)}, iommap:pread(Handle, 0, 5000)).

anonymous_memory_that_open_cannot_cut_keeps_its_contents_test() ->
    %% open with truncate, by path or descriptor, is eperm for less than there is, and changes nothing; for as much it gives zeros.
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 5000}]),
    {ok, #{path := Path, descriptor := Fd}} = iommap:info(Handle),
    [begin
         ok = iommap:pwrite(Handle, 0, bytes(5000)),
         ?assertEqual({error, eperm}, iommap:open(Source, read_write, [truncate, {size, 4999}])),
         ?assertEqual({ok, bytes(5000)}, iommap:pread(Handle, 0, 5000)),
         ?assertMatch({ok, _}, iommap:open(Source, read_write, [truncate, {size, 5000}])),
         ?assertEqual({ok, zeros(5000)}, iommap:pread(Handle, 0, 5000))
     end || Source <- [Path, {fd, Fd}]].

anonymous_memory_is_shared_with_another_process_test() ->
    %% Another OS process reads and writes it by the path of info/1, and makes it longer; neither side can make it shorter.
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 5000}]),
    {ok, #{path := Path}} = iommap:info(Handle),
    ok = iommap:pwrite(Handle, 0, bytes(5000)),
    ?assertEqual(bytes(5000), test_system:run("cat", [Path])),
    {0, _} = test_system:shell(["printf theirs | dd conv=notrunc bs=1 seek=100 of=", Path]),
    ?assertEqual({ok, <<(bytes(100))/binary, "theirs", (bytes(106, 4894))/binary>>}, iommap:pread(Handle, 0, 5000)),
    ?assertMatch({Status, _} when Status > 0, test_system:shell(["truncate -s 4999 ", Path])),
    ?assertMatch({Status, _} when Status > 0, test_system:shell([": > ", Path])),
    ok = test_system:truncate(binary_to_list(Path), 10_000),
    ?assertEqual({ok, 5000}, iommap:position(Handle)),
    ?assertEqual({ok, 10_000}, iommap:remap(Handle)),
    ?assertEqual({ok, zeros(5000)}, iommap:pread(Handle, 5000, 5000)).

anonymous_memory_is_the_users_own_and_not_executable_test() ->
    %% Its permissions are 8#600, its descriptor is closed in other programs, and a copy of a program there does not run.
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 200_000}]),
    {ok, #{path := Path}} = iommap:info(Handle),
    ?assertEqual(8#600, permissions(Path)),
    Program = os:find_executable("true"),
    {0, _} = test_system:shell(["dd conv=notrunc if=", Program, " of=", Path]),
    ?assertMatch({126, _}, test_system:shell(Path)),
    [_, _, _, _, Fd] = binary:split(Path, <<"/">>, [global]),
    {ok, Facts} = file:read_file("/proc/self/fdinfo/" ++ binary_to_list(Fd)),
    {match, [Flags]} = re:run(Facts, "flags:\\s*(\\d+)", [{capture, all_but_first, list}]),
    ?assertEqual(8#2000000, list_to_integer(Flags, 8) band 8#2000000),
    ?assertEqual({ok, 200_000}, iommap:position(Handle)).

anonymous_memory_goes_with_its_last_holder_test() ->
    %% Path and memory are there as long as a view is, also after close, and gone with it.
    Inode = test_processes:in_a_process(fun() ->
        {ok, Handle} = iommap:open(anonymous, read_write, [{size, 100_000}]),
        {ok, #{path := Path}} = iommap:info(Handle),
        {ok, #file_info{inode = Inode}} = file:read_file_info(Path),
        ok = iommap:pwrite(Handle, 0, bytes(100_000)),
        {ok, View} = iommap:region_binary(Handle, 0, 100_000),
        ok = iommap:close(Handle),
        ?assertEqual(bytes(100_000), test_system:run("cat", [Path])),
        ?assertMatch([_ | _], test_system:ranges(io_lib:format(" ~b ", [Inode]))),
        ?assertEqual(bytes(100_000), View),
        Inode
    end),
    test_processes:eventually(fun() -> test_system:ranges(io_lib:format(" ~b ", [Inode])) =:= [] end).

anonymous_memory_that_is_not_there_is_enospc_test() ->
    %% More than the machine has left is refused at once, by open and by a growth, and nothing of it is taken.
    [?assertEqual({Size, {error, Reason}}, {Size, iommap:open(anonymous, read_write, [{size, Size}])}) ||
        {Size, Reason} <- [{1 bsl 45, enospc}, {1 bsl 63, efbig}, {1 bsl 64 - 1, efbig}]],
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 5000}]),
    ?assertEqual({error, enospc}, iommap:truncate(Handle, 1 bsl 45)),
    ?assertEqual({error, enospc}, iommap:ensure_size(Handle, 1 bsl 45)),
    {ok, #{path := Path}} = iommap:info(Handle),
    ?assertEqual(5000, filelib:file_size(Path)),
    ?assertEqual({ok, 5000}, iommap:position(Handle)).

anonymous_memory_is_mapped_by_its_path_test() ->
    %% The path names this VM and the descriptor, and opens as a path of a file does.
    {ok, Handle} = iommap:open(anonymous, read_write, [{size, 10}]),
    {ok, #{path := Path}} = iommap:info(Handle),
    ?assertEqual(iolist_to_binary(["/proc/", os:getpid(), "/fd/", filename:basename(Path)]), Path),
    {ok, Other} = iommap:open(Path, read_write, []),
    ok = iommap:pwrite(Other, 0, <<"both">>),
    ?assertEqual({ok, <<"both">>}, iommap:pread(Handle, 0, 4)).

%% Windows

-define(FILE_SIZE, (5 * page() + 100)).

a_window_is_the_part_of_the_file_test_() ->
    %% Whatever the offset and the length, reads, views, writes and bounds are those of that part of the file.
    {timeout, 300, fun() ->
        [with_file(bytes(?FILE_SIZE), fun(Path) ->
             Rest = ?FILE_SIZE - Offset,
             Size = case Length of none -> Rest; _ -> min(Length, Rest) end,
             {ok, Handle} = iommap:open(Path, read_write, [{length, Length} || Length =/= none] ++ [{offset, Offset} | Options]),
             Part = bytes(Offset, Size),
             ?assertEqual({Offset, Length, {ok, Size}}, {Offset, Length, iommap:position(Handle)}),
             ?assertMatch({ok, #{size := Size}}, iommap:info(Handle)),
             ?assertEqual({ok, Part}, iommap:pread(Handle, 0, Size)),
             ?assertEqual({ok, Part}, iommap:region_binary(Handle, 0, Size)),
             ?assertEqual({ok, <<>>}, iommap:pread(Handle, Size, 0)),
             [?assertEqual({ok, binary:part(Part, At, 1)}, iommap:pread(Handle, At, 1)) || At <- [0, Size div 2, Size - 1]],
             [?assertEqual({error, out_of_bounds}, Call(Handle, At, Bytes)) ||
                 Call <- [fun iommap:pread/3, fun iommap:region_binary/3], {At, Bytes} <- [{Size, 1}, {0, Size + 1}, {Size + 1, 0}]],
             ?assertEqual({error, out_of_bounds}, iommap:pwrite(Handle, Size, <<"a">>)),
             ok = iommap:pwrite(Handle, Size - 1, <<"z">>),
             ok = iommap:pwrite(Handle, 0, <<"a">>),
             Written = case Size of 1 -> <<"a">>; _ -> <<"a", (binary:part(Part, 1, Size - 2))/binary, "z">> end,
             ?assertEqual({ok, Written}, iommap:pread(Handle, 0, Size)),
             [?assertEqual(ok, iommap:sync(Handle, Mode)) || Mode <- [sync, async]],
             [?assertEqual(ok, iommap:advise(Handle, At, Bytes, Hint)) || Hint <- [random, willneed, dontneed, normal],
                 {At, Bytes} <- [{0, 0}, {0, Size}, {Size - 1, 1}]],
             ?assertEqual({ok, Written}, iommap:pread(Handle, 0, Size)),
             Shared = case lists:member(private, Options) of true -> Part; false -> Written end,
             Before = bytes(Offset), After = bytes(Offset + Size, Rest - Size),
             ?assertEqual({ok, <<Before/binary, Shared/binary, After/binary>>}, file:read_file(Path))
         end) || Offset <- offsets(), Length <- [none, 1, 17, page() - 1, page(), 2 * page() + 1, ?FILE_SIZE, 1 bsl 63, 1 bsl 64 - 1],
                 Options <- [[], [private], [populate, lock]]]
    end}.

offsets() ->
    [0, 1, 7, 4095, page() - 1, page(), page() + 1, 3 * page(), 5 * page() + 99].

a_window_is_read_and_written_as_a_binary_is_test() ->
    %% Random reads and writes through a window, warm and cold, agree with a plain binary, and the file with both.
    with_file(bytes(?FILE_SIZE), fun(Path) ->
        Offset = page() + 123,
        Size = 3 * page(),
        {ok, Handle} = iommap:open(Path, read_write, [{offset, Offset}, {length, Size}]),
        Model = lists:foldl(fun(Round, Model) ->
            At = rand:uniform(Size) - 1,
            Length = rand:uniform(Size - At),
            ?assertEqual({ok, binary:part(Model, At, Length)}, iommap:pread(Handle, At, Length)),
            Data = bytes(Round, Length),
            ok = iommap:pwrite(Handle, At, Data),
            Round rem 50 =:= 0 andalso begin ok = iommap:sync(Handle), test_files:drop_cache(Path) end,
            <<Head:At/binary, _:Length/binary, Tail/binary>> = Model,
            <<Head/binary, Data/binary, Tail/binary>>
        end, bytes(Offset, Size), lists:seq(1, 500)),
        ?assertEqual({ok, Model}, iommap:pread(Handle, 0, Size)),
        End = Offset + Size,
        ?assertEqual({ok, <<(bytes(Offset))/binary, Model/binary, (bytes(End, ?FILE_SIZE - End))/binary>>}, file:read_file(Path))
    end).

a_window_of_which_nothing_is_left_is_einval_test() ->
    %% An offset at the end of the file or behind it, or length 0: nothing is touched, nor made.
    with_file(bytes(100), fun(Path) ->
        [?assertEqual({Mode, Options, {error, einval}}, {Mode, Options, iommap:open(Path, Mode, Options)}) ||
            Mode <- [read, write, read_write],
            Options <- [[{offset, 100}], [{offset, 101}], [{offset, 1 bsl 64 - 1}], [{length, 0}], [{offset, 5}, {length, 0}]]],
        [?assertEqual({error, einval}, iommap:open(Path, read_write, Options)) ||
            Options <- [[truncate, {size, 50}, {offset, 50}], [{size, 200}, {offset, 200}], [truncate, {offset, 5}]]],
        ?assertEqual({ok, bytes(100)}, file:read_file(Path)),
        New = Path ++ "-new",
        [?assertEqual({error, einval}, iommap:open(New, read_write, [create | Options])) ||
            Options <- [[{size, 50}, {offset, 50}], [{size, 50}, {length, 0}], [{offset, 1}]]],
        ?assertEqual({error, enoent}, file:read_file_info(New)),
        ?assertEqual({error, einval}, iommap:open(anonymous, read_write, [{size, 50}, {offset, 1}])),
        ?assertEqual({error, einval}, iommap:open(anonymous, read_write, [{size, 50}, {length, 50}]))
    end).

the_size_of_a_window_is_the_files_test() ->
    %% {size, N} makes the file so long, also a new one and an emptied one, and the window is of that.
    [with_file(bytes(Old), fun(Path) ->
         {ok, Handle} = iommap:open(Path, read_write, [{size, 6000}, {offset, 5000} | Options]),
         ?assertEqual({ok, 1000}, iommap:position(Handle)),
         ok = iommap:pwrite(Handle, 0, <<"window">>),
         ?assertEqual({ok, <<(bytes(Kept))/binary, (zeros(5000 - Kept))/binary, "window", (zeros(994))/binary>>}, file:read_file(Path))
     end) || {Old, Options, Kept} <- [{100, [], 100}, {100, [truncate], 0}, {7000, [truncate, create], 0}]],
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        {ok, Handle} = iommap:open(Path, read_write, [create, {size, 6000}, {offset, 5000}, {length, 10}]),
        ?assertEqual({ok, 10}, iommap:position(Handle)),
        ok = iommap:pwrite(Handle, 0, <<"window">>),
        ?assertEqual({ok, <<0:5000/unit:8, "window", 0:994/unit:8>>}, file:read_file(Path))
    end).

remap_of_a_window_follows_the_file_up_to_its_length_test_() ->
    %% Longer, shorter and longer again: after remap the window has what the file has of it; views stay.
    {timeout, 300, fun() ->
        [with_file(bytes(Offset + 1000), fun(Path) ->
             {ok, Handle} = iommap:open(Path, read_write, [{offset, Offset}, {length, 100_000} | Options]),
             {ok, Follower} = iommap:open(Path, read, [{offset, Offset}]),
             ok = iommap:pwrite(Handle, 1, <<"mine">>),
             {ok, View} = iommap:region_binary(Handle, 0, 500),
             Mine = fun(Bytes) -> <<First, _:4/binary, Rest/binary>> = Bytes, <<First, "mine", Rest/binary>> end,
             [begin
                  Contents = bytes(Offset + Size),
                  ok = file:write_file(Path, Contents, [read, write]),
                  ok = test_system:truncate(Path, Offset + Size),
                  lists:member(private, Options) orelse iommap:pwrite(Handle, 1, <<"mine">>),
                  Shown = min(Size, 100_000),
                  ?assertEqual({Offset, Size, {ok, Shown}}, {Offset, Size, iommap:remap(Handle)}),
                  ?assertEqual({ok, Mine(bytes(Offset, Shown))}, iommap:pread(Handle, 0, Shown)),
                  ?assertEqual({ok, Size}, iommap:remap(Follower)),
                  ?assertEqual(binary:part(Mine(bytes(Offset, 1000)), 0, 500), View)
              end || Size <- [1000, 2000, 70_000, 100_000, 300_000, 99_999, 600, 5000]]
         end) || Offset <- [1, 4095, page(), page() + 77], Options <- [[], [private]]]
    end}.

remap_of_a_window_that_is_gone_is_einval_test() ->
    %% Where the file ends at the window or before, the handle stays what it was, and works when the file is back.
    with_file(bytes(10_000), fun(Path) ->
        {ok, Handle} = iommap:open(Path, read_write, [{offset, 5000}]),
        [begin
             ok = test_system:truncate(Path, Size),
             ?assertEqual({error, einval}, iommap:remap(Handle)),
             ?assertEqual({ok, 5000}, iommap:position(Handle))
         end || Size <- [5000, 100, 0]],
        ok = file:write_file(Path, bytes(12_000), [read, write]),
        ?assertEqual({ok, 7000}, iommap:remap(Handle)),
        ?assertEqual({ok, bytes(5000, 7000)}, iommap:pread(Handle, 0, 7000))
    end).

a_window_does_not_resize_the_file_test() ->
    %% truncate and ensure_size are einval, after closed and eacces; {offset, 0} alone is no window, any length is one.
    with_file(bytes(10_000), fun(Path) ->
        Open = fun(Mode, Options) -> {ok, Handle} = iommap:open(Path, Mode, Options), Handle end,
        Resizes = [fun iommap:truncate/2, fun iommap:ensure_size/2],
        [?assertEqual({error, einval}, Resize(Open(Mode, Options), Size)) || Resize <- Resizes, Mode <- [write, read_write],
            Options <- [[{offset, 1}], [{length, 10_000}], [{length, 1 bsl 64 - 1}], [{offset, 0}, {length, 5}]],
            Size <- [1, 5, 10_000, 20_000]],
        [?assertEqual({error, eacces}, Resize(Open(read, [{offset, 1}]), 5)) || Resize <- Resizes],
        Closed = Open(read_write, [{offset, 1}]),
        ok = iommap:close(Closed),
        [?assertEqual({error, closed}, Resize(Closed, 5)) || Resize <- Resizes],
        ?assertEqual({ok, bytes(10_000)}, file:read_file(Path)),
        ?assertEqual(ok, iommap:truncate(Open(read_write, [{offset, 0}]), 5000))
    end).

a_window_that_loses_its_file_is_a_faulted_mapping_test() ->
    %% Bytes behind the file's new end are sigbus to calls and zeros to views, and intact knows which; remap makes a new start.
    [with_file(bytes(Offset + 5 * page()), fun(Path) ->
         {ok, Handle} = iommap:open(Path, read_write, [{offset, Offset}]),
         Size = 5 * page(),
         {ok, View} = iommap:region_binary(Handle, 0, Size),
         Left = page() + 10,
         ok = test_system:truncate(Path, Offset + Left),
         ?assertEqual({ok, bytes(Offset, Left)}, iommap:pread(Handle, 0, Left)),
         ?assertEqual({error, sigbus}, iommap:pread(Handle, 3 * page(), 1)),
         ?assertEqual({error, sigbus}, iommap:pwrite(Handle, 3 * page(), <<"a">>)),
         ?assertEqual(0, binary:last(View)),
         ?assertEqual(bytes(Offset, Left), binary:part(View, 0, Left)),
         ?assertMatch({ok, #{faulted := true}}, iommap:info(Handle)),
         ?assertEqual({error, sigbus}, iommap:pread(Handle, 0, 1)),
         ?assertEqual({error, sigbus}, iommap:sync(Handle)),
         ?assert(iommap:intact(View, 0, page())),
         ?assert(iommap:intact(View, 0, Left)),
         ?assertNot(iommap:intact(View, 0, Left + 1)),
         ?assertNot(iommap:intact(View)),
         ?assertNot(iommap:intact(View, 4 * page(), 1)),
         ok = file:write_file(Path, bytes(Offset + Size), [read, write]),
         ?assertEqual({ok, Size}, iommap:remap(Handle)),
         ?assertEqual({ok, bytes(Offset, Size)}, iommap:pread(Handle, 0, Size)),
         ?assert(iommap:intact(View, 0, page())),
         ?assertNot(iommap:intact(View))
     end) || Offset <- [1, page(), 7 * page() + 1000]].

a_window_of_a_file_that_ends_before_it_is_lost_test() ->
    %% A cut far before the window loses all of it, for views too.
    with_file(bytes(10 * page()), fun(Path) ->
        {ok, Handle} = iommap:open(Path, read, [{offset, 5 * page() + 3}]),
        {ok, View} = iommap:region_binary(Handle, 0, 100),
        ok = test_system:truncate(Path, page()),
        ?assertEqual({error, sigbus}, iommap:pread(Handle, 0, 1)),
        ?assertNot(iommap:intact(View)),
        ?assertEqual(zeros(100), View),
        ?assertNot(iommap:intact(View, 0, 1))
    end).

a_window_of_a_file_of_8_terabytes_test() ->
    %% Far out in a sparse file a window reads, writes, syncs, is cut and follows as any mapping does.
    with_sparse_file(8 bsl 40, fun(Path) ->
        {ok, File} = file:open(Path, [raw, read, write, binary]),
        [begin
             {ok, Handle} = iommap:open(Path, read_write, [{offset, Offset}, {length, 200_000}]),
             Size = min(200_000, (8 bsl 40) - Offset),
             ?assertEqual({ok, Size}, iommap:position(Handle)),
             ?assertEqual({ok, zeros(Size)}, iommap:pread(Handle, 0, Size)),
             ok = iommap:pwrite(Handle, Size - 4, <<"last">>),
             ok = iommap:pwrite(Handle, 0, <<"first">>),
             ok = iommap:sync(Handle),
             ok = iommap:sync(Handle, async),
             ?assertEqual({ok, <<"first">>}, file:pread(File, Offset, 5)),
             ?assertEqual({ok, <<"last">>}, file:pread(File, Offset + Size - 4, 4)),
             ok = file:pwrite(File, Offset + 77, <<"theirs">>),
             ?assertEqual({ok, <<"theirs">>}, iommap:pread(Handle, 77, 6)),
             ok = iommap:advise(Handle, 0, 0, dontneed),
             {ok, View} = iommap:region_binary(Handle, 77, 6),
             ?assertEqual(<<"theirs">>, View)
         end || Offset <- [1, 4 bsl 30, (5 bsl 40) + 12_345, (8 bsl 40) - 400_000, (8 bsl 40) - 777]],
        {ok, Cut} = iommap:open(Path, read_write, [{offset, (5 bsl 40) + 12_345}]),
        ?assertEqual({ok, (3 bsl 40) - 12_345}, iommap:position(Cut)),
        {ok, View} = iommap:region_binary(Cut, 0, 3 bsl 30),
        ok = test_system:truncate(Path, (5 bsl 40) + 12_345 + 1000),
        ?assertEqual({error, sigbus}, iommap:pread(Cut, 1 bsl 30, 1)),
        ?assertEqual(<<"first">>, binary:part(View, 0, 5)),
        ?assertEqual(0, binary:at(View, 1 bsl 30)),
        ?assertNot(iommap:intact(View)),
        ?assertEqual({ok, 1000}, iommap:remap(Cut)),
        ?assertEqual({ok, <<"first">>}, iommap:pread(Cut, 0, 5)),
        ok = file:close(File)
    end).

%% A file of nothing but holes, where a file system can have one so large.
with_sparse_file(Size, Test) ->
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "sparse"),
        case test_system:shell(["truncate -s ", integer_to_list(Size), " ", Path]) of
            {0, _} ->
                Test(Path);
            _ ->
                InMemory = "/dev/shm/iommap-sparse-" ++ os:getpid(),
                ok = test_system:truncate(InMemory, Size),
                try Test(InMemory) after file:delete(InMemory) end
        end
    end).

%% follow

follow_reads_what_others_append_test() ->
    %% Past the end of the mapping, by a copy or by a view, a read gives what the file has, however far it has grown.
    [with_mapping(bytes(Old), Mode, [follow | Options], fun(Handle, Path) ->
         Mode =:= read orelse iommap:pwrite(Handle, 0, bytes(1)),
         {ok, View} = iommap:region_binary(Handle, 0, Old),
         lists:foldl(fun({Read, Size}, Before) ->
             ?assertEqual({error, out_of_bounds}, Read(Handle, Before, 1)),
             ok = file:write_file(Path, bytes(Before, Size - Before), [append]),
             ?assertEqual({ok, Before}, iommap:position(Handle)),
             ?assertEqual({ok, bytes(Before - 1, 2)}, Read(Handle, Before - 1, 2)),
             ?assertEqual({ok, Size}, iommap:position(Handle)),
             ?assertEqual({ok, bytes(Size)}, Read(Handle, 0, Size)),
             [?assertEqual({error, out_of_bounds}, Read(Handle, At, Length)) ||
                 {At, Length} <- [{Size, 1}, {0, Size + 1}, {Size + 1, 0}, {1 bsl 64 - 1, 1}, {1 bsl 63, 1 bsl 63}]],
             Size
         end, Old, [{fun iommap:pread/3, Old + 1}, {fun iommap:region_binary/3, Old + 5000},
                    {fun iommap:pread/3, Old + 300_000}, {fun iommap:region_binary/3, Old + 3_000_000}]),
         ?assertEqual(bytes(Old), View),
         ?assert(iommap:intact(View))
     end) || Old <- [1, 1000, page(), page() + 1], {Mode, Options} <- [{read, []}, {read_write, []}, {read_write, [private]}]].

without_follow_a_mapping_keeps_its_size_test() ->
    %% A read past the end of the mapping is out_of_bounds, whatever the file is by then; so is a write with follow.
    with_mapping(bytes(1000), read_write, [], fun(Handle, Path) ->
        {ok, Follower} = iommap:open(Path, read_write, [follow]),
        ok = file:write_file(Path, bytes(1000, 1000), [append]),
        [?assertEqual({error, out_of_bounds}, Read(Handle, 1000, 1)) || Read <- [fun iommap:pread/3, fun iommap:region_binary/3]],
        ?assertEqual({error, out_of_bounds}, iommap:pwrite(Follower, 1000, <<"a">>)),
        ?assertEqual({ok, 1000}, iommap:position(Follower))
    end).

with_view_follows_as_other_reads_do_test() ->
    %% Its function gets what the file has past the end of the mapping; past the end of the file, and without follow, there is nothing.
    with_file(bytes(1000), fun(Path) ->
        {ok, Plain} = iommap:open(Path, read, []),
        [begin
             {ok, Handle} = iommap:open(Path, Mode, [follow, {offset, 100} | Options]),
             Size = filelib:file_size(Path),
             Seen = fun(Offset, Length) -> iommap:with_view(Handle, Offset, Length, fun binary:copy/1) end,
             ?assertEqual({error, out_of_bounds}, Seen(Size - 100, 1)),
             ok = file:write_file(Path, bytes(Size, 300_000), [append]),
             ?assertEqual({ok, bytes(Size - 1, 2)}, Seen(Size - 101, 2)),
             ?assertEqual({ok, Size + 300_000 - 100}, iommap:position(Handle)),
             ?assertEqual({error, out_of_bounds}, Seen(0, Size + 300_000 - 99)),
             ?assertEqual({error, out_of_bounds}, iommap:with_view(Plain, 1000, 1, fun binary:copy/1))
         end || Mode <- [read, read_write], Options <- [[], [private]]]
    end).

follow_asks_what_a_read_asks_first_test() ->
    %% A closed handle is closed, one of mode write eacces, a negative number badarg, and none of these makes the mapping longer.
    with_file(bytes(1000), fun(Path) ->
        {ok, Writer} = iommap:open(Path, write, [follow]),
        {ok, Closed} = iommap:open(Path, read, [follow]),
        {ok, Reader} = iommap:open(Path, read, [follow]),
        ok = iommap:close(Closed),
        ok = test_system:truncate(Path, 2000),
        [begin
             ?assertEqual({error, eacces}, Read(Writer, 1500, 1)),
             ?assertEqual({error, closed}, Read(Closed, 1500, 1)),
             ?assertEqual({error, badarg}, Read(Reader, 1500, -1)),
             ?assertError(badarg, Read(Reader, 1500, 1 bsl 64))
         end || Read <- [fun iommap:pread/3, fun iommap:region_binary/3]],
        [?assertEqual({ok, 1000}, iommap:position(Handle)) || Handle <- [Writer, Reader]]
    end).

follow_never_shrinks_and_never_clears_a_fault_test() ->
    %% A file that was cut is lost to the mapping as before; once it is faulted, what lies past its end is sigbus, too.
    with_mapping(bytes(4 * page()), read, [follow], fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 4 * page()),
        ok = test_system:truncate(Path, page()),
        ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 4 * page(), 1)),
        ?assertEqual({ok, 4 * page()}, iommap:position(Handle)),
        ?assertEqual({error, sigbus}, iommap:pread(Handle, 2 * page(), 1)),
        ?assertEqual(0, binary:last(View)),
        ok = file:write_file(Path, bytes(100 * page()), [read, write]),
        [begin
             ?assertEqual({error, sigbus}, Read(Handle, 50 * page(), 1)),
             ?assertEqual({error, sigbus}, Read(Handle, 0, 1)),
             ?assertEqual({error, out_of_bounds}, Read(Handle, 100 * page(), 1))
         end || Read <- [fun iommap:pread/3, fun iommap:region_binary/3]],
        ?assertMatch({ok, #{faulted := true}}, iommap:info(Handle)),
        ?assertEqual({ok, 4 * page()}, iommap:position(Handle)),
        ?assertNot(iommap:intact(View)),
        {ok, _} = iommap:remap(Handle),
        ?assertEqual({ok, bytes(50 * page(), 10)}, iommap:pread(Handle, 50 * page(), 10))
    end).

follow_of_a_window_ends_at_its_length_test() ->
    %% A window follows the file up to its length, and without one to the file's end.
    with_file(bytes(1000), fun(Path) ->
        {ok, Limited} = iommap:open(Path, read, [follow, {offset, 900}, {length, 200}]),
        {ok, Open} = iommap:open(Path, read, [follow, {offset, 900}]),
        ok = file:write_file(Path, bytes(1000, 9000), [append]),
        ?assertEqual({error, out_of_bounds}, iommap:pread(Limited, 200, 1)),
        ?assertEqual({ok, bytes(1050, 50)}, iommap:pread(Limited, 150, 50)),
        ?assertEqual({ok, 200}, iommap:position(Limited)),
        ?assertEqual({error, out_of_bounds}, iommap:region_binary(Limited, 0, 201)),
        ?assertEqual({ok, bytes(900, 9100)}, iommap:region_binary(Open, 0, 9100)),
        ?assertEqual({ok, 9100}, iommap:position(Open))
    end).

follow_keeps_the_changes_of_a_private_mapping_test() ->
    %% What was written to a private mapping is there when it has followed the file, and the file has none of it.
    with_mapping(bytes(1000), read_write, [private, follow], fun(Handle, Path) ->
        ok = iommap:pwrite(Handle, 990, <<"mine">>),
        ok = file:write_file(Path, bytes(1000, 1_000_000), [append]),
        ?assertEqual({ok, <<"mine", (bytes(994, 1_000_006))/binary>>}, iommap:pread(Handle, 990, 1_000_010)),
        ?assertEqual({ok, bytes(1_001_000)}, file:read_file(Path))
    end).

followers_read_every_record_of_a_writer_test_() ->
    %% Readers that poll for the next record, by copies and by views, get all of them in order while they are appended.
    {timeout, 300, ?_test(with_file(<<0:64>>, fun(Path) ->
        Last = 3000,
        Reader = fun(Read) ->
            {ok, Handle} = iommap:open(Path, read, [follow]),
            follow_records(Read, Handle, 0, Last)
        end,
        Writer = fun() ->
            {ok, File} = file:open(Path, [raw, append]),
            [ok = file:write(File, <<Number:64>>) || Number <- lists:seq(1, Last)],
            file:close(File)
        end,
        Reads = [fun iommap:pread/3, fun iommap:region_binary/3],
        ?assertEqual([ok | [Last || _ <- Reads ++ Reads]],
            test_processes:together([Writer | [fun() -> Reader(Read) end || Read <- Reads ++ Reads]]))
    end))}.

follow_records(_Read, _Handle, Number, Last) when Number > Last ->
    Last;
follow_records(Read, Handle, Number, Last) ->
    case Read(Handle, Number * 8, 8) of
        {ok, Record} ->
            ?assertEqual(<<Number:64>>, Record),
            follow_records(Read, Handle, Number + 1, Last);
        {error, out_of_bounds} ->
            follow_records(Read, Handle, Number, Last)
    end.

%% read_file

read_file_gives_what_file_read_file_gives_test() ->
    %% Of every size, by every kind of path, the bytes are those of file:read_file/1.
    [with_file(bytes(Size), fun(Path) ->
         Expected = file:read_file(Path),
         [?assertEqual({Size, Expected}, {Size, iommap:read_file(Name)}) || Name <- [Path, list_to_binary(Path)]]
     end) || Size <- [0, 1, 64, 65, page() - 1, page(), page() + 1, 3_000_000]].

read_file_fails_as_file_read_file_does_test() ->
    %% What is not there and what is a directory has the same error; of what can have no mapping it is einval.
    with_directory(fun(Directory) ->
        [?assertEqual(file:read_file(Path), iommap:read_file(Path)) ||
            Path <- [Directory, filename:join(Directory, "none"), filename:join(Directory, "none/below"), ""]],
        Fifo = filename:join(Directory, "fifo"),
        _ = test_system:run("mkfifo", [Fifo]),
        ?assertEqual({error, einval}, iommap:read_file(Fifo)),
        ?assertEqual({error, einval}, iommap:read_file("/dev/null"))
    end).

read_file_of_proc_is_empty_test() ->
    %% A file of /proc has no size, and so no bytes to map.
    [?assertEqual({ok, <<>>}, iommap:read_file(Path)) ||
        Path <- ["/proc/self/status", "/proc/version"], filelib:is_regular(Path)].

read_file_keeps_a_descriptor_for_the_view_alone_test() ->
    %% There is one descriptor as long as the view lives, and none after; the view outlives the file's name and sees its changes.
    with_file(bytes(100_000), fun(Path) ->
        test_processes:in_a_process(fun() ->
            {ok, View} = iommap:read_file(Path),
            ?assertMatch([_], test_system:descriptors(Path)),
            {ok, File} = file:open(Path, [raw, read, write]),
            ok = file:delete(Path),
            ok = file:pwrite(File, 50, <<"new">>),
            ok = file:close(File),
            ?assertEqual(<<(bytes(50))/binary, "new", (bytes(53, 100_000 - 53))/binary>>, View),
            ?assert(iommap:intact(View))
        end),
        test_processes:eventually(fun() -> test_system:held(Path) =:= {[], []} end)
    end).

read_file_of_a_file_that_is_cut_after_is_no_longer_intact_test() ->
    %% A view whose file another process cuts shows zeros, and says so.
    with_file(bytes(3 * page()), fun(Path) ->
        {ok, View} = iommap:read_file(Path),
        ok = test_system:truncate(Path, page()),
        ?assertEqual(0, binary:last(View)),
        ?assertNot(iommap:intact(View)),
        ?assert(iommap:intact(View, 0, page()))
    end).
