%% What the commands of the benchmark have in common. This VM only conducts: each VM that is measured is started for it.
-module(bench_conductor).

-export([conduct/1, start_vm/1, stop_vm/1, call/4, is_quick/0, results/1, plot/2, publish/2, command/1, say/2]).

-spec is_quick() -> boolean().
is_quick() ->
    os:getenv("BENCH_QUICK") =:= "1".

-spec start_vm(map()) -> pid().
start_vm(Options) ->
    {ok, Vm, _} = peer:start_link(Options#{connection => standard_io, wait_boot => 60_000}),
    Vm.

-spec stop_vm(pid()) -> ok.
stop_vm(Vm) ->
    peer:stop(Vm).

-spec call(pid(), module(), atom(), [term()]) -> term().
call(Vm, Module, Function, Arguments) ->
    peer:call(Vm, Module, Function, Arguments, infinity).

%% Rough figures do not take the place of good ones.
-spec results(string()) -> file:filename().
results(Name) ->
    filename:join(case is_quick() of true -> "_build/bench/results"; false -> "bench/results" end, Name).

-spec plot(string(), [[term()]]) -> ok.
plot(Name, Rows) ->
    Data = results(Name ++ ".data"),
    Word = fun(Number) when is_number(Number) -> io_lib:format("~w", [Number]);
              (Text) -> ["\"", Text, "\""]
           end,
    ok = file:write_file(Data, [[lists:join(" ", [Word(Cell) || Cell <- Row]), $\n] || Row <- Rows]),
    case bench_report:plot(Name, Data, results(Name ++ ".svg")) of
        ok -> ok;
        {error, Trouble} -> say("no plot of the ~s: ~ts", [Name, Trouble])
    end,
    ok = file:delete(Data).

-spec publish(string(), unicode:chardata()) -> ok.
publish(Name, Text) ->
    ok = file:write_file(results(Name), unicode:characters_to_binary(Text)),
    io:format("~ts~n", [Text]),
    say("written to ~s", [results(Name)]).

-spec command(string()) -> string().
command(Command) ->
    case is_quick() of true -> "BENCH_QUICK=1 " ++ Command; false -> Command end.

-spec say(string(), [term()]) -> ok.
say(Format, Arguments) ->
    io:format(standard_error, "bench: " ++ Format ++ "~n", Arguments).

%% Ends this VM with the truth about the run.
-spec conduct(fun((Load :: string()) -> term())) -> no_return().
conduct(Work) ->
    ok = filelib:ensure_dir(results("any")),
    ok = io:setopts([{encoding, unicode}]),
    try Work(bench_report:load()) of
        _ -> halt(0)
    catch
        throw:{wrong_answers, Vm, Wrong} ->
            say("WRONG ANSWERS in the ~s VM: ~p", [Vm, Wrong]),
            halt(1);
        Class:Reason:Stack ->
            say("~ts", [erl_error:format_exception(Class, Reason, Stack)]),
            halt(1)
    end.
