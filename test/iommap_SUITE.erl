%% What needs more than one process of the system or of the VM: other users and limits, files that change
%% under a mapping, full disks, concurrency, loading new code, and the counting of what is left behind.
-module(iommap_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-export([all/0, groups/0, suite/0]).
-export([init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).

-export([
    pread_of_a_truncated_file_is_sigbus_and_recovers/1,
    pwrite_to_a_truncated_file_is_sigbus_and_recovers/1,
    truncated_file_is_sigbus_on_every_scheduler/1,
    truncated_file_in_a_private_mapping_is_sigbus/1,
    truncate_and_remap_make_a_truncated_file_whole/1,
    pwrite_of_a_view_that_lost_its_file_is_sigbus/1,
    write_that_failed_leaves_nothing_in_a_private_page/1,
    other_process_sees_writes_and_is_seen/1,
    open_of_a_running_program_for_writing_is_etxtbsy/1,
    mapping_outlives_deletion_and_replacement/1
]).
-export([
    open_without_permission_is_eacces/1,
    open_create_without_permission_is_eacces/1,
    file_of_another_user_is_read/1,
    open_with_every_descriptor_taken_is_emfile/1,
    memory_that_is_not_there_is_enomem/1,
    open_create_respects_every_umask/1,
    open_encodes_strings_as_the_vm_does/1,
    open_lock_that_fails_is_no_error/1
]).
-export([
    open_size_on_a_full_disk_is_enospc/1,
    truncate_on_a_full_disk_leaves_the_handle/1,
    open_on_a_read_only_disk_is_erofs/1,
    block_device_is_mapped/1
]).
-export([
    descriptor_is_closed_on_exec/1,
    child_process_has_no_descriptor/1,
    close_gives_back_descriptor_and_range/1,
    collected_handle_gives_back_descriptor_and_range/1,
    last_view_gives_back_descriptor_and_range/1,
    part_of_a_view_holds_the_mapping/1,
    pread_holds_no_mapping/1,
    large_mapping_is_given_back/1,
    resizing_gives_back_what_it_replaced/1,
    failed_open_gives_back_everything/1,
    ten_thousand_cycles_leave_nothing/1,
    lock_keeps_the_pages_in_memory/1,
    populate_fetches_the_pages/1,
    lasting_hints_survive_resizing/1
]).
-export([
    reads_see_no_half_of_a_write/1,
    large_reads_see_no_half_of_a_write/1,
    cold_reads_see_no_half_of_a_write/1,
    private_reads_see_no_half_of_a_write/1,
    close_waits_for_running_calls/1,
    close_happens_once/1,
    readers_live_with_resizing/1,
    views_live_with_everything/1,
    every_call_at_once/1,
    killed_callers_leave_the_handle_whole/1
]).
-export([
    load_file_keeps_handles_and_views/1,
    load_file_under_load/1,
    purge_is_harmless/1,
    delete_and_load_again/1
]).

-import(test_pattern, [bytes/1, zeros/1, page/0]).
-import(test_files, [file/2, mapping/2, mapping/4]).
-import(test_processes, [eventually/1, in_a_process/1, together/1, gather/1, during/2]).
-import(test_system, [truncate/2]).

%% More than a call copies on a normal scheduler, and less, but long enough for others to come between.
-define(LARGE, 3_000_000).
-define(SHORT, 800_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [
        {another_process, [], [
            pread_of_a_truncated_file_is_sigbus_and_recovers,
            pwrite_to_a_truncated_file_is_sigbus_and_recovers,
            truncated_file_is_sigbus_on_every_scheduler,
            truncated_file_in_a_private_mapping_is_sigbus,
            truncate_and_remap_make_a_truncated_file_whole,
            pwrite_of_a_view_that_lost_its_file_is_sigbus,
            write_that_failed_leaves_nothing_in_a_private_page,
            other_process_sees_writes_and_is_seen,
            open_of_a_running_program_for_writing_is_etxtbsy,
            mapping_outlives_deletion_and_replacement
        ]},
        {another_vm, [], [
            open_without_permission_is_eacces,
            open_create_without_permission_is_eacces,
            file_of_another_user_is_read,
            open_with_every_descriptor_taken_is_emfile,
            memory_that_is_not_there_is_enomem,
            open_create_respects_every_umask,
            open_encodes_strings_as_the_vm_does,
            open_lock_that_fails_is_no_error
        ]},
        {another_disk, [], [
            open_size_on_a_full_disk_is_enospc,
            truncate_on_a_full_disk_leaves_the_handle,
            open_on_a_read_only_disk_is_erofs,
            block_device_is_mapped
        ]},
        {nothing_left_behind, [], [
            descriptor_is_closed_on_exec,
            child_process_has_no_descriptor,
            close_gives_back_descriptor_and_range,
            collected_handle_gives_back_descriptor_and_range,
            last_view_gives_back_descriptor_and_range,
            part_of_a_view_holds_the_mapping,
            pread_holds_no_mapping,
            large_mapping_is_given_back,
            resizing_gives_back_what_it_replaced,
            failed_open_gives_back_everything,
            ten_thousand_cycles_leave_nothing,
            lock_keeps_the_pages_in_memory,
            populate_fetches_the_pages,
            lasting_hints_survive_resizing
        ]},
        {many_processes, [], [
            reads_see_no_half_of_a_write,
            large_reads_see_no_half_of_a_write,
            cold_reads_see_no_half_of_a_write,
            private_reads_see_no_half_of_a_write,
            close_waits_for_running_calls,
            close_happens_once,
            readers_live_with_resizing,
            views_live_with_everything,
            every_call_at_once,
            killed_callers_leave_the_handle_whole
        ]},
        {new_code, [], [
            load_file_keeps_handles_and_views,
            load_file_under_load,
            purge_is_harmless,
            delete_and_load_again
        ]}
    ].

init_per_group(another_disk, Config) ->
    case {os:type(), test_system:is_root()} of
        {{unix, linux}, true} -> Config;
        {{unix, linux}, _} -> {skip, "only root can mount a disk of its own"};
        _ -> {skip, "the disks are Linux's tmpfs and loop devices"}
    end;
init_per_group(nothing_left_behind, Config) ->
    case os:type() of
        {unix, linux} -> Config;
        _ -> {skip, "descriptors and ranges are counted in /proc, which is Linux's"}
    end;
init_per_group(_Group, Config) ->
    Config.

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

%% Another process changes the file

pread_of_a_truncated_file_is_sigbus_and_recovers(Config) ->
    %% Bytes that another process took from the file are sigbus, as often as one asks, and readable when they are back.
    {Path, Handle} = mapping(Config, bytes(?LARGE)),
    {ok, _} = iommap:pread(Handle, 0, ?LARGE),
    [begin
         ok = truncate(Path, page()),
         [?assertEqual({error, sigbus}, iommap:pread(Handle, Offset, Length)) ||
             _ <- lists:seq(1, 100), {Offset, Length} <- lost_ranges()],
         ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())),
         ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, ?LARGE, 1)),
         ?assertEqual({ok, ?LARGE}, iommap:position(Handle)),
         ok = truncate(Path, ?LARGE),
         [?assertEqual({ok, zeros(Length)}, iommap:pread(Handle, Offset, Length)) || {Offset, Length} <- gained_ranges()]
     end || _ <- lists:seq(1, 3)].

pwrite_to_a_truncated_file_is_sigbus_and_recovers(Config) ->
    %% Writing where another process took the file away is sigbus, as often as one tries, and works when it is back.
    {Path, Handle} = mapping(Config, bytes(?LARGE)),
    ok = iommap:pwrite(Handle, 0, bytes(?LARGE)),
    [begin
         ok = truncate(Path, page()),
         [?assertEqual({error, sigbus}, iommap:pwrite(Handle, Offset, Data)) ||
             _ <- lists:seq(1, 20), {Offset, Length} <- lost_ranges(),
             Data <- [zeros(Length), [zeros(Length div 2), zeros(Length - Length div 2)]]],
         ?assertEqual(ok, iommap:pwrite(Handle, 0, bytes(page()))),
         ?assertEqual(page(), filelib:file_size(Path)),
         ok = truncate(Path, ?LARGE),
         [begin
              Data = bytes(Length),
              ?assertEqual(ok, iommap:pwrite(Handle, Offset, Data)),
              ?assertEqual({ok, Data}, iommap:pread(Handle, Offset, Length))
          end || {Offset, Length} <- gained_ranges()]
     end || _ <- lists:seq(1, 3)].

truncated_file_is_sigbus_on_every_scheduler(Config) ->
    %% The error comes back on each scheduler, and each scheduler goes on.
    {Path, Handle} = mapping(Config, bytes(?LARGE)),
    ok = truncate(Path, page()),
    Schedulers = erlang:system_info(schedulers),
    Answers = gather([spawn_opt(fun() ->
        exit({done, [{iommap:pread(Handle, Offset, Length), iommap:pwrite(Handle, Offset, zeros(Length))} ||
            _ <- lists:seq(1, 100), {Offset, Length} <- lost_ranges()]})
    end, [monitor, {scheduler, Scheduler}]) || Scheduler <- lists:seq(1, Schedulers)]),
    ?assertEqual([{{error, sigbus}, {error, sigbus}}], lists:usort(lists:append(Answers))),
    ok = truncate(Path, ?LARGE),
    ?assertEqual({ok, zeros(page())}, iommap:pread(Handle, page(), page())).

truncated_file_in_a_private_mapping_is_sigbus(Config) ->
    %% A private mapping answers sigbus for lost pages too, and works again when they are back.
    {Path, Handle} = mapping(Config, bytes(8 * page()), read_write, [private]),
    ok = iommap:pwrite(Handle, 0, <<"changed">>),
    ok = truncate(Path, page()),
    ?assertMatch({ok, <<"changed">>}, iommap:pread(Handle, 0, 7)),
    ?assertEqual({error, sigbus}, iommap:pread(Handle, 3 * page(), 8)),
    ?assertEqual({error, sigbus}, iommap:pwrite(Handle, 3 * page(), <<"lost">>)),
    ok = truncate(Path, 8 * page()),
    ?assertEqual({ok, zeros(8)}, iommap:pread(Handle, 3 * page(), 8)),
    ?assertEqual(ok, iommap:pwrite(Handle, 3 * page(), <<"found">>)),
    ?assertEqual({ok, <<"found">>}, iommap:pread(Handle, 3 * page(), 5)).

truncate_and_remap_make_a_truncated_file_whole(Config) ->
    %% After sigbus, truncate gives the file its size back, and remap gives the mapping the file's.
    {Path, Handle} = mapping(Config, bytes(8 * page())),
    ok = truncate(Path, 2 * page()),
    ?assertEqual({error, sigbus}, iommap:pread(Handle, 4 * page(), 8)),
    ?assertEqual({ok, 2 * page()}, iommap:remap(Handle)),
    ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 4 * page(), 8)),
    ok = truncate(Path, page()),
    ?assertEqual({error, sigbus}, iommap:pread(Handle, page(), 8)),
    ?assertEqual(ok, iommap:truncate(Handle, 8 * page())),
    ?assertEqual({ok, <<(bytes(page()))/binary, (zeros(7 * page()))/binary>>}, iommap:pread(Handle, 0, 8 * page())).

pwrite_of_a_view_that_lost_its_file_is_sigbus(Config) ->
    %% Data that is a view of a file that is gone is never written as if it were there.
    [begin
         {SourcePath, Source} = mapping(Config, bytes(?LARGE)),
         {_, Target} = mapping(Config, bytes(?LARGE)),
         Data = Form(fun(Offset, Length) -> element(2, {ok, _} = iommap:region_binary(Source, Offset, Length)) end),
         ok = truncate(SourcePath, 0),
         [?assertEqual({Name, {error, sigbus}}, {Name, iommap:pwrite(Target, page(), Data)}) || _ <- lists:seq(1, 3)],
         ?assertEqual(ok, iommap:pwrite(Target, 0, <<"fine">>)),
         ?assertMatch({ok, <<"fine">>}, iommap:pread(Target, 0, 4)),
         ok = iommap:close(Source),
         ok = iommap:close(Target)
     end || {Name, Form} <- [
         {long, fun(View) -> View(0, ?LARGE - page()) end},
         {page, fun(View) -> View(page(), page()) end},
         {short, fun(View) -> View(page(), 8) end},
         {part, fun(View) -> binary:part(View(0, ?LARGE), page(), 100) end},
         {short_in_a_list, fun(View) -> [<<"ab">>, View(5, 8), [View(page(), 3) | <<"cd">>]] end},
         {tail_of_a_list, fun(View) -> [$a | View(page(), 8)] end},
         {long_in_a_list, fun(View) -> [View(0, 1000), <<"ab">>, View(page(), page())] end},
         {many_in_a_list, fun(View) -> [View(Offset, 10) || Offset <- lists:seq(0, 10_000)] end},
         {unaligned, fun(View) -> unaligned(View(page(), 1001)) end},
         {unaligned_in_a_list, fun(View) -> [<<"ab">>, unaligned(View(page(), 101)), <<"cd">>] end}
     ]].

%% All the bytes but one, beginning in the middle of a byte.
unaligned(Binary) ->
    Length = byte_size(Binary) - 1,
    <<_:3, Part:Length/binary, _:5>> = Binary,
    Part.

write_that_failed_leaves_nothing_in_a_private_page(Config) ->
    %% Where a write to a private mapping was sigbus, shrinking and growing bring back zeros, as anywhere.
    {SourcePath, Source} = mapping(Config, bytes(page())),
    {_, Target} = mapping(Config, bytes(page()), read_write, [private]),
    {ok, View} = iommap:region_binary(Source, 0, 1000),
    ok = truncate(SourcePath, 0),
    ?assertEqual({error, sigbus}, iommap:pwrite(Target, 0, View)),
    ok = iommap:truncate(Target, 100),
    ok = iommap:truncate(Target, 200),
    ?assertEqual({ok, zeros(100)}, iommap:pread(Target, 100, 100)).

other_process_sees_writes_and_is_seen(Config) ->
    %% A shared mapping and another process change the same file: both see the changes, without a sync.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    {ok, View} = iommap:region_binary(Handle, page(), 5),
    ok = iommap:pwrite(Handle, page(), <<"hello">>),
    ?assertEqual(<<"hello">>, dd(["if=" ++ Path, "bs=1", "count=5", "skip=" ++ integer_to_list(page())])),
    _ = dd(["if=/dev/zero", "of=" ++ Path, "bs=1", "count=5", "seek=" ++ integer_to_list(page()), "conv=notrunc"]),
    ?assertEqual({ok, zeros(5)}, iommap:pread(Handle, page(), 5)),
    ?assertEqual(zeros(5), View).

open_of_a_running_program_for_writing_is_etxtbsy(Config) ->
    %% A program that runs may be mapped for reading, and is etxtbsy for writing.
    Path = filename:join(?config(directory, Config), "program"),
    {ok, _} = file:copy(os:find_executable("cat"), Path),
    ok = file:change_mode(Path, 8#755),
    Program = open_port({spawn_executable, Path}, []),
    true = port_command(Program, "are you there?"),
    receive {Program, {data, "are you there?"}} -> ok end,
    [?assertEqual({error, etxtbsy}, iommap:open(Path, Mode, [])) || Mode <- [write, read_write]],
    ?assertMatch({ok, _}, iommap:open(Path, read, [])),
    true = port_close(Program).

mapping_outlives_deletion_and_replacement(Config) ->
    %% A file that is deleted, or replaced by another of its name, is read, written and resized as before.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    _ = test_system:run("rm", [Path]),
    ok = file:write_file(Path, <<"another file">>),
    ?assertEqual({ok, bytes(3 * page())}, iommap:pread(Handle, 0, 3 * page())),
    ?assertEqual(ok, iommap:pwrite(Handle, 0, <<"new">>)),
    ?assertEqual(ok, iommap:sync(Handle)),
    ?assertEqual(ok, iommap:truncate(Handle, 5 * page())),
    ?assertEqual({ok, 5 * page()}, iommap:remap(Handle)),
    ?assertMatch({ok, <<"new">>}, iommap:pread(Handle, 0, 3)),
    ?assertEqual({ok, <<"another file">>}, file:read_file(Path)).

%% Ranges that lose bytes when the file shrinks to one page, short ones and long ones.
lost_ranges() ->
    [{page(), 1}, {page() - 1, 2}, {2 * page(), page()}, {0, ?LARGE}, {?LARGE - 1, 1}, {page(), ?LARGE - page()}].

gained_ranges() ->
    [{page(), 1}, {2 * page(), page()}, {?LARGE - 1, 1}, {page(), ?LARGE - page()}].

dd(Arguments) ->
    test_system:run("dd", ["status=none" | Arguments]).

%% Another VM, with other rights and limits

open_without_permission_is_eacces(_Config) ->
    %% A file that the user may not read, or not write, is eacces in the modes that need it.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Path = file(Directory, bytes(10)),
        Open = fun(Mode, Options) -> test_vm:run(Vm, fun() -> answer(iommap:open(Path, Mode, Options)) end) end,
        ok = file:change_mode(Path, 8#444),
        ?assertEqual(ok, Open(read, [])),
        ?assertEqual({error, eacces}, Open(write, [])),
        ?assertEqual({error, eacces}, Open(read_write, [])),
        ok = file:change_mode(Path, 8#000),
        [?assertEqual({error, eacces}, Open(Mode, [])) || Mode <- [read, write, read_write]],
        ?assertEqual({error, eacces}, Open(write, [truncate, {size, 5}])),
        ok = file:change_mode(Path, 8#600),
        ?assertEqual({ok, bytes(10)}, file:read_file(Path))
    end).

open_create_without_permission_is_eacces(_Config) ->
    %% A directory that the user may not write to, or not enter, gives no new file and no old one.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Below = filename:join(Directory, "below"),
        Path = filename:join(Below, "new"),
        Open = fun(Mode, Options) -> test_vm:run(Vm, fun() -> answer(iommap:open(Path, Mode, Options)) end) end,
        ok = file:make_dir(Below),
        ok = file:change_mode(Below, 8#555),
        ?assertEqual({error, eacces}, Open(write, [create, {size, 5}])),
        ok = file:change_mode(Below, 8#000),
        ?assertEqual({error, eacces}, Open(read, [])),
        ok = file:change_mode(Below, 8#755),
        ?assertEqual({ok, []}, file:list_dir(Below))
    end).

file_of_another_user_is_read(_Config) ->
    %% A file that the user may read but not write is read all the same, in memory or not, short or long.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Path = file(Directory, bytes(?LARGE)),
        ok = file:change_mode(Path, 8#444),
        test_vm:run(Vm, fun() ->
            Expected = bytes(?LARGE),
            {ok, Handle} = iommap:open(Path, read, []),
            [begin
                 ok = test_files:drop_cache(Path),
                 [?assertEqual({ok, binary:part(Expected, 0, Length)}, iommap:pread(Handle, 0, Length)) ||
                     Length <- [1, 8, 5000, 100_000, ?LARGE], _Again <- [1, 2]]
             end || _ <- lists:seq(1, 3)]
        end)
    end).

open_with_every_descriptor_taken_is_emfile(_Config) ->
    %% When the process may open no more files the answer is emfile, until one is closed.
    in_a_vm(limited("ulimit -n 100"), fun(Vm, Directory) ->
        Path = file(Directory, bytes(10)),
        test_vm:run(Vm, fun() ->
            [Handle | _] = Handles = open_until(Path, {error, emfile}),
            ?assertEqual({error, emfile}, iommap:open(Path, read, [])),
            [?assertEqual({ok, bytes(10)}, iommap:pread(Open, 0, 10)) || Open <- Handles],
            ok = iommap:close(Handle),
            ?assertMatch({ok, _}, iommap:open(Path, read, []))
        end)
    end).

memory_that_is_not_there_is_enomem(_Config) ->
    %% A mapping or a copy larger than the address space allows is enomem, and the handle goes on.
    in_a_vm(limited("ulimit -v 16000000"), fun(Vm, Directory) ->
        Path = file(Directory, bytes(10)),
        Gigabyte = 1 bsl 30,
        test_vm:run(Vm, fun() ->
            ok = truncate(Path, 10 * Gigabyte),
            {ok, Handle} = iommap:open(Path, read_write, []),
            ?assertEqual({error, enomem}, iommap:pread(Handle, 0, 10 * Gigabyte)),
            ok = truncate(Path, 64 * Gigabyte),
            ?assertEqual({error, enomem}, iommap:open(Path, read, [])),
            ?assertEqual({error, enomem}, iommap:remap(Handle)),
            ?assertEqual({ok, 10 * Gigabyte}, iommap:position(Handle)),
            ?assertEqual({ok, bytes(10)}, iommap:pread(Handle, 0, 10)),
            ?assertEqual(ok, iommap:pwrite(Handle, 10 * Gigabyte - 3, <<"end">>)),
            ?assertEqual(ok, iommap:truncate(Handle, Gigabyte)),
            ?assertEqual(Gigabyte, filelib:file_size(Path))
        end)
    end).

open_until(Path, Error) ->
    case iommap:open(Path, read, []) of
        {ok, Handle} -> [Handle | open_until(Path, Error)];
        Error -> []
    end.

open_create_respects_every_umask(_Config) ->
    %% A file made by open has the mode 8#644 without the bits of the umask.
    [in_a_vm(limited("umask " ++ Umask), fun(Vm, Directory) ->
         Path = filename:join(Directory, "new"),
         ok = test_vm:run(Vm, fun() -> answer(iommap:open(Path, [create, {size, 10}])) end),
         {ok, #file_info{mode = Actual}} = file:read_file_info(Path),
         ?assertEqual({Umask, Mode}, {Umask, Actual band 8#7777})
     end) || {Umask, Mode} <- [{"000", 8#644}, {"027", 8#640}, {"077", 8#600}]].

open_encodes_strings_as_the_vm_does(_Config) ->
    %% A string path is UTF-8 or Latin-1 as file:native_name_encoding/0 says; what Latin-1 lacks is badarg.
    [in_a_vm(#{env => [{"ERL_FLAGS", Flag}]}, fun(Vm, Directory) ->
         Path = filename:join(Directory, "name \x{e5}"),
         ok = file:write_file(unicode:characters_to_binary(Path, unicode, Encoding), bytes(10)),
         test_vm:run(Vm, fun() ->
             ?assertEqual(Encoding, file:native_name_encoding()),
             ?assertMatch({ok, _}, iommap:open(Path, read, [])),
             ?assertEqual({error, BeyondLatin}, iommap:open(filename:join(Directory, "name \x{3b1}"), read, []))
         end)
     end) || {Flag, Encoding, BeyondLatin} <- [{"+fnu", utf8, enoent}, {"+fnl", latin1, badarg}]].

open_lock_that_fails_is_no_error(_Config) ->
    %% Without the right to lock memory the file is mapped all the same, and info tells.
    in_a_vm(another_user("ulimit -l 0 && "), fun(Vm, Directory) ->
        Path = file(Directory, bytes(10)),
        test_vm:run(Vm, fun() ->
            {ok, Handle} = iommap:open(Path, read, [lock]),
            ?assertEqual({ok, bytes(10)}, iommap:pread(Handle, 0, 10)),
            ?assertMatch({ok, #{locked := false}}, iommap:info(Handle))
        end)
    end).

%% A VM with these options, and a directory that all users may use.
in_a_vm(Options, Test) ->
    test_files:with_directory(fun(Directory) ->
        ok = file:change_mode(Directory, 8#777),
        Vm = test_vm:start(Options#{application => test_system:copy_library(Directory),
                                    args => ["+S", "1:1", "+SDio", "1", "+A", "1"],
                                    modules => [test_files, test_pattern, test_processes, test_system]}),
        try Test(Vm, Directory) after test_vm:stop(Vm) end
    end).

limited(Limit) ->
    #{wrapper => Limit ++ " && exec \"$@\""}.

another_user() ->
    another_user("").

another_user(Limit) ->
    case test_system:is_root() of
        true -> #{wrapper => Limit ++ "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\""};
        false -> #{wrapper => Limit ++ "exec \"$@\""}
    end.

%% Another disk

open_size_on_a_full_disk_is_enospc(_Config) ->
    %% Where there is no room for the size asked for the answer is enospc, and an existing file stays as it was.
    on_a_disk("size=1m", fun(Disk) ->
        Path = file(Disk, bytes(10)),
        [begin
             ?assertEqual({error, enospc}, iommap:open(Path, Mode, [{size, 2_000_000} | Options])),
             ?assertEqual({ok, bytes(10)}, file:read_file(Path))
         end || Mode <- [write, read_write], Options <- [[], [private], [create]]],
        ?assertEqual({error, enospc}, iommap:open(filename:join(Disk, "new"), [create, {size, 2_000_000}])),
        ?assertMatch({ok, _}, iommap:open(Path, [{size, 500_000}]))
    end).

truncate_on_a_full_disk_leaves_the_handle(_Config) ->
    %% truncate that finds no room is enospc; handle, file and views go on as if it had not been called.
    [on_a_disk("size=1m", fun(Disk) ->
         Path = file(Disk, bytes(3 * page())),
         {ok, Handle} = iommap:open(Path, read_write, Options),
         {ok, View} = iommap:region_binary(Handle, 0, page()),
         ok = iommap:pwrite(Handle, 0, <<"before">>),
         [begin
              ?assertEqual({error, enospc}, iommap:truncate(Handle, 2_000_000)),
              ?assertEqual({ok, 3 * page()}, iommap:position(Handle)),
              ?assertEqual(3 * page(), filelib:file_size(Path)),
              ?assertMatch({ok, <<"before", _/binary>>}, iommap:pread(Handle, 0, 3 * page())),
              ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 3 * page(), 1)),
              ?assertMatch(<<"before", _/binary>>, View)
          end || _ <- lists:seq(1, 3)],
         ?assertEqual(ok, iommap:pwrite(Handle, page(), <<"after">>)),
         ?assertEqual({ok, <<"after">>}, iommap:pread(Handle, page(), 5)),
         ?assertEqual(ok, iommap:truncate(Handle, 5 * page())),
         ?assertMatch({ok, <<"before", _/binary>>}, iommap:pread(Handle, 0, 5 * page()))
     end) || Options <- [[], [private]]].

open_on_a_read_only_disk_is_erofs(_Config) ->
    %% A disk that is mounted read-only gives readers their file and writers erofs.
    on_a_disk("size=1m", fun(Disk) ->
        Path = file(Disk, bytes(10)),
        _ = test_system:run("mount", ["-o", "remount,ro", Disk]),
        ?assertMatch({ok, _}, iommap:open(Path, read, [])),
        [?assertEqual({error, erofs}, iommap:open(Path, Mode, [])) || Mode <- [write, read_write]],
        ?assertEqual({error, erofs}, iommap:open(filename:join(Disk, "new"), [create, {size, 10}]))
    end).

block_device_is_mapped(Config) ->
    %% A block device is mapped like a file, as long as the device is.
    Path = file(?config(directory, Config), bytes(64 * 1024)),
    case os:cmd("losetup --find --show " ++ Path) of
        "/dev/" ++ _ = Line ->
            Device = string:trim(Line),
            try in_a_process(fun() -> block_device(Device) end) after os:cmd("losetup --detach " ++ Device) end,
            ?assertMatch({ok, <<"new", _/binary>>}, file:read_file(Path));
        Refused ->
            {skip, "no loop device to be had: " ++ Refused}
    end.

block_device(Device) ->
    {ok, Handle} = iommap:open(Device, read_write, []),
    ?assertEqual({ok, 64 * 1024}, iommap:position(Handle)),
    ?assertEqual({ok, bytes(64 * 1024)}, iommap:pread(Handle, 0, 64 * 1024)),
    ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, 64 * 1024, 1)),
    ok = iommap:pwrite(Handle, 0, <<"new">>),
    ok = iommap:sync(Handle),
    [begin
         ?assertMatch({error, _}, iommap:truncate(Handle, Size)),
         ?assertEqual({ok, 64 * 1024}, iommap:position(Handle)),
         ?assertMatch({ok, <<"new", _/binary>>}, iommap:pread(Handle, 0, 64 * 1024))
     end || Size <- [1, 32 * 1024, 128 * 1024]],
    ok = iommap:close(Handle).

%% A file system in memory, mounted for the test alone. The handles are gone before it is.
on_a_disk(MountOptions, Test) ->
    test_files:with_directory(fun(Directory) ->
        _ = test_system:run("mount", ["-t", "tmpfs", "-o", MountOptions, "tmpfs", Directory]),
        try in_a_process(fun() -> Test(Directory) end)
        after test_system:run("umount", ["--lazy", Directory])
        end
    end).

%% What is left behind

descriptor_is_closed_on_exec(Config) ->
    %% The descriptor of a mapping has the flag that closes it when another program takes over.
    {Path, Handle} = mapping(Config, bytes(10)),
    [Descriptor] = test_system:descriptors(Path),
    {ok, Info} = file:read_file(filename:join("/proc/self/fdinfo", Descriptor)),
    {match, [Flags]} = re:run(Info, "flags:\\s*([0-7]+)", [{capture, all_but_first, list}]),
    ?assertEqual(8#2000000, list_to_integer(Flags, 8) band 8#2000000),
    ok = iommap:close(Handle).

child_process_has_no_descriptor(Config) ->
    %% A program started by the VM finds no descriptor of a mapping among its own.
    {Path, Handle} = mapping(Config, bytes(10)),
    ?assertEqual(nomatch, string:find(test_system:run("ls", ["-l", "/proc/self/fd"]), Path)),
    ok = iommap:close(Handle).

close_gives_back_descriptor_and_range(Config) ->
    %% Without views, close gives back the descriptor and the addresses, whoever still holds the handle.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    {ok, _} = iommap:pread(Handle, 0, 3 * page()),
    ?assertMatch({[_], [_]}, held(Path)),
    ok = iommap:close(Handle),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    ?assertEqual({error, closed}, iommap:position(Handle)).

collected_handle_gives_back_descriptor_and_range(Config) ->
    %% A handle that nobody closed gives all back when the garbage collector finds it.
    Path = file(?config(directory, Config), bytes(3 * page())),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        ?assertMatch({[_], [_]}, held(Path)),
        iommap:position(Handle)
    end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

last_view_gives_back_descriptor_and_range(Config) ->
    %% The addresses stay as long as one view does, after close and after the file is deleted, and go with the last.
    Path = file(?config(directory, Config), bytes(3 * page())),
    Holders = [holder(), holder()],
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        [begin
             {ok, View} = iommap:region_binary(Handle, page(), page()),
             ok = hold(Holder, View)
         end || Holder <- Holders],
        ok = iommap:close(Handle)
    end),
    ok = file:delete(Path),
    [begin
         ?assertMatch({_, [_]}, held(Path)),
         ?assertEqual([binary:part(bytes(3 * page()), page(), page())], release(Holder))
     end || Holder <- Holders],
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

part_of_a_view_holds_the_mapping(Config) ->
    %% A part of a view is enough to keep the mapping, and the last one to keep it.
    Path = file(?config(directory, Config), bytes(3 * page())),
    Holder = holder(),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        ok = hold(Holder, binary:part(View, page(), 100))
    end),
    erlang:garbage_collect(Holder),
    ?assertMatch({_, [_]}, held(Path)),
    ?assertEqual([binary:part(bytes(3 * page()), page(), 100)], release(Holder)),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

pread_holds_no_mapping(Config) ->
    %% What pread returned is a copy: it keeps neither descriptor nor addresses, short or long.
    {Path, Handle} = mapping(Config, bytes(?LARGE)),
    Copies = [element(2, {ok, _} = iommap:pread(Handle, 0, Length)) || Length <- [1, 8, 64, 65, page(), ?LARGE]],
    ok = iommap:close(Handle),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    [?assertEqual(binary:part(bytes(?LARGE), 0, byte_size(Copy)), Copy) || Copy <- Copies].

large_mapping_is_given_back(Config) ->
    %% A large mapping with all its pages in use is given back by close and by collection.
    Path = filename:join(?config(directory, Config), "large"),
    Use = fun(Handle) ->
        {ok, View} = iommap:region_binary(Handle, 0, 256 * 1024 * 1024),
        ?assertEqual(nomatch, binary:match(View, <<1>>))
    end,
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, [create, {size, 256 * 1024 * 1024}]),
        Use(Handle),
        ok = iommap:close(Handle)
    end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    in_a_process(fun() -> Use(element(2, {ok, _} = iommap:open(Path, read, []))) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

resizing_gives_back_what_it_replaced(Config) ->
    %% However often a mapping is resized, there is one descriptor and one range; old ones go with their views.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    Resize = fun() ->
        [begin
             ok = iommap:truncate(Handle, Size * page()),
             ok = truncate(Path, (Size + 1) * page()),
             {ok, _} = iommap:remap(Handle)
         end || Size <- [5, 3, 100, 4, 3000, 1, 3]]
    end,
    Resize(),
    ok = eventually(fun() -> matches(held(Path)) end),
    in_a_process(fun() ->
        Views = [begin
                     {ok, View} = iommap:region_binary(Handle, 0, page()),
                     Resize(),
                     View
                 end || _ <- lists:seq(1, 5)],
        ?assertEqual([bytes(page())], lists:usort(Views))
    end),
    ok = eventually(fun() -> matches(held(Path)) end),
    ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())).

matches({[_], [_]}) -> true;
matches(_) -> false.

failed_open_gives_back_everything(Config) ->
    %% An open that fails leaves no descriptor, at whatever step it failed.
    Directory = ?config(directory, Config),
    Empty = file(Directory, <<>>),
    Full = file(Directory, bytes(10)),
    Before = test_system:descriptors(),
    [begin
         {error, _} = iommap:open(Empty, Mode, []),
         {error, _} = iommap:open(Directory, Mode, []),
         {error, _} = iommap:open("/dev/null", Mode, []),
         {error, _} = iommap:open("/dev/zero", Mode, [private]),
         {error, _} = iommap:open(Full, read, [{size, 11}]),
         {error, _} = iommap:open(Full, write, [{size, 1 bsl 62}]),
         {error, _} = iommap:open(Full, write, [{size, 1 bsl 63}])
     end || _ <- lists:seq(1, 30), Mode <- [read, write, read_write]],
    ok = eventually(fun() -> test_system:descriptors() =< Before end),
    ?assertEqual({[], []}, held(Full)).

ten_thousand_cycles_leave_nothing(Config) ->
    %% Opening, reading, viewing, closing and collecting, over and over, leaves the counts where they began.
    Path = file(?config(directory, Config), bytes(3 * page())),
    AllButOne = 3 * page() - 1,
    Cycle = fun(N) ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, _} = iommap:pread(Handle, N rem 3 * page(), page()),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        N rem 2 =:= 0 andalso (ok = iommap:close(Handle)),
        <<_:AllButOne/binary, _>> = View,
        N rem 100 =:= 0 andalso erlang:garbage_collect()
    end,
    in_a_process(fun() -> lists:foreach(Cycle, lists:seq(1, 100)) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    {Descriptors, Ranges} = {test_system:descriptors(), test_system:ranges()},
    in_a_process(fun() -> lists:foreach(Cycle, lists:seq(1, 10_000)) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    ok = eventually(fun() -> test_system:descriptors() =< Descriptors end),
    %% The VM's own allocators take and give back a few ranges meanwhile.
    ok = eventually(fun() -> test_system:ranges() < Ranges + 100 end).

lock_keeps_the_pages_in_memory(Config) ->
    %% lock locks the whole mapping in memory, until it is closed.
    Before = test_system:locked(),
    {_Path, Handle} = mapping(Config, bytes(64 * page()), read, [lock]),
    case test_system:is_root() of
        true ->
            ?assertMatch({ok, #{locked := true}}, iommap:info(Handle)),
            ?assertEqual(Before + 64 * page(), test_system:locked()),
            ok = iommap:close(Handle),
            ok = eventually(fun() -> test_system:locked() =:= Before end);
        false ->
            {skip, "only root may lock as much memory as it likes"}
    end.

populate_fetches_the_pages(Config) ->
    %% With populate every page is mapped when open returns.
    {Path, Handle} = mapping(Config, bytes(64 * page()), read, [populate]),
    ?assertEqual(64 * page(), test_system:resident(Path)),
    ok = iommap:close(Handle).

lasting_hints_survive_resizing(Config) ->
    %% A hint for the whole mapping holds after truncate and remap too: where it grows, and where another mapping takes over.
    [begin
         {Path, Handle} = mapping(Config, bytes(3 * page())),
         [ok = iommap:advise(Handle, 0, 0, Hint) || Hint <- Hints],
         Told = fun() -> [[Flag || Flag <- Flags, lists:member(Flag, [<<"rr">>, <<"sr">>])] ||
             Flags <- test_system:flags(Path)] end,
         ok = iommap:truncate(Handle, 5 * page()),
         ?assertEqual([Lasting], Told()),
         {ok, First} = iommap:region_binary(Handle, 0, page()),
         ok = iommap:truncate(Handle, 8 * page()),
         ?assertEqual([Lasting], Told()),
         ok = iommap:truncate(Handle, 4 * page()),
         ?assertEqual([Lasting, Lasting], Told()),
         {ok, Second} = iommap:region_binary(Handle, 0, page()),
         ok = truncate(Path, 2 * page()),
         {ok, _} = iommap:remap(Handle),
         ?assertEqual([Lasting, Lasting, Lasting], Told()),
         ?assertEqual([bytes(page())], lists:usort([First, Second])),
         ok = iommap:close(Handle)
     end || {Hints, Lasting} <- [{[random], [<<"rr">>]}, {[sequential], [<<"sr">>]}, {[random, normal], []},
                                 {[random, willneed, dontneed], [<<"rr">>]}]].

held(Path) ->
    {test_system:descriptors(Path), test_system:ranges(Path)}.

%% A process that holds terms until it is told to give them up, and then is gone.
holder() ->
    spawn_link(fun() -> holder([]) end).

holder(Terms) ->
    receive
        {hold, Term, From} -> From ! {self(), ok}, holder([Term | Terms]);
        {release, From} -> From ! {self(), Terms}
    end.

hold(Holder, Term) ->
    Holder ! {hold, Term, self()},
    receive {Holder, ok} -> ok end.

%% The terms come back as copies that hold nothing.
release(Holder) ->
    Holder ! {release, self()},
    receive {Holder, Terms} -> [binary:copy(Term) || Term <- Terms] end.

%% Many processes on one handle

reads_see_no_half_of_a_write(Config) ->
    %% Blocks written whole are read whole, by any number of processes at once.
    whole_blocks(Config, [], page(), 2000),
    whole_blocks(Config, [], ?SHORT, 1000).

large_reads_see_no_half_of_a_write(Config) ->
    %% The same for blocks that are too long for a normal scheduler.
    whole_blocks(Config, [], ?LARGE, 100).

cold_reads_see_no_half_of_a_write(Config) ->
    %% The same for pages that have to be fetched from the disk while the write goes on.
    {Path, Handle} = mapping(Config, zeros(?LARGE)),
    Block = fun(Byte) -> binary:copy(<<Byte>>, ?LARGE) end,
    [begin
         ok = drop_from_memory(Handle, Path),
         {Old, New} = {Block(N - 1), Block(N)},
         Write = fun() -> ok = iommap:pwrite(Handle, 0, New) end,
         Read = fun() ->
             {ok, Read} = iommap:pread(Handle, 0, ?LARGE),
             ?assert(Read =:= Old orelse Read =:= New)
         end,
         together([Read, Write, Read])
     end || N <- lists:seq(1, 40)].

private_reads_see_no_half_of_a_write(Config) ->
    %% The same for a private mapping.
    whole_blocks(Config, [private], page(), 2000),
    whole_blocks(Config, [private], ?SHORT, 1000).

%% Writers fill the block with one byte each; whoever reads it must find one byte all over.
whole_blocks(Config, Options, Length, Reads) ->
    Offset = page() - 7,
    {_Path, Handle} = mapping(Config, zeros(Length + 2 * page()), read_write, Options),
    Write = fun(Byte, Parts) ->
        Data = lists:duplicate(Parts, binary:copy(<<Byte>>, Length div Parts)),
        fun() -> ok = iommap:pwrite(Handle, Offset, Data) end
    end,
    Whole = [binary:copy(<<Byte>>, Length) || Byte <- [0, $a, $b]],
    Read = fun() ->
        {ok, Block} = iommap:pread(Handle, Offset, Length),
        ?assert(lists:member(Block, Whole))
    end,
    during([Write($a, 1), Write($b, 4)], fun() ->
        together(lists:duplicate(4, fun() -> [Read() || _ <- lists:seq(1, Reads)] end))
    end).

drop_from_memory(Handle, Path) ->
    ok = iommap:sync(Handle),
    ok = iommap:advise(Handle, 0, 0, dontneed),
    ok = test_files:drop_cache(Path).

close_waits_for_running_calls(Config) ->
    %% Readers that close surprises have read the truth until they are told that the mapping is closed.
    Contents = bytes(?LARGE),
    Path = file(?config(directory, Config), Contents),
    [begin
         {ok, Handle} = iommap:open(Path, read, []),
         Reads = atomics:new(1, []),
         Close = fun() ->
             ok = eventually(fun() -> atomics:get(Reads, 1) >= Started end),
             iommap:close(Handle)
         end,
         Readers = [fun() -> read_until_closed(Handle, Contents, Length, Reads) end ||
             Length <- [8, page(), 100_000, ?LARGE]],
         ?assertEqual([ok, closed, closed, closed, closed], together([Close | Readers]))
     end || Started <- lists:seq(0, 40, 2)].

read_until_closed(Handle, Contents, Length, Reads) ->
    case iommap:pread(Handle, ?LARGE - Length, Length) of
        {ok, Bytes} ->
            ?assert(Bytes =:= binary:part(Contents, ?LARGE, -Length)),
            ok = atomics:add(Reads, 1, 1),
            read_until_closed(Handle, Contents, Length, Reads);
        {error, closed} ->
            closed
    end.

close_happens_once(Config) ->
    %% Of many processes that close a handle at once, one is told ok and the others that it is closed.
    Path = file(?config(directory, Config), bytes(10)),
    [begin
         {ok, Handle} = iommap:open(Path, read, []),
         Answers = together(lists:duplicate(8, fun() -> iommap:close(Handle) end)),
         ?assertEqual([ok | lists:duplicate(7, {error, closed})], lists:sort(Answers))
     end || _ <- lists:seq(1, 200)].

readers_live_with_resizing(Config) ->
    %% While the mapping grows and shrinks, a read is right or out_of_bounds, and writes are not lost.
    {_Path, Handle} = mapping(Config, bytes(2 * page())),
    Kept = fun() -> ?assertEqual({ok, bytes(2 * page())}, iommap:pread(Handle, 0, 2 * page())) end,
    Zeros = zeros(page()),
    Lost = fun() ->
        case iommap:pread(Handle, 3 * page(), page()) of
            {ok, Bytes} -> ?assertEqual(Zeros, Bytes);
            Error -> ?assertEqual({error, out_of_bounds}, Error)
        end
    end,
    Write = fun() -> ok = iommap:pwrite(Handle, page(), binary:part(bytes(2 * page()), page(), page())) end,
    during([Kept, Kept, Lost, Write], fun() ->
        [ok = iommap:truncate(Handle, Pages * page()) ||
            _ <- lists:seq(1, 100), Pages <- [4, 2, 5, 3, 1000, 2]]
    end),
    Kept().

views_live_with_everything(Config) ->
    %% Views are read while their mapping grows, shrinks to their end, is remapped, closed and collected.
    Path = file(?config(directory, Config), bytes(2 * page())),
    Expected = bytes(2 * page()),
    Handles = ets:new(handles, [public]),
    Open = fun() ->
        {ok, Handle} = iommap:open(Path, read_write, []),
        true = ets:insert(Handles, {handle, Handle}),
        Handle
    end,
    Open(),
    Look = fun() ->
        [{handle, Handle}] = ets:lookup(Handles, handle),
        case iommap:region_binary(Handle, 0, 2 * page()) of
            {ok, View} -> [?assert(View =:= Expected) || _ <- lists:seq(1, 20)];
            {error, closed} -> ok
        end
    end,
    during([Look, Look, Look], fun() ->
        [begin
             Handle = Open(),
             [ok = iommap:truncate(Handle, Pages * page()) || Pages <- [3, 2, 2000, 2]],
             {ok, _} = iommap:remap(Handle),
             N rem 2 =:= 0 orelse (ok = iommap:close(Handle))
         end || N <- lists:seq(1, 60)]
    end).

every_call_at_once(Config) ->
    %% Any mixture of calls from many processes is answered as each call alone would be.
    {_Path, Handle} = mapping(Config, bytes(8 * page())),
    Calls = [
        fun() -> iommap:pread(Handle, page(), 3 * page()) end,
        fun() -> iommap:pwrite(Handle, 6 * page(), [bytes(100), bytes(page())]) end,
        fun() -> iommap:region_binary(Handle, 0, page()) end,
        fun() -> iommap:sync(Handle) end,
        fun() -> iommap:sync(Handle, async) end,
        fun() -> iommap:truncate(Handle, 8 * page()) end,
        fun() -> iommap:truncate(Handle, 4 * page()) end,
        fun() -> iommap:truncate(Handle, 64 * page()) end,
        fun() -> iommap:advise(Handle, 0, 0, willneed) end,
        fun() -> iommap:advise(Handle, page(), 0, dontneed) end,
        fun() -> iommap:position(Handle) end,
        fun() -> iommap:remap(Handle) end,
        fun() -> iommap:info(Handle) end
    ],
    Allowed = [ok, {error, out_of_bounds}],
    during([fun() -> ?assert(lists:member(answer(Call()), Allowed)) end || Call <- Calls], fun() ->
        [?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())) || _ <- lists:seq(1, 5_000)]
    end),
    ?assertEqual(ok, iommap:close(Handle)).

killed_callers_leave_the_handle_whole(Config) ->
    %% Processes killed inside of a call leave nothing locked and nothing broken.
    {_Path, Handle} = mapping(Config, bytes(?LARGE)),
    Contents = bytes(?LARGE),
    [begin
         Forever = fun Forever() ->
             {ok, _} = iommap:pread(Handle, 0, ?LARGE),
             ok = iommap:pwrite(Handle, 0, Contents),
             atomics:add(Calls, 1, 1),
             Forever()
         end,
         Callers = [spawn_monitor(Forever) || _ <- lists:seq(1, 4)],
         ok = eventually(fun() -> atomics:get(Calls, 1) > 2 end),
         [exit(Process, kill) || {Process, _} <- Callers],
         [receive {'DOWN', Monitor, process, Process, killed} -> ok end || {Process, Monitor} <- Callers],
         ?assertEqual({ok, Contents}, iommap:pread(Handle, 0, ?LARGE)),
         ?assertEqual(ok, iommap:pwrite(Handle, 0, Contents))
     end || _ <- lists:seq(1, 10), Calls <- [atomics:new(1, [])]],
    ?assertEqual(ok, iommap:close(Handle)).

%% New code

load_file_keeps_handles_and_views(Config) ->
    %% code:load_file succeeds as often as one likes, and handles and views of every loading work on.
    Directory = ?config(directory, Config),
    Generation = fun() ->
        Path = file(Directory, bytes(3 * page())),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, page(), page()),
        {Handle, View}
    end,
    Generations = [begin
        Made = Generation(),
        true = code:soft_purge(iommap),
        ?assertEqual({module, iommap}, code:load_file(iommap)),
        Made
    end || _ <- lists:seq(1, 10)],
    [begin
         ?assertEqual({ok, bytes(3 * page())}, iommap:pread(Handle, 0, 3 * page())),
         ?assertEqual(binary:part(bytes(3 * page()), page(), page()), View),
         ?assertEqual(ok, iommap:pwrite(Handle, page(), <<"new">>)),
         ?assertMatch(<<"new", _/binary>>, View),
         ?assertEqual(ok, iommap:truncate(Handle, 4 * page())),
         ?assertEqual({ok, 4 * page()}, iommap:position(Handle)),
         ?assertEqual(ok, iommap:sync(Handle)),
         ?assertMatch({ok, #{mode := read_write}}, iommap:info(Handle)),
         ?assertMatch({ok, <<"new">>}, iommap:region_binary(Handle, page(), 3)),
         ?assertEqual(ok, iommap:close(Handle)),
         ?assertEqual({error, closed}, iommap:close(Handle)),
         ?assertMatch(<<"new", _/binary>>, View)
     end || {Handle, View} <- Generations].

load_file_under_load(Config) ->
    %% Loading and purging while processes open, read, write, view and close disturbs none of them.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    Expected = binary:part(bytes(3 * page()), 0, page()),
    Steps = [
        fun() -> ?assertEqual({ok, Expected}, iommap:pread(Handle, 0, page())) end,
        fun() -> ?assertEqual(ok, iommap:pwrite(Handle, 2 * page(), bytes(100))) end,
        fun() -> ?assertEqual({ok, Expected}, iommap:region_binary(Handle, 0, page())) end,
        fun() ->
            {ok, Other} = iommap:open(Path, read, []),
            ?assertEqual({ok, Expected}, iommap:pread(Other, 0, page())),
            ok = iommap:close(Other)
        end
    ],
    during(Steps ++ Steps, fun() ->
        [begin
             %% Anything but a soft purge would end a process that is still in old code.
             ok = eventually(fun() -> code:soft_purge(iommap) end),
             ?assertEqual({module, iommap}, code:load_file(iommap))
         end || _ <- lists:seq(1, 30)]
    end).

purge_is_harmless(Config) ->
    %% Purging the old code, with nothing old and with something old, leaves handles and views whole.
    {_Path, Handle} = mapping(Config, bytes(3 * page())),
    {ok, View} = iommap:region_binary(Handle, 0, page()),
    [begin
         _ = code:purge(iommap),
         _ = code:purge(iommap),
         {module, iommap} = code:load_file(iommap),
         _ = code:purge(iommap),
         true = code:soft_purge(iommap),
         ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())),
         ?assertEqual(bytes(page()), View)
     end || _ <- lists:seq(1, 5)],
    ?assertEqual(ok, iommap:close(Handle)),
    ?assertEqual(bytes(page()), View).

delete_and_load_again(Config) ->
    %% With the module deleted and purged, views live on, are collected, and the module loads again.
    Path = file(?config(directory, Config), bytes(3 * page())),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, page()),
        _ = code:purge(iommap),
        true = code:delete(iommap),
        _ = code:purge(iommap),
        ?assertEqual(bytes(page()), View),
        ?assertEqual({module, iommap}, code:load_file(iommap)),
        ?assertEqual(bytes(page()), View),
        {ok, Other} = iommap:open(Path, read, []),
        ?assertEqual({ok, bytes(page())}, iommap:pread(Other, 0, page()))
    end),
    case os:type() of
        {unix, linux} -> ok = eventually(fun() -> held(Path) =:= {[], []} end);
        _ -> ok
    end.

%% What a call answered, without what it returned: another VM's handles mean nothing here.
answer({ok, _}) -> ok;
answer(Answer) -> Answer.
