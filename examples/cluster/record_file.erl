%% A file of fixed-size records that remembers which command of a log it applied last: the state of record_store.erl.
%%
%% Shows: a write that a `kill -9` at any moment leaves done once. The file begins with a page that describes it, and two slots,
%% which are written in turn. One call of iommap:pwrite/2 writes a slot (the index of the command, the number of the record, its
%% new bytes, and a sum of these), and then the record. If the slot is torn, its sum tells, and the command was not begun. If it
%% is whole, the record may be torn: opening writes it again from the slot.
%%
%% After a crash of the machine the file is worth nothing, because the system writes pages back in any order. So the first page
%% names the boot that the file was written in, and a file of another boot is replaced by the last snapshot. Nothing has to be
%% synced but snapshots. (Where the system does not tell its boot, every start begins with the snapshot.)
%%
%% copy/2 makes a snapshot while writes go on: whoever changes a record meanwhile keeps what it was (before images, in an ETS
%% table), and the copy gets these at its end. It is a plain copy; where `cp --reflink` works, that may take its place.
%%
%% Limits: records of 8 to 4000 bytes; one process writes; any process reads.
-module(record_file).

-export([open/2, applied/1, write/4, reader/1, read/2]).
-export([begin_copy/1, copy/2]).

-define(PAGE, 4096).
-define(RECORDS, (3 * ?PAGE)). % they begin behind the description and the slots

%% Opens the file in the directory, or makes it: empty, or of a snapshot, `{Index, Path}', that has all commands up to Index.
%%
%% The options: `name', an atom that no other file of this VM has; `directory'; `record_size', in bytes; `records', how many.
open(#{name := Name, directory := Directory} = Options, Snapshot) ->
    Path = filename:join(Directory, "records"),
    File = case recover(Path, Options) of
        #{applied := Applied} = Found when Snapshot =:= none orelse Applied >= element(1, Snapshot) -> Found;
        _ -> ok = make(Path, Snapshot, Options), recover(Path, Options)
    end,
    Before = list_to_atom("before images of " ++ atom_to_list(Name)),
    ets:whereis(Before) =:= undefined orelse ets:delete(Before),
    File#{before => ets:new(Before, [named_table, public])}.

%% The index of the last command.
applied(#{applied := Applied}) -> Applied.

%% Applies command Index, which makes Record of record N.
write(#{handle := Handle, record_size := Size, slot := Slot} = File, Index, N, Record) ->
    keep_before_image(File, N),
    ok = iommap:pwrite(Handle, [{slot_offset(Slot), slot(Index, N, Record)}, {?RECORDS + N * Size, Record}]),
    File#{applied := Index, slot := 1 - Slot}.

%% What read/2 needs. Any process may use it; a snapshot that is installed later is another file.
reader(#{handle := Handle, record_size := Size}) ->
    {Handle, Size}.

%% Record N, from 0 on; {error, out_of_bounds} behind the last.
read({Handle, Size}, N) when N >= 0 ->
    iommap:pread(Handle, ?RECORDS + N * Size, Size).

%%% Opening

%% The file as it is, if it is one of this boot with these options.
recover(Path, Options) ->
    case file:open(Path, [read, binary, raw]) of
        {ok, Device} ->
            Description = file:pread(Device, 0, byte_size(description(Options))),
            ok = file:close(Device),
            case Description =:= {ok, description(Options)} of
                true -> redo(Path, Options);
                false -> none
            end;
        {error, enoent} ->
            none
    end.

redo(Path, #{record_size := Size} = Options) ->
    {ok, Handle} = iommap:open(Path, read_write, []),
    {{Applied, N, Record}, Newest} = lists:max([{slot_of(Handle, Slot), Slot} || Slot <- [0, 1]]),
    Applied =:= 0 orelse (ok = iommap:pwrite(Handle, ?RECORDS + N * Size, Record)),
    Options#{handle => Handle, path => Path, applied => Applied, slot => 1 - Newest}.

slot_of(Handle, Slot) ->
    {ok, <<Sum:32, Size:16, Rest/binary>>} = iommap:pread(Handle, slot_offset(Slot), ?PAGE),
    case Rest of
        <<Contents:(16 + Size)/binary, _/binary>> ->
            case erlang:crc32(Contents) of
                Sum -> <<Index:64, N:64, Record/binary>> = Contents, {Index, N, Record};
                _ -> {0, 0, <<>>}
            end;
        _ ->
            {0, 0, <<>>}
    end.

slot(Index, N, Record) ->
    Contents = [<<Index:64, N:64>>, Record],
    [<<(erlang:crc32(Contents)):32, (byte_size(Record)):16>>, Contents].

slot_offset(Slot) ->
    ?PAGE * (1 + Slot).

make(Path, Snapshot, #{record_size := Size, records := Records} = Options) when Size >= 8, Size =< 4000 ->
    New = filename:join(filename:dirname(Path), "records.new"),
    ok = filelib:ensure_dir(New),
    Snapshot =:= none orelse ({ok, _} = file:copy(element(2, Snapshot), New)),
    {ok, Handle} = iommap:open(New, read_write, [create, {size, ?RECORDS + Size * Records}] ++ [truncate || Snapshot =:= none]),
    ok = iommap:pwrite(Handle, 0, description(Options)),
    ok = iommap:close(Handle),
    ok = file:rename(New, Path). % whoever reads the file that was there goes on with that

description(#{record_size := Size, records := Records}) ->
    <<"records 1", Size:64, Records:64, (boot())/binary>>.

boot() ->
    case file:read_file("/proc/sys/kernel/random/boot_id") of
        {ok, Id} -> Id;
        {error, _} -> list_to_binary(ref_to_list(make_ref()) ++ os:getpid())
    end.

%%% Copying

%% Keeps what records are from now on. To be called by the process that writes; gives what copy/2 needs.
begin_copy(#{before := Before, path := Path, handle := Handle}) ->
    Copy = make_ref(),
    {ok, Head} = iommap:pread(Handle, 0, ?RECORDS),
    true = ets:delete_all_objects(Before),
    true = ets:insert(Before, {copying, Copy}),
    {Copy, Before, Path, Head}.

keep_before_image(#{before := Before} = File, N) ->
    case ets:lookup(Before, copying) of
        [] -> true;
        [{copying, Copy}] -> {ok, Record} = read(reader(File), N), ets:insert_new(Before, {{Copy, N}, Record})
    end.

%% Makes a durable copy of the file as it was when begin_copy/1 was called. Of use to any process; raises if another copy was
%% begun meanwhile.
copy({Copy, Before, Path, Head}, To) ->
    {ok, _} = file:copy(Path, To),
    <<"records 1", Size:64, _/binary>> = Head,
    Changed = [{?RECORDS + N * Size, Record} || [N, Record] <- ets:match(Before, {{Copy, '$1'}, '$2'})],
    [{copying, Copy}] = ets:lookup(Before, copying),
    true = ets:match_delete(Before, {{Copy, '_'}, '_'}),
    true = ets:delete_object(Before, {copying, Copy}),
    {ok, Device} = file:open(To, [read, write, raw, binary]),
    ok = file:pwrite(Device, [{0, Head} | Changed]),
    ok = file:sync(Device),
    ok = file:close(Device).
