%% Writes that come back: 64 bytes to each page of a file, once more after two seconds, and once more at once. By then whatever
%% a library remembers of its last writes has grown old, and nothing has been written back yet. Runs inside a VM of its own.
-module(bench_sweep).

-export([cases/0, run/1]).

-define(PAGE, 4096).
-define(PAGES, (1 bsl 14)).
-define(PAUSE, 2_100).

-spec cases() -> [{string(), raw_nanoseconds}].
cases() ->
    [{name(Where, When), raw_nanoseconds} || Where <- [disk, tmpfs], When <- [later, at_once]].

name(Where, When) ->
    Again = case When of later -> "after 2 s"; at_once -> "at once" end,
    lists:flatten(io_lib:format("write 64 B to each page, again ~s, ~s", [Again, Where])).

%% Nanoseconds per call, a value for each round.
-spec run(#{directory := file:filename(), memory := file:filename(), scene_rounds := pos_integer(), _ => _}) ->
    [{{Case :: string(), Contender :: atom()}, [float()]}].
run(#{directory := Directory, memory := Memory, scene_rounds := Rounds}) ->
    Sweepers = lists:append([sweepers(Where, Path) || {Where, Path} <- [{disk, Directory}, {tmpfs, Memory}]]),
    Results = [one_round(Sweepers) || _ <- lists:seq(1, Rounds)],
    [ok = file:delete(Path) || {_, _, Path, _} <- Sweepers],
    [{Key, proplists:get_all_values(Key, lists:append(Results))} || {Key, _} <- hd(Results)].

%% All write, then wait together, then each is measured, in another order each time.
one_round(Sweepers) ->
    [sweep(Write) || {_, _, _, Write} <- Sweepers],
    timer:sleep(?PAUSE),
    lists:append([[{{name(Where, When), Contender}, sweep(Write)} || When <- [later, at_once]]
                  || {Where, Contender, _, Write} <- bench_hot:shuffle(Sweepers)]).

%% Each with a file of its own: what is dirty is so of the file.
sweepers(Where, Directory) ->
    Data = binary:copy(<<"s">>, 64),
    [begin
        Path = filename:join(Directory, io_lib:format("sweep-~s-~s-~s", [Where, Contender, os:getpid()])),
        ok = bench_file:make(Path, ?PAGES * ?PAGE),
        Subject = open(Contender, Path),
        {Where, Contender, Path, fun(Offset) -> ok = Contender:pwrite(Subject, Offset, Data) end}
     end || Contender <- [iommap, floor, file]].

open(iommap, Path) -> element(2, {ok, _} = iommap:open(Path, read_write, []));
open(floor, Path) -> element(2, {ok, _} = floor:open(Path, write));
open(file, Path) -> element(2, {ok, _} = file:open(Path, [read, write, raw, binary])).

sweep(Write) ->
    Begun = erlang:monotonic_time(nanosecond),
    ok = sweep(?PAGES, Write, rand:uniform(?PAGES) - 1),
    (erlang:monotonic_time(nanosecond) - Begun) / ?PAGES.

%% A congruential generator of the full period: each page once. In each page another line, or all would share a few sets of the
%% caches.
sweep(0, _Write, _Page) ->
    ok;
sweep(Left, Write, Page) ->
    Write(Page * ?PAGE + (Page bsr 4) band 63 * 64),
    sweep(Left - 1, Write, (Page * 69069 + 12345) band (?PAGES - 1)).
