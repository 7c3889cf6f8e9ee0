%% The other OS process that changes files while they are mapped: c/external_writer.c.
-module(external_writer).

-export([start/0]).
-export([write/3]).
-export([truncate/3]).
-export([try_to/2]).
-export([append/3]).
-export([add/4]).
-export([replace/3]).
-export([race/4]).
-export([rewrite/4]).
-export([stop_race/3]).
-export([stop/1]).

-spec start() -> port().
start() ->
    open_port({spawn_executable, test_tools:built("external_writer")}, [{line, 80}, binary, hide]).

%% Makes the file: Size bytes of the pattern.
-spec write(port(), file:filename(), non_neg_integer()) -> ok.
write(External, Path, Size) ->
    obey(External, ["write ", Path, " ", integer_to_list(Size)]).

-spec truncate(port(), file:filename(), non_neg_integer()) -> ok.
truncate(External, Path, Size) ->
    obey(External, ["truncate ", Path, " ", integer_to_list(Size)]).

%% One command of words and numbers, which may not be possible here: the errno then.
-spec try_to(port(), [string() | integer()]) -> ok | {error, Errno :: pos_integer()}.
try_to(External, Words) ->
    order(External, lists:join(" ", [if is_integer(Word) -> integer_to_list(Word); true -> Word end || Word <- Words])),
    receive {External, {data, {eol, <<"ok">>}}} -> ok;
            {External, {data, {eol, <<"error ", Errno/binary>>}}} -> {error, binary_to_integer(Errno)}
    end.

%% Grows the file to Size with the pattern, never showing a byte that is not it.
-spec append(port(), file:filename(), non_neg_integer()) -> ok.
append(External, Path, Size) ->
    obey(External, ["append ", Path, " ", integer_to_list(Size)]).

%% Adds 1 to the word at Offset so many times, atomically.
-spec add(port(), file:filename(), Offset :: non_neg_integer(), Times :: pos_integer()) -> ok.
add(External, Path, Offset, Times) ->
    obey(External, ["add ", Path, " ", integer_to_list(Offset), " ", integer_to_list(Times)]).

%% Renames a new file over this one.
-spec replace(port(), file:filename(), non_neg_integer()) -> ok.
replace(External, Path, Size) ->
    obey(External, ["replace ", Path, " ", integer_to_list(Size)]).

%% Replaces the bytes of the file in place by other text and other terms, without a pause, until stop_race/3.
-spec rewrite(port(), file:filename(), pos_integer(), non_neg_integer()) -> ok.
rewrite(External, Path, Size, Seed) ->
    order(External, ["rewrite ", Path, " ", integer_to_list(Size), " ", integer_to_list(Seed)]).

%% Shrinks the file to random pages and appends again, without a pause, until stop_race/3.
-spec race(port(), file:filename(), pos_integer(), non_neg_integer()) -> ok.
race(External, Path, Size, Seed) ->
    order(External, ["race ", Path, " ", integer_to_list(Size), " ", integer_to_list(Seed)]).

-spec stop_race(port(), file:filename(), pos_integer()) -> ok.
stop_race(External, Path, Size) ->
    order(External, ["append ", Path, " ", integer_to_list(Size)]),
    done(External),
    done(External).

-spec stop(port()) -> ok.
stop(External) ->
    true = port_close(External),
    ok.

obey(External, Command) ->
    order(External, Command),
    done(External).

order(External, Command) ->
    true = port_command(External, [Command, $\n]),
    ok.

done(External) ->
    receive {External, {data, {eol, <<"ok">>}}} -> ok;
            {External, {data, {eol, Error}}} -> error({external_writer, Error})
    end.
