%% Scenes that the suites share: a VM on a file system of its own, file systems that hang or are frozen,
%% and what has to go on meanwhile. Config has the case's own `directory`.
-module(fault_scene).

-export([on/3]).
-export([on_mount/3]).
-export([limited/4]).
-export([outliving/3]).
-export([hang/1]).
-export([open_uncached/2]).
-export([drop_cache/1]).
-export([another_file_works/1]).
-export([every_scheduler_runs/0]).
-export([thaw/1]).
-export([waiting_threads/1, waiting_threads/2]).
-export([skip/1]).

%% Evaluates the function, with the mount, in a VM.
-spec on([tuple()], fault_mounts:kind(), fun((fault_mounts:mount()) -> Result)) -> Result | {skip, string()}.
on(Config, Kind, Function) ->
    on_mount(Config, Kind, fun(Mount) ->
        Vm = fault_rig:start_vm(),
        try fault_rig:run_with(Vm, Function, [Mount]) after fault_rig:stop_vm(Vm) end
    end).

%% Evaluates the function here, on a file system of its own.
-spec on_mount([tuple()], fault_mounts:kind(), fun((fault_mounts:mount()) -> Result)) -> Result | {skip, string()}.
on_mount(Config, Kind, Function) ->
    case fault_mounts:mount(Kind, proplists:get_value(directory, Config)) of
        {ok, Mount} -> try Function(Mount) after fault_mounts:unmount(Mount) end;
        Skip -> Skip
    end.

%% Evaluates the function, with a small file, in a VM that is started through a shell command.
-spec limited([tuple()], Wrapper :: string(), [string()], fun((file:filename()) -> Result)) -> Result.
limited(Config, Wrapper, Arguments, Function) ->
    Path = filename:join(proplists:get_value(directory, Config), "file"),
    ok = file:write_file(Path, fault_pattern:bytes(0, 10_000)),
    Vm = fault_rig:start_vm(#{wrapper => Wrapper, args => Arguments}),
    try fault_rig:run_with(Vm, Function, [Path]) after fault_rig:stop_vm(Vm) end.

%% Evaluates the function here, with a VM that may die while the file "slow" hangs.
-spec outliving([tuple()], fault_mounts:kind(), fun((fault_mounts:mount(), fault_rig:vm()) -> Result)) ->
          Result | {skip, string()}.
outliving(Config, Kind, Function) ->
    on_mount(Config, Kind, fun(Mount) ->
        Vm = fault_rig:start_vm(),
        try
            Function(Mount, Vm)
        after
            fault_mounts:control(Mount, "slow", {release, []}),
            fault_rig:stop_vm(Vm)
        end
    end).

%% Four processes read a file that hangs.
-spec hang(fault_mounts:mount()) -> {iommap:handle(), [pid()]}.
hang(Mount) ->
    {ok, Handle} = open_uncached(Mount, "slow"),
    ok = fault_mounts:control(Mount, "slow", {hang, []}),
    Self = self(),
    Readers = [spawn(fun() -> Self ! {self(), iommap:pread(Handle, N * 200_000, 1000)} end)
               || N <- lists:seq(0, 3)],
    ok = fault_rig:eventually(fun() -> fault_mounts:waiting(Mount, "slow") > 0 end),
    {Handle, Readers}.

%% A file of which no page is in memory.
-spec open_uncached(fault_mounts:mount(), file:filename()) -> {ok, iommap:handle()} | {error, iommap:reason()}.
open_uncached(Mount, Name) ->
    Path = fault_mounts:path(Mount, Name),
    ok = file:write_file(Path, fault_pattern:bytes(0, 1_000_000)),
    {0, _} = fault_rig:shell(["sync ", Path]),
    Opened = iommap:open(Path, read_write, []),
    ok = drop_cache(Path),
    Opened.

-spec drop_cache(file:filename()) -> ok.
drop_cache(Path) ->
    {ok, File} = file:open(Path, [read, raw]),
    ok = file:advise(File, 0, 0, dont_need),
    file:close(File).

-spec another_file_works(file:filename()) -> ok.
another_file_works(Directory) ->
    Path = filename:join(Directory, "other"),
    Expected = fault_pattern:bytes(0, 10_000),
    ok = file:write_file(Path, Expected),
    {ok, Other} = iommap:open(Path, read_write, []),
    ok = iommap:pwrite(Other, 0, Expected),
    {ok, Expected} = iommap:pread(Other, 0, 10_000),
    ok = iommap:sync(Other),
    ok = iommap:truncate(Other, 20_000),
    ok = iommap:close(Other).

%% Returns once each scheduler of this VM has run a process.
-spec every_scheduler_runs() -> ok.
every_scheduler_runs() ->
    Self = self(),
    Runners = [spawn_opt(fun() -> Self ! {self(), runs} end, [{scheduler, N}])
               || N <- lists:seq(1, erlang:system_info(schedulers_online))],
    [receive {Runner, runs} -> ok end || Runner <- Runners],
    ok.

%% Nothing to do if it is not frozen.
-spec thaw(file:filename()) -> term().
thaw(Point) ->
    fault_rig:shell(["fsfreeze -u ", Point]).

%% How many threads of the VM nothing but the kernel can wake.
-spec waiting_threads(fault_rig:vm()) -> non_neg_integer().
waiting_threads(Vm) ->
    waiting_threads(Vm, "").

%% The same of the threads with this name.
-spec waiting_threads(fault_rig:vm(), Name :: string()) -> non_neg_integer().
waiting_threads(Vm, Name) ->
    Stats = [file:read_file(Stat) || Stat <- filelib:wildcard("/proc/" ++ fault_rig:os_pid(Vm) ++ "/task/*/stat")],
    length([waits || {ok, Stat} <- Stats, re:run(Stat, ["\\(", Name, ".*\\) D "]) =/= nomatch]).

-spec skip(iodata()) -> {skip, iodata()}.
skip(Reason) ->
    io:put_chars(user, ["Skipped: ", Reason, $\n]),
    {skip, Reason}.
