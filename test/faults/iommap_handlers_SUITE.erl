%% iommap among other libraries that handle SIGBUS, and among the signals of the VM and its children.
%% Every case has a VM of its own, since a handler that is broken ends it.
-module(iommap_handlers_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 2}}].

all() ->
    [a_handler_before_ours_gets_its_own_faults,
     a_plain_handler_before_ours_gets_its_own_faults,
     a_handler_after_ours_that_chains_gets_its_own_faults_and_passes_on_ours,
     a_handler_after_ours_that_blocks_the_signal_and_chains_passes_on_fault_after_fault,
     a_handler_after_ours_that_does_not_chain_is_put_below_ours_by_the_next_open,
     a_handler_after_ours_without_onstack_is_put_below_ours_by_the_next_open,
     a_plain_handler_after_ours_is_put_below_ours_by_the_next_open,
     a_stale_handler_put_back_over_ours_is_put_below_ours_by_the_next_open,
     a_foreign_handler_put_back_over_ours_is_put_below_ours_by_the_next_open,
     a_handler_before_ours_that_jumps_is_found_again_under_another_one,
     two_foreign_handlers_and_ours_each_get_their_own_faults,
     putting_ours_back_makes_no_loop_of_handlers,
     nobodys_fault_ends_the_vm_by_sigbus,
     nobodys_fault_on_a_dirty_scheduler_ends_the_vm_by_sigbus,
     nobodys_fault_leaves_a_core_of_the_right_place,
     nobodys_fault_ends_the_vm_though_sigbus_was_ignored,
     nobodys_fault_under_a_handler_that_gives_up_ends_the_vm_by_sigbus,
     a_one_shot_handler_before_ours_is_called_once,
     a_one_shot_handler_before_ours_is_called_once_by_many_threads,
     a_one_shot_handler_before_ours_is_called_once_for_kill_bus,
     a_one_shot_handler_that_is_put_back_is_called_again,
     kill_bus_ends_the_vm_by_sigbus,
     kill_bus_is_ignored_if_it_was_before_us,
     kill_bus_during_guarded_reads_ends_the_vm_by_sigbus,
     one_fault_covers_the_whole_lost_tail,
     a_view_is_read_on_a_small_alternate_stack,
     a_view_is_read_on_a_thread_without_an_alternate_stack,
     a_view_is_read_on_a_small_alternate_stack_under_another_handler,
     no_other_signal_of_the_vm_changes,
     set_signal_works_as_before,
     a_child_process_inherits_no_signal_setting,
     a_child_process_inherits_no_descriptor].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{vm, test_vm:start()}, {directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    test_vm:stop(?config(vm, Config)).

%% ---- Orders of handlers -----------------------------------------------------------------------

%% A library that was there first still gets its own faults, and we get ours.
a_handler_before_ours_gets_its_own_faults(Config) ->
    comes_before_ours(Config, not_chaining).

%% The same with the old kind of handler, which learns no address.
a_plain_handler_before_ours_gets_its_own_faults(Config) ->
    comes_before_ours(Config, plain).

comes_before_ours(Config, Kind) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(Kind),
        survive_a_lost_view(Directory),
        recovered = foreign_handler:recover(),
        recovered = foreign_handler:recover_dirty(),
        survive_a_lost_view(Directory)
    end).

%% A library that comes later and chains sees all faults first; ours reach us, without a new mapping.
a_handler_after_ours_that_chains_gets_its_own_faults_and_passes_on_ours(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        foreign_handler:install(chaining),
        zeros = read(Lost),
        recovered = foreign_handler:recover(),
        recovered = foreign_handler:recover_dirty(),
        survive_a_lost_view(Directory),
        recovered = foreign_handler:recover()
    end).

%% The kernel blocks the signal while such a handler runs. We leave it by a jump into a guarded read, and the
%% next fault of the thread reaches us all the same: a blocked one would end the VM.
a_handler_after_ours_that_blocks_the_signal_and_chains_passes_on_fault_after_fault(Config) ->
    Directory = ?config(directory, Config),
    Vm = test_vm:start(#{args => ["+S", "1", "+SDcpu", "1", "+SDio", "1"]}),
    try
        test_vm:run(Vm, fun() ->
            Lost = lost_view(Directory),
            Paths = [filename:join(Directory, "read-" ++ integer_to_list(N)) || N <- lists:seq(1, 50)],
            Handles = [begin
                ok = file:write_file(Path, test_pattern:bytes(10_000)),
                {ok, Handle} = iommap:open(Path, read, []),
                {ok, <<_>>} = iommap:pread(Handle, 0, 1),
                Handle
            end || Path <- Paths],
            foreign_handler:install(chaining),
            [] = os:cmd("truncate -s 0 " ++ filename:join(Directory, "read-*")),
            [{error, sigbus} = iommap:pread(Handle, 5000, 10) || Handle <- Handles],
            true = foreign_handler:calls() >= length(Handles),
            zeros = read(Lost),
            recovered = foreign_handler:recover(),
            recovered = foreign_handler:recover_dirty()
        end)
    after
        test_vm:stop(Vm)
    end.

%% One that comes later and does not chain would keep our faults from us; the next open puts us on
%% top, and both work from then on.
a_handler_after_ours_that_does_not_chain_is_put_below_ours_by_the_next_open(Config) ->
    is_put_below_ours(Config, not_chaining).

%% A handler without SA_ONSTACK runs where the thread is, which may be on the heap of a process. (A VM up to OTP 26 adds the
%% flag by itself.) The next open has the kernel call ours, on the alternate stack, and what is its own reaches it there.
a_handler_after_ours_without_onstack_is_put_below_ours_by_the_next_open(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        true = foreign_handler:is_on_stack(),
        foreign_handler:install(without_onstack),
        HasFlag = list_to_integer(erlang:system_info(otp_release)) =< 26,
        HasFlag = foreign_handler:is_on_stack(),
        survive_a_lost_view(Directory),
        true = foreign_handler:is_on_stack(),
        zeros = read(Lost),
        recovered = foreign_handler:recover(),
        recovered = foreign_handler:recover_dirty(),
        survive_a_lost_view(Directory)
    end).

%% The same with the old kind of handler.
a_plain_handler_after_ours_is_put_below_ours_by_the_next_open(Config) ->
    is_put_below_ours(Config, plain).

is_put_below_ours(Config, Kind) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        foreign_handler:install(Kind),
        survive_a_lost_view(Directory),
        zeros = read(Lost),
        recovered = foreign_handler:recover(),
        recovered = foreign_handler:recover_dirty()
    end).

%% A library that takes itself away puts back what it found, over us; the next open mends that.
a_stale_handler_put_back_over_ours_is_put_below_ours_by_the_next_open(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(chaining),
        Lost = lost_view(Directory),
        foreign_handler:restore(),
        default = foreign_handler:owner(),
        survive_a_lost_view(Directory),
        zeros = read(Lost)
    end).

%% The same when what it found was a third library's: that one then gets its own faults from us.
a_foreign_handler_put_back_over_ours_is_put_below_ours_by_the_next_open(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(not_chaining),
        other_foreign_handler:install(chaining),
        Lost = lost_view(Directory),
        other_foreign_handler:restore(),
        "foreign_handler.so" = filename:basename(foreign_handler:owner()),
        survive_a_lost_view(Directory),
        "iommap_nif.so" = filename:basename(foreign_handler:owner()),
        zeros = read(Lost),
        [recovered = foreign_handler:recover() || _ <- lists:seq(1, 10)],
        [recovered = foreign_handler:recover_dirty() || _ <- lists:seq(1, 10)],
        survive_a_lost_view(Directory)
    end),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

%% A handler that recovers by a jump never returns to us; that must not confuse the next delegation,
%% also when another library has come on top since.
a_handler_before_ours_that_jumps_is_found_again_under_another_one(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(not_chaining),
        survive_a_lost_view(Directory),
        [recovered = foreign_handler:recover() || _ <- lists:seq(1, 10)],
        other_foreign_handler:install(chaining),
        [recovered = foreign_handler:recover() || _ <- lists:seq(1, 10)],
        [recovered = foreign_handler:recover_dirty() || _ <- lists:seq(1, 10)],
        recovered = other_foreign_handler:recover(),
        survive_a_lost_view(Directory)
    end).

%% One before us, one after: three owners, each with its own faults.
two_foreign_handlers_and_ours_each_get_their_own_faults(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(plain),
        Lost = lost_view(Directory),
        other_foreign_handler:install(chaining),
        zeros = read(Lost),
        recovered = other_foreign_handler:recover(),
        survive_a_lost_view(Directory),
        recovered = foreign_handler:recover(),
        recovered = other_foreign_handler:recover_dirty()
    end).

%% Ours is put back over a handler that chains to ours: a fault of nobody's still ends the VM, by its
%% own signal and not by a stack that overflows.
putting_ours_back_makes_no_loop_of_handlers(Config) ->
    in_vm(Config, fun(Directory) ->
        survive_a_lost_view(Directory),
        [begin
            foreign_handler:install(chaining),
            survive_a_lost_view(Directory),
            other_foreign_handler:install(chaining),
            survive_a_lost_view(Directory),
            recovered = foreign_handler:recover(),
            recovered = other_foreign_handler:recover()
        end || _ <- lists:seq(1, 20)]
    end),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

%% ---- A SIGBUS that is nobody's ----------------------------------------------------------------

%% With us loaded, a fault that nobody handles ends the VM by SIGBUS, as without us.
nobodys_fault_ends_the_vm_by_sigbus(Config) ->
    in_vm(Config, fun survive_a_lost_view/1),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

%% The same on a dirty scheduler.
nobodys_fault_on_a_dirty_scheduler_ends_the_vm_by_sigbus(Config) ->
    in_vm(Config, fun survive_a_lost_view/1),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys_dirty, []).

%% The core shows the function that touched the page.
nobodys_fault_leaves_a_core_of_the_right_place(Config) ->
    case os:find_executable("gdb") of
        false ->
            {skip, "no gdb to read a core with"};
        Gdb ->
            Directory = ?config(directory, Config),
            Vm = test_vm:start(#{wrapper => "cd '" ++ Directory ++ "' && ulimit -c unlimited && exec \"$@\""}),
            test_vm:call(Vm, ?MODULE, survive_a_lost_view, [Directory]),
            {signal, 7} = test_vm:death(Vm, other_reader, touch_nobodys, []),
            case filelib:wildcard(filename:join(Directory, "core*")) of
                [] ->
                    {skip, "the system keeps cores elsewhere"};
                [Core] ->
                    Erts = "erts-" ++ erlang:system_info(version),
                    Executable = filename:join([code:root_dir(), Erts, "bin", "beam.smp"]),
                    {0, Trace} = test_system:shell([Gdb, " -batch -ex bt ", Executable, " ", Core]),
                    match = re:run(Trace, "#0 .*touch_nobodys_page", [{capture, none}])
            end
    end.

%% The kernel does not let a fault be ignored, nor do we.
nobodys_fault_ends_the_vm_though_sigbus_was_ignored(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(ignore),
        survive_a_lost_view(Directory)
    end),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

%% A foreign_handler asked about it that gives up in its own way ends the VM in that way.
nobodys_fault_under_a_handler_that_gives_up_ends_the_vm_by_sigbus(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(not_chaining),
        survive_a_lost_view(Directory)
    end),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []).

%% A crash reporter asks to be called for the first fault only (SA_RESETHAND); the default action ends the VM then.
a_one_shot_handler_before_ours_is_called_once(Config) ->
    Report = in_vm_with_a_reporter(Config),
    {signal, 7} = test_vm:death(?config(vm, Config), other_reader, touch_nobodys, []),
    {ok, <<"crashed\n">>} = file:read_file(Report).

%% Of threads that fault at once one calls it; the default action of another one may end the VM before it has reported.
a_one_shot_handler_before_ours_is_called_once_by_many_threads(Config) ->
    Report = in_vm_with_a_reporter(Config),
    {signal, 7} = test_vm:death(?config(vm, Config), ?MODULE, touch_nobodys_on_many_threads, []),
    {ok, Reported} = file:read_file(Report),
    true = lists:member(Reported, [<<>>, <<"crashed\n">>]).

%% The same of a SIGBUS that was sent.
a_one_shot_handler_before_ours_is_called_once_for_kill_bus(Config) ->
    Report = in_vm_with_a_reporter(Config),
    Vm = ?config(vm, Config),
    {0, _} = test_system:shell(["kill -BUS ", test_vm:os_pid(Vm)]),
    test_processes:eventually(fun() -> file:read_file(Report) =:= {ok, <<"crashed\n">>} end),
    in_vm(Config, fun survive_a_lost_view/1),
    {signal, 7} = killed_by_bus(Vm),
    {ok, <<"crashed\n">>} = file:read_file(Report).

%% The library that installs its one-shot handler again, over ours, has it called once more.
a_one_shot_handler_that_is_put_back_is_called_again(Config) ->
    Report = in_vm_with_a_reporter(Config),
    Vm = ?config(vm, Config),
    {0, _} = test_system:shell(["kill -BUS ", test_vm:os_pid(Vm)]),
    test_processes:eventually(fun() -> file:read_file(Report) =:= {ok, <<"crashed\n">>} end),
    in_vm(Config, fun(Directory) ->
        foreign_handler:install_reporter(Report),
        survive_a_lost_view(Directory),
        "iommap_nif.so" = filename:basename(foreign_handler:owner())
    end),
    {signal, 7} = test_vm:death(Vm, other_reader, touch_nobodys, []),
    {ok, <<"crashed\ncrashed\n">>} = file:read_file(Report).

%% A SIGBUS that somebody sent is no fault of a mapping.
kill_bus_ends_the_vm_by_sigbus(Config) ->
    in_vm(Config, fun survive_a_lost_view/1),
    {signal, 7} = killed_by_bus(?config(vm, Config)).

%% Whoever had SIGBUS ignored goes on to have it ignored.
kill_bus_is_ignored_if_it_was_before_us(Config) ->
    in_vm(Config, fun(Directory) ->
        foreign_handler:install(ignore),
        survive_a_lost_view(Directory)
    end),
    Vm = ?config(vm, Config),
    [{0, _} = test_system:shell(["kill -BUS ", test_vm:os_pid(Vm)]) || _ <- lists:seq(1, 10)],
    in_vm(Config, fun survive_a_lost_view/1).

%% Not even when it arrives in the middle of guarded copies.
kill_bus_during_guarded_reads_ends_the_vm_by_sigbus(Config) ->
    Vm = ?config(vm, Config),
    in_vm(Config, fun(Directory) ->
        Path = filename:join(Directory, "read"),
        ok = file:write_file(Path, test_pattern:bytes(1_000_000)),
        [spawn(fun() -> {ok, Handle} = iommap:open(Path, read, []), read_for_ever(Handle) end)
         || _ <- lists:seq(1, 4)],
        ok
    end),
    {signal, 7} = killed_by_bus(Vm).

%% ---- The handler at work ----------------------------------------------------------------------

%% A reader of a long lost view takes one fault, not one a page.
one_fault_covers_the_whole_lost_tail(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory, 1000 * test_pattern:page()),
        foreign_handler:install(chaining),
        zeros = read(Lost),
        1 = foreign_handler:calls()
    end).

%% Threads of other libraries bring alternate stacks of their own, some hardly larger than what the
%% kernel needs to deliver the signal.
a_view_is_read_on_a_small_alternate_stack(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        Zeros = binary:copy(Lost),
        Zeros = other_reader:copy_in_thread(Lost, other_reader:smallest_stack() + 1024),
        Other = lost_view(Directory),
        Zeros = other_reader:copy_in_thread(Other, other_reader:smallest_stack() + 1024)
    end).

%% A thread may have none at all; then its own stack serves.
a_view_is_read_on_a_thread_without_an_alternate_stack(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        Zeros = other_reader:copy_in_thread(Lost, 0),
        zeros = read(Zeros)
    end).

%% Two handlers, one calling the other, share a small stack.
a_view_is_read_on_a_small_alternate_stack_under_another_handler(Config) ->
    in_vm(Config, fun(Directory) ->
        Lost = lost_view(Directory),
        foreign_handler:install(chaining),
        Zeros = other_reader:copy_in_thread(Lost, other_reader:smallest_stack() + 2048),
        zeros = read(Zeros)
    end).

%% ---- The VM's other signals, and its children -------------------------------------------------

%% Of all the signals that the VM blocks, ignores and catches, only SIGBUS changes, and only to caught.
no_other_signal_of_the_vm_changes(Config) ->
    in_vm(Config, fun(Directory) ->
        Before = signals("/proc/self/status"),
        survive_a_lost_view(Directory),
        After = signals("/proc/self/status"),
        Bus = 1 bsl (7 - 1),
        #{"SigCgt" := Caught} = Before,
        After = Before#{"SigCgt" := Caught bor Bus}
    end).

%% os:set_signal/2 goes on to rule the signals that it knows: one is ignored, one reaches Erlang, one ends
%% the VM.
set_signal_works_as_before(Config) ->
    Vm = ?config(vm, Config),
    in_vm(Config, fun(Directory) ->
        survive_a_lost_view(Directory),
        ok = os:set_signal(sigusr1, ignore),
        ok = os:set_signal(sigusr2, handle),
        ok = signal_witness:watch(),
        [] = os:cmd("kill -USR1 " ++ os:getpid()),
        [] = os:cmd("kill -USR2 " ++ os:getpid()),
        receive {signal, Signal} -> sigusr2 = Signal after 60_000 -> error(no_signal) end,
        ok = os:set_signal(sighup, default),
        survive_a_lost_view(Directory)
    end),
    {0, _} = test_system:shell(["kill -HUP ", test_vm:os_pid(Vm)]),
    {signal, 1} = test_vm:death(Vm).

%% A program started by a port finds its signals as it would without us.
a_child_process_inherits_no_signal_setting(Config) ->
    in_vm(Config, fun(Directory) ->
        Before = signals_of_a_child(Directory),
        survive_a_lost_view(Directory),
        Before = signals_of_a_child(Directory)
    end).

%% Nor does it get at a mapped file.
a_child_process_inherits_no_descriptor(Config) ->
    in_vm(Config, fun(Directory) ->
        Path = filename:join(Directory, "open"),
        ok = file:write_file(Path, <<"data">>),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 4),
        nomatch = string:find(os:cmd("ls -l /proc/self/fd"), "open"),
        nomatch = string:find(os:cmd("cat /proc/self/maps"), "open"),
        ok = iommap:close(Handle),
        <<"data">> = View
    end).

%% ---- In the VM --------------------------------------------------------------------------------

in_vm(Config, Function) ->
    Directory = ?config(directory, Config),
    test_vm:run(?config(vm, Config), fun() -> Function(Directory) end).

%% In the VM: a crash reporter was there before us. The file that it reports to.
in_vm_with_a_reporter(Config) ->
    Report = filename:join(?config(directory, Config), "report"),
    in_vm(Config, fun(Directory) ->
        foreign_handler:install_reporter(Report),
        survive_a_lost_view(Directory)
    end),
    {ok, <<>>} = file:read_file(Report),
    Report.

touch_nobodys_on_many_threads() ->
    [spawn(other_reader, touch_nobodys_dirty, []) || _ <- lists:seq(1, 9)],
    other_reader:touch_nobodys_dirty().

%% A view whose file another OS process has emptied.
lost_view(Directory) ->
    lost_view(Directory, 3 * test_pattern:page()).

lost_view(Directory, Size) ->
    Path = filename:join(Directory, integer_to_list(erlang:unique_integer([positive]))),
    ok = file:write_file(Path, test_pattern:bytes(Size)),
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    [] = os:cmd("truncate -s 0 " ++ Path),
    View.

read(View) ->
    case << <<Byte>> || <<Byte>> <= View, Byte =/= 0 >> of
        <<>> -> zeros;
        _ -> data
    end.

%% The two faults that are ours: through the guard and through a view.
survive_a_lost_view(Directory) ->
    Path = filename:join(Directory, integer_to_list(erlang:unique_integer([positive]))),
    ok = file:write_file(Path, test_pattern:bytes(100_000)),
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, View} = iommap:region_binary(Handle, 0, 100_000),
    data = read(View),
    [] = os:cmd("truncate -s 0 " ++ Path),
    {error, sigbus} = iommap:pread(Handle, 50_000, 10),
    zeros = read(View),
    false = iommap:intact(View),
    ok = iommap:close(Handle).

read_for_ever(Handle) ->
    {ok, _} = iommap:pread(Handle, 0, 1_000_000),
    read_for_ever(Handle).

killed_by_bus(Vm) ->
    {0, _} = test_system:shell(["kill -BUS ", test_vm:os_pid(Vm)]),
    test_vm:death(Vm).

signals_of_a_child(Directory) ->
    Path = filename:join(Directory, "status"),
    [] = os:cmd("cat /proc/self/status > " ++ Path),
    signals(Path).

signals(Path) ->
    {ok, Status} = file:read_file(Path),
    Lines = [string:lexemes(Line, ":\t") || Line <- string:lexemes(binary_to_list(Status), "\n")],
    maps:from_list([{Name, list_to_integer(Mask, 16)}
                    || [Name, Mask] <- Lines, lists:member(Name, ["SigBlk", "SigIgn", "SigCgt"])]).
