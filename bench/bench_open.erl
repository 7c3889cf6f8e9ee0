%% What it takes to open and close a small file, to read. The floor does what the C library of the same name did: open(2),
%% fstat(2) and mmap(2) on a dirty scheduler, munmap(2) and close(2) on one, reads by `memcpy` on the scheduler. Runs inside a VM
%% of its own.
-module(bench_open).

-export([cases/0, run/1]).

-define(SIZE, 4096).

-spec cases() -> [{string(), raw_nanoseconds}].
cases() ->
    [{Case, raw_nanoseconds} || {Case, _} <- works()].

works() ->
    [{"open and close 4 KB", fun(_, _) -> ok end},
     {"open, read 64 B and close", fun(Contender, Subject) -> {ok, <<_:64/binary>>} = Contender:pread(Subject, 128, 64) end}].

%% Nanoseconds for all of it, a value for each round.
-spec run(#{directory := file:filename(), scene_rounds := pos_integer(), opens := pos_integer(), _ => _}) ->
    [{{Case :: string(), Contender :: atom()}, [float()]}].
run(#{directory := Directory, scene_rounds := Rounds, opens := Times}) ->
    Path = filename:join(Directory, "small-" ++ os:getpid()),
    ok = file:write_file(Path, bench_file:contents(0, ?SIZE)),
    Results = [{{Case, Contender}, time(Contender, Path, Work, Times)}
               || _ <- lists:seq(1, Rounds), {Case, Work} <- works(), Contender <- bench_hot:shuffle([iommap, floor, file])],
    ok = file:delete(Path),
    [{Key, proplists:get_all_values(Key, Results)} || Key <- lists:usort([Key || {Key, _} <- Results])].

time(Contender, Path, Work, Times) ->
    repeat(Contender, Path, Work, 1 + Times div 10),
    Begun = erlang:monotonic_time(nanosecond),
    repeat(Contender, Path, Work, Times),
    (erlang:monotonic_time(nanosecond) - Begun) / Times.

repeat(_Contender, _Path, _Work, 0) ->
    ok;
repeat(Contender, Path, Work, Times) ->
    Subject = open(Contender, Path),
    _ = Work(Contender, Subject),
    ok = Contender:close(Subject),
    repeat(Contender, Path, Work, Times - 1).

open(iommap, Path) -> element(2, {ok, _} = iommap:open(Path, read, []));
open(floor, Path) -> element(2, {ok, _} = floor:open(Path, read));
open(file, Path) -> element(2, {ok, _} = file:open(Path, [read, raw, binary])).
