%% Calls of several processes on one handle, long and short, at the same time. They run in a VM of their own, which may die.
-module(prop_iommap_whole).

-include_lib("proper/include/proper.hrl").

-export([prop_no_read_sees_a_part_of_a_write/0]).
-export([run/2]).

-import(test_pattern, [page/0]).

%% How long a run may take, in milliseconds; more means that the VM hangs.
-define(PATIENCE, 60_000).

prop_no_read_sees_a_part_of_a_write() ->
    %% Whoever reads, writes and resizes how often: what is read are the bytes of one write.
    numtests(100,
        ?FORALL({Length, Works}, {length(), few(2, work())},
            test_property:holds_in_vm([?MODULE], fun(Vm) -> test_vm:call(Vm, ?MODULE, run, [Length, Works], ?PATIENCE) end))).

%% Also such that a call of all of it is long for a normal scheduler, and too long.
length() ->
    frequency([{4, range(16, 4 * page())}, {4, range(16, 16 * page())}, {1, 200 * page()}, {1, 300 * page()}]).

%% What a process does, and how often each. After some hundred calls of a kind a handle prefers those; who calls seldom comes in between.
work() ->
    few(1, frequency([
        {4, {oneof([read, read_backwards, read_ends, write, write_batch]), oneof([1, 10, 300])}},
        {8, {oneof([read_backwards, read_ends, write]), 10_000}},
        {8, {oneof([read_seldom, write_seldom]), oneof([1, 10, 100])}},
        {3, {oneof([resize, remap]), oneof([1, 10, 30])}}
    ])).

few(Least, Kind) -> ?LET(Count, range(Least, 4), vector(Count, Kind)).

-spec run(pos_integer(), [[{atom(), pos_integer()}]]) -> ok | term().
run(Length, Works) ->
    Patterns = list_to_tuple([binary:copy(<<Byte>>, Length) || Byte <- lists:seq(0, 2 * length(Works))]),
    test_files:with_mapping(element(1, Patterns), fun(Handle, _) ->
        Answers = test_processes:together([fun() -> work(Work, {Handle, Patterns, Writer}) end || {Writer, Work} <- lists:enumerate(Works)]),
        case [Wrong || Wrong <- Answers, Wrong =/= ok] of
            [] -> ok;
            Wrong -> Wrong
        end
    end).

work([], _) -> ok;
work([{Verb, Times} | Rest], Place) ->
    case repeat(Times, Verb, Place) of
        ok -> work(Rest, Place);
        Wrong -> {Verb, Wrong}
    end.

repeat(0, _, _) -> ok;
repeat(Times, Verb, Place) ->
    case call(Verb, Times, Place) of
        ok -> repeat(Times - 1, Verb, Place);
        Wrong -> Wrong
    end.

call(read, _, {Handle, Patterns, _}) ->
    {ok, Bytes} = iommap:pread(Handle, 0, length_of(Patterns)),
    whole(Bytes, Patterns);
call(read_backwards, _, {Handle, Patterns, _}) ->
    %% Who reads from the end meets who writes from the start, however fast both are.
    Half = length_of(Patterns) div 2,
    {ok, Parts} = iommap:pread(Handle, [{Half, length_of(Patterns) - Half}, {0, Half}]),
    whole(iolist_to_binary(Parts), Patterns);
call(read_ends, _, {Handle, Patterns, _}) ->
    {ok, Parts} = iommap:pread(Handle, [{length_of(Patterns) - 8, 8}, {0, 8}]),
    whole(iolist_to_binary(Parts), Patterns);
call(read_seldom, Times, Place) ->
    busy(200_000 + Times * 7919),
    call(read_backwards, Times, Place);
call(write, Times, {Handle, _, _} = Place) ->
    iommap:pwrite(Handle, 0, bytes(Times, Place));
call(write_batch, Times, {Handle, Patterns, _} = Place) ->
    Half = length_of(Patterns) div 2,
    <<First:Half/binary, Second/binary>> = bytes(Times, Place),
    iommap:pwrite(Handle, [{0, First}, {Half, Second}]);
call(write_seldom, Times, Place) ->
    busy(200_000 + Times * 7919),
    call(write, Times, Place);
call(resize, Times, {Handle, Patterns, _}) ->
    iommap:truncate(Handle, length_of(Patterns) + Times rem 10 * page());
call(remap, _, {Handle, _, _}) ->
    {ok, _} = iommap:remap(Handle),
    ok.

%% A pause of about a millisecond. Who sleeps wakes when the others are at rest, too.
busy(0) -> ok;
busy(Times) -> busy(Times - 1).

length_of(Patterns) -> byte_size(element(1, Patterns)).

%% One of the two that are the writer's.
bytes(Times, {_, Patterns, Writer}) -> element(2 * Writer + Times rem 2, Patterns).

%% Whether it is, as far as it goes, what one of the writers writes.
whole(<<Byte, _/binary>> = Bytes, Patterns) when Byte < tuple_size(Patterns) ->
    case binary:part(element(Byte + 1, Patterns), 0, byte_size(Bytes)) of
        Bytes -> ok;
        _ -> {part_of, lists:usort(binary_to_list(Bytes))}
    end.
