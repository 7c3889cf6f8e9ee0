%% record_store.erl split over the nodes of a cluster: a key is in one of a fixed number of shards, a shard is a store of its own on
%% some of the nodes, and rendezvous hashing says on which: those with the highest hash of shard and node. Each node works that out
%% alone. When a node comes, only the shards move that it wins; when one goes, only those that it had.
%%
%% Does not: move the records. `ra:add_member/2' and `record_store:start/2' on the new node bring them (Ra sends the file), then
%% `ra:remove_member/2' takes the old one out.
-module(rendezvous).

-export([start/2, put/3, add/3, read/2, place/2, nodes/3]).

%% On each node: starts the shards that are here. Options as for record_store:start/2, and `shards' and `copies'.
start(Name, #{nodes := Nodes, shards := Shards, copies := Copies} = Options) ->
    ok = persistent_term:put({?MODULE, Name}, Options),
    All = [{Shard, nodes(Shard, Nodes, Copies)} || Shard <- lists:seq(0, Shards - 1)],
    _ = [ok = record_store:start(store(Name, Shard), Options#{nodes := There}) || {Shard, There} <- All, lists:member(node(), There)],
    ok.

put(Name, Key, Record) -> on_a_node(Name, Key, put, [Record]).

add(Name, Key, Increment) -> on_a_node(Name, Key, add, [Increment]).

read(Name, Key) -> on_a_node(Name, Key, read, []).

on_a_node(Name, Key, Function, Arguments) ->
    {Shard, N, Nodes} = place(Name, Key),
    Node = case lists:member(node(), Nodes) of true -> node(); false -> hd(Nodes) end,
    erpc:call(Node, record_store, Function, [store(Name, Shard), N | Arguments]).

%% The shard of a key, which is an integer; its number there; and the nodes that have it.
place(Name, Key) ->
    #{nodes := Nodes, shards := Shards, copies := Copies} = persistent_term:get({?MODULE, Name}),
    {Key rem Shards, Key div Shards, nodes(Key rem Shards, Nodes, Copies)}.

nodes(Shard, Nodes, Copies) ->
    Ranked = lists:reverse(lists:sort([{erlang:phash2({Shard, Node}), Node} || Node <- Nodes])),
    [Node || {_, Node} <- lists:sublist(Ranked, Copies)].

store(Name, Shard) ->
    list_to_atom(lists:concat([Name, "_", Shard])).
