%% Random runs of calls on a mapping, against the same calls on a plain file or, where the mapping is
%% private, on a plain binary: the oracle.
-module(prop_iommap).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_one_call_is_what_a_file_does/0]).
-export([prop_a_shared_mapping_is_its_file/0]).
-export([prop_a_private_mapping_is_a_binary/0]).
-export([prop_long_calls_are_like_short_ones/0]).
-export([prop_batches_are_those_of_a_raw_file/0]).
-export([prop_lost_bytes_are_sigbus/0]).

-import(test_files, [with_directory/1]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).
-import(test_property, [holds/1]).

%% Longer than what is copied on a normal scheduler.
-define(LARGE, 1_500_000).
-define(FAR, [16#7FFFFFFFFFFFFFFF, 16#8000000000000000, 16#FFFFFFFFFFFFFFFF]).

-record(state, {
    handle :: iommap:handle(),
    path :: file:filename(),
    offset = 0 :: non_neg_integer(),            % where in its file a window begins
    is_faulted = false :: boolean(),            % whether a view was read that has lost a page
    options :: [iommap:open_option()],
    size :: pos_integer(),
    mapping :: oracle(),                        % what the mapping shows
    file :: oracle(),                           % what the file holds
    views = [] :: [{non_neg_integer(), binary()}]
}).

-type oracle() :: {file, file:fd()} | {binary, binary()}.

%% Properties

prop_one_call_is_what_a_file_does() ->
    %% Any single call on a mapping answers as the file would, and leaves what the file would.
    numtests(1000,
        ?FORALL({Size, Call}, {file_size(), call()},
            runs(Size, [shared], [Call]))).

prop_a_shared_mapping_is_its_file() ->
    %% After any run of calls a shared mapping, its views and its file are what a plain file is.
    ?FORALL({Size, Calls}, {file_size(), list(oneof([call(), call_of_another()]))},
        runs(Size, [shared], Calls)).

prop_a_private_mapping_is_a_binary() ->
    %% After any run of calls a private mapping is what a plain binary is, and its file changed in size only.
    ?FORALL({Size, Calls}, {file_size(), list(call())},
        runs(Size, [private], Calls)).

prop_long_calls_are_like_short_ones() ->
    %% The same holds for calls that are too long for a normal scheduler, in any mixture with short ones.
    ?FORALL({Sharing, Calls}, {oneof([shared, private]), list(call())},
        runs(?LARGE, [Sharing], Calls)).

prop_batches_are_those_of_a_raw_file() ->
    %% Whatever lists are read and written one after another, file:pread/2 and file:pwrite/2 give and leave the same.
    ?FORALL({Size, Batches}, {file_size(), list(batch())},
        holds(fun() -> run_batches(Size, Batches) end)).

prop_lost_bytes_are_sigbus() ->
    %% However another descriptor sizes the file, of which a part may be mapped: what it ends before is sigbus, the rest is there, and
    %% works again. Once a view was read that has lost a page, nothing works until a resize; then all does.
    numtests(1000,
        ?FORALL({Size, Start, Room, Calls}, {file_size(), oneof([0, range(0, 999)]), oneof([0, 10]), list(call_on_changing_file())},
            holds(fun() -> run_on_changing_file(Size, Size * Start div 1000, Room * page(), Calls) end))).

%% Calls

call() ->
    frequency([
        {6, {pread, place(), place()}},
        {6, {pwrite, place(), data()}},
        {3, {pread, list({place(), place()})}},
        {3, {pwrite, list({place(), data()})}},
        {3, {region_binary, place(), place()}},
        {2, {truncate, size_place()}},
        {2, {remap, size_place()}},
        {2, {append_by_another, range(1, 3 * page()), byte()}},
        {1, {sync, oneof([sync, async])}},
        {1, {advise, place(), place(), oneof([normal, random, sequential, willneed, dontneed, cold, pageout,
                                              dontdump, dodump, dontfork, dofork])}},
        {1, position},
        {1, forget},
        {1, reopen}
    ]).

%% What happens through another descriptor of the file, unknown to the mapping.
call_of_another() ->
    {write_by_another, place(), data()}.

batch() ->
    oneof([{pread, list({place(), place()})}, {pwrite, list({place(), data()})}]).

call_on_changing_file() ->
    frequency([
        {4, {pread, place(), place()}},
        {4, {pwrite, place(), data()}},
        {2, {pread, list({place(), place()})}},
        {2, {pwrite, list({place(), data()})}},
        {3, {region_binary, place(), place()}},
        {3, {resize_by_another, size_place()}},
        {1, {truncate, size_place()}},
        {1, remap},
        {1, forget}
    ]).

file_size() ->
    ?LET(Place, oneof([{start, range(1, 2)}, {page, range(1, 4), range(-1, 1)}, {start, range(1, 30_000)}]),
        resolve(Place, 0)).

%% An offset, or a length counted from one: the edges, anything between them, and far beyond.
place() ->
    frequency([
        {2, {start, range(0, 1)}},
        {3, {page, range(1, 3), range(-1, 1)}},
        {4, {'end', range(-1, 1)}},
        {4, {part, range(0, 1000)}},
        {1, {far, oneof(?FAR)}}
    ]).

size_place() ->
    oneof([{start, range(0, 2)}, {page, range(1, 6), range(-1, 1)}, {'end', range(-100, 100)}, {part, range(0, 2000)}]).

resolve({start, Distance}, _End) -> Distance;
resolve({page, Page, Distance}, _End) -> Page * page() + Distance;
resolve({'end', Distance}, End) -> max(0, End + Distance);
resolve({part, Thousandths}, End) -> End * Thousandths div 1000;
resolve({far, Distance}, _End) -> Distance.

resolve(Offset, Length, Size) ->
    From = resolve(Offset, Size),
    {From, resolve(Length, max(0, Size - From))}.

%% Iodata: small and irregular, or of a length that has to do with the file's.
data() ->
    oneof([{iodata, iodata()}, {filled, oneof([binary, sub_binary, segments, bytes]), byte(), place()}]).

iodata() ->
    ?SIZED(Size, iodata(Size)).

iodata(0) ->
    oneof([binary(), [], [byte()]]);
iodata(Size) ->
    ?LAZY(oneof([
        binary(),
        list(byte()),
        {list, iodata(Size div 2), iodata(Size div 2)},
        {improper, iodata(Size div 2), binary()}
    ])).

%% PropEr cannot shrink improper lists, so they are made afterwards.
made({list, First, Second}) -> [made(First), made(Second)];
made({improper, First, Tail}) -> [made(First) | Tail];
made(Leaf) -> Leaf.

resolve_write({Offset, Data}, Size) ->
    From = resolve(Offset, Size),
    {From, resolve_data(Data, From, Size)}.

%% A length beyond all memory stands for one byte too many.
resolve_data({iodata, Data}, _Offset, _Size) ->
    made(Data);
resolve_data({filled, Form, Byte, Place}, Offset, Size) ->
    Rest = max(0, Size - Offset),
    form(Form, Byte, min(resolve(Place, Rest), Rest + 1)).

form(binary, Byte, Length) ->
    repeat(Byte, Length);
form(sub_binary, Byte, Length) ->
    binary:part(repeat(Byte, Length + 7), 3, Length);
form(segments, Byte, Length) ->
    [repeat(Byte, Length div 2), [[] | repeat(255 - Byte, Length - Length div 2)]];
form(bytes, Byte, Length) ->
    %% A long list of bytes costs much, and tells no more.
    Listed = min(Length, 10_000),
    [lists:duplicate(Listed, Byte) | repeat(Byte, Length - Listed)].

%% In blocks, which takes a twentieth of the time.
repeat(Byte, Length) ->
    Block = binary:copy(<<Byte>>, page()),
    iolist_to_binary([binary:copy(Block, Length div page()), binary:part(Block, 0, Length rem page())]).

%% Running them

runs(Size, Options, Calls) ->
    holds(fun() -> run(Size, Options, Calls) end).

run(Size, Options, Calls) ->
    with_directory(fun(Directory) ->
        State = lists:foldl(fun call/2, start(Directory, Size, Options), Calls),
        #state{handle = Handle, path = Path, size = Now} = State,
        ?assertEqual({ok, read(State#state.mapping, 0, Now)}, iommap:pread(Handle, 0, Now)),
        ?assertEqual({ok, read(State#state.file, 0, Now)}, file:read_file(Path)),
        ok = iommap:close(Handle),
        views_agree(State)
    end).

start(Directory, Size, Options) ->
    Path = filename:join(Directory, "mapped"),
    ok = file:write_file(Path, bytes(Size)),
    {ok, Handle} = iommap:open(Path, read_write, Options),
    Oracle = oracle(Options, filename:join(Directory, "oracle"), bytes(Size)),
    #state{handle = Handle, path = Path, options = Options, size = Size, mapping = Oracle, file = Oracle}.

call(Call, State) ->
    Next = answer(Call, State),
    true = views_agree(Next),
    Next.

answer({pread, Offset, Length}, #state{handle = Handle, size = Size, mapping = Oracle} = State) ->
    {From, Count} = resolve(Offset, Length, Size),
    Expected = expected(From, Count, Size, fun() -> {ok, read(Oracle, From, Count)} end),
    ?assertEqual(Expected, iommap:pread(Handle, From, Count)),
    State;
answer({region_binary, Offset, Length}, #state{handle = Handle, size = Size, mapping = Oracle} = State) ->
    {From, Count} = resolve(Offset, Length, Size),
    Expected = expected(From, Count, Size, fun() -> {ok, read(Oracle, From, Count)} end),
    View = iommap:region_binary(Handle, From, Count),
    ?assertEqual(Expected, View),
    keep_view(From, View, State);
answer({pwrite, Offset, Data}, #state{handle = Handle, size = Size} = State) ->
    From = resolve(Offset, Size),
    Written = resolve_data(Data, From, Size),
    Expected = expected(From, iolist_size(Written), Size, fun() -> ok end),
    ?assertEqual(Expected, iommap:pwrite(Handle, From, Written)),
    case Expected of
        ok -> written(From, Written, State);
        {error, out_of_bounds} -> State
    end;
answer({pread, Places}, #state{handle = Handle, size = Size, mapping = Oracle} = State) ->
    Ranges = [resolve(Offset, Length, Size) || {Offset, Length} <- Places],
    Expected = expected_of_all(Ranges, Size, fun() -> {ok, [read(Oracle, From, Count) || {From, Count} <- Ranges]} end),
    ?assertEqual(Expected, iommap:pread(Handle, Ranges)),
    State;
answer({pwrite, Places}, #state{handle = Handle, size = Size} = State) ->
    Writes = [resolve_write(Place, Size) || Place <- Places],
    case expected_of_all([{From, iolist_size(Data)} || {From, Data} <- Writes], Size, fun() -> ok end) of
        ok ->
            ?assertEqual(ok, iommap:pwrite(Handle, Writes)),
            lists:foldl(fun({From, Data}, Written) -> written(From, Data, Written) end, State, Writes);
        {error, out_of_bounds} ->
            ?assertEqual({error, {0, out_of_bounds}}, iommap:pwrite(Handle, Writes)),
            State
    end;
answer({write_by_another, Offset, Data}, #state{path = Path, size = Size} = State) ->
    From = resolve(Offset, Size),
    Written = resolve_data(Data, From, Size),
    case expected(From, iolist_size(Written), Size, fun() -> ok end) of
        ok ->
            with_another(Path, fun(File) -> ok = file:pwrite(File, From, Written) end),
            written(From, Written, State);
        {error, out_of_bounds} ->
            State
    end;
answer({truncate, Place}, #state{handle = Handle, size = Size} = State) ->
    case resolve(Place, Size) of
        0 ->
            ?assertEqual({error, einval}, iommap:truncate(Handle, 0)),
            State;
        NewSize ->
            ?assertEqual(ok, iommap:truncate(Handle, NewSize)),
            resized(NewSize, State)
    end;
answer({remap, Place}, #state{handle = Handle, path = Path, size = Size} = State) ->
    NewSize = max(1, resolve(Place, Size)),
    resize_by_another(Path, NewSize),
    ?assertEqual({ok, NewSize}, iommap:remap(Handle)),
    resized(NewSize, State);
answer({append_by_another, Length, Byte}, #state{handle = Handle, path = Path, size = Size} = State) ->
    {NewSize, Data} = {Size + Length, repeat(Byte, Length)},
    with_another(Path, fun(File) -> ok = file:pwrite(File, Size, Data) end),
    ?assertEqual({ok, NewSize}, iommap:remap(Handle)),
    #state{mapping = Mapping, file = File} = Grown = resized(NewSize, State),
    Grown#state{mapping = write(Mapping, Size, Data), file = write(File, Size, Data)};
answer({sync, Mode}, #state{handle = Handle} = State) ->
    ?assertEqual(ok, iommap:sync(Handle, Mode)),
    State;
answer({advise, Offset, Length, Hint}, #state{handle = Handle, size = Size} = State) ->
    {From, Count} = resolve(Offset, Length, Size),
    ?assertEqual(expected(From, Count, Size, fun() -> ok end), iommap:advise(Handle, From, Count, Hint)),
    State;
answer(position, #state{handle = Handle, size = Size} = State) ->
    ?assertEqual({ok, Size}, iommap:position(Handle)),
    State;
answer(forget, #state{handle = Handle, path = Path} = State) ->
    ?assertEqual(sigbus_if_faulted(State), iommap:sync(Handle)),
    ?assertEqual(ok, iommap:advise(Handle, 0, 0, dontneed)),
    with_another(Path, fun(File) -> ok = file:advise(File, 0, 0, dont_need) end),
    State;
answer(reopen, #state{handle = Handle, path = Path, options = Options, file = File} = State) ->
    ?assertEqual(ok, iommap:close(Handle)),
    {ok, Reopened} = iommap:open(Path, read_write, Options),
    State#state{handle = Reopened, mapping = File}.

%% Of what ends inside the file, as only a raw file goes on behind its end.
run_batches(Size, Batches) ->
    with_directory(fun(Directory) ->
        [Path, Plain] = [filename:join(Directory, Name) || Name <- ["mapped", "plain"]],
        [ok = file:write_file(Name, bytes(Size)) || Name <- [Path, Plain]],
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, File} = file:open(Plain, [read, write, raw, binary]),
        [answer_batch(Batch, Handle, File, Size) || Batch <- Batches],
        ?assertEqual(file:read_file(Plain), file:read_file(Path)),
        ok = file:close(File),
        ok =:= iommap:close(Handle)
    end).

answer_batch({pread, Places}, Handle, File, Size) ->
    Resolved = [resolve(Offset, Length, Size) || {Offset, Length} <- Places],
    Ranges = [Range || {From, Count} = Range <- Resolved, From + Count =< Size],
    {ok, Read} = file:pread(File, Ranges),
    ?assertEqual({ok, [case Bytes of eof -> <<>>; _ -> Bytes end || Bytes <- Read]}, iommap:pread(Handle, Ranges));
answer_batch({pwrite, Places}, Handle, File, Size) ->
    Resolved = [resolve_write(Place, Size) || Place <- Places],
    Writes = [Write || {From, Data} = Write <- Resolved, From + iolist_size(Data) =< Size],
    ?assertEqual(file:pwrite(File, Writes), iommap:pwrite(Handle, Writes)).

%% A mapping, from an offset on, whose file is cut and grown by another. The page in which the file ends shows zeros after the end.
run_on_changing_file(Size, Offset, Room, Calls) ->
    with_directory(fun(Directory) ->
        State = start(Directory, Size, [shared, {offset, Offset}, {reserve, Room}]),
        Opened = State#state{offset = Offset, size = Size - Offset, file = {binary, bytes(Size)}},
        #state{file = Now} = lists:foldl(fun answer_on_changing_file/2, Opened, Calls),
        ?assertEqual({ok, read(Now, 0, length_of(Now))}, file:read_file(State#state.path)),
        ok =:= iommap:close(State#state.handle)
    end).

answer_on_changing_file({pread, Offset, Length}, #state{handle = Handle, size = Size} = State) ->
    {From, Count} = Range = resolve(Offset, Length, Size),
    Expected = expected(From, Count, Size, fun() -> backed_or_sigbus([Range], State, fun([Bytes]) -> Bytes end) end),
    ?assertEqual(Expected, iommap:pread(Handle, From, Count)),
    State;
answer_on_changing_file({pread, Places}, #state{handle = Handle, size = Size} = State) ->
    Ranges = [resolve(Offset, Length, Size) || {Offset, Length} <- Places],
    Expected = expected_of_all(Ranges, Size, fun() -> backed_or_sigbus(Ranges, State, fun(Parts) -> Parts end) end),
    ?assertEqual(Expected, iommap:pread(Handle, Ranges)),
    State;
answer_on_changing_file({pwrite, Offset, Data}, #state{handle = Handle, size = Size} = State) ->
    Write = {From, Written} = resolve_write({Offset, Data}, Size),
    case {From + iolist_size(Written) =< Size, written_or_lost([Write], State)} of
        {true, {ok, File}} ->
            ?assertEqual(ok, iommap:pwrite(Handle, From, Written)),
            State#state{file = File};
        {true, {{error, {0, Reason}}, _}} ->
            ?assertEqual({error, Reason}, iommap:pwrite(Handle, From, Written)),
            State;
        _ ->
            State
    end;
answer_on_changing_file({pwrite, Places}, #state{handle = Handle, size = Size} = State) ->
    Resolved = [resolve_write(Place, Size) || Place <- Places],
    Writes = [Write || {From, Data} = Write <- Resolved, From + iolist_size(Data) =< Size],
    case written_or_lost(Writes, State) of
        across ->
            State;
        {Answer, File} ->
            ?assertEqual(Answer, iommap:pwrite(Handle, Writes)),
            State#state{file = File}
    end;
answer_on_changing_file({region_binary, Offset, Length}, #state{handle = Handle, size = Size, file = File} = State) ->
    {From, Count} = resolve(Offset, Length, Size),
    End = State#state.offset + From + Count,
    case iommap:region_binary(Handle, From, Count) of
        {ok, View} ->
            ?assertNot(State#state.is_faulted),
            IsIntact = Count =:= 0 orelse End =< length_of(File),
            ?assertEqual({IsIntact, shown(From, Count, State), IsIntact}, {iommap:intact(View), View, iommap:intact(View)}),
            State#state{is_faulted = Count > 0 andalso End > backed(File)};
        Error ->
            ?assertEqual(expected(From, Count, Size, fun() -> sigbus_if_faulted(State) end), Error),
            State
    end;
answer_on_changing_file({resize_by_another, Place}, #state{path = Path, offset = Offset, size = Size, file = File} = State) ->
    NewSize = resolve(Place, Offset + Size),
    resize_by_another(Path, NewSize),
    State#state{file = with_size(File, NewSize)};
answer_on_changing_file({truncate, Place}, #state{handle = Handle, offset = 0, size = Size, file = File} = State) ->
    NewSize = max(1, resolve(Place, Size)),
    ?assertEqual(ok, iommap:truncate(Handle, NewSize)),
    State#state{size = NewSize, file = with_size(File, NewSize), is_faulted = false};
answer_on_changing_file({truncate, Place}, #state{handle = Handle, size = Size} = State) ->
    ?assertEqual({error, einval}, iommap:truncate(Handle, resolve(Place, Size))),
    State;
answer_on_changing_file(remap, #state{handle = Handle, offset = Offset, file = File} = State) ->
    case length_of(File) - Offset of
        NewSize when NewSize > 0 ->
            ?assertEqual({ok, NewSize}, iommap:remap(Handle)),
            State#state{size = NewSize, is_faulted = false};
        _ ->
            ?assertEqual({error, einval}, iommap:remap(Handle)),
            State
    end;
answer_on_changing_file(forget, State) ->
    answer(forget, State).

%% What is read of ranges of the mapping.
backed_or_sigbus(_, #state{is_faulted = true}, _) ->
    {error, sigbus};
backed_or_sigbus(Ranges, #state{offset = Offset, file = File} = State, Answer) ->
    case [Lost || {From, Count} = Lost <- Ranges, Count > 0, Offset + From + Count > backed(File)] of
        [] -> {ok, Answer([shown(From, Count, State) || {From, Count} <- Ranges])};
        _ -> {error, sigbus}
    end.

%% Zeros behind the end of the file.
shown(From, Count, #state{offset = Offset, file = File}) ->
    read(with_size(File, max(Offset + From + Count, length_of(File))), Offset + From, Count).

sigbus_if_faulted(#state{is_faulted = true}) -> {error, sigbus};
sigbus_if_faulted(_) -> ok.

%% What writes to the mapping answer one after another, and the file then. Of data across the file's end a part may be written, so
%% that is not tried.
written_or_lost(_, #state{is_faulted = true, file = File}) ->
    {{error, {0, sigbus}}, File};
written_or_lost(Writes, #state{offset = Offset, file = File}) ->
    written_or_lost([{Offset + From, Data} || {From, Data} <- Writes], 0, File).

written_or_lost([], _, File) -> {ok, File};
written_or_lost([{From, Data} | Rest], Count, File) ->
    End = From + iolist_size(Data),
    case {length_of(File), backed(File)} of
        {FileEnd, _} when End =< FileEnd -> written_or_lost(Rest, Count + 1, write(File, From, Data));
        {_, Backed} when From < End, From >= Backed -> {{error, {Count, sigbus}}, File};
        _ -> across
    end.

length_of({binary, Contents}) -> byte_size(Contents).

%% Where the last page ends of which the file has a byte.
backed(File) ->
    (length_of(File) + page() - 1) div page() * page().

expected(Offset, Length, Size, _Within) when Offset + Length > Size -> {error, out_of_bounds};
expected(_Offset, _Length, _Size, Within) -> Within().

expected_of_all(Ranges, Size, Within) ->
    case [Range || {Offset, Length} = Range <- Ranges, Offset + Length > Size] of
        [] -> Within();
        _ -> {error, out_of_bounds}
    end.

with_another(Path, Use) ->
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    Use(File),
    ok = file:close(File).

resize_by_another(Path, Size) ->
    with_another(Path, fun(File) ->
        {ok, Size} = file:position(File, Size),
        ok = file:truncate(File)
    end).

written(Offset, Data, #state{mapping = Mapping} = State) ->
    State#state{mapping = write(Mapping, Offset, Data)}.

resized(Size, #state{mapping = Mapping, file = File} = State) ->
    State#state{size = Size, mapping = with_size(Mapping, Size), file = with_size(File, Size)}.

%% A view of a shared mapping shows the file for as long as the file reaches its end.
keep_view(Offset, {ok, View}, #state{options = [shared], views = Views} = State) ->
    State#state{views = [{Offset, View} | Views]};
keep_view(_Offset, _View, State) ->
    State.

views_agree(#state{size = Size, mapping = Oracle, views = Views}) ->
    [?assertEqual(read(Oracle, Offset, byte_size(View)), View) ||
        {Offset, View} <- Views, Offset + byte_size(View) =< Size],
    true.

%% The oracle. One file serves a shared mapping and its file, as both are the same bytes.

oracle([shared | _], Path, Contents) ->
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    ok = file:pwrite(File, 0, Contents),
    {file, File};
oracle([private], _Path, Contents) ->
    {binary, Contents}.

read(_Oracle, _Offset, 0) -> <<>>;
read({file, File}, Offset, Length) -> element(2, {ok, _} = file:pread(File, Offset, Length));
read({binary, Binary}, Offset, Length) -> binary:part(Binary, Offset, Length).

write({file, File}, Offset, Data) ->
    ok = file:pwrite(File, Offset, Data),
    {file, File};
write({binary, Binary}, Offset, Data) ->
    Length = iolist_size(Data),
    <<Before:Offset/binary, _:Length/binary, After/binary>> = Binary,
    {binary, iolist_to_binary([Before, Data, After])}.

with_size({file, File}, Size) ->
    {ok, Size} = file:position(File, Size),
    ok = file:truncate(File),
    {file, File};
with_size({binary, Binary}, Size) when Size =< byte_size(Binary) ->
    {binary, binary:part(Binary, 0, Size)};
with_size({binary, Binary}, Size) ->
    {binary, <<Binary/binary, (zeros(Size - byte_size(Binary)))/binary>>}.
