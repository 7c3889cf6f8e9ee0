%% Ranges of one mapping: written back, hinted at, asked about, locked. The oracles are the system's: what it keeps of the file
%% in memory, what it knows of the address ranges, and the limits that it sets.
-module(iommap_ranges_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, page/0]).

-define(MODES, [read, write, read_write]).
-define(LARGEST, 16#FFFFFFFFFFFFFFFF).

%% Errors, in the order of the contract

ranges_check_in_order_test_() ->
    %% Each call on a range answers by the first row that fits: raised, negative, closed, out of bounds.
    [{Name, {timeout, 60, fun() -> checks_in_order(Call) end}} || {Name, Call} <- calls()].

checks_in_order(Call) ->
    with_file(bytes(10), fun(Path) ->
        Handles = [{Closed, element(2, {ok, _} = iommap:open(Path, Mode, [Sharing]))}
                   || Closed <- [open, closed], Mode <- ?MODES, Sharing <- [shared, private]],
        [ok = iommap:close(Handle) || {closed, Handle} <- Handles],
        [?assertEqual({Handle, Offset, Length, answer(Handle, Offset, Length)},
                      {Handle, Offset, Length, outcome(Call, Term, Offset, Length)})
            || {Handle, Term} <- [{none, not_a_handle}, {none, make_ref()} | Handles],
               Offset <- integers(), Length <- integers()]
    end).

answer(Handle, Offset, Length) ->
    Integers = [Offset, Length],
    case lists:any(fun(Integer) -> not is_integer(Integer) orelse Integer > ?LARGEST end, Integers) of
        true -> raises;
        false when Handle =:= none -> raises;
        false when Offset < 0; Length < 0 -> {error, badarg};
        false when Handle =:= closed -> {error, closed};
        false when Offset + Length > 10 -> {error, out_of_bounds};
        false -> ok
    end.

outcome(Call, Handle, Offset, Length) ->
    try Call(Handle, Offset, Length) of
        {ok, _} -> ok;
        Answer -> Answer
    catch
        error:badarg -> raises
    end.

integers() ->
    [atom, 1.0, <<1>>, ?LARGEST + 1, 1 bsl 200, -1, -(1 bsl 63) - 1, -(1 bsl 200),
     0, 1, 9, 10, 11, 1 bsl 32, (1 bsl 63) - 1, 1 bsl 63, ?LARGEST].

%% The calls that need no right.
calls() ->
    [{"sync", fun(Handle, Offset, Length) -> iommap:sync(Handle, Offset, Length, sync) end},
     {"sync async", fun(Handle, Offset, Length) -> iommap:sync(Handle, Offset, Length, async) end},
     {"resident", fun iommap:resident/3}].

%% sync

sync_of_a_range_knows_two_modes_test() ->
    %% Another mode is answered, after what raises and before a closed handle.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        [begin
             ?assertEqual({error, badarg}, iommap:sync(Handle, 0, 10, Mode)),
             ?assertEqual({error, badarg}, iommap:sync(Handle, 0, 11, Mode)),
             ?assertError(badarg, iommap:sync(Handle, 0, 1 bsl 64, Mode)),
             ?assertError(badarg, iommap:sync(no_handle, 0, 10, Mode))
         end || Mode <- [unknown, 1, <<"sync">>, "sync", {}, [sync]]],
        ok = iommap:close(Handle),
        ?assertEqual({error, badarg}, iommap:sync(Handle, 0, 10, unknown))
    end).

sync_writes_the_pages_of_its_range_back_test() ->
    %% Afterwards the system knows of no change of these pages, and the file has what was written.
    Pages = 8,
    with_mapping(bytes(Pages * page()), fun(Handle, Path) ->
        [ok = iommap:pwrite(Handle, N * page() + 5, <<"new">>) || N <- lists:seq(0, Pages - 1)],
        Dirty = test_system:can_see_pages() andalso test_system:dirty(Path),
        %% A range within a page, and one from the end of a page to the beginning of the one after the next.
        ?assertEqual(ok, iommap:sync(Handle, 5, 1, sync)),
        ?assertEqual(ok, iommap:sync(Handle, 3 * page() - 1, page() + 2, sync)),
        %% (Elsewhere the system may have cleaned pages by itself meanwhile.)
        Dirty =:= false orelse ?assert(test_system:dirty(Path) =< Dirty - 4 * page()),
        ?assertEqual(ok, iommap:sync(Handle, 0, Pages * page(), sync)),
        Dirty =:= false orelse ?assertEqual(0, test_system:dirty(Path)),
        {ok, Contents} = file:read_file(Path),
        ?assertEqual({ok, Contents}, iommap:pread(Handle, 0, Pages * page())),
        ?assertEqual(<<"new">>, binary:part(Contents, 3 * page() + 5, 3))
    end).

sync_of_bytes_that_the_file_lost_is_sigbus_test() ->
    %% What was cut off cannot reach the device: its range is sigbus, what is left is not, and there is nothing to lose for who
    %% changes nothing.
    [with_mapping(bytes(4 * page()), Mode, [Sharing], fun(Handle, Path) ->
         ok = test_system:truncate(Path, page() + 10),
         Lost = case {Mode, Sharing} of {_, private} -> ok; {read, _} -> ok; _ -> {error, sigbus} end,
         [begin
              ?assertEqual(ok, iommap:sync(Handle, 0, page() + 10, How)),
              ?assertEqual(Lost, iommap:sync(Handle, page() + 9, 2, How)),
              ?assertEqual(Lost, iommap:sync(Handle, 3 * page(), 1, How)),
              ?assertEqual(ok, iommap:sync(Handle, 4 * page(), 0, How))
          end || How <- [sync, async]],
         {ok, _} = iommap:remap(Handle),
         ?assertEqual(ok, iommap:sync(Handle, 0, page() + 10, sync))
     end) || Mode <- ?MODES, Sharing <- [shared, private]].

sync_of_a_faulted_mapping_is_sigbus_whatever_the_range_test() ->
    %% Fail-stop: once zeros were put under a mapping, no range of it is written back until it is mapped anew.
    with_mapping(bytes(4 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 4 * page()),
        ok = test_system:truncate(Path, page()),
        _ = erlang:crc32(View),
        [?assertEqual({error, sigbus}, iommap:sync(Handle, Offset, Length, Mode))
            || {Offset, Length} <- [{0, 1}, {0, 0}, {3 * page(), 1}, {4 * page(), 0}], Mode <- [sync, async]],
        {ok, _} = iommap:remap(Handle),
        ?assertEqual(ok, iommap:sync(Handle, 0, 1, sync))
    end).

%% resident

resident_is_what_the_system_keeps_in_memory_test() ->
    %% Of a file of which some pages were read, exactly these are in memory, clipped to the range; the system's own tool says the
    %% same of the whole.
    Pages = 40,
    with_mapping(bytes(Pages * page() + 100), read, [], fun(Handle, Path) ->
        Size = Pages * page() + 100,
        ok = iommap:advise(Handle, 0, 0, random),
        Kept = [3, 7, 8, 9, 30, Pages],
        ok = keep_in_memory(Path, Kept),
        Expected = length(Kept) * page(),
        case fincore(Path) of
            Expected ->
                [?assertEqual({Offset, Length, {ok, expected(Kept, Offset, Length)}},
                              {Offset, Length, iommap:resident(Handle, Offset, Length)})
                    || Offset <- edges([0, 3, 7, 8, 10, 30, Pages]), End <- [Size | edges([0, 3, 8, 9, 10, 31, Pages])],
                       End >= Offset, Length <- [End - Offset]],
                ?assertEqual(Expected, fincore(Path));
            Other ->
                %% A file system that keeps files nowhere but in memory.
                ?assertEqual(round_up(Size), Other),
                ?assertEqual({ok, Size}, iommap:resident(Handle, 0, Size))
        end
    end).

expected(Kept, Offset, Length) ->
    lists:sum([max(0, min(Offset + Length, (Page + 1) * page()) - max(Offset, Page * page())) || Page <- Kept]).

edges(Pages) ->
    [Offset || Page <- Pages, Delta <- [-1, 0, 1, 17], Offset <- [Page * page() + Delta], Offset >= 0].

round_up(Size) ->
    (Size + page() - 1) div page() * page().

%% Of all pages of the file, these alone. Read at random, none brings its neighbours along.
keep_in_memory(Path, Pages) ->
    {ok, File} = file:open(Path, [read, raw, binary]),
    ok = file:datasync(File),
    ok = file:advise(File, 0, 0, dont_need),
    ok = file:advise(File, 0, 0, random),
    [{ok, _} = file:pread(File, Page * page(), 1) || Page <- Pages],
    file:close(File).

%% The bytes of whole pages that the system has in memory of a file.
fincore(Path) ->
    binary_to_integer(string:trim(test_system:run("fincore", ["--bytes", "--noheadings", "--output", "RES", Path]))).

resident_needs_no_right_test() ->
    %% Every mode may ask, of shared and private mappings, and what was written counts like what was read.
    [with_mapping(bytes(4 * page()), Mode, [Sharing], fun(Handle, _Path) ->
         Mode =:= read orelse (ok = iommap:pwrite(Handle, page(), bytes(page()))),
         ?assertEqual({ok, 4 * page()}, iommap:resident(Handle, 0, 4 * page())),
         ?assertEqual({ok, 3}, iommap:resident(Handle, page() - 1, 3)),
         ?assertEqual({ok, 0}, iommap:resident(Handle, 4 * page(), 0))
     end) || Mode <- ?MODES, Sharing <- [shared, private]].

resident_does_not_count_what_the_file_lost_test() ->
    %% Bytes after the end of the file are not in memory, neither before nor after zeros took their place; nor once it grew back.
    [with_mapping(bytes(4 * page()), Mode, [Sharing], fun(Handle, Path) ->
         {ok, View} = case Mode of write -> {ok, <<>>}; _ -> iommap:region_binary(Handle, 0, 4 * page()) end,
         ok = test_system:truncate(Path, page() + 10),
         Left = fun() -> [iommap:resident(Handle, Offset, Length) ||
             {Offset, Length} <- [{0, 4 * page()}, {page(), 100}, {page() + 10, 1}, {3 * page(), page()}]] end,
         ?assertEqual([{ok, page() + 10}, {ok, 10}, {ok, 0}, {ok, 0}], Left()),
         _ = erlang:crc32(View),
         ?assertMatch({ok, #{faulted := Faulted}} when Faulted =:= (Mode =/= write), iommap:info(Handle)),
         ?assertEqual([{ok, page() + 10}, {ok, 10}, {ok, 0}, {ok, 0}], Left()),
         ok = file:write_file(Path, bytes(4 * page())),
         Mode =:= write orelse ?assertEqual({ok, 0}, iommap:resident(Handle, 3 * page(), page()))
     end) || Mode <- ?MODES, Sharing <- [shared, private]].

resident_of_a_large_mapping_test() ->
    %% More pages than the system is asked about at once, most of them holes: only what was written is in memory.
    Size = 100 * 1024 * 1024 + 5,
    with_mapping(<<"x">>, fun(Handle, Path) ->
        ok = test_system:truncate(Path, Size),
        {ok, Size} = iommap:remap(Handle),
        ok = keep_in_memory(Path, []),
        ok = iommap:pwrite(Handle, 70 * 1024 * 1024 - 3, <<"written">>),
        ?assertEqual({ok, fincore(Path) - (round_up(Size) - Size) * last_page(Path, Size)}, iommap:resident(Handle, 0, Size)),
        ?assertEqual({ok, 7}, iommap:resident(Handle, 70 * 1024 * 1024 - 3, 7))
    end).

%% 1 if the page with the end of the file is in memory.
last_page(Path, Size) ->
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, Bytes} = iommap:resident(Handle, Size - 1, 1),
    Bytes.
