%% Limits of the system, used up by the VM that is asked.
-module(test_limits).

-export([alone/1]).
-export([with_map_count/2]).
-export([exhaust_map_count/1]).
-export([open_until_error/2]).
-export([limit_address_space/1]).

-define(MAP_COUNT, "/proc/sys/vm/max_map_count").

%% Evaluates the function while nobody else on this machine, in whichever root file system, changes a limit that all have in
%% common, or needs it to stay. The core's tests take the same lock. It ends with the process that holds it.
-spec alone(fun(() -> Result)) -> Result.
alone(Function) ->
    Lock = take(os:find_executable("flock"), filelib:is_dir("/dev/shm")),
    try Function() after release(Lock) end.

take(Flock, true) when Flock =/= false ->
    File = "/dev/shm/iommap-tests-" ++ string:trim(os:cmd("id -u")) ++ ".lock",
    %% What is started holds the lock until its input ends.
    Port = open_port({spawn_executable, Flock}, [{args, ["--close", File, "sh", "-c", "echo; exec cat"]}, binary]),
    receive {Port, {data, <<"\n">>}} -> Port end;
take(_, _) ->
    none.

release(none) -> ok;
release(Port) -> port_close(Port).

%% Evaluates the function while the system allows each process so many mappings, or tells why it cannot.
-spec with_map_count(pos_integer(), fun(() -> Result)) -> Result | {skip, iodata()}.
with_map_count(Limit, Function) ->
    alone(fun() ->
        Before = map_count(),
        %% Also when this process is killed.
        {Keeper, Monitor} = spawn_monitor(fun() -> put_back_after(Before) end),
        Keeper ! {watch, self()},
        try set_map_count(Limit) of
            Limit -> Function();
            Other -> test_scene:skip("the limit of mappings is not ours to change, and " ++ integer_to_list(Other))
        after
            Keeper ! put_back,
            receive {'DOWN', Monitor, process, Keeper, _} -> ok end
        end
    end).

put_back_after(Limit) ->
    receive {watch, Pid} -> monitor(process, Pid) end,
    receive _ -> set_map_count(Limit) end.

%% What it is then.
set_map_count(Limit) ->
    map_count() =:= Limit orelse file:write_file(?MAP_COUNT, integer_to_list(Limit)),
    map_count().

map_count() ->
    {ok, Limit} = file:read_file(?MAP_COUNT),
    binary_to_integer(string:trim(Limit)).

%% Leaves no map entry, for what is done alone: advice on every other page of one mapping takes them without a descriptor each,
%% and opens take what is left. The result keeps them; closing the first handle gives most of them back. Skips the case where
%% an emulator keeps the entries, which has no such limit.
-spec exhaust_map_count(file:filename()) -> {Splitter :: iommap:handle(), [iommap:handle()]}.
exhaust_map_count(Path) ->
    test_system:can_see_pages() orelse throw(test_scene:skip("the map entries are an emulator's")),
    Page = test_pattern:page(),
    Pages = 2 * map_count(),
    Sparse = Path ++ ".sparse",
    [] = os:cmd("truncate -s " ++ integer_to_list(Pages * Page) ++ " " ++ Sparse),
    {ok, Splitter} = iommap:open(Sparse, read, []),
    %% madvise's word for it.
    eagain = split(Splitter, Page, 0, Pages),
    {Handles, enomem} = open_until_error(Path, 1000),
    {Splitter, Handles}.

split(_, _, Index, Pages) when Index >= Pages ->
    nothing;
split(Splitter, Page, Index, Pages) ->
    case iommap:advise(Splitter, Index * Page, Page, random) of
        ok -> split(Splitter, Page, Index + 2, Pages);
        {error, Error} -> Error
    end.

%% Opens the file so many times, or until that fails.
-spec open_until_error(file:filename(), non_neg_integer()) -> {[iommap:handle()], iommap:reason() | nothing}.
open_until_error(Path, Most) ->
    open_until_error(Path, Most, []).

open_until_error(_, 0, Handles) ->
    {Handles, nothing};
open_until_error(Path, Most, Handles) ->
    case iommap:open(Path, read, []) of
        {ok, Handle} -> open_until_error(Path, Most - 1, [Handle | Handles]);
        {error, Error} -> {Handles, Error}
    end.

%% Lets this VM have so much more address space than it has.
-spec limit_address_space(MoreKilobytes :: pos_integer()) -> ok.
limit_address_space(MoreKilobytes) ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kilobytes]} = re:run(Status, "VmSize:\\s*(\\d+) kB", [{capture, all_but_first, list}]),
    Limit = (list_to_integer(Kilobytes) + MoreKilobytes) * 1024,
    [] = os:cmd("prlimit --pid " ++ os:getpid() ++ " --as=" ++ integer_to_list(Limit) ++ ":"),
    ok.
