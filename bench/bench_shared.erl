%% Readers and writers of one handle: one that writes beside three that read, all at full speed, and processes that each make a
%% hundred reads for every write. All calls are of 64 B, anywhere in the file. Runs inside a VM of its own.
-module(bench_shared).

-export([cases/0, run/1]).

-define(SIZE, (1 bsl 26)).
-define(LENGTH, 64).
-define(BLOCK, (1 bsl 20)).
-define(READERS, 3).

%% Calls between two looks at the clock.
-define(READS, 256).
-define(WRITES, 16).

-spec cases() -> [{string(), calls_per_second}].
cases() ->
    [{Case, calls_per_second} || Case <- ["write 64 B, beside 3 that read", "read 64 B, 3 processes, beside one that writes",
                                          "100 reads for each write, 4 processes", "100 reads for each write, 32 processes"]].

%% Calls a second of all processes that make them, a value for each round.
-spec run(#{directory := file:filename(), scene_rounds := pos_integer(), shared_time := pos_integer(), _ => _}) ->
    [{{Case :: string(), Contender :: atom()}, [float()]}].
run(#{directory := Directory, scene_rounds := Rounds, shared_time := Time}) ->
    Contenders = contenders(filename:join(Directory, "shared-" ++ os:getpid())),
    Results = lists:append([one_round(Contenders, Time) || _ <- lists:seq(1, Rounds)]),
    [{Key, proplists:get_all_values(Key, Results)} || Key <- lists:usort([Key || {Key, _} <- Results])].

%% A contender is how it reads, how it writes, and how it uses all of the file once.
contenders(Path) ->
    ok = bench_file:make(Path, ?SIZE),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {ok, Floor} = floor:open(Path, write),
    Table = ets:new(table, [public, {read_concurrency, true}]),
    [ets:insert(Table, {Offset, bench_file:contents(Offset, ?LENGTH)}) || Offset <- lists:seq(0, ?SIZE - 1, ?LENGTH)],
    Data = binary:copy(<<"s">>, ?LENGTH),
    [{Module,
      fun() -> Subject = Open(), fun(Offset) -> {ok, _} = Module:pread(Subject, Offset, ?LENGTH) end end,
      fun() -> Subject = Open(), fun(Offset) -> ok = Module:pwrite(Subject, Offset, Data) end end,
      fun() ->
          Subject = Open(),
          [ok = Module:pwrite(Subject, Offset, element(2, Module:pread(Subject, Offset, ?BLOCK)))
           || Offset <- lists:seq(0, ?SIZE - 1, ?BLOCK)]
      end}
     || {Module, Open} <- [{iommap, fun() -> Handle end}, {floor, fun() -> Floor end},
                           {file, fun() -> element(2, {ok, _} = file:open(Path, [read, write, raw, binary])) end}]]
    ++ [{ets,
         fun() -> fun(Offset) -> <<_:?LENGTH/binary>> = ets:lookup_element(Table, Offset, 2) end end,
         fun() -> fun(Offset) -> true = ets:update_element(Table, Offset, {2, Data}) end end,
         fun() -> ok end}].

%% The floor's readers are measured beside a writer that spends all of its turns as the others' do, but writes only as often as
%% iommap's did.
one_round(Contenders, Time) ->
    [Beside, Reads, Mixed, Crowd] = [Case || {Case, _} <- cases()],
    All = [{Contender, beside(Each, unlimited, Time)} || {Contender, _, _, _} = Each <- bench_hot:shuffle(Contenders)],
    {AsOften, _} = proplists:get_value(iommap, All),
    {_, FloorsReads} = beside(lists:keyfind(floor, 1, Contenders), AsOften, Time),
    [{{Beside, Contender}, Writes} || {Contender, {Writes, _}} <- All]
    ++ [{{Reads, Contender}, Rate} || {Contender, {_, Rate}} <- lists:keystore(floor, 1, All, {floor, {AsOften, FloorsReads}})]
    ++ [{{Case, Contender}, mixed(Each, Count, Time)}
        || {Case, Count} <- [{Mixed, 4}, {Crowd, 32}], {Contender, _, _, _} = Each <- bench_hot:shuffle(Contenders)].

beside({_, Read, Write, Warm}, Limit, Time) ->
    Warm(),
    [Writes | Reads] = at_once(
        [fun(Until) -> writing(Write(), Limit, Until) end
         | lists:duplicate(?READERS, fun(Until) -> reading(Read(), Until) end)], Time),
    {Writes, lists:sum(Reads)}.

mixed({_, Read, Write, Warm}, Count, Time) ->
    Warm(),
    lists:sum(at_once(lists:duplicate(Count, fun(Until) -> mixing(Read(), Write(), Until) end), Time)).

%% Calls a second of each, in processes of their own that take turns on the schedulers.
at_once(Works, Milliseconds) ->
    Schedulers = erlang:system_info(schedulers_online),
    Workers = [spawn_opt(fun() ->
                   receive go -> ok end,
                   Begun = now_ns(),
                   Calls = Work(Begun + Milliseconds * 1_000_000),
                   exit({rate, Calls * 1.0e9 / (now_ns() - Begun)})
               end, [monitor, {scheduler, 1 + N rem Schedulers}])
               || {N, Work} <- lists:zip(lists:seq(1, length(Works)), Works)],
    [Worker ! go || {Worker, _} <- Workers],
    [receive {'DOWN', Monitor, _, _, Why} -> {rate, Rate} = Why, Rate end || {_, Monitor} <- Workers].

reading(Read, Until) ->
    until(Until, ?READS, fun(Seed) -> calls(?READS, Read, Seed) end).

writing(Write, unlimited, Until) ->
    until(Until, ?WRITES, fun(Seed) -> calls(?WRITES, Write, Seed) end);
writing(Write, Rate, Until) ->
    Begun = now_ns(),
    limited(Write, Rate, Begun, now_ns(), Until, 0, seed()).

limited(_Write, _Rate, _Begun, Now, Until, Writes, _Seed) when Now >= Until ->
    Writes;
limited(Write, Rate, Begun, Now, Until, Writes, Seed) when Writes * 1.0e9 < Rate * (Now - Begun) ->
    limited(Write, Rate, Begun, now_ns(), Until, Writes + 1, calls(1, Write, Seed));
limited(Write, Rate, Begun, _Now, Until, Writes, Seed) ->
    limited(Write, Rate, Begun, now_ns(), Until, Writes, Seed).

mixing(Read, Write, Until) ->
    until(Until, 101, fun(Seed) -> calls(1, Write, calls(100, Read, Seed)) end).

until(Until, Calls, Work) ->
    until(Until, Calls, Work, seed(), 0).

until(Until, Calls, Work, Seed, Times) ->
    case now_ns() < Until of
        true -> until(Until, Calls, Work, Work(Seed), Times + 1);
        false -> Calls * Times
    end.

calls(0, _Call, Seed) ->
    Seed;
calls(Count, Call, Seed) ->
    _ = Call((Seed bsr 4) band (?SIZE - ?LENGTH)),
    calls(Count - 1, Call, (Seed * 69069 + 12345) band 16#3FFFFFFF).

seed() ->
    rand:uniform(1 bsl 30) - 1.

now_ns() ->
    erlang:monotonic_time(nanosecond).
