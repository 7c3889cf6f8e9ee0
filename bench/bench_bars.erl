%% The bars: which ratios are wanted, and whether they were met. A bar that is missed fails nothing; answers do.
-module(bench_bars).

-export([hot/2, instructions/1, batches/2, delay/3, long_schedules/1, table/1]).
-export([milliseconds/1]).
-export_type([bar/0]).

-type bar() :: {Name :: unicode:chardata(), Measured :: unicode:chardata(), Wanted :: unicode:chardata(), Met :: boolean()}.

-define(UNCHANGED, 1.10).

%% Of(Vm, Case, Contender) are the results of the rounds; of all rows that have a floor there is how much slower than it they are.
-spec hot(fun((atom(), string(), atom()) -> [float()]), [{Case :: string(), Quartiles :: {float(), float(), float()}}]) -> [bar()].
hot(Of, Slower) ->
    Busy = fun(Case, Contender) -> Of(busy_wait, Case, Contender) end,
    Idle = fun(Case, Contender) -> Of(no_busy_wait, Case, Contender) end,
    ToFloor = fun(Case, Limit) ->
        at_most(["random ", Case, ": iommap / floor"], Limit, Busy(Case, iommap), Busy(Case, floor))
    end,
    [ToFloor("read 8 B", 1.10),
     ToFloor("read 64 B", 1.10),
     ToFloor("read 4 KB", 0.95),
     ToFloor("read 64 KB", 1.05),
     ToFloor("read 1 MB", 1.05),
     at_least("random read 64 B: file:pread / iommap", 8, Busy("read 64 B", file), Busy("read 64 B", iommap)),
     at_least("random read 4 KB: file:pread / iommap", 6, Busy("read 4 KB", file), Busy("read 4 KB", iommap)),
     unchanged(Busy, Idle),
     at_least("random read 64 B without busy waiting: file:pread / iommap", 100,
              Idle("read 64 B", file), Idle("read 64 B", iommap)),
     at_most("read 8 B, same page: iommap / floor", 1.25,
             Busy("read 8 B, same page", iommap), Busy("read 8 B, same page", floor)),
     at_most("read 8 B of zeros: iommap / floor", 4.0, Busy("read 8 B of zeros", iommap), Busy("read 8 B of zeros", floor)),
     at_most("read 4 KB of zeros: iommap / floor", 2.2, Busy("read 4 KB of zeros", iommap), Busy("read 4 KB of zeros", floor)),
     at_most("view 4 KB: iommap / a NIF that does nothing", 4.5, Busy("view 4 KB", iommap), Busy("view 4 KB", nif)),
     at_most("write 64 B: iommap / floor", 1.5, Busy("write 64 B", iommap), Busy("write 64 B", floor)),
     at_most("write of 16 x 256 B: iommap / gathered by the VM (floor)", 1.3,
             Busy("write 16 x 256 B", iommap), Busy("write 16 x 256 B", floor)),
     at_most("write of 16 x 256 B, while there is a view: iommap / floor", 1.5,
             Busy("write 16 x 256 B, while there is a view", iommap), Busy("write 16 x 256 B, while there is a view", floor)),
     at_least("read of 64 x 64 B: 64 calls of pread/3 / pread/2", 2, Busy("read 64 x 64 B", other), Busy("read 64 x 64 B", iommap)),
     at_most("read of 64 x 64 B: iommap / floor", 1.25, Busy("read 64 x 64 B", iommap), Busy("read 64 x 64 B", floor)),
     at_most("grow by 4 KB: iommap / floor", 1.5, Busy("grow by 4 KB", iommap), Busy("grow by 4 KB", floor)),
     at_most("atomics add: iommap / OTP", 3, Busy("atomics add", iommap), Busy("atomics add", other)),
     at_most("atomics get: iommap / OTP", 3, Busy("atomics get", iommap), Busy("atomics get", other)),
     at_most_more("with_view 4 KB: ns more than by hand", 60, Busy("with_view 4 KB", iommap), Busy("with_view 4 KB", other)),
     at_most("read 64 B through a device: iommap_file / iommap:pread", 1.3, Busy("device read 64 B", iommap),
             Busy("device read 64 B", other)),
     at_least("read_line through a device: file with read_ahead / iommap_file", 1, Busy("device read_line", file),
              Busy("device read_line", iommap)),
     at_least("append 64 B: file:write / iommap", 5, Busy("append 64 B", file), Busy("append 64 B", iommap)),
     at_most("append 64 B: iommap / file:write with delayed_write", 1.5, Busy("append 64 B", iommap), Busy("append 64 B", other)),
     at_least("64 B reads of one handle a second: 4 processes / 1", 1.8,
              Busy("read 64 B, 4 processes", iommap), Busy("read 64 B, 1 process", iommap))]
    ++ [at_most([Row, Title, ": iommap / floor"], Limit, Of(Vm, Row, iommap), Of(Vm, Row, floor))
        || {Row, Limits} <- [{"write 64 B to each page, again after 2 s, disk", [1.25, 1.4]},
                             {"write 64 B to each page, again after 2 s, tmpfs", [1.15, 1.15]}],
           {{Vm, Title}, Limit} <- lists:zip([{busy_wait, ""}, {no_busy_wait, ", without busy waiting"}], Limits)]
    ++ shared(Busy)
    ++ [at_most("open and close 4 KB: iommap / floor", 0.8,
                Busy("open and close 4 KB", iommap), Busy("open and close 4 KB", floor)),
        unguarded(Slower)].

shared(Busy) ->
    Writes = bench_report:median(Busy("write 64 B, beside 3 that read", iommap)),
    Reads = "read 64 B, 3 processes, beside one that writes",
    [{"writes of 64 B a second, beside three that read the handle", bench_report:number(Writes), "≥ 100,000", Writes >= 100_000},
     at_least("reads of 64 B a second beside that writer: iommap / floor", 0.8, Busy(Reads, iommap), Busy(Reads, floor))].

%% The row that loses most against a library that has no guard and no lock. Zeros, which such a library believes, and a writer
%% beside readers, whom it does not exclude, have bars of their own.
unguarded(Slower) ->
    Apart = fun(Row) -> string:find(Row, "zeros") =/= nomatch orelse string:find(Row, ", beside ") =/= nomatch end,
    {_, {_, Ratio, _} = Ratios, Row} =
        lists:max([{Median, All, Row} || {Row, {_, Median, _} = All} <- Slower, not Apart(Row)]),
    {["all other rows: iommap / floor (most: ", Row, ")"], measured(Ratios), limit("≤", 1.3), Ratio =< 1.3}.

%% How far a call's load is from what the next call loads, where that was counted.
-spec instructions([bench_count:count()]) -> [bar()].
instructions(Counts) ->
    [at_most("read 8 B, instructions from the load to the next prefetch: iommap / floor", 0.85, [Iommap], [Floor])
     || {"read 8 B", iommap, {_, Iommap}} <- Counts, {"read 8 B", floor, {_, Floor}} <- Counts, Iommap > 0, Floor > 0].

%% What many cold ranges take in one call, beside one.
-spec batches(Many :: [number()], One :: [number()]) -> [bar()].
batches(Many, One) ->
    [at_most("64 cold ranges in one call / one, slow device", 4, Many, One)].

%% The row that changes most when the schedulers do not wait busily.
unchanged(Busy, Idle) ->
    Rows = ["read 8 B", "read 64 B", "read 4 KB", "read 64 KB", "read 1 MB", "read 8 B, same page", "view 4 KB",
            "write 64 B", "write 4 KB", "write 16 x 256 B"],
    {{_, Ratio, _} = Ratios, Row} =
        lists:last(lists:keysort(1, [{bench_report:ratio(Idle(Row, iommap), Busy(Row, iommap)), Row} || Row <- Rows])),
    {["iommap, hot rows: without / with busy waiting (most: ", Row, ")"], measured(Ratios), limit("≤", ?UNCHANGED),
     Ratio =< ?UNCHANGED}.

at_most(Name, Limit, Over, Under) ->
    {_, Ratio, _} = Ratios = bench_report:ratio(Over, Under),
    {Name, measured(Ratios), limit("≤", Limit), Ratio =< Limit}.

at_least(Name, Limit, Over, Under) ->
    {_, Ratio, _} = Ratios = bench_report:ratio(Over, Under),
    {Name, measured(Ratios), limit("≥", Limit), Ratio >= Limit}.

at_most_more(Name, Limit, Over, Under) ->
    More = bench_report:median(lists:zipwith(fun(A, B) -> A - B end, Over, Under)),
    {Name, bench_report:number(More), ["≤ ", integer_to_list(Limit)], More =< Limit}.

measured({Low, Ratio, High}) ->
    [bench_report:times(Ratio), " (", bench_report:times(Low), " to ", bench_report:times(High), ")"].

limit(Sign, Limit) ->
    [Sign, " ", if is_float(Limit) -> bench_report:times(Limit); true -> integer_to_list(Limit) end, "×"].

%% The medians over the rounds of the worst delay of other processes, and of what is left of it when waits for a core are
%% taken off.
-spec delay(What :: unicode:chardata(), Worst :: [integer()], Own :: [integer()]) -> bar().
delay(What, Worst, Own) ->
    Median = bench_report:median(Worst),
    {["worst delay of others during ", What],
     [milliseconds(Median), " (", milliseconds(bench_report:median(Own)), " less waits for a core)"], "< 2 ms", Median < 2.0e6}.

-spec milliseconds(Nanoseconds :: number()) -> unicode:chardata().
milliseconds(Time) ->
    io_lib:format("~.2f ms", [Time / 1.0e6]).

%% The library may be reported where the floor is reported too.
-spec long_schedules([{Case :: atom(), Iommap :: [non_neg_integer()], Floor :: [non_neg_integer()]}]) -> [bar()].
long_schedules(Counts) ->
    [{io_lib:format("long schedules, ~s", [Case]),
      io_lib:format("~b (floor ~b)", [trunc(bench_report:median(Iommap)), trunc(bench_report:median(Floor))]),
      "0, or the floor's",
      trunc(bench_report:median(Iommap)) =< trunc(bench_report:median(Floor))}
     || {Case, Iommap, Floor} <- Counts].

-spec table([bar()]) -> unicode:chardata().
table(Bars) ->
    bench_report:table(["bar", "measured", "wanted", "met"],
        [[Name, Measured, Wanted, if Met -> "yes"; true -> "NO" end] || {Name, Measured, Wanted, Met} <- Bars]).
