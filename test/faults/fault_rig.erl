%% Where the rig's parts are, and VMs that may die: each is an OS process of its own, with the
%% application from build/iommap, so that a crash is a result and not the end of the tests.
-module(fault_rig).

-export([build/0, build/1]).
-export([directory/0]).
-export([built/1]).
-export([nif/1]).
-export([start_vm/0, start_vm/1]).
-export([call/4, call/5]).
-export([run/2, run/3]).
-export([run_with/3]).
-export([begin_run/2]).
-export([death/1, death/4]).
-export([os_pid/1]).
-export([stop_vm/1]).
-export([is_root/0]).
-export([shell/1]).
-export([eventually/1]).

-export_type([vm/0, death/0]).

-type vm() :: #{peer := pid(), witness := pid(), os_pid := string()}.
-type death() :: {signal, pos_integer()} | {status, non_neg_integer()}.

-type vm_options() :: #{
    %% More arguments for erl.
    args => [string()],
    %% The directory of the application, instead of build/iommap.
    application => file:filename(),
    %% A shell command that ends by running "$@", the VM.
    wrapper => string(),
    env => [{string(), string()}]
}.

%% How long a call into a VM may take; more means that it hangs.
-define(PATIENCE, 120_000).

%% Everything that the suites need is built by the Makefile beside them. From here on the death of a
%% VM is a result, not an event to log.
-spec build() -> ok.
build() ->
    ok = logger:set_module_level([gen_server, proc_lib], none),
    build("all").

-spec build(Target :: string()) -> ok.
build(Target) ->
    case shell(["make -C ", directory(), " ", Target]) of
        {0, _} -> ok;
        {_, Output} -> io:put_chars(user, Output), error({cannot_build, Target})
    end.

%% test/faults in the project, also when a build tool has copied this file elsewhere.
-spec directory() -> file:filename().
directory() ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    filename:join([root(filename:dirname(Source)), "test", "faults"]).

root(Directory) ->
    case filelib:is_file(filename:join(Directory, "Cargo.toml")) of
        true -> Directory;
        false when Directory =/= "/" -> root(filename:dirname(Directory))
    end.

-spec built(file:filename()) -> file:filename().
built(Name) ->
    filename:join([directory(), "build", Name]).

%% The library of a module of the rig, as load_nif wants it.
-spec nif(module()) -> file:filename().
nif(Module) ->
    filename:join([filename:dirname(code:which(Module)), "..", atom_to_list(Module)]).

-spec start_vm() -> vm().
start_vm() ->
    start_vm(#{}).

-spec start_vm(vm_options()) -> vm().
start_vm(Options) ->
    Application = maps:get(application, Options, built("iommap")),
    Wrapper = maps:get(wrapper, Options, "exec \"$@\""),
    {ok, Peer, _} = peer:start(#{
        connection => standard_io,
        peer_down => crash,
        wait_boot => ?PATIENCE,
        exec => {"/bin/sh", ["-c", Wrapper, "vm", os:find_executable("erl")]},
        args => ["-pa", filename:join(Application, "ebin"), "-pa", built("ebin")
                 | maps:get(args, Options, [])],
        env => [{"ERL_CRASH_DUMP", "/dev/null"} | maps:get(env, Options, [])]
    }),
    #{peer => Peer, witness => spawn(fun() -> witness(Peer) end), os_pid => peer:call(Peer, os, getpid, [])}.

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
            stop_vm(Vm),
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
        stop_vm(Vm),
        error(vm_hangs)
    end.

death_of(Status) when Status > 128 -> {signal, Status - 128};
death_of(Status) -> {status, Status}.

-spec os_pid(vm()) -> string().
os_pid(#{os_pid := OsPid}) ->
    OsPid.

%% Ends a VM, whatever state it is in.
-spec stop_vm(vm()) -> ok.
stop_vm(#{peer := Peer, os_pid := OsPid}) ->
    Monitor = monitor(process, Peer),
    _ = shell(["kill -KILL ", OsPid]),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end.

-spec is_root() -> boolean().
is_root() ->
    string:trim(os:cmd("id -u")) =:= "0".

%% Runs a shell command; its exit status and what it printed.
-spec shell(iodata()) -> {non_neg_integer(), binary()}.
shell(Command) ->
    Port = open_port({spawn_executable, "/bin/sh"},
                     [{args, ["-c", iolist_to_binary(Command)]}, exit_status, stderr_to_stdout,
                      binary, hide, {env, [{"PATH", os:getenv("PATH") ++ ":/usr/sbin:/sbin"}]}]),
    shell_output(Port, []).

shell_output(Port, Output) ->
    receive
        {Port, {data, Data}} -> shell_output(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    end.

%% Waits until the condition holds; ten seconds stand for never.
-spec eventually(fun(() -> boolean())) -> ok.
eventually(Condition) ->
    eventually(Condition, erlang:monotonic_time(millisecond) + 10_000).

eventually(Condition, Deadline) ->
    case Condition() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error(never),
            receive after 5 -> eventually(Condition, Deadline) end
    end.
