%% Who takes part in the cases of `bench_hot`, and what they work on.
-module(bench_cells).

-export([cells/1]).

-define(SIZE, (1 bsl 26)).
-define(LINE_SIZE, 64).
-define(PAGE, 4096).
-define(BLOCK, (1 bsl 20)).
-define(TEXT_SIZE, 100_000_000).

%% Calls in a round of the cases in which nothing was done lately: to few enough of the pages that most are met once.
-define(FIRST, 2000).

%% Lists of ranges, of four megabytes together, in a persistent term.
-define(BATCHES, {?MODULE, batches}).
-define(BATCH_COUNT, 1024).

%% The lines of the file, as a tuple in a persistent term.
-define(LINES, {?MODULE, lines}).

%% Files of an eighth of the size each.
-define(FILES, 8).

%% Appended records, to a file that is empty at first.
-define(APPENDS, 100_000).

%% Masks that make random numbers offsets: multiples of the length anywhere in the file, or lines of its first page.
-define(ANYWHERE(Length), (?SIZE - max(?LINE_SIZE, Length))).
-define(FIRST_PAGE, (?PAGE - ?LINE_SIZE)).

%% Makes the files and tables, and tells who is to be measured.
-spec cells(bench_hot:settings()) -> [bench_hot:cell()].
cells(Settings) ->
    [{Case, Unit, [Contender || #{name := Name} = Contender <- Contenders, takes_part(Settings, contenders, Name)]}
     || {Case, Unit, Contenders} <- all_cells(fixture(Settings)), takes_part(Settings, cases, Case)].

takes_part(Settings, Key, Name) ->
    lists:member(Name, maps:get(Key, Settings, [Name])).

%% ---- What is measured on

fixture(#{directory := Directory} = Settings) ->
    Read = filename:join(Directory, "read-" ++ os:getpid()),
    Write = filename:join(Directory, "write-" ++ os:getpid()),
    ok = bench_file:make(Read, ?SIZE),
    ok = bench_file:make(Write, ?SIZE),
    Zeros = filename:join(Directory, "zeros-" ++ os:getpid()),
    ok = file:write_file(Zeros, binary:copy(<<0>>, ?SIZE)),
    ZeroWords = filename:join(Directory, "zero-words-" ++ os:getpid()),
    ok = file:write_file(ZeroWords, binary:copy(<<0:8/unit:8, 1:(?LINE_SIZE - 8)/unit:8>>, ?SIZE div ?LINE_SIZE)),
    Text = filename:join(Directory, "text-" ++ os:getpid()),
    ok = file:write_file(Text, binary:copy(text_line(), ?TEXT_SIZE div ?LINE_SIZE)),
    {ok, Handle} = iommap:open(Read, read, []),
    {ok, WriteHandle} = iommap:open(Write, read_write, []),
    {ok, Floor} = floor:open(Read, read),
    {ok, WriteFloor} = floor:open(Write, write),
    Zeroed = fun(Path) ->
        {ok, ZerosHandle} = iommap:open(Path, read, []),
        {ok, ZerosFloor} = floor:open(Path, read),
        {Path, ZerosHandle, ZerosFloor}
    end,
    [ok = persistent_term:put(?LINES, lines()) || takes_part(Settings, contenders, other)],
    #{
        parts => parts(Directory), cold => cold(Directory),
        read => Read, handle => Handle, floor => Floor,
        zeros => Zeroed(Zeros), zero_words => Zeroed(ZeroWords),
        grow => filename:join(Directory, "grow-" ++ os:getpid()), text => Text,
        write => Write, write_handle => WriteHandle, write_floor => WriteFloor,
        tables => maps:from_list([{Length, table(Length, Settings)} || Length <- lengths()])
    }.

lines() ->
    list_to_tuple([bench_file:contents(Offset, ?LINE_SIZE) || Offset <- lists:seq(0, ?SIZE - 1, ?LINE_SIZE)]).

parts(Directory) ->
    [begin
        Path = filename:join(Directory, io_lib:format("part-~s-~b", [os:getpid(), N])),
        ok = bench_file:make(Path, ?SIZE div ?FILES),
        Path
     end || N <- lists:seq(1, ?FILES)].

cold(Directory) ->
    Path = filename:join(Directory, "cold-" ++ os:getpid()),
    ok = bench_file:make(Path, ?SIZE),
    Path.

lengths() -> [8, 64, ?PAGE, 1 bsl 16, ?BLOCK].

table(Length, Settings) ->
    Table = ets:new(table, [public, {read_concurrency, true}]),
    [ets:insert(Table, {Offset, bench_file:contents(Offset, Length)})
     || takes_part(Settings, contenders, ets), Offset <- lists:seq(0, ?SIZE - 1, max(?LINE_SIZE, Length))],
    Table.

%% ---- Who takes part in what

all_cells(Fixture) ->
    Readers = fun(Length) -> readers(Fixture, Length) end,
    [{"nothing", nanoseconds, nothings()}]
    ++ [{"read " ++ Size, nanoseconds, Readers(Length)}
        || {Size, Length} <- lists:zip(["8 B", "64 B", "4 KB", "64 KB", "1 MB"], lengths())]
    ++ [{"read 8 B, same page", nanoseconds, [Reader#{mask := ?FIRST_PAGE} || Reader <- Readers(8)]},
        {"read 8 B, used", nanoseconds, [Reader#{loop => using} || Reader <- Readers(8)]},
        {"read 64 B, used", nanoseconds, [Reader#{loop => using} || Reader <- Readers(64)]},
        {"read 8 B, chained", nanoseconds, [Reader#{loop => chained} || Reader <- Readers(8)]},
        {"read 8 B, chained, same page", nanoseconds,
         [Reader#{loop => chained, mask := ?FIRST_PAGE} || Reader <- Readers(8)]},
        {"read 8 B of zeros", nanoseconds, readers_of_zeros(maps:get(zeros, Fixture), 8)},
        {"read 8 B of zeros among data", nanoseconds, readers_of_zeros(maps:get(zero_words, Fixture), 8)},
        {"read 4 KB of zeros", nanoseconds, readers_of_zeros(maps:get(zeros, Fixture), ?PAGE)},
        {"view 4 KB", nanoseconds, viewers(Fixture) ++ nothings()}]
    ++ [{"read 64 B, " ++ Name, {processes, Count}, Readers(64)}
        || {Name, Count} <- [{"1 process", 1}, {"2 processes", 2}, {"4 processes", 4}, {"32 processes", 32}]]
    ++ [{"write " ++ Size, nanoseconds, writers(Fixture, Data)}
        || {Size, Data} <- [{"64 B", binary:copy(<<"w">>, 64)}, {"4 KB", binary:copy(<<"x">>, ?PAGE)},
                            {"16 x 256 B", segments()}]]
    ++ [{"write " ++ Size ++ ", while there is a view", nanoseconds, writers_while_there_is_a_view(Fixture, Data)}
        || {Size, Data} <- [{"64 B", binary:copy(<<"w">>, 64)}, {"16 x 256 B", segments()}]]
    ++ [{"read and write 64 B, 8 handles in turn", nanoseconds, takers_of_turns(Fixture)}]
    ++ [{"read 64 B, not lately read", {first, ?FIRST}, Readers(64)},
        {"read 64 B, one page in ten cold", {first, ?FIRST}, cold_readers(Fixture)},
        {"write 64 B, not lately written", {first, ?FIRST}, writers(Fixture, binary:copy(<<"w">>, 64))},
        {"grow by 4 KB", {first, ?FIRST}, growers(Fixture)},
        {"append 64 B", {first, ?APPENDS}, appenders(Fixture)}]
    ++ [{"read 64 x 64 B", nanoseconds, batch_readers(Fixture)},
        {"with_view 4 KB", nanoseconds, with_viewers(Fixture)},
        {"device read 64 B", nanoseconds, device_readers(Fixture)},
        {"device read_line", nanoseconds, line_readers(Fixture)}]
    ++ [{"atomics add", nanoseconds, adders(Fixture) ++ nothings()},
        {"atomics get", nanoseconds, getters(Fixture) ++ nothings()}].

segments() ->
    [binary:copy(<<Byte>>, 256) || Byte <- lists:seq($a, $p)].

nothings() ->
    [#{name => Name, open => fun() -> none end, call => Call, argument => none, mask => ?ANYWHERE(8),
       expect => fun(Answer, _) -> Answer =:= ok end}
     || {Name, Call} <- [{loop, none}, {nif, fun floor:nothing/3}]].

readers(#{read := Path, handle := Handle, floor := Floor, tables := #{} = Tables}, Length) ->
    #{Length := Table} = Tables,
    Bytes = fun(Answer, Offset) -> Answer =:= bench_file:contents(Offset, Length) end,
    Answer = fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, Length)} end,
    Reader = #{argument => Length, mask => ?ANYWHERE(Length), expect => Answer},
    readers(Reader, Path, Handle, Floor)
    ++ [Reader#{name => part, open => fun() -> view(Path) end, call => fun binary:part/3, expect := Bytes},
        %% Of any contents: other cases write to the table.
        Reader#{name => ets, open => fun() -> Table end, call => fun ets:lookup_element/3,
                expect := fun(Element, _) -> byte_size(Element) =:= Length end,
                argument := 2}]
    ++ [Reader#{name => other, open => fun() -> none end, call => fun line/3, expect := Bytes} || Length =:= ?LINE_SIZE].

line(_, Offset, _Length) ->
    element(1 + Offset div ?LINE_SIZE, persistent_term:get(?LINES)).

readers_of_zeros({Path, Handle, Floor}, Length) ->
    Zeros = <<0:Length/unit:8>>,
    readers(#{argument => Length, mask => ?ANYWHERE(Length), expect => fun(Answer, _) -> Answer =:= {ok, Zeros} end},
            Path, Handle, Floor).

readers(Reader, Path, Handle, Floor) ->
    [warmed(Reader#{name => iommap, open => fun() -> Handle end, call => fun iommap:pread/3}, ?BLOCK),
     warmed(Reader#{name => floor, open => fun() -> Floor end, call => fun floor:pread/3}, ?BLOCK),
     warmed(Reader#{name => file, open => fun() -> raw(Path, [read]) end, call => fun file:pread/3}, ?BLOCK)].

%% A file of which every tenth page is not in memory when it is opened, for each sample anew.
cold_readers(#{cold := Path}) ->
    Reader = #{argument => 64, mask => ?ANYWHERE(64),
               expect => fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, 64)} end},
    Opened = fun(Open) -> fun() -> ok = cool(Path), {ok, Opened} = Open(), Opened end end,
    [Reader#{name => iommap, call => fun iommap:pread/3, open => Opened(fun() -> iommap:open(Path, read, []) end)},
     Reader#{name => floor, call => fun floor:pread/3, open => Opened(fun() -> floor:open(Path, read) end)},
     Reader#{name => file, call => fun file:pread/3, open => Opened(fun() -> {ok, raw(Path, [read])} end)}].

%% Pages that are mapped would stay. Told that reads come at random, the system reads no page that was not asked for.
cool(Path) ->
    true = erlang:garbage_collect(),
    ok = bench_delay:until_unmapped(Path),
    ok = bench_file:evict(Path),
    File = raw(Path, [read]),
    ok = file:advise(File, 0, 0, random),
    [{ok, _} = file:pread(File, Offset, 9 * ?PAGE) || Offset <- lists:seq(?PAGE, ?SIZE - 1, 10 * ?PAGE)],
    file:close(File).

%% A read of one file and a write of the next one, each call of another two.
takers_of_turns(#{parts := Paths, tables := #{64 := Table}}) ->
    Data = binary:copy(<<"t">>, 64),
    Written = fun(Answer, Offset) ->
        {_, {Next, At}} = turn(Offset),
        Answer =:= ok andalso file:pread(raw(lists:nth(Next, Paths), [read]), At, 64) =:= {ok, Data}
    end,
    Taker = #{argument => Data, mask => ?ANYWHERE(64), expect => Written},
    OfEach = fun(Open) -> list_to_tuple([Open(Path) || Path <- Paths]) end,
    %% What is warmed is what is measured; only a raw file is of use to nobody but the process that opened it.
    Once = fun(Open) -> Subjects = OfEach(Open), fun() -> Subjects end end,
    All = fun(Module) ->
        fun(Subjects) ->
            [ok = Module:pwrite(Subject, Offset, element(2, {ok, _} = Module:pread(Subject, Offset, ?BLOCK)))
             || Subject <- tuple_to_list(Subjects), Offset <- lists:seq(0, ?SIZE div ?FILES - 1, ?BLOCK)]
        end
    end,
    [Taker#{name => Module, open => Opened, warm => All(Module),
            call => fun(Subjects, Offset, Bytes) ->
                {{Which, At}, {Next, _}} = turn(Offset),
                {ok, _} = Module:pread(element(Which, Subjects), At, 64),
                Module:pwrite(element(Next, Subjects), At, Bytes)
            end}
     || {Module, Opened} <- [{iommap, Once(fun(Path) -> element(2, {ok, _} = iommap:open(Path, read_write, [])) end)},
                             {floor, Once(fun(Path) -> element(2, {ok, _} = floor:open(Path, write)) end)},
                             {file, fun() -> OfEach(fun(Path) -> raw(Path, [read, write]) end) end}]]
    ++ [Taker#{name => ets, open => fun() -> Table end, expect := fun(Answer, _) -> Answer =:= true end,
               call => fun(_, Offset, Bytes) ->
                   _ = ets:lookup_element(Table, Offset, 2),
                   ets:update_element(Table, (Offset + ?SIZE div ?FILES) band (?SIZE - 1), {2, Bytes})
               end}].

turn(Offset) ->
    Each = ?SIZE div ?FILES,
    At = Offset band (Each - 1),
    {{1 + Offset div Each, At}, {1 + (1 + Offset div Each) rem ?FILES, At}}.

viewers(#{read := Path, floor := Floor}) ->
    Viewer = #{argument => ?PAGE, mask => ?ANYWHERE(?PAGE),
               expect => fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, ?PAGE)} end},
    [Viewer#{name => iommap, open => fun() -> handle(Path) end, call => fun iommap:region_binary/3},
     Viewer#{name => floor, open => fun() -> Floor end, call => fun floor:region_binary/3},
     Viewer#{name => part, open => fun() -> view(Path) end, call => fun binary:part/3,
             expect := fun(Answer, Offset) -> Answer =:= bench_file:contents(Offset, ?PAGE) end}].

%% A handle that may show views goes with the process that opens it: as long as it is there, all writes ask more.
handle(Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    Handle.

warm_handle(Path) ->
    Handle = handle(Path),
    _ = [{ok, _} = iommap:pread(Handle, Offset, ?BLOCK) || Offset <- lists:seq(0, ?SIZE - 1, ?BLOCK)],
    Handle.

view(Path) ->
    {ok, View} = iommap:region_binary(handle(Path), 0, ?SIZE),
    View.

%% The floor takes lists apart, as a NIF must that has to know where each part comes from.
writers_while_there_is_a_view(#{read := Viewed} = Fixture, Data) ->
    Writers = writers(Fixture, Data),
    [Writer#{open := fun() -> _ = put(view, view(Viewed)), Open() end} || #{name := iommap, open := Open} = Writer <- Writers]
    ++ [case Data of
            [_ | _] -> warmed(Writer#{call := fun floor:pwrite_segments/3}, binary:copy(<<"b">>, ?BLOCK));
            _ -> Writer
        end || #{name := floor} = Writer <- Writers].

writers(#{write := Path, write_handle := Handle, write_floor := Floor, tables := Tables}, Data) ->
    Bytes = iolist_to_binary(Data),
    #{byte_size(Bytes) := Table} = Tables,
    Written = fun(Answer, Offset) ->
        Answer =:= ok andalso file:pread(raw(Path, [read]), Offset, byte_size(Bytes)) =:= {ok, Bytes}
    end,
    Inserted = fun(Answer, Offset) -> Answer =:= true andalso ets:lookup(Table, Offset) =:= [{Offset, Data}] end,
    Writer = #{argument => Data, mask => ?ANYWHERE(byte_size(Bytes)), expect => Written},
    Block = binary:copy(<<"b">>, ?BLOCK),
    [warmed(Writer#{name => iommap, open => fun() -> Handle end, call => fun iommap:pwrite/3}, Block),
     warmed(Writer#{name => floor, open => fun() -> Floor end, call => fun floor:pwrite/3}, Block),
     warmed(Writer#{name => file, open => fun() -> raw(Path, [read, write]) end, call => fun file:pwrite/3}, Block),
     Writer#{name => ets, open => fun() -> Table end, call => fun ets:update_element/3, expect := Inserted,
             argument := {2, Data}}].

%% Each time a file and a mapping of 64 MiB grow into the address space behind them.
growers(#{grow := Path}) ->
    Grower = #{argument => ?PAGE, mask => 0, expect => fun(Answer, _) -> Answer =:= ok end},
    Fresh = fun() ->
        {ok, File} = file:open(Path, [raw, write]),
        {ok, ?SIZE} = file:position(File, ?SIZE),
        ok = file:truncate(File),
        ok = file:close(File)
    end,
    [Grower#{name => iommap,
             open => fun() ->
                 Fresh(),
                 {ok, Handle} = iommap:open(Path, read_write, []),
                 {Handle, counters:new(1, [])}
             end,
             call => fun({Handle, Pages}, _, Bytes) ->
                 ok = counters:add(Pages, 1, 1),
                 iommap:truncate(Handle, ?SIZE + counters:get(Pages, 1) * Bytes)
             end},
     Grower#{name => floor,
             open => fun() -> Fresh(), {ok, Floor} = floor:open_to_grow(Path), Floor end,
             call => fun(Floor, _, Bytes) -> floor:grow(Floor, Bytes) end}].

%% Records at the end of a file that is empty at first: with room that grows by half, or by one call of the file.
appenders(#{grow := Path}) ->
    Record = binary:copy(<<"r">>, 64),
    Appender = #{argument => Record, mask => 0, expect => fun(Answer, _) -> Answer =:= ok end},
    Written = fun(Modes) -> fun() -> ok = file:write_file(Path, <<>>), raw(Path, [append | Modes]) end end,
    Write = fun(File, _, Data) -> file:write(File, Data) end,
    [Appender#{name => iommap,
               open => fun() ->
                   {ok, Handle} = iommap:open(Path, read_write, [create, truncate, {size, ?PAGE}]),
                   {Handle, counters:new(1, [])}
               end,
               call => fun({Handle, End}, _, Data) ->
                   Offset = counters:get(End, 1),
                   {ok, _} = iommap:ensure_size(Handle, Offset + byte_size(Data)),
                   ok = counters:add(End, 1, byte_size(Data)),
                   iommap:pwrite(Handle, Offset, Data)
               end},
     Appender#{name => file, open => Written([]), call => Write},
     Appender#{name => other, open => Written([delayed_write]), call => Write}].

%% 64 ranges anywhere in the file, in one call or in one each. The lists that say where are there before: the offset is that of one.
batch_readers(#{handle := Handle, floor := Floor}) ->
    ok = persistent_term:put(?BATCHES, list_to_tuple([ranges(64) || _ <- lists:seq(1, ?BATCH_COUNT)])),
    Reader = #{argument => none, mask => ?BATCH_COUNT - 1,
               expect => fun({ok, Read}, Which) -> Read =:= [bench_file:contents(At, 64) || {At, _} <- batch(Which)] end},
    Warm = fun(Module) ->
        fun(Subject) -> [Module:pread(Subject, Offset, ?BLOCK) || Offset <- lists:seq(0, ?SIZE - 1, ?BLOCK)] end
    end,
    [Reader#{name => iommap, open => fun() -> Handle end, warm => Warm(iommap),
             call => fun(Subject, Which, _) -> iommap:pread(Subject, batch(Which)) end},
     Reader#{name => floor, open => fun() -> Floor end, warm => Warm(floor),
             call => fun(Subject, Which, _) -> floor:pread(Subject, batch(Which)) end},
     Reader#{name => other, open => fun() -> Handle end, warm => Warm(iommap),
             call => fun(Subject, Which, _) -> {ok, read_each(Subject, batch(Which))} end}].

ranges(Count) ->
    [{(rand:uniform(?SIZE div 64) - 1) * 64, 64} || _ <- lists:seq(1, Count)].

batch(Which) ->
    element(1 + Which, persistent_term:get(?BATCHES)).

read_each(_Handle, []) ->
    [];
read_each(Handle, [{Offset, Length} | Ranges]) ->
    {ok, Bytes} = iommap:pread(Handle, Offset, Length),
    [Bytes | read_each(Handle, Ranges)].

%% A view that is read and then asked about.
with_viewers(#{read := Path}) ->
    Viewer = #{argument => fun erlang:crc32/1, mask => ?ANYWHERE(?PAGE), open => fun() -> warm_handle(Path) end,
               expect => fun(Answer, Offset) -> Answer =:= {ok, erlang:crc32(bench_file:contents(Offset, ?PAGE))} end},
    [Viewer#{name => iommap, call => fun(Subject, Offset, Fun) -> iommap:with_view(Subject, Offset, ?PAGE, Fun) end},
     Viewer#{name => other,
             call => fun(Subject, Offset, Fun) ->
                 {ok, View} = iommap:region_binary(Subject, Offset, ?PAGE),
                 Result = Fun(View),
                 true = iommap:intact(View),
                 {ok, Result}
             end}].

%% 64 B at random, by file:pread/3 of a device, of a raw file, and without the file module.
device_readers(#{read := Path, handle := Handle}) ->
    Reader = #{argument => 64, mask => ?ANYWHERE(64),
               expect => fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, 64)} end},
    [warmed(Reader#{name => iommap, open => fun() -> device(Path) end, call => fun file:pread/3}, ?BLOCK),
     warmed(Reader#{name => file, open => fun() -> raw(Path, [read]) end, call => fun file:pread/3}, ?BLOCK),
     warmed(Reader#{name => other, open => fun() -> Handle end, call => fun iommap:pread/3}, ?BLOCK)].

%% Lines of 64 bytes, over and over.
line_readers(#{text := Path}) ->
    Reader = #{argument => none, mask => 0, call => fun read_line/3,
               expect => fun(Answer, _) -> Answer =:= {ok, text_line()} end},
    [Reader#{name => iommap, open => fun() -> device(Path) end},
     Reader#{name => file, open => fun() -> raw(Path, [read, read_ahead]) end}].

read_line(File, _Offset, _) ->
    case file:read_line(File) of
        {ok, _} = Line -> Line;
        eof -> {ok, 0} = file:position(File, bof)
    end.

text_line() ->
    iolist_to_binary(io_lib:format("~63c~n", [$t])).

device(Path) ->
    {ok, Device} = iommap_file:open(Path, [read, binary]),
    Device.

%% Words that are not 0, of one page of the file, or of an array of OTP. The offset is that of the word.
adders(Fixture) ->
    Added = fun(Answer, _) -> Answer =:= ok end,
    [Adder#{argument => 1, expect => Added, call => Call}
     || {Adder, Call} <- lists:zip(words(Fixture), [fun add/3, fun otp_add/3])].

getters(Fixture) ->
    Word = fun(Answer, _) -> is_integer(Answer) andalso Answer =/= 0 end,
    [Getter#{argument => none, expect => Word, call => Call}
     || {Getter, Call} <- lists:zip(words(Fixture), [fun get/3, fun otp_get/3])].

words(#{write_handle := Handle}) ->
    Count = ?PAGE div 8,
    Filled = fun(Module, Words) ->
        [ok = Module:put(Words, Ix, 1 bsl 40) || Ix <- lists:seq(1, Count)],
        Words
    end,
    [#{name => iommap, mask => Count - 1,
       open => fun() -> Filled(iommap_atomics, iommap_atomics:new(Handle, 0, Count, [])) end},
     #{name => other, mask => Count - 1, open => fun() -> Filled(atomics, atomics:new(Count, [])) end}].

add(Words, Index, Increment) -> iommap_atomics:add(Words, Index + 1, Increment).
otp_add(Words, Index, Increment) -> atomics:add(Words, Index + 1, Increment).
get(Words, Index, _) -> iommap_atomics:get(Words, Index + 1).
otp_get(Words, Index, _) -> atomics:get(Words, Index + 1).

%% Hot is what was used just now: so before each sample the whole file is, through the same contender.
warmed(#{call := Call} = Contender, BlockArgument) ->
    Contender#{warm => fun(Subject) ->
        [Call(Subject, Offset, BlockArgument) || Offset <- lists:seq(0, ?SIZE - 1, ?BLOCK)]
    end}.

raw(Path, Modes) ->
    {ok, File} = file:open(Path, [raw, binary | Modes]),
    File.
