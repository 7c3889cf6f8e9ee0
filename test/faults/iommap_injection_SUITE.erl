%% Failure at every system call, on real file systems: the core's own test (native/iommap_core/tests/injection.rs), each
%% time with its files on another one.
-module(iommap_injection_SUITE).

-include_lib("common_test/include/ct.hrl").

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([a_failed_system_call_changes_nothing_on_ext4/1,
         a_failed_system_call_changes_nothing_on_xfs/1,
         a_failed_system_call_changes_nothing_on_btrfs/1,
         a_failed_system_call_changes_nothing_on_tmpfs/1]).

suite() ->
    [{timetrap, {minutes, 10}}].

all() ->
    [{group, file_systems}].

%% Each mostly waits for what a lack of room is given to go by, so all at once take hardly longer than one.
groups() ->
    [{file_systems, [parallel], cases()}].

cases() ->
    [a_failed_system_call_changes_nothing_on_ext4,
     a_failed_system_call_changes_nothing_on_xfs,
     a_failed_system_call_changes_nothing_on_btrfs,
     a_failed_system_call_changes_nothing_on_tmpfs].

init_per_suite(Config) ->
    ok = fault_rig:build(),
    Config.

end_per_suite(_Config) ->
    ok.

%% Whichever system call of open, truncate, remap or close fails on ext4, nothing has happened.
a_failed_system_call_changes_nothing_on_ext4(Config) -> injected(ext4, Config).

%% The same on xfs.
a_failed_system_call_changes_nothing_on_xfs(Config) -> injected(xfs, Config).

%% The same on btrfs.
a_failed_system_call_changes_nothing_on_btrfs(Config) -> injected(btrfs, Config).

%% The same on tmpfs.
a_failed_system_call_changes_nothing_on_tmpfs(Config) -> injected({tmpfs, "size=64m"}, Config).

injected(Kind, Config) ->
    case fault_mounts:mount(Kind, ?config(priv_dir, Config)) of
        {ok, #{point := Point} = Mount} ->
            try test_in(Point) after fault_mounts:unmount(Mount) end;
        Skip ->
            Skip
    end.

test_in(Point) ->
    Root = filename:join([fault_rig:directory(), "..", ".."]),
    Cargo = os:getenv("CARGO", "cargo"),
    {Status, Output} = fault_rig:shell(["cd ", Root, " && TMPDIR=", Point, " RUST_BACKTRACE=0 ", Cargo,
                                        " test --locked -p iommap_core --test injection 2>&1"]),
    ct:log("<pre>~ts</pre>", [Output], [no_css]),
    Status =:= 0 orelse ct:fail("wrong; see the log").
