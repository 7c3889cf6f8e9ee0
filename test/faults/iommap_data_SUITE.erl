%% Data and views that could hold up a VM, end it, or cut it off from its nodes. Every case has a VM of its own.
-module(iommap_data_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

-define(MEGABYTE, (1 bsl 20)).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [data_that_begins_inside_a_byte_is_not_looked_at_before_it_is_known_to_fit,
     data_that_begins_inside_a_byte_is_looked_at_on_a_dirty_scheduler,
     intact_of_what_begins_inside_a_byte_does_not_look_at_it,
     data_that_names_its_parts_again_and_again_keeps_no_dirty_scheduler,
     data_of_many_parts_takes_no_more_memory_than_it_has_bytes,
     data_of_many_parts_is_written_as_it_is,
     data_of_many_parts_of_a_lost_view_is_sigbus,
     pread_gives_what_can_be_decoded_while_the_file_is_rewritten,
     a_copy_of_a_lost_view_is_sent_to_another_node].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = test_files:case_directory(Config),
    [{directory, Directory}, {path, filename:join(Directory, "file")} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% ---- Data that takes long to look at ----------------------------------------------------------

%% The VM shows a NIF such a binary by copying all of it. What does not fit, or may not be written, is refused before
%% that: the memory of the VM does not grow by it.
data_that_begins_inside_a_byte_is_not_looked_at_before_it_is_known_to_fit(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        ok = file:write_file(Path, <<0:(?MEGABYTE * 8)>>),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, Reader} = iommap:open(Path, read, []),
        {ok, Closed} = iommap:open(Path, read_write, []),
        ok = iommap:close(Closed),
        Unaligned = unaligned(256 * ?MEGABYTE),
        Grown = grown(fun() ->
            [begin
                 {error, out_of_bounds} = iommap:pwrite(Handle, 0, Data),
                 {error, eacces} = iommap:pwrite(Reader, 0, Data),
                 {error, closed} = iommap:pwrite(Closed, 0, Data)
             end || Data <- [Unaligned, [Unaligned], [[<<"a">>, Unaligned] | <<"b">>]]]
        end),
        true = Grown < 64 * ?MEGABYTE
    end).

%% What does fit is looked at where that holds up nobody, however hot the pages are.
data_that_begins_inside_a_byte_is_looked_at_on_a_dirty_scheduler(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        ok = file:write_file(Path, <<0:(?MEGABYTE * 8)>>),
        {ok, Handle} = iommap:open(Path, read_write, []),
        Size = ?MEGABYTE div 2,
        Unaligned = unaligned(Size),
        Written = <<Unaligned/binary, 0:(Size * 8)>>,
        [begin
             ok = iommap:pwrite(Handle, 0, binary:copy(<<0>>, Size)),
             false = test_processes:stays(fun() -> ok = iommap:pwrite(Handle, 0, Data) end),
             {ok, Written} = file:read_file(Path)
         end || Data <- [Unaligned, [Unaligned]], _ <- lists:seq(1, 10)],
        ok
    end).

%% Nobody can say where such bytes came from, so there is no need to see them.
intact_of_what_begins_inside_a_byte_does_not_look_at_it(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        ok = file:write_file(Path, test_pattern:bytes(10_000)),
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, 10_000),
        Unaligned = unaligned(256 * ?MEGABYTE),
        Asked = fun() -> [iommap:intact(Unaligned), iommap:intact(Unaligned, 1, 2)] end,
        true = grown(fun() -> [true, true] = Asked() end) < 64 * ?MEGABYTE,
        [] = os:cmd("truncate -s 0 " ++ Path),
        true = grown(fun() -> [false, false] = Asked() end) < 64 * ?MEGABYTE,
        badarg = try iommap:intact(Unaligned, byte_size(Unaligned), 1) catch error:Reason -> Reason end,
        10_000 = byte_size(View)
    end).

%% Sixty cells can be 2^60 bytes, or 2^60 times none. To see that they are too many takes for ever; it keeps no scheduler
%% from anybody, and ends with its process.
data_that_names_its_parts_again_and_again_keeps_no_dirty_scheduler(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        ok = file:write_file(Path, <<0:800>>),
        {ok, Handle} = iommap:open(Path, read_write, []),
        process_flag(priority, high), % before the writers, where it takes turns with them
        Leaves = [[$a], <<"a">>, <<>>, [], [<<>> | <<>>], ["a", <<"b">>]],
        Writers = [spawn_monitor(fun() -> iommap:pwrite(Handle, 0, doubled(60, Leaf)) end) || Leaf <- Leaves ++ Leaves],
        [{ok, <<0:800>>} = file:read_file(Path) || _ <- lists:seq(1, 10)],
        {ok, <<0>>} = iommap:pread(Handle, 99, 1),
        [exit(Writer, kill) || {Writer, _} <- Writers],
        [receive {'DOWN', Monitor, process, _, killed} -> ok end || {_, Monitor} <- Writers],
        ok
    end, 60_000).

%% Parts that are smaller than what is noted of each are gathered.
data_of_many_parts_takes_no_more_memory_than_it_has_bytes(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        Size = 16 * ?MEGABYTE,
        {ok, Handle} = iommap:open(Path, read_write, [create, populate, {size, Size}]),
        Grown = grown(fun() -> ok = iommap:pwrite(Handle, 0, doubled(24, <<"a">>)) end),
        {ok, File} = file:read_file(Path),
        true = File =:= binary:copy(<<"a">>, Size),
        true = Grown < 3 * Size
    end).

%% Bytes and binaries, short and long, in any order and however many: the file has what iolist_to_binary/1 makes of them.
data_of_many_parts_is_written_as_it_is(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        Parts = fun(Lengths) -> [part(N, lists:nth(1 + N rem length(Lengths), Lengths)) || N <- lists:seq(1, 200_000)] end,
        [begin
             Binary = iolist_to_binary(Data),
             ok = file:write_file(Path, binary:copy(<<0>>, byte_size(Binary))),
             {ok, Handle} = iommap:open(Path, read_write, []),
             ok = iommap:pwrite(Handle, 0, Data),
             {ok, Binary} = file:read_file(Path),
             ok = iommap:close(Handle)
         end || Data <- [Parts([1, byte]), Parts([byte, byte, 3]), Parts([100]), Parts([100, byte]),
                         [Parts([100, byte]), Parts([1, byte, 0]) | <<"end">>],
                         [Parts([byte]), Parts([200]), Parts([byte, 1]), Parts([byte]), Parts([100, byte])]]]
    end).

%% Zeros that stand where a view lost its file are not data, in however many parts they come.
data_of_many_parts_of_a_lost_view_is_sigbus(Config) ->
    Path = ?config(path, Config),
    Lost = filename:join(?config(directory, Config), "lost"),
    in_vm(fun() ->
        ok = file:write_file(Lost, test_pattern:bytes(10_000)),
        {ok, Views} = iommap:open(Lost, read, []),
        {ok, View} = iommap:region_binary(Views, 0, 1),
        {ok, Last} = iommap:region_binary(Views, 9_999, 1),
        Size = 1 bsl 18,
        {ok, Handle} = iommap:open(Path, read_write, [create, {size, 2 * Size + 1}]),
        Data = [doubled(18, View), Last | doubled(18, <<"b">>)],
        ok = iommap:pwrite(Handle, 0, Data),
        {ok, Written} = iommap:pread(Handle, 0, 2 * Size + 1),
        Written = iolist_to_binary(Data),
        [] = os:cmd("truncate -s 0 " ++ Lost),
        {error, sigbus} = iommap:pwrite(Handle, 0, Data),
        {error, sigbus} = iommap:pwrite(Handle, 0, [doubled(18, <<"b">>) | doubled(18, View)]),
        {ok, Written} = iommap:pread(Handle, 0, 2 * Size + 1)
    end).

part(N, byte) -> N rem 256;
part(N, Length) -> binary:copy(<<N>>, Length).

%% 2^Times leaves in as many cells as Times.
doubled(0, Leaf) -> Leaf;
doubled(Times, Leaf) ->
    Half = doubled(Times - 1, Leaf),
    case is_binary(Half) of
        true -> [Half, Half];
        false -> [Half | Half]
    end.

%% A binary of so many bytes that begins within a byte of another.
unaligned(Size) ->
    <<_:3, Unaligned:Size/binary, _:5>> = binary:copy(<<16#5A>>, Size + 1),
    Unaligned.

%% By how many bytes the memory of the VM was larger at any time while the function was evaluated.
grown(Function) ->
    true = erlang:garbage_collect(),
    ok = file:write_file("/proc/self/clear_refs", "5"), % from here on the peak is a new one
    Before = status("VmRSS"),
    _ = Function(),
    status("VmHWM") - Before.

status(Key) ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kilobytes]} = re:run(Status, Key ++ ":\\s*(\\d+) kB", [{capture, all_but_first, binary}]),
    1024 * binary_to_integer(Kilobytes).

%% ---- Views that are used where they must not be -----------------------------------------------

%% A view of a file that is rewritten in place changes while a BIF decodes it, and that can end the VM, whichever library
%% mapped the file. A copy does not change: it can be decoded, or it cannot, and again with the same outcome.
pread_gives_what_can_be_decoded_while_the_file_is_rewritten(Config) ->
    Path = ?config(path, Config),
    in_vm(fun() ->
        Size = 64 * 1024,
        ok = file:write_file(Path, binary:copy(<<",">>, Size)),
        External = external_writer:start(),
        ok = external_writer:rewrite(External, Path, Size, 1),
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, Size),
        Copies = [fun() -> {ok, Copy} = iommap:pread(Handle, 0, Size), Copy end, fun() -> binary:copy(View) end],
        [begin
             Copy = Take(),
             Checksum = erlang:crc32(Copy),
             [begin
                  Outcome = outcome(Decode, Copy),
                  true = Outcome =:= outcome(Decode, Copy)
              end || Decode <- decoders()],
             Checksum = erlang:crc32(Copy)
         end || _ <- lists:seq(1, 200), Take <- Copies],
        true = iommap:intact(View),
        ok = external_writer:stop_race(External, Path, Size),
        external_writer:stop(External)
    end).

%% What external_writer writes is text in several encodings, fields of several lengths, and terms.
decoders() ->
    [fun binary_to_term/1,
     fun unicode:characters_to_list/1,
     fun(Copy) -> binary:split(Copy, <<",">>, [global]) end,
     fun(Copy) -> string:split(Copy, ",", all) end].

outcome(Decode, Copy) ->
    try Decode(Copy) catch Class:Reason -> {Class, Reason} end.

%% A view whose file is gone, and that nobody has read yet, closes the connection to the node that it is sent to: the
%% system cannot read it either. A copy is read when it is made, by us.
a_copy_of_a_lost_view_is_sent_to_another_node(Config) ->
    Path = ?config(path, Config),
    Name = fun(N) -> lists:concat(["iommap-data-", os:getpid(), "-", N]) end,
    [Sender, Receiver] = Vms = [test_vm:start(#{args => ["-sname", Name(N), "-setcookie", "iommap"]}) || N <- [1, 2]],
    try
        Node = test_vm:call(Receiver, erlang, node, []),
        test_vm:run(Sender, fun() ->
            ok = file:write_file(Path, test_pattern:bytes(1_000_000)),
            {ok, Handle} = iommap:open(Path, read, []),
            {ok, View} = iommap:region_binary(Handle, 0, 1_000_000),
            true = net_kernel:connect_node(Node),
            true = monitor_node(Node, true),
            [] = os:cmd("truncate -s 0 " ++ Path),
            Copy = binary:copy(View),
            1_000_000 = erpc:call(Node, erlang, byte_size, [Copy]),
            false = iommap:intact(View),
            receive {nodedown, Node} -> error(nodedown) after 0 -> ok end,
            true = lists:member(Node, nodes())
        end)
    after
        [test_vm:stop(Vm) || Vm <- Vms]
    end.

%% ---- In the VM --------------------------------------------------------------------------------

in_vm(Function) ->
    in_vm(Function, 120_000).

%% The same with so many milliseconds of patience.
in_vm(Function, Patience) ->
    Vm = test_vm:start(),
    try test_vm:run(Vm, Function, Patience) after test_vm:stop(Vm) end.
