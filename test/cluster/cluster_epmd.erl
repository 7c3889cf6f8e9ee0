%% Takes the place of epmd for the nodes of a test: a node's name is its port, so that nothing has to be asked and no daemon is left
%% behind. For `erl -start_epmd false -epmd_module cluster_epmd -name 45678@127.0.0.1'.
-module(cluster_epmd).

-export([start_link/0, register_node/2, register_node/3, listen_port_please/2, port_please/2, port_please/3, address_please/3,
         names/1]).

start_link() -> ignore.

register_node(Name, Port) -> register_node(Name, Port, inet).

register_node(_Name, _Port, _Family) -> {ok, 3 + rand:uniform(1 bsl 31)}. % which life of the node this is

listen_port_please(Name, _Host) -> {ok, port(Name)}.

port_please(Name, Host) -> port_please(Name, Host, infinity).

port_please(Name, _Host, _Timeout) -> {port, port(Name), 6}.

address_please(Name, _Host, _Family) -> {ok, {127, 0, 0, 1}, port(Name), 6}.

names(_Host) -> {error, address}.

port(Name) when is_atom(Name) -> port(atom_to_list(Name));
port(Name) -> list_to_integer(hd(string:lexemes(Name, "@"))).
