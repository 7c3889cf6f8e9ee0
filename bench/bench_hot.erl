%% Hot calls: the cases, who takes part in each, and one round of them. Runs inside a VM that is measured; the
%% registered process holds what the contenders work on.
-module(bench_hot).

-export([prepare/2, round/0, cases/0, first_cases/0, shuffle/1]).
-export_type([settings/0, result/0]).

-type settings() :: #{directory := file:filename(), samples := pos_integer(), sample_time := pos_integer(),
                      cases => [Case :: string()], contenders => [atom()]}. % only these
-type result() :: {{Case :: string(), Contender :: atom()}, float()}.

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

%% Appended records, to a file that is empty at first.
-define(APPENDS, 100_000).

%% Masks that make random numbers offsets: multiples of the length anywhere in the file, or lines of its first page.
-define(ANYWHERE(Length), (?SIZE - max(?LINE_SIZE, Length))).
-define(FIRST_PAGE, (?PAGE - ?LINE_SIZE)).

%% The cases in the order of the report, with the unit of their results.
-spec cases() -> [{string(), nanoseconds | calls_per_second}].
cases() ->
    [{Name, nanoseconds} || Name <- [
        "nothing", "read 8 B", "read 64 B", "read 4 KB", "read 64 KB", "read 1 MB", "read 8 B, same page",
        "read 8 B of zeros", "read 8 B of zeros among data", "read 4 KB of zeros", "view 4 KB", "write 64 B", "write 4 KB", "write 16 x 256 B",
        "write 16 x 256 B, not flattened", "read 64 B, not lately read", "write 64 B, not lately written",
        "read 64 x 64 B", "grow by 4 KB", "append 64 B", "with_view 4 KB", "device read 64 B", "device read_line", "atomics add", "atomics get"]]
    ++ [{Name, calls_per_second} || Name <- ["read 64 B, 1 process", "read 64 B, 2 processes", "read 64 B, 4 processes"]].

%% Those whose calls every version of the library has.
-spec first_cases() -> [string()].
first_cases() ->
    [Case || {Case, _} <- cases()] -- ["read 64 x 64 B", "append 64 B", "with_view 4 KB", "device read 64 B", "device read_line", "atomics add",
                                       "atomics get"].

%% Makes the files and tables, and has every contender's first answers checked.
-spec prepare(settings(), Calls :: pos_integer()) -> ok | {wrong, [{string(), atom()}]}.
prepare(Settings, Checked) ->
    Caller = self(),
    _ = spawn(fun() ->
        register(?MODULE, self()),
        Cells = only(Settings, cells(fixture(Settings))),
        Wrong = [{Case, Name} || {Case, _, Contenders} <- Cells, #{name := Name} = Contender <- Contenders,
                                 not bench_loop:answers(Contender, Checked)],
        Caller ! {prepared, case Wrong of [] -> ok; _ -> {wrong, Wrong} end},
        serve(Settings, [{Case, Unit, [calibrate(Unit, Contender, Settings) || Contender <- Contenders]}
                         || {Case, Unit, Contenders} <- Cells])
    end),
    receive {prepared, Answer} -> Answer end.

only(Settings, Cells) ->
    [{Case, Unit, [Contender || #{name := Name} = Contender <- Contenders, takes_part(Settings, contenders, Name)]}
     || {Case, Unit, Contenders} <- Cells, takes_part(Settings, cases, Case)].

takes_part(Settings, Key, Name) ->
    lists:member(Name, maps:get(Key, Settings, [Name])).

%% One round: of every case several samples of every contender, in another order each time, and their median.
-spec round() -> [result()].
round() ->
    ?MODULE ! {round, self()},
    receive {?MODULE, Results} -> Results end.

serve(#{samples := Samples} = Settings, Cells) ->
    receive {round, Caller} ->
        Caller ! {?MODULE, lists:append([sample(Cell, Samples) || Cell <- Cells])},
        serve(Settings, Cells)
    end.

sample({Case, {first, _} = Unit, Contenders}, _Samples) ->
    [{{Case, Name}, measure(Unit, Contender, Calls)} || {#{name := Name} = Contender, Calls} <- shuffle(Contenders)];
sample({Case, Unit, Contenders}, Samples) ->
    Results = [{Name, measure(Unit, Contender, Calls)}
               || _ <- lists:seq(1, Samples), {#{name := Name} = Contender, Calls} <- shuffle(Contenders)],
    [{{Case, Name}, bench_report:median(proplists:get_all_values(Name, Results))} || {#{name := Name}, _} <- Contenders].

measure(nanoseconds, Contender, Calls) -> bench_loop:nanoseconds_per_call(Contender, Calls);
measure({first, _}, Contender, Calls) -> bench_loop:nanoseconds_at_first(Contender, Calls);
measure({processes, Count}, Contender, Calls) -> bench_loop:calls_per_second(Contender, Count, Calls).

calibrate(nanoseconds, Contender, #{sample_time := Time}) -> {Contender, bench_loop:calls_within(Contender, Time)};
calibrate({first, Calls}, Contender, _) -> {Contender, Calls};
calibrate({processes, _}, Contender, #{sample_time := Time}) -> {Contender, bench_loop:calls_within(Contender, 2 * Time)}.

%% In another order each time, so that nobody always comes after the same.
-spec shuffle([Item]) -> [Item].
shuffle(List) ->
    [Item || {_, Item} <- lists:sort([{rand:uniform(), Item} || Item <- List])].

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
    {ok, View} = iommap:region_binary(Handle, 0, ?SIZE),
    #{
        read => Read, device => device(Read), handle => Handle, floor => Floor, view => View,
        zeros => Zeroed(Zeros), zero_words => Zeroed(ZeroWords),
        grow => filename:join(Directory, "grow-" ++ os:getpid()), text => Text,
        write => Write, write_handle => WriteHandle, write_floor => WriteFloor,
        tables => maps:from_list([{Length, table(Length, Settings)} || Length <- lengths()])
    }.

lengths() -> [8, 64, ?PAGE, 1 bsl 16, ?BLOCK].

table(Length, Settings) ->
    Table = ets:new(table, [public, {read_concurrency, true}]),
    [ets:insert(Table, {Offset, bench_file:contents(Offset, Length)})
     || takes_part(Settings, contenders, ets), Offset <- lists:seq(0, ?SIZE - 1, max(?LINE_SIZE, Length))],
    Table.

%% ---- Who takes part in what

cells(Fixture) ->
    Readers = fun(Length) -> readers(Fixture, Length) end,
    [{"nothing", nanoseconds, nothings()}]
    ++ [{"read " ++ Size, nanoseconds, Readers(Length)}
        || {Size, Length} <- lists:zip(["8 B", "64 B", "4 KB", "64 KB", "1 MB"], lengths())]
    ++ [{"read 8 B, same page", nanoseconds, [Reader#{mask := ?FIRST_PAGE} || Reader <- Readers(8)]},
        {"read 8 B of zeros", nanoseconds, readers_of_zeros(maps:get(zeros, Fixture), 8)},
        {"read 8 B of zeros among data", nanoseconds, readers_of_zeros(maps:get(zero_words, Fixture), 8)},
        {"read 4 KB of zeros", nanoseconds, readers_of_zeros(maps:get(zeros, Fixture), ?PAGE)},
        {"view 4 KB", nanoseconds, viewers(Fixture) ++ nothings()}]
    ++ [{"read 64 B, " ++ Name, {processes, Count}, Readers(64)}
        || {Name, Count} <- [{"1 process", 1}, {"2 processes", 2}, {"4 processes", 4}]]
    ++ [{"write " ++ Size, nanoseconds, writers(Fixture, Data)}
        || {Size, Data} <- [{"64 B", binary:copy(<<"w">>, 64)}, {"4 KB", binary:copy(<<"x">>, ?PAGE)},
                            {"16 x 256 B", segments()}]]
    ++ [{"write 16 x 256 B, not flattened", nanoseconds,
         [case Writer of
              #{name := floor} -> warmed(Writer#{call := fun floor:pwrite_segments/3}, binary:copy(<<"b">>, ?BLOCK));
              _ -> Writer
          end || #{name := Name} = Writer <- writers(Fixture, segments()), lists:member(Name, [iommap, floor])]}]
    ++ [{"read 64 B, not lately read", {first, ?FIRST}, Readers(64)},
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

readers(#{read := Path, handle := Handle, floor := Floor, view := View, tables := #{} = Tables}, Length) ->
    #{Length := Table} = Tables,
    Bytes = fun(Answer, Offset) -> Answer =:= bench_file:contents(Offset, Length) end,
    Answer = fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, Length)} end,
    Reader = #{argument => Length, mask => ?ANYWHERE(Length), expect => Answer},
    readers(Reader, Path, Handle, Floor)
    ++ [Reader#{name => part, open => fun() -> View end, call => fun binary:part/3, expect := Bytes},
        Reader#{name => ets, open => fun() -> Table end, call => fun ets:lookup_element/3, expect := Bytes,
                argument := 2}].

readers_of_zeros({Path, Handle, Floor}, Length) ->
    Zeros = <<0:Length/unit:8>>,
    readers(#{argument => Length, mask => ?ANYWHERE(Length), expect => fun(Answer, _) -> Answer =:= {ok, Zeros} end},
            Path, Handle, Floor).

readers(Reader, Path, Handle, Floor) ->
    [warmed(Reader#{name => iommap, open => fun() -> Handle end, call => fun iommap:pread/3}, ?BLOCK),
     warmed(Reader#{name => floor, open => fun() -> Floor end, call => fun floor:pread/3}, ?BLOCK),
     warmed(Reader#{name => file, open => fun() -> raw(Path, [read]) end, call => fun file:pread/3}, ?BLOCK)].

viewers(#{handle := Handle, floor := Floor, view := View}) ->
    Viewer = #{argument => ?PAGE, mask => ?ANYWHERE(?PAGE),
               expect => fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, ?PAGE)} end},
    [Viewer#{name => iommap, open => fun() -> Handle end, call => fun iommap:region_binary/3},
     Viewer#{name => floor, open => fun() -> Floor end, call => fun floor:region_binary/3},
     Viewer#{name => part, open => fun() -> View end, call => fun binary:part/3,
             expect := fun(Answer, Offset) -> Answer =:= bench_file:contents(Offset, ?PAGE) end}].

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
with_viewers(#{handle := Handle}) ->
    Viewer = #{argument => fun erlang:crc32/1, mask => ?ANYWHERE(?PAGE), open => fun() -> Handle end,
               expect => fun(Answer, Offset) -> Answer =:= {ok, erlang:crc32(bench_file:contents(Offset, ?PAGE))} end,
               warm => fun(Subject) -> [iommap:pread(Subject, Offset, ?BLOCK) || Offset <- lists:seq(0, ?SIZE - 1, ?BLOCK)] end},
    [Viewer#{name => iommap, call => fun(Subject, Offset, Fun) -> iommap:with_view(Subject, Offset, ?PAGE, Fun) end},
     Viewer#{name => other,
             call => fun(Subject, Offset, Fun) ->
                 {ok, View} = iommap:region_binary(Subject, Offset, ?PAGE),
                 Result = Fun(View),
                 true = iommap:intact(View),
                 {ok, Result}
             end}].

%% 64 B at random, by file:pread/3 of a device, of a raw file, and without the file module.
device_readers(#{read := Path, device := Device, handle := Handle}) ->
    Reader = #{argument => 64, mask => ?ANYWHERE(64),
               expect => fun(Answer, Offset) -> Answer =:= {ok, bench_file:contents(Offset, 64)} end},
    [warmed(Reader#{name => iommap, open => fun() -> Device end, call => fun file:pread/3}, ?BLOCK),
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
