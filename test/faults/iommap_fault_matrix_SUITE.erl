%% The fault matrix: every kind of reader meets every kind of trouble, shared and private, on every
%% file system, and the VM lives. One case a file system; fault_cell.erl says what a cell checks.
-module(iommap_fault_matrix_SUITE).

-include_lib("common_test/include/ct.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([no_trouble_on_ext4_kills_the_vm_or_passes_for_data/1,
         no_trouble_on_xfs_kills_the_vm_or_passes_for_data/1,
         no_trouble_on_btrfs_kills_the_vm_or_passes_for_data/1,
         no_trouble_on_tmpfs_kills_the_vm_or_passes_for_data/1,
         no_trouble_on_tmpfs_in_large_folios_kills_the_vm_or_passes_for_data/1,
         no_trouble_on_fuse_kills_the_vm_or_passes_for_data/1,
         at_least_200_cells_ran/1]).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [no_trouble_on_ext4_kills_the_vm_or_passes_for_data,
     no_trouble_on_xfs_kills_the_vm_or_passes_for_data,
     no_trouble_on_btrfs_kills_the_vm_or_passes_for_data,
     no_trouble_on_tmpfs_kills_the_vm_or_passes_for_data,
     no_trouble_on_tmpfs_in_large_folios_kills_the_vm_or_passes_for_data,
     no_trouble_on_fuse_kills_the_vm_or_passes_for_data,
     at_least_200_cells_ran].

init_per_suite(Config) ->
    ok = test_tools:build(),
    [{cells, counters:new(1, [])} | Config].

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) ->
    case kind(Case) of
        none ->
            Config;
        Kind ->
            case test_mounts:mount(Kind, ?config(priv_dir, Config)) of
                {ok, Mount} -> [{mount, Mount} | Config];
                Skip -> Skip
            end
    end.

end_per_testcase(_Case, Config) ->
    case ?config(mount, Config) of
        undefined -> ok;
        Mount -> test_mounts:unmount(Mount)
    end.

kind(no_trouble_on_ext4_kills_the_vm_or_passes_for_data) -> ext4;
kind(no_trouble_on_xfs_kills_the_vm_or_passes_for_data) -> xfs;
kind(no_trouble_on_btrfs_kills_the_vm_or_passes_for_data) -> btrfs;
kind(no_trouble_on_tmpfs_kills_the_vm_or_passes_for_data) -> {tmpfs, "size=64m"};
kind(no_trouble_on_tmpfs_in_large_folios_kills_the_vm_or_passes_for_data) -> {tmpfs, "size=64m,huge=always"};
kind(no_trouble_on_fuse_kills_the_vm_or_passes_for_data) -> faultfs;
kind(at_least_200_cells_ran) -> none.

%% Whatever happens to a file on ext4, readers of its mapping go on, and what was lost is told.
no_trouble_on_ext4_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% The same on xfs.
no_trouble_on_xfs_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% The same on btrfs.
no_trouble_on_btrfs_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% The same on tmpfs.
no_trouble_on_tmpfs_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% The same on tmpfs that keeps files in pieces of many pages.
no_trouble_on_tmpfs_in_large_folios_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% The same on a FUSE file system, whose reads can also fail.
no_trouble_on_fuse_kills_the_vm_or_passes_for_data(Config) -> matrix(Config).

%% What the other cases of this run checked is as much as was promised, whichever file systems there were.
at_least_200_cells_ran(Config) ->
    Cells = counters:get(?config(cells, Config), 1),
    io:format(user, "~b cells ran~n", [Cells]),
    case Cells of
        0 -> {skip, "no file system was there"};
        _ -> true = Cells >= 200
    end.

%% ---- The table --------------------------------------------------------------------------------

matrix(Config) ->
    #{kind := Kind} = Mount = ?config(mount, Config),
    {Rows, Vm} = lists:mapfoldl(
        fun(Reader, Vm) -> row(Vm, Reader, Mount) end,
        test_vm:start(), fault_cell:readers()),
    test_vm:stop(Vm),
    print(Kind, Rows),
    %% A cell that did not come to its end has checked nothing.
    Ran = length([ran || {_, Cells} <- Rows, {_, {Saw, _}} <- Cells, not lists:member(Saw, [died, hangs, failed])]),
    counters:add(?config(cells, Config), 1, Ran),
    Broken = [{Reader, Column, Wrong} || {Reader, Cells} <- Rows, {Column, {_, Wrong}} <- Cells, Wrong =/= []],
    case Broken of
        [] -> ok;
        _ -> ct:fail("~b cells: ~tp", [length(Broken), Broken])
    end.

columns(Kind) ->
    [{Sharing, Trouble} || Sharing <- [shared, private], Trouble <- fault_cell:troubles(Kind)].

row(Vm, Reader, #{kind := Kind} = Mount) ->
    {Cells, NextVm} = lists:mapfoldl(
        fun({Sharing, Trouble} = Column, CellVm) ->
            {Verdict, NextVm} = cell(CellVm, #{reader => Reader, trouble => Trouble, sharing => Sharing, mount => Mount}),
            {{Column, Verdict}, NextVm}
        end, Vm, columns(Kind)),
    {{Reader, Cells}, NextVm}.

%% A VM that died or hangs is a failed cell, and the next cell gets a new one.
cell(Vm, Cell) ->
    try
        {test_vm:call(Vm, fault_cell, run, [Cell]), Vm}
    catch
        error:{vm_died, Death} ->
            {{died, [Death]}, test_vm:start()};
        error:vm_hangs ->
            {{hangs, [hangs]}, test_vm:start()};
        Class:Reason ->
            {{failed, [{Class, Reason}]}, Vm}
    end.

print(Kind, Rows) ->
    Columns = columns(Kind),
    Heads = [io_lib:format("~s ~s", [Sharing, Trouble]) || {Sharing, Trouble} <- Columns],
    Legend = [io_lib:format("  ~2b ~s~n", [N, Head]) || {N, Head} <- lists:zip(lists:seq(1, length(Heads)), Heads)],
    Head = [io_lib:format("~-20s~-11s", ["reader", "scheduler"]), [io_lib:format("~-7b", [N]) || N <- lists:seq(1, length(Heads))], $\n],
    Lines = [[io_lib:format("~-20s~-11s", [Reader, fault_cell:scheduler(Reader)]),
              [io_lib:format("~-7s", [word(Verdict)]) || {_, Verdict} <- Cells], $\n] || {Reader, Cells} <- Rows],
    Table = [io_lib:format("~n~p: ~b cells~n", [Kind, length(Rows) * length(Columns)]), Legend, Head, Lines],
    ct:log("<pre>~ts</pre>", [Table], [no_css]),
    io:put_chars(user, Table).

word({Saw, []}) -> atom_to_list(Saw);
word({died, _}) -> "DIED";
word({hangs, _}) -> "HANGS";
word(_) -> "WRONG".
