%% @hidden
%% What iommap:open is given: where from, how, and with which options. What is wrong is thrown as `{badarg, Cause}', whose text
%% `iommap_error' has.
-module(iommap_options).

-export([mode/1, check/2, source/1, path/1]).

%% Takes the last mode out of a list of modes and options.
-spec mode(list()) -> {iommap:mode(), list()}.
mode(Options) ->
    try lists:partition(fun is_mode/1, Options) of
        {[], _} -> {read_write, Options};
        {Modes, Rest} -> {lists:last(Modes), Rest}
    catch
        error:_ -> throw({badarg, options})
    end.

is_mode(Mode) ->
    lists:member(Mode, [read, write, read_write]).

%% Checks mode and options, and parts the options in those without a number and those with one.
-spec check(term(), term()) -> {Flags :: [atom()], Numbers :: [{atom(), non_neg_integer()}]}.
check(Mode, Options) ->
    is_mode(Mode) orelse throw({badarg, mode}),
    try lists:foldl(fun option/2, {shared, [], []}, Options) of
        {Sharing, Flags, Numbers} -> {[Sharing | Flags], Numbers}
    catch
        error:_ -> throw({badarg, options})
    end.

%% Later numbers come first, and count.
option(Sharing, {_, Flags, Numbers}) when Sharing =:= shared; Sharing =:= private ->
    {Sharing, Flags, Numbers};
option({Key, Number} = Option, {Sharing, Flags, Numbers}) ->
    case is_integer(Number) andalso Number >= 0 andalso Number =< most(Key) of
        true -> {Sharing, Flags, [Option | Numbers]};
        false -> throw({badarg, {option, Option}})
    end;
option(Flag, {Sharing, Flags, Numbers} = Options) ->
    case lists:member(Flag, [lock, populate, nocache, create, truncate, follow]) of
        true -> {Sharing, [Flag | Flags], Numbers};
        false when Flag =:= read; Flag =:= write; Flag =:= read_write -> Options;
        false -> throw({badarg, {option, Flag}})
    end.

%% The largest number that an option takes.
most(Key) when Key =:= size; Key =:= reserve; Key =:= offset; Key =:= length -> 1 bsl 64 - 1;
most(permissions) -> 8#7777;
most(_) -> -1.

%% What the library opens; `error' for a path that no file can have. A number that no descriptor can have stays one.
-spec source(term()) -> {ok, {fd, non_neg_integer()} | anonymous | binary()} | error.
source({fd, Fd}) when is_integer(Fd), Fd >= 0 -> {ok, {fd, min(Fd, 16#7FFFFFFF)}};
source({fd, _}) -> throw({badarg, fd});
source(anonymous) -> {ok, anonymous};
source(Path) -> path(Path).

-spec path(term()) -> {ok, binary()} | error.
path(Path) when is_binary(Path) ->
    {ok, Path};
path(Path) when is_list(Path) ->
    try unicode:characters_to_binary(Path, unicode, file:native_name_encoding()) of
        Name when is_binary(Name) -> {ok, Name};
        _ -> error
    catch
        error:badarg -> error
    end;
path(_Path) ->
    error.
