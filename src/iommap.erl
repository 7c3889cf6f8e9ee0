%% @doc Memory-mapped files.
%%
%% A handle stands for a file mapped into memory. Any number of processes may use it at once: reads run in parallel, a
%% write excludes reads and writes of the same handle, and what was given to a call is checked under the handle's lock.
%% Short calls on pages that are known to be in memory finish on the scheduler they are made on; all others move to a dirty
%% I/O scheduler. Only a view is read wherever it is read, resident or not.
%%
%% Truncating or damaging a mapped file does not bring the VM down. A call whose bytes the file no longer backs answers
%% `{error, sigbus}'; a view ({@link region_binary/3}) whose bytes are gone shows zeros, and {@link intact/1} tells. But a view
%% of a file that is rewritten in place must not be decoded: see {@link region_binary/3}.
%%
%% Offsets, lengths and sizes are in bytes. A call raises `badarg' for what is not a handle, for an offset, length or size
%% that is not an integer or is 2^64 or more, for an unknown mode or hint, and for data that is not iodata; it answers
%% `{error, badarg}' for a negative offset, length or size. Errors of the system are POSIX atoms, as in {@link file}.
%%
%% ```
%% {ok, Handle} = iommap:open("counters", read_write, [create, {size, 4096}]),
%% ok = iommap:pwrite(Handle, 8, <<1:64>>),
%% {ok, <<0:64, 1:64>>} = iommap:pread(Handle, 0, 16),
%% {ok, View} = iommap:region_binary(Handle, 0, 4096),
%% <<_:64, Count:64, _/binary>> = View,
%% true = iommap:intact(View),
%% ok = iommap:close(Handle).
%% '''
%%
%% `guides/features.md' has the order of errors, and all about faults, schedulers, upgrades and resources.
-module(iommap).

-include_lib("kernel/include/file.hrl").

-export([
    open/2, open/3,
    close/1,
    pread/3,
    pwrite/3,
    region_binary/3,
    sync/1, sync/2,
    truncate/2,
    advise/4,
    position/1,
    remap/1,
    info/1,
    intact/1, intact/3
]).
-export([format_error/2]).
%% For `iommap_file'.
-export([
    device_open_nif/3, device_from_nif/1, device_close_nif/1,
    device_pread_nif/3, device_read_nif/2, device_read_line_nif/1,
    device_pwrite_nif/3, device_pwrite_long_nif/3, device_write_nif/2, device_write_long_nif/2,
    device_position_nif/3, device_truncate_nif/1, device_sync_nif/2, device_allocate_nif/3, device_advise_nif/4,
    device_info_nif/1
]).
-export_type([handle/0, mode/0, sync_mode/0, advise_hint/0, open_option/0, info/0, reason/0]).

-on_load(load/0).

-nifs([
    open_nif/4,
    close/1,
    pread/3,
    pwrite_nif/3, pwrite_nif/4,
    region_binary/3,
    sync/2,
    truncate/2,
    advise/4,
    position/1,
    remap/1,
    info/1,
    intact_nif/4,
    image_nif/0,
    device_open_nif/3, device_from_nif/1, device_close_nif/1,
    device_pread_nif/3, device_read_nif/2, device_read_line_nif/1,
    device_pwrite_nif/3, device_pwrite_long_nif/3, device_write_nif/2, device_write_long_nif/2,
    device_position_nif/3, device_truncate_nif/1, device_sync_nif/2, device_allocate_nif/3, device_advise_nif/4,
    device_info_nif/1
]).

%% As in the library: more bytes than the VM may copy on a normal scheduler to show them to a NIF.
-define(LONG, 65536).

-opaque handle() :: reference().
%% A mapped file.

-type mode() :: read | write | read_write.
%% What a handle may do. Reading through a `write' handle answers `{error, eacces}', and so does writing through `read'.

-type sync_mode() :: sync | async.
%% Whether to wait until the data has reached the device, or only to start writing.

-type advise_hint() :: normal | random | sequential | willneed | dontneed.
%% What to expect of a range: no order, any order, front to back, all of it soon, none of it soon.

-type open_option() ::
    shared
    | private
    | lock
    | populate
    | nocache
    | create
    | truncate
    | {size, non_neg_integer()}.
%% `shared' (the default): changes reach the file; `private': they stay in this mapping. `lock': lock the pages in memory,
%% if the system permits ({@link info/1} tells). `populate': read the file in at once. `nocache': ask the system not to
%% cache the file (macOS). `create': make the file if it is not there. `truncate': empty it first. `{size, Bytes}': grow
%% the file to so many bytes, with blocks allocated, if it is smaller.

-type info() :: #{
    size := pos_integer(),
    mode := mode(),
    sharing := shared | private,
    locked := boolean(),
    faulted := boolean(),
    page_size := pos_integer()
}.
%% What {@link info/1} tells of a handle. Sizes are in bytes.

-type reason() :: badarg | closed | out_of_bounds | sigbus | file:posix() | atom().
%% Why a call failed. `closed': the handle was closed. `out_of_bounds': the range ends after the mapping. `sigbus': the
%% file no longer backs the bytes, or the device failed under them.

%% @doc The same as `open(Path, read_write, Options)'; but if `Options' holds a mode, that is the mode.
-spec open(file:name_all(), [mode() | open_option()]) -> {ok, handle()} | {error, reason()}.
open(Path, Options) ->
    try
        {Mode, Rest} = mode(Options),
        open_checked(Path, Mode, Rest)
    catch
        throw:{badarg, Cause} -> erlang:error(badarg, [Path, Options], error_info(Cause))
    end.

%% @doc Opens a file and maps it.
%%
%% A binary path is taken as it is, a string in the encoding of file names. The file must be a regular file or a block
%% device, and not be empty in the end. Later options win over earlier ones. A mode among the options is ignored.
%%
%% Answers `{error, einval}', and touches nothing, for `create', `truncate' or a larger `{size, Bytes}' together with
%% mode `read', and if the file would be empty.
-spec open(file:name_all(), mode(), [open_option()]) -> {ok, handle()} | {error, reason()}.
open(Path, Mode, Options) ->
    try
        open_checked(Path, Mode, Options)
    catch
        throw:{badarg, Cause} -> erlang:error(badarg, [Path, Mode, Options], error_info(Cause))
    end.

%% @doc Closes the handle, after the calls that have its lock. Views stay valid; the mapping goes with the last of them.
-spec close(handle()) -> ok | {error, closed}.
close(_Handle) ->
    erlang:nif_error(not_loaded).

%% @doc Copies `Length' bytes from `Offset' on. Always exactly so many, or an error.
-spec pread(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer()) ->
    {ok, binary()} | {error, reason()}.
pread(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @doc Writes the data at `Offset', all of it or nothing; only after `{error, sigbus}' a part may have been written.
%% Never makes the file longer: see {@link truncate/2}. The data must not be a view of the bytes that it replaces. It is
%% measured first, in turns with other processes, and is not looked at if it does not fit.
-spec pwrite(handle(), Offset :: non_neg_integer(), iodata()) -> ok | {error, reason()}.
pwrite(Handle, Offset, Data) when is_binary(Data), byte_size(Data) =< ?LONG ->
    pwrite_nif(Handle, Offset, Data);
pwrite(Handle, Offset, Data) ->
    case iolist_size(Data) of
        Size when Size =< ?LONG -> pwrite_nif(Handle, Offset, Data);
        Size -> pwrite_nif(Handle, Offset, Data, Size)
    end.

%% @doc A view: a binary that is the memory of the mapping, without a copy.
%%
%% <strong>Do not decode a view of a file that is rewritten in place</strong>: it changes meanwhile, and `binary_to_term/1',
%% `unicode:characters_to_list/1', `binary:split/3' with `global' and `string:split/3' can then end the VM. Decode a copy
%% ({@link pread/3}, `binary:copy/1'), or views of files that are only appended to or replaced by a rename.
%%
%% It is valid for as long as it lives: after {@link close/1}, and after the file was deleted. It shows the file as it
%% changes, so it must not be a key of a map or of an ETS table; `binary:copy/1' makes a binary that stays. Where the file
%% was truncated, it shows zeros: ask {@link intact/1} after reading. Send a copy to another node: a view that lost its file
%% and was not read since closes the connection.
-spec region_binary(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer()) ->
    {ok, binary()} | {error, reason()}.
region_binary(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @equiv sync(Handle, sync)
-spec sync(handle()) -> ok | {error, reason()}.
sync(Handle) ->
    sync(Handle, sync).

%% @doc Writes changes back to the file: `sync' waits until they have reached the device, `async' starts and returns. Other
%% calls are not held up. Answers `{error, badarg}' for another mode. On a private mapping, and in mode `read', there is
%% nothing to do.
-spec sync(handle(), sync_mode()) -> ok | {error, reason()}.
sync(_Handle, _Mode) ->
    erlang:nif_error(not_loaded).

%% @doc Makes the file and the mapping `Size' bytes long, whatever the size of the file was. New bytes are zero, and their
%% blocks allocated. Views keep the mapping they have, and lose what is cut off. If a step fails, the handle is what it was.
%%
%% Clears a fault: see {@link intact/1}. Answers `{error, einval}' for size 0.
-spec truncate(handle(), Size :: pos_integer()) -> ok | {error, reason()}.
truncate(_Handle, _Size) ->
    erlang:nif_error(not_loaded).

%% @doc Tells the system what to expect of a range; of everything from `Offset' on if `Length' is 0. Whole pages are meant.
%% Never changes what is read.
-spec advise(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer(), advise_hint()) ->
    ok | {error, reason()}.
advise(_Handle, _Offset, _Length, _Hint) ->
    erlang:nif_error(not_loaded).

%% @doc The size of the mapping, in bytes.
-spec position(handle()) -> {ok, Size :: pos_integer()} | {error, closed}.
position(_Handle) ->
    erlang:nif_error(not_loaded).

%% @doc Makes the mapping as long as the file is now, after someone else made it longer or shorter, and gives the size.
%% Clears a fault: see {@link intact/1}. Answers `{error, einval}' if the file is empty; the handle is then what it was.
-spec remap(handle()) -> {ok, Size :: pos_integer()} | {error, reason()}.
remap(_Handle) ->
    erlang:nif_error(not_loaded).

%% @doc What there is to know about a handle.
-spec info(handle()) -> {ok, info()} | {error, closed}.
info(_Handle) ->
    erlang:nif_error(not_loaded).

%% @doc Whether the bytes of a binary are what its file held.
%%
%% Of a view, or of a part of one: `false' once any of these bytes were replaced by zeros because the file no longer backed
%% them, and as long as the file ends before them. Of any other binary: `true'. Read first and ask afterwards: `true' means
%% that no byte that was seen was made up. Ask about the view itself, or with {@link intact/3} about some of its bytes: a part
%% of up to 64 bytes is a copy that the VM made, of which nobody knows where it came from. So is a longer binary that does
%% not begin at a whole byte of another: it has the answer of all views together.
%%
%% Once zeros were put under a mapping, {@link pread/3}, {@link pwrite/3}, {@link region_binary/3} and {@link sync/1} of its
%% handle answer `{error, sigbus}' until {@link remap/1} or {@link truncate/2}.
-spec intact(binary()) -> boolean().
intact(Binary) when is_binary(Binary) ->
    intact_nif(Binary, 0, byte_size(Binary), byte_size(Binary));
intact(Binary) ->
    erlang:error(badarg, [Binary]).

%% @doc As {@link intact/1}, of `Length' bytes of the binary from `Offset' on: for the short parts that the VM copies when
%% they are taken out of a view. Raises `badarg' for a range that is not inside.
-spec intact(binary(), Offset :: non_neg_integer(), Length :: non_neg_integer()) -> boolean().
intact(Binary, Offset, Length) when is_binary(Binary) ->
    intact_nif(Binary, Offset, Length, byte_size(Binary));
intact(Binary, Offset, Length) ->
    erlang:error(badarg, [Binary, Offset, Length]).

%% @private Tells the shell which argument of open/2,3 was wrong.
-spec format_error(badarg, erlang:stacktrace()) -> #{pos_integer() => unicode:chardata()}.
format_error(badarg, [{?MODULE, open, Arguments, Info} | _]) ->
    #{cause := Cause} = proplists:get_value(error_info, Info, #{}),
    {Position, Text} = describe(Cause, length(Arguments)),
    #{Position => Text}.

describe(path, _) -> {1, "contains a NUL character"};
describe(mode, _) -> {2, "is not read, write or read_write"};
describe(options, Arity) -> {Arity, "is not a proper list"};
describe({option, Option}, Arity) -> {Arity, io_lib:format("~tp is not an option", [Option])}.

open_checked(Path, Mode, Options) ->
    is_mode(Mode) orelse throw({badarg, mode}),
    {Sharing, Flags, Size} = options(Options),
    case path(Path) of
        {ok, Name} -> open_nif(Name, Mode, [Sharing | Flags], Size);
        error -> {error, badarg}
    end.

mode(Options) ->
    try lists:partition(fun is_mode/1, Options) of
        {[], _} -> {read_write, Options};
        {Modes, Rest} -> {lists:last(Modes), Rest}
    catch
        error:_ -> throw({badarg, options})
    end.

is_mode(Mode) ->
    lists:member(Mode, [read, write, read_write]).

options(Options) ->
    try
        lists:foldl(fun option/2, {shared, [], 0}, Options)
    catch
        error:_ -> throw({badarg, options})
    end.

option(Sharing, {_, Flags, Size}) when Sharing =:= shared; Sharing =:= private ->
    {Sharing, Flags, Size};
option({size, Size}, {Sharing, Flags, _}) when is_integer(Size), Size >= 0, Size < 1 bsl 64 ->
    {Sharing, Flags, Size};
option(Flag, {Sharing, Flags, Size} = Options) ->
    case lists:member(Flag, [lock, populate, nocache, create, truncate]) of
        true -> {Sharing, [Flag | Flags], Size};
        false when Flag =:= read; Flag =:= write; Flag =:= read_write -> Options;
        false -> throw({badarg, {option, Flag}})
    end.

path(Path) when is_binary(Path) ->
    without_nul(Path);
path(Path) when is_list(Path) ->
    try unicode:characters_to_binary(Path, unicode, file:native_name_encoding()) of
        Name when is_binary(Name) -> without_nul(Name);
        _ -> error
    catch
        error:badarg -> error
    end;
path(_Path) ->
    error.

without_nul(Name) ->
    case binary:match(Name, <<0>>) of
        nomatch -> {ok, Name};
        _ -> throw({badarg, path})
    end.

error_info(Cause) ->
    [{error_info, #{module => ?MODULE, cause => Cause}}].

open_nif(_Path, _Mode, _Options, _Size) ->
    erlang:nif_error(not_loaded).

%% A NIF cannot know how long a binary is, nor a list, without looking at all of it, however long that takes; the VM can, and
%% takes turns with other processes meanwhile. Size is what the data has, or at most ?LONG bytes.
pwrite_nif(_Handle, _Offset, _Data) ->
    erlang:nif_error(not_loaded).

pwrite_nif(_Handle, _Offset, _Data, _Size) ->
    erlang:nif_error(not_loaded).

intact_nif(_Binary, _Offset, _Length, _Size) ->
    erlang:nif_error(not_loaded).

image_nif() ->
    erlang:nif_error(not_loaded).

%% Devices: see `iommap_file', which checks arguments.

%% @private
-spec device_open_nif(binary(), read | write | read_write, [append | exclusive | sync]) ->
    {ok, reference()} | {error, file:posix()}.
device_open_nif(_Path, _Access, _Flags) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_from_nif(handle()) ->
    {ok, reference()} | {error, closed}.
device_from_nif(_Handle) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_close_nif(reference()) ->
    ok | {error, file:posix()}.
device_close_nif(_Device) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_pread_nif(reference(), non_neg_integer(), non_neg_integer()) ->
    {ok, binary()} | eof | {error, file:posix()}.
device_pread_nif(_Device, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_read_nif(reference(), non_neg_integer()) ->
    {ok, binary()} | eof | {error, file:posix()}.
device_read_nif(_Device, _Length) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_read_line_nif(reference()) ->
    {ok, binary()} | eof | {error, file:posix()}.
device_read_line_nif(_Device) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_pwrite_nif(reference(), non_neg_integer(), binary()) ->
    ok | {error, file:posix()}.
device_pwrite_nif(_Device, _Offset, _Data) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_pwrite_long_nif(reference(), non_neg_integer(), binary()) ->
    ok | {error, file:posix()}.
device_pwrite_long_nif(_Device, _Offset, _Data) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_write_nif(reference(), binary()) ->
    ok | {error, file:posix()}.
device_write_nif(_Device, _Data) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_write_long_nif(reference(), binary()) ->
    ok | {error, file:posix()}.
device_write_long_nif(_Device, _Data) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_position_nif(reference(), bof | cur | eof, integer()) ->
    {ok, non_neg_integer()} | {error, file:posix()}.
device_position_nif(_Device, _Whence, _Offset) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_truncate_nif(reference()) ->
    ok | {error, file:posix()}.
device_truncate_nif(_Device) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_sync_nif(reference(), DataOnly :: boolean()) ->
    ok | {error, file:posix()}.
device_sync_nif(_Device, _DataOnly) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_allocate_nif(reference(), non_neg_integer(), non_neg_integer()) ->
    ok | {error, file:posix()}.
device_allocate_nif(_Device, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_advise_nif(reference(), non_neg_integer(), non_neg_integer(), advise_hint()) ->
    ok | {error, file:posix()}.
device_advise_nif(_Device, _Offset, _Length, _Hint) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_info_nif(reference()) ->
    {ok, [term()]} | {error, file:posix()}.
device_info_nif(_Device) ->
    erlang:nif_error(not_loaded).

%% Every loaded copy of the library must know the ones before it, whose handles and views live on. The newest is kept
%% where neither an upgrade nor a deletion of this module reaches it.
load() ->
    Key = {?MODULE, image},
    Older = persistent_term:get(Key, 0),
    case erlang:load_nif(library(), Older) of
        ok -> persistent_term:put(Key, image_nif());
        Error -> Error
    end.

library() ->
    Directory =
        case code:priv_dir(?MODULE) of
            {error, bad_name} -> filename:join([filename:dirname(code:which(?MODULE)), "..", "priv"]);
            Priv -> Priv
        end,
    Library = filename:join(Directory, "iommap_nif"),
    Directory ++ spelling(erlang:phash2(identity(Library ++ ".so"))) ++ "/iommap_nif".

%% The system's loader remembers libraries by the path they were asked for by, and would give the old library for the path
%% of a new one. So each file gets a spelling of the path of its own: a slash or a slash and a dot for every bit.
spelling(0) -> "";
spelling(Bits) when Bits band 1 =:= 1 -> "/." ++ spelling(Bits bsr 1);
spelling(Bits) -> "/" ++ spelling(Bits bsr 1).

identity(File) ->
    case file:read_file_info(File, [raw, {time, posix}]) of
        {ok, #file_info{major_device = Device, inode = Inode, mtime = Time, size = Size}} ->
            {Device, Inode, Time, Size};
        Error ->
            Error
    end.
