%% The fuzzer: random operations on handles of all kinds and by another OS process, on each file system in turn, against
%% the model (fuzz_model.erl). Started by fuzz.sh.
%%
%% The operations of a case follow from its seed. They run in a VM that may die (fuzz_run.erl), with the other process in
%% step, so that a case that fails can be run again, and is: with ever fewer operations, as long as it fails.
-module(iommap_fuzz).

-export([main/0]).

-define(OPS, 50).
%% How long one case may take, in milliseconds; more means that the VM hangs.
-define(PATIENCE, 60_000).
%% How often a case that fails is run again to find out what it needs.
-define(ATTEMPTS, 400).
%% One case in so many is one without an order (fuzz_race.erl), of so many milliseconds.
-define(RACES, 50).
-define(RACE, 1500).

-type kind() :: {Name :: string(), test_mounts:kind()}.

-record(fuzz, {
    directory :: file:filename(),
    mount :: test_mounts:mount(),
    vm :: test_vm:vm()
}).

main() ->
    [Directory, Seconds, Seed, Only, Most] = init:get_plain_arguments(),
    ok = logger:set_module_level([gen_server, proc_lib], none),
    Until = erlang:monotonic_time(second) + list_to_integer(Seconds),
    Mounts = lists:append([mounted(Kind, Directory) || {Name, _} = Kind <- kinds(), Only =:= "all" orelse Only =:= Name]),
    Mounts =/= [] orelse halt("no such file system", 2),
    First = case Seed of "random" -> erlang:system_time(second); _ -> list_to_integer(Seed) end,
    io:format("fuzz: seed ~b, on ~s~n", [First, lists:join(", ", [Name || {Name, _} <- Mounts])]),
    {Cases, Failures} = cases(First, Mounts, Directory, Until, list_to_integer(Most)),
    [test_mounts:unmount(Mount) || {_, Mount} <- Mounts],
    io:format("fuzz: ~b cases of ~b operations, ~b failed~n", [Cases, ?OPS, Failures]),
    halt(min(Failures, 1)).

-spec kinds() -> [kind()].
kinds() ->
    [{"ext4", ext4},
     {"xfs", xfs},
     {"btrfs", btrfs},
     {"btrfs-compressed", {btrfs, "compress-force=zstd"}},
     {"tmpfs", {tmpfs, "size=128m,huge=never"}},
     {"tmpfs-huge", {tmpfs, "size=128m,huge=always"}},
     {"overlayfs", overlayfs},
     {"fuse", faultfs}].

mounted({Name, Kind}, Directory) ->
    case test_mounts:mount(Kind, filename:join(Directory, Name)) of
        {ok, Mount} -> [{Name, Mount}];
        {skip, _} -> []
    end.

%% ---- Cases ------------------------------------------------------------------------------------

cases(First, Mounts, Directory, Until, Most) ->
    cases(First, 0, 0, Mounts, Directory, Until, Most, test_vm:start()).

cases(Seed, Done, Failures, [{Name, Mount} | Rest] = Mounts, Directory, Until, Most, Vm) ->
    case Failures >= Most orelse erlang:monotonic_time(second) >= Until of
        true ->
            test_vm:stop(Vm),
            {Done, Failures};
        false ->
            {Failed, After} = one(Seed, Name, #fuzz{directory = Directory, mount = Mount, vm = Vm}),
            cases(Seed + 1, Done + 1, Failures + Failed, Rest ++ [hd(Mounts)], Directory, Until, Most, After#fuzz.vm)
    end.

one(Seed, Name, Fuzz) when Seed rem ?RACES =:= 0 ->
    Options = #{milliseconds => ?RACE, may_see_zeros => may_see_zeros(Name)},
    case run(fuzz_race, fun(Case) -> [Case, Seed, Options] end, Fuzz) of
        {ok, Next} -> {0, Next};
        {Outcome, Next} -> {failed(Outcome, Name, Seed), Next}
    end;
one(Seed, Name, Fuzz) ->
    Ops = fuzz_ops:generate(Seed, ?OPS),
    case run(Ops, Fuzz) of
        {ok, Next} -> {0, Next};
        {Outcome, Next} -> {failed(Outcome, Name, Seed), shortest(Outcome, Ops, Next)}
    end.

%% Pages of large folios are zeroed while they are mapped: a copy may be made just then, and a view be read, the file having grown
%% back when intact/1 is asked. A FUSE server that has cut the file, and has not said so yet, answers reads short, which the system
%% fills up.
may_see_zeros("tmpfs-huge") -> [pread, view];
may_see_zeros("fuse") -> [pread, view];
may_see_zeros(_) -> [].

failed(Outcome, Name, Seed) ->
    io:format("~nFAILED on ~s: make fuzz SEED=~b FS=~s~n~p~n", [Name, Seed, Name, Outcome]),
    1.

shortest(Outcome, Ops, Fuzz) ->
    Before = lists:sublist(Ops, index(Outcome, length(Ops))),
    {Shorter, Last, After} = shrink(Before, Outcome, Fuzz),
    io:format("the shortest that was found:~n~p~n~p~n", [Shorter, Last]),
    After.

index({wrong, #{index := Index}}, _) -> Index;
index({died, _, Index}, _) -> Index;
index(_, Length) -> Length.

run(Ops, #fuzz{directory = Directory} = Fuzz) ->
    Progress = progress(Directory),
    ok = file:write_file(Progress, "0"),
    run(fuzz_run, fun(Case) -> [Case, Ops, Progress] end, Fuzz).

%% In a directory of its own, in a VM that is there again if it died.
run(Module, Arguments, #fuzz{directory = Directory, mount = Mount, vm = Vm} = Fuzz) ->
    Case = test_mounts:path(Mount, "case" ++ integer_to_list(erlang:unique_integer([positive]))),
    ok = file:make_dir(Case),
    Outcome = try test_vm:call(Vm, Module, run, Arguments(Case), ?PATIENCE) of
        ok -> left_open(Case, Vm);
        Wrong -> Wrong
    catch
        error:{vm_died, Death} -> {died, Death, last(progress(Directory))};
        error:vm_hangs -> {died, hangs, last(progress(Directory))};
        Class:Reason:Stack -> {crashed, {Class, Reason, Stack}}
    end,
    Next = case Outcome of
        {died, _, _} -> Fuzz#fuzz{vm = test_vm:start()};
        _ -> Fuzz
    end,
    %% A FUSE server may keep files that somebody has open under other names for a while.
    _ = file:del_dir_r(Case),
    {Outcome, Next}.

progress(Directory) -> filename:join(Directory, "progress").

last(Progress) ->
    {ok, Index} = file:read_file(Progress),
    list_to_integer(string:trim(binary_to_list(Index))).

%% When all is over, the VM has none of the files.
left_open(Case, Vm) ->
    Descriptors = filename:join(["/proc", test_vm:os_pid(Vm), "fd"]),
    Open = fun() ->
        Links = [file:read_link(filename:join(Descriptors, Fd)) || Fd <- element(2, {ok, _} = file:list_dir(Descriptors))],
        [Link || {ok, Link} <- Links, lists:prefix(Case ++ "/", Link)]
    end,
    try test_processes:eventually(fun() -> Open() =:= [] end)
    catch error:never -> {left_open, Open()}
    end.

%% ---- Fewer operations -------------------------------------------------------------------------

%% Takes out half of them, quarters, and so on, as long as what is left fails in the same way.
shrink(Ops, Outcome, Fuzz) ->
    {Shorter, Last, _, After} = shrink(max(1, length(Ops) div 2), Ops, Outcome, ?ATTEMPTS, Fuzz),
    {Shorter, Last, After}.

shrink(Size, Ops, Outcome, Attempts, Fuzz) ->
    {Left, Last, Rest, Next} = without_parts(0, Size, Ops, Outcome, Attempts, Fuzz),
    case Size of
        1 when length(Left) =:= length(Ops) -> {Left, Last, Rest, Next};
        _ when Rest =< 0 -> {Left, Last, Rest, Next};
        _ -> shrink(max(1, Size div 2), Left, Last, Rest, Next)
    end.

without_parts(Start, _, Ops, Outcome, Attempts, Fuzz) when Start >= length(Ops); Attempts =< 0 ->
    {Ops, Outcome, Attempts, Fuzz};
without_parts(Start, Size, Ops, Outcome, Attempts, Fuzz) ->
    {Before, Rest} = lists:split(Start, Ops),
    Fewer = Before ++ lists:nthtail(min(Size, length(Rest)), Rest),
    {Now, Next} = run(Fewer, Fuzz),
    case way(Now) =:= way(Outcome) of
        true -> without_parts(Start, Size, Fewer, Now, Attempts - 1, Next);
        false -> without_parts(Start + Size, Size, Ops, Outcome, Attempts - 1, Next)
    end.

way({wrong, #{op := Op}}) when is_tuple(Op) -> {wrong, element(1, Op)};
way({wrong, #{op := Op}}) -> {wrong, Op};
way({died, Death, _}) -> {died, Death};
way({wrong, Role, _}) -> {wrong, Role};
way({crashed, {Class, _, _}}) -> {crashed, Class};
way({left_open, _}) -> left_open;
way(ok) -> ok.
