%% @doc Mapped files for the {@link file} module.
%%
%% {@link open/2} gives what `file:open/2' gives with `raw': a file for `file:read/2', `file:pread/3', `file:read_line/1',
%% `file:write/2', `file:position/2', `file:copy/2' and the others, but also for `erl_tar' and all that takes an open file
%% in mode `raw'. Answers and errors are those of a raw file. Bytes that are in the mapping are read and written there, which
%% takes a fraction of the time; all others go through the file's descriptor, so the file has its exact size at every moment, and a
%% crash of the VM loses no more than it does of a raw file. The mapping follows a file that gets longer, whoever writes it.
%%
%% There is no process. Unlike a raw file, a device may be used by any process, is not closed with the process that opened it
%% but when nobody refers to it, and has no buffers. Its position is shared by all processes that use it; a call that uses the
%% position excludes others from it until it is done.
%%
%% A file that another process cuts reads as `eof' from where it ends; a disk that fails gives `{error, eio}'.
%%
%% ```
%% {ok, Device} = iommap_file:open("words", [read, write, binary]),
%% ok = file:write(Device, <<"alpha\nbeta\n">>),
%% {ok, <<"beta">>} = file:pread(Device, 6, 4),
%% {ok, 0} = file:position(Device, bof),
%% {ok, <<"alpha\n">>} = file:read_line(Device),
%% ok = file:close(Device).
%% '''
-module(iommap_file).

-include_lib("kernel/include/file.hrl").

-export([open/2, from/1]).
%% The rest is what `file' calls.
-export([
    close/1,
    read/2,
    read_line/1,
    pread/2, pread/3,
    write/2,
    pwrite/2, pwrite/3,
    position/2,
    truncate/1,
    sync/1,
    datasync/1,
    advise/4,
    allocate/3,
    copy/3,
    ipread_s32bu_p32bu/3,
    sendfile/8,
    read_file_info/1, read_file_info/2,
    read_handle_info/1, read_handle_info/2
]).
-export_type([device/0, mode/0]).

%% More bytes than the VM may copy on a normal scheduler to show them to a NIF, as in `iommap'.
-define(LONG, 65536).
-define(IS_INT64(Number), Number >= -(1 bsl 63), Number < 1 bsl 63).
%% What is no bignum is compared first with what is none: a hundred instructions less.
-define(IS_OFFSET(Number), is_integer(Number), Number >= 0, (Number < (1 bsl 59) - 1 orelse Number < 1 bsl 63)).
-define(DEVICE(Type, Device), #file_descriptor{module = ?MODULE, data = {Type, Device}}).

-type device() :: #file_descriptor{}.
%% A device, as `file:fd/0'.

-type mode() :: read | write | append | exclusive | sync | binary | list | raw | read_ahead | {read_ahead, pos_integer()}
    | delayed_write | {delayed_write, non_neg_integer(), non_neg_integer()}.
%% As in `file:mode/0'. `raw', `read_ahead' and `delayed_write' are accepted and change nothing: there is no process and no buffer.
%% A device with `append' or `sync' writes through its descriptor.

%% @doc Opens a file as `file:open(Path, [raw | Modes])' does, and maps it if it is not empty; otherwise as soon as it is not.
%%
%% Reads give strings, or binaries with `binary', as those of raw files do. Modes without `write', `append' and `exclusive' open
%% for reading. What `file:open/2' ignores is ignored. Answers `{error, badarg}' for `compressed', `compressed_one', `ram',
%% `directory' and any `encoding'; `{error, einval}' for what is neither a regular file nor a block device; otherwise the
%% errors of `file:open/2'.
-spec open(file:name_all(), [mode()]) -> {ok, device()} | {error, file:posix() | badarg}.
open(Path, Modes) ->
    case native_path(Path) of
        {ok, Name} ->
            try [lists:member(Mode, Modes) || Mode <- [read, write, append, exclusive, binary]] of
                [Read, Write, Append, Exclusive, Binary] ->
                    Writes = Write orelse Append orelse Exclusive,
                    Reads = Read orelse not Writes,
                    case lists:any(fun is_refused/1, Modes) of
                        true -> {error, badarg};
                        false -> device(iommap:device_open_nif(Name, access(Reads, Writes), flags(Modes)), result_type(Reads, Binary))
                    end
            catch
                error:badarg -> {error, badarg}
            end;
        error ->
            {error, badarg}
    end.

%% @doc A device on the mapping of a handle, which it shares with all other users of the handle, as it does the mode. Its
%% reads give binaries. Closing the device leaves the handle open. After the handle was closed the device answers
%% `{error, einval}', as if it were closed itself. Raises `badarg' for what is not a handle. A handle
%% of a window is `{error, einval}'.
%%
%% Writing behind the end makes the file longer, and the handle's mapping too as soon as the device reads there. What is
%% written to a private mapping reaches the file only where it makes it longer. No call of the device clears a fault of the handle.
-spec from(iommap:handle()) -> {ok, device()} | {error, closed | einval}.
from(Handle) ->
    device(iommap:device_from_nif(Handle), binary).

%% @private
close(?DEVICE(_, Device)) ->
    iommap:device_close_nif(Device).

%% @private
read(?DEVICE(Type, _), 0) ->
    result(Type, {ok, <<>>});
read(?DEVICE(Type, Device), Size) when ?IS_OFFSET(Size) ->
    result(Type, iommap:device_read_nif(Device, Size));
read(?DEVICE(_, Device), Size) ->
    refused(Device, number_error(Size)).

%% @private
read_line(?DEVICE(binary, Device)) ->
    iommap:device_read_line_nif(Device);
read_line(?DEVICE(list, Device)) ->
    result(list, iommap:device_read_line_nif(Device)).

%% @private
pread(?DEVICE(binary, Device), Offset, Size) when ?IS_OFFSET(Offset), ?IS_OFFSET(Size) ->
    iommap:device_pread_nif(Device, Offset, Size);
pread(?DEVICE(list, Device), Offset, Size) when ?IS_OFFSET(Offset), ?IS_OFFSET(Size) ->
    result(list, iommap:device_pread_nif(Device, Offset, Size));
pread(?DEVICE(_, Device), Offset, Size) ->
    refused(Device, number_error(Offset, Size)).

%% @private
pread(Device, Ranges) ->
    pread_list(Device, Ranges, []).

pread_list(_Device, [], Read) ->
    {ok, lists:reverse(Read)};
pread_list(Device, [{Offset, Size} | Ranges], Read) ->
    case pread(Device, Offset, Size) of
        {ok, Data} -> pread_list(Device, Ranges, [Data | Read]);
        eof -> pread_list(Device, Ranges, [eof | Read]);
        {error, _} = Error -> Error
    end.

%% @private
write(?DEVICE(_, Device), Data) when is_binary(Data), byte_size(Data) =< ?LONG ->
    iommap:device_write_nif(Device, Data);
write(?DEVICE(_, Device), Data) when is_binary(Data) ->
    iommap:device_write_long_nif(Device, Data);
write(Device, Data) ->
    try iolist_to_binary(Data) of
        Binary -> write(Device, Binary)
    catch
        error:badarg -> {error, badarg}
    end.

%% @private
pwrite(?DEVICE(_, Device), Offset, Data) when ?IS_OFFSET(Offset), is_binary(Data), byte_size(Data) =< ?LONG ->
    iommap:device_pwrite_nif(Device, Offset, Data);
pwrite(?DEVICE(_, Device), Offset, Data) when ?IS_OFFSET(Offset), is_binary(Data) ->
    iommap:device_pwrite_long_nif(Device, Offset, Data);
pwrite(?DEVICE(_, Device) = File, Offset, Data) ->
    try iolist_to_binary(Data) of
        Binary when ?IS_OFFSET(Offset) -> pwrite(File, Offset, Binary);
        _ -> refused(Device, number_error(Offset))
    catch
        error:badarg -> {error, badarg}
    end.

%% @private
pwrite(Device, Ranges) ->
    try
        pwrite_list(Device, Ranges, 0)
    catch
        throw:badarg -> {error, badarg}
    end.

%% As a raw file answers: what is malformed is not counted.
pwrite_list(_Device, [], _Written) ->
    ok;
pwrite_list(Device, [{Offset, Data} | Ranges], Written) ->
    case pwrite(Device, Offset, Data) of
        ok -> pwrite_list(Device, Ranges, Written + 1);
        {error, badarg} -> throw(badarg);
        {error, Reason} -> {error, {Written, Reason}}
    end.

%% @private
position(Device, At) when At =:= bof; At =:= cur; At =:= eof ->
    position(Device, {At, 0});
position(?DEVICE(_, Device), {Whence, Offset}) when is_integer(Offset), ?IS_INT64(Offset) ->
    case lists:member(Whence, [bof, cur, eof]) of
        true -> iommap:device_position_nif(Device, Whence, Offset);
        false -> refused(Device, badarg)
    end;
position(?DEVICE(_, Device), {_, _}) ->
    refused(Device, badarg);
position(Device, Offset) ->
    position(Device, {bof, Offset}).

%% @private
truncate(?DEVICE(_, Device)) ->
    iommap:device_truncate_nif(Device).

%% @private
sync(?DEVICE(_, Device)) ->
    iommap:device_sync_nif(Device, false).

%% @private
datasync(?DEVICE(_, Device)) ->
    iommap:device_sync_nif(Device, true).

%% @private
advise(?DEVICE(_, Device), Offset, Length, Advice) when ?IS_OFFSET(Offset), ?IS_OFFSET(Length) ->
    case lists:keyfind(Advice, 1, hints()) of
        {_, Hint} -> iommap:device_advise_nif(Device, Offset, Length, Hint);
        false -> refused(Device, einval)
    end;
advise(?DEVICE(_, Device), Offset, Length, _Advice) ->
    refused(Device, number_error(Offset, Length)).

hints() ->
    [{normal, normal}, {random, random}, {sequential, sequential}, {will_need, willneed}, {dont_need, dontneed},
     {no_reuse, normal}].

%% @private
allocate(?DEVICE(_, Device), Offset, Length) when ?IS_OFFSET(Offset), ?IS_OFFSET(Length) ->
    iommap:device_allocate_nif(Device, Offset, Length);
allocate(?DEVICE(_, Device), Offset, Length) ->
    refused(Device, number_error(Offset, Length)).

%% @private
copy(Source, Destination, Length) ->
    file:copy_opened(Source, Destination, Length).

%% @private A block of data with indirection, for `dets'.
ipread_s32bu_p32bu(Device, Offset, Infinity) when is_atom(Infinity) ->
    ipread_s32bu_p32bu(Device, Offset, 1 bsl 31 - 1);
ipread_s32bu_p32bu(?DEVICE(Type, Device), Offset, Limit) when ?IS_OFFSET(Offset), is_integer(Limit), Limit < 1 bsl 31 ->
    case iommap:device_pread_nif(Device, Offset, 8) of
        {ok, <<Size:32, Pointer:32>>} when Size =< Limit ->
            case result(Type, iommap:device_pread_nif(Device, Pointer, Size)) of
                {ok, Data} -> {ok, {Size, Pointer, Data}};
                eof -> {ok, {Size, Pointer, eof}};
                Error -> Error
            end;
        {ok, _} ->
            eof;
        Other ->
            Other
    end;
ipread_s32bu_p32bu(?DEVICE(_, Device), Offset, Limit) when is_integer(Offset), is_integer(Limit) ->
    refused(Device, einval);
ipread_s32bu_p32bu(_Device, _Offset, _Limit) ->
    {error, badarg}.

%% @private `file:sendfile/5' then reads and sends.
sendfile(_Device, _Socket, _Offset, _Bytes, _ChunkSize, _Headers, _Trailers, _Flags) ->
    {error, enotsup}.

%% @equiv read_file_info(Device, [])
-spec read_file_info(device()) -> {ok, file:file_info()} | {error, file:posix() | badarg}.
read_file_info(Device) ->
    read_handle_info(Device, []).

%% @doc As `file:read_file_info/2' of an open file, under the name that people look for.
-spec read_file_info(device(), [{time, local | universal | posix} | raw]) -> {ok, file:file_info()} | {error, file:posix() | badarg}.
read_file_info(Device, Options) ->
    read_handle_info(Device, Options).

%% @private
read_handle_info(Device) ->
    read_handle_info(Device, []).

%% @private
read_handle_info(?DEVICE(_, Device), Options) ->
    case iommap:device_info_nif(Device) of
        {ok, [Size, Type, Access, Accessed, Modified, Changed | Rest]} ->
            try [time(Time, proplists:get_value(time, Options, local)) || Time <- [Accessed, Modified, Changed]] of
                Times -> {ok, list_to_tuple([file_info, Size, Type, Access] ++ Times ++ Rest)}
            catch
                error:_ -> {error, badarg}
            end;
        Error ->
            Error
    end.

time(Seconds, posix) -> Seconds;
time(Seconds, universal) -> erlang:posixtime_to_universaltime(Seconds);
time(Seconds, local) -> erlang:universaltime_to_localtime(time(Seconds, universal)).

%% Opening

native_path(Path) when is_binary(Path) ->
    without_nul(Path);
native_path(Path) ->
    try unicode:characters_to_binary(filename:flatten(Path), unicode, file:native_name_encoding()) of
        Name when is_binary(Name) -> without_nul(Name);
        _ -> error
    catch
        error:_ -> error
    end.

without_nul(Name) ->
    case binary:match(Name, <<0>>) of
        nomatch -> {ok, Name};
        _ -> error
    end.

access(true, false) -> read;
access(false, true) -> write;
access(true, true) -> read_write.

is_refused({encoding, _}) -> true;
is_refused(Mode) -> lists:member(Mode, [compressed, compressed_one, ram, directory]).

flags(Modes) ->
    [Flag || Flag <- [append, exclusive, sync], lists:member(Flag, Modes)].

result_type(true, false) -> list;
result_type(_, _) -> binary.

device({ok, Device}, Type) ->
    {ok, ?DEVICE(Type, Device)};
device(Error, _Type) ->
    Error.

%% Answers

result(list, {ok, Binary}) -> {ok, binary_to_list(Binary)};
result(_Type, Answer) -> Answer.

number_error(Number) when is_number(Number) -> einval;
number_error(_) -> badarg.

number_error(One, Other) when is_number(One), is_number(Other) -> einval;
number_error(_, _) -> badarg.

%% That it is closed goes before whatever is wrong with the arguments.
refused(Device, Reason) ->
    case iommap:device_position_nif(Device, cur, 0) of
        {ok, _} -> {error, Reason};
        Error -> Error
    end.
