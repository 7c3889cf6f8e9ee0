%% A store of fixed-size records that a cluster keeps: each node has all of them in a mapped file, Raft (the library Ra) brings the
%% commands to all in one order, and a read is a read of this node's memory.
%%
%% Shows: a Ra machine whose state is a file (record_file.erl), so that the state may be larger than memory, starts at once, and is
%% sent to a node that lags as a file in chunks (record_snapshot.erl). Ra's log is cut back when a snapshot is on the disk.
%%
%%     {ok, _} = ra:start_in("/var/lib/example"),                  % on each node, at every start
%%     ok = record_store:start(counts, #{nodes => ['a@host', 'b@host', 'c@host'], record_size => 64, records => 1000000}),
%%     ok = record_store:put(counts, 17, Record),                  % on any of them: a majority has it, on their disks
%%     ok = record_store:add(counts, 17, 1),                       % the first eight bytes of a record are a number
%%     {ok, Record} = record_store:read(counts, 17),               % of this node: may lag behind what others have been told
%%     {ok, Record} = record_store:consistent_read(counts, 17).    % asks the leader, and a majority whether it is that
%%
%% Answers: `ok', `{error, badarg}' of a record that does not exist or does not fit, `{error, unknown}' if nobody answered in time.
%% Then the command may be applied later or never. To put again is harmless, to add again may add twice.
%%
%% Limits: Ra as of 2.2, which is no part of this project (`make cluster' takes it from a Debian package). The number of records
%% and their size are fixed. A snapshot is written every `snapshot_interval' commands (65536) and takes as much room as the file.
-module(record_store).

-export([start/2, put/3, add/3, read/2, reader/1, consistent_read/2]).
-export([init/1, apply/3, tick/2, snapshot_module/0]). % -behaviour(ra_machine)
-export([open/2, options/1]). % for record_snapshot

-define(PATIENCE, 5000).

%%% Of use to anyone

%% Starts this node's server, or starts it again as it was.
start(Name, #{nodes := Nodes} = Options) ->
    Id = {Name, node()},
    Uid = atom_to_binary(Name),
    #{data_dir := Ra} = ra_system:fetch(default),
    Interval = maps:get(snapshot_interval, Options, 65536),
    Machine = (maps:with([nodes, record_size, records], Options))#{name => Name, snapshot_interval => Interval,
                                                          directory => filename:join(Ra, Uid)},
    Config = #{id => Id, uid => Uid, cluster_name => Name, initial_members => [{Name, Node} || Node <- Nodes],
               log_init_args => #{uid => Uid, snapshot_interval => Interval, min_snapshot_interval => Interval},
               machine => {module, ?MODULE, Machine}},
    case ra:restart_server(default, Id) of
        ok -> ok;
        {error, {already_started, _}} -> ok;
        {error, _} -> ok = ra:start_server(default, Config), ra:trigger_election(Id)
    end.

put(Name, N, Record) -> command(Name, {put, N, iolist_to_binary(Record)}).

add(Name, N, Increment) -> command(Name, {add, N, Increment}).

command(Name, Command) ->
    case ra:process_command({Name, node()}, Command, ?PATIENCE) of
        {ok, Reply, _Leader} -> Reply;
        {timeout, _} -> {error, unknown};
        {error, _} -> {error, unknown}
    end.

%% Of this node's memory.
read(Name, N) ->
    record_file:read(reader(Name), N).

%% For record_file:read/2 of many records in one go. Not to be kept: when this node gets a snapshot, there is another.
reader(Name) ->
    persistent_term:get({?MODULE, Name}).

consistent_read(Name, N) ->
    case ra:consistent_query({Name, node()}, fun(#{file := File}) -> record_file:read(record_file:reader(File), N) end, ?PATIENCE) of
        {ok, Result, _Leader} -> Result;
        _ -> {error, unknown}
    end.

%%% Of use to Ra

init(Options) ->
    open(Options, none).

open(#{name := Name} = Options, Snapshot) ->
    File = record_file:open(Options, Snapshot),
    ok = persistent_term:put({?MODULE, Name}, record_file:reader(File)),
    #{options => Options, file => File, released => 0}.

options(#{options := Options}) ->
    Options.

%% Every command is answered `ok', so that it does not matter to the caller whether the file knew it already.
apply(#{index := Index} = Meta, Command, #{file := File} = Store) ->
    case Index > record_file:applied(File) andalso record(Command, File) of
        {ok, N, Record} -> release(Meta, Store#{file := record_file:write(File, Index, N, Record)});
        error -> {Store, {error, badarg}};
        false -> {Store, ok}
    end.

record({put, N, Record}, #{records := Records, record_size := Size})
  when is_integer(N), N >= 0, N < Records, byte_size(Record) =:= Size ->
    {ok, N, Record};
record({add, N, Increment}, #{records := Records} = File) when is_integer(Increment), is_integer(N), N >= 0, N < Records ->
    {ok, <<Number:64, Rest/binary>>} = record_file:read(record_file:reader(File), N),
    {ok, N, <<(Number + Increment):64, Rest/binary>>};
record(_, _) ->
    error.

%% Tells Ra from time to time that a snapshot may be written, and the log cut back.
release(#{index := Index}, #{released := Released, options := #{snapshot_interval := Interval}} = Store)
  when Index >= Released + Interval ->
    Next = Store#{released := Index},
    {Next, ok, [{release_cursor, Index, Next}]};
release(_, Store) ->
    {Store, ok}.

%% Ra sends to nodes that are connected, and never connects one: without this a node that was cut off would stay so.
tick(_Now, #{options := #{nodes := Nodes}}) ->
    _ = [spawn(net_kernel, connect_node, [Node]) || Node <- Nodes -- [node() | nodes()]],
    [].

snapshot_module() -> record_snapshot.
