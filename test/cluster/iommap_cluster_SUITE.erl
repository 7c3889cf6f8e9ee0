%% The examples of clusters, on three nodes that are killed, paused and cut off from the others while they are used.
%%
%% `make cluster' runs them. ROUNDS of the environment says how often each fault is made.
-module(iommap_cluster_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-define(RECORDS, 1_000_000).
-define(RECORD_SIZE, 16).
-define(STORE, #{record_size => ?RECORD_SIZE, records => ?RECORDS, snapshot_interval => 2000}).
-define(WRITERS, 8).

suite() ->
    [{timetrap, {hours, 2}}].

all() ->
    [a_store_survives_kill,
     a_store_survives_a_pause,
     a_store_survives_a_cut,
     a_node_that_lags_gets_the_file].

init_per_suite(Config) ->
    case code:lib_dir(ra) of
        {error, _} ->
            {skip, "Ra is not there: test/cluster/unpack gets it"};
        Ra ->
            Modules = filename:join(?config(priv_dir, Config), "modules"),
            ok = filelib:ensure_path(Modules),
            Examples = filelib:wildcard(filename:join([test_system:root(), "examples", "cluster", "*.erl"])),
            [{ok, _, []} = compile:file(Example, [return, warnings_as_errors, {outdir, Modules}]) || Example <- Examples],
            Libraries = filelib:wildcard(filename:join([filename:dirname(Ra), "*", "ebin"])),
            Tests = [filename:dirname(code:which(Module)) || Module <- [?MODULE, test_processes]],
            [{paths, [Modules | Tests ++ Libraries]} | Config]
    end.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = filename:absname(test_files:case_directory(Config)),
    Names = cluster_node:names(4),
    {Members, [Client]} = lists:split(3, [start_node(Name, Config) || Name <- Names]),
    [{directory, Directory}, {names, Names}, {members, Members}, {client, Client} | Config].

%% Ends every node, also those that were started again in the middle of a case.
end_per_testcase(_Case, Config) ->
    cluster_node:end_all(?config(names, Config)).

start_node(Name, Config) ->
    cluster_node:start(Name, #{paths => ?config(paths, Config)}).

%%% The store of records

%% A node that is killed and started again loses no write that was acknowledged, and applies none twice.
a_store_survives_kill(Config) ->
    rounds(Config, fun(Victim, _Others) ->
        ok = cluster_node:kill(Victim),
        timer:sleep(rand:uniform(1500)),
        Again = start_node(cluster_node:name(Victim), Config),
        ok = start_store(Again, Config),
        Again
    end).

%% The same of a node that does not run for a while, and then goes on as if nothing had been.
a_store_survives_a_pause(Config) ->
    rounds(Config, fun(Victim, _Others) ->
        ok = cluster_node:pause(Victim),
        timer:sleep(500 + rand:uniform(2500)),
        ok = cluster_node:resume(Victim),
        Victim
    end).

%% The same of a node that the others, and it them, refuse to connect to.
a_store_survives_a_cut(Config) ->
    Client = cluster_node:name(?config(client, Config)),
    rounds(Config, fun(Victim, Others) ->
        Cut = [Client | [cluster_node:name(Other) || Other <- Others]],
        ok = cluster_node:cut(Victim, Cut),
        timer:sleep(500 + rand:uniform(2500)),
        ok = cluster_node:heal(Victim, Cut),
        Victim
    end).

%% A node that was away for so long that the log has been cut back gets the file as it is.
a_node_that_lags_gets_the_file(Config) ->
    [First, Second, Third] = Members = ?config(members, Config),
    ok = start_stores(Members, Config),
    ok = cluster_node:kill(Third),
    Writers = begin_writing(Config, [First, Second], 0),
    ok = test_processes:eventually(fun() -> snapshots(First) > 0 end),
    {Next, Acknowledged, Unknown} = end_writing(Config, Writers),
    Again = start_node(cluster_node:name(Third), Config),
    0 = snapshots(Again),
    ok = start_store(Again, Config),
    ok = check_store([First, Second, Again], 0, Next, Acknowledged, Unknown),
    ?assert(snapshots(Again) > 0).

rounds(Config, Fault) ->
    Members = ?config(members, Config),
    ok = start_stores(Members, Config),
    Rounds = list_to_integer(os:getenv("ROUNDS", "2")),
    Last = lists:foldl(fun(Round, {Nodes, From}) -> round(Config, Fault, Round, Nodes, From) end,
                       {Members, 0}, lists:seq(1, Rounds)),
    {Nodes, Written} = Last,
    ct:pal("~b rounds, ~b writes, ~p snapshots", [Rounds, Written, [snapshots(Node) || Node <- Nodes]]),
    ok.

%% Every other time it is the leader that something happens to.
round(Config, Fault, Round, Nodes, From) ->
    Leader = leader(Nodes),
    Victim = case Round rem 2 of
        1 -> Leader;
        0 -> lists:nth(rand:uniform(2), Nodes -- [Leader])
    end,
    Others = Nodes -- [Victim],
    Writers = begin_writing(Config, Nodes, From),
    timer:sleep(rand:uniform(300)),
    After = Fault(Victim, Others),
    {Next, Acknowledged, Unknown} = end_writing(Config, Writers),
    ok = check_store([After | Others], From, Next, Acknowledged, Unknown),
    ct:log("round ~b: ~p, ~b acknowledged, ~b unknown", [Round, cluster_node:name(Victim), length(Acknowledged), length(Unknown)]),
    {[After | Others], Next}.

%% What was acknowledged is there once, what is unknown is there once or not, and all nodes have the same file.
check_store(Nodes, From, Next, Acknowledged, Unknown) ->
    ok = test_processes:eventually(fun() -> add(hd(Nodes), ?RECORDS - 1) =:= ok end),
    Mark = consistent(hd(Nodes)),
    ok = test_processes:eventually(fun() -> lists:all(fun(Node) -> local(Node) =:= Mark end, Nodes) end),
    [Sum, Sum, Sum] = [cluster_node:call(Node, ?MODULE, sum_of_file, []) || Node <- Nodes],
    [Counts, Counts, Counts] = [cluster_node:call(Node, ?MODULE, counts, [From, Next]) || Node <- Nodes],
    Written = maps:from_list(lists:zip(lists:seq(From, Next - 1), Counts)),
    [] = [{lost_or_doubled, N, map_get(N, Written)} || N <- Acknowledged, map_get(N, Written) =/= 1],
    [] = [{doubled, N, map_get(N, Written)} || N <- Unknown, map_get(N, Written) > 1],
    true = length(Acknowledged) > 0,
    Next = From + length(Acknowledged) + length(Unknown),
    ok.

start_stores(Nodes, Config) ->
    _ = [ok = start_store(Node, Config) || Node <- Nodes],
    test_processes:eventually(fun() -> add(hd(Nodes), ?RECORDS - 1) =:= ok end).

start_store(Node, Config) ->
    Names = [cluster_node:name(Member) || Member <- ?config(members, Config)],
    cluster_node:call(Node, ?MODULE, start_store_here, [?config(directory, Config), Names]).

start_store_here(Directory, Names) ->
    {ok, _} = ra:start([{data_dir, Directory}, {wal_max_size_bytes, 16_000_000}]),
    record_store:start(counts, (?STORE)#{nodes => Names}).

leader(Nodes) ->
    {ok, _, {counts, Name}} = cluster_node:call(hd(Nodes), ra, members, [{counts, cluster_node:name(hd(Nodes))}]),
    {value, Leader} = lists:search(fun(Node) -> cluster_node:name(Node) =:= Name end, Nodes),
    Leader.

add(Node, N) -> cluster_node:call(Node, record_store, add, [counts, N, 1]).
local(Node) -> cluster_node:call(Node, record_store, read, [counts, ?RECORDS - 1]).
consistent(Node) -> {ok, _} = cluster_node:call(Node, record_store, consistent_read, [counts, ?RECORDS - 1]).

%% How many snapshots the node has: none or one.
snapshots(Node) ->
    length(filelib:wildcard(snapshot_pattern(Node))).

snapshot_pattern(Node) ->
    Directory = cluster_node:call(Node, application, get_env, [ra, data_dir, "/nowhere"]),
    filename:join([Directory, cluster_node:name(Node), "counts", "snapshots", "*", "description"]).

sum_of_file() ->
    #{data_dir := Directory} = ra_system:fetch(default),
    {ok, Contents} = file:read_file(filename:join([Directory, "counts", "records"])),
    crypto:hash(sha256, Contents).

counts(From, Next) ->
    [begin
         {ok, <<Count:64, _/binary>>} = record_store:read(counts, N),
         Count
     end || N <- lists:seq(From, Next - 1)].

%%% Writers on a node of their own. Each command has a record of its own, so that the record tells how often it was applied.

begin_writing(Config, Nodes, From) ->
    Client = ?config(client, Config),
    Names = [cluster_node:name(Node) || Node <- Nodes],
    ok = cluster_node:call(Client, ?MODULE, begin_writing_here, [self(), Names, From]),
    Client.

end_writing(_Config, Client) ->
    cluster_node:call(Client, ?MODULE, end_writing_here, []).

begin_writing_here(_Test, Names, From) ->
    Parent = spawn(fun() ->
        register(writers, self()),
        Counter = atomics:new(2, []),
        ok = atomics:put(Counter, 1, From),
        Writers = [spawn_monitor(fun() -> exit({done, write(Counter, Names, [], [])}) end) || _ <- lists:seq(1, ?WRITERS)],
        receive
            {stop, Caller} ->
                ok = atomics:put(Counter, 2, 1),
                {Acknowledged, Unknown} = lists:unzip(test_processes:gather(Writers)),
                Caller ! {written, atomics:get(Counter, 1), lists:append(Acknowledged), lists:append(Unknown)}
        end
    end),
    ok = test_processes:eventually(fun() -> whereis(writers) =:= Parent end).

end_writing_here() ->
    Monitor = monitor(process, writers),
    writers ! {stop, self()},
    receive
        {written, Next, Acknowledged, Unknown} ->
            receive {'DOWN', Monitor, process, _, _} -> {Next, Acknowledged, Unknown} end;
        {'DOWN', Monitor, process, _, Reason} ->
            error(Reason)
    end.

write(Counter, Names, Acknowledged, Unknown) ->
    case atomics:get(Counter, 2) of
        1 -> {Acknowledged, Unknown};
        0 ->
            N = atomics:add_get(Counter, 1, 1) - 1,
            Name = lists:nth(rand:uniform(length(Names)), Names),
            try erpc:call(Name, record_store, add, [counts, N, 1], 6000) of
                ok -> write(Counter, Names, [N | Acknowledged], Unknown);
                {error, unknown} -> write(Counter, Names, Acknowledged, [N | Unknown])
            catch
                error:{erpc, _} -> write(Counter, Names, Acknowledged, [N | Unknown]);
                exit:{exception, _} -> write(Counter, Names, Acknowledged, [N | Unknown]);
                error:{exception, Reason, _} -> exit({failed, Reason})
            end
    end.
