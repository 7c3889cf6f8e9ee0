%% What properties share.
-module(test_property).

-include_lib("proper/include/proper.hrl").

-export([holds/1]).
-export([holds_in_vm/2]).

%% PropEr takes no exceptions from properties on OTP 25, so the assertion that failed is shown with the counterexample.
-spec holds(fun(() -> boolean())) -> proper:test().
holds(Run) ->
    ?WHENFAIL(io:format("~n~p~n", [get(wrong)]),
        try Run()
        catch error:Reason:Stack -> put(wrong, {Reason, Stack}), false
        end).

%% Whether what is done in another VM, which has these modules, gives `ok'. A VM that died is a wrong answer; the next run has a new one.
-spec holds_in_vm([module()], fun((test_vm:vm()) -> ok | (Wrong :: term()))) -> proper:test().
holds_in_vm(Modules, Run) ->
    Vm = {vm, Modules},
    Answer = try Run(vm(Vm, Modules))
             catch error:Reason when element(1, Reason) =:= vm_died; Reason =:= vm_hangs -> erase(Vm), Reason
             end,
    ?WHENFAIL(io:format("~n~P~n", [Answer, 200]), Answer =:= ok).

vm(Key, Modules) ->
    case get(Key) of
        undefined ->
            Vm = test_vm:start(#{modules => Modules}),
            put(Key, Vm),
            Vm;
        Vm ->
            Vm
    end.
