%% Devices of iommap_file: what a raw file of the OTP that runs answers, they answer.
-module(iommap_file_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [with_directory/1, with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, page/0, zeros/1]).

%% Against the oracle

every_call_answers_what_a_raw_file_does_test_() ->
    %% Calls with arguments of every kind, on files of every mode, answer as on a raw file and leave the same contents.
    [{lists:flatten(io_lib:format("~w ~w", [Size, Modes])), {timeout, 300, fun() -> same(bytes(Size), Modes, calls()) end}}
        || Size <- [0, 11, 3 * page() + 17], Modes <- modes()].

a_closed_device_answers_what_a_closed_file_does_test_() ->
    %% Every call on a closed device answers as on a closed raw file.
    {timeout, 300, fun() -> [same(bytes(11), Modes, [close | calls()]) || Modes <- [[read, binary], [read, write]]] end}.

open_answers_what_file_open_does_test() ->
    %% Modes and paths that a raw file can have give what file:open gives, and change the file in the same way.
    [with_directory(fun(Directory) ->
         Paths = [filename:join(Directory, Name) || Name <- ["raw", "device"]],
         There andalso [ok = file:write_file(Path, <<"contents">>) || Path <- Paths],
         [Raw, Device] = [opened(Open, Path, Modes) || {Open, Path} <- lists:zip([fun raw/2, fun iommap_file:open/2], Paths)],
         ?assertEqual({Modes, Raw}, {Modes, Device}),
         [Left, Right] = [file:read_file(Path) || Path <- Paths],
         ?assertEqual({Modes, Left}, {Modes, Right})
     end) || There <- [true, false], Modes <- opening_modes()],
    with_directory(fun(Directory) ->
        [?assertEqual(opened(fun raw/2, Path, [read]), opened(fun iommap_file:open/2, Path, [read]))
            || Path <- [Directory, "no such file", "", "a\0b", <<"a\0b">>, 'no such atom', ["no", $/, "list"], 1, {}, [a | b]]],
        ?assertEqual(opened(fun raw/2, Directory, [write]), opened(fun iommap_file:open/2, Directory, [write]))
    end).

names_are_those_of_files_test() ->
    %% A path may be a binary, a string, an atom or a deep list, as for file:open.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "naïve"),
        [begin
             {ok, Device} = iommap_file:open(Name, [write]),
             ok = file:write(Device, "text"),
             ok = file:close(Device),
             ?assertEqual({ok, <<"text">>}, file:read_file(Path)),
             ok = file:delete(Path)
         end || Name <- [Path, unicode:characters_to_binary(Path), list_to_atom(Path), [Directory, "/", ["naïve"]]]]
    end).

what_cannot_be_mapped_or_encoded_is_refused_test() ->
    %% Modes that a mapping cannot have are badarg; so is a list that is none; what is no file is einval.
    with_file(<<"contents">>, fun(Path) ->
        [?assertEqual({Modes, {error, badarg}}, {Modes, iommap_file:open(Path, Modes)})
            || Modes <- [[compressed], [read, compressed_one], [ram], [{encoding, utf8}], [directory], read, [read | write]]],
        ?assertEqual({ok, <<"contents">>}, file:read_file(Path))
    end),
    %% So are names that have no encoding.
    [?assertEqual({Name, file:open(Name, [raw, read])}, {Name, iommap_file:open(Name, [read])})
        || Name <- [[16#D800], ["a", [16#D800]], [16#110000], "a" ++ [0], <<"a", 0>>, 1.5]],
    ?assertEqual({error, einval}, iommap_file:open("/dev/null", [read])),
    with_directory(fun(Directory) ->
        Pipe = filename:join(Directory, "pipe"),
        [] = os:cmd("mkfifo " ++ Pipe),
        [?assertEqual({error, einval}, iommap_file:open(Pipe, [Mode])) || Mode <- [read, write]]
    end).

%% Sizes

an_empty_file_grows_test() ->
    %% A device on an empty file reads eof, and what is written afterwards, in the file at once.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        ?assertEqual(eof, file:read(Device, 1)),
        ?assertEqual(eof, file:pread(Device, 0, 1)),
        [begin
             ok = file:write(Device, <<Number:64>>),
             ?assertEqual(8 * Number, filelib:file_size(Path)),
             ?assertEqual({ok, <<Number:64>>}, file:pread(Device, 8 * (Number - 1), 8)),
             ?assertEqual(eof, file:read(Device, 1))
         end || Number <- lists:seq(1, 1500)],
        ok = file:close(Device)
    end).

the_file_never_has_more_than_was_written_test() ->
    %% After every append the file has exactly the bytes that were written, in a VM that is killed as in one that goes on.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "log"),
        {ok, Device} = iommap_file:open(Path, [read, append, binary]),
        lists:foldl(fun(Size, Before) ->
            Record = bytes(Size),
            ok = file:write(Device, Record),
            Expected = <<Before/binary, Record/binary>>,
            ?assertEqual({ok, Expected}, file:read_file(Path)),
            ?assertEqual({ok, Expected}, file:pread(Device, 0, byte_size(Expected) + 1)),
            Expected
        end, <<>>, [1, 10, page(), page() - 11, 1, 100, 100_000, 3]),
        ok = file:close(Device)
    end).

truncating_to_nothing_and_writing_again_test() ->
    %% A device whose file was cut to nothing, by itself or by another, is a device on an empty file.
    [with_file(bytes(2 * page()), fun(Path) ->
         {ok, Device} = iommap_file:open(Path, [read, write, binary]),
         {ok, _} = file:read(Device, 10),
         {ok, 0} = file:position(Device, 0),
         ok = Cut(Device, Path),
         ?assertEqual({ok, 0}, file:position(Device, eof)),
         ?assertEqual(eof, file:pread(Device, 0, 10)),
         ?assertEqual(eof, file:read_line(Device)),
         ok = file:pwrite(Device, page() + 3, <<"word">>),
         ?assertEqual(page() + 7, filelib:file_size(Path)),
         ?assertEqual({ok, <<0, "word">>}, file:pread(Device, page() + 2, 100)),
         ok = file:close(Device)
     end) || Cut <- [fun(Device, _) -> file:truncate(Device) end, fun(_, Path) -> file:write_file(Path, <<>>) end]].

a_file_cut_by_another_reads_as_eof_test() ->
    %% Reads of a device give what the file still has, and writes behind its end make it longer again, as those of a raw file.
    with_file(bytes(3 * page()), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        cut(Path, page() + 100),
        ?assertEqual({ok, binary:part(bytes(3 * page()), page(), 100)}, file:pread(Device, page(), page())),
        ?assertEqual(eof, file:pread(Device, page() + 100, 10)),
        ?assertEqual(eof, file:pread(Device, 2 * page() + 100, 10)),
        % In the page that holds the end, where a store would be lost.
        ok = file:pwrite(Device, page() + 200, <<"behind">>),
        ?assertEqual(page() + 206, filelib:file_size(Path)),
        ?assertEqual({ok, <<0, "behind">>}, file:pread(Device, page() + 199, 100)),
        ok = file:close(Device)
    end).

a_file_that_another_appends_to_is_followed_test() ->
    %% What is appended through another descriptor is read at once, by all reads.
    with_file(<<"first\n">>, fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, binary]),
        {ok, <<"first\n">>} = file:read_line(Device),
        [begin
             ?assertEqual(eof, file:read_line(Device)),
             ok = file:write_file(Path, [Text, $\n], [append]),
             ?assertEqual({ok, <<Text/binary, $\n>>}, file:read_line(Device))
         end || Text <- [<<"second">>, bytes_without_newline(3 * page()), <<"third">>]],
        ok = file:close(Device)
    end).

%% Lines

lines_are_those_of_a_raw_file_test_() ->
    %% Lines of every length, with and without carriage returns and a last newline, are those of a raw file, one after another.
    Text = iolist_to_binary([[bytes_without_newline(Length), End]
        || Length <- [0, 1, 126, 127, 128, 511, 512, 513, 5000, 0, 65536, 200_000, 3], End <- ["\n", "\r\n", "\r\r\n"]]),
    [{timeout, 300, fun() ->
         with_file(Whole, fun(Path) ->
             [Raw, Device] = [begin
                 {ok, File} = Open(Path, [read, raw | Type]),
                 Lines = all_lines(File),
                 {ok, At} = file:position(File, cur),
                 ok = file:close(File),
                 {Lines, At}
             end || Open <- [fun file:open/2, fun iommap_file:open/2]],
             ?assertEqual(Raw, Device)
         end)
     end} || Whole <- [Text, <<Text/binary, "end\r">>, <<"\n">>, <<"\r\n">>, <<>>], Type <- [[binary], []]].

lines_of_a_text_of_100_megabytes_test_() ->
    %% Every line of a long text, of lines of many lengths, is that of a raw file that reads ahead, and none is left out.
    {timeout, 300, fun() ->
        Length = fun(Number) when Number rem 1000 =:= 0 -> 70_000; (Number) -> Number * 7919 rem 251 end,
        Block = iolist_to_binary([[bytes_without_newline(Length(Number)), lists:nth(1 + Number rem 3, ["\n", "\r\n", "\n"])]
            || Number <- lists:seq(1, 8001)]),
        Times = 100_000_000 div byte_size(Block) + 1,
        with_file([], fun(Path) ->
            {ok, Writer} = file:open(Path, [raw, write]),
            ok = file:write(Writer, lists:duplicate(Times, Block)),
            ok = file:close(Writer),
            ?assert(filelib:file_size(Path) > 100_000_000),
            [Raw, Device] = [begin
                {ok, File} = Open(Path, [read, raw, binary, {read_ahead, 65536}]),
                Lines = digest_of_lines(File, 0, 0),
                ?assertEqual({ok, filelib:file_size(Path)}, file:position(File, cur)),
                ok = file:close(File),
                Lines
            end || Open <- [fun file:open/2, fun iommap_file:open/2]],
            ?assertEqual(Raw, Device),
            ?assertMatch({Count, _} when Count =:= 8001 * Times, Device)
        end)
    end}.

%% How many lines there are, and a checksum of where each begins and what it is.
digest_of_lines(File, Count, Sum) ->
    case file:read_line(File) of
        {ok, Line} -> digest_of_lines(File, Count + 1, erlang:crc32(Sum, [<<(byte_size(Line)):32>> | Line]));
        eof -> {Count, Sum}
    end.

%% Processes

the_position_is_shared_test() ->
    %% Records that many processes read from one device, and write to it, are each read once and written once.
    with_file(<< <<Number:64>> || Number <- lists:seq(1, 4000) >>, fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        Read = test_processes:together([fun() -> records(Device) end || _ <- lists:seq(1, 8)]),
        ?assertEqual(lists:seq(1, 4000), lists:sort(lists:append(Read))),
        {ok, 0} = file:position(Device, 0),
        _ = test_processes:together([fun() -> [ok = file:write(Device, <<(N * 1000 + I):64>>) || I <- lists:seq(0, 999)] end
                              || N <- lists:seq(1, 8)]),
        ok = file:close(Device),
        {ok, Contents} = file:read_file(Path),
        ?assertEqual(lists:seq(1000, 8999), lists:sort([Number || <<Number:64>> <= Contents]))
    end).

a_process_that_dies_leaves_the_position_free_test() ->
    %% However many processes are killed in the middle of their reads and writes, others go on; nothing is read twice.
    with_file(binary:copy(<<"0123456789abcdef">>, 100_000), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        [begin
             Pid = spawn(fun Loop() -> {ok, _} = file:read(Device, 16), {ok, _} = file:position(Device, {cur, 16}), Loop() end),
             Yields > 0 andalso [erlang:yield() || _ <- lists:seq(1, Yields)],
             exit(Pid, kill)
         end || Yields <- lists:seq(0, 99)],
        {ok, 0} = file:position(Device, bof),
        ?assertEqual({ok, <<"0123456789abcdef">>}, file:read(Device, 16)),
        ok = file:close(Device)
    end).

a_device_outlives_the_process_that_opened_it_test() ->
    %% The process that opened a device may end; the device is another's then, and goes with the last reference.
    with_file(<<"contents">>, fun(Path) ->
        Self = self(),
        {Pid, Monitor} = spawn_monitor(fun() -> Self ! {opened, iommap_file:open(Path, [read, binary])} end),
        receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
        receive {opened, {ok, Device}} -> ?assertEqual({ok, <<"contents">>}, file:read(Device, 100)) end
    end).

collected_devices_give_their_descriptors_back_test() ->
    %% Devices that nobody closed are closed when they are collected, also those without a mapping.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        50 = test_processes:in_a_process(fun() ->
            Devices = [iommap_file:open(Path, Modes) || Modes <- [[write], [read, write]], _ <- lists:seq(1, 25)],
            50 = length(test_system:descriptors(Path)),
            length(Devices)
        end),
        test_processes:eventually(fun() -> test_system:descriptors(Path) =:= [] end)
    end).

closing_gives_the_descriptor_back_at_once_test() ->
    %% After close the file has no descriptor more, whether it was mapped or not.
    with_file(bytes(10), fun(Path) ->
        [begin
             {ok, Device} = iommap_file:open(Path, Modes),
             ?assertMatch([_], test_system:descriptors(Path)),
             ok = file:close(Device),
             ?assertEqual([], test_system:descriptors(Path))
         end || Modes <- [[read], [read, write], [append], [write]]]
    end).

%% On a handle

from_shares_the_handles_mapping_test() ->
    %% A device on a handle reads and writes what the handle does; closing it leaves the handle open.
    with_mapping(bytes(100), fun(Handle, Path) ->
        {ok, Device} = iommap_file:from(Handle),
        ok = iommap:pwrite(Handle, 10, <<"handle">>),
        ?assertEqual({ok, <<"handle">>}, file:pread(Device, 10, 6)),
        ok = file:pwrite(Device, 20, <<"device">>),
        ?assertEqual({ok, <<"device">>}, iommap:pread(Handle, 20, 6)),
        ok = file:pwrite(Device, 100, <<"more">>),
        ?assertEqual(104, filelib:file_size(Path)),
        ?assertEqual({ok, <<"more">>}, file:pread(Device, 100, 10)),
        ?assertEqual({ok, 104}, iommap:position(Handle)),
        ok = file:close(Device),
        ?assertEqual({error, einval}, file:pread(Device, 0, 1)),
        ?assertEqual({ok, <<"more">>}, iommap:pread(Handle, 100, 4))
    end).

from_keeps_the_handles_mode_test() ->
    %% A device on a handle may what the handle may, and answers as a raw file opened so.
    with_mapping(bytes(100), read, [], fun(Handle, _) ->
        {ok, Device} = iommap_file:from(Handle),
        ?assertEqual({ok, bytes(100)}, file:read(Device, 1000)),
        ?assertEqual({error, ebadf}, file:write(Device, <<"a">>)),
        ?assertEqual({error, ebadf}, file:pwrite(Device, 0, <<"a">>)),
        ?assertEqual({error, einval}, file:truncate(Device))
    end),
    with_mapping(bytes(100), write, [], fun(Handle, Path) ->
        {ok, Device} = iommap_file:from(Handle),
        ?assertEqual({error, ebadf}, file:read(Device, 1)),
        ?assertEqual({error, ebadf}, file:read_line(Device)),
        ok = file:write(Device, <<"abc">>),
        ?assertMatch({ok, <<"abc", _:97/binary>>}, file:read_file(Path))
    end).

from_of_a_private_mapping_test() ->
    %% Writes through a device on a private handle stay private where the file is, and make the file longer behind it.
    Bytes = bytes(page() + 100),
    with_mapping(Bytes, read_write, [private], fun(Handle, Path) ->
        {ok, Device} = iommap_file:from(Handle),
        ok = file:pwrite(Device, 10, <<"private">>),
        ok = file:pwrite(Device, page() + 98, <<"over the end">>),
        ?assertEqual({ok, <<Bytes/binary, "er the end">>}, file:read_file(Path)),
        ?assertEqual({ok, <<"private">>}, file:pread(Device, 10, 7)),
        ?assertEqual({ok, <<"over the end">>}, file:pread(Device, page() + 98, 100))
    end).

from_refuses_what_is_no_open_handle_test() ->
    %% A closed handle is closed, anything else raises; a device whose handle is closed later answers as a closed file.
    ?assertError(badarg, iommap_file:from(make_ref())),
    ?assertError(badarg, iommap_file:from(handle)),
    with_mapping(bytes(100), fun(Handle, _) ->
        {ok, Device} = iommap_file:from(Handle),
        ok = iommap:close(Handle),
        ?assertEqual({error, closed}, iommap_file:from(Handle)),
        [?assertEqual({error, einval}, Result) || Result <- [file:pread(Device, 0, 1), file:read(Device, 1),
                                                             file:read_line(Device), file:pwrite(Device, 0, <<"a">>)]]
    end).

from_refuses_a_window_test() ->
    %% A device is all of a file: none is made of a handle that maps a part of one, and the handle is what it was.
    with_file(bytes(100), fun(Path) ->
        [begin
             {ok, Handle} = iommap:open(Path, read_write, Window),
             ?assertEqual({Window, {error, einval}}, {Window, iommap_file:from(Handle)}),
             ?assertMatch({ok, <<_>>}, iommap:pread(Handle, 0, 1)),
             ok = iommap:close(Handle)
         end || Window <- [[{offset, 1}], [{length, 100}], [{offset, 10}, {length, 5}]]]
    end).

device_is_listed_by_its_path_test() ->
    %% The mapping of a device is in list/0 under the path that it was opened by.
    with_file(bytes(100), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read]),
        ?assertMatch([#{size := 100, handle := open}],
                     [Info || #{path := Listed} = Info <- iommap:list(), Listed =:= unicode:characters_to_binary(Path)]),
        ok = file:close(Device)
    end).

from_never_clears_the_fault_of_a_handle_test() ->
    %% A device on a handle that is faulted reads what the file has, also behind the mapping; the handle stays faulted.
    test_processes:in_a_process(fun read_through_a_faulted_handle/0).

read_through_a_faulted_handle() ->
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        cut(Path, page()),
        _ = erlang:crc32(View),
        {ok, #{faulted := true}} = iommap:info(Handle),
        cut(Path, 3 * page() + 10),
        ok = file:write_file(Path, <<"more">>, [append]),
        {ok, Device} = iommap_file:from(Handle),
        ?assertEqual({ok, binary:part(bytes(page()), 0, 100)}, file:pread(Device, 0, 100)),
        ?assertEqual({ok, <<"more">>}, file:pread(Device, 3 * page() + 10, 10)),
        ok = file:pwrite(Device, 5, <<"written">>),
        ?assertMatch({ok, <<_:5/binary, "written", _/binary>>}, file:read_file(Path)),
        {ok, _} = file:position(Device, 4 * page()),
        ?assertEqual(ok, file:truncate(Device)),
        ?assertEqual(4 * page(), filelib:file_size(Path)),
        ?assertEqual({error, sigbus}, iommap:pread(Handle, 0, 1))
    end),
    %% What a private mapping has lost of its own is not in the file, and none of it is written.
    with_mapping(bytes(3 * page()), read_write, [private], fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        cut(Path, page()),
        _ = erlang:crc32(View),
        {ok, #{faulted := true}} = iommap:info(Handle),
        cut(Path, 4 * page()),
        {ok, Device} = iommap_file:from(Handle),
        [?assertEqual({Offset, {error, eio}}, {Offset, file:pwrite(Device, Offset, <<"written">>)})
            || Offset <- [0, page(), 3 * page() - 3, 3 * page(), 4 * page()]],
        ?assertEqual({ok, <<(bytes(page()))/binary, (zeros(3 * page()))/binary>>}, file:read_file(Path)),
        ?assertEqual({error, sigbus}, iommap:pread(Handle, 0, 1))
    end).

%% Data

data_of_a_lost_view_is_efault_test() ->
    %% Zeros that stand where a view lost its file are not written: efault, as write(2) answers for such memory.
    test_processes:in_a_process(fun write_a_lost_view/0).

write_a_lost_view() ->
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        cut(Path, page()),
        with_file(bytes(10), fun(Other) ->
            {ok, Device} = iommap_file:open(Other, [read, write, binary]),
            ?assertEqual({error, efault}, file:pwrite(Device, 0, View)),
            ?assertEqual({error, efault}, file:write(Device, [View])),
            ok = file:close(Device)
        end)
    end).

views_are_data_like_any_other_test() ->
    %% A view of another mapping can be written inside a device's file and behind its end.
    with_mapping(bytes(100_000), fun(Handle, _) ->
        {ok, View} = iommap:region_binary(Handle, 0, 100_000),
        with_file(bytes(10), fun(Other) ->
            {ok, Device} = iommap_file:open(Other, [read, write, binary]),
            ok = file:pwrite(Device, 2, binary:part(View, 5, 8)),
            ok = file:pwrite(Device, 10, View),
            ?assertEqual({ok, <<(binary:part(bytes(10), 0, 2))/binary, (binary:part(bytes(100_000), 5, 8))/binary,
                                (bytes(100_000))/binary>>}, file:read_file(Other)),
            ok = file:close(Device)
        end)
    end).

long_data_and_bits_test() ->
    %% Data longer than is shown on a scheduler, iolists, and binaries that begin inside a byte are written as they are.
    with_file(bytes(200_000), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        <<_:1, Shifted:150_000/binary, _/bits>> = bytes(200_000),
        [begin
             ok = file:pwrite(Device, Offset, Data),
             Expected = iolist_to_binary(Data),
             ?assertEqual({ok, Expected}, file:pread(Device, Offset, byte_size(Expected)))
         end || Data <- [Shifted, [Shifted, $a, [<<"b">> | <<"c">>]], [[], "abc"]], Offset <- [0, 7, 150_000, 500_000]],
        ok = file:close(Device)
    end).

long_reads_test() ->
    %% More than is copied on a normal scheduler is read like any other, also where the file ends in the middle.
    with_file(bytes(3_000_000), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read, binary]),
        {ok, Raw} = file:open(Path, [raw, read, binary]),
        [?assertEqual({Length, file:pread(Raw, Offset, Length)}, {Length, file:pread(Device, Offset, Length)})
            || Offset <- [0, 1, 1_000_000], Length <- [2_000_000, 3_000_000, 5_000_000]],
        [?assertEqual(file:read(Raw, 1_700_000), file:read(Device, 1_700_000)) || _ <- [1, 2, 3]],
        ok = file:close(Raw),
        ok = file:close(Device)
    end).

file_info_tells_who_may_do_what_test() ->
    %% Through a device for writing, and of a file without rights: as raw files tell it.
    with_file(bytes(10), fun(Path) ->
        [begin
             ok = file:change_mode(Path, Rights),
             {ok, Raw} = file:open(Path, [raw, read, write]),
             {ok, Device} = iommap_file:open(Path, [read, write]),
             ?assertEqual(file:read_file_info(Raw), file:read_file_info(Device)),
             [ok, ok] = [file:close(File) || File <- [Raw, Device]]
         end || Rights <- rights(test_system:is_root())]
    end).

%% Root opens what it has no right to.
rights(true) -> [8#600, 8#400, 8#200, 8#000];
rights(false) -> [8#600].

file_info_is_that_of_a_raw_file_test() ->
    %% The facts about the file are those that a raw file tells, in every form of time.
    with_file(bytes(123), fun(Path) ->
        ok = file:change_mode(Path, 8#640),
        {ok, Raw} = file:open(Path, [raw, read]),
        {ok, Device} = iommap_file:open(Path, [read]),
        [?assertEqual(file:read_file_info(Raw, Options), file:read_file_info(Device, Options))
            || Options <- [[], [raw], [{time, local}], [{time, universal}], [{time, posix}], [{time, other}]]],
        ?assertEqual(file:read_file_info(Raw), file:read_file_info(Device)),
        ?assertMatch({ok, #file_info{size = 123}}, iommap_file:read_file_info(Device)),
        ?assertEqual(file:read_file_info(Raw, []), iommap_file:read_file_info(Device, [])),
        [ok, ok] = [file:close(File) || File <- [Raw, Device]]
    end).

%% Users of open files

copying_test() ->
    %% file:copy copies from, to, and between devices, in part and as a whole.
    Bytes = bytes(300_000),
    with_file(Bytes, fun(Path) ->
        [begin
             {ok, Source} = Open(Path, [read, raw, binary]),
             {ok, Destination} = OpenOther(Path ++ "-copy", [write, raw]),
             ?assertEqual({ok, min(Count, 300_000)}, file:copy(Source, Destination, Count)),
             [ok, ok] = [file:close(File) || File <- [Source, Destination]],
             ?assertEqual({ok, binary:part(Bytes, 0, min(Count, 300_000))}, file:read_file(Path ++ "-copy"))
         end || {Open, OpenOther} <- [{fun iommap_file:open/2, fun iommap_file:open/2}, {fun file:open/2, fun iommap_file:open/2},
                                      {fun iommap_file:open/2, fun file:open/2}],
                Count <- [0, 1, 65536, 100_000, 1_000_000]],
        {ok, Device} = iommap_file:open(Path, [read]),
        ?assertEqual({ok, 300_000}, file:copy(Device, Path ++ "-named")),
        ok = file:close(Device)
    end).

an_archive_of_erl_tar_test() ->
    %% erl_tar makes and reads an archive through devices.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "archive.tar"),
        Files = [{"one", bytes(5)}, {"directory/two", bytes(100_000)}, {"three", <<>>}],
        {ok, New} = iommap_file:open(Path, [write, read, binary]),
        {ok, Writer} = erl_tar:init(New, write, fun tar_access/2),
        [ok = erl_tar:add(Writer, Bytes, Name, []) || {Name, Bytes} <- Files],
        ok = erl_tar:close(Writer),
        {ok, Device} = iommap_file:open(Path, [read, binary]),
        ?assertEqual({ok, Files}, erl_tar:extract({file, Device}, [memory])), % which closes it
        ?assertEqual({ok, Files}, erl_tar:extract(Path, [memory]))
    end).

tar_access(write, {Device, Data}) -> file:write(Device, Data);
tar_access(position, {Device, Position}) -> file:position(Device, Position);
tar_access(read2, {Device, Size}) -> file:read(Device, Size);
tar_access(close, Device) -> file:close(Device).

an_archive_of_zip_test() ->
    %% An archive of zip that was written through a device, and read through one, is whole: zip itself opens files by name only.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "archive.zip"),
        Files = [{"one", bytes(5)}, {"two", bytes(100_000)}],
        {ok, {_, Archive}} = zip:zip("archive.zip", Files, [memory]),
        {ok, New} = iommap_file:open(Path, [write]),
        ok = file:write(New, Archive),
        ok = file:close(New),
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, Device} = iommap_file:from(Handle),
        {ok, Read} = file:read(Device, filelib:file_size(Path)),
        ?assertEqual({ok, Files}, zip:unzip(Read, [memory])),
        ?assertEqual({ok, Files}, zip:unzip(Path, [memory]))
    end).

terms_are_consulted_line_by_line_test() ->
    %% Terms that are read line by line through a device are those that file:consult reads.
    Terms = [{key, Number, "text", <<Number:64>>, [#{map => Number}]} || Number <- lists:seq(1, 500)],
    with_file(iolist_to_binary([io_lib:format("~p.~n", [Term]) || Term <- Terms]), fun(Path) ->
        {ok, Device} = iommap_file:open(Path, [read]),
        ?assertEqual(file:consult(Path), {ok, consulted(Device, [])}),
        ?assertEqual({ok, Terms}, file:consult(Path)),
        ok = file:close(Device)
    end).

consulted(Device, Continuation) ->
    case file:read_line(Device) of
        eof ->
            [];
        {ok, Line} ->
            case erl_scan:tokens(Continuation, Line, 1) of
                {done, {ok, Tokens, _}, _} ->
                    {ok, Term} = erl_parse:parse_term(Tokens),
                    [Term | consulted(Device, [])];
                {more, More} ->
                    consulted(Device, More)
            end
    end.

appending_as_a_log_does_test() ->
    %% Records with a header, appended and read back by position, with the header rewritten each time, as disk_log has it.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "log"),
        {ok, Device} = iommap_file:open(Path, [read, write, binary]),
        ok = file:write(Device, <<"LOG", 0:64>>),
        Offsets = [begin
            {ok, At} = file:position(Device, eof),
            Record = bytes(Number),
            ok = file:write(Device, [<<Number:32>>, Record]),
            ok = file:pwrite(Device, 3, <<Number:64>>),
            {At, Record}
        end || Number <- lists:seq(1, 300)],
        ok = file:datasync(Device),
        ?assertEqual({ok, <<"LOG", 300:64>>}, file:pread(Device, 0, 11)),
        [begin
             {ok, [<<Size:32>>, Record]} = file:pread(Device, [{At, 4}, {At + 4, byte_size(Record)}]),
             ?assertEqual(byte_size(Record), Size)
         end || {At, Record} <- Offsets],
        {At, Last} = lists:last(Offsets),
        ?assertEqual(At + 4 + byte_size(Last), filelib:file_size(Path)),
        ok = file:close(Device)
    end).

sendfile_reads_and_sends_test() ->
    %% file:sendfile sends what a device reads, by the way that it has for files it does not know.
    Bytes = bytes(100_000),
    with_file(Bytes, fun(Path) ->
        {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
        {ok, Port} = inet:port(Listener),
        {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
        {ok, Server} = gen_tcp:accept(Listener),
        {ok, Device} = iommap_file:open(Path, [read, binary]),
        {Pid, Monitor} = spawn_monitor(fun() -> {ok, Bytes} = gen_tcp:recv(Client, 100_000, 30_000) end),
        ok = gen_tcp:controlling_process(Client, Pid),
        ?assertEqual({ok, 100_000}, file:sendfile(Device, Server, 0, 0, [])),
        receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end,
        [gen_tcp:close(Socket) || Socket <- [Server, Client, Listener]],
        ok = file:close(Device)
    end).

%% The calls that are compared

modes() ->
    [[read, binary], [read], [write], [write, binary], [read, write], [read, write, binary], [append], [read, append, binary],
     [read, write, sync, binary], [read, sync]].

opening_modes() ->
    [[], [read], [write], [read, write], [write, read], [append], [read, append], [write, append], [exclusive], [read, exclusive],
     [write, exclusive], [sync], [read, sync], [write, sync], [binary], [read_ahead], [{read_ahead, 10}], [read, read_ahead],
     [write, delayed_write], [{delayed_write, 10, 10}, write], [unknown], [read, {unknown, 1}]].

calls() ->
    Numbers = [0, 1, 5, 11, 12, 4096, 12305, 20_000, -1, 1 bsl 40, 1 bsl 62, 1 bsl 63 - 1, 1 bsl 63, 1 bsl 64, 1.5, atom],
    Short = [0, 1, 5, 20_000],
    [{read, [5]}, {read, [0]}, {pread, [0, 1 bsl 64]}, {read, [1 bsl 64]}, {pread, [0, 1.5]}, {read, [-1]}]
    ++ [{pread, [Offset, Size]} || Offset <- Numbers, Size <- Short]
    ++ [{position, [At]} || At <- [bof, cur, eof, elsewhere, {elsewhere, 0}, {bof, atom}, {1, 2, 3}]]
    ++ [{position, [{Whence, Offset}]} || Whence <- [bof, cur, eof], Offset <- [-20_000, -3 | Numbers],
                                         {Whence, Offset} =/= {cur, atom}]
    ++ [{position, [2]}]
    ++ [{Name, Arguments} || Size <- Short, {Name, Arguments} <- [{read, [Size]}, {position, [cur]}]]
    ++ [{position, [2]}, {read_line, []}, {position, [cur]}, {read_line, []}, {position, [cur]}]
    ++ [{pread, [Ranges]} || Ranges <- [[], [{0, 1}], [{0, 3}, {20_000, 1}, {5, 0}], [{0, 1}, {-1, 1}], [{0, 1}, {a, 1}], list]]
    ++ [{ipread_s32bu_p32bu, [Offset, Limit]} || Offset <- Numbers, Limit <- [infinity, -1, 1 bsl 31, 1 bsl 32, 100, 1.5]]
    ++ [{pwrite, [Offset, Data]} || Offset <- Numbers -- [1 bsl 40], Data <- [<<"data">>, [], [a], "x", {}, <<1:1>>, -1]]
    ++ [{pwrite, [Ranges]} || Ranges <- [[], [{0, <<"a">>}], [{0, "b"}, {-1, "c"}, {5, "d"}], [{0, "e"}, {a, "f"}],
                                         [{0, "g"}, {2, [a]}], list]]
    ++ [{pwrite, [40, <<0:16, 12:16, 0:16, 2:16>>]}, {ipread_s32bu_p32bu, [40, 100]}, {ipread_s32bu_p32bu, [40, 11]}]
    ++ [{position, [3]}]
    ++ [{Name, Arguments} || Data <- [<<"data">>, [], [a], "x\n", <<>>, {}, bytes(10_000)],
                             {Name, Arguments} <- [{write, [Data]}, {position, [cur]}]]
    ++ [{position, [15_000]}, {write, ["far"]}, {position, [14_998]}, {read, [10]}]
    ++ [{advise, [Offset, Length, Advice]} || Offset <- [0, -1, 1 bsl 62, 1 bsl 64, a], Length <- [0, 100, -1, a],
                                              Advice <- [normal, random, sequential, will_need, dont_need, no_reuse, other]]
    ++ [{allocate, [Offset, Length]} || Offset <- [0, 5, 20_000, -1, a, 1 bsl 62, 1 bsl 63], Length <- [0, 1, 100, -1, a, 1 bsl 63]]
    ++ [{position, [eof]}, {sync, []}, {datasync, []}]
    ++ lists:append([[{position, [At]}, {truncate, []}, {position, [eof]}, {pread, [0, 30_000]}] || At <- [30_000, 7000, 3, 0, 9]])
    ++ [{write, ["end"]}, {position, [cur]}, {read_file_info, [[{time, posix}]]}, close, close].

%% Makes the same calls on a raw file and on a device, and compares answers and contents. What is a bug of raw files is
%% left out: position with {cur, atom} (badarith), and pwrite after read_line (it drops what was read ahead, and with it the position).
same(Contents, Modes, Calls) ->
    with_directory(fun(Directory) ->
        [Raw, Device] = [filename:join(Directory, Name) || Name <- ["raw", "device"]],
        [ok = file:write_file(Path, Contents) || Path <- [Raw, Device]],
        {ok, RawFile} = raw(Raw, Modes),
        {ok, DeviceFile} = iommap_file:open(Device, Modes),
        lists:foreach(fun(Call) ->
            [Expected, Actual] = [shown(call(File, Call)) || File <- [RawFile, DeviceFile]],
            ?assertEqual({Call, Expected}, {Call, Actual}),
            [Left, Right] = [shown(file:read_file(Path)) || Path <- [Raw, Device]],
            ?assertEqual({Call, Left}, {Call, Right})
        end, [Call || Call <- Calls, lists:member(read, Modes) orelse not reads_nothing(Call)])
    end).

%% Of a file that may not read, newer OTPs answer these by `ebadf'; devices answer as the older ones do.
reads_nothing({read, [Size]}) -> Size =:= 0 orelse Size > 1 bsl 62;
reads_nothing(_) -> false.

call(File, close) ->
    file:close(File);
call(File, {Name, Arguments}) ->
    try apply(file, Name, [File | Arguments]) of
        {ok, Info} when element(1, Info) =:= file_info -> Info#file_info{atime = 0, mtime = 0, ctime = 0, inode = 0};
        Answer -> Answer
    catch
        Class:Reason -> {Class, Reason}
    end.

%% The beginning of an answer, and a hash of all of it.
shown(Answer) ->
    {lists:flatten(io_lib:format("~P", [Answer, 20])), erlang:phash2(Answer)}.

raw(Path, Modes) ->
    file:open(Path, [raw | Modes]).

opened(Open, Path, Modes) ->
    try Open(Path, Modes) of
        {ok, File} -> {ok, file:close(File)};
        Error -> Error
    catch
        _:_ -> raised
    end.

%% What the tests share

all_lines(File) ->
    case file:read_line(File) of
        {ok, Line} -> [Line | all_lines(File)];
        eof -> []
    end.

records(Device) ->
    case file:read(Device, 8) of
        {ok, <<Number:64>>} -> [Number | records(Device)];
        eof -> []
    end.

bytes_without_newline(Size) ->
    << <<(if Byte =:= $\n; Byte =:= $\r -> $.; true -> Byte end)>> || <<Byte>> <= bytes(Size) >>.

cut(Path, Size) ->
    {ok, File} = file:open(Path, [raw, read, write]),
    {ok, Size} = file:position(File, Size),
    ok = file:truncate(File),
    ok = file:close(File).
