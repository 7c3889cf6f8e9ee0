%% The other OS process that changes files while they are mapped: c/mischief.c.
-module(mischief).

-export([start/0]).
-export([write/3]).
-export([truncate/3]).
-export([try_to/2]).
-export([append/3]).
-export([replace/3]).
-export([race/4]).
-export([rewrite/4]).
-export([stop_race/3]).
-export([stop/1]).

-spec start() -> port().
start() ->
    Program = filename:join([filename:dirname(code:which(?MODULE)), "..", "mischief"]),
    open_port({spawn_executable, Program}, [{line, 80}, binary, hide]).

%% Makes the file: Size bytes of the pattern.
-spec write(port(), file:filename(), non_neg_integer()) -> ok.
write(Mischief, Path, Size) ->
    obey(Mischief, ["write ", Path, " ", integer_to_list(Size)]).

-spec truncate(port(), file:filename(), non_neg_integer()) -> ok.
truncate(Mischief, Path, Size) ->
    obey(Mischief, ["truncate ", Path, " ", integer_to_list(Size)]).

%% One command of words and numbers, which may not be possible here: the errno then.
-spec try_to(port(), [string() | integer()]) -> ok | {error, Errno :: pos_integer()}.
try_to(Mischief, Words) ->
    order(Mischief, lists:join(" ", [if is_integer(Word) -> integer_to_list(Word); true -> Word end || Word <- Words])),
    receive {Mischief, {data, {eol, <<"ok">>}}} -> ok;
            {Mischief, {data, {eol, <<"error ", Errno/binary>>}}} -> {error, binary_to_integer(Errno)}
    end.

%% Grows the file to Size with the pattern, never showing a byte that is not it.
-spec append(port(), file:filename(), non_neg_integer()) -> ok.
append(Mischief, Path, Size) ->
    obey(Mischief, ["append ", Path, " ", integer_to_list(Size)]).

%% Renames a new file over this one.
-spec replace(port(), file:filename(), non_neg_integer()) -> ok.
replace(Mischief, Path, Size) ->
    obey(Mischief, ["replace ", Path, " ", integer_to_list(Size)]).

%% Replaces the bytes of the file in place by other text and other terms, without a pause, until stop_race/3.
-spec rewrite(port(), file:filename(), pos_integer(), non_neg_integer()) -> ok.
rewrite(Mischief, Path, Size, Seed) ->
    order(Mischief, ["rewrite ", Path, " ", integer_to_list(Size), " ", integer_to_list(Seed)]).

%% Shrinks the file to random pages and appends again, without a pause, until stop_race/3.
-spec race(port(), file:filename(), pos_integer(), non_neg_integer()) -> ok.
race(Mischief, Path, Size, Seed) ->
    order(Mischief, ["race ", Path, " ", integer_to_list(Size), " ", integer_to_list(Seed)]).

-spec stop_race(port(), file:filename(), pos_integer()) -> ok.
stop_race(Mischief, Path, Size) ->
    order(Mischief, ["append ", Path, " ", integer_to_list(Size)]),
    done(Mischief),
    done(Mischief).

-spec stop(port()) -> ok.
stop(Mischief) ->
    true = port_close(Mischief),
    ok.

obey(Mischief, Command) ->
    order(Mischief, Command),
    done(Mischief).

order(Mischief, Command) ->
    true = port_command(Mischief, [Command, $\n]),
    ok.

done(Mischief) ->
    receive {Mischief, {data, {eol, <<"ok">>}}} -> ok;
            {Mischief, {data, {eol, Error}}} -> error({mischief, Error})
    end.
