%% Reading a view under the eyes of the library (with_view), and what there is to see of mappings: info, list, i, stats, who is told.
-module(iommap_seeing_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).

%% with_view

with_view_gives_what_its_function_makes_of_the_bytes_test() ->
    %% The function gets exactly the bytes of the range, in every mode that may read, and its result is the answer's.
    Bytes = bytes(3 * page() + 17),
    Size = byte_size(Bytes),
    [with_mapping(Bytes, Mode, Options, fun(Handle, _Path) ->
         [?assertEqual({ok, {result, binary:part(Bytes, Offset, Length)}},
             iommap:with_view(Handle, Offset, Length, fun(View) -> {result, binary:copy(View)} end))
             || {Offset, Length} <- [{0, Size}, {0, 0}, {Size, 0}, {0, 1}, {page() - 1, 2}, {page(), page()}, {Size - 1, 1}]]
     end) || Mode <- [read, read_write], Options <- [[], [private]]].

with_view_makes_no_copy_test() ->
    %% What is written to the file while the function runs shows in its binary.
    with_mapping(bytes(page()), fun(Handle, _Path) ->
        ?assertEqual({ok, <<"new">>}, iommap:with_view(Handle, 100, 3, fun(View) ->
            ok = iommap:pwrite(Handle, 100, <<"new">>),
            binary:copy(View)
        end))
    end).

with_view_of_bytes_that_are_lost_meanwhile_is_sigbus_test_() ->
    %% However the function ends, and whether it has seen the zeros or not, if its file was cut the answer is an error.
    [{atom_to_list(Name), fun() ->
        with_mapping(bytes(3 * page()), fun(Handle, Path) ->
            ?assertEqual({error, sigbus}, iommap:with_view(Handle, page() - 10, 20, fun(View) ->
                cut(Path, page()),
                End(View)
            end))
        end)
    end} || {Name, End} <- [
        {returns, fun erlang:crc32/1},
        {returns_unread, fun erlang:byte_size/1},
        {errors, fun(View) -> error(binary:copy(View)) end},
        {throws, fun(View) -> throw(binary:copy(View)) end},
        {exits, fun(View) -> exit(binary:copy(View)) end}
    ]].

with_view_of_a_last_page_that_is_cut_meanwhile_is_sigbus_test_() ->
    %% The page stays, so nothing faults; of a private mapping it is a copy, whose bytes stay, too.
    [{atom_to_list(Sharing), fun() ->
        test_files:with_file(binary:copy(<<255>>, 2 * page()), fun(Path) ->
            {ok, Handle} = iommap:open(Path, read_write, [Sharing]),
            ok = iommap:pwrite(Handle, page() + 50, binary:copy(<<255>>, 50)),
            Read = fun(Cut) -> iommap:with_view(Handle, 0, page() + 100, fun(View) -> Cut(), erlang:crc32(View) end) end,
            ?assertMatch({ok, _}, Read(fun() -> ok end)),
            ?assertEqual({error, sigbus}, Read(fun() -> cut(Path, page() + 99) end))
        end)
    end} || Sharing <- [shared, private]].

with_view_of_a_handle_that_is_mapped_anew_meanwhile_is_asked_of_the_view_test() ->
    %% The new mapping has the bytes, and the view of the old one has lost them.
    with_mapping(binary:copy(<<255>>, 2 * page()), fun(Handle, Path) ->
        ?assertEqual({error, sigbus}, iommap:with_view(Handle, 0, 2 * page(), fun(View) ->
            cut(Path, page()),
            {ok, _} = iommap:remap(Handle),
            _ = erlang:crc32(View),
            ok = file:write_file(Path, binary:copy(<<255>>, 2 * page())),
            {ok, _} = iommap:remap(Handle)
        end)),
        ?assertEqual({ok, ok}, iommap:with_view(Handle, 0, 2 * page(), fun(_) -> ok end))
    end).

with_view_of_bytes_that_were_lost_before_calls_nothing_test_() ->
    %% Whatever the last byte that was left is, and whether or not somebody met the loss before.
    [{lists:flatten(io_lib:format("~p bytes of ~p, ~p", [Left, Byte, Met])), fun() ->
        with_mapping(binary:copy(<<Byte>>, 3 * page()), fun(Handle, Path) ->
            {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
            {ok, _} = iommap:pread(Handle, 0, 3 * page()),
            cut(Path, Left),
            Met =:= met andalso erlang:crc32(View),
            [?assertEqual({error, sigbus}, iommap:with_view(Handle, Offset, Length, fun(_) -> error(called) end))
                || {Offset, Length} <- [{0, 3 * page()}, {Left, 1}, {Left - 1, 2}, {2 * page(), page()}]]
        end)
    end} || Byte <- [0, 255], Left <- [2 * page(), page() + 1], Met <- [met, not_met]].

with_view_of_what_is_left_of_a_cut_file_works_test() ->
    %% Bytes before the cut are read as before, zeros and others, as long as nobody has met the loss.
    [with_mapping(binary:copy(<<Byte>>, 3 * page()), fun(Handle, Path) ->
         cut(Path, page() + 10),
         ?assertEqual({ok, <<Byte>>}, iommap:with_view(Handle, page() + 9, 1, fun binary:copy/1)),
         ?assertEqual({ok, page() + 10}, iommap:with_view(Handle, 0, page() + 10, fun erlang:byte_size/1))
     end) || Byte <- [0, 255]].

with_view_lets_exceptions_go_on_test() ->
    %% An exception of the function has its class, its reason and its stack.
    with_mapping(bytes(100), fun(Handle, _Path) ->
        ?assertThrow({thrown, 100}, iommap:with_view(Handle, 0, 100, fun(View) -> throw({thrown, byte_size(View)}) end)),
        ?assertExit(left, iommap:with_view(Handle, 0, 100, fun(_) -> exit(left) end)),
        ?assertError({badmatch, _}, iommap:with_view(Handle, 0, 100, fun(View) -> <<>> = View end)),
        try iommap:with_view(Handle, 0, 100, fun fails/1) of
            _ -> error(no_exception)
        catch
            error:on_purpose:Stack -> ?assertMatch([{?MODULE, fails, 1, _} | _], Stack)
        end
    end).

-spec fails(binary()) -> no_return().
fails(_View) -> error(on_purpose).

with_view_takes_a_function_of_one_argument_test() ->
    %% Anything else raises, before a negative number, and before the handle is looked at.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        [?assertError(badarg, iommap:with_view(Handle, Offset, 1, Fun))
            || Offset <- [0, -1, 100], Fun <- [atom, fun() -> ok end, fun(_, _) -> ok end, {erlang, crc32}]],
        ok = iommap:close(Handle),
        ?assertError(badarg, iommap:with_view(Handle, 0, 1, none)),
        ?assertEqual({error, closed}, iommap:with_view(Handle, 0, 1, fun erlang:crc32/1))
    end).

with_view_of_a_handle_that_is_closed_meanwhile_works_test() ->
    %% The view outlives its handle.
    with_mapping(bytes(100), fun(Handle, _Path) ->
        ?assertEqual({ok, bytes(100)}, iommap:with_view(Handle, 0, 100, fun(View) ->
            ok = iommap:close(Handle),
            binary:copy(View)
        end))
    end).

with_view_stays_on_its_scheduler_test() ->
    %% Reading what is in memory moves to no other scheduler.
    with_mapping(bytes(page()), fun(Handle, _Path) ->
        {ok, _} = iommap:pread(Handle, 0, page()),
        Read = fun() -> iommap:with_view(Handle, 0, page(), fun erlang:byte_size/1) end,
        ?assert(lists:member(true, [test_processes:stays(Read) || _ <- lists:seq(1, 20)]))
    end).

%% info

info_tells_where_a_file_was_opened_test() ->
    %% The path is absolute, as it was opened: symbolic links, dots and bytes of any encoding stay.
    test_files:with_directory(fun(Directory) ->
        {ok, Before} = file:get_cwd(),
        ok = file:set_cwd(Directory),
        try
            {ok, Here} = file:get_cwd(),
            ok = file:make_dir("inside"),
            ok = file:make_symlink("inside", "link"),
            [begin
                 {ok, Handle} = iommap:open(Name, read_write, [create, {size, 10}]),
                 {ok, #{path := Path, offset := 0, descriptor := Descriptor}} = iommap:info(Handle),
                 ?assertEqual(Expected, Path),
                 {ok, Target} = file:read_link_all("/proc/self/fd/" ++ integer_to_list(Descriptor)),
                 ?assertEqual(filename:basename(Expected), filename:basename(iolist_to_binary([unicode_bytes(Target)]))),
                 ok = iommap:close(Handle)
             end || {Name, Expected} <- [
                 {"plain", in(Here, <<"plain">>)},
                 {"link/file", in(Here, <<"link/file">>)},
                 {"./inside/../inside/dots", in(Here, <<"./inside/../inside/dots">>)},
                 {<<"bytes ", 255, 254>>, in(Here, <<"bytes ", 255, 254>>)},
                 {filename:join(Here, "absolute"), in(Here, <<"absolute">>)}
             ]]
        after
            ok = file:set_cwd(Before)
        end
    end).

in(Directory, Name) ->
    iolist_to_binary([unicode_bytes(Directory), $/, Name]).

unicode_bytes(Name) when is_binary(Name) -> Name;
unicode_bytes(Name) -> unicode:characters_to_binary(Name, unicode, file:native_name_encoding()).

info_keeps_its_path_over_every_resize_test() ->
    %% The mapping that takes the place of another is of the same file.
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        [begin
             ok = iommap:truncate(Handle, Size),
             ?assertMatch({ok, #{size := Size, offset := 0}}, iommap:info(Handle)),
             {ok, #{path := Told}} = iommap:info(Handle),
             ?assertEqual(unicode_bytes(Path), Told)
         end || Size <- [page(), 2 * page(), 100 * page(), 10]]
    end).

info_counts_the_views_that_are_alive_test() ->
    %% One for each call that made a view, and for each process that has it; parts are one with their view.
    with_mapping(bytes(3 * page()), fun(Handle, _Path) ->
        ?assertEqual(0, views(Handle)),
        Holder = spawn_link(fun() ->
            Views = [element(2, iommap:region_binary(Handle, N, page())) || N <- lists:seq(1, 5)],
            receive {send, To} -> To ! {view, hd(Views)} end,
            receive {finish, Part} -> exit({byte_size(Part), length(Views)}) end
        end),
        ok = test_processes:eventually(fun() -> views(Handle) =:= 5 end),
        unlink(Holder),
        Monitor = monitor(process, Holder),
        Holder ! {send, self()},
        View = receive {view, Sent} -> Sent end,
        ?assertEqual(6, views(Handle)),
        ?assertEqual(100, byte_size(binary:part(View, 7, 100))),
        ?assertEqual(6, views(Handle)),
        Holder ! {finish, <<>>},
        receive {'DOWN', Monitor, process, Holder, {0, 5}} -> ok end,
        ok = test_processes:eventually(fun() -> views(Handle) =:= 1 end),
        ?assert(iommap:intact(View)),
        {ok, {byte, _}} = iommap:with_view(Handle, 0, 10, fun(<<Byte, _/binary>>) ->
            ?assertEqual(2, views(Handle)),
            {byte, Byte}
        end)
    end).

views(Handle) ->
    {ok, #{views := Views}} = iommap:info(Handle),
    Views.

%% list

list_has_every_mapping_oldest_first_test() ->
    %% Whatever its mode and sharing, each mapping tells what info tells of its handle.
    with_paths(20, fun(Paths) ->
        Handles = [element(2, iommap:open(Path, lists:nth(1 + N rem 3, [read, write, read_write]),
                                          lists:nth(1 + N rem 2, [[shared], [private]])))
            || {N, Path} <- lists:enumerate(Paths)],
        Listed = listed(Paths),
        ?assertEqual([begin {ok, Info} = iommap:info(Handle), Info#{handle => open} end || Handle <- Handles], Listed),
        ?assertEqual([unicode_bytes(Path) || Path <- Paths], [Path || #{path := Path} <- Listed]),
        [ok = iommap:close(Handle) || Handle <- Handles],
        ?assertEqual([], listed(Paths))
    end).

list_has_mappings_that_only_views_keep_test() ->
    %% Of a closed handle, and of one that has another mapping, as long as a view lives, and no longer.
    with_paths(2, fun([Path, Other] = Paths) ->
        Holder = spawn_link(fun() ->
            {ok, Closed} = iommap:open(Path, read_write, []),
            {ok, View} = iommap:region_binary(Closed, 0, 5),
            {ok, Again} = iommap:region_binary(Closed, 0, 5),
            ok = iommap:close(Closed),
            {ok, Shorter} = iommap:open(Other, read_write, []),
            {ok, Longer} = iommap:region_binary(Shorter, 0, 5),
            ok = iommap:truncate(Shorter, 3),
            receive finish -> exit({done, [View, Again, Longer, Shorter]}) end
        end),
        ok = test_processes:eventually(fun() ->
            [{10, closed, 2}, {10, closed, 1}, {3, open, 0}] =:=
                [{Size, Handle, Views} || #{size := Size, handle := Handle, views := Views} <- listed(Paths)]
        end),
        unlink(Holder),
        Holder ! finish,
        ok = test_processes:eventually(fun() -> listed(Paths) =:= [] end)
    end).

list_of_ten_thousand_mappings_takes_turns_test_() ->
    %% Listing is made in slices, and ten slices are a turn of the process at the most; every mapping is there once.
    {timeout, 300, fun() ->
        Count = 10_000,
        with_mapping(zeros(Count + 1), fun(Handle, Path) ->
            %% Every mapping is one byte shorter than the one before, which a view keeps.
            Views = [begin
                 {ok, View} = iommap:region_binary(Handle, 0, 1),
                 ok = iommap:truncate(Handle, Size),
                 View
             end || Size <- lists:seq(Count, 1, -1)],
            Sizes = [Size || #{size := Size} <- listed([Path])],
            ?assertEqual(lists:seq(Count + 1, 1, -1), Sizes),
            {Slices, Run} = test_processes:runs({iommap, list_nif, 3}, fun iommap:list/0),
            ?assert(Slices >= Count div 64),
            ?assert(Run =< 10),
            ?assertEqual(Count, length(Views))
        end)
    end}.

listed(Paths) ->
    Wanted = [unicode_bytes(Path) || Path <- Paths],
    [Info || #{path := Path} = Info <- iommap:list(), lists:member(Path, Wanted)].

with_paths(Count, Test) ->
    test_files:with_directory(fun(Directory) ->
        Paths = [filename:join(Directory, integer_to_list(N)) || N <- lists:seq(1, Count)],
        [ok = file:write_file(Path, bytes(10)) || Path <- Paths],
        Test(Paths)
    end).

%% i

table_fits_80_columns_test_() ->
    %% Whatever the paths are, and whether or not the device prints Unicode, no line is longer; the end of each path is there.
    [{atom_to_list(Encoding), fun() ->
        test_files:with_directory(fun(Directory) ->
            Names = [<<"short">>, binary:copy(<<"long ">>, 40), unicode:characters_to_binary(lists:duplicate(60, 16#6F22)),
                     <<"bytes ", 255, 254>>, <<"line\nfeed\e[31m">>],
            Handles = [element(2, iommap:open(<<(unicode_bytes(Directory))/binary, $/, Name/binary>>, [create, {size, 1 bsl N}]))
                || {N, Name} <- lists:enumerate(Names)],
            Printed = printed(Encoding, fun() -> ok = iommap:i() end),
            ["handle mode" ++ _ | Lines] = string:lexemes(Printed, "\n"),
            ?assert(length(Lines) >= length(Names)),
            [?assert(columns(Line) =< 80) || Line <- Lines],
            [?assert(lists:any(fun(Line) -> lists:suffix(End, Line) end, Lines)) || End <- [
                "/short", "long long ", "/bytes \377\376", "/line?feed?[31m", lists:duplicate(5, 16#6F22)],
                Encoding =:= unicode orelse lists:all(fun(Char) -> Char < 127 end, End)],
            Encoding =:= unicode orelse [?assert(lists:all(fun(Char) -> Char < 127 end, Line)) || Line <- Lines],
            [ok = iommap:close(Handle) || Handle <- Handles]
        end)
    end} || Encoding <- [unicode, latin1]].

table_shortens_what_has_no_room_test() ->
    %% Sizes of many digits are in GiB, views are counted to 10^5, and the path of a window ends with its offset.
    Mapping = #{handle => open, mode => read, sharing => shared, size => 5 bsl 40, views => 100_000, locked => false, faulted => false,
                path => <<"/file">>, offset => 4096},
    Printed = printed(unicode, fun() -> iommap_table:print([Mapping, Mapping#{size := 999_999_999_999, views := undefined, offset := 0}]) end),
    [_, Large, Small] = string:split(string:trim(Printed), "\n", all),
    ?assertEqual(["open", "read", "shared", "5120", "GiB", ">10^5", "/file+4096"], string:lexemes(Large, " ")),
    ?assertEqual(["open", "read", "shared", "999999999999", "?", "/file"], string:lexemes(Small, " ")).

table_tells_what_is_locked_lost_and_kept_by_views_test() ->
    %% A row has the handle's state, the mode, the sharing, size and views, and letters for locked and faulted.
    with_mapping(bytes(2 * page()), read_write, [private], fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 2 * page()),
        cut(Path, 1),
        _ = erlang:crc32(View),
        ok = iommap:close(Handle),
        Rows = [string:lexemes(Line, " ") || Line <- string:lexemes(printed(unicode, fun iommap:i/0), "\n")],
        Size = integer_to_list(2 * page()),
        ?assertMatch([_], [Row || ["closed", "read_write", "private", Told, "1", "F", _] = Row <- Rows, Told =:= Size])
    end).

%% What a function prints to its group leader.
printed(Encoding, Function) ->
    Leader = spawn_link(fun() -> device(Encoding, []) end),
    {Pid, Monitor} = spawn_monitor(fun() -> group_leader(Leader, self()), Function() end),
    receive {'DOWN', Monitor, process, Pid, Reason} -> normal = Reason end,
    Leader ! {printed, self()},
    receive {printed, Text} -> Text end.

device(Encoding, Printed) ->
    receive
        {io_request, From, Reference, getopts} ->
            From ! {io_reply, Reference, [{encoding, Encoding}]},
            device(Encoding, Printed);
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            device(Encoding, [Printed, unicode:characters_to_list(Text)]);
        {printed, To} ->
            To ! {printed, lists:flatten(Printed)}
    end.

columns(Line) ->
    lists:sum([case Char >= 16#4E00 andalso Char =< 16#9FFF of true -> 2; false -> 1 end || Char <- Line]).

%% stats

stats_are_counters_and_a_gauge_test() ->
    %% A flat map of numbers from 0 on, always with the same names.
    Stats = iommap:stats(),
    ?assertEqual([faults, moved_length, moved_lock, moved_pages, pages_fetched, unmaps_waiting, zero_pages],
        lists:sort(maps:keys(Stats))),
    ?assert(lists:all(fun(Count) -> is_integer(Count) andalso Count >= 0 end, maps:values(Stats))).

stats_count_no_call_that_stays_where_it_is_test() ->
    %% Reads and writes of pages that are ready, views, and questions leave no counter behind.
    with_mapping(bytes(page()), fun(Handle, _Path) ->
        Calls = fun() ->
            {ok, _} = iommap:pread(Handle, 0, 100),
            ok = iommap:pwrite(Handle, 0, <<"written">>),
            {ok, _} = iommap:region_binary(Handle, 0, 100),
            {ok, _} = iommap:with_view(Handle, 0, 100, fun erlang:byte_size/1),
            {ok, _} = iommap:position(Handle),
            {ok, _} = iommap:info(Handle)
        end,
        %% Sooner or later no proof ends in between.
        ok = test_processes:eventually(fun() -> counted(Calls) =:= #{} end)
    end).

stats_tell_why_a_call_moved_test_() ->
    %% Long data, and data that is a view, count once each by their reason; a lock that is taken, each time.
    {timeout, 300, fun() ->
        with_mapping(zeros(3 bsl 20), fun(Handle, _Path) ->
            ?assertMatch(#{moved_length := 1}, counted(fun() -> {ok, _} = iommap:pread(Handle, 0, 2 bsl 20) end)),
            Long = zeros(2 bsl 20),
            ?assertMatch(#{moved_length := 1}, counted(fun() -> ok = iommap:pwrite(Handle, 0, Long) end)),
            with_mapping(bytes(100), fun(Other, _) ->
                {ok, View} = iommap:region_binary(Other, 0, 100),
                ?assertEqual(#{moved_pages => 1}, counted(fun() -> ok = iommap:pwrite(Handle, 0, View) end))
            end)
        end),
        %% Long enough that the one who writes is interrupted while it holds the lock, also on a machine that is busy.
        Longer = zeros(64 bsl 20),
        with_mapping(Longer, fun(Handle, _Path) ->
            test_processes:during([fun() -> ok = iommap:pwrite(Handle, 0, Longer) end], fun() ->
                ok = test_processes:eventually(fun() ->
                    maps:is_key(moved_lock, counted(fun() -> {ok, _} = iommap:position(Handle) end))
                end)
            end)
        end)
    end}.

stats_count_faults_and_zero_pages_test() ->
    %% A fault in a call puts no zero pages anywhere; one in a view, as many as the mapping has lost, once.
    with_mapping(bytes(5 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 5 * page()),
        cut(Path, 2 * page()),
        InCall = counted(fun() -> {error, sigbus} = iommap:pread(Handle, 2 * page(), 10) end),
        ?assertMatch(#{faults := Faults} when Faults > 0, InCall),
        ?assertNot(maps:is_key(zero_pages, InCall)),
        ?assertEqual(#{faults => 1, zero_pages => 3}, counted(fun() -> _ = erlang:crc32(View) end)),
        ?assertEqual(#{}, counted(fun() -> _ = erlang:crc32(View) end))
    end).

stats_show_what_waits_to_be_unmapped_test() ->
    %% What was collected is unmapped soon, and then nothing waits any more.
    test_files:with_file(bytes(100), fun(Path) ->
        ok = test_processes:in_a_process(fun() ->
            _ = [{ok, _} = iommap:open(Path, read, []) || _ <- lists:seq(1, 1000)],
            ok
        end),
        ok = test_processes:eventually(fun() -> maps:get(unmaps_waiting, iommap:stats()) =:= 0 end),
        ok = test_processes:eventually(fun() -> listed([Path]) =:= [] end)
    end).

%% The counters that a function changes, each with the difference.
counted(Function) ->
    Before = iommap:stats(),
    Function(),
    After = iommap:stats(),
    maps:filter(fun(_, More) -> More =/= 0 end,
        maps:map(fun(Name, Count) -> Count - maps:get(Name, Before) end, maps:remove(unmaps_waiting, After))).

%% subscribe

subscriber_is_told_of_each_mapping_that_faults_once_test() ->
    %% When its first zero pages appear, with what list tells of it; further ones are no news.
    with_mapping(bytes(5 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 5 * page()),
        subscribed(fun() ->
            cut(Path, 2 * page()),
            _ = erlang:crc32(View),
            Info = told(),
            {ok, Expected} = iommap:info(Handle),
            ?assertEqual(Expected#{handle => open}, Info),
            ?assertEqual({true, 5 * page()}, {maps:get(faulted, Info), maps:get(size, Info)}),
            cut(Path, 0),
            _ = erlang:crc32(View),
            ok = iommap:truncate(Handle, 2 * page()),
            {ok, Fresh} = iommap:region_binary(Handle, 0, 2 * page()),
            cut(Path, 0),
            _ = erlang:crc32(Fresh),
            ?assertEqual(2 * page(), maps:get(size, told())),
            ?assertEqual([], everything_told())
        end)
    end).

subscriber_hears_nothing_of_before_and_nothing_of_calls_test() ->
    %% A mapping that had faulted is no news; nor is a call that met a lost page, which puts no zeros anywhere.
    with_mapping(bytes(2 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 2 * page()),
        cut(Path, 0),
        _ = erlang:crc32(View),
        with_mapping(bytes(page()), fun(Other, OtherPath) ->
            subscribed(fun() ->
                cut(OtherPath, 0),
                {error, sigbus} = iommap:pread(Other, 0, 1),
                ?assertEqual([], everything_told())
            end)
        end)
    end).

subscriber_hears_of_a_mapping_that_is_gone_at_once_test() ->
    %% However soon after the fault the last view of a closed handle goes, the news comes: each of these once.
    test_files:with_directory(fun(Directory) ->
        subscribed(fun() ->
            Sizes = [page() + N || N <- lists:seq(1, 50)],
            [ok = test_processes:in_a_process(fun() ->
                 Path = filename:join(Directory, integer_to_list(Size)),
                 ok = file:write_file(Path, bytes(Size)),
                 {ok, Handle} = iommap:open(Path, read, []),
                 {ok, View} = iommap:region_binary(Handle, 0, Size),
                 ok = iommap:close(Handle),
                 {ok, File} = file:open(Path, [read, write, raw]),
                 ok = file:truncate(File),
                 ok = file:close(File),
                 _ = erlang:crc32(View),
                 ok
             end) || Size <- Sizes],
            Told = [Size || #{size := Size, handle := closed} <- [told() || _ <- Sizes]],
            ?assertEqual(Sizes, lists:sort(Told)),
            ?assertEqual([], everything_told())
        end)
    end).

to_subscribe_twice_is_to_subscribe_once_test() ->
    %% One message for each fault, and one unsubscribe ends it.
    subscribed(fun() ->
        ok = iommap:subscribe(),
        lose_a_mapping(),
        _ = told(),
        ?assertEqual([], everything_told()),
        ok = iommap:unsubscribe(),
        lose_a_mapping(),
        ?assertEqual([], everything_told())
    end).

every_subscriber_is_told_and_the_dead_are_forgotten_test() ->
    %% One that dies keeps nobody else from hearing.
    Self = self(),
    Listen = fun() -> ok = iommap:subscribe(), Self ! ready, Info = told(), Self ! {self(), Info} end,
    Listeners = [spawn_link(Listen) || _ <- lists:seq(1, 5)],
    [receive ready -> ok end || _ <- Listeners],
    {Dead, Monitor} = spawn_monitor(fun() -> ok = iommap:subscribe() end),
    receive {'DOWN', Monitor, process, Dead, Reason} -> ?assertEqual(normal, Reason) end,
    lose_a_mapping(),
    Told = [receive {Listener, Info} -> Info end || Listener <- Listeners],
    ?assertMatch([#{faulted := true}], lists:usort(Told)).

nothing_arrives_after_unsubscribing_test_() ->
    %% However the end of a subscription and the news of faults race, the mailbox gets nothing once unsubscribe has returned.
    {timeout, 300, fun() ->
        test_processes:during([fun lose_a_mapping/0, fun lose_a_mapping/0], fun() ->
            Heard = [begin
                 ok = iommap:subscribe(),
                 _ = [told() || N rem 20 =:= 0],
                 ok = iommap:unsubscribe(),
                 Before = length(flushed()),
                 receive after 2 -> ok end,
                 ?assertEqual({N, []}, {N, flushed()}),
                 Before
             end || N <- lists:seq(1, 400)],
            ?assertEqual(400, length(Heard))
        end)
    end}.

to_unsubscribe_without_a_subscription_is_ok_test() ->
    %% As to unsubscribe twice is.
    [?assertEqual(ok, iommap:unsubscribe()) || _ <- [1, 2]].

lose_a_mapping() ->
    with_mapping(bytes(page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, page()),
        {ok, File} = file:open(Path, [read, write, raw]),
        ok = file:truncate(File),
        ok = file:close(File),
        _ = erlang:crc32(View),
        ok
    end).

subscribed(Test) ->
    ok = iommap:subscribe(),
    try Test() after ok = iommap:unsubscribe(), flushed() end.

%% The next news. Half a minute stands for never.
told() ->
    receive {iommap, faulted, Info} -> Info after 30_000 -> error(never) end.

%% All news that there is: those of a mapping that is lost now come last.
everything_told() ->
    Last = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        ok = iommap:subscribe(),
        lose_a_mapping(),
        Last ! {last, told()}
    end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    receive {last, Info} -> flushed() -- [Info] end.

flushed() ->
    receive {iommap, faulted, Info} -> [Info | flushed()] after 0 -> [] end.

%% format_error

every_reason_has_a_text_of_its_own_test() ->
    %% The library's own reasons and every POSIX error that it can give, whatever the C library says of it.
    Unknown = file:format_error(no_such_reason),
    Reasons = [badarg, closed, out_of_bounds, sigbus, nif_panicked | posix_reasons()],
    Texts = [{Reason, iommap:format_error(Reason)} || Reason <- Reasons],
    [?assert(io_lib:printable_list(Text)) || {_, Text} <- Texts],
    ?assertEqual([], [Reason || {Reason, Text} <- Texts, Text =:= Unknown orelse Text =:= ""]),
    %% Two names of one number share a text.
    ?assert(length(lists:usort([Text || {_, Text} <- Texts])) >= length(Texts) - 5).

posix_reasons() ->
    {ok, Source} = file:read_file(filename:join(test_system:root(), "native/iommap_nif/src/errno.rs")),
    {match, Found} = re:run(Source, "\\bE[A-Z0-9]+\\b", [global, {capture, first, list}]),
    Reasons = lists:usort([list_to_atom(string:lowercase(Name)) || [Name] <- Found]),
    ?assert(length(Reasons) > 100),
    Reasons.

posix_reasons_have_the_texts_of_file_test() ->
    %% What file:format_error/1 knows is said as it says it.
    [?assertEqual(file:format_error(Reason), iommap:format_error(Reason))
        || Reason <- [enoent, eacces, enospc, eisdir, emfile, efbig, einval, enomem, eio, edquot, etxtbsy]].

reason_of_a_batch_tells_how_far_it_came_test() ->
    %% {N, Reason}: the number of whole elements, and the text of the reason.
    [?assertEqual(Before ++ iommap:format_error(Reason), iommap:format_error({N, Reason}))
        || {Before, N} <- [{"no element was written: ", 0}, {"1 element was written, then: ", 1},
                           {"1000 elements were written, then: ", 1000}],
           Reason <- [sigbus, enospc, closed]].

format_error_raises_for_nothing_test() ->
    %% Whatever it is given, there is a text.
    [?assert(io_lib:printable_unicode_list(iommap:format_error(Term))) || Term <- [
        no_such_reason, undefined, [], "text", <<"text">>, <<1:3>>, 1, -1, 1.0, self(), make_ref(), fun erlang:crc32/1, #{a => b},
        {}, {1}, {-1, enoent}, {a, enoent}, {1, 2, 3}, [a | b], {1, {2, {3, <<0>>}}}, {3, [300]}, 'имя', {error, enoent},
        lists:seq(1, 100_000)
    ]].

cut(Path, Size) ->
    [] = os:cmd("truncate -s " ++ integer_to_list(Size) ++ " " ++ Path).
