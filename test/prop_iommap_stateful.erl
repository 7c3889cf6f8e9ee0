%% Random runs of every operation of the API, on several handles and files, beside another OS process: against the fuzzer's model one
%% after another (../test/faults/fuzz_model.erl), and by several processes at the same time against call_model.erl. They run in a VM of
%% their own, which may die.
-module(prop_iommap_stateful).

-behaviour(proper_statem).

-include_lib("proper/include/proper.hrl").

-export([prop_any_operations_are_what_the_model_says/0]).
-export([prop_what_a_file_loses_is_what_the_model_says/0]).
-export([prop_calls_one_after_another_are_what_the_model_says/0]).
-export([prop_calls_at_the_same_time_have_an_order/0]).
-export([run_commands/1, run_parallel_commands/1]).
-export([initial_state/0, command/1, precondition/2, next_state/3, postcondition/3]).

%% How long a run may take, in milliseconds; more means that the VM hangs.
-define(PATIENCE, 60_000).
%% How many runs of any operations: each takes ten milliseconds, and most of them meet nothing special.
-define(RUNS, 1000).
%% How often the same calls are made at the same time: each time in another order.
-define(RACES, 3).

%% Properties

prop_any_operations_are_what_the_model_says() ->
    %% Handles of all kinds, views, batches, atomics, devices and files that others cut, grow and replace do what the model says.
    operations_are_what_the_model_says(fun(_) -> true end).

prop_what_a_file_loses_is_what_the_model_says() ->
    %% So do handles and views of files that become shorter and longer, which is where most that is not plain happens.
    operations_are_what_the_model_says(fun(Verb) ->
        lists:member(Verb, [open, close, replace, resize, remap, truncate, ensure_size, pread, pwrite, region, look, sync, lock])
    end).

operations_are_what_the_model_says(IsWanted) ->
    numtests(?RUNS,
        ?FORALL(Ops, operations(IsWanted),
            holds(fun(Vm) ->
                test_files:with_directory(fun(Directory) ->
                    test_vm:call(Vm, fuzz_run, run, [Directory, Ops, filename:join(Directory, "progress")], ?PATIENCE)
                end)
            end))).

prop_calls_one_after_another_are_what_the_model_says() ->
    %% Any calls on handles of memory, a file and its parts, beside another process, answer what the model says.
    ?FORALL(Commands, proper_statem:commands(?MODULE, {one_after_another, call_model:new()}),
        holds(fun(Vm) -> test_vm:call(Vm, ?MODULE, run_commands, [Commands], ?PATIENCE) end)).

prop_calls_at_the_same_time_have_an_order() ->
    %% The same calls of two processes at the same time answer as if one had been made after another.
    ?FORALL(Commands, proper_statem:parallel_commands(?MODULE, {at_the_same_time, call_model:new()}),
        holds(fun(Vm) -> repeat(?RACES, fun() -> test_vm:call(Vm, ?MODULE, run_parallel_commands, [Commands], ?PATIENCE) end) end)).

repeat(0, _) -> ok;
repeat(Times, Run) ->
    case Run() of
        ok -> repeat(Times - 1, Run);
        Wrong -> Wrong
    end.

holds(Run) ->
    test_property:holds_in_vm([?MODULE], Run).

%% In the VM

-spec run_commands(proper_statem:command_list()) -> ok | term().
run_commands(Commands) ->
    call_runner:with_files(fun() ->
        case proper_statem:run_commands(?MODULE, Commands) of
            {_, _, ok} -> ok;
            {History, State, Reason} -> {Reason, State, lists:last([none | History])}
        end
    end).

-spec run_parallel_commands(proper_statem:parallel_testcase()) -> ok | term().
run_parallel_commands(Commands) ->
    call_runner:with_files(fun() ->
        case proper_statem:run_parallel_commands(?MODULE, Commands) of
            {_, _, ok} -> ok;
            {_, Parallel, Reason} -> {Reason, Parallel}
        end
    end).

%% The state machine of proper_statem

initial_state() ->
    {one_after_another, call_model:new()}.

command(_) ->
    {call, call_runner, call, [call()]}.

precondition(_, _) ->
    true.

next_state({How, State}, _, {call, call_runner, call, [Call]}) ->
    {How, element(2, call_model:call(Call, State))}.

postcondition({How, State}, {call, call_runner, call, [Call]}, Answer) ->
    element(1, call_model:call(Call, State)) =:= Answer
        orelse How =:= at_the_same_time andalso call_model:is_disturbed(Call, Answer, State).

%% Generators

%% Those of the fuzzer, which draws them with a generator of its own; what is left of them when some are taken out still means something.
operations(IsWanted) ->
    ?LET(Seed, range(1, 1 bsl 32), proper_types:shrink_list(lists:sublist([Op || Op <- generated(Seed), IsWanted(verb(Op))], 40))).

generated(Seed) ->
    Ours = rand:export_seed(),
    Ops = fuzz_ops:generate(Seed, 100),
    _ = rand:seed(Ours),
    Ops.

verb(Op) when is_tuple(Op) -> element(1, Op);
verb(Op) -> Op.

call() ->
    frequency([
        {8, {pread, whole(), range()}},
        {8, {pwrite, whole(), write()}},
        {4, {pread, whole(), list(range())}},
        {4, {pwrite, whole(), list(write())}},
        {2, {truncate, whole(), size()}},
        {2, {ensure_size, whole(), size()}},
        {1, {sync, whole(), oneof([sync, async])}},
        {1, {sync, whole(), range(), oneof([sync, async])}},
        {1, {advise, whole(), range(), advice()}},
        {2, {oneof([resident, lock, lock, unlock]), whole(), range()}},
        {1, {sync, part(), page_number(), oneof([sync, async])}},
        {1, {advise, part(), page_number(), advice()}},
        {2, {view, range(1, 2), range()}},
        {4, {look, range(1, 2), range(0, 999)}},
        {1, {forget, range(1, 2)}},
        {2, {with_view, range()}},
        {8, {get, part(), page_number()}},
        {8, {put, part(), page_number(), word()}},
        {8, {atomic, oneof([main, window]), page_number(), atomic()}},
        {2, {cut, page_count()}},
        {4, {remap, handle()}},
        {2, {close, handle()}},
        {3, {open, handle()}},
        {3, {oneof([position, info, info]), handle()}},
        {2, {another, pages, page_count()}},
        {1, {another, far, byte()}},
        {1, {another, add, range(1, 100)}},
        {1, {another, low, byte()}},
        {1, reload},
        {1, list}
    ]).

whole() -> oneof([memory, file]).
part() -> oneof([main, window, follower, private]).
handle() -> oneof([whole(), part()]).

page_number() -> range(0, 5).
page_count() -> range(1, 6).
word() -> oneof([range(0, 255), 1 bsl 63, 1 bsl 64 - 1]).

advice() -> oneof([normal, random, sequential, willneed, dontneed, cold, pageout, dontdump, dodump]).

range() ->
    {offset(), oneof([0, 1, 8, call_model:page(), range(0, 3 * call_model:page())])}.

offset() ->
    frequency([
        {40, oneof([0, 1, call_model:page() - 1, call_model:page(), call_model:file_size() - 1, range(0, 3 * call_model:page())])},
        {1, -1}
    ]).

write() ->
    {offset(), oneof([binary(), ?LET({Byte, {_, Length}}, {byte(), range()}, binary:copy(<<Byte>>, Length))])}.

size() ->
    oneof([1, call_model:page(), call_model:file_size() + 1, range(1, 4 * call_model:page())]).

atomic() ->
    oneof([
        {get, []},
        {oneof([put, exchange, add, add_get, 'band', 'bor', 'bxor', band_get, bor_get, bxor_get]), [word()]},
        {oneof([sub, sub_get]), [byte()]}, % OTP subtracts no more than 2^63
        {compare_exchange, [word(), word()]}
    ]).
