%% Any options, on a file that is there or not, against what the table of options says.
-module(prop_iommap_opening).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_options_mean_what_they_say/0]).
-export([prop_all_who_create_a_file_have_the_same/0]).

-import(test_files, [with_directory/1]).
-import(test_pattern, [bytes/1, page/0, zeros/1]).
-import(test_property, [holds/1]).

prop_options_mean_what_they_say() ->
    %% Whatever is asked for: mode, size, sharing and place are what the last option of a kind says; what is refused has done nothing.
    numtests(1000,
        ?FORALL({Contents, Call, Options}, {contents(), oneof([two, mode()]), list(option())},
            holds(fun() -> run(Contents, Call, Options) end))).

prop_all_who_create_a_file_have_the_same() ->
    %% However many create a file at the same time, each in its size: what each writes is in the file, which has the largest of these.
    ?FORALL(Sizes, [size_of_many(), size_of_many() | list(size_of_many())],
        holds(fun() -> with_directory(fun(Directory) -> create(filename:join(Directory, "file"), Sizes) end) end)).

size_of_many() -> range(1000, 3 * page()).

create(Path, Sizes) ->
    Writers = [fun() ->
        {ok, Handle} = iommap:open(Path, read_write, [create, {size, Size}]),
        ok = iommap:pwrite(Handle, Number, <<Number>>),
        iommap:close(Handle)
    end || {Number, Size} <- lists:enumerate(Sizes)],
    ?assertEqual([ok || _ <- Sizes], test_processes:together(Writers)),
    Written = list_to_binary([0 | lists:seq(1, length(Sizes))]),
    ?assertEqual({ok, <<Written/binary, (zeros(lists:max(Sizes) - byte_size(Written)))/binary>>}, file:read_file(Path)),
    true.

contents() -> frequency([{10, none}, {10, ?LET(Size, size(), bytes(Size))}, {1, directory}]).

mode() -> frequency([{20, oneof([read, write, read_write])}, {1, oneof([append, private])}]).

%% The umask of the tests leaves the owner's rights, whatever it is.
option() ->
    frequency([
        {4, oneof([create, truncate, lock, populate, nocache, follow, shared, private])},
        {2, oneof([read, write, read_write])},
        {4, {oneof([size, length]), size()}},
        {3, {oneof([offset, reserve]), size()}},
        {1, {permissions, range(8#600, 8#7777)}},
        {1, frequency([{8, shared}, {1, oneof([raw, {size, -1}, {permissions, 8#10000}, {lock, true}, {size, all}, 7])}])}
    ]).

size() -> oneof([0, 1, page(), range(0, 3 * page())]).

run(Contents, Call, Options) ->
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "file"),
        case Contents of
            none -> ok;
            directory -> ok = file:make_dir(Path);
            _ -> ok = file:write_file(Path, Contents)
        end,
        Expected = expected(Contents, Call, Options),
        ?assertEqual(Expected, {opened(Path, Call, Options), contents(Path)}),
        ?assertEqual({ok, case Expected of {_, none} -> []; _ -> ["file"] end}, file:list_dir(Directory)),
        true
    end).

opened(Path, Call, Options) ->
    try open(Path, Call, Options) of
        {ok, Handle} ->
            {ok, Info} = iommap:info(Handle),
            ok = iommap:close(Handle),
            maps:with([size, mode, sharing, offset], Info);
        Error ->
            Error
    catch
        error:Reason -> Reason
    end.

open(Path, two, Options) -> iommap:open(Path, Options);
open(Path, Mode, Options) -> iommap:open(Path, Mode, Options).

contents(Path) ->
    case file:read_file(Path) of
        {ok, Contents} -> Contents;
        {error, enoent} -> none;
        {error, eisdir} -> directory
    end.

%% What the call gives, and what the file is then.
expected(Contents, Call, Options) ->
    Mode = case Call of
        two -> last([read, write, read_write], Options, read_write);
        _ -> Call
    end,
    case is_known(Mode) andalso lists:all(fun is_option/1, Options) of
        true -> answered(Contents, Mode, Options);
        false -> {badarg, Contents}
    end.

is_known(Mode) -> lists:member(Mode, [read, write, read_write]).

is_option({permissions, Bits}) -> Bits =< 8#7777;
is_option({Key, Number}) -> lists:member(Key, [size, length, offset, reserve]) andalso is_integer(Number) andalso Number >= 0;
is_option(Flag) -> is_known(Flag) orelse lists:member(Flag, [create, truncate, lock, populate, nocache, follow, shared, private]).

answered(Contents, Mode, Options) ->
    [Creates, Empties] = [lists:member(Flag, Options) || Flag <- [create, truncate]],
    {Size, Offset, Length} = {number(size, Options, 0), number(offset, Options, 0), number(length, Options, infinity)},
    Kept = case is_atom(Contents) orelse Empties of true -> <<>>; false -> Contents end,
    End = max(Size, byte_size(Kept)),
    Shown = min(Length, End - Offset),
    if
        Mode =:= read, Creates orelse Empties -> {{error, einval}, Contents};
        Contents =:= directory -> {{error, eisdir}, Contents};
        Contents =:= none, not Creates -> {{error, enoent}, Contents};
        Shown =< 0; Mode =:= read, End > byte_size(Kept) -> {{error, einval}, Contents};
        true ->
            Info = #{size => Shown, mode => Mode, sharing => last([shared, private], Options, shared), offset => Offset},
            {Info, <<Kept/binary, (zeros(End - byte_size(Kept)))/binary>>}
    end.

last(Known, Options, Default) ->
    lists:last([Default | [Option || Option <- Options, lists:member(Option, Known)]]).

number(Key, Options, Default) ->
    lists:last([Default | [Number || {Name, Number} <- Options, Name =:= Key]]).
