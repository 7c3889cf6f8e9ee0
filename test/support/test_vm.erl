%% VMs that may die: each is an OS process of its own, with an application of its own, so that a crash is a result and
%% not the end of the tests.
-module(test_vm).

-export([start/0, start/1]).
-export([call/4, call/5]).
-export([run/2, run/3]).
-export([run_with/3]).
-export([begin_run/2]).
-export([death/1, death/4]).
-export([os_pid/1]).
-export([stop/1]).

-export_type([vm/0, vm_options/0, death/0]).

-type vm() :: #{peer := pid(), witness := pid(), os_pid := string()}.
-type death() :: {signal, pos_integer()} | {status, non_neg_integer()}.

-type vm_options() :: #{
    %% More arguments for erl.
    args => [string()],
    %% The directory of the application, instead of build/iommap.
    application => file:filename(),
    %% A shell command that ends by running "$@", the VM.
    wrapper => string(),
    env => [{string(), string()}],
    %% Modules of this VM that it is to have, besides those that the Makefile built.
    modules => [module()]
}.

%% How long a call into a VM may take; more means that it hangs.
-define(PATIENCE, 120_000).

-spec start() -> vm().
start() ->
    start(#{}).

-spec start(vm_options()) -> vm().
start(Options) ->
    %% The death of a VM is a result, not an event to log.
    ok = logger:set_module_level([gen_server, proc_lib], none),
    Application = maps:get(application, Options, test_tools:built("iommap")),
    Wrapper = maps:get(wrapper, Options, "exec \"$@\""),
    {ok, Peer, _} = peer:start(#{
        connection => standard_io,
        peer_down => crash,
        wait_boot => ?PATIENCE,
        exec => {"/bin/sh", ["-c", Wrapper, "vm", os:find_executable("erl")]},
        args => ["-pa", filename:join(Application, "ebin"), "-pa", test_tools:built("ebin")
                 | maps:get(args, Options, [])],
        env => [{"ERL_CRASH_DUMP", "/dev/null"} | maps:get(env, Options, [])]
    }),
    Vm = #{peer => Peer, witness => spawn(fun() -> witness(Peer) end), os_pid => peer:call(Peer, os, getpid, [], ?PATIENCE)},
    [ok = load(Vm, Module) || Module <- maps:get(modules, Options, [])],
    Vm.

%% Remembers how the VM ended, for whoever asks.
witness(Peer) ->
    Monitor = monitor(process, Peer),
    receive {'DOWN', Monitor, process, Peer, Reason} -> testify(Reason) end.

testify(Reason) ->
    receive {how, From, Reference} -> From ! {Reference, Reason} end,
    testify(Reason).

%% Calls a function in the VM. Raises {vm_died, death()} or vm_hangs.
-spec call(vm(), module(), atom(), [term()]) -> term().
call(Vm, Module, Function, Arguments) ->
    call(Vm, Module, Function, Arguments, ?PATIENCE).

%% The same with so many milliseconds of patience.
-spec call(vm(), module(), atom(), [term()], pos_integer()) -> term().
call(#{peer := Peer} = Vm, Module, Function, Arguments, Patience) ->
    try
        peer:call(Peer, Module, Function, Arguments, Patience)
    catch
        exit:{{exit_status, Status}, _} ->
            error({vm_died, death_of(Status)});
        exit:{noproc, _} ->
            error({vm_died, before});
        exit:{timeout, _} ->
            stop(Vm),
            error(vm_hangs)
    end.

%% Evaluates a function of the calling module in a fresh process of the VM, and gives what it gives.
-spec run(vm(), fun(() -> Result)) -> Result.
run(Vm, Function) ->
    run(Vm, Function, ?PATIENCE).

-spec run(vm(), fun(() -> Result), Patience :: pos_integer()) -> Result.
run(Vm, Function, Patience) ->
    ok = load_module_of(Vm, Function),
    call(Vm, erlang, apply, [Function, []], Patience).

%% The same of a function with arguments.
-spec run_with(vm(), fun(), [term()]) -> term().
run_with(Vm, Function, Arguments) ->
    ok = load_module_of(Vm, Function),
    call(Vm, erlang, apply, [Function, Arguments], ?PATIENCE).

%% Evaluates the function in the VM meanwhile; the answer comes as a message {Pid, Answer} from the process that this gives.
-spec begin_run(vm(), fun(() -> term())) -> pid().
begin_run(Vm, Function) ->
    Self = self(),
    spawn(fun() -> Self ! {self(), try run(Vm, Function) catch _:Reason -> {'EXIT', Reason} end} end).

load_module_of(Vm, Function) ->
    {module, Module} = erlang:fun_info(Function, module),
    load(Vm, Module).

load(Vm, Module) ->
    {Module, Binary, File} = code:get_object_code(Module),
    {module, Module} = call(Vm, code, load_binary, [Module, File, Binary]),
    ok.

%% How the VM ends when it evaluates the call.
-spec death(vm(), module(), atom(), [term()]) -> death().
death(#{peer := Peer} = Vm, Module, Function, Arguments) ->
    spawn(fun() -> try peer:call(Peer, Module, Function, Arguments, ?PATIENCE) catch _:_ -> ok end end),
    death(Vm).

%% How the VM ends, or ended, by what was done to it.
-spec death(vm()) -> death().
death(#{witness := Witness} = Vm) ->
    Reference = make_ref(),
    Witness ! {how, self(), Reference},
    receive
        {Reference, {exit_status, Status}} -> death_of(Status);
        {Reference, Reason} -> error({unclear_death, Reason})
    after ?PATIENCE ->
        stop(Vm),
        error(vm_hangs)
    end.

death_of(Status) when Status > 128 -> {signal, Status - 128};
death_of(Status) -> {status, Status}.

-spec os_pid(vm()) -> string().
os_pid(#{os_pid := OsPid}) ->
    OsPid.

%% Ends a VM, whatever state it is in.
-spec stop(vm()) -> ok.
stop(#{peer := Peer, os_pid := OsPid}) ->
    Monitor = monitor(process, Peer),
    _ = test_system:shell(["kill -KILL ", OsPid]),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end.
