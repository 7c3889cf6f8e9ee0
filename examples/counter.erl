%% A counter that many processes of many VMs and Python programs share, and that outlives them all.
%%
%% Shows: words of a mapped file that several OS processes change (iommap_atomics). Each VM adds to word 0, as many VMs and
%% processes as there are. A program that cannot add atomically, as Python, has a word of its own that nobody else changes
%% (counter.py). The sum of all words is the count: each is read whole, so it never goes down while all only add.
%%
%% Does not: give a snapshot (what is added while the words are read may be counted or not), outlive a crash of the machine
%% without iommap:sync/1, or work for machines of different byte orders.
%%
%%     export ERL_LIBS=_build/default/lib
%%     escript examples/counter.erl FILE add TIMES     # from any number of VMs
%%     python3 examples/counter.py FILE add TIMES SLOT # beside them
%%     escript examples/counter.erl FILE               # prints the count
-module(counter).
-mode(compile).

-export([main/1]).
-export([open/1, add/2, count/1]).

-define(SLOTS, 64).
-define(SLOT_WORDS, 8). % a cache line each, so that those who count do not wait for each other

main([Path, "add", Times]) ->
    add_times(open(Path), list_to_integer(Times));
main([Path]) ->
    io:format("~b~n", [count(open(Path))]);
main(_) ->
    io:format(standard_error, "usage: counter.erl FILE [add TIMES]~n", []),
    halt(2).

add_times(_, 0) -> ok;
add_times(Counter, Times) -> ok = add(Counter, 1), add_times(Counter, Times - 1).

%% The file is made if there is none: no other process ever sees it shorter.
open(Path) ->
    {ok, Handle} = iommap:open(Path, read_write, [create, {size, 8 * ?SLOT_WORDS * ?SLOTS}]),
    iommap_atomics:new(Handle, 0, ?SLOT_WORDS * ?SLOTS, [{signed, false}]).

add(Counter, Increment) ->
    iommap_atomics:add(Counter, word(0), Increment).

count(Counter) ->
    lists:sum([iommap_atomics:get(Counter, word(Slot)) || Slot <- lists:seq(0, ?SLOTS - 1)]).

word(Slot) ->
    1 + ?SLOT_WORDS * Slot.
