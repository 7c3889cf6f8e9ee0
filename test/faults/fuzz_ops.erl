%% Random operations, the same for the same seed. Their places are said by what matters (the end, a page, a part of it), so
%% that what is left of a run when some are taken out still means something.
-module(fuzz_ops).

-export([generate/2]).
-export([resolve/3]).

-export_type([op/0, place/0]).

-type place() ::
    {start, non_neg_integer()}
    | {page, non_neg_integer(), integer()}
    | {'end' | eof, integer()}
    | {part, 0..1000}
    | {far, pos_integer()}.

-type slot() :: 1..3.
-type name() :: string().
-type source() :: name() | {fd, Of :: slot()} | anonymous.

-type op() ::
    {open, slot(), source(), iommap:mode(), [atom() | {size | offset | length | reserve, place()}]}
    | {close | forget | remap | position | info, slot()}
    | {pread | region | with_view | resident | lock | unlock, slot(), place(), place()}
    | {pwrite, slot(), place(), data()}
    | {pread, slot(), [{place(), place()}]}
    | {pwrite, slot(), [{place(), data()}]}
    | {sync, slot(), sync | async}
    | {sync, slot(), place(), place(), sync | async}
    | {truncate | ensure_size, slot(), place()}
    | {atomic, slot(), place(), Misaligned :: 0..7, get | {put | add, integer()}}
    | list
    | {read_file, name()}
    | {open_device, slot(), name()}
    | {device_from, slot(), Of :: slot()}
    | {device, slot(), device_call()}
    | {advise, slot(), place(), place(), atom()}
    | {look | drop, non_neg_integer()}
    | {resize, name(), place()}
    | {append, name(), pos_integer(), byte()}
    | {fill, name(), place(), place(), byte()}
    | {punch | collapse | hold, name(), place(), place()}
    | {replace, name(), place()}
    | {clone, name(), name()}
    | {unlink, name()}.

-type device_call() ::
    {pread, place(), place()}
    | {pwrite, place(), place(), byte()}
    | {read, place()}
    | {write, place(), byte()}
    | {position, bof | cur | eof, integer()}
    | read_line | truncate | datasync.

-type data() :: {binary | bytes | segments | sub_binary | part_of_a_byte, byte(), place()} | {view, non_neg_integer(), 0..1000, 0..1000}.

-define(FAR, [16#7FFFFFFFFFFFFFFF, 16#8000000000000000, 16#FFFFFFFFFFFFFFFF]).
-define(HINTS, [normal, random, sequential, willneed, dontneed, cold, pageout, dontdump, dodump, dontfork, dofork,
                hugepage, nohugepage, collapse, populate_read, populate_write]).

%% Each case has some kinds of operation often and others not at all (swarm testing: Groce and others, ISSTA 2012).
-spec generate(Seed :: integer(), Count :: pos_integer()) -> [op()].
generate(Seed, Count) ->
    _ = rand:seed(exsss, Seed),
    Pages = one([1, 2, 3, 5, 12, 600]),
    {Slots, Names} = {one([1, 1, 2, 3]), one([["a"], ["a"], ["a", "b"], ["a", "b", "c"]])},
    Open = opener(Names, Pages, one([0, 0, 3, 9]), one([0, 0, 3, 9])),
    Weighted = [{Weight * one([0, 1, 1, 4]), Make} || {Weight, Make} <- ops(Slots, Names, Pages, Open)],
    [{replace, Name, file_size(Pages)} || Name <- Names]
        ++ [Open(Slot) || Slot <- lists:seq(1, Slots)]
        ++ [pick([{1, fun() -> Open(1) end} | Weighted]) || _ <- lists:seq(1, Count)].

ops(Slots, Names, Pages, Open) ->
    Slot = fun() -> rand:uniform(Slots) end,
    Name = fun() -> one(Names) end,
    [
        {14, fun() -> {pread, Slot(), place(), place()} end},
        {14, fun() -> {pwrite, Slot(), place(), data()} end},
        {5, fun() -> {pread, Slot(), several(fun() -> {place(), place()} end)} end},
        {5, fun() -> {pwrite, Slot(), several(fun() -> {place(), data()} end)} end},
        {8, fun() -> {region, Slot(), place(), place()} end},
        {12, fun() -> {look, rand:uniform(100)} end},
        {2, fun() -> {drop, rand:uniform(100)} end},
        {4, fun() -> {with_view, Slot(), place(), place()} end},
        {4, fun() -> {atomic, Slot(), place(), one([0, 0, 0, 0, 0, 0, 0, rand:uniform(7)]), word_op()} end},
        {3, fun() -> Open(Slot()) end},
        {1, fun() -> {close, Slot()} end},
        {1, fun() -> {forget, Slot()} end},
        {6, fun() -> {truncate, Slot(), file_size(Pages)} end},
        {7, fun() -> {remap, Slot()} end},
        {4, fun() -> {ensure_size, Slot(), file_size(Pages)} end},
        {2, fun() -> {sync, Slot(), one([sync, async])} end},
        {2, fun() -> {sync, Slot(), place(), place(), one([sync, async])} end},
        {2, fun() -> {resident, Slot(), place(), place()} end},
        {2, fun() -> {lock, Slot(), place(), place()} end},
        {1, fun() -> {unlock, Slot(), place(), place()} end},
        {1, fun() -> list end},
        {1, fun() -> {read_file, Name()} end},
        {2, fun() -> {open_device, Slot(), Name()} end},
        {2, fun() -> {device_from, Slot(), Slot()} end},
        {12, fun() -> {device, Slot(), device_call()} end},
        {3, fun() -> {advise, Slot(), place(), place(), one(?HINTS)} end},
        {1, fun() -> {position, Slot()} end},
        {2, fun() -> {info, Slot()} end},
        {8, fun() -> {resize, Name(), file_size(Pages)} end},
        {5, fun() -> {append, Name(), one([1, 50, 4096, 5000, rand:uniform(20_000)]), byte()} end},
        {4, fun() -> {fill, Name(), place(), place(), byte()} end},
        {2, fun() -> {punch, Name(), place(), place()} end},
        {2, fun() -> {collapse, Name(), {page, rand:uniform(4) - 1, 0}, {page, rand:uniform(3), 0}} end},
        {2, fun() -> {hold, Name(), place(), place()} end},
        {1, fun() -> {replace, Name(), file_size(Pages)} end},
        {1, fun() -> {clone, Name(), Name()} end},
        {1, fun() -> {unlink, Name()} end}
    ].

several(Make) ->
    [Make() || _ <- lists:seq(1, one([0, 1, 2, 2, 3, 5, 20]))].

%% So many tenths of the handles are of windows, and so many follow.
opener(Names, Pages, Windows, Follow) ->
    fun(Slot) ->
        Mode = one([read, write, read_write, read_write, read_write]),
        Source = pick([{8, fun() -> one(Names) end}, {1, fun() -> {fd, rand:uniform(3)} end}, {1, fun() -> anonymous end}]),
        {open, Slot, Source, Mode, options(Pages) ++ window(Windows) ++ [follow || rand:uniform(10) =< Follow]}
    end.

options(Pages) ->
    Likely = [{3, private}, {1, shared}, {1, lock}, {1, populate}, {3, create}, {1, truncate}],
    Flags = [Option || {Tenths, Option} <- Likely, rand:uniform(10) =< Tenths],
    Sizes = [{size, file_size(Pages)} || rand:uniform(10) =< 4],
    Reserves = [{reserve, one([{start, 0}, {page, 100, 0}, {far, one(?FAR)}])} || rand:uniform(10) =< 2],
    Flags ++ Sizes ++ Reserves.

window(Tenths) ->
    case rand:uniform(10) =< Tenths of
        true -> lists:nth(rand:uniform(3), [[{offset, place()}], [{length, place()}], [{offset, place()}, {length, place()}]]);
        false -> []
    end.

word_op() ->
    pick([
        {2, fun() -> get end},
        {2, fun() -> {put, rand:uniform(1 bsl 32)} end},
        {2, fun() -> {add, one([1, -1, 255, 1 bsl 62])} end}
    ]).

device_call() ->
    pick([
        {4, fun() -> {pread, place(), place()} end},
        {4, fun() -> {pwrite, place(), place(), byte()} end},
        {2, fun() -> {read, place()} end},
        {2, fun() -> {write, place(), byte()} end},
        {2, fun() -> {position, one([bof, cur, eof]), one([-5000, -1, 0, 1, 100, 4096, rand:uniform(20_000)])} end},
        {1, fun() -> read_line end},
        {1, fun() -> truncate end},
        {1, fun() -> datasync end}
    ]).

byte() -> rand:uniform(255).

%% The edges, anything between them, and far beyond.
place() ->
    pick([
        {2, fun() -> {start, rand:uniform(2) - 1} end},
        {3, fun() -> {page, rand:uniform(3), rand:uniform(3) - 2} end},
        {3, fun() -> {'end', rand:uniform(3) - 2} end},
        {3, fun() -> {eof, one([-1, 0, 1, 100, -100, 4096])} end},
        {6, fun() -> {part, rand:uniform(1001) - 1} end},
        {1, fun() -> {far, one(?FAR)} end}
    ]).

file_size(Pages) ->
    pick([
        {1, fun() -> {start, one([0, 1, 2, 100])} end},
        {4, fun() -> {page, rand:uniform(Pages), rand:uniform(3) - 2} end},
        {3, fun() -> {page, rand:uniform(Pages) - 1, rand:uniform(4095)} end},
        {3, fun() -> {eof, one([-5000, -4096, -100, -1, 0, 1, 10, 4096, 5000])} end},
        {1, fun() -> {part, rand:uniform(1000)} end}
    ]).

data() ->
    case rand:uniform(4) of
        1 -> {view, rand:uniform(100), rand:uniform(1001) - 1, rand:uniform(1001) - 1};
        _ -> {one([binary, bytes, segments, sub_binary, part_of_a_byte]), byte(), place()}
    end.

one(List) -> lists:nth(rand:uniform(length(List)), List).

pick(Weighted) ->
    pick(rand:uniform(lists:sum([Weight || {Weight, _} <- Weighted])), Weighted).

pick(N, [{Weight, _} | Rest]) when N > Weight -> pick(N - Weight, Rest);
pick(_, [{_, Make} | _]) -> Make().

%% The number that a place is, where a mapping and its file end there.
-spec resolve(place(), End :: non_neg_integer(), Eof :: non_neg_integer()) -> non_neg_integer().
resolve({start, Distance}, _, _) -> Distance;
resolve({page, Page, Distance}, _, _) -> max(0, Page * test_pattern:page() + Distance);
resolve({'end', Distance}, End, _) -> max(0, End + Distance);
resolve({eof, Distance}, _, Eof) -> max(0, Eof + Distance);
resolve({part, Thousandths}, End, _) -> End * Thousandths div 1000;
resolve({far, Distance}, _, _) -> Distance.
