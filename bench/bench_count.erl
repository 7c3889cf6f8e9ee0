%% How many instructions a call takes, and how many lie between the cache miss of one call and that of the next. Counted by gdb,
%% which steps through the VM (`bench/count.py`), so neither a clock nor the load of the machine matters, and what the machine has
%% no cores or files for can be counted, too: many schedulers, mappings and processes, a huge file.
-module(bench_count).

-export([counts/2, calls/0, scale_calls/0, scenes/0, table/1, scale_table/1, start/1]).
-export_type([scene/0, count/0]).

-type scene() :: #{vm => [string()], mappings => pos_integer(), size => pos_integer(), processes => pos_integer()}.
-type count() :: {Call :: string(), iommap | floor, {Instructions :: pos_integer(), Distance :: non_neg_integer()}}.

-define(SIZE, (1 bsl 22)).
-define(ATTEMPTS, 5).

%% The calls whose distance is compared with the floor's, and those that are counted while things grow.
-spec calls() -> [string()].
calls() -> ["read 8 B", "read 64 B", "write 64 B"].

-spec scale_calls() -> [string()].
scale_calls() -> ["read 8 B", "device read 64 B", "write 64 B", "write 64 B, while there is a view", "view 4 KB", "position", "intact of a view"].

-spec scenes() -> [{Name :: string(), scene()}].
scenes() ->
    [{"one mapping", #{}},
     {"64 schedulers", #{vm => ["+S", "64:64"]}},
     {"10,000 mappings", #{mappings => 10_000}},
     {"a mapping of 1 TiB", #{size => 1 bsl 40}},
     {"100,000 processes", #{processes => 100_000}}].

%% Of some calls, each in a VM of its own.
-spec counts(file:filename(), [{string(), iommap | floor, scene()}]) -> [count()].
counts(Directory, Wanted) ->
    [begin
        Path = filename:join(Directory, "counted"),
        Vm = bench_conductor:start_vm(#{args => maps:get(vm, Scene, ["+S", "1:1"])}),
        Pid = bench_conductor:call(Vm, ?MODULE, start, [{Call, Module, Path, Scene}]),
        Count = try count(Path, Pid, ?ATTEMPTS) after bench_conductor:stop_vm(Vm) end,
        ok = file:delete(Path),
        {Call, Module, Count}
    end || {Call, Module, Scene} <- Wanted].

%% There may be no calls to see at the moment: one may wait on a dirty scheduler, which stands still as the others do.
count(Path, Pid, Attempts) ->
    %% Symbols are not needed, and to read them takes as long as the stepping.
    Command = "MAPPED='~ts' gdb -nx -batch-silent -iex 'set auto-solib-add off' -p ~s -x bench/count.py 2>&1 | tail -4",
    Said = os:cmd(lists:flatten(io_lib:format(Command, [Path, Pid]))),
    case io_lib:fread("instructions ~d distance ~d", string:find(Said ++ "instructions", "instructions")) of
        {ok, [Instructions, Distance], _} -> {Instructions, Distance};
        _ when Attempts > 1 -> count(Path, Pid, Attempts - 1);
        _ -> throw({gdb, Said})
    end.

-spec table([count()]) -> unicode:chardata().
table([]) ->
    "None were counted: gdb, which does, is not here, or may not look at another process.\n";
table(Counts) ->
    [bench_report:table(["", "iommap, a call", "floor, a call", "iommap, to the next prefetch", "floor, to the next access"],
        [[Call | [bench_report:number(Number) || Number <- [A, B, C, D]]]
         || Call <- calls(), {C1, iommap, {A, C}} <- Counts, C1 =:= Call, {C2, floor, {B, D}} <- Counts, C2 =:= Call]),
     "\nStepped through by gdb. The last two columns count from the first access of a call to the mapping: a core can overlap the ",
     "cache misses of two calls if it gets as far ahead as the second one's prefetch.\n"].

%% Rows are calls, columns scenes.
-spec scale_table([{Scene :: string(), [count()]}]) -> unicode:chardata().
scale_table(Scenes) ->
    [{_, First} | _] = Scenes,
    [bench_report:table(["" | [Name || {Name, _} <- Scenes]],
        [[Call | [bench_report:number(Number) || {_, Counts} <- Scenes, {C, _, {Number, _}} <- Counts, C =:= Call]]
         || {Call, _, _} <- First]),
     "\nOf one process that makes the call over and over, the loop included; a system call is one instruction. All mappings are ",
     "of one file, and one in their middle is used. Of the file of 1 TiB the first 4 MiB are, as of the others. The processes ",
     "wait for a message.\n"].

%% ---- In the VM that is stepped through

%% Makes the calls for ever, on the first scheduler; the id of the OS process.
-spec start({string(), iommap | floor, file:filename(), scene()}) -> string().
start({Call, Module, Path, Scene}) ->
    ok = bench_file:make(Path, ?SIZE),
    ok = enlarge(Path, maps:get(size, Scene, ?SIZE)),
    Caller = self(),
    _ = [spawn(fun() -> receive after infinity -> ok end end) || _ <- lists:seq(1, maps:get(processes, Scene, 0))],
    _ = spawn_opt(fun() ->
        {Mode, Contender} = contender(Call, Module),
        Handles = [open(Module, Path, Mode) || _ <- lists:seq(1, maps:get(mappings, Scene, 1))],
        %% Not the first and not the last of them.
        Handle = lists:nth(1 + length(Handles) div 2, Handles),
        Subject = subject(Call, Module, Handle),
        bench_loop:forever(Contender#{open => fun() -> Subject end}, fun() -> Caller ! {warm, Handles} end)
    end, [{scheduler, 1}]),
    receive {warm, Handles} -> true = is_list(Handles) end,
    os:getpid().

%% A sparse file: only its beginning is accessed.
enlarge(Path, Size) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    {ok, _} = file:position(File, Size),
    ok = file:truncate(File),
    file:close(File).

open(iommap, Path, Mode) -> element(2, {ok, _} = iommap:open(Path, Mode, []));
open(floor, Path, read) -> element(2, {ok, _} = floor:open(Path, read));
open(floor, Path, read_write) -> element(2, {ok, _} = floor:open(Path, write)).

subject("intact of a view", iommap, Handle) -> element(2, {ok, _} = iommap:region_binary(Handle, 0, ?SIZE));
subject("write 64 B, while there is a view", iommap, Handle) ->
    {ok, View} = iommap:region_binary(Handle, 0, ?SIZE),
    ok = persistent_term:put(?MODULE, View),
    Handle;
subject("device read 64 B", iommap, Handle) -> element(2, {ok, _} = iommap_file:from(Handle));
subject(_, _, Handle) -> Handle.

contender("read 8 B", Module) -> {read, each(fun Module:pread/3, 8)};
contender("read 64 B", Module) -> {read, each(fun Module:pread/3, 64)};
contender("write 64 B", Module) -> {read_write, each(fun Module:pwrite/3, binary:copy(<<"w">>, 64))};
contender("write 64 B, while there is a view", Module) -> contender("write 64 B", Module);
contender("device read 64 B", iommap) -> {read, each(fun file:pread/3, 64)};
contender("view 4 KB", Module) -> {read, each(fun Module:region_binary/3, 4096)};
contender("position", iommap) -> {read, each(fun(Handle, _, _) -> iommap:position(Handle) end, none)};
contender("intact of a view", iommap) -> {read, each(fun(View, _, _) -> iommap:intact(View) end, none)}.

each(Call, Argument) ->
    #{name => counted, call => Call, argument => Argument, mask => ?SIZE - 4096, expect => fun(_, _) -> true end}.
