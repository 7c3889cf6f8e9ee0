%% Ranges of one mapping: written back, hinted at, asked about, locked. The oracles are the system's: what it keeps of the file
%% in memory, what it knows of the address ranges, and the limits that it sets.
-module(iommap_ranges_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_system, [pages/2]).

-define(MODES, [read, write, read_write]).
-define(LARGEST, 16#FFFFFFFFFFFFFFFF).

%% Errors, in the order of the contract

ranges_check_in_order_test_() ->
    %% Each call on a range answers by the first row that fits: raised, negative, closed, out of bounds.
    [{Name, {timeout, 300, fun() -> checks_in_order(Call) end}} || {Name, Call} <- calls()].

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
     {"resident", fun iommap:resident/3},
     {"lock", fun iommap:lock/3},
     {"unlock", fun iommap:unlock/3}].

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
        IsSeen = test_system:can_see_pages(),
        %% A range within a page, and one from the end of a page to the beginning of the one after the next.
        ?assertEqual(ok, iommap:sync(Handle, 5, 1, sync)),
        ?assertEqual(ok, iommap:sync(Handle, 3 * page() - 1, page() + 2, sync)),
        %% (The system may clean the others by itself at any time.)
        IsSeen andalso ?assert(test_system:dirty(Path) =< (Pages - 4) * page()),
        ?assertEqual(ok, iommap:sync(Handle, 0, Pages * page(), sync)),
        IsSeen andalso ?assertEqual(0, test_system:dirty(Path)),
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
    %% More pages than the system is asked about at once, most of them holes: in memory is what the system's own tool says, of which
    %% the system may read ahead or take back some meanwhile.
    Size = 100 * 1024 * 1024 + 5,
    with_mapping(<<"x">>, fun(Handle, Path) ->
        ok = test_system:truncate(Path, Size),
        {ok, Size} = iommap:remap(Handle),
        ok = keep_in_memory(Path, []),
        ok = iommap:pwrite(Handle, 70 * 1024 * 1024 - 3, <<"written">>),
        ok = test_processes:eventually(fun() ->
            {ok, Bytes} = iommap:resident(Handle, 0, Size),
            Bytes =:= fincore(Path) - (round_up(Size) - Size) * last_page(Path, Size)
        end),
        ?assertEqual({ok, 7}, iommap:resident(Handle, 70 * 1024 * 1024 - 3, 7))
    end).

%% 1 if the page with the end of the file is in memory.
last_page(Path, Size) ->
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, Bytes} = iommap:resident(Handle, Size - 1, 1),
    Bytes.

%% lock and unlock

lock_locks_whole_pages_once_test() ->
    %% The pages that a range touches are locked, twice is once, and one unlock undoes all; info tells when all are.
    with_locks(fun(Handle, Path) ->
        ?assertEqual(ok, iommap:lock(Handle, page() + 5, 1)),
        ?assertEqual([1], pages(Path, <<"lo">>)),
        ?assertEqual(ok, iommap:lock(Handle, 2 * page() - 1, 2)),
        ?assertEqual(ok, iommap:lock(Handle, 5 * page(), page())),
        ?assertEqual([1, 2, 5], pages(Path, <<"lo">>)),
        ?assertMatch({ok, #{locked := false}}, iommap:info(Handle)),
        ?assertEqual(ok, iommap:unlock(Handle, 2 * page() - 1, 1)),
        ?assertEqual([2, 5], pages(Path, <<"lo">>)),
        ?assertEqual(ok, iommap:lock(Handle, 0, 7 * page() + 100)),
        ?assertEqual(lists:seq(0, 7), pages(Path, <<"lo">>)),
        ?assertMatch({ok, #{locked := true}}, iommap:info(Handle)),
        ?assertEqual(ok, iommap:unlock(Handle, 7 * page() + 99, 1)),
        ?assertEqual(lists:seq(0, 6), pages(Path, <<"lo">>)),
        ?assertMatch({ok, #{locked := false}}, iommap:info(Handle)),
        ?assertEqual(ok, iommap:unlock(Handle, 0, 7 * page() + 100)),
        ?assertEqual([], pages(Path, <<"lo">>)),
        ?assertEqual([ok, ok], [Call(Handle, page(), 0) || Call <- [fun iommap:lock/3, fun iommap:unlock/3]]),
        ?assertEqual([], pages(Path, <<"lo">>))
    end).

locked_pages_are_in_memory_and_stay_there_test_() ->
    %% What was locked was read in, and is not dropped though the system is asked to; a private mapping has no copies of it.
    {timeout, 300, fun() ->
        [with_mapping(bytes(8 * page()), Mode, [Sharing], fun(Handle, Path) ->
             ok = iommap:advise(Handle, 0, 0, random),
             ok = keep_in_memory(Path, []),
             ?assertEqual(ok, iommap:lock(Handle, 2 * page(), 3 * page())),
             ok = keep_in_memory(Path, []),
             ?assertEqual({ok, 3 * page()}, iommap:resident(Handle, 2 * page(), 3 * page())),
             test_system:can_see_pages() andalso begin
                 ?assertEqual(3 * page(), test_system:locked(Path)),
                 ?assertEqual([2, 3, 4], pages(Path, <<"lo">>)),
                 ?assertEqual([], pages(Path, anonymous))
             end
         end) || Mode <- ?MODES, Sharing <- [shared, private]]
    end}.

locks_are_kept_by_truncate_and_remap_test_() ->
    %% What remains of the locked pages is locked, in place and in a fresh mapping, beside a view of the old one or not, and of
    %% the old one nothing is. What was cut off is not, also when it is there again.
    [{lists:flatten(io_lib:format("~p~s", [Sharing, Beside])), fun() ->
         with_locks([Sharing], fun(Handle, Path) ->
             {ok, View} = iommap:region_binary(Handle, 0, 1),
             ok = iommap:lock(Handle, page(), 2 * page()),
             ok = iommap:lock(Handle, 6 * page(), page()),
             Kept = fun(Pages, Resize) ->
                 Shown = case Beside of "" -> none; _ -> iommap:region_binary(Handle, 0, 1) end,
                 Resize(),
                 ?assertEqual({Pages, Pages}, {Pages, pages(Path, <<"lo">>)}),
                 ?assertMatch({ok, #{locked := false}}, iommap:info(Handle)),
                 Shown
             end,
             Shown = [
                 Kept([1, 2, 6], fun() -> ok = iommap:truncate(Handle, 9 * page()) end),
                 Kept([1, 2, 6], fun() -> ok = iommap:truncate(Handle, 2000 * page()) end),
                 Kept([1, 2], fun() -> ok = iommap:truncate(Handle, 6 * page()) end),
                 Kept([1, 2], fun() -> ok = test_system:truncate(Path, 9 * page()), {ok, _} = iommap:remap(Handle) end),
                 Kept([1], fun() -> ok = test_system:truncate(Path, 2 * page()), {ok, _} = iommap:remap(Handle) end),
                 Kept([1], fun() -> ok = iommap:truncate(Handle, 9 * page()) end)],
             ?assertEqual(1, byte_size(View)),
             ?assertEqual(6, length(Shown))
         end)
     end} || Sharing <- [shared, private], Beside <- ["", " beside views"]].

the_option_lock_holds_until_something_is_unlocked_test() ->
    %% What a mapping that was opened with lock grows by is locked, too; from the first unlock on, only what was.
    with_locks([lock], fun(Handle, Path) ->
        ok = iommap:truncate(Handle, 9 * page()),
        ?assertEqual(lists:seq(0, 8), pages(Path, <<"lo">>)),
        ?assertMatch({ok, #{locked := true}}, iommap:info(Handle)),
        ok = iommap:truncate(Handle, 2 * page()),
        ?assertEqual([0, 1], pages(Path, <<"lo">>)),
        ok = iommap:truncate(Handle, 3 * page()),
        ?assertEqual([0, 1, 2], pages(Path, <<"lo">>)),
        ok = iommap:unlock(Handle, 0, 1),
        ok = iommap:truncate(Handle, 5 * page()),
        ?assertEqual([1, 2], pages(Path, <<"lo">>)),
        ok = iommap:lock(Handle, 0, 5 * page()),
        ok = iommap:truncate(Handle, 6 * page()),
        ?assertEqual(lists:seq(0, 4), pages(Path, <<"lo">>)),
        ?assertMatch({ok, #{locked := false}}, iommap:info(Handle))
    end).

what_is_locked_of_a_page_is_locked_when_it_fills_test() ->
    %% A mapping that ends within a locked page is still locked as a whole when it grows to the end of that page.
    with_locks(fun(Handle, Path) ->
        ok = iommap:lock(Handle, 0, 7 * page() + 100),
        ok = iommap:truncate(Handle, 8 * page()),
        ?assertMatch({ok, #{locked := true}}, iommap:info(Handle)),
        ok = iommap:truncate(Handle, 8 * page() + 1),
        ?assertMatch({ok, #{locked := false}}, iommap:info(Handle)),
        ?assertEqual(lists:seq(0, 7), pages(Path, <<"lo">>))
    end).

lock_of_pages_that_the_file_lost_is_sigbus_test() ->
    %% Neither before nor after zeros took their place; what is left is locked, the rest of the range is not, and may be unlocked.
    [with_locks([Sharing], fun(Handle, Path) ->
         {ok, View} = iommap:region_binary(Handle, 0, 7 * page()),
         ok = iommap:lock(Handle, 5 * page(), page()),
         ok = test_system:truncate(Path, 2 * page() + 10),
         Lost = fun() ->
             [?assertEqual({error, sigbus}, iommap:lock(Handle, Offset, Length))
                 || {Offset, Length} <- [{0, 7 * page()}, {3 * page(), 1}, {5 * page(), page()}]],
             ?assertEqual(ok, iommap:unlock(Handle, 3 * page(), 4 * page())),
             ?assertEqual([], pages(Path, <<"lo">>)),
             ?assertEqual(ok, iommap:lock(Handle, page(), page() + 10)),
             ?assertEqual([1, 2], pages(Path, <<"lo">>)),
             ?assertEqual(ok, iommap:unlock(Handle, 0, 7 * page()))
         end,
         Lost(),
         _ = erlang:crc32(View),
         ?assertMatch({ok, #{faulted := true}}, iommap:info(Handle)),
         Lost()
     end) || Sharing <- [shared, private]].

%% A mapping that ends within its eighth page, where the system tells what is locked of it.
with_locks(Test) ->
    with_locks([], Test).

with_locks(Options, Test) ->
    test_system:can_see_pages() andalso with_mapping(bytes(7 * page() + 100), read_write, Options, Test).

%% Hints

-define(LASTING, [{random, <<"rr">>, normal}, {sequential, <<"sr">>, normal}, {dontdump, <<"dd">>, dodump},
                  {dontfork, <<"dc">>, dofork}]).
-define(HINTS, [hugepage, nohugepage, collapse, populate_read, populate_write, cold, pageout, dontdump, dodump, dontfork,
                dofork]).

hints_check_in_order_test() ->
    %% A hint is known before anything else of a call is looked at; only populate_write needs a right, before the range counts.
    with_file(bytes(10), fun(Path) ->
        {ok, Closed} = iommap:open(Path, read, []),
        ok = iommap:close(Closed),
        Discarding = [free, remove, wipeonfork, keeponfork, hwpoison, soft_offline, mergeable, unmergeable, guard_install],
        [begin
             {ok, Handle} = iommap:open(Path, Mode, [Sharing]),
             [?assertError(badarg, iommap:advise(Handle, 0, 0, Hint)) || Hint <- ['HUGEPAGE', madv_cold | Discarding]],
             [begin
                  Right = case {Hint, Mode} of {populate_write, read} -> {error, eacces}; _ -> {error, out_of_bounds} end,
                  ?assertError(badarg, iommap:advise(Handle, -1, 1 bsl 64, Hint)),
                  ?assertEqual({error, badarg}, iommap:advise(Handle, -1, 0, Hint)),
                  ?assertEqual({error, badarg}, iommap:advise(Closed, 0, -1, Hint)),
                  ?assertEqual({error, closed}, iommap:advise(Closed, 11, 0, Hint)),
                  [?assertEqual({Hint, Right}, {Hint, iommap:advise(Handle, Offset, Length, Hint)})
                      || {Offset, Length} <- [{11, 0}, {0, 11}, {?LARGEST, 1}]],
                  Right =:= {error, eacces} orelse ?assertEqual(ok, iommap:advise(Handle, 10, 0, Hint))
              end || Hint <- ?HINTS],
             ok = iommap:close(Handle)
         end || Mode <- ?MODES, Sharing <- [shared, private]]
    end).

hints_leave_the_contents_test_() ->
    %% No hint on any range changes what is read later, also of pages that are locked; what the system lacks is enotsup.
    Bytes = bytes(4 * page() + 17),
    Size = byte_size(Bytes),
    Changed = <<(binary:part(Bytes, 0, page() - 2))/binary, "changed",
                (binary:part(Bytes, page() + 5, Size - page() - 5))/binary>>,
    [{lists:flatten(io_lib:format("~p ~p", [Hint, Options])), fun() ->
         [with_mapping(Bytes, read_write, Options, fun(Handle, Path) ->
              ok = iommap:pwrite(Handle, page() - 2, <<"changed">>),
              %% No huge page lies in so small a file. (An emulator answers for the system.)
              Expected = case Hint of collapse when Offset < Size -> {error, enotsup}; _ -> ok end,
              Given = without_huge(Hint, iommap:advise(Handle, Offset, Length, Hint)),
              test_system:can_see_pages() andalso ?assertEqual(Expected, Given),
              ?assertEqual({ok, Changed}, iommap:pread(Handle, 0, Size)),
              ?assertEqual({ok, case Options of [private | _] -> Bytes; _ -> Changed end}, file:read_file(Path)),
              ok = iommap:pwrite(Handle, 0, <<"x">>),
              ?assertEqual({ok, <<"x">>}, iommap:pread(Handle, 0, 1))
          end) || {Offset, Length} <- [{0, 0}, {0, Size}, {1, page()}, {page() - 1, 2}, {page(), page()},
                                       {2 * page() + 1, 0}, {Size - 1, 1}, {Size, 0}]]
     end} || Hint <- ?HINTS, Options <- [[shared], [private], [shared, lock], [private, lock]]].

%% A system without huge pages says so.
without_huge(Hint, {error, enotsup}) when Hint =:= hugepage; Hint =:= nohugepage ->
    ?assertNot(filelib:is_dir("/sys/kernel/mm/transparent_hugepage")),
    ok;
without_huge(_, Given) ->
    Given.

lasting_hints_are_set_for_the_pages_of_a_range_test_() ->
    %% The system knows of the hint for exactly the pages that the range touches, until its opposite takes it back.
    [{atom_to_list(Hint), fun() ->
         [with_mapping(bytes(8 * page() - 1), Mode, [Sharing], fun(Handle, Path) ->
              ?assertEqual(ok, iommap:advise(Handle, 2 * page() - 1, 2, Hint)),
              ?assertEqual(ok, iommap:advise(Handle, 6 * page() + 5, 0, Hint)),
              ?assertEqual([1, 2, 6, 7], pages(Path, Flag)),
              ?assertEqual(ok, iommap:advise(Handle, 2 * page() + 5, 4 * page(), Opposite)),
              ?assertEqual([1, 7], pages(Path, Flag))
          end) || Mode <- ?MODES, Sharing <- [shared, private]]
     end} || test_system:can_see_pages(), {Hint, Flag, Opposite} <- lasting()].

lasting() ->
    [{hugepage, <<"hg">>, nohugepage} || filelib:is_dir("/sys/kernel/mm/transparent_hugepage")] ++ ?LASTING.

lasting_hints_are_kept_by_truncate_and_remap_test_() ->
    %% A hint stays where it was set, in place and in a fresh mapping; one up to the end holds for what the mapping grows by.
    [{lists:flatten(io_lib:format("~p ~p", [Hint, Sharing])), fun() ->
         with_mapping(bytes(8 * page() - 1), read_write, [Sharing], fun(Handle, Path) ->
             Kept = fun(Pages, Resize) -> Resize(), ?assertEqual({Pages, Pages}, {Pages, pages(Path, Flag)}) end,
             Truncate = fun(Size) -> fun() -> ok = iommap:truncate(Handle, Size) end end,
             Remap = fun(Size) -> fun() -> ok = test_system:truncate(Path, Size), {ok, Size} = iommap:remap(Handle) end end,
             ok = iommap:advise(Handle, page(), 2 * page(), Hint),
             ok = iommap:advise(Handle, 5 * page(), 1, Hint),
             Kept([1, 2, 5], Truncate(10 * page())),
             Kept([1, 2, 5], Truncate(2000 * page())),
             Kept([1, 2], Truncate(4 * page())),
             Kept([1, 2, 5], Remap(7 * page())),
             Kept([1], Remap(2 * page())),
             ok = iommap:advise(Handle, page(), 0, Hint),
             Kept(lists:seq(1, 7), Truncate(8 * page())),
             Kept(lists:seq(1, 1999), Remap(2000 * page())),
             ok = iommap:advise(Handle, 2 * page(), 0, Opposite),
             Kept([1], Truncate(3 * page())),
             Kept([1], Truncate(6 * page()))
         end)
     end} || test_system:can_see_pages(), {Hint, Flag, Opposite} <- lasting(), Sharing <- [shared, private]].

lasting_hints_and_locks_come_between_no_resize_test_() ->
    %% What is set or locked while another process resizes is set and locked afterwards.
    {timeout, 300, fun() ->
        with_locks(fun(Handle, Path) ->
            [begin
                 {Hint, Expected, Lock, Locked} = case Round rem 2 of
                     0 -> {random, [0, 1], fun iommap:lock/3, [1]};
                     1 -> {normal, [], fun iommap:unlock/3, []}
                 end,
                 [_, _, ok, ok] = test_processes:together([
                     fun() -> iommap:truncate(Handle, 2000 * page()), iommap:truncate(Handle, 2 * page()) end,
                     fun() -> iommap:remap(Handle), iommap:remap(Handle) end,
                     fun() -> iommap:advise(Handle, 0, 2 * page(), Hint) end,
                     fun() -> Lock(Handle, page(), page()) end]),
                 ok = iommap:truncate(Handle, 2 * page()),
                 ?assertEqual({Round, Expected, Locked}, {Round, pages(Path, <<"rr">>), pages(Path, <<"lo">>)})
             end || Round <- lists:seq(1, 200)]
        end)
    end}.

populate_maps_all_pages_test() ->
    %% populate_read has all pages at hand to be read, populate_write to be written: the system takes them for changed, though
    %% they are what they were. A private mapping gets no copies.
    Bytes = bytes(64 * page()),
    [with_mapping(Bytes, Mode, [Sharing], fun(Handle, Path) ->
         ?assertEqual(ok, iommap:advise(Handle, 0, 0, Hint)),
         ?assertEqual(64 * page(), test_system:resident(Path)),
         ?assertEqual(0, test_system:anonymous(Path)),
         Dirty = case {Hint, Sharing} of {populate_write, shared} -> 64 * page(); _ -> 0 end,
         Dirty =:= 0 orelse ?assert(test_system:dirty(Path) > 0),
         ?assertEqual({ok, Bytes}, file:read_file(Path))
     end) || test_system:can_see_pages(), Mode <- ?MODES, Sharing <- [shared, private], Hint <- [populate_read, populate_write],
             {Mode, Hint} =/= {read, populate_write}].

populate_of_pages_that_the_file_lost_is_sigbus_test() ->
    %% Neither before nor after zeros took their place; what is left is populated.
    [with_mapping(bytes(4 * page()), read_write, [Sharing], fun(Handle, Path) ->
         {ok, View} = iommap:region_binary(Handle, 0, 4 * page()),
         ok = test_system:truncate(Path, page()),
         Check = fun() -> [begin
             ?assertEqual(ok, iommap:advise(Handle, 0, page(), Hint)),
             ?assertEqual({error, sigbus}, iommap:advise(Handle, 0, 0, Hint)),
             ?assertEqual({error, sigbus}, iommap:advise(Handle, 3 * page(), 1, Hint))
         end || Hint <- [populate_read, populate_write]] end,
         Check(),
         _ = erlang:crc32(View),
         Check()
     end) || Sharing <- [shared, private]].

pageout_lets_pages_go_but_those_that_are_locked_test_() ->
    %% What is paged out leaves the memory, as dontneed leaves the mapping; locked pages stay where they are.
    [{atom_to_list(Hint), {timeout, 300, fun() -> lets_pages_go(Hint) end}}
        || test_system:can_see_pages(), Hint <- [pageout, dontneed]].

lets_pages_go(Hint) ->
    with_mapping(bytes(16 * page()), read, [], fun(Handle, Path) ->
        ok = iommap:advise(Handle, 0, 0, random),
        ok = keep_in_memory(Path, []),
        fincore(Path) =:= 0 andalso begin
            ok = iommap:lock(Handle, 3 * page(), 2 * page()),
            ok = iommap:advise(Handle, 0, 0, populate_read),
            ok = test_processes:eventually(fun() ->
                ok = iommap:advise(Handle, 0, 0, Hint),
                case Hint of
                    pageout -> iommap:resident(Handle, 0, 16 * page()) =:= {ok, 2 * page()};
                    dontneed -> mapped(Path) =:= 2 * page()
                end
            end),
            ?assertEqual(2 * page(), test_system:locked(Path)),
            ?assertEqual({ok, bytes(16 * page())}, iommap:pread(Handle, 0, 16 * page()))
        end
    end).

%% The bytes of a file that this VM has mapped and at hand.
mapped(Path) ->
    test_system:told("Rss", Path).

collapse_makes_huge_pages_or_says_that_it_cannot_test_() ->
    %% Where the system makes huge pages of a file in memory, they are there; else the answer says why not. Nothing changes.
    {timeout, 300, fun() ->
        Size = 8 * 1024 * 1024,
        Path = "/dev/shm/iommap-collapse-" ++ os:getpid(),
        filelib:is_dir("/dev/shm") andalso try
            ok = file:write_file(Path, bytes(Size)),
            {ok, Handle} = iommap:open(Path, read_write, []),
            case iommap:advise(Handle, 0, 0, collapse) of
                ok -> test_system:can_see_pages() andalso ?assert(test_system:told("ShmemPmdMapped", Path) > 0);
                {error, Reason} -> ?assert(lists:member(Reason, [enotsup, eagain, ebusy, enomem]))
            end,
            ?assertEqual({ok, bytes(Size)}, iommap:pread(Handle, 0, Size)),
            ok = iommap:close(Handle)
        after
            file:delete(Path)
        end
    end}.
