%% A constant database (CDB, the format of D. J. Bernstein: https://cr.yp.to/cdb/cdb.txt) that is read in place.
%%
%% Shows: with_view/4. A lookup walks over the mapped file by matching binaries: no byte is copied but the value found, no
%% state is kept, any number of processes may look up at once. A file that loses bytes meanwhile is {error, sigbus}, never a
%% wrong answer. That needs a file that is never rewritten in place: make/2 makes a new one and renames it to the path, and
%% who has the old one open goes on reading that.
%%
%% Does not: notice a new file (open it anew), give a second value of a key, make a file larger than memory or than 4 GiB
%% (the format's limit). A file of another format raises.
%%
%%     export ERL_LIBS=_build/default/lib
%%     escript examples/cdb.erl make FILE KEY=VALUE ...
%%     escript examples/cdb.erl get FILE KEY ...
-module(cdb).
-mode(compile).

-export([main/1]).
-export([open/1, find/2, close/1]).
-export([make/2]).

-define(TABLES, 256).
-define(RECORDS, (8 * ?TABLES)). % they begin behind the places of the tables

main(["make", Path | Pairs]) ->
    make(Path, [list_to_tuple(binary:split(bytes(Pair), <<"=">>)) || Pair <- Pairs]);
main(["get", Path | Keys]) ->
    ok = io:setopts([{encoding, latin1}]),
    {ok, Database} = open(Path),
    [case find(Database, bytes(Key)) of
         {ok, Value} -> io:format("~s=~s~n", [bytes(Key), Value]);
         error -> io:format("~s is not there~n", [bytes(Key)]);
         {error, Reason} -> io:format(standard_error, "~ts~n", [iommap:format_error(Reason)]), halt(1)
     end || Key <- Keys];
main(_) ->
    io:format(standard_error, "usage: cdb.erl make FILE KEY=VALUE ... | get FILE KEY ...~n", []),
    halt(2).

%% An argument as it was typed.
bytes(Argument) ->
    unicode:characters_to_binary(Argument, unicode, file:native_name_encoding()).

%%% Reading

open(Path) ->
    case iommap:open(Path, read, []) of
        {ok, Handle} ->
            ok = iommap:advise(Handle, 0, 0, random),
            {ok, Size} = iommap:position(Handle),
            {ok, {Handle, Size}};
        Error ->
            Error
    end.

close({Handle, _}) ->
    iommap:close(Handle).

%% {ok, Value}, error where there is none, {error, Reason} of the file.
find({Handle, Size}, Key) ->
    case iommap:with_view(Handle, 0, Size, fun(View) -> look_up(View, Key, hash(Key)) end) of
        {ok, Found} -> Found;
        {error, _} = Error -> Error
    end.

look_up(View, Key, Hash) ->
    case pair(View, 8 * (Hash rem ?TABLES)) of
        {_, 0} -> error;
        {Table, Slots} -> probe(View, Key, Hash, Table, Slots, Hash div ?TABLES rem Slots, Slots)
    end.

probe(_, _, _, _, _, _, 0) ->
    error;
probe(View, Key, Hash, Table, Slots, Slot, Left) ->
    case pair(View, Table + 8 * Slot) of
        {_, 0} -> error;
        {Hash, Record} ->
            case record(View, Record) of
                {Key, Value} -> {ok, binary:copy(Value)}; % what outlives the view is a copy
                _ -> probe(View, Key, Hash, Table, Slots, (Slot + 1) rem Slots, Left - 1)
            end;
        _ -> probe(View, Key, Hash, Table, Slots, (Slot + 1) rem Slots, Left - 1)
    end.

pair(View, At) ->
    <<_:At/binary, First:32/little, Second:32/little, _/binary>> = View,
    {First, Second}.

record(View, At) ->
    <<_:At/binary, KeySize:32/little, Size:32/little, Key:KeySize/binary, Value:Size/binary, _/binary>> = View,
    {Key, Value}.

hash(Key) ->
    lists:foldl(fun(Byte, Hash) -> (33 * Hash band 16#ffffffff) bxor Byte end, 5381, binary_to_list(Key)).

%%% Writing

make(Path, Pairs) ->
    Records = [[<<(byte_size(Key)):32/little, (byte_size(Value)):32/little>>, Key, Value] || {Key, Value} <- Pairs],
    {Places, End} = lists:mapfoldl(fun(Record, At) -> {At, At + iolist_size(Record)} end, ?RECORDS, Records),
    Entries = lists:zip([hash(Key) || {Key, _} <- Pairs], Places),
    Tables = [table([Entry || {Hash, _} = Entry <- Entries, Hash rem ?TABLES =:= N]) || N <- lists:seq(0, ?TABLES - 1)],
    {Heads, _} = lists:mapfoldl(fun(Table, At) ->
        {<<At:32/little, (byte_size(Table) div 8):32/little>>, At + byte_size(Table)}
    end, End, Tables),
    New = Path ++ ".new",
    ok = file:write_file(New, [Heads, Records, Tables]),
    ok = file:rename(New, Path).

%% Twice as many slots as entries, an entry in the first free one from its own on.
table(Entries) ->
    Slots = 2 * length(Entries),
    Filled = lists:foldl(fun({Hash, _} = Entry, Table) ->
        Table#{free(Hash div ?TABLES rem Slots, Slots, Table) => Entry}
    end, #{}, Entries),
    << <<Hash:32/little, At:32/little>> || N <- lists:seq(0, Slots - 1), {Hash, At} <- [maps:get(N, Filled, {0, 0})] >>.

free(Slot, Slots, Table) when is_map_key(Slot, Table) -> free((Slot + 1) rem Slots, Slots, Table);
free(Slot, _, _) -> Slot.
