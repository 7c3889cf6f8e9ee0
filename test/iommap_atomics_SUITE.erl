%% Words that several OS processes update at the same time: other VMs, and a C program that maps the file itself.
-module(iommap_atomics_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

-define(TIMES, 1_000_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [two_vms_that_add_to_one_word_lose_none,
     a_program_and_a_vm_that_add_to_one_word_lose_none,
     two_vms_that_hand_a_lock_to_each_other_are_never_in_it_together,
     what_a_killed_vm_added_is_there].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = test_files:case_directory(Config),
    [{path, test_files:file(Directory, test_pattern:zeros(4096))} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% Two VMs add to the same word of a file, as fast as they can and a million times each: the sum is there.
two_vms_that_add_to_one_word_lose_none(Config) ->
    Path = path(Config),
    [_, _] = in_two_vms(fun() -> add(Path, ?TIMES) end),
    {ok, <<0:64, Sum:64/native, 0:(4096 - 16)/unit:8>>} = file:read_file(Path),
    Sum = 2 * ?TIMES.

%% A C program that maps the file and uses the processor's own instruction counts with this VM.
a_program_and_a_vm_that_add_to_one_word_lose_none(Config) ->
    Path = path(Config),
    External = external_writer:start(),
    Added = counters:new(1, []),
    ok = test_processes:during([fun() -> ok = add(Path, 1000), counters:add(Added, 1, 1000) end], fun() ->
        external_writer:add(External, Path, 8, 50 * ?TIMES)
    end),
    ok = external_writer:stop(External),
    {ok, <<0:64, Sum:64/native, _/binary>>} = file:read_file(Path),
    Sum = counters:get(Added, 1) + 50 * ?TIMES.

%% A lock of one word (compare_exchange, put) keeps two VMs apart: neither loses an increment that it makes by pread and pwrite.
two_vms_that_hand_a_lock_to_each_other_are_never_in_it_together(Config) ->
    Path = path(Config),
    Times = 5_000,
    [_, _] = in_two_vms(fun() ->
        {ok, Handle} = iommap:open(Path, read_write, []),
        Lock = iommap_atomics:new(Handle, 0, 1, []),
        [begin
            lock(Lock),
            {ok, <<Count:64/native>>} = iommap:pread(Handle, 64, 8),
            ok = iommap:pwrite(Handle, 64, <<(Count + 1):64/native>>),
            ok = iommap_atomics:put(Lock, 1, 0)
        end || _ <- lists:seq(1, Times)],
        ok = iommap:close(Handle)
    end),
    {ok, <<0:64, _:56/binary, Sum:64/native, _/binary>>} = file:read_file(Path),
    Sum = 2 * Times.

%% What was added is in the system's cache: a VM that is killed takes nothing with it.
what_a_killed_vm_added_is_there(Config) ->
    Path = path(Config),
    Vm = test_vm:start(),
    ok = test_vm:run(Vm, fun() -> add(Path, 1000) end),
    ok = test_vm:stop(Vm),
    {ok, Handle} = iommap:open(Path, read, []),
    1000 = iommap_atomics:get(iommap_atomics:new(Handle, 8, 1, []), 1),
    ok = iommap:close(Handle).

path(Config) ->
    filename:absname(proplists:get_value(path, Config)).

in_two_vms(Function) ->
    Vms = [test_vm:start() || _ <- [1, 2]],
    try test_processes:together([fun() -> ok = test_vm:run(Vm, Function) end || Vm <- Vms])
    after [test_vm:stop(Vm) || Vm <- Vms]
    end.

add(Path, Times) ->
    {ok, Handle} = iommap:open(Path, read_write, []),
    add_times(iommap_atomics:new(Handle, 8, 1, []), Times),
    iommap:close(Handle).

add_times(_, 0) -> ok;
add_times(Array, Times) -> ok = iommap_atomics:add(Array, 1, 1), add_times(Array, Times - 1).

lock(Lock) ->
    case iommap_atomics:compare_exchange(Lock, 1, 0, 1) of
        ok -> ok;
        1 -> erlang:yield(), lock(Lock)
    end.
