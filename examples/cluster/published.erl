%% A large file that never changes (an index, a model, a GeoIP database) on every node of a cluster, mapped, and replaced by a new
%% version while it is read.
%%
%% Shows: which version is current stands in Raft (published_versions.erl). A process on each node gets what it lacks from a node
%% that has it, in chunks, a few of which are under way; checks the sum; syncs, renames, syncs the directory; opens the file; and
%% only then puts the handle where readers find it, in a persistent_term. Until then, and if anything of this fails, the version
%% before is in service. Readers who have a handle or views of it keep them: it is never closed, but collected when nobody holds
%% it, and its blocks are free then, as its name went before. A node that was away catches up, as each looks every second.
%%
%%     {ok, _} = ra:start_in("/var/lib/example/ra"),               % on each node, at every start
%%     {ok, _} = published:start_link(cities, #{nodes => ['a@host', 'b@host', 'c@host'], directory => "/var/lib/example/cities"}),
%%     {ok, Version} = published:publish(cities, "/var/lib/example/new"), % on one of them; the file is moved away from there
%%     {Version, Handle} = published:current(cities),               % on any: wait until it is there
%%     {ok, Before} = published:take_back(cities).                  % the version before again: each node still has it, and no other
%%
%% Limits: the directory and the new file are on one file system. Nothing may write to the files. A node has the current version
%% and the one before. Replacing a persistent_term has every process of the VM looked through once. Nodes trust each other.
%% Contents that went out of use a moment ago are not to be published again at once: a node may be deleting them.
-module(published).

-behaviour(gen_server).

-export([start_link/2, publish/2, take_back/1, current/1]).
-export([chunk/4]). % for other nodes
-export([init/1, handle_info/2, handle_call/3, handle_cast/2]).

-define(CHUNK, (1 bsl 20)).
-define(UNDER_WAY, 4).
-define(LOOK_EVERY, 1000).
-define(PATIENCE, 5000).

start_link(Name, Options) ->
    gen_server:start_link({local, Name}, ?MODULE, {Name, Options}, []).

publish(Name, Path) ->
    {ok, Device} = file:open(Path, [read, raw, binary]),
    {ok, Sum} = sum(Device, crypto:hash_init(sha256)),
    ok = file:close(Device),
    gen_server:call(Name, {publish, Path, #{sum => Sum, size => filelib:file_size(Path), from => node()}}, infinity).

take_back(Name) ->
    published_versions:take_back(versions(Name)).

%% {Version, Handle} of this node, `none' before the first.
current(Name) ->
    persistent_term:get({?MODULE, Name}, none).

%%% The process of each node

init({Name, #{nodes := Nodes, directory := Directory}}) ->
    ok = filelib:ensure_path(Directory),
    ok = persistent_term:put({?MODULE, Name, directory}, Directory),
    ok = published_versions:start(versions(Name), Nodes, Name),
    {ok, #{name => Name, nodes => Nodes, directory => Directory}, 0}.

handle_info(_Look, #{name := Name} = State) ->
    case published_versions:list(versions(Name)) of
        {ok, [{Version, _} = Newest | _] = Versions, Old} ->
            is_current(Version, current(Name)) orelse replace(Newest, Versions, Old, State);
        _ ->
            none
    end,
    {noreply, State, ?LOOK_EVERY}.

%% The file is there before anyone hears of it.
handle_call({publish, Path, #{sum := Sum} = Description}, _From, #{name := Name} = State) ->
    {ok, Device} = file:open(Path, [read, write, raw]),
    ok = put_in_place(Device, Path, path(Name, Sum)),
    {reply, published_versions:publish(versions(Name), Description), State, 0}.

handle_cast(_, State) -> {noreply, State, ?LOOK_EVERY}.

is_current(Version, {Version, _}) -> true;
is_current(_, _) -> false.

%% What fails is tried again at the next look.
replace({Version, #{sum := Sum} = Description}, Versions, Old, #{name := Name} = State) ->
    Path = path(Name, Sum),
    case filelib:is_regular(Path) orelse fetch(Description, Path, State) of
        Got when Got =:= true; Got =:= ok ->
            {ok, Handle} = iommap:open(Path, read, []),
            ok = persistent_term:put({?MODULE, Name}, {Version, Handle}),
            delete_old(Old, Versions, State);
        {error, Reason} ->
            logger:warning("~p: version ~p did not get here: ~p", [Name, Version, Reason])
    end.

%% Only what is known to be old: a file may be here that was published a moment ago.
delete_old(Old, Versions, #{name := Name, directory := Directory}) ->
    Kept = [path(Name, Sum) || {_, #{sum := Sum}} <- Versions],
    Parts = filelib:wildcard(filename:join(Directory, "*.part")),
    _ = [file:delete(Path) || Path <- Parts ++ [path(Name, Sum) || {_, #{sum := Sum}} <- Old], not lists:member(Path, Kept)],
    ok.

%%% Getting a file

%% Of the node that published it, or of another that has it.
fetch(#{from := From} = Description, Path, #{nodes := Nodes, name := Name}) ->
    Others = [From | Nodes -- [From]] -- [node()],
    first_ok(fun(Node) -> fetch_from(Node, Name, Description, Path) end, Others, {error, no_other_node}).

first_ok(_, [], Error) -> Error;
first_ok(Try, [Node | Nodes], _) ->
    case Try(Node) of
        ok -> ok;
        {error, Reason} -> first_ok(Try, Nodes, {error, {Node, Reason}})
    end.

fetch_from(Node, Name, #{sum := Sum, size := Size}, Path) ->
    Part = Path ++ ".part",
    {ok, Device} = file:open(Part, [read, write, raw, binary]),
    try
        ok = allocate(Device, Size), % a full disk is known before anything travels
        Ask = fun(At) -> erpc:send_request(Node, ?MODULE, chunk, [Name, Sum, At, min(?CHUNK, Size - At)]) end,
        Sum = write_chunks(queue:new(), 0, Size, Ask, Device, crypto:hash_init(sha256)), % or it is broken
        ok = put_in_place(Device, Part, Path)
    catch
        _:Reason -> _ = file:close(Device), _ = file:delete(Part), {error, Reason}
    end.

%% The chunks arrive in the order in which they were asked for, and the next is asked for when the first has arrived.
write_chunks(Requests, At, Size, Ask, Device, Hash) ->
    case queue:len(Requests) < ?UNDER_WAY andalso At < Size of
        true ->
            write_chunks(queue:in(Ask(At), Requests), At + ?CHUNK, Size, Ask, Device, Hash);
        false ->
            case queue:out(Requests) of
                {empty, _} ->
                    hex(crypto:hash_final(Hash));
                {{value, Request}, Rest} ->
                    {ok, Chunk} = erpc:receive_response(Request, ?PATIENCE),
                    ok = file:write(Device, Chunk),
                    write_chunks(Rest, At, Size, Ask, Device, crypto:hash_update(Hash, Chunk))
            end
    end.

%% A copy, not a view: what is sent is in memory until it is sent.
chunk(Name, Sum, At, Length) ->
    case file:open(path(Name, Sum), [read, raw, binary]) of
        {ok, Device} ->
            Chunk = file:pread(Device, At, Length),
            ok = file:close(Device),
            Chunk;
        {error, _} = Error ->
            Error
    end.

allocate(Device, Size) ->
    case file:allocate(Device, 0, Size) of
        {error, enotsup} -> ok;
        Result -> Result
    end.

%%% Files

%% A file has its sum for a name. A name without `.part' is a file that is whole and on the disk.
path(Name, Sum) ->
    filename:join(persistent_term:get({?MODULE, Name, directory}), Sum).

put_in_place(Device, From, To) ->
    ok = file:sync(Device),
    ok = file:close(Device),
    ok = file:rename(From, To),
    {ok, Directory} = file:open(filename:dirname(To), [raw, read, directory]),
    ok = file:sync(Directory),
    file:close(Directory).

sum(Device, Hash) ->
    case file:read(Device, ?CHUNK) of
        {ok, Chunk} -> sum(Device, crypto:hash_update(Hash, Chunk));
        eof -> {ok, hex(crypto:hash_final(Hash))};
        {error, _} = Error -> Error
    end.

hex(Sum) ->
    binary_to_list(binary:encode_hex(Sum)).

versions(Name) ->
    list_to_atom(atom_to_list(Name) ++ "_versions").
