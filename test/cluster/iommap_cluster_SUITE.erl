%% The examples of clusters, on three nodes that are killed, paused and cut off from the others while they are used.
%%
%% `make cluster' runs them. ROUNDS of the environment says how often each fault is made, SIZE how many MiB are published to
%% measure what that costs.
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
    [a_file_of_records_is_whole_after_any_crash,
     a_copy_of_records_is_of_one_moment,
     a_store_survives_kills,
     a_store_survives_pauses,
     a_store_survives_cuts,
     a_node_that_lags_gets_the_file,
     a_store_refuses_what_does_not_fit,
     shards_are_on_the_nodes_that_hashing_names,
     a_publication_survives_kills,
     a_publication_survives_pauses,
     a_publication_survives_cuts,
     a_version_can_be_taken_back,
     a_file_goes_with_its_last_view,
     a_broken_file_is_not_put_in_service,
     a_full_disk_keeps_the_version_before]
    ++ [figures || size() > 0].

%% How many MiB figures/1 publishes.
size() ->
    list_to_integer(os:getenv("SIZE", "0")).

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
            true = code:add_path(Modules),
            [{paths, [Modules | Tests ++ Libraries]} | Config]
    end.

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) when Case =:= a_file_of_records_is_whole_after_any_crash;
                                     Case =:= a_copy_of_records_is_of_one_moment ->
    [{directory, filename:absname(test_files:case_directory(Config))}, {names, []} | Config];
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

%%% The file of records, without a cluster

%% Wherever a VM ends in the middle of a command, the file has it once or not at all, and says so; of a crash of the machine nothing
%% but a snapshot counts.
a_file_of_records_is_whole_after_any_crash(Config) ->
    Path = filename:join(?config(directory, Config), "records"),
    Open = fun(Snapshot) ->
        record_file:open(#{name => alone, directory => ?config(directory, Config), record_size => 16, records => 100}, Snapshot)
    end,
    Put = fun(File, Index, N) -> record_file:write(File, Index, N, <<Index:128>>) end,
    Read = fun(File) -> [begin {ok, <<I:128>>} = record_file:read(record_file:reader(File), N), I end || N <- [1, 2, 3]] end,
    Two = Put(Put(Open(none), 10, 1), 11, 2),
    {ok, <<Head:4096/binary, Ten:4096/binary, _:4096/binary, Records/binary>>} = file:read_file(Path),
    _ = Put(Two, 15, 3),
    Slots = fun(First, Second) ->
        ok = file:write_file(Path, [Head, First, Second, Records]), % records as before command 15
        File = Open(none),
        {record_file:applied(File), Read(File)}
    end,
    {ok, <<_:4096/binary, One:4096/binary, Other:4096/binary, _/binary>>} = file:read_file(Path),
    {15, [10, 11, 15]} = Slots(One, Other), % the slot is there, the record is not
    [{11, [10, 11, 0]} = Slots(Torn, Other) || Torn <- torn(One, Ten)],
    {11, [10, 11, 0]} = Slots(Ten, Other),
    {20, [20, 11, 0]} = begin Again = Put(Open(none), 20, 1), {record_file:applied(Again), Read(Again)} end,
    {20, [20, 11, 0]} = begin Reopened = Open(none), {record_file:applied(Reopened), Read(Reopened)} end,
    %% A crash of the machine.
    Snapshot = Path ++ ".snapshot",
    {ok, _} = file:copy(Path, Snapshot),
    21 = record_file:applied(Put(Open({20, Snapshot}), 21, 1)),
    {21, [21, 11, 0]} = begin Newer = Open({20, Snapshot}), {record_file:applied(Newer), Read(Newer)} end,
    {20, [20, 11, 0]} = begin Older = Open({22, Snapshot}), {record_file:applied(Older), Read(Older)} end,
    {ok, Device} = file:open(Path, [read, write, raw]),
    ok = file:pwrite(Device, 40, "another boot"),
    ok = file:close(Device),
    {20, [20, 11, 0]} = begin Restored = Open({20, Snapshot}), {record_file:applied(Restored), Read(Restored)} end,
    {ok, Rebooted} = file:open(Path, [read, write, raw]),
    ok = file:pwrite(Rebooted, 40, "another boot"),
    ok = file:close(Rebooted),
    {0, [0, 0, 0]} = begin Empty = Open(none), {record_file:applied(Empty), Read(Empty)} end.

%% What is left of a slot if writing it over an older one stops after some bytes.
torn(New, Old) ->
    [<<(binary:part(New, 0, Bytes))/binary, (binary:part(Old, Bytes, byte_size(Old) - Bytes))/binary>> ||
        Bytes <- [1, 6, 13, 14, 30, 37]].

%% A copy has every record as it was when it was begun, whatever is written until it is done.
a_copy_of_records_is_of_one_moment(Config) ->
    Options = #{name => copied, directory => ?config(directory, Config), record_size => 16, records => 200_000},
    Fill = fun(Stamp, File) ->
        lists:foldl(fun(N, Filled) -> record_file:write(Filled, Stamp + N, N, <<Stamp:128>>) end, File, lists:seq(0, 1999))
    end,
    Full = Fill(1, record_file:open(Options, none)),
    {ok, Whole} = file:read_file(filename:join(?config(directory, Config), "records")),
    Copy = record_file:begin_copy(Full),
    To = filename:join(?config(directory, Config), "copy"),
    Half = Fill(3000, Full),
    Copier = spawn_monitor(fun() -> exit({done, record_file:copy(Copy, To)}) end),
    More = Fill(6000, Half),
    [ok] = test_processes:gather([Copier]),
    {ok, Whole} = file:read_file(To),
    %% The next one is of the next moment.
    Next = record_file:begin_copy(More),
    {ok, Later} = file:read_file(filename:join(?config(directory, Config), "records")),
    _ = Fill(9000, More),
    ok = record_file:copy(Next, To),
    {ok, Later} = file:read_file(To).

%%% The store of records

%% A node that is killed and started again loses no write that was acknowledged, and applies none twice.
a_store_survives_kills(Config) -> rounds_of_the_store(kill, Config).

%% The same of a node that does not run for a while, and then goes on as if nothing had been.
a_store_survives_pauses(Config) -> rounds_of_the_store(pause, Config).

%% The same of a node that the others refuse to talk to, and it to them.
a_store_survives_cuts(Config) -> rounds_of_the_store(cut, Config).

%% A node that was away for so long that the log has been cut back gets the file as it is.
a_node_that_lags_gets_the_file(Config) ->
    [First, Second, Third] = Members = ?config(members, Config),
    ok = start_stores(Members, Config),
    ok = cluster_node:kill(Third),
    Writers = begin_writing(Config, [First, Second], 0),
    ok = eventually(fun() -> snapshots(First) > 0 end),
    {Next, Acknowledged, Unknown} = end_writing(Config, Writers),
    Again = start_node(cluster_node:name(Third), Config),
    0 = snapshots(Again),
    ok = start_store(Again, Config),
    ok = check_store([First, Second, Again], 0, Next, Acknowledged, Unknown),
    ?assert(snapshots(Again) > 0).

%% A command that fits no record is refused, and changes nothing.
a_store_refuses_what_does_not_fit(Config) ->
    [Node | _] = Members = ?config(members, Config),
    ok = start_stores(Members, Config),
    Mark = consistent(Node),
    Command = fun(Function, Arguments) -> cluster_node:call(Node, record_store, Function, [counts | Arguments]) end,
    [{error, badarg} = Command(put, [N, Record]) ||
        {N, Record} <- [{0, <<>>}, {0, <<0:(8 * ?RECORD_SIZE + 8)>>}, {-1, <<0:128>>}, {?RECORDS, <<0:128>>}, {0.0, <<0:128>>}]],
    [{error, badarg} = Command(add, [N, Increment]) || {N, Increment} <- [{?RECORDS, 1}, {a, 1}, {0, 1.0}]],
    Mark = consistent(Node),
    ok = Command(put, [0, <<5:64, "contents">>]),
    ok = Command(add, [0, -6]),
    {ok, <<-1:64/signed, "contents">>} = Command(consistent_read, [0]).

%% Each key is in the shard and on the node that all nodes work out, and a node that comes takes only what it wins.
shards_are_on_the_nodes_that_hashing_names(Config) ->
    Members = ?config(members, Config),
    Names = names(Config),
    Options = #{nodes => Names, shards => 6, copies => 1, record_size => ?RECORD_SIZE, records => 100},
    _ = [ok = cluster_node:call(Node, ?MODULE, start_shards_here, [?config(directory, Config), Options]) || Node <- Members],
    Call = fun(Function, Arguments) ->
        cluster_node:call(lists:nth(rand:uniform(3), Members), rendezvous, Function, [sharded | Arguments])
    end,
    _ = [ok = Call(put, [Key, <<Key:64, 0:64>>]) || Key <- lists:seq(0, 599)],
    _ = [{ok, <<Key:64, 0:64>>} = Call(read, [Key]) || Key <- lists:seq(0, 599)],
    _ = [[_] = lists:usort([cluster_node:call(Node, rendezvous, place, [sharded, Key]) || Node <- Members]) || Key <- lists:seq(0, 5)],
    Place = fun(Shard, Nodes, Copies) -> cluster_node:call(hd(Members), rendezvous, nodes, [Shard, Nodes, Copies]) end,
    Places = lists:append([Place(Shard, Names, 1) || Shard <- lists:seq(1, 1000)]),
    true = lists:all(fun(Name) -> length([At || At <- Places, At =:= Name]) > 250 end, Names),
    Many = [list_to_atom("node" ++ integer_to_list(N)) || N <- lists:seq(1, 10)],
    Moved = [New || Shard <- lists:seq(1, 1000), New <- Place(Shard, [new | Many], 3) -- Place(Shard, Many, 3)],
    [new] = lists:usort(Moved),
    true = length(Moved) > 180 andalso length(Moved) < 370. % 1000 shards in 3 copies over 11 nodes: 273

start_shards_here(Directory, Options) ->
    ok = start_ra_here(Directory),
    rendezvous:start(sharded, Options).

%%% Faults

%% What is done to a node meanwhile; the node as it is afterwards. Again starts on it what runs on it.
fault(kill, Victim, _Others, Again, Config) ->
    ok = cluster_node:kill(Victim),
    timer:sleep(rand:uniform(1500)),
    Node = start_node(cluster_node:name(Victim), Config),
    ok = Again(Node),
    Node;
fault(pause, Victim, _Others, _Again, _Config) ->
    ok = cluster_node:pause(Victim),
    timer:sleep(500 + rand:uniform(2500)),
    ok = cluster_node:resume(Victim),
    Victim;
fault(cut, Victim, Others, _Again, Config) ->
    Cut = [cluster_node:name(Node) || Node <- [?config(client, Config) | Others]],
    ok = cluster_node:cut(Victim, Cut),
    timer:sleep(500 + rand:uniform(2500)),
    ok = cluster_node:heal(Victim, Cut),
    Victim.

%% Folds over as many rounds as ROUNDS of the environment says.
rounds(Function, State) ->
    lists:foldl(Function, State, lists:seq(1, list_to_integer(os:getenv("ROUNDS", "2")))).

rounds_of_the_store(Fault, Config) ->
    Members = ?config(members, Config),
    ok = start_stores(Members, Config),
    {Nodes, Written} = rounds(fun(Round, {Nodes, From}) -> round_of_the_store(Fault, Config, Round, Nodes, From) end,
                              {Members, 0}),
    told("~s: ~b writes, ~p snapshots on the nodes", [Fault, Written, [snapshots(Node) || Node <- Nodes]]).

%% Every other time it is the leader that something happens to.
round_of_the_store(Fault, Config, Round, Nodes, From) ->
    Leader = leader(Nodes),
    Victim = case Round rem 2 of
        1 -> Leader;
        0 -> lists:nth(rand:uniform(2), Nodes -- [Leader])
    end,
    Others = Nodes -- [Victim],
    Writers = begin_writing(Config, Nodes, From),
    timer:sleep(rand:uniform(300)),
    After = fault(Fault, Victim, Others, fun(Node) -> start_store(Node, Config) end, Config),
    {Next, Acknowledged, Unknown} = end_writing(Config, Writers),
    ok = check_store([After | Others], From, Next, Acknowledged, Unknown),
    ct:log("round ~b: ~p, ~b acknowledged, ~b unknown", [Round, cluster_node:name(Victim), length(Acknowledged), length(Unknown)]),
    {[After | Others], Next}.

told(Format, Arguments) ->
    io:format(user, "cluster: " ++ Format ++ "~n", Arguments).

%% What was acknowledged is there once, what is unknown is there once or not, and all nodes have the same file.
check_store(Nodes, From, Next, Acknowledged, Unknown) ->
    ok = eventually(fun() -> add(hd(Nodes), ?RECORDS - 1) =:= ok end),
    Mark = consistent(hd(Nodes)),
    ok = eventually(fun() -> lists:all(fun(Node) -> local(Node) =:= Mark end, Nodes) end),
    %% A command that nobody answered in time may still come to one after another.
    ok = eventually(fun() -> length(lists:usort([cluster_node:call(Node, ?MODULE, sum_of_file, []) || Node <- Nodes])) =:= 1 end),
    [Counts, Counts, Counts] = [cluster_node:call(Node, ?MODULE, counts, [From, Next]) || Node <- Nodes],
    Written = maps:from_list(lists:zip(lists:seq(From, Next - 1), Counts)),
    [] = [{lost_or_doubled, N, map_get(N, Written)} || N <- Acknowledged, map_get(N, Written) =/= 1],
    [] = [{doubled, N, map_get(N, Written)} || N <- Unknown, map_get(N, Written) > 1],
    true = length(Acknowledged) > 0,
    Next = From + length(Acknowledged) + length(Unknown),
    ok.

%% Two minutes stand for never: elections and disks take their time on a busy machine.
eventually(Condition) -> eventually(Condition, 4).

eventually(Condition, Times) ->
    try
        test_processes:eventually(Condition)
    catch
        error:never when Times > 1 -> eventually(Condition, Times - 1)
    end.

start_stores(Nodes, Config) ->
    _ = [ok = start_store(Node, Config) || Node <- Nodes],
    eventually(fun() -> add(hd(Nodes), ?RECORDS - 1) =:= ok end).

start_store(Node, Config) ->
    cluster_node:call(Node, ?MODULE, start_store_here, [?config(directory, Config), names(Config)]).

names(Config) ->
    lists:sublist(?config(names, Config), 3).

start_store_here(Directory, Names) ->
    ok = start_ra_here(Directory),
    record_store:start(counts, maps:put(nodes, Names, ?STORE)).

start_ra_here(Directory) ->
    case ra_system:fetch(default) of
        undefined -> {ok, _} = ra:start([{data_dir, Directory}, {wal_max_size_bytes, 16_000_000}]), ok;
        _ -> ok
    end.

leader(Nodes) ->
    {ok, _, {counts, Name}} = cluster_node:call(hd(Nodes), ra, members, [{counts, cluster_node:name(hd(Nodes))}]),
    {value, Leader} = lists:search(fun(Node) -> cluster_node:name(Node) =:= Name end, Nodes),
    Leader.

add(Node, N) -> cluster_node:call(Node, record_store, add, [counts, N, 1]).
local(Node) -> cluster_node:call(Node, record_store, read, [counts, ?RECORDS - 1]).
consistent(Node) ->
    case cluster_node:call(Node, record_store, consistent_read, [counts, ?RECORDS - 1]) of
        {error, unknown} -> consistent(Node); % there is no leader for a moment
        Result -> Result
    end.

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
    ok = eventually(fun() -> whereis(writers) =:= Parent end).

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
            try erpc:call(Name, record_store, add, [counts, N, 1], 1000) of
                ok -> write(Counter, Names, [N | Acknowledged], Unknown);
                {error, unknown} -> write(Counter, Names, Acknowledged, [N | Unknown])
            catch
                error:{erpc, _} -> write(Counter, Names, Acknowledged, [N | Unknown]);
                exit:{exception, _} -> write(Counter, Names, Acknowledged, [N | Unknown]);
                error:{exception, Reason, _} -> exit({failed, Reason})
            end
    end.

%%% The published data set. Every word of a version is the version's stamp.

-define(SET_SIZE, (16 bsl 20)).

%% Versions reach all nodes whatever happens to one of them, and no reader ever sees two of them at once, or an error.
a_publication_survives_kills(Config) -> rounds_of_publication(kill, Config).

a_publication_survives_pauses(Config) -> rounds_of_publication(pause, Config).

a_publication_survives_cuts(Config) -> rounds_of_publication(cut, Config).

rounds_of_publication(Fault, Config) ->
    Members = ?config(members, Config),
    ok = start_sets(Members, Config),
    {Nodes, Reads} = rounds(fun(Round, {Nodes, Reads}) ->
        {After, More} = round_of_publication(Fault, Config, Round, Nodes),
        {After, Reads + More}
    end, {Members, 0}),
    told("~s: publication, ~b reads on ~b nodes", [Fault, Reads, length(Nodes)]).

%% Every other time something happens to the node that published, while it sends, and else to one that receives.
round_of_publication(Fault, Config, Round, Nodes) ->
    Victim = lists:nth(rand:uniform(3), Nodes),
    Others = Nodes -- [Victim],
    _ = [ok = cluster_node:call(Node, ?MODULE, begin_reading_here, []) || Node <- Nodes],
    _ = case Round rem 2 of
        1 -> ok = publish(Victim, Config, Round);
        0 -> ok = publish(hd(Others), Config, Round)
    end,
    timer:sleep(rand:uniform(40) - 1),
    After = fault(Fault, Victim, Others, fun(Node) -> start_set(Node, Config) end, Config),
    ok = everywhere([After | Others], Round),
    Alive = [After || Fault =/= kill] ++ Others,
    Reads = [cluster_node:call(Node, ?MODULE, end_reading_here, []) || Node <- Alive],
    {[After | Others], lists:sum([Count || {Count, _Longest} <- Reads])}.

%% A version that was taken back is out of service on all nodes, and the one before is in.
a_version_can_be_taken_back(Config) ->
    [First, Second | _] = Nodes = ?config(members, Config),
    ok = start_sets(Nodes, Config),
    {error, none} = cluster_node:call(Second, published, take_back, [data]),
    ok = publish(First, Config, 1),
    ok = everywhere(Nodes, 1),
    ok = publish(First, Config, 2),
    ok = everywhere(Nodes, 2),
    {ok, _} = cluster_node:call(Second, published, take_back, [data]),
    ok = everywhere(Nodes, 1),
    {error, none} = cluster_node:call(Second, published, take_back, [data]),
    ok = publish(Second, Config, 3),
    ok = everywhere(Nodes, 3).

%% The file of an old version has no name any more, and no blocks either when the last view of it has gone.
a_file_goes_with_its_last_view(Config) ->
    [Node | _] = Nodes = ?config(members, Config),
    ok = start_sets(Nodes, Config),
    ok = publish(Node, Config, 1),
    ok = everywhere(Nodes, 1),
    ok = cluster_node:call(Node, ?MODULE, hold_a_view_here, []),
    _ = [begin ok = publish(Node, Config, Stamp), ok = everywhere(Nodes, Stamp) end || Stamp <- [2, 3]],
    ok = eventually(fun() -> length(set_files(Node, Config)) =:= 2 end),
    [_ | _] = cluster_node:call(Node, ?MODULE, deleted_here, []),
    1 = cluster_node:call(Node, ?MODULE, release_view_here, []),
    ok = eventually(fun() -> cluster_node:call(Node, ?MODULE, deleted_here, []) =:= [] end).

%% A file whose bytes are not what was published stays out of service where it would have arrived.
a_broken_file_is_not_put_in_service(Config) ->
    [First, Second, Third] = Nodes = ?config(members, Config),
    ok = start_sets(Nodes, Config),
    ok = publish(First, Config, 1),
    ok = everywhere(Nodes, 1),
    ok = cluster_node:call(First, ?MODULE, publish_broken_here, [set_directory(First, Config)]),
    ok = eventually(fun() -> stamp(First) =:= 2 end), % the one that broke it has it
    receive after 2500 -> ok end, % the others have tried several times
    [1, 1] = [stamp(Node) || Node <- [Second, Third]],
    [1, 1] = [length([Name || Name <- set_files(Node, Config), filename:extension(Name) =/= ".part"]) || Node <- [Second, Third]],
    {ok, _} = cluster_node:call(Second, published, take_back, [data]),
    ok = everywhere(Nodes, 1).

%% A node without room stays at the version before, and gets the new one when there is room.
a_full_disk_keeps_the_version_before(Config) ->
    [First, Second, Third] = Nodes = ?config(members, Config),
    Directory = set_directory(Third, Config),
    ok = filelib:ensure_path(Directory),
    case test_system:is_root() andalso test_system:shell(["mount -t tmpfs -o size=40m none ", Directory]) of
        {0, _} ->
            try
                ok = start_sets(Nodes, Config),
                ok = publish(First, Config, 1),
                ok = everywhere(Nodes, 1),
                Ballast = filename:join(Directory, "ballast"),
                ok = file:write_file(Ballast, binary:copy(<<1>>, 20 bsl 20)),
                ok = publish(First, Config, 2),
                ok = everywhere([First, Second], 2),
                receive after 2500 -> ok end, % it has tried several times
                1 = stamp(Third),
                ok = file:delete(Ballast),
                ok = everywhere(Nodes, 2)
            after
                ok = cluster_node:kill(Third),
                {0, _} = test_system:shell(["umount -l ", Directory])
            end;
        Not ->
            {skip, lists:flatten(io_lib:format("no small file system: ~p", [Not]))}
    end.

start_sets(Nodes, Config) ->
    _ = [ok = start_set(Node, Config) || Node <- Nodes],
    eventually(fun() -> cluster_node:call(hd(Nodes), published, take_back, [data]) =:= {error, none} end).

start_set(Node, Config) ->
    cluster_node:call(Node, ?MODULE, start_set_here, [?config(directory, Config), set_directory(Node, Config), names(Config)]).

start_set_here(Directory, Set, Names) ->
    ok = start_ra_here(Directory),
    {ok, Process} = published:start_link(data, #{nodes => Names, directory => Set}),
    true = unlink(Process), % of the call that ends here
    ok.

set_directory(Node, Config) ->
    filename:join([?config(directory, Config), cluster_node:name(Node), "set"]).

set_files(Node, Config) ->
    {ok, Names} = file:list_dir(set_directory(Node, Config)),
    Names.

everywhere(Nodes, Stamp) ->
    try
        eventually(fun() -> lists:all(fun(Node) -> stamp(Node) =:= Stamp end, Nodes) end)
    catch
        error:never -> error({not_everywhere, Stamp, [cluster_node:call(Node, ?MODULE, set_here, []) || Node <- Nodes]})
    end.

%% What tells why a version is not there.
set_here() ->
    Directory = persistent_term:get({published, data, directory}),
    {node(), nodes(), catch stamp_here(), whereis(data), published_versions:list(data_versions), file:list_dir(Directory)}.

%% Publishes a version, as often as it takes until a majority has it.
publish(Node, Config, Stamp) ->
    New = set_directory(Node, Config) ++ ".new",
    ok = file:write_file(New, binary:copy(<<Stamp:64>>, ?SET_SIZE div 8)),
    case cluster_node:call(Node, published, publish, [data, New]) of
        {ok, _Version} -> ok;
        {error, unknown} -> publish(Node, Config, Stamp)
    end.

publish_broken_here(Directory) ->
    Good = binary:copy(<<2:64>>, ?SET_SIZE div 8),
    Sum = binary_to_list(binary:encode_hex(crypto:hash(sha256, Good))),
    ok = file:write_file(filename:join(Directory, Sum), [binary:part(Good, 0, ?SET_SIZE - 1), 3]),
    {ok, _} = published_versions:publish(data_versions, #{sum => Sum, size => ?SET_SIZE, from => node()}),
    ok.

stamp(Node) ->
    cluster_node:call(Node, ?MODULE, stamp_here, []).

stamp_here() ->
    case published:current(data) of
        none -> none;
        {_, Handle} -> {ok, <<Stamp:64>>} = iommap:pread(Handle, 0, 8), Stamp
    end.

hold_a_view_here() ->
    Self = self(),
    Holder = spawn(fun() ->
        {_, Handle} = published:current(data),
        {ok, View} = iommap:region_binary(Handle, 0, ?SET_SIZE),
        Self ! {self(), held},
        receive {release, From} -> <<Stamp:64, _/binary>> = View, From ! {stamp, Stamp} end
    end),
    true = register(holder, Holder),
    receive {Holder, held} -> ok end.

release_view_here() ->
    holder ! {release, self()},
    receive {stamp, Stamp} -> Stamp end.

%% The files without a name that are mapped here.
deleted_here() ->
    _ = [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, Maps} = file:read_file("/proc/self/maps"),
    [Line || Line <- binary:split(Maps, <<"\n">>, [global]), binary:match(Line, <<"/set/">>) =/= nomatch,
             binary:match(Line, <<"(deleted)">>) =/= nomatch].

%%% A reader

begin_reading_here() ->
    Reader = spawn(fun() -> read_versions(0, 0, #{}, published:current(data)) end),
    true = register(reader, Reader),
    ok.

end_reading_here() ->
    Monitor = monitor(process, reader),
    reader ! {stop, self()},
    receive
        {'DOWN', Monitor, process, _, {read, Count, Longest}} -> {Count, Longest};
        {'DOWN', Monitor, process, _, Reason} -> error(Reason)
    end.

%% A call is: to find the handle, and to read words of the version all over the file without a copy. Every other one reads through a
%% handle that was found a while ago.
read_versions(Count, Longest, Seen, Held) ->
    receive
        {stop, _} -> exit({read, Count, Longest})
    after 0 ->
        Start = erlang:monotonic_time(microsecond),
        case if Count rem 2 =:= 0 -> published:current(data); true -> Held end of
            none ->
                read_versions(Count, Longest, Seen, published:current(data));
            {Version, Handle} = Found ->
                {ok, [Stamp]} = iommap:with_view(Handle, 0, ?SET_SIZE, fun stamps/1),
                Took = erlang:monotonic_time(microsecond) - Start,
                Stamp = maps:get(Version, Seen, Stamp),
                Hold = if Count rem 20_000 =:= 0 -> Found; true -> Held end,
                read_versions(Count + 1, max(Longest, Took), Seen#{Version => Stamp}, Hold)
        end
    end.

stamps(View) ->
    Places = [0, ?SET_SIZE - 8 | [8 * (rand:uniform(?SET_SIZE div 8) - 1) || _ <- lists:seq(1, 20)]],
    lists:usort([binary:decode_unsigned(binary:copy(binary:part(View, Place, 8))) || Place <- Places]).

%%% Figures. They are printed, and decide nothing, but for the memory that a node may take.

%% What the store and a publication cost. They are left out unless SIZE of the environment says how many MiB to publish.
figures(Config) ->
    [First, Second, Third] = Nodes = ?config(members, Config),
    ok = start_stores(Nodes, Config),
    ok = start_sets(Nodes, Config),
    Leader = leader(Nodes),
    Here = fun(Node, Function, Arguments) -> cluster_node:call(Node, ?MODULE, Function, Arguments) end,
    [Read, OfReader, Floor] = Here(Leader, reads_here, []),
    told("a read of 16 bytes by pread/3: ~.1f ns; of the store: ~.1f ns (~.2f), with its reader at hand: ~.1f ns (~.2f)",
         [Floor, Read, Read / Floor, OfReader, OfReader / Floor]),
    ok = Here(Leader, start_single_here, []),
    _ = [begin
             [{_, Cluster}, {_, Single}] = [{Name, Here(Leader, writes_here, [Name, Writers])} || Name <- [counts, single]],
             told("~b writers on the leader: ~b writes a second on three nodes, ~b with one", [Writers, Cluster, Single])
         end || Writers <- [1, 16, 128]],

    %% The version that readers have while the large one is published.
    ok = publish(First, Config, 1),
    ok = everywhere(Nodes, 1),
    Longest = fun(Function) ->
        ok = Here(Second, begin_reading_here, []),
        Function(),
        {Count, Microseconds} = Here(Second, end_reading_here, []),
        {Count, Microseconds / 1000}
    end,
    ok = publish(First, Config, 2),
    ok = everywhere(Nodes, 2),
    {ok, [{_, One}, {_, Other}], _} = cluster_node:call(First, published_versions, list, [data_versions]),
    Swap = fun(Description) ->
        {ok, Version} = cluster_node:call(First, published_versions, publish, [data_versions, Description]),
        wait_for_version(Nodes, Version)
    end,
    Longests = fun() ->
        Runs = [{Longest(fun() -> timer:sleep(2000) end),
                 Longest(fun() ->
                     [begin ok = Swap(Description), timer:sleep(50) end || _ <- lists:seq(1, 10), Description <- [Other, One]]
                 end)}
                || _ <- lists:seq(1, 9)],
        [lists:nth(N, lists:sort([element(2, element(Index, Pair)) || Pair <- Runs])) || Index <- [1, 2], N <- [1, 5]]
    end,
    told("the longest call of a reader in 9 runs, least and median: ~.2f and ~.2f ms without a swap, ~.2f and ~.2f ms with 20", Longests()),
    GiveWay = fun(Whether) -> _ = [ok = cluster_node:give_way(Node, Whether) || Node <- [First, Third]] end,
    _ = GiveWay(true),
    told("the same while the other two nodes give way: ~.2f and ~.2f ms, ~.2f and ~.2f ms with 20", Longests()),
    _ = GiveWay(false),

    Size = size() bsl 20,
    New = set_directory(First, Config) ++ ".large",
    ok = Here(First, make_large_here, [New, Size]),
    Copied = Here(First, copies_here, [New, false]),
    Synced = Here(First, copies_here, [New, true]),
    Before = [cluster_node:memory(Node) || Node <- Nodes],
    Watch = spawn_monitor(fun() -> watch_memory(Nodes, Before) end),
    Start = erlang:monotonic_time(millisecond),
    {ok, Version} = cluster_node:call(First, published, publish, [data, New]),
    ok = wait_for_version([Second, Third], Version),
    Took = erlang:monotonic_time(millisecond) - Start,
    element(1, Watch) ! stop,
    [Most] = test_processes:gather([Watch]),
    Grown = [(Now - Then) / (1 bsl 20) || {Now, Then} <- lists:zip(Most, Before)],
    told("~b MiB to two nodes: ~b ms; file:copy to two files and their sums: ~b ms (~.2f), synced: ~b ms (~.2f)",
         [Size bsr 20, Took, Copied, Took / Copied, Synced, Took / Synced]),
    told("memory of the three VMs grew by ~.1f, ~.1f and ~.1f MiB", Grown),
    true = lists:max(Grown) =< 64.

wait_for_version(Nodes, Version) ->
    Now = [cluster_node:call(Node, published, current, [data]) || Node <- Nodes],
    case lists:all(fun({V, _}) -> V >= Version end, Now) of
        true -> ok;
        false -> timer:sleep(5), wait_for_version(Nodes, Version)
    end.

watch_memory(Nodes, Most) ->
    receive
        stop -> exit({done, Most})
    after 10 ->
        watch_memory(Nodes, [max(Old, cluster_node:memory(Node)) || {Old, Node} <- lists:zip(Most, Nodes)])
    end.

start_single_here() ->
    record_store:start(single, maps:put(nodes, [node()], ?STORE)).

%% Nanoseconds of a read of the store, of one with its reader, and of pread/3: medians of runs that take turns.
reads_here() ->
    {Handle, ?RECORD_SIZE} = Reader = record_store:reader(counts),
    Ways = [fun(N) -> {ok, _} = record_store:read(counts, N) end,
            fun(N) -> {ok, _} = record_file:read(Reader, N) end,
            fun(N) -> {ok, _} = iommap:pread(Handle, 3 * 4096 + 16 * N, 16) end],
    Runs = [[timed(Way) || Way <- Ways] || _ <- lists:seq(1, 25)],
    [lists:nth(13, lists:sort([lists:nth(Way, Run) || Run <- Runs])) || Way <- [1, 2, 3]].

timed(Function) ->
    Times = 200_000,
    Start = erlang:monotonic_time(nanosecond),
    ok = repeat(Function, Times),
    (erlang:monotonic_time(nanosecond) - Start) / Times.

repeat(_, 0) -> ok;
repeat(Function, N) -> Function(N), repeat(Function, N - 1).

%% Writes a second.
writes_here(Name, Writers) ->
    Until = erlang:monotonic_time(millisecond) + 3000,
    Done = test_processes:together([fun() -> write_until(Name, Until, 0) end || _ <- lists:seq(1, Writers)]),
    round(lists:sum(Done) / 3).

write_until(Name, Until, Done) ->
    case erlang:monotonic_time(millisecond) < Until of
        true -> ok = record_store:add(Name, ?RECORDS - 1, 1), write_until(Name, Until, Done + 1);
        false -> Done
    end.

make_large_here(Path, Size) ->
    Block = crypto:strong_rand_bytes(1 bsl 20),
    {ok, Device} = file:open(Path, [write, raw]),
    _ = [ok = file:write(Device, [<<N:64>>, binary:part(Block, 8, (1 bsl 20) - 8)]) || N <- lists:seq(1, Size bsr 20)],
    ok = file:sync(Device),
    file:close(Device).

%% Milliseconds of two copies and their sums.
copies_here(Path, Sync) ->
    Copies = [Path ++ ".1", Path ++ ".2"],
    Start = erlang:monotonic_time(millisecond),
    _ = [begin
             {ok, _} = file:copy(Path, Copy),
             {ok, Device} = file:open(Copy, [read, write, raw, binary]),
             _ = sum_here(Device, crypto:hash_init(sha256)),
             Sync andalso file:sync(Device),
             ok = file:close(Device)
         end || Copy <- Copies],
    Took = erlang:monotonic_time(millisecond) - Start,
    ok = lists:foreach(fun file:delete/1, Copies),
    Took.

sum_here(Device, Hash) ->
    case file:read(Device, 1 bsl 20) of
        {ok, Chunk} -> sum_here(Device, crypto:hash_update(Hash, Chunk));
        eof -> crypto:hash_final(Hash)
    end.
