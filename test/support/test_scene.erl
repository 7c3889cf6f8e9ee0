%% Scenes that the suites share: a VM on a file system of its own, file systems that hang or are frozen,
%% and what has to go on meanwhile. Config has the case's own `directory`.
-module(test_scene).

-export([on/3]).
-export([on_mount/3]).
-export([on_faultfs/2]).
-export([limited/4]).
-export([outliving/3]).
-export([hang/1]).
-export([open_uncached/2]).
-export([another_file_works/1]).
-export([every_scheduler_runs/0]).
-export([thaw/1]).
-export([waiting_threads/1, waiting_threads/2]).
-export([skip/1]).

%% Evaluates the function, with the mount, in a VM.
-spec on([tuple()], test_mounts:kind(), fun((test_mounts:mount()) -> Result)) -> Result | {skip, string()}.
on(Config, Kind, Function) ->
    on_mount(Config, Kind, fun(Mount) ->
        Vm = test_vm:start(),
        try test_vm:run_with(Vm, Function, [Mount]) after test_vm:stop(Vm) end
    end).

%% Evaluates the function here, on a file system of its own.
-spec on_mount([tuple()], test_mounts:kind(), fun((test_mounts:mount()) -> Result)) -> Result | {skip, string()}.
on_mount(Config, Kind, Function) ->
    case test_mounts:mount(Kind, proplists:get_value(directory, Config)) of
        {ok, Mount} -> try Function(Mount) after test_mounts:unmount(Mount) end;
        Skip -> Skip
    end.

%% Evaluates the function here, with the path of a file, "slow", that may be in trouble.
-spec on_faultfs([tuple()], fun((test_mounts:mount(), file:filename()) -> Result)) -> Result | {skip, string()}.
on_faultfs(Config, Function) ->
    on_mount(Config, faultfs, fun(Mount) ->
        Path = test_mounts:path(Mount, "slow"),
        ok = file:write_file(Path, test_pattern:bytes(10_000)),
        {0, _} = test_system:shell(["sync ", Path]),
        try Function(Mount, Path) after test_mounts:control(Mount, "slow", {clear, []}) end
    end).

%% Evaluates the function, with a small file, in a VM that is started through a shell command.
-spec limited([tuple()], Wrapper :: string(), [string()], fun((file:filename()) -> Result)) -> Result.
limited(Config, Wrapper, Arguments, Function) ->
    Path = filename:join(proplists:get_value(directory, Config), "file"),
    ok = file:write_file(Path, test_pattern:bytes(10_000)),
    Vm = test_vm:start(#{wrapper => Wrapper, args => Arguments}),
    try test_vm:run_with(Vm, Function, [Path]) after test_vm:stop(Vm) end.

%% Evaluates the function here, with a VM that may die while the file "slow" hangs.
-spec outliving([tuple()], test_mounts:kind(), fun((test_mounts:mount(), test_vm:vm()) -> Result)) ->
          Result | {skip, string()}.
outliving(Config, Kind, Function) ->
    on_mount(Config, Kind, fun(Mount) ->
        Vm = test_vm:start(),
        try
            Function(Mount, Vm)
        after
            test_mounts:control(Mount, "slow", {release, []}),
            test_vm:stop(Vm)
        end
    end).

%% Four processes read a file that hangs.
-spec hang(test_mounts:mount()) -> {iommap:handle(), [pid()]}.
hang(Mount) ->
    {ok, Handle} = open_uncached(Mount, "slow"),
    ok = test_mounts:control(Mount, "slow", {hang, []}),
    Self = self(),
    Readers = [spawn(fun() -> Self ! {self(), iommap:pread(Handle, N * 200_000, 1000)} end)
               || N <- lists:seq(0, 3)],
    ok = test_processes:eventually(fun() -> test_mounts:waiting(Mount, "slow") > 0 end),
    {Handle, Readers}.

%% A file of which no page is in memory.
-spec open_uncached(test_mounts:mount(), file:filename()) -> {ok, iommap:handle()} | {error, iommap:reason()}.
open_uncached(Mount, Name) ->
    Path = test_mounts:path(Mount, Name),
    ok = file:write_file(Path, test_pattern:bytes(1_000_000)),
    {0, _} = test_system:shell(["sync ", Path]),
    Opened = iommap:open(Path, read_write, []),
    ok = test_files:drop_cache(Path),
    Opened.

-spec another_file_works(file:filename()) -> ok.
another_file_works(Directory) ->
    Path = filename:join(Directory, "other"),
    Expected = test_pattern:bytes(10_000),
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
    test_system:shell(["fsfreeze -u ", Point]).

%% How many threads of the VM nothing but the kernel can wake.
-spec waiting_threads(test_vm:vm()) -> non_neg_integer().
waiting_threads(Vm) ->
    waiting_threads(Vm, "").

%% The same of the threads with this name.
-spec waiting_threads(test_vm:vm(), Name :: string()) -> non_neg_integer().
waiting_threads(Vm, Name) ->
    Stats = [file:read_file(Stat) || Stat <- filelib:wildcard("/proc/" ++ test_vm:os_pid(Vm) ++ "/task/*/stat")],
    length([waits || {ok, Stat} <- Stats, re:run(Stat, ["\\(", Name, ".*\\) D "]) =/= nomatch]).

-spec skip(iodata()) -> {skip, iodata()}.
skip(Reason) ->
    io:put_chars(user, ["Skipped: ", Reason, $\n]),
    {skip, Reason}.
