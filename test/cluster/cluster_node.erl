%% The nodes of a cluster: OS processes on the loopback that know each other by Erlang's distribution, and by nothing else. They are
%% told what to do over their standard input, so that a node which is cut off from the others still hears.
-module(cluster_node).

-export([names/1, start/2, call/4, begin_call/4, name/1]).
-export([kill/1, end_all/1, pause/1, resume/1, cut/2, heal/2]).
-export([give_way/2, memory/1]).

-type cluster_node() :: #{vm := test_vm:vm(), name := node(), options := map()}.

-define(COOKIE, iommap_cluster).

%% Names for so many nodes: ports of the loopback that nobody listens on.
-spec names(pos_integer()) -> [node()].
names(Count) ->
    Sockets = [element(2, {ok, _} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}])) || _ <- lists:seq(1, Count)],
    Ports = [element(2, {ok, _} = inet:port(Socket)) || Socket <- Sockets],
    ok = lists:foreach(fun gen_tcp:close/1, Sockets),
    [list_to_atom(lists:concat([Port, "@127.0.0.1"])) || Port <- Ports].

%% Starts a node, or starts it again after kill/1. `paths' are directories of modules.
-spec start(node(), #{paths := [file:filename()], args => [string()]}) -> cluster_node().
start(Name, #{paths := Paths} = Options) ->
    Vm = test_vm:start(#{
        application => code:lib_dir(iommap),
        args => ["-start_epmd", "false", "-epmd_module", "cluster_epmd", "-name", atom_to_list(Name),
                 "-setcookie", atom_to_list(?COOKIE), "-connect_all", "false",
                 "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "logger_level", "critical",
                 "-aten", "poll_interval", "200", "-pa" | Paths] ++ maps:get(args, Options, [])
    }),
    #{vm => Vm, name => Name, options => Options}.

name(#{name := Name}) ->
    Name.

-spec call(cluster_node(), module(), atom(), [term()]) -> term().
call(#{vm := Vm}, Module, Function, Arguments) ->
    test_vm:call(Vm, Module, Function, Arguments, 600_000).

%% The answer comes as a message {Pid, Answer}.
-spec begin_call(cluster_node(), module(), atom(), [term()]) -> pid().
begin_call(Node, Module, Function, Arguments) ->
    Self = self(),
    spawn_link(fun() -> Self ! {self(), call(Node, Module, Function, Arguments)} end).

-spec kill(cluster_node()) -> ok.
kill(#{vm := Vm}) -> test_vm:stop(Vm).

%% Ends whatever runs under these names.
-spec end_all([node()]) -> ok.
end_all(Names) ->
    _ = [test_system:shell(["kill -KILL ", lists:nth(3, filename:split(Process))]) ||
            Process <- filelib:wildcard("/proc/[0-9]*/cmdline"),
            {ok, Command} <- [file:read_file(Process)],
            Name <- Names,
            binary:match(Command, atom_to_binary(Name)) =/= nomatch],
    ok.

-spec pause(cluster_node()) -> ok.
pause(Node) -> signal(Node, "STOP").

-spec resume(cluster_node()) -> ok.
resume(Node) -> signal(Node, "CONT").

signal(#{vm := Vm}, Signal) ->
    {0, _} = test_system:shell(["kill -", Signal, " ", test_vm:os_pid(Vm)]),
    ok.

%% Cuts a node off: it has another cookie for the others than they have for it, so that both sides refuse to connect.
-spec cut(cluster_node(), [node()]) -> ok.
cut(Node, Others) ->
    _ = [begin
             true = call(Node, erlang, set_cookie, [Other, cut_off]),
             call(Node, erlang, disconnect_node, [Other])
         end || Other <- Others],
    ok.

-spec heal(cluster_node(), [node()]) -> ok.
heal(Node, Others) ->
    _ = [true = call(Node, erlang, set_cookie, [Other, ?COOKIE]) || Other <- Others],
    ok.

%% Whether the node runs only where a core has nothing else to do, as if it were on another machine.
-spec give_way(cluster_node(), boolean()) -> ok.
give_way(#{vm := Vm}, Whether) ->
    Class = if Whether -> "idle"; true -> "other" end,
    {0, _} = test_system:shell(["chrt --", Class, " --all-tasks --pid 0 ", test_vm:os_pid(Vm)]),
    ok.

%% The bytes of memory that are the VM's own: no pages of files.
-spec memory(cluster_node()) -> non_neg_integer().
memory(#{vm := Vm}) ->
    {ok, Status} = file:read_file(filename:join(["/proc", test_vm:os_pid(Vm), "status"])),
    {match, [Kilobytes]} = re:run(Status, "RssAnon:\\s*(\\d+) kB", [{capture, all_but_first, binary}]),
    1024 * binary_to_integer(Kilobytes).
