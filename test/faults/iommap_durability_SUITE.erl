%% What is in a file after the machine, or the VM, has ended in the middle of everything. ROUNDS in the environment says how often each is
%% ended: `make durability'. What becomes of changes that nobody was promised is counted.
-module(iommap_durability_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

suite() ->
    [{timetrap, {seconds, 100 + 20 * rounds()}}].

all() ->
    [a_machine_that_ends_has_what_was_synced_on_ext4,
     a_machine_that_ends_has_what_was_synced_on_xfs,
     a_machine_that_ends_has_what_was_synced_on_btrfs,
     a_vm_that_is_killed_has_what_was_answered].

rounds() ->
    list_to_integer(os:getenv("ROUNDS", "2")).

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% ---- The machine ------------------------------------------------------------------------------

%% All that was written before a sync, of everything or of a range, is there when the disk is stopped in the moment that the sync
%% returns, while a process goes on writing, growing the file and syncing.
a_machine_that_ends_has_what_was_synced_on_ext4(Config) -> machine(ext4, Config).
a_machine_that_ends_has_what_was_synced_on_xfs(Config) -> machine(xfs, Config).
a_machine_that_ends_has_what_was_synced_on_btrfs(Config) -> machine(btrfs, Config).

machine(Kind, Config) ->
    case test_disk:new(Kind, ?config(directory, Config)) of
        {ok, Disk} ->
            Vm = test_vm:start(),
            try
                ok = test_vm:run_with(Vm, fun new_file/1, [Disk]),
                {Outcomes, _} = lists:mapfoldl(fun(Round, Stamp) ->
                    test_vm:run_with(Vm, fun end_machine/3, [Disk, Round, Stamp])
                end, 0, lists:seq(1, rounds())),
                tell("the machine on " ++ atom_to_list(Kind), Outcomes)
            after
                test_vm:stop(Vm),
                test_disk:remove(Disk)
            end;
        {skip, Why} = Skip ->
            io:put_chars(user, ["Skipped: ", Why, $\n]),
            Skip
    end.

%% A file on the disk, with its name.
new_file(Disk) ->
    Path = test_disk:path(Disk, "file"),
    ok = durability:new(Path),
    {0, _} = test_system:shell(["sync -f ", Path]),
    ok.

%% The next round goes on with the disk as the crash has left it.
end_machine(Disk, Round, Stamp) ->
    Path = test_disk:path(Disk, "file"),
    External = external_writer:start(),
    Self = self(),
    {Writer, Monitor} = spawn_monitor(fun() -> write(Self, Round, durability:open(Path, Stamp)) end),
    #{model := Model} = File = receive {Writer, Written} -> Written end,
    What = what(Round, Model),
    ok = durability:sync(File, What),
    ok = test_disk:stop(Disk, External),
    Writer ! stop,
    [{Later, Last}] = test_processes:gather([{Writer, Monitor}]),
    ok = external_writer:stop(External),
    ok = test_disk:recover(Disk),
    [] = durability:wrong(Path, {What, Model}, Later),
    {durability:outcomes(Path, Later), Last}.

what(Round, _) when Round rem 2 =:= 0 -> whole;
what(_, #{size := Size}) -> {rand:uniform(Size div 2), rand:uniform(Size div 2)}.

write(Parent, Round, File) ->
    rand:seed(exsss, Round),
    Before = lists:foldl(fun(_, One) -> durability:do(durability:choose(One, true), One) end, File, lists:seq(1, 50)),
    Parent ! {self(), Before},
    write_on(Before, []).

write_on(#{stamp := Stamp} = File, Later) ->
    receive
        stop ->
            ok = durability:close(File),
            exit({done, {lists:reverse(Later), Stamp}})
    after 0 ->
        Change = durability:choose(File, false),
        write_on(durability:do(Change, File), [{Stamp + 1, Change} | Later])
    end.

%% ---- The VM -----------------------------------------------------------------------------------

%% All changes that were answered are in the file when the VM is killed while processes write, grow, shrink and sync files: the sizes,
%% too. Of the one change of each process that was not answered, any part may be there.
a_vm_that_is_killed_has_what_was_answered(Config) ->
    tell("the VM", [kill_vm(?config(directory, Config), Round) || Round <- lists:seq(1, rounds())]).

kill_vm(Directory, Round) ->
    Vm = test_vm:start(),
    Paths = [filename:join(Directory, lists:concat([Round, "-", Number])) || Number <- [1, 2, 3]],
    _ = test_vm:begin_run(Vm, fun() ->
        [spawn_link(fun() -> write_and_tell(Path, {Round, 0, Number}) end) || {Number, Path} <- lists:enumerate(Paths)],
        receive after infinity -> ok end
    end),
    Enough = 500 + rand:uniform(5_000),
    ok = test_processes:eventually(fun() -> lists:all(fun(Path) -> filelib:file_size(told(Path)) > Enough end, Paths) end),
    test_vm:stop(Vm),
    Outcomes = [outcomes_of_kill(Path) || Path <- Paths],
    [ok = file:delete(File) || Path <- Paths, File <- [Path, told(Path)]],
    lists:append(Outcomes).

write_and_tell(Path, Seed) ->
    rand:seed(exsss, Seed),
    ok = durability:new(Path),
    #{model := Model} = File = durability:open(Path, 0),
    {ok, Tell} = file:open(told(Path), [raw, write]),
    ok = tell_of(Tell, Model),
    write_and_tell_on(File, Tell).

write_and_tell_on(#{stamp := Stamp} = File, Tell) ->
    Change = durability:choose(File, true),
    ok = tell_of(Tell, {Stamp + 1, Change}),
    After = durability:do(Change, File),
    ok = tell_of(Tell, done),
    write_and_tell_on(After, Tell).

%% What is told survives the VM, as it is the system's when the call returns.
tell_of(Tell, Term) ->
    Bytes = term_to_binary(Term),
    file:write(Tell, [<<(byte_size(Bytes)):32>>, Bytes]).

told(Path) -> Path ++ ".told".

outcomes_of_kill(Path) ->
    {ok, Bytes} = file:read_file(told(Path)),
    [Empty | Told] = [binary_to_term(Term) || <<Size:32, Term:Size/binary>> <= Bytes],
    {Model, Later} = answered(Told, Empty),
    [] = durability:wrong(Path, {whole, Model}, Later),
    durability:outcomes(Path, Later).

answered([{Stamp, Change}, done | Told], Model) -> answered(Told, durability:after_change(Change, Stamp, Model));
answered(Later, Model) -> {Model, Later}.

%% ---- Counts -----------------------------------------------------------------------------------

tell(What, Rounds) ->
    Counts = lists:foldl(fun(Outcome, All) -> maps:update_with(Outcome, fun(Count) -> Count + 1 end, 1, All) end, #{},
                         lists:append(Rounds)),
    io:format(user, "durability: ~s ended ~b times, nothing that was promised is missing; of writes that were not: ~s~n",
              [What, length(Rounds), lists:join(", ", [io_lib:format("~s ~b", [Outcome, Count]) || {Outcome, Count} <- maps:to_list(Counts)])]).
