%% The snapshots of record_store.erl, as Ra asks for them (its behaviour ra_snapshot): a copy of the file of records, and beside
%% it a file that tells what it is. That one is written when the copy is on the disk, and makes it count.
%%
%% A follower that lags gets the file in chunks of the size that Ra is configured to (`snapshot_chunk_size', a million bytes), and
%% the next one when the one before has arrived. Neither side ever has the file as one term.
%%
%% Ra has changed the arity of two functions between its versions 2.2 and 2.16. Both are here.
-module(record_snapshot).

-export([prepare/2, write/3, write/4, sync/1]).
-export([begin_read/1, begin_read/2, read_chunk/3]).
-export([begin_accept/2, accept_chunk/2, complete_accept/2]).
-export([recover/1, validate/1, read_meta/1]).

%%% Writing one, while commands are applied

prepare(_Meta, #{file := File} = Store) ->
    {record_file:begin_copy(File), record_store:options(Store)}.

%% The copy may know of more commands than the index that Ra calls it by. That does no harm: its own index is in it, and
%% commands that it knows of are left out when the log is read again.
write(Directory, Meta, {Copy, Options}) ->
    ok = record_file:copy(Copy, records(Directory)),
    describe(Directory, Meta, Options).

write(Directory, Meta, Reference, _Sync) ->
    write(Directory, Meta, Reference).

sync(_Directory) ->
    ok. % write/3 has done that

%%% Sending one

begin_read(Directory) ->
    {ok, {Meta, Options}} = description(Directory),
    {ok, Meta, {options, Options}}.

begin_read(Directory, _Context) ->
    begin_read(Directory).

read_chunk({options, _} = Options, _Size, _Directory) ->
    {ok, Options, {next, 0}};
read_chunk(Offset, Size, Directory) ->
    {ok, Device} = file:open(records(Directory), [read, raw, binary]),
    {ok, Chunk} = file:pread(Device, Offset, Size),
    {ok, End} = file:position(Device, eof),
    ok = file:close(Device),
    case Offset + byte_size(Chunk) of
        End -> {ok, Chunk, last};
        Next -> {ok, Chunk, {next, Next}}
    end.

%%% Receiving one

begin_accept(Directory, Meta) ->
    {ok, Device} = file:open(records(Directory), [write, raw, binary]),
    {ok, {Directory, Meta, Device}}.

accept_chunk({options, Options}, {Directory, Meta, Device}) ->
    {ok, {Directory, Meta, Device, Options}};
accept_chunk(Chunk, {_, _, Device, _} = Accepted) ->
    ok = file:write(Device, Chunk),
    {ok, Accepted}.

complete_accept(Chunk, {Directory, Meta, Device, Options}) ->
    ok = file:write(Device, Chunk),
    ok = file:sync(Device),
    ok = file:close(Device),
    describe(Directory, Meta, Options).

%%% Starting with one

%% The directory of the server has the snapshots' directory, which has this one. See record_store:start/2.
recover(Directory) ->
    {ok, {#{index := Index} = Meta, Options}} = description(Directory),
    Server = filename:dirname(filename:dirname(Directory)),
    {ok, Meta, record_store:open(Options#{directory => Server}, {Index, records(Directory)})}.

validate(Directory) ->
    case description(Directory) of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end.

read_meta(Directory) ->
    case description(Directory) of
        {ok, {Meta, _}} -> {ok, Meta};
        {error, _} = Error -> Error
    end.

%%% What makes it count

describe(Directory, Meta, Options) ->
    Text = term_to_binary({Meta, maps:remove(directory, Options)}),
    Path = filename:join(Directory, "description"),
    ok = file:write_file(Path, [<<(erlang:crc32(Text)):32>>, Text], [sync]),
    sync_directory(Directory),
    sync_directory(filename:dirname(Directory)).

description(Directory) ->
    case file:read_file(filename:join(Directory, "description")) of
        {ok, <<Sum:32, Text/binary>>} ->
            case erlang:crc32(Text) of
                Sum -> {ok, binary_to_term(Text)};
                _ -> {error, checksum_error}
            end;
        {ok, _} ->
            {error, invalid_format};
        {error, _} = Error ->
            Error
    end.

sync_directory(Directory) ->
    {ok, Device} = file:open(Directory, [raw, read, directory]),
    ok = file:sync(Device),
    ok = file:close(Device).

records(Directory) ->
    filename:join(Directory, "records").
