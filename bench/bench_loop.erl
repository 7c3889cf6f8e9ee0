%% The one loop that drives every contender, so that no row owes its time to the shape of its loop. It throws the answers
%% away, as no program does; two others, for rows of their own, use the first word of each, and wait for it before they know the
%% next offset (`chained`).
%%
%% A contender is a fun of three arguments, `fun Module:Function/3`: a subject (a handle, a file, a table, a binary),
%% an offset, and whatever the third argument is for it (a length, the data). Offsets come from a congruential
%% generator of small integers; the mask gives them their range and their alignment. The contender `none` is the loop
%% without a call: what it takes is taken off the others.
-module(bench_loop).

-export([nanoseconds_per_call/2, nanoseconds_at_first/2, calls_per_second/3, calls_within/2, forever/2, answers/2]).
-export_type([contender/0]).

-type contender() :: #{
    name := atom(),
    open := fun(() -> Subject :: term()),
    warm => fun((Subject :: term()) -> term()),
    loop => calling | using | chained,
    call := none | fun((Subject :: term(), Offset :: non_neg_integer(), Argument :: term()) -> Answer :: term()),
    argument := term(),
    mask := non_neg_integer(),
    expect := fun((Answer :: term(), Offset :: non_neg_integer()) -> boolean())
}.

%% Time is taken in a fresh process, so that no contender inherits another's heap, when it is warm: after its own way of
%% warming up, and a quarter of the calls, so that none inherits another's cache. Processes are spread over the
%% schedulers by hand (an option of spawn_opt/2 that OTP does not document), so that no row depends on when the VM gets
%% around to it.
-spec nanoseconds_per_call(contender(), pos_integer()) -> float().
nanoseconds_per_call(Contender, Calls) ->
    [{Start, End}] = in_processes(1, Contender, Calls div 4, Calls),
    (End - Start) / Calls.

%% The same without getting warm.
-spec nanoseconds_at_first(contender(), pos_integer()) -> float().
nanoseconds_at_first(Contender, Calls) ->
    [{Start, End}] = in_processes(1, maps:remove(warm, Contender), 0, Calls),
    (End - Start) / Calls.

%% Several processes make the same number of calls each, at offsets of their own.
-spec calls_per_second(contender(), pos_integer(), pos_integer()) -> float().
calls_per_second(Contender, Processes, Calls) ->
    {Starts, Ends} = lists:unzip(in_processes(Processes, Contender, Calls div 4, Calls)),
    Processes * Calls * 1.0e9 / (lists:max(Ends) - lists:min(Starts)).

%% How many calls fit in a time.
-spec calls_within(contender(), Nanoseconds :: pos_integer()) -> pos_integer().
calls_within(Contender, Nanoseconds) ->
    calls_within(Contender, Nanoseconds, 4).

calls_within(Contender, Nanoseconds, Calls) ->
    Fits = fun(Each) -> Each * Calls * 8 < Nanoseconds end,
    First = nanoseconds_per_call(Contender, Calls),
    %% Once more, as who was interrupted here would be measured by a handful of calls from then on.
    Each = case Fits(First) of true -> First; false -> min(First, nanoseconds_per_call(Contender, Calls)) end,
    case Fits(Each) of
        true -> calls_within(Contender, Nanoseconds, Calls * 4);
        false -> max(1, round(Nanoseconds / max(1.0, Each)))
    end.

%% Makes calls until it is killed; `Warm` is called once what is remembered of calls like these is.
-spec forever(contender(), Warm :: fun(() -> term())) -> no_return().
forever(#{open := Open, call := Call, argument := Argument, mask := Mask} = Contender, Warm) ->
    Subject = Open(),
    Seed = calling_loop(20_000, Call, Subject, Argument, Mask, seed()),
    _ = Warm(),
    _ = calling_loop(1 bsl 28, Call, Subject, Argument, Mask, Seed),
    forever(Contender, fun() -> ok end).

%% Whether the first calls answer what they should. In a process of its own, with which its views go.
-spec answers(contender(), pos_integer()) -> boolean().
answers(#{call := none}, _Calls) ->
    true;
answers(Contender, Calls) ->
    {_, Monitor} = spawn_monitor(fun() -> exit({right, are_right(Contender, Calls)}) end),
    receive {'DOWN', Monitor, _, _, {right, Right}} -> Right; {'DOWN', Monitor, _, _, Why} -> error(Why) end.

are_right(#{open := Open, call := Call, argument := Argument, mask := Mask, expect := Expect}, Calls) ->
    Subject = Open(),
    lists:all(
        fun(Offset) -> Expect(Call(Subject, Offset, Argument), Offset) end,
        offsets(Calls, Mask, seed())
    ).

in_processes(Count, Contender, Before, Calls) ->
    warm(Contender),
    Parent = self(),
    Schedulers = erlang:system_info(schedulers_online),
    Workers = [spawn_opt(fun() -> work(Parent, Contender, Before, Calls) end, [monitor, {scheduler, 1 + N rem Schedulers}])
               || N <- lists:seq(1, Count)],
    [receive {Worker, ready} -> ok; {'DOWN', Monitor, _, _, Why} -> error(Why) end || {Worker, Monitor} <- Workers],
    [Worker ! go || {Worker, _} <- Workers],
    [receive {'DOWN', Monitor, _, _, Why} -> {timed, Start, End} = Why, {Start, End} end || {_, Monitor} <- Workers].

%% In a process of its own: it makes a heap that is used to long binaries, and those who are measured should not have it.
warm(#{warm := Warm, open := Open}) ->
    {_, Monitor} = spawn_monitor(fun() -> Warm(Open()) end),
    receive {'DOWN', Monitor, _, _, Why} -> normal = Why end;
warm(#{}) ->
    ok.

-spec work(pid(), contender(), non_neg_integer(), pos_integer()) -> no_return().
work(Parent, #{open := Open, call := Call, argument := Argument, mask := Mask} = Contender, Before, Calls) ->
    Subject = Open(),
    Loop = maps:get(loop, Contender, calling),
    Seed = loop(Loop, Before, Call, Subject, Argument, Mask, seed()),
    Parent ! {self(), ready},
    receive go -> ok end,
    Start = erlang:monotonic_time(nanosecond),
    _ = loop(Loop, Calls, Call, Subject, Argument, Mask, Seed),
    End = erlang:monotonic_time(nanosecond),
    exit({timed, Start, End}).

-define(OFFSET(Seed, Mask), ((Seed) bsr 4) band (Mask)).
-define(NEXT(Seed), ((Seed) * 69069 + 12345) band 16#3FFFFFFF).

loop(_, Calls, none, _Subject, _Argument, Mask, Seed) ->
    bare_loop(Calls, Mask, 0, Seed);
loop(calling, Calls, Call, Subject, Argument, Mask, Seed) ->
    calling_loop(Calls, Call, Subject, Argument, Mask, Seed);
loop(using, Calls, Call, Subject, Argument, Mask, Seed) ->
    using_loop(Calls, Call, Subject, Argument, Mask, Seed, 0);
loop(chained, Calls, Call, Subject, Argument, Mask, Seed) ->
    chained_loop(Calls, Call, Subject, Argument, Mask, Seed).

calling_loop(0, _Call, _Subject, _Argument, _Mask, Seed) ->
    Seed;
calling_loop(Calls, Call, Subject, Argument, Mask, Seed) ->
    _ = Call(Subject, ?OFFSET(Seed, Mask), Argument),
    calling_loop(Calls - 1, Call, Subject, Argument, Mask, ?NEXT(Seed)).

using_loop(0, _Call, _Subject, _Argument, _Mask, Seed, Words) ->
    true = is_integer(Words),
    Seed;
using_loop(Calls, Call, Subject, Argument, Mask, Seed, Words) ->
    Word = word(Call(Subject, ?OFFSET(Seed, Mask), Argument)),
    using_loop(Calls - 1, Call, Subject, Argument, Mask, ?NEXT(Seed), Words bxor Word).

%% Every line begins with its own offset: so the next one comes out as in the other loops, but only when the bytes are there.
chained_loop(0, _Call, _Subject, _Argument, _Mask, Seed) ->
    Seed;
chained_loop(Calls, Call, Subject, Argument, Mask, Seed) ->
    Offset = ?OFFSET(Seed, Mask),
    Word = word(Call(Subject, Offset, Argument)),
    chained_loop(Calls - 1, Call, Subject, Argument, Mask, ?NEXT(Seed + Word - Offset)).

word({ok, <<Word:64, _/binary>>}) -> Word;
word(<<Word:64, _/binary>>) -> Word.

bare_loop(0, _Mask, _Offset, Seed) ->
    Seed;
bare_loop(Calls, Mask, _Offset, Seed) ->
    bare_loop(Calls - 1, Mask, ?OFFSET(Seed, Mask), ?NEXT(Seed)).

offsets(0, _Mask, _Seed) -> [];
offsets(Calls, Mask, Seed) -> [?OFFSET(Seed, Mask) | offsets(Calls - 1, Mask, ?NEXT(Seed))].

%% Where in the generator's cycle of 2^30 a process begins: elsewhere each time, or a sample would find its lines cached.
seed() ->
    rand:uniform(1 bsl 30) - 1.
