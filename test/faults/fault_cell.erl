%% One cell of the fault matrix: a reader of one kind reads a mapping that met trouble of one kind.
%%
%% A file of the pattern is mapped, a view of its middle is taken, the other OS process (or the file
%% system) makes the trouble, the reader reads. Then everything that was promised is checked: what the
%% reader saw, what intact/1 says of the parts of the view, what the handle answers, and that the
%% handle works again once the file does. run/1 is evaluated in a VM that may die.
-module(fault_cell).

-export([run/1]).
-export([readers/0]).
-export([scheduler/1]).
-export([troubles/1]).

-export_type([cell/0, reader/0, trouble/0, verdict/0]).

-type reader() ::
    match | comprehension | comparison | crc32 | binary_match | term_to_binary | send | crypto_hash
    | nif | nif_dirty_cpu | nif_dirty_io | nif_thread
    | view_of_file | view_of_window
    | window_pread | with_view | atomics_get | atomics_add_get | device_pread | device_write
    | pread | long_pread | pwrite | long_pwrite | pwrite_of_view | long_pwrite_of_view | open_of_view
    | file_write | tcp_send.

-type trouble() ::
    to_zero | middle_of_view | middle_of_page | grown_back | lost_then_back | replaced | io_error.

-type cell() :: #{
    reader := reader(),
    trouble := trouble(),
    sharing := shared | private,
    mount := test_mounts:mount()
}.

%% What the reader saw, in a word, and every promise that was not kept.
-type verdict() :: {Saw :: atom(), [{Promise :: atom(), Expected :: term(), Got :: term()}]}.

-spec readers() -> [reader()].
readers() ->
    [match, comprehension, comparison, crc32, binary_match, term_to_binary, send, crypto_hash,
     nif, nif_dirty_cpu, nif_dirty_io, nif_thread, view_of_file, view_of_window,
     window_pread, with_view, atomics_get, atomics_add_get, device_pread, device_write,
     pread, long_pread, pwrite, long_pwrite, pwrite_of_view, long_pwrite_of_view, open_of_view,
     file_write, tcp_send].

%% Where the reader runs.
-spec scheduler(reader()) -> atom().
scheduler(nif_dirty_cpu) -> dirty_cpu;
scheduler(nif_dirty_io) -> dirty_io;
scheduler(nif_thread) -> own_thread;
scheduler(long_pread) -> dirty_io;
scheduler(long_pwrite) -> dirty_io;
scheduler(long_pwrite_of_view) -> dirty_io;
scheduler(open_of_view) -> dirty_io;
scheduler(file_write) -> dirty_io;
scheduler(_) -> normal.

-spec troubles(test_mounts:kind()) -> [trouble()].
troubles(faultfs) -> [io_error | troubles(any)];
troubles(_) -> [to_zero, middle_of_view, middle_of_page, grown_back, lost_then_back, replaced].

%% How a reader comes to its bytes: with the processor, through the guard, or in the kernel.
class(Reader) when Reader =:= pread; Reader =:= long_pread; Reader =:= pwrite; Reader =:= long_pwrite;
                   Reader =:= pwrite_of_view; Reader =:= long_pwrite_of_view; Reader =:= open_of_view -> guarded;
class(Reader) when Reader =:= window_pread; Reader =:= with_view; Reader =:= atomics_get; Reader =:= atomics_add_get;
                   Reader =:= device_pread; Reader =:= device_write -> guarded;
class(Reader) when Reader =:= file_write; Reader =:= tcp_send -> kernel;
class(_) -> memory.

-spec run(cell()) -> verdict().
run(#{reader := Reader, trouble := Trouble, sharing := Sharing, mount := Mount} = Cell) ->
    Name = io_lib:format("~s-~s-~s-~b", [Reader, Trouble, Sharing, erlang:unique_integer([positive])]),
    Path = lists:flatten(test_mounts:path(Mount, Name)),
    External = external_writer:start(),
    Page = test_pattern:page(),
    Pages = case lists:prefix("long_", atom_to_list(Reader)) of
        true -> 300;
        false -> 24
    end,
    Size = Pages * Page,
    ok = external_writer:write(External, Path, Size),
    {ok, Handle} = iommap:open(Path, read_write, [Sharing]),
    Offset = 4 * Page + 100,
    Length = Size - 8 * Page,
    Mapped = Cell#{path => Path, name => lists:flatten(Name), external_writer => External, page => Page,
                   size => Size, handle => Handle, offset => Offset},
    State = Mapped#{view => view(Mapped, Length), other => other(Mapped, Length)},
    try
        cell(State)
    after
        iommap:close(Handle),
        external_writer:stop(External),
        file:delete(Path)
    end.

%% The view that is read, which is the handle's unless the reader has a mapping of its own.
view(#{reader := view_of_file, path := Path, offset := Offset}, Length) ->
    {ok, Whole} = iommap:read_file(Path),
    binary:part(Whole, Offset, Length);
view(#{reader := view_of_window} = Cell, Length) ->
    {ok, View} = iommap:region_binary(window(Cell, Length), 0, Length),
    View;
view(#{handle := Handle, offset := Offset}, Length) ->
    {ok, View} = iommap:region_binary(Handle, Offset, Length),
    View.

%% What is read from instead of the handle.
other(#{reader := window_pread} = Cell, Length) ->
    window(Cell, Length);
other(#{reader := Reader, path := Path}, _) when Reader =:= device_pread; Reader =:= device_write ->
    [Device, Raw] = [element(2, {ok, _} = Open(Path, [read, write, raw, binary])) || Open <- [fun iommap_file:open/2, fun file:open/2]],
    {Device, Raw};
other(#{reader := Reader, handle := Handle, sharing := shared} = Cell, _) when Reader =:= atomics_get; Reader =:= atomics_add_get ->
    iommap_atomics:new(Handle, word_offset(Cell), 1, []);
other(_, _) ->
    none.

window(#{path := Path, offset := Offset, sharing := Sharing}, Length) ->
    {ok, Window} = iommap:open(Path, read_write, [Sharing, {offset, Offset}, {length, Length}]),
    Window.

has_own_mapping(Reader) -> Reader =:= view_of_file orelse Reader =:= view_of_window.

%% A word that every trouble takes.
word_offset(#{page := Page}) -> 11 * Page + 8.

cell(#{reader := Reader} = State) ->
    Lost = make_trouble(State),
    Candidates = [visible(Contents, State) || Contents <- contents(State)],
    {Saw, Wrong} = case class(Reader) of
        memory -> memory_reader(State, Candidates);
        guarded -> guarded_reader(State, Candidates);
        kernel -> kernel_reader(State, Candidates)
    end,
    {Saw, Wrong ++ Lost ++ check_intact(State, Saw) ++ check_handle(State, Saw)}.

%% ---- The trouble ------------------------------------------------------------------------------

%% The offset where the file's bytes end or fail.
cut(#{trouble := to_zero}) -> 0;
cut(#{trouble := middle_of_page, page := Page}) -> 10 * Page + Page div 3;
cut(#{page := Page}) -> 10 * Page.

make_trouble(#{trouble := Trouble, external_writer := External, path := Path, size := Size} = State) ->
    Cut = cut(State),
    case Trouble of
        grown_back ->
            ok = external_writer:truncate(External, Path, Cut),
            ok = external_writer:truncate(External, Path, Size);
        lost_then_back ->
            ok = external_writer:truncate(External, Path, Cut),
            touch(State),
            ok = external_writer:append(External, Path, Size);
        replaced ->
            ok = external_writer:replace(External, Path, Size);
        io_error ->
            #{mount := Mount, name := Name, page := Page} = State,
            ok = test_mounts:control(Mount, Name, {eio, [Cut, 2 * Page]}),
            ok = test_files:drop_cache(Path);
        _ ->
            ok = external_writer:truncate(External, Path, Cut)
    end,
    [].

%% Somebody meets the loss: a reader of the kind of memory leaves zero pages behind, others do not.
touch(#{reader := Reader, handle := Handle, view := View, offset := Offset}) ->
    case class(Reader) of
        guarded -> {error, sigbus} = iommap:pread(Handle, Offset, byte_size(View));
        _ -> erlang:crc32(View)
    end.

%% ---- What is there to see ---------------------------------------------------------------------

%% What the mapping may show to a reader of memory, from the file's first byte to its last.
contents(#{trouble := replaced} = State) ->
    [whole(State)];
contents(#{trouble := lost_then_back} = State) ->
    case class(maps:get(reader, State)) of
        guarded -> [whole(State)];
        _ -> [zero_from(cut(State), State)]
    end;
contents(#{trouble := io_error, page := Page} = State) ->
    [zero_from(cut(State), State), zero_between(cut(State), cut(State) + 2 * Page, State)];
contents(State) ->
    [zero_from(cut(State), State)].

whole(#{size := Size}) ->
    test_pattern:bytes(Size).

zero_from(Cut, #{size := Size}) ->
    <<(test_pattern:bytes(Cut))/binary, (test_pattern:zeros(Size - Cut))/binary>>.

zero_between(From, To, #{size := Size}) ->
    <<(test_pattern:bytes(From))/binary, (test_pattern:zeros(To - From))/binary,
      (test_pattern:bytes(To, Size - To))/binary>>.

visible(Contents, #{offset := Offset, view := View}) ->
    binary:part(Contents, Offset, byte_size(View)).

%% The reader meets a loss: its bytes do not come from the file.
is_lost(#{trouble := Trouble}) ->
    not lists:member(Trouble, [grown_back, lost_then_back, replaced]).

%% ---- Readers of memory ------------------------------------------------------------------------

memory_reader(#{reader := Reader, view := View} = State, Candidates) ->
    Got = read(Reader, View, Candidates),
    Expected = [read(Reader, Candidate, Candidates) || Candidate <- Candidates],
    case lists:member(Got, Expected) of
        true -> {saw(State), []};
        false -> {other, [{saw, Expected, Got}]}
    end.

saw(#{trouble := lost_then_back}) -> zeros;
saw(State) ->
    case is_lost(State) of
        true -> zeros;
        false -> data
    end.

read(match, Binary, _) -> match(Binary, 0);
read(comprehension, Binary, _) -> << <<Byte>> || <<Byte>> <= Binary >>;
read(comparison, Binary, Candidates) -> [Binary =:= Candidate || Candidate <- Candidates];
read(crc32, Binary, _) -> erlang:crc32(Binary);
read(binary_match, Binary, _) -> length(binary:matches(Binary, <<0, 0>>));
read(term_to_binary, Binary, _) -> term_to_binary(Binary);
read(send, Binary, _) -> read_elsewhere(Binary);
read(crypto_hash, Binary, _) -> crypto:hash(sha256, Binary);
read(nif, Binary, _) -> other_reader:copy(Binary);
read(nif_dirty_cpu, Binary, _) -> other_reader:copy_dirty_cpu(Binary);
read(nif_dirty_io, Binary, _) -> other_reader:copy_dirty_io(Binary);
read(nif_thread, Binary, _) -> other_reader:copy_in_thread(Binary, 0);
read(view_of_file, Binary, _) -> binary:copy(Binary);
read(view_of_window, Binary, _) -> binary:copy(Binary).

match(<<Word:64, Rest/binary>>, Sum) -> match(Rest, (Sum * 31 + Word) band 16#FFFFFFFF);
match(<<Byte, Rest/binary>>, Sum) -> match(Rest, (Sum * 31 + Byte) band 16#FFFFFFFF);
match(<<>>, Sum) -> Sum.

read_elsewhere(Binary) ->
    Self = self(),
    Reader = spawn_link(fun() -> receive {Self, Sent} -> Self ! {self(), match(Sent, 0)} end end),
    Reader ! {Self, Binary},
    receive {Reader, Sum} -> Sum end.

%% ---- Readers through the guard ----------------------------------------------------------------

guarded_reader(#{reader := Reader} = State, [Visible | _]) when Reader =:= pread; Reader =:= long_pread ->
    #{handle := Handle, offset := Offset, view := View} = State,
    expect(State, {ok, Visible}, fun() -> iommap:pread(Handle, Offset, byte_size(View)) end);
guarded_reader(#{reader := Reader} = State, _) when Reader =:= pwrite; Reader =:= long_pwrite ->
    #{handle := Handle, offset := Offset, view := View} = State,
    Data = test_pattern:bytes(Offset, byte_size(View)),
    expect(State, ok, fun() -> iommap:pwrite(Handle, Offset, Data) end);
guarded_reader(#{reader := open_of_view, view := View} = State, [Visible | _]) ->
    %% The view is the path: one that is too long for the system, or has a NUL inside.
    expect(State, open(Visible), fun() -> open(View) end);
guarded_reader(#{reader := window_pread, view := View, other := Window} = State, [Visible | _]) ->
    Result = expect(State, {ok, Visible}, fun() -> iommap:pread(Window, 0, byte_size(View)) end),
    ok = iommap:close(Window),
    Result;
guarded_reader(#{reader := with_view, handle := Handle, offset := Offset, view := View} = State, [Visible | _]) ->
    {Saw, Wrong} = expect(State, {ok, Visible}, fun() -> iommap:with_view(Handle, Offset, byte_size(View), fun binary:copy/1) end),
    %% What the file has lost is known before anything is read, and what fails is not.
    {case State of #{trouble := io_error} -> zeros; _ -> Saw end, Wrong};
guarded_reader(#{reader := Reader, sharing := private, handle := Handle} = State, _)
        when Reader =:= atomics_get; Reader =:= atomics_add_get ->
    {badarg, promise(private, badarg, raised(fun() -> iommap_atomics:new(Handle, word_offset(State), 1, []) end))};
guarded_reader(#{reader := atomics_get, other := Array} = State, _) ->
    expect(State, sigbus, word(State), fun() -> raised(fun() -> iommap_atomics:get(Array, 1) end) end);
guarded_reader(#{reader := atomics_add_get, other := Array} = State, _) ->
    Result = expect(State, sigbus, word(State) + 1, fun() -> raised(fun() -> iommap_atomics:add_get(Array, 1, 1) end) end),
    _ = raised(fun() -> iommap_atomics:sub(Array, 1, 1) end),
    Result;
guarded_reader(#{reader := device_pread, other := {Device, Raw}, offset := Offset, view := View} = State, [Visible | _]) ->
    %% As a raw file answers: what there is before the end, `eof', or `eio'.
    [FromDevice, FromRaw] = [file:pread(File, Offset, byte_size(View)) || File <- [Device, Raw]],
    [ok = file:close(File) || File <- [Device, Raw]],
    Wrong = promise(raw, FromRaw, FromDevice) ++ case State of
        #{trouble := io_error} -> promise(error, {error, eio}, FromDevice);
        _ -> []
    end,
    case is_lost(State) of
        true -> {less, Wrong ++ promise(is_whole, false, FromDevice =:= {ok, Visible})};
        false -> {data, Wrong ++ promise(result, {ok, Visible}, FromDevice)}
    end;
guarded_reader(#{reader := device_write, other := {Device, Raw}, offset := Offset, view := View} = State, _) ->
    %% Writing makes a file that was cut as long as the writer has it, with these bytes.
    Bytes = test_pattern:bytes(Offset + byte_size(View)),
    Written = promise(write, ok, file:write(Device, Bytes))
        ++ promise(position, {ok, byte_size(Bytes)}, file:position(Device, cur)),
    [FromDevice, FromRaw] = [file:pread(File, 0, byte_size(Bytes)) || File <- [Device, Raw]],
    [ok = file:close(File) || File <- [Device, Raw]],
    Read = case State of
        #{trouble := io_error} -> {error, eio};
        _ -> {ok, Bytes}
    end,
    {data, Written ++ promise(raw, FromRaw, FromDevice) ++ promise(read, Read, FromDevice)};
guarded_reader(#{path := Path, size := Size, view := View, external_writer := External} = State, _) ->
    %% The view is the source; the destination is well and must stay so.
    Target = Path ++ ".target",
    ok = external_writer:write(External, Target, Size),
    {ok, Handle} = iommap:open(Target, read_write, []),
    Result = expect(State, ok, fun() -> iommap:pwrite(Handle, 0, View) end),
    Well = promise(target_is_well, ok, iommap:pwrite(Handle, 0, <<"well">>))
        ++ promise(target_is_read, {ok, <<"well">>}, iommap:pread(Handle, 0, 4)),
    ok = iommap:close(Handle),
    ok = file:delete(Target),
    {element(1, Result), element(2, Result) ++ Well}.

open(Path) ->
    try iommap:open(Path, read, []) catch error:badarg -> badarg end.

raised(Call) ->
    try Call() catch error:Reason -> Reason end.

%% The number that the file has there: grown back, it is of zeros.
word(#{trouble := grown_back}) ->
    0;
word(State) ->
    <<Word:64/native-signed>> = test_pattern:bytes(word_offset(State), 8),
    Word.

expect(State, Otherwise, Call) ->
    expect(State, {error, sigbus}, Otherwise, Call).

%% A loss is an error, any number of times; otherwise all is as if nothing had happened.
expect(State, Error, Otherwise, Call) ->
    case is_lost(State) of
        true -> {sigbus, promise(first, Error, Call()) ++ promise(again, Error, Call())};
        false -> {data, promise(result, Otherwise, Call())}
    end.

%% ---- Readers in the kernel --------------------------------------------------------------------

kernel_reader(#{reader := file_write, path := Path, view := View} = State, Candidates) ->
    Copy = Path ++ ".copy",
    {ok, File} = file:open(Copy, [write, raw, binary]),
    Result = file:write(File, View),
    ok = file:close(File),
    {ok, Written} = file:read_file(Copy),
    ok = file:delete(Copy),
    kernel_result(State, Candidates, Result, Written, fun() -> promise(error, {error, efault}, Result) end);
kernel_reader(#{reader := tcp_send, view := View} = State, Candidates) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Sender} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Receiver} = gen_tcp:accept(Listener),
    Result = gen_tcp:send(Sender, View),
    %% Sending what is lost closes the socket by itself.
    is_lost(State) orelse gen_tcp:close(Sender),
    {Received, End} = receive_all(Receiver, <<>>),
    ok = gen_tcp:close(Sender),
    ok = gen_tcp:close(Receiver),
    ok = gen_tcp:close(Listener),
    kernel_result(State, Candidates, Result, Received, fun() ->
        promise(error, error, tag(Result)) ++ promise(closed, {error, closed}, End)
    end).

receive_all(Socket, Received) ->
    case gen_tcp:recv(Socket, 0, 60_000) of
        {ok, Data} -> receive_all(Socket, <<Received/binary, Data/binary>>);
        Error -> {Received, Error}
    end.

%% The kernel does not raise a signal for itself: it gives up with an error, the one that WhenLost checks,
%% having passed on at most what the view has.
kernel_result(State, Candidates, Result, Passed, WhenLost) ->
    Prefix = lists:any(fun(Candidate) -> is_prefix(Passed, Candidate) end, Candidates),
    case is_lost(State) of
        true ->
            {error, WhenLost() ++ promise(prefix, true, Prefix)};
        false ->
            {saw(State), promise(result, ok, Result) ++ promise(passed, true, lists:member(Passed, Candidates))}
    end.

tag({error, _}) -> error;
tag(Other) -> Other.

is_prefix(Short, Long) ->
    byte_size(Short) =< byte_size(Long) andalso binary:part(Long, 0, byte_size(Short)) =:= Short.

%% ---- What intact/1 says -----------------------------------------------------------------------

check_intact(#{view := View, offset := Offset} = State, Saw) ->
    Cut = max(0, cut(State) - Offset),
    Before = binary:part(View, 0, Cut),
    After = binary:part(View, Cut, byte_size(View) - Cut),
    Whole = is_intact(State, Saw),
    [Wrong || Cut > 0, Wrong <- promise(intact_before, true, iommap:intact(Before))]
        ++ promise(intact_after, Whole, iommap:intact(After))
        ++ promise(intact_at_cut, Whole, iommap:intact(View, Cut, 1))
        ++ promise(intact_view, Whole, iommap:intact(View))
        ++ promise(intact_copy, true, iommap:intact(binary:copy(Before))).

%% Zero pages went in, or the file ends before the view does.
is_intact(_, zeros) -> false;
is_intact(#{reader := device_write}, data) -> true; % which has brought the bytes back
is_intact(#{trouble := io_error}, _) -> true;
is_intact(State, _) -> not is_lost(State).

%% ---- What the handle answers ------------------------------------------------------------------

check_handle(#{reader := Reader} = State, zeros) ->
    case has_own_mapping(Reader) of
        true -> check_unharmed(State) ++ check_closed(State);
        false -> check_fail_stop(State) ++ check_mended(State)
    end;
check_handle(State, _) -> check_unharmed(State) ++ check_closed(State).

check_fail_stop(#{handle := Handle, size := Size}) ->
    {ok, Info} = iommap:info(Handle),
    promise(stopped_pread, {error, sigbus}, iommap:pread(Handle, 0, 8))
        ++ promise(stopped_pwrite, {error, sigbus}, iommap:pwrite(Handle, 0, <<"x">>))
        ++ promise(stopped_region_binary, {error, sigbus}, iommap:region_binary(Handle, 0, 8))
        ++ promise(stopped_sync, {error, sigbus}, iommap:sync(Handle))
        ++ promise(position, {ok, Size}, iommap:position(Handle))
        ++ promise(faulted, true, maps:get(faulted, Info)).

%% A fresh mapping clears the fault, of the handle and never of the view.
check_mended(#{trouble := to_zero, handle := Handle, size := Size, view := View}) ->
    promise(remap_of_nothing, {error, einval}, iommap:remap(Handle))
        ++ promise(still_stopped, {error, sigbus}, iommap:pread(Handle, 0, 8))
        ++ promise(truncate, ok, iommap:truncate(Handle, Size))
        ++ promise(mended, {ok, test_pattern:zeros(Size)}, iommap:pread(Handle, 0, Size))
        ++ promise(view_for_good, false, iommap:intact(View));
check_mended(#{trouble := io_error, handle := Handle, size := Size, view := View} = State) ->
    #{mount := Mount, name := Name} = State,
    Still = promise(remap, {ok, Size}, iommap:remap(Handle))
        ++ promise(fails_still, {error, sigbus}, iommap:pread(Handle, cut(State), 8)),
    ok = test_mounts:control(Mount, Name, {clear, []}),
    Still ++ promise(mended, {ok, whole(State)}, iommap:pread(Handle, 0, Size))
        ++ promise(view_for_good, false, iommap:intact(View));
check_mended(#{trouble := Trouble, handle := Handle, size := Size, view := View} = State) ->
    Now = case Trouble of
        lost_then_back -> Size;
        _ -> cut(State)
    end,
    promise(remap, {ok, Now}, iommap:remap(Handle))
        ++ promise(mended, {ok, test_pattern:bytes(Now)}, iommap:pread(Handle, 0, Now))
        ++ promise(written, ok, iommap:pwrite(Handle, 0, test_pattern:bytes(1)))
        ++ promise(view_for_good, false, iommap:intact(View)).

%% No zero page went in: what the file has, the handle reads, and it reads all of it again once the
%% file has grown back.
check_unharmed(#{trouble := io_error, handle := Handle, size := Size} = State) ->
    #{mount := Mount, name := Name} = State,
    Before = promise(before, {ok, test_pattern:bytes(8)}, iommap:pread(Handle, 0, 8)),
    ok = test_mounts:control(Mount, Name, {clear, []}),
    Before ++ promise(back, {ok, whole(State)}, iommap:pread(Handle, 0, Size));
check_unharmed(#{trouble := grown_back, handle := Handle}) ->
    promise(before, {ok, test_pattern:bytes(8)}, iommap:pread(Handle, 0, 8))
        ++ promise(sync, ok, iommap:sync(Handle));
check_unharmed(#{external_writer := External, path := Path, handle := Handle, size := Size} = State) ->
    {ok, Info} = iommap:info(Handle),
    Length = min(8, cut(State)),
    Before = promise(before, {ok, test_pattern:bytes(Length)}, iommap:pread(Handle, 0, Length))
        ++ promise(faulted, false, maps:get(faulted, Info)),
    ok = external_writer:append(External, Path, Size),
    Before ++ promise(back, {ok, whole(State)}, iommap:pread(Handle, 0, Size)).

check_closed(#{handle := Handle, view := View}) ->
    Intact = iommap:intact(View),
    promise(close, ok, iommap:close(Handle))
        ++ promise(intact_after_close, Intact, iommap:intact(View))
        ++ promise(closed, {error, closed}, iommap:pread(Handle, 0, 1)).

promise(_, Kept, Kept) -> [];
promise(Promise, Expected, Got) -> [{Promise, brief(Expected), brief(Got)}].

%% Long binaries say little in a report: where they begin to be zero says more.
brief({Tag, Binary}) when is_binary(Binary) -> {Tag, brief(Binary)};
brief(Binary) when byte_size(Binary) > 32 ->
    {binary:part(Binary, 0, 8), size, byte_size(Binary), first_zero, binary:match(Binary, <<0>>)};
brief(Term) -> Term.
