%% @doc Memory-mapped files.
%%
%% A handle stands for a file mapped into memory. Any number of processes may use it at once: reads run in parallel, a
%% write excludes reads and writes of the same handle, and what was given to a call is checked under the handle's lock.
%% Short calls on pages that are known to be in memory finish on the scheduler they are made on; all others move to a dirty
%% I/O scheduler. Only a view is read wherever it is read, resident or not.
%%
%% Truncating or damaging a mapped file does not bring the VM down. A call whose bytes the file no longer backs answers
%% `{error, sigbus}', and so does {@link with_view/4}, which reads without a copy. A view ({@link region_binary/3}) whose bytes
%% are gone shows zeros, and {@link intact/1} tells. But a view of a file that is rewritten in place must not be decoded: see
%% {@link region_binary/3}.
%%
%% Offsets, lengths and sizes are in bytes. A call raises `badarg' for what is not a handle, for an offset, length or size
%% that is not an integer or is 2^64 or more, for an unknown mode or hint, and for data that is not iodata; it answers
%% `{error, badarg}' for a negative offset, length or size. Errors of the system are POSIX atoms, as in {@link file}.
%%
%% ```
%% {ok, Handle} = iommap:open("numbers", read_write, [create, {size, 4096}]),
%% ok = iommap:pwrite(Handle, 8, <<1:64>>),
%% {ok, <<0:64, 1:64>>} = iommap:pread(Handle, 0, 16),
%% {ok, 1} = iommap:with_view(Handle, 0, 4096, fun(View) -> <<_:64, Count:64, _/binary>> = View, Count end),
%% ok = iommap:close(Handle).
%% '''
%%
%% `guides/features.md' has the order of errors, and all about faults, schedulers, upgrades and resources; `guides/choosing.md'
%% tells which call to take when; `guides/sharing.md' and `guides/durability.md' are about other processes and about crashes.
-module(iommap).

-include_lib("kernel/include/file.hrl").

-export([
    open/2, open/3,
    read_file/1,
    close/1,
    pread/2, pread/3,
    pwrite/2, pwrite/3,
    with_view/4,
    region_binary/3,
    sync/1, sync/2, sync/4,
    truncate/2,
    advise/4,
    position/1,
    remap/1,
    ensure_size/2,
    info/1,
    resident/3,
    lock/3, unlock/3,
    list/0, i/0,
    stats/0,
    subscribe/0, unsubscribe/0,
    intact/1, intact/3
]).
-export([format_error/1]).
%% For `iommap_atomics'.
-export([
    atomics_new_nif/4, atomics_info_nif/1, atomics_get_nif/2,
    atomics_put_nif/3, atomics_exchange_nif/3, atomics_compare_exchange_nif/4,
    atomics_add_nif/3, atomics_add_get_nif/3, atomics_band_nif/3,
    atomics_band_get_nif/3, atomics_bor_nif/3, atomics_bor_get_nif/3,
    atomics_bxor_nif/3, atomics_bxor_get_nif/3
]).
%% For `iommap_file'.
-export([
    device_open_nif/3, device_from_nif/1, device_close_nif/1,
    device_pread_nif/3, device_read_nif/2, device_read_line_nif/1,
    device_pwrite_nif/3, device_pwrite_long_nif/3, device_write_nif/2, device_write_long_nif/2,
    device_position_nif/3, device_truncate_nif/1, device_sync_nif/2, device_allocate_nif/3, device_advise_nif/4,
    device_info_nif/1
]).
-export_type([handle/0, source/0, mode/0, sync_mode/0, advise_hint/0, open_option/0, info/0, listed/0, stats/0, reason/0]).

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
    ensure_size/2,
    info/1,
    intact_nif/4,
    image_nif/0,
    sync/4,
    resident/3,
    lock/3, unlock/3,
    backed_region_nif/3,
    images_nif/0,
    list_nif/3,
    stats/0,
    subscribe/0,
    unsubscribe/0,
    atomics_new_nif/4, atomics_info_nif/1, atomics_get_nif/2,
    atomics_put_nif/3, atomics_exchange_nif/3, atomics_compare_exchange_nif/4,
    atomics_add_nif/3, atomics_add_get_nif/3, atomics_band_nif/3,
    atomics_band_get_nif/3, atomics_bor_nif/3, atomics_bor_get_nif/3,
    atomics_bxor_nif/3, atomics_bxor_get_nif/3,
    device_open_nif/3, device_from_nif/1, device_close_nif/1,
    device_pread_nif/3, device_read_nif/2, device_read_line_nif/1,
    device_pwrite_nif/3, device_pwrite_long_nif/3, device_write_nif/2, device_write_long_nif/2,
    device_position_nif/3, device_truncate_nif/1, device_sync_nif/2, device_allocate_nif/3, device_advise_nif/4,
    device_info_nif/1,
    pread/2,
    pwrite_all_nif/2,
    is_known_intact_nif/3,
    pwrite_short_nif/3
]).

%% As in the library: more bytes than the VM may copy on a normal scheduler to show them to a NIF.
-define(LONG, 65536).
%% So much iodata is rather copied twice, the first time by the VM, than taken apart.
-define(SHORT, 8192).

-opaque handle() :: reference().
%% A mapped file.

-type source() :: file:name_all() | {fd, non_neg_integer()} | anonymous.
%% What can be opened: the file of a path; what a descriptor of this OS process stands for; new memory that has no name.

-type mode() :: read | write | read_write.
%% What a handle may do. Reading through a `write' handle answers `{error, eacces}', and so does writing through `read'.

-type sync_mode() :: sync | async.
%% Whether to wait until the data has reached the disk, or only to start writing.

-type advise_hint() ::
    normal
    | random
    | sequential
    | willneed
    | dontneed
    | hugepage
    | nohugepage
    | collapse
    | populate_read
    | populate_write
    | cold
    | pageout
    | dontdump
    | dodump
    | dontfork
    | dofork.
%% What to expect of a range: no order, any order, front to back, all of it soon, none of it soon. And the system's other hints
%% by their names: huge pages where they can be had, or none, or now; all pages mapped now, to be read or written; these pages
%% first where memory is wanted, or now; not in core dumps, or again; not in child processes, or again.

-type open_option() ::
    shared
    | private
    | lock
    | populate
    | nocache
    | create
    | truncate
    | {size, non_neg_integer()}
    | follow
    | {offset, non_neg_integer()}
    | {length, non_neg_integer()}
    | {permissions, 0..8#7777}
    | {reserve, non_neg_integer()}.
%% `shared' (the default): changes reach the file; `private': they stay in this mapping. `lock': lock the pages in memory,
%% if the system permits ({@link info/1} tells). `populate': read the file in at once. `nocache': ask the system not to
%% cache the file (macOS). `create': make the file if it is not there. `truncate': empty it first. `{size, Bytes}': grow
%% the file to so many bytes, with blocks allocated, if it is smaller. `follow': a read past the end of the mapping, but not
%% of the file, makes the mapping as long as the file first. `{offset, N}', `{length, N}': map a window of the
%% file only, see {@link open/3}. `{permissions, Mode}': of a file that `create' makes, under the umask, in place of 8#644.
%% `{reserve, Bytes}': keep address space, and no memory, for the mapping to grow where it is, to so many bytes at least; where that
%% is not to be had, the mapping is made without.

-type info() :: #{
    size := pos_integer(),
    mode := mode(),
    sharing := shared | private,
    locked := boolean(),
    faulted := boolean(),
    page_size := pos_integer(),
    path := binary() | undefined,
    offset := non_neg_integer(),
    views := non_neg_integer() | undefined,
    descriptor := non_neg_integer()
}.
%% What {@link info/1} tells of a handle, and of its mapping. Sizes and offsets are in bytes. `path': of the file, absolute, as it was
%% opened, or by which other OS processes open anonymous memory; `undefined' where there is none. `offset': where in the file the
%% mapping begins. `views': how many views of the mapping
%% are alive, those that wait to be collected included; parts of a view are one with it, and every process that it was sent to has
%% one of its own. `undefined' on a VM that does not tell. `descriptor': the number of the file's descriptor in the OS process.

-type listed() :: #{
    size := pos_integer(),
    mode := mode(),
    sharing := shared | private,
    locked := boolean(),
    faulted := boolean(),
    page_size := pos_integer(),
    path := binary() | undefined,
    offset := non_neg_integer(),
    views := non_neg_integer() | undefined,
    descriptor := non_neg_integer(),
    handle := open | closed
}.
%% A mapping, as {@link list/0} tells of it: what {@link info/1} tells, and whether a handle has it (`open') or only views show
%% it (`closed'): its handle was closed, or has another mapping by now.

-type stats() :: #{
    moved_lock := non_neg_integer(),
    moved_length := non_neg_integer(),
    moved_pages := non_neg_integer(),
    pages_fetched := non_neg_integer(),
    faults := non_neg_integer(),
    zero_pages := non_neg_integer(),
    unmaps_waiting := non_neg_integer()
}.
%% What {@link stats/0} has counted in this VM. Calls that moved to a dirty I/O scheduler, by the reason: `moved_lock', the handle's
%% lock was taken; `moved_length', the data is long; `moved_pages', pages were not known to be in memory, or the data is a view.
%% `pages_fetched': pages of the ranges that reads fetched from the file for that reason. `faults': lost pages that were met, in
%% calls and in views. `zero_pages': pages of zeros that were put under mappings. `unmaps_waiting': mappings that wait now to be
%% unmapped and closed.

-type reason() :: badarg | closed | out_of_bounds | sigbus | file:posix() | atom().
%% Why a call failed. `closed': the handle was closed. `out_of_bounds': the range ends after the mapping. `sigbus': the
%% file no longer backs the bytes, or the disk failed under them.

%% @doc The same as `open(Source, read_write, Options)'; but if `Options' holds a mode, that is the mode.
-spec open(source(), [mode() | open_option()]) -> {ok, handle()} | {error, reason()}.
open(Source, Options) ->
    try
        {Mode, Rest} = iommap_options:mode(Options),
        open_checked(Source, Mode, Rest)
    catch
        throw:{badarg, Cause} -> erlang:error(badarg, [Source, Options], iommap_error:info(Cause))
    end.

%% @doc Opens a file and maps it.
%%
%% A binary path is taken as it is, a string in the encoding of file names. The file must be a regular file or a block
%% device, and not be empty in the end. Later options win over earlier ones. A mode among the options is ignored.
%%
%% Answers `{error, einval}', and touches nothing, for `create', `truncate' or a larger `{size, Bytes}' together with
%% mode `read', and if the file would be empty.
%%
%% `{offset, N}' and `{length, N}' map a window of the file, from any byte on; all offsets of calls count from it. A length beyond
%% the end of the file is cut there, and {@link remap/1} may grow the window up to it; without a length the window ends where the
%% file does. {@link truncate/2} and {@link ensure_size/2} of a window answer `{error, einval}'. `{size, Bytes}' is the file's.
%% A window of which nothing is left is `{error, einval}'.
%%
%% `{fd, N}' opens what a descriptor stands for that came from elsewhere: {@link socket} can receive one. It is duplicated, and
%% may be closed after; its position does not move, and `create' and `{permissions, Mode}' are ignored. A descriptor that is not
%% open is `{error, ebadf}'; one that may not be read, or not be written where the mode needs that, `{error, eacces}'.
%%
%% `anonymous' makes memory that has no name, of `{size, Bytes}', to share with other OS processes: those of the same user and
%% PID namespace can open it by the `path' that {@link info/1} gives (Linux), as long as a handle or a view lives. It is
%% allocated at once, and nobody can make it shorter: {@link truncate/2} to less is `{error, eperm}'. Without a size, with mode
%% `read', `private' or a window, it is `{error, einval}'; `create', `truncate' and `{permissions, Mode}' are ignored.
%%
%% ```
%% {ok, Handle} = iommap:open(anonymous, read_write, [{size, 4096}]),
%% {ok, #{path := Path}} = iommap:info(Handle),
%% {ok, Other} = iommap:open(Path, read_write, []),
%% ok = iommap:pwrite(Other, 0, <<"to all who open it">>),
%% {ok, <<"to all">>} = iommap:pread(Handle, 0, 6).
%% '''
-spec open(source(), mode(), [open_option()]) -> {ok, handle()} | {error, reason()}.
open(Source, Mode, Options) ->
    try
        open_checked(Source, Mode, Options)
    catch
        throw:{badarg, Cause} -> erlang:error(badarg, [Source, Mode, Options], iommap_error:info(Cause))
    end.

%% @doc All of a file as a view: as {@link file:read_file/1}, without the copy. The view keeps the mapping and a descriptor for as
%% long as it lives, and what {@link region_binary/3} says of views holds for it: <strong>do not decode it if the file is
%% rewritten in place</strong>, and ask {@link intact/1} after reading if others may shorten it.
%%
%% An empty file gives `<<>>'. So does one of `/proc', which has no size and cannot be mapped: use {@link file:read_file/1} there.
%% Errors are those of {@link open/3} with mode `read'.
%%
%% ```
%% ok = file:write_file("words", <<"alpha beta">>),
%% {ok, <<"alpha", _/binary>>} = iommap:read_file("words"),
%% {error, enoent} = iommap:read_file("no-such-file").
%% '''
-spec read_file(file:name_all()) -> {ok, View :: binary()} | {error, reason()}.
read_file(Path) ->
    try
        case view_of_all(Path) of
            {error, einval} -> view_of_empty(Path);
            View -> View
        end
    catch
        throw:{badarg, Cause} -> erlang:error(badarg, [Path], iommap_error:info(Cause))
    end.

view_of_all(Path) ->
    case open_found(iommap_options:path(Path), Path, read, [], []) of
        {ok, Handle} ->
            {ok, Size} = position(Handle),
            View = region_binary(Handle, 0, Size),
            ok = close(Handle),
            View;
        Error ->
            Error
    end.

%% Of what cannot be mapped, a file may be empty, or have been.
view_of_empty(Path) ->
    case file:read_file_info(Path, [raw]) of
        {ok, #file_info{type = regular, size = 0}} -> {ok, <<>>};
        {ok, #file_info{type = regular}} -> view_of_all(Path);
        _ -> {error, einval}
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
        Size when Size > ?LONG -> pwrite_nif(Handle, Offset, Data, Size);
        Size ->
            case cells_left(Data, ?SHORT - Size) of
                Left when Left > 0 -> pwrite_short_nif(Handle, Offset, Data);
                _ -> pwrite_nif(Handle, Offset, Data)
            end
    end.

%% How many of so many list cells the lists of iodata leave; none also if a list ends in a binary.
cells_left([Data | Rest], Cells) when is_binary(Data), Cells > 0 -> cells_left(Rest, Cells - 1);
cells_left([Byte | Rest], Cells) when is_integer(Byte), Cells > 0 -> cells_left(Rest, Cells - 1);
cells_left([Data | Rest], Cells) when Cells > 0 -> cells_left(Rest, cells_left(Data, Cells - 1));
cells_left([], Cells) -> Cells;
cells_left(_, _) -> 0.

%% @doc Copies several ranges, in one call and under one lock: no write through the handle comes between two of them. The binaries
%% are those that {@link pread/3} would give, in the order of the ranges, which may overlap; none keeps another alive.
%%
%% Every range is checked before any byte moves, and one that is not in the mapping, or that lost a byte, is the error of the whole
%% call. What is not in memory is asked of the system for all ranges at once: a batch of cold ranges takes about as long as the
%% slowest of them. No range at all gives `{ok, []}' where a read would be allowed.
%%
%% ```
%% ok = file:write_file("nodes", <<"alpha beta gamma">>),
%% {ok, Nodes} = iommap:open("nodes", read, []),
%% {ok, [<<"gamma">>, <<"beta">>]} = iommap:pread(Nodes, [{11, 5}, {6, 4}]),
%% {error, out_of_bounds} = iommap:pread(Nodes, [{0, 5}, {11, 6}]),
%% ok = iommap:close(Nodes).
%% '''
-spec pread(handle(), [{Offset :: non_neg_integer(), Length :: non_neg_integer()}]) ->
    {ok, [binary()]} | {error, reason()}.
pread(_Handle, _Ranges) ->
    erlang:nif_error(not_loaded).

%% @doc Writes at several offsets, in one call and under one lock: a read through the handle sees all of it or nothing. The elements
%% are written in order, so that where they overlap the later one wins.
%%
%% All are checked before any byte moves. `{error, {N, Reason}}' says that `N' elements were written whole before one failed, as
%% {@link file:pwrite/2} does: none for every reason but `sigbus'; after that, part of the next one may have been written too. An
%% offset that is negative is `{error, badarg}'. What {@link pwrite/3} says of data holds for each.
%%
%% ```
%% {ok, Table} = iommap:open("table", read_write, [create, {size, 4096}]),
%% ok = iommap:pwrite(Table, [{0, <<2:32>>}, {8, "first"}, {16, [<<"sec">>, "ond"]}]),
%% {ok, [<<2:32>>, <<"second">>]} = iommap:pread(Table, [{0, 4}, {16, 6}]),
%% {error, {0, out_of_bounds}} = iommap:pwrite(Table, [{0, <<3:32>>}, {4090, "too long"}]),
%% ok = iommap:close(Table).
%% '''
-spec pwrite(handle(), [{Offset :: non_neg_integer(), iodata()}]) ->
    ok | {error, badarg | {Written :: non_neg_integer(), reason()}}.
pwrite(Handle, Writes) ->
    try
        pwrite_all_nif(Handle, measured(Writes))
    catch
        error:badarg -> erlang:error(badarg, [Handle, Writes], iommap_error:info(handle_or(writes, Handle)))
    end.

measured([{Offset, Data} | Writes]) -> [{Offset, iolist_size(Data), Data} | measured(Writes)];
measured([]) -> [];
measured(_) -> erlang:error(badarg).

%% The cause of a `badarg': what is not a handle, or else that argument.
handle_or(Argument, Handle) ->
    try position(Handle) of
        _ -> Argument
    catch
        error:badarg -> handle
    end.

%% @doc Reads without a copy, and safely: calls `Fun' with a view of the range, and gives what it gives.
%%
%% `View' is a binary that is the memory of the mapping (see {@link region_binary/3}), of `Length' bytes from `Offset' on. The
%% answer is `{error, sigbus}', whatever `Fun' returned or raised, if any byte of the range was lost meanwhile: a page that the
%% file no longer backs, or that the disk did not give, shows zeros. So nobody has to ask {@link intact/1}. What that does not know
%% passes here, too: zeros behind the end of a file that was cut, if it has grown past them again when `Fun' returns. If a byte
%% was lost before, `Fun' is not called. Otherwise an exception of `Fun' goes on as it is. While `Fun' runs it does not know yet
%% whether its bytes are real: what cannot be undone belongs after the call.
%%
%% A part of the view that `Fun' returns is a view too, if it is longer than 64 bytes: later losses show in it, and the answer does
%% not cover them. Return `binary:copy/1' of it. <strong>A view of a file that is rewritten in place must not be decoded</strong>, in
%% `Fun' neither: see {@link region_binary/3}.
%%
%% Errors are those of {@link region_binary/3}, in the same order. Raises `badarg' also for what is not a function of one argument.
%%
%% ```
%% ok = file:write_file("primes", << <<Prime:32>> || Prime <- [2, 3, 5, 7, 11] >>),
%% {ok, Primes} = iommap:open("primes", read, []),
%% {ok, 28} = iommap:with_view(Primes, 0, 20, fun(View) -> lists:sum([Prime || <<Prime:32>> <= View]) end),
%% {error, out_of_bounds} = iommap:with_view(Primes, 0, 21, fun erlang:crc32/1).
%% '''
-spec with_view(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer(), fun((binary()) -> Result)) ->
    {ok, Result} | {error, reason()}.
with_view(Handle, Offset, Length, Fun) when is_function(Fun, 1) ->
    case backed_region_nif(Handle, Offset, Length) of
        {ok, View} ->
            try Fun(View) of
                Result ->
                    case is_still_intact(Handle, Offset, View) of
                        true -> {ok, Result};
                        false -> {error, sigbus}
                    end
            catch
                Class:Reason:Stack ->
                    case is_still_intact(Handle, Offset, View) of
                        true -> erlang:raise(Class, Reason, Stack);
                        false -> {error, sigbus}
                    end
            end;
        Error ->
            Error
    end;
with_view(Handle, Offset, Length, Fun) ->
    erlang:error(badarg, [Handle, Offset, Length, Fun], iommap_error:info(handle_or(function, Handle))).

is_still_intact(Handle, Offset, View) ->
    is_known_intact_nif(Handle, Offset, View) orelse intact(View).

%% @doc A view: a binary that is the memory of the mapping, without a copy. For a binary that outlives the call; else
%% {@link with_view/4} is the safe way.
%%
%% <strong>Do not decode a view of a file that is rewritten in place</strong>: it changes meanwhile, and `binary_to_term/1',
%% `unicode:characters_to_list/1', `binary:split/3' with `global' and `string:split/3' can then end the VM. Decode a copy
%% ({@link pread/3}, `binary:copy/1'), or views of files that only get longer or are replaced by a rename.
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

%% @doc Writes changes back to the file: `sync' waits until they have reached the disk, `async' starts and returns. (On macOS the
%% disk may still hold them in a cache of its own: `sync' is `msync(2)' there, without `F_FULLFSYNC'.) Other calls are not held
%% up. Answers `{error, badarg}' for another mode. On a private mapping, and in mode `read', there is nothing to do.
-spec sync(handle(), sync_mode()) -> ok | {error, reason()}.
sync(_Handle, _Mode) ->
    erlang:nif_error(not_loaded).

%% @doc Writes the changes of `Length' bytes from `Offset' on back to the file, and those of the rest of their pages, as
%% {@link sync/2} does of all. No reader and no writer is held up. An error of writing back that is remembered is told whatever
%% the range; else nothing is done for length 0. The file system may write more back: btrfs writes the whole file. Answers
%% `{error, sigbus}' if the file no longer has all of the bytes: what it lost cannot reach the disk.
%%
%% ```
%% {ok, Handle} = iommap:open("journal", read_write, [create, {size, 1 bsl 20}]),
%% ok = iommap:pwrite(Handle, 5000, <<"entry">>),
%% ok = iommap:sync(Handle, 5000, 5, sync),            % waits for the page of the entry
%% {error, out_of_bounds} = iommap:sync(Handle, 1 bsl 20, 1, sync),
%% ok = iommap:close(Handle).
%% '''
-spec sync(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer(), sync_mode()) ->
    ok | {error, reason()}.
sync(_Handle, _Offset, _Length, _Mode) ->
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
%%
%% `normal', `random', `sequential', `hugepage', `nohugepage', `dontdump', `dodump', `dontfork' and `dofork' stay set over
%% {@link truncate/2} and {@link remap/1}; one that was given up to the end of the mapping holds for what it grows by, too.
%%
%% `populate_write' through mode `read' answers `{error, eacces}'; of a private mapping it is the same as `populate_read'. Both
%% answer `{error, sigbus}' if the file has lost a page of the range. What the system does not have, or not for this file, answers
%% `{error, enotsup}'; where it lacks room or time for it, `{error, enomem | eagain | ebusy}'.
%%
%% ```
%% {ok, Handle} = iommap:open("secrets", read_write, [create, {size, 1 bsl 20}]),
%% ok = iommap:advise(Handle, 0, 0, random),
%% ok = iommap:advise(Handle, 0, 4096, willneed),
%% ok = iommap:close(Handle).
%% '''
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

%% @doc Makes file and mapping at least `Bytes' bytes long, and gives the size that they have then. Made for appending: they
%% grow by half at least, if there is room for that, so that each of many small growths costs little. What is long enough is
%% left as it is, and then the call neither waits nor asks the system. Takes over what others made the file longer by, and never
%% makes it shorter, not even at {@link close/1}: use {@link truncate/2} for that.
%%
%% Clears no fault: answers `{error, sigbus}' where the mapping is faulted, or the file shorter than the mapping and has to grow.
%%
%% ```
%% {ok, Log} = iommap:open("log", read_write, [create, {size, 1}]),
%% Append = fun(Record, End) ->
%%     {ok, _} = iommap:ensure_size(Log, End + byte_size(Record)),
%%     ok = iommap:pwrite(Log, End, Record),
%%     End + byte_size(Record)
%% end,
%% End = lists:foldl(Append, 0, [<<"one,">>, <<"two,">>, <<"three.">>]),
%% {ok, <<"one,two,three.">>} = iommap:pread(Log, 0, End),
%% ok = iommap:truncate(Log, End).
%% '''
-spec ensure_size(handle(), Bytes :: non_neg_integer()) -> {ok, Size :: pos_integer()} | {error, reason()}.
ensure_size(_Handle, _Bytes) ->
    erlang:nif_error(not_loaded).

%% @doc What there is to know about a handle.
-spec info(handle()) -> {ok, info()} | {error, closed}.
info(_Handle) ->
    erlang:nif_error(not_loaded).

%% @doc How many of `Length' bytes from `Offset' on are in memory, and so are read without waiting for a disk. Whole pages
%% are, but only what lies in the range counts; bytes that the file lost do not. Through every mode.
%%
%% Answers `{error, eperm}' where the system does not tell this user the truth: on Linux, of a file that is not the user's, and
%% that the user may not write to. `{error, enotsup}' on OpenBSD.
%%
%% ```
%% ok = file:write_file("index", <<0:80000>>),
%% {ok, Handle} = iommap:open("index", read, [populate]),
%% {ok, 10000} = iommap:resident(Handle, 0, 10000),
%% {ok, 7} = iommap:resident(Handle, 4090, 7),
%% ok = iommap:close(Handle).
%% '''
-spec resident(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer()) ->
    {ok, Bytes :: non_neg_integer()} | {error, reason()}.
resident(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @doc Locks the pages of `Length' bytes from `Offset' on in memory (`mlock(2)'), having read them in. Whole pages are, as long as
%% the handle is open, and as far as they remain after {@link truncate/2} and {@link remap/1}; when all are, {@link info/1} says
%% `locked => true'. Locking twice is locking once. Nothing is locked for length 0. No mode is needed.
%%
%% Answers `{error, enomem}' beyond what this user may lock (`ulimit -l'), `{error, eperm}' to one who may lock nothing,
%% `{error, eagain}' if a page could not be had, `{error, sigbus}' if the file has lost one. Then no more is locked than before.
%%
%% ```
%% {ok, Handle} = iommap:open("hot", read_write, [create, {size, 10000}]),
%% ok = iommap:lock(Handle, 0, 10000),
%% {ok, #{locked := true}} = iommap:info(Handle),
%% ok = iommap:unlock(Handle, 5000, 1),                % one page
%% {ok, #{locked := false}} = iommap:info(Handle),
%% ok = iommap:close(Handle).
%% '''
-spec lock(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer()) -> ok | {error, reason()}.
lock(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @doc Unlocks the pages of `Length' bytes from `Offset' on, however often and in whichever pieces they were locked, also by the
%% option `lock' of {@link open/3}. What was not locked is no error, nor are pages that the file lost. Answers `{error, enomem}'
%% at the system's limit of mappings; then what was locked is.
-spec unlock(handle(), Offset :: non_neg_integer(), Length :: non_neg_integer()) -> ok | {error, reason()}.
unlock(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

%% @doc All mappings of this VM, oldest first: those of open handles, and those that only views keep.
%%
%% It is no snapshot: a mapping that comes or goes meanwhile may be there or not. It takes turns with other processes. The mappings
%% of every build of the library that was loaded are there, except for one so old that it has no list.
%%
%% ```
%% {ok, Handle} = iommap:open("listed", read_write, [create, {size, 10}]),
%% [Path] = [Path || #{path := Path, size := 10, handle := open} <- iommap:list(), filename:basename(Path) =:= <<"listed">>],
%% absolute = filename:pathtype(Path),
%% ok = iommap:close(Handle).
%% '''
-spec list() -> [listed()].
list() ->
    {Now, Images} = images_nif(),
    [Info || {_Time, Info} <- lists:keysort(1, lists:append([list(Image, 0, Now) || Image <- Images]))].

list(Image, After, Until) ->
    case list_nif(Image, After, Until) of
        [] ->
            [];
        Listed ->
            {Latest, _} = lists:last(Listed),
            Listed ++ list(Image, Latest, Until)
    end.

%% @doc Prints {@link list/0} as a table of 80 columns, to the group leader. A path that is too long loses its beginning.
-spec i() -> ok.
i() ->
    iommap_table:print(list()).

%% @doc Counters of this VM since it started, of all builds of the library that it has loaded; and one gauge, `unmaps_waiting'. Calls that
%% finish where they began count nothing, and cost nothing.
-spec stats() -> stats().
stats() ->
    erlang:nif_error(not_loaded).

%% @doc Sends the calling process `{iommap, faulted, Info}' within a second of zero pages being put under a mapping of this VM for the
%% first time: somebody has read a view whose bytes the file had lost. `Info' is as in {@link list/0}.
%%
%% Each mapping is told of once; what had faulted before is not told of. It holds until {@link unsubscribe/0} or the end of the
%% process, also over code upgrades; to subscribe twice is to subscribe once. Needs a descriptor and a thread, which stay:
%% `{error, emfile}' or `{error, eagain}' if there is none.
%%
%% ```
%% ok = file:write_file("cut", <<0:80000>>),
%% {ok, Handle} = iommap:open("cut", read, []),
%% {ok, View} = iommap:region_binary(Handle, 0, 10000),
%% ok = iommap:subscribe(),
%% ok = file:write_file("cut", <<>>),
%% _ = erlang:crc32(View),
%% receive {iommap, faulted, #{size := 10000, faulted := true}} -> ok end,
%% ok = iommap:unsubscribe().
%% '''
-spec subscribe() -> ok | {error, file:posix()}.
subscribe() ->
    erlang:nif_error(not_loaded).

%% @doc Ends what {@link subscribe/0} began: once this has returned nothing arrives any more. What has arrived stays in the mailbox.
-spec unsubscribe() -> ok.
unsubscribe() ->
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
    erlang:error(badarg, [Binary], iommap_error:info(binary)).

%% @doc As {@link intact/1}, of `Length' bytes of the binary from `Offset' on: for the short parts that the VM copies when
%% they are taken out of a view. Raises `badarg' for a range that is not inside.
-spec intact(binary(), Offset :: non_neg_integer(), Length :: non_neg_integer()) -> boolean().
intact(Binary, Offset, Length) when is_binary(Binary) ->
    intact_nif(Binary, Offset, Length, byte_size(Binary));
intact(Binary, Offset, Length) ->
    erlang:error(badarg, [Binary, Offset, Length], iommap_error:info(binary)).

%% @doc A text for people, of the reason of any `{error, Reason}' of this library, as {@link file:format_error/1} gives one.
%%
%% That is a POSIX atom, a reason of this library's own, or a `{N, Reason}' of a call that did `N' things before one failed. Any
%% other term is shown as it is: nothing raises.
%%
%% ```
%% "the handle is closed" = iommap:format_error(closed),
%% "no space left on device" = iommap:format_error(enospc),
%% "2 elements were written, then: no space left on device" = iommap:format_error({2, enospc}).
%% '''
-spec format_error(Reason :: reason() | {non_neg_integer(), reason()} | term()) -> string().
format_error(Reason) ->
    iommap_error:text(Reason).

open_checked(Source, Mode, Options) ->
    {Flags, Numbers} = iommap_options:check(Mode, Options),
    open_found(iommap_options:source(Source), Source, Mode, Flags, Numbers).

open_found({ok, Found}, Source, Mode, Flags, Numbers) ->
    try
        open_nif(Found, Mode, Flags, Numbers)
    catch
        error:badarg -> refuse_nul(Source)
    end;
open_found(error, _Source, _Mode, _Flags, _Numbers) ->
    {error, badarg}.

%% A zero of a view that lost its file is no NUL that anybody wrote.
refuse_nul(Path) ->
    case is_lost(Path) of
        true -> {error, sigbus};
        false -> throw({badarg, path})
    end.

is_lost([Head | Tail]) -> is_lost(Head) orelse is_lost(Tail);
is_lost(Path) -> is_binary(Path) andalso not intact(Path).

open_nif(_Source, _Mode, _Flags, _Numbers) ->
    erlang:nif_error(not_loaded).

%% Size is what the data has.
pwrite_all_nif(_Handle, _OffsetsSizesAndData) ->
    erlang:nif_error(not_loaded).

%% A NIF cannot know how long a binary is, nor a list, without looking at all of it, however long that takes; the VM can, and
%% takes turns with other processes meanwhile. Size is what the data has, or at most ?LONG bytes.
pwrite_nif(_Handle, _Offset, _Data) ->
    erlang:nif_error(not_loaded).

pwrite_nif(_Handle, _Offset, _Data, _Size) ->
    erlang:nif_error(not_loaded).

%% The same of at most ?SHORT bytes and list cells together.
pwrite_short_nif(_Handle, _Offset, _Data) ->
    erlang:nif_error(not_loaded).

intact_nif(_Binary, _Offset, _Length, _Size) ->
    erlang:nif_error(not_loaded).

backed_region_nif(_Handle, _Offset, _Length) ->
    erlang:nif_error(not_loaded).

is_known_intact_nif(_Handle, _Offset, _View) ->
    erlang:nif_error(not_loaded).

images_nif() ->
    erlang:nif_error(not_loaded).

list_nif(_Image, _After, _Until) ->
    erlang:nif_error(not_loaded).

image_nif() ->
    erlang:nif_error(not_loaded).

%% The NIFs of iommap_atomics, which are functions of this module as a library belongs to one module.

%% @private
-spec atomics_new_nif(term(), term(), term(), boolean()) -> reference() | {error, reason()}.
atomics_new_nif(_Handle, _Offset, _Arity, _Signed) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_info_nif(term()) -> {pos_integer(), boolean()} | {error, reason()}.
atomics_info_nif(_Array) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_get_nif(term(), term()) -> integer() | {error, reason()}.
atomics_get_nif(_Array, _Index) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_put_nif(term(), term(), term()) -> ok | {error, reason()}.
atomics_put_nif(_Array, _Index, _Value) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_exchange_nif(term(), term(), term()) -> integer() | {error, reason()}.
atomics_exchange_nif(_Array, _Index, _Value) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_compare_exchange_nif(term(), term(), term(), term()) -> ok | integer() | {error, reason()}.
atomics_compare_exchange_nif(_Array, _Index, _Expected, _Desired) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_add_nif(term(), term(), term()) -> ok | {error, reason()}.
atomics_add_nif(_Array, _Index, _Increment) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_add_get_nif(term(), term(), term()) -> integer() | {error, reason()}.
atomics_add_get_nif(_Array, _Index, _Increment) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_band_nif(term(), term(), term()) -> ok | {error, reason()}.
atomics_band_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_band_get_nif(term(), term(), term()) -> integer() | {error, reason()}.
atomics_band_get_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_bor_nif(term(), term(), term()) -> ok | {error, reason()}.
atomics_bor_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_bor_get_nif(term(), term(), term()) -> integer() | {error, reason()}.
atomics_bor_get_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_bxor_nif(term(), term(), term()) -> ok | {error, reason()}.
atomics_bxor_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% @private
-spec atomics_bxor_get_nif(term(), term(), term()) -> integer() | {error, reason()}.
atomics_bxor_get_nif(_Array, _Index, _Mask) ->
    erlang:nif_error(not_loaded).

%% Devices: see `iommap_file', which checks arguments.

%% @private
-spec device_open_nif(binary(), read | write | read_write, [append | exclusive | sync]) ->
    {ok, reference()} | {error, file:posix()}.
device_open_nif(_Path, _Access, _Flags) ->
    erlang:nif_error(not_loaded).

%% @private
-spec device_from_nif(handle()) ->
    {ok, reference()} | {error, closed | einval}.
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
    Priv = priv(),
    case load(Priv, identity(Priv ++ "/iommap_nif.so"), Older) of
        ok ->
            persistent_term:put(Key, image_nif());
        {error, Reason} ->
            say(Priv, Reason),
            {error, Reason}
    end.

%% In an escript the directory lies in a file.
load(Priv, {error, enotdir}, Older) ->
    iommap_escript:with_library(Priv, fun(Library) -> erlang:load_nif(Library, Older) end);
load(Priv, Identity, Older) ->
    erlang:load_nif(Priv ++ spelling(erlang:phash2(Identity)) ++ "/iommap_nif", Older).

priv() ->
    case code:priv_dir(?MODULE) of
        {error, bad_name} -> filename:join([filename:dirname(code:which(?MODULE)), "..", "priv"]);
        Priv -> Priv
    end.

%% The VM logs why a library was not loaded, if it lives long enough for that: a release does not boot then, and an escript ends at
%% its first call, which is undefined. While the VM boots there is no standard_error yet.
say(Priv, Reason) ->
    Text = lists:flatten(io_lib:format("iommap: the native library ~ts/iommap_nif.so cannot be loaded: ~ts",
                                       [Priv, why(Priv, Reason)])),
    _ = try io:put_chars(standard_error, [Text, $\n]) catch error:_ -> erlang:display(Text) end,
    ok.

why(Priv, {Kind, Text}) ->
    case identity(Priv ++ "/iommap_nif.so") of
        {error, enoent} -> "it is missing. Was it left behind when the application was copied?";
        {error, enotdir} -> Text;
        _ -> io_lib:format("~p, ~ts", [Kind, Text])
    end.

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
