%% Which versions of a published data set there are, in Raft: the Ra machine of published.erl. What it keeps is small.
-module(published_versions).

-export([start/3, publish/2, take_back/1, list/1]).
-export([init/1, apply/3, tick/2, versions/1]). % -behaviour(ra_machine)

-define(KEPT, 100). % of the old ones, so that a node that was away deletes them, too
-define(PATIENCE, 5000).

%% Starts this node's server, or starts it again. Agent is the name of the process on each node that is told of news.
start(Name, Nodes, Agent) ->
    Id = {Name, node()},
    Uid = atom_to_binary(Name),
    Config = #{id => Id, uid => Uid, cluster_name => Name, initial_members => [{Name, Node} || Node <- Nodes],
               log_init_args => #{uid => Uid}, machine => {module, ?MODULE, #{nodes => Nodes, agent => Agent}}},
    case ra:restart_server(default, Id) of
        ok -> ok;
        {error, {already_started, _}} -> ok;
        {error, _} -> ok = ra:start_server(default, Config), ra:trigger_election(Id)
    end.

%% {ok, Version}, a number that grows.
publish(Name, Description) -> command(Name, {publish, Description}).

%% {ok, Version}: the one before is current again. {error, none} if there is none: that can be done once.
take_back(Name) -> command(Name, take_back).

command(Name, Command) ->
    case ra:process_command({Name, node()}, Command, ?PATIENCE) of
        {ok, Reply, _Leader} -> Reply;
        _ -> {error, unknown}
    end.

%% {ok, Versions, Old} as far as this node knows, lists of {Version, Description}: the current one and the one before; and those
%% that nobody needs any more. What this node has not heard of yet is in neither.
list(Name) ->
    case ra:local_query({Name, node()}, {?MODULE, versions, []}, ?PATIENCE) of
        {ok, {_, {Versions, Old}}, _Leader} -> {ok, Versions, Old};
        _ -> {error, unknown}
    end.

init(#{nodes := Nodes, agent := Agent}) ->
    #{nodes => Nodes, agent => Agent, versions => [], old => []}.

apply(#{index := Index}, {publish, Description}, #{versions := Versions, old := Old} = State) ->
    {Kept, More} = lists:split(min(2, 1 + length(Versions)), [{Index, Description} | Versions]),
    tell(State#{versions := Kept, old := lists:sublist(More ++ Old, ?KEPT)}, {ok, Index});
apply(_, take_back, #{versions := [Bad, {Version, _} = Before], old := Old} = State) ->
    tell(State#{versions := [Before], old := lists:sublist([Bad | Old], ?KEPT)}, {ok, Version});
apply(_, take_back, State) ->
    {State, {error, none}};
apply(_, _, State) ->
    {State, {error, badarg}}.

tell(#{nodes := Nodes, agent := Agent} = State, Reply) ->
    {State, Reply, [{send_msg, {Agent, Node}, look} || Node <- Nodes]}.

versions(#{versions := Versions, old := Old}) ->
    {Versions, Old}.

%% Ra sends to nodes that are connected, and never connects one.
tick(_Now, #{nodes := Nodes}) ->
    _ = [spawn(net_kernel, connect_node, [Node]) || Node <- Nodes -- [node() | nodes()]],
    [].
