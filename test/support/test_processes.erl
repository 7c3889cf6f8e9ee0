%% Processes of this VM: one after the other, all at once, and until something holds.
-module(test_processes).

-export([eventually/1]).
-export([in_a_process/1]).
-export([together/1]).
-export([gather/1]).
-export([during/2]).
-export([stays/1]).
-export([runs/2]).

%% Waits until the condition holds. Half a minute stands for never.
-spec eventually(fun(() -> boolean())) -> ok.
eventually(Condition) ->
    eventually(Condition, erlang:monotonic_time(millisecond) + 30_000).

eventually(Condition, Deadline) ->
    case Condition() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error(never),
            receive after 2 -> eventually(Condition, Deadline) end
    end.

%% The result of a function evaluated in a process that is gone afterwards, and all it held with it.
-spec in_a_process(fun(() -> Result)) -> Result.
in_a_process(Function) ->
    {Process, Monitor} = spawn_monitor(fun() -> exit({done, Function()}) end),
    receive
        {'DOWN', Monitor, process, Process, {done, Result}} -> Result;
        {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
    end.

%% The results of functions that run at the same time.
-spec together([fun(() -> Result)]) -> [Result].
together(Functions) ->
    gather([spawn_monitor(fun() -> exit({done, Function()}) end) || Function <- Functions]).

%% The results of monitored processes that exit with {done, Result}.
-spec gather([{pid(), reference()}]) -> [term()].
gather(Processes) ->
    [receive
         {'DOWN', Monitor, process, Process, {done, Result}} -> Result;
         {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
     end || {Process, Monitor} <- Processes].

%% The result of one function while others are evaluated over and over, each in a process of its own.
-spec during([fun(() -> term())], fun(() -> Result)) -> Result.
during(Functions, Foreground) ->
    Stop = atomics:new(1, []),
    Begun = atomics:new(1, []),
    Processes = [spawn_monitor(fun() -> repeat(Function, Begun, Stop) end) || Function <- Functions],
    ok = eventually(fun() -> atomics:get(Begun, 1) >= length(Functions) end),
    Result = try Foreground() after atomics:put(Stop, 1, 1) end,
    _ = gather(Processes),
    Result.

repeat(Function, Begun, Stop) ->
    Function(),
    atomics:add(Begun, 1, 1),
    repeat_until(Function, Stop).

repeat_until(Function, Stop) ->
    case atomics:get(Stop, 1) of
        0 -> Function(), repeat_until(Function, Stop);
        1 -> exit({done, ok})
    end.

%% Whether the process that evaluates it is scheduled once and for all of it.
-spec stays(fun(() -> term())) -> boolean().
stays(Function) ->
    [in] =:= [in || in <- events([running], Function)].

%% How often the process calls a local function, and at the most before it is scheduled out.
-spec runs(mfa(), fun(() -> term())) -> {Calls :: non_neg_integer(), Longest :: non_neg_integer()}.
runs(Called, Function) ->
    1 = erlang:trace_pattern(Called, true, [local]),
    Events = try events([running, call], Function) after erlang:trace_pattern(Called, false, [local]) end,
    {Calls, _, Longest} = lists:foldl(fun
        (call, {Calls, Run, Longest}) -> {Calls + 1, Run + 1, max(Run + 1, Longest)};
        (_, {Calls, _, Longest}) -> {Calls, 0, Longest}
    end, {0, 0, 0}, Events),
    {Calls, Longest}.

events(Flags, Function) ->
    {Pid, Monitor} = spawn_monitor(fun() -> receive go -> Function() end end),
    1 = erlang:trace(Pid, true, Flags),
    Pid ! go,
    receive {'DOWN', Monitor, process, Pid, Reason} -> normal = Reason end,
    Delivered = erlang:trace_delivered(Pid),
    receive {trace_delivered, Pid, Delivered} -> ok end,
    flush(Pid).

flush(Pid) ->
    receive {trace, Pid, Event, _} -> [Event | flush(Pid)]
    after 0 -> []
    end.
