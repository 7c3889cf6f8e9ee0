%% Files that another process of the system cuts, writes, replaces or runs while they are mapped.
-module(iommap_changed_files_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_files, [mapping/2, mapping/4]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).
-import(test_processes, [gather/1]).
-import(test_system, [truncate/2]).

-compile(export_all).

%% More than a call copies on a normal scheduler.
-define(LARGE, 3_000_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [pread_of_a_truncated_file_is_sigbus_and_recovers,
     pwrite_to_a_truncated_file_is_sigbus_and_recovers,
     truncated_file_is_sigbus_on_every_scheduler,
     truncated_file_in_a_private_mapping_is_sigbus,
     truncate_and_remap_make_a_truncated_file_whole,
     pwrite_of_a_view_that_lost_its_file_is_sigbus,
     open_of_a_path_in_a_view_that_lost_its_file_is_sigbus,
     what_was_written_behind_the_end_is_zero_when_the_file_grows,
     write_that_failed_leaves_nothing_in_a_private_page,
     other_process_sees_writes_and_is_seen,
     open_of_a_running_program_for_writing_is_etxtbsy,
     mapping_outlives_deletion_and_replacement].

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

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

open_of_a_path_in_a_view_that_lost_its_file_is_sigbus(Config) ->
    %% A path that is a view of a file that is gone names no file, and has no NUL that anybody wrote; whether somebody has
    %% seen the zeros or not.
    [begin
         {SourcePath, Source} = mapping(Config, bytes(page())),
         Path = Form(fun(Length) -> element(2, {ok, _} = iommap:region_binary(Source, 5, Length)) end),
         ok = truncate(SourcePath, 0),
         IsSeen andalso binary:copy(iolist_to_binary(Path)),
         [?assertEqual({Name, {error, sigbus}}, {Name, iommap:open(Path, Mode, [create, {size, 10}])}) ||
             _ <- lists:seq(1, 3), Mode <- [write, read_write]],
         ok = iommap:close(Source)
     end || IsSeen <- [false, true], {Name, Form} <- [
         {whole, fun(View) -> View(8) end},
         {long, fun(View) -> View(2000) end},
         {part, fun(View) -> binary:part(View(2000), 1000, 100) end},
         {unaligned, fun(View) -> unaligned(View(101)) end},
         {in_a_list, fun(View) -> ["/", [View(8) | View(9)]] end}
     ]].

%% All the bytes but one, beginning in the middle of a byte.
unaligned(Binary) ->
    Length = byte_size(Binary) - 1,
    <<_:3, Part:Length/binary, _:5>> = Binary,
    Part.

what_was_written_behind_the_end_is_zero_when_the_file_grows(Config) ->
    %% A file is cut, and written to behind its end, through a mapping: whoever makes it longer makes zeros, on every file system.
    ok = test_tools:build(),
    Kinds = [ext4, xfs, btrfs, {tmpfs, "size=8m"}, {tmpfs, "size=8m,huge=always"}, overlayfs, faultfs],
    _ = [test_scene:on_mount(Config, Kind, fun(Mount) ->
             test_processes:in_a_process(fun() -> write_behind_the_end(Kind, test_mounts:path(Mount, "file")) end)
         end) || Kind <- Kinds],
    Lower = filename:join(?config(directory, Config), "memory"),
    on_overlay_of_memory(Lower, fun(Point) ->
        test_processes:in_a_process(fun() -> write_behind_the_end(overlay_of_memory, filename:join(Point, "file")) end)
    end).

write_behind_the_end(Kind, Path) ->
    ok = file:write_file(Path, bytes(page())),
    {ok, Handle} = iommap:open(Path, read_write, []),
    Ways = [{truncate, fun(Size) -> iommap:truncate(Handle, Size) end},
            {ensure_size, fun(Size) ->
                 {ok, _} = iommap:remap(Handle),
                 {ok, _} = iommap:ensure_size(Handle, Size),
                 ok
             end},
            {open, fun(Size) -> {ok, Larger} = iommap:open(Path, read_write, [{size, Size}]), iommap:close(Larger) end},
            {empty, fun(Size) -> {ok, Larger} = iommap:open(Path, read_write, [truncate, {size, Size}]), iommap:close(Larger) end}],
    [begin
         ok = truncate(Path, page()),
         {ok, _} = iommap:remap(Handle),
         ok = truncate(Path, 100),
         ok = iommap:pwrite(Handle, 150, <<"junk">>),
         ok = Grow(Size),
         {ok, <<_:100/binary, New/binary>>} = file:read_file(Path),
         ?assertEqual({Kind, Way, zeros(Size - 100)}, {Kind, Way, binary:part(New, 0, Size - 100)})
     end || {Way, Grow} <- Ways, Size <- [200, page(), 3 * page()]].

on_overlay_of_memory(Directory, Function) ->
    Point = filename:join(Directory, "point"),
    Mount = ["mkdir -p ", Directory, " && mount -t tmpfs memory ", Directory, " && cd ", Directory,
             " && mkdir upper lower work point && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work point"],
    case test_system:shell(Mount) of
        {0, _} ->
            try Function(Point) after {0, _} = test_system:shell(["umount -l ", Point, " && umount -l ", Directory]) end;
        {_, Output} ->
            io:put_chars(user, ["Skipped: no overlay of memory: ", Output])
    end.

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
