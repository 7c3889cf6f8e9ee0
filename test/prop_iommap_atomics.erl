%% Every function of iommap_atomics against the same of OTP's `atomics': the oracle. It has no band, bor and bxor; what these are of is
%% Erlang's operators on the words of the oracle.
-module(prop_iommap_atomics).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_any_call_is_what_atomics_does/0]).
-export([prop_a_run_of_calls_is_what_atomics_does/0]).
-export([prop_no_update_is_lost/0]).
-export([prop_new_takes_the_options_that_atomics_takes/0]).

-import(test_files, [with_mapping/2]).
-import(test_pattern, [zeros/1]).
-import(test_property, [holds/1]).

-define(WORDS, 3).
-define(EDGES, [0, 1, -1, 1 bsl 59, -(1 bsl 59) - 1, 1 bsl 62, 1 bsl 63 - 1, 1 bsl 63, 1 bsl 63 + 1, -(1 bsl 63), -(1 bsl 63) - 1,
                1 bsl 64 - 1, 1 bsl 64, -(1 bsl 64) + 1, -(1 bsl 64), 1 bsl 100]).

prop_any_call_is_what_atomics_does() ->
    %% A single call on any word gives, raises and leaves what it does on an array of OTP.
    numtests(1000,
        ?FORALL({Signed, Word, Call}, {boolean(), word(), call()},
            agree(Signed, [{put, [1, Word]}, {put, [2, Word]}, {put, [3, Word]}, Call]))).

prop_a_run_of_calls_is_what_atomics_does() ->
    %% So do any calls one after another, also when the mapping is resized, remapped and synced between them.
    ?FORALL({Signed, Calls}, {boolean(), list(frequency([{9, call()}, {1, oneof([truncate, remap, sync])}]))},
        agree(Signed, Calls)).

prop_no_update_is_lost() ->
    %% Whatever several processes add to a word at the same time, however often: it holds the sum.
    ?FORALL(Adds, ?LET(Count, range(2, 4), vector(Count, {oneof([add, add_get, sub, sub_get]), range(-1000, 1000)})),
        with_mapping(zeros(8), fun(Handle, _) ->
            Array = iommap_atomics:new(Handle, 0, 1, []),
            Times = 5000,
            _ = test_processes:together([fun() ->
                [iommap_atomics:Verb(Array, 1, Number) || _ <- lists:seq(1, Times)]
            end || {Verb, Number} <- Adds]),
            Sum = lists:sum([if Verb =:= sub; Verb =:= sub_get -> -Number; true -> Number end || {Verb, Number} <- Adds]),
            Times * Sum =:= iommap_atomics:get(Array, 1)
        end)).

prop_new_takes_the_options_that_atomics_takes() ->
    %% Options of any kind are taken or refused as OTP does.
    ?FORALL(Options, ?LET(Options, options(), made(Options)),
        with_mapping(zeros(64), fun(Handle, _) ->
            Facts = fun(Make) ->
                try maps:with([size, max, min], Make()) catch Class:Reason -> {Class, Reason} end
            end,
            ?assertEqual(Facts(fun() -> atomics:info(atomics:new(8, Options)) end),
                         Facts(fun() -> iommap_atomics:info(iommap_atomics:new(Handle, 0, 8, Options)) end)),
            true
        end)).

%% Calls

call() ->
    oneof([
        {oneof([put, add, add_get, sub, sub_get, exchange, 'band', band_get, 'bor', bor_get, 'bxor', bxor_get]), [index(), value()]},
        {get, [index()]},
        {compare_exchange, [index(), value(), value()]},
        {compare_exchange, [index(), present, value()]},
        {info, []}
    ]).

index() ->
    frequency([{20, range(1, ?WORDS)}, {1, oneof([0, ?WORDS + 1, -1, 1 bsl 64, 1.0, a, <<1>>])}]).

value() ->
    frequency([{8, word()}, {6, oneof(?EDGES)}, {4, integer()}, {1, oneof([a, 1.0, <<>>, []])}]).

word() ->
    range(-(1 bsl 63), 1 bsl 64 - 1).

options() ->
    oneof([list(option()), option(), ?LET({Options, Tail}, {non_empty(list(option())), option()}, {improper, Options, Tail})]).

%% PropEr cannot shrink improper lists, so they are made afterwards.
made({improper, Options, Tail}) -> Options ++ Tail;
made(Options) -> Options.

option() ->
    oneof([{signed, boolean()}, {signed, oneof([1, yes])}, signed, {unsigned, true}]).

%% Running them

agree(Signed, Calls) ->
    holds(fun() -> run(Signed, Calls) end).

run(Signed, Calls) ->
    with_mapping(zeros(8 * (?WORDS + 2)), fun(Handle, _) ->
        Array = iommap_atomics:new(Handle, 8, ?WORDS, [{signed, Signed}]),
        Oracle = atomics:new(?WORDS, [{signed, Signed}]),
        [call(Call, Handle, Array, Oracle) || Call <- Calls],
        true
    end).

call(truncate, Handle, _, _) ->
    ?assertEqual(ok, iommap:truncate(Handle, 8 * (?WORDS + 2) + rand:uniform(1 bsl 20)));
call(remap, Handle, _, _) ->
    ?assertMatch({ok, _}, iommap:remap(Handle));
call(sync, Handle, _, _) ->
    ?assertEqual(ok, iommap:sync(Handle));
call({Function, Arguments0}, Handle, Array, Oracle) ->
    Arguments = [case Argument of present -> present(Arguments0, Oracle); _ -> Argument end || Argument <- Arguments0],
    Expected = outcome(fun() -> oracle(Function, Oracle, Arguments) end),
    ?assertEqual({Function, Arguments, Expected},
                 {Function, Arguments, outcome(fun() -> told(apply(iommap_atomics, Function, [Array | Arguments])) end)}),
    Words = [atomics:get(Oracle, Ix) || Ix <- lists:seq(1, ?WORDS)],
    ?assertEqual(Words, [iommap_atomics:get(Array, Ix) || Ix <- lists:seq(1, ?WORDS)]),
    ?assertEqual({ok, << <<Word:64/native>> || Word <- [0] ++ Words ++ [0] >>}, iommap:pread(Handle, 0, 8 * (?WORDS + 2))).

present([Ix | _], Oracle) ->
    try atomics:get(Oracle, Ix) catch error:badarg -> 0 end.

outcome(Call) ->
    try {ok, Call()}
    catch Class:Reason:Stack ->
        [{_, Function, [_ | Arguments], _} | _] = Stack,
        {Class, Reason, Function, Arguments}
    end.

%% How much memory the words take is a matter of each.
told(#{memory := _} = Info) -> maps:remove(memory, Info);
told(Answer) -> Answer.

oracle('band', Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A band B end, 'band', Arguments), ok;
oracle(band_get, Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A band B end, band_get, Arguments);
oracle('bor', Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A bor B end, 'bor', Arguments), ok;
oracle(bor_get, Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A bor B end, bor_get, Arguments);
oracle('bxor', Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A bxor B end, 'bxor', Arguments), ok;
oracle(bxor_get, Oracle, Arguments) -> bits(Oracle, fun(A, B) -> A bxor B end, bxor_get, Arguments);
oracle(Function, Oracle, Arguments) -> told(apply(atomics, Function, [Oracle | Arguments])).

%% A mask is what could be added; the sum tells which that is.
bits(Oracle, Operator, Function, [Ix, Mask]) ->
    Word = try atomics:get(Oracle, Ix) catch error:badarg -> raise(Function, [Oracle, Ix, Mask]) end,
    try atomics:add(Oracle, Ix, Mask) catch error:badarg -> raise(Function, [Oracle, Ix, Mask]) end,
    <<New:64>> = <<(Operator(Word, Mask)):64>>,
    #{min := Min} = atomics:info(Oracle),
    ok = atomics:put(Oracle, Ix, if Min < 0, New >= 1 bsl 63 -> New - (1 bsl 64); true -> New end),
    atomics:get(Oracle, Ix).

-spec raise(atom(), list()) -> no_return().
raise(Function, Arguments) ->
    erlang:raise(error, badarg, [{atomics, Function, Arguments, []}]).
