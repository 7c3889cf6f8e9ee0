%% What other processes wait for while one process reads pages that are not in memory, or lets a large mapping go. Runs
%% inside a VM of its own, with one scheduler.
-module(bench_delay).

-export([contenders/0, cold/3, batch/2, unmap/2, collect/3, pressure/4, until_unmapped/1]).
-export_type([contender/0, delay/0, pressure/0]).

-type contender() :: nobody | iommap | iommap_random | floor | file.
-type delay() :: #{
    worst := Nanoseconds :: integer(),
    worst_own := Nanoseconds :: integer(),
    late := Over2Milliseconds :: non_neg_integer(),
    faults := MajorFaultsOfSchedulers :: non_neg_integer(),
    time := Nanoseconds :: integer()
}.
-type pressure() :: #{
    reads := pos_integer(),
    reclaimed := Pages :: integer(),
    faults := MajorFaultsOfSchedulers :: non_neg_integer()
}.

-define(PAGE, 4096).
-define(LATE, 2_000_000).

%% So many milliseconds after a collection all destructors have run.
-define(COLLECTED, 500).

-spec contenders() -> [{contender(), Description :: string()}].
contenders() ->
    [{nobody, "nobody (a process that computes)"},
     {iommap, "iommap:pread"},
     {iommap_random, "iommap:pread, advise random"},
     {floor, "unguarded NIF on the scheduler"},
     {file, "file:pread, raw"}].

%% One process reads a page at each offset; each read is checked.
-spec cold(contender(), file:filename(), Offsets :: [non_neg_integer()]) -> delay().
cold(Contender, Path, Offsets) ->
    Delay = delay(fun() ->
        Read = open(Contender, Path),
        fun() -> [true = Read(Offset) =:= bench_file:contents(Offset, ?PAGE) || Offset <- Offsets] end
    end),
    until_unmapped(Path),
    Delay.

%% The nanoseconds that one call takes for cold ranges of 64 bytes; the answer is checked.
-spec batch(file:filename(), Offsets :: [non_neg_integer()]) -> integer().
batch(Path, Offsets) ->
    {ok, Handle} = iommap:open(Path, read, []),
    Ranges = [{Offset, 64} || Offset <- Offsets],
    Begun = now_ns(),
    {ok, Read} = iommap:pread(Handle, Ranges),
    Time = now_ns() - Begun,
    Read = [bench_file:contents(Offset, 64) || Offset <- Offsets],
    ok = iommap:close(Handle),
    Time.

%% One process collects the last view of a file that is mapped with all its pages.
-spec unmap(iommap | floor, file:filename()) -> delay().
unmap(Module, Path) ->
    delay(fun() ->
        put(view, view_only(Module, Path)),
        fun() ->
            erase(view),
            erlang:garbage_collect(),
            until_unmapped(Path)
        end
    end).

%% One process collects so many handles of one small file at once; `atomics`: arrays of OTP, which have nothing to unmap.
-spec collect(iommap | floor | atomics, file:filename(), pos_integer()) -> delay().
collect(Module, Path, Count) ->
    Open = case Module of
        iommap -> fun() -> iommap:open(Path, read, []) end;
        floor -> fun() -> floor:open(Path, read) end;
        atomics -> fun() -> {ok, atomics:new(1, [])} end
    end,
    Delay = delay(fun() ->
        put(handles, [Handle || _ <- lists:seq(1, Count), {ok, Handle} <- [Open()]]),
        Count = length(get(handles)),
        fun() ->
            erase(handles),
            erlang:garbage_collect(),
            timer:sleep(?COLLECTED) % to look for them in a long list of mappings would hold up who unmaps them
        end
    end),
    until_unmapped(Path),
    Delay.

%% One process reads pages at random, each read checked, while the program Reclaim makes the kernel take the file's pages
%% away again: how often a scheduler then met a page that was gone.
-spec pressure(contender(), file:filename(), Reclaim :: file:filename(), pos_integer()) -> pressure().
pressure(Contender, Path, Reclaim, Milliseconds) ->
    Read = open(Contender, Path),
    Faults = major_faults(),
    Port = open_port({spawn_executable, Reclaim}, [{args, [os:getpid(), Path]}, {line, 80}]),
    Reads = read_until(now_ns() + Milliseconds * 1_000_000, Read, filelib:file_size(Path) div ?PAGE, 0),
    true = port_command(Port, "stop"),
    Reclaimed = receive {Port, {data, {eol, Pages}}} -> list_to_integer(Pages) end,
    #{reads => Reads, reclaimed => Reclaimed, faults => major_faults() - Faults}.

read_until(End, Read, Pages, Reads) ->
    Offset = (rand:uniform(Pages) - 1) * ?PAGE,
    true = Read(Offset) =:= bench_file:contents(Offset, ?PAGE),
    case now_ns() < End of
        true -> read_until(End, Read, Pages, Reads + 1);
        false -> Reads + 1
    end.

%% ---- The watcher

%% A process prepares and then works; this one, from then on, does nothing but yield and note how long it had to wait
%% for its next turn; and what is left of a wait when the time is taken off in which the scheduler was ready to run and
%% the system had its cores do something else.
delay(Prepare) ->
    Watcher = self(),
    {Worker, Monitor} = spawn_monitor(fun() ->
        Work = Prepare(),
        Watcher ! {self(), ready},
        receive go -> ok end,
        Start = now_ns(),
        _ = Work(),
        exit({worked, now_ns() - Start})
    end),
    receive
        {Worker, ready} -> ok;
        {'DOWN', Monitor, _, _, Why} -> error(Why)
    end,
    Faults = major_faults(),
    Worker ! go,
    Delay = watch(Monitor, floor:moment(), #{worst => 0, worst_own => 0, late => 0}),
    Delay#{faults => major_faults() - Faults}.

watch(Monitor, {Before, QueuedBefore}, #{worst := Worst, worst_own := Own, late := Late} = Delay0) ->
    erlang:yield(),
    {Now, Queued} = Moment = floor:moment(),
    Gap = Now - Before,
    Delay = Delay0#{
        worst := max(Gap, Worst),
        worst_own := max(Gap - (Queued - QueuedBefore), Own),
        late := if Gap > ?LATE -> Late + 1; true -> Late end
    },
    receive
        {'DOWN', Monitor, _, _, Why} ->
            {worked, Time} = Why,
            Delay#{time => Time}
    after 0 ->
        watch(Monitor, Moment, Delay)
    end.

now_ns() ->
    erlang:monotonic_time(nanosecond).

%% The page faults for which normal schedulers had to wait for a disk: a field of /proc/PID/task/TID/stat.
major_faults() ->
    lists:sum([
        binary_to_integer(lists:nth(10, string:lexemes(Fields, " ")))
        || Task <- filelib:wildcard("/proc/self/task/*"),
           {ok, Stat} <- [file:read_file(Task ++ "/stat")],
           [Name, Fields] <- [string:split(Stat, ") ", trailing)],
           re:run(Name, "\\((erts_sched_|[0-9]+_scheduler)") =/= nomatch
    ]).

%% ---- What is watched

open(nobody, _Path) ->
    fun(Offset) -> lists:last([bench_file:contents(Offset, ?PAGE) || _ <- lists:seq(1, 30)]) end;
open(iommap, Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    fun(Offset) -> answer(iommap:pread(Handle, Offset, ?PAGE)) end;
open(iommap_random, Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    ok = iommap:advise(Handle, 0, 0, random),
    fun(Offset) -> answer(iommap:pread(Handle, Offset, ?PAGE)) end;
open(floor, Path) ->
    {ok, Mapping} = floor:open(Path, read),
    fun(Offset) -> answer(floor:pread(Mapping, Offset, ?PAGE)) end;
open(file, Path) ->
    {ok, File} = file:open(Path, [read, raw, binary]),
    fun(Offset) -> answer(file:pread(File, Offset, ?PAGE)) end.

answer({ok, Bytes}) -> Bytes.

view_only(iommap, Path) ->
    {ok, Handle} = iommap:open(Path, read, [populate]),
    {ok, View} = iommap:region_binary(Handle, 0, filelib:file_size(Path)),
    ok = iommap:close(Handle),
    View;
view_only(floor, Path) ->
    {ok, Mapping} = floor:open(Path, populate),
    {ok, View} = floor:region_binary(Mapping, 0, filelib:file_size(Path)),
    View.

%% Destructors run some time after the collection or the exit that called for them.
-spec until_unmapped(file:filename()) -> ok.
until_unmapped(Path) ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    case binary:match(Maps, list_to_binary(Path)) of
        nomatch -> ok;
        _ -> until_unmapped(Path)
    end.
