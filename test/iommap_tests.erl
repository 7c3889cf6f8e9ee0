%% The calls on an open mapping: what each of them does when nothing is wrong.
-module(iommap_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).

%% More than a call copies on a normal scheduler, and no multiple of any page.
-define(LARGE, 3_000_001).

%% close

close_is_ok_once_test() ->
    %% The first close answers ok, every later one that the mapping is closed.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        ?assertEqual(ok, iommap:close(Handle)),
        ?assertEqual({error, closed}, iommap:close(Handle)),
        ?assertEqual({error, closed}, iommap:close(Handle))
    end).

handles_of_one_file_are_closed_one_by_one_test() ->
    %% Closing one handle of a file leaves the other handles of it as they were.
    with_mapping(<<"0123456789">>, fun(Handle, Path) ->
        {ok, Other} = iommap:open(Path, read, []),
        ok = iommap:close(Other),
        ?assertEqual({ok, <<"345">>}, iommap:pread(Handle, 3, 3))
    end).

close_works_from_any_process_test() ->
    %% A handle belongs to no process: whoever holds it may use it and close it.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        Read = fun() -> iommap:pread(Handle, 3, 3) end,
        ?assertEqual({ok, <<"345">>}, test_processes:in_a_process(Read)),
        ?assertEqual(ok, test_processes:in_a_process(fun() -> iommap:close(Handle) end)),
        ?assertEqual({error, closed}, iommap:pread(Handle, 3, 3))
    end).

%% pread

pread_returns_the_bytes_of_the_file_test() ->
    %% pread answers exactly the bytes at its offset.
    Bytes = bytes(3 * page() + 17),
    with_mapping(Bytes, fun(Handle, _Path) ->
        [?assertEqual({ok, binary:part(Bytes, Offset, Length)}, iommap:pread(Handle, Offset, Length))
            || {Offset, Length} <- edges(byte_size(Bytes))]
    end).

pread_returns_large_ranges_test() ->
    %% Ranges that are too long for a normal scheduler are read just so.
    Bytes = bytes(?LARGE),
    with_mapping(Bytes, read, [], fun(Handle, _Path) ->
        ?assertEqual({ok, Bytes}, iommap:pread(Handle, 0, ?LARGE)),
        ?assertEqual({ok, binary:part(Bytes, 1, ?LARGE - 2)}, iommap:pread(Handle, 1, ?LARGE - 2))
    end).

pread_of_nothing_is_empty_up_to_the_end_test() ->
    %% A length of 0 gives an empty binary for any offset up to the size.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        [?assertEqual({ok, <<>>}, iommap:pread(Handle, Offset, 0)) || Offset <- [0, 1, 9, 10]]
    end).

pread_past_the_end_is_out_of_bounds_test() ->
    %% A range that leaves the mapping is refused, and never wraps around.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        [?assertEqual({error, out_of_bounds}, iommap:pread(Handle, Offset, Length))
            || {Offset, Length} <- leaving(10)]
    end).

pread_is_a_copy_test() ->
    %% What pread returned does not change when the file does.
    Bytes = bytes(page()),
    with_mapping(Bytes, fun(Handle, _Path) ->
        {ok, Short} = iommap:pread(Handle, 0, 8),
        {ok, Long} = iommap:pread(Handle, 0, page()),
        ok = iommap:pwrite(Handle, 0, zeros(page())),
        ?assertEqual(binary:part(Bytes, 0, 8), Short),
        ?assertEqual(Bytes, Long)
    end).

pread_sees_what_another_descriptor_wrote_test() ->
    %% A shared mapping is the file: what others write into it is read at once.
    with_mapping(bytes(2 * page()), fun(Handle, Path) ->
        {ok, _} = iommap:pread(Handle, page(), 5),
        overwrite(Path, page(), <<"hello">>),
        ?assertEqual({ok, <<"hello">>}, iommap:pread(Handle, page(), 5))
    end).

pread_works_on_a_page_not_in_memory_test() ->
    %% A page that the system has to fetch first is read like any other.
    Bytes = bytes(64 * page()),
    with_mapping(Bytes, read, [], fun(Handle, Path) ->
        [begin
             drop_from_memory(Handle, Path),
             Offset = Page * page() + 3,
             ?assertEqual({ok, binary:part(Bytes, Offset, 100)}, iommap:pread(Handle, Offset, 100))
         end || Page <- [0, 1, 31, 63]],
        drop_from_memory(Handle, Path),
        ?assertEqual({ok, Bytes}, iommap:pread(Handle, 0, byte_size(Bytes)))
    end).

%% pwrite

pwrite_writes_into_the_file_test() ->
    %% pwrite changes exactly the bytes at its offset, and the file shows it.
    Bytes = bytes(3 * page() + 17),
    [with_mapping(Bytes, fun(Handle, Path) ->
         Data = binary:copy(<<"#">>, Length),
         ?assertEqual(ok, iommap:pwrite(Handle, Offset, Data)),
         ?assertEqual({ok, patched(Bytes, Offset, Data)}, file:read_file(Path)),
         ?assertEqual({ok, Data}, iommap:pread(Handle, Offset, Length))
     end) || {Offset, Length} <- edges(byte_size(Bytes))].

pwrite_writes_large_data_test() ->
    %% Data that is too long for a normal scheduler is written just so.
    with_mapping(zeros(?LARGE), fun(Handle, Path) ->
        Bytes = bytes(?LARGE - 2),
        ?assertEqual(ok, iommap:pwrite(Handle, 1, Bytes)),
        ?assertEqual({ok, <<0, Bytes/binary, 0>>}, file:read_file(Path))
    end).

pwrite_takes_iodata_test_() ->
    %% Every form of iodata writes what iolist_to_binary/1 makes of it, whether a view may be among it or not; also where it is just
    %% short enough to be gathered by the VM, or just not.
    Middle = bytes(500),
    <<_:3, Unaligned:100/binary, _:5>> = bytes(101),
    Forms = [
        {"bytes", [1, 2, 3]},
        {"a binary tail", [1, 2 | <<3, 4>>]},
        {"nothing, nested", [[], [<<>>, [[]]], []]},
        {"lists in lists", [<<"a">>, ["b", [$c, <<"d">> | <<"e">>], []], <<"f">>]},
        {"a sub-binary", binary:part(Middle, 17, 200)},
        {"a sub-binary at no byte's edge", Unaligned},
        {"sub-binaries in a list", [binary:part(Middle, 17, 200), Unaligned, binary:part(Middle, 0, 3)]},
        {"16 segments of 256 bytes", [bytes(256) || _ <- lists:seq(1, 16)]},
        {"100000 bytes", [N rem 256 || N <- lists:seq(1, 100_000)]},
        {"100000 binaries", [<<N:24>> || N <- lists:seq(1, 100_000)]},
        {"100000 lists deep", lists:foldl(fun(N, Deep) -> [Deep, N rem 256] end, [], lists:seq(1, 100_000))},
        {"100000 lists deep, to the right", lists:foldl(fun(N, Deep) -> [N rem 256, [Deep]] end, [], lists:seq(1, 100_000))},
        {"one long binary many times over", lists:duplicate(40, bytes(100_000))}
    ] ++ [{lists:flatten(io_lib:format("~b bytes, ~s", [Size, Form])), Data}
          || Size <- lists:seq(8188, 8194),
             {Form, Data} <- [{"whole", [bytes(Size)]}, {"in two", [bytes(Size - 100), [bytes(100)]]}]]
      ++ [{lists:flatten(io_lib:format("~b single bytes", [Count])), binary_to_list(bytes(Count))}
          || Count <- lists:seq(4094, 4098)],
    %% Where each of 100,000 parts is looked up among 10,000 mappings of another test, that takes seconds in a library that counts.
    [{Form, {timeout, 60, fun() -> writes_like_a_binary(Data) end}} || {Form, Data} <- Forms].

writes_like_a_binary(Data) ->
    Binary = iolist_to_binary(Data),
    with_mapping(zeros(byte_size(Binary) + 2), fun(Handle, Path) ->
        Writes = fun() ->
            ok = iommap:pwrite(Handle, 0, zeros(byte_size(Binary) + 2)),
            ?assertEqual(ok, iommap:pwrite(Handle, 1, Data)),
            ?assertEqual({ok, <<0, Binary/binary, 0>>}, file:read_file(Path))
        end,
        without_views(),
        Writes(),
        {ok, View} = iommap:region_binary(Handle, 0, 1),
        Writes(),
        ?assertEqual(<<0>>, View)
    end).

%% No view is left of the tests before.
without_views() ->
    test_processes:eventually(fun() ->
        [garbage_collect(Process) || Process <- processes()],
        [] =:= [Info || #{views := Views} = Info <- iommap:list(), Views > 0]
    end).

pwrite_of_unaligned_data_waits_until_no_view_has_lost_its_file_test() ->
    %% The VM copies a binary that begins within a byte, so where it came from is unknown: it could be what a view lost.
    with_mapping(zeros(200), fun(Handle, Path) ->
        beside_a_shrunk_view(fun(Unaligned) ->
            [?assertEqual({error, sigbus}, iommap:pwrite(Handle, 0, Data)) || Data <- [Unaligned, [Unaligned]]],
            ?assertNot(iommap:intact(Unaligned)),
            ?assertEqual({ok, zeros(200)}, file:read_file(Path)),
            ?assertEqual(ok, iommap:pwrite(Handle, 0, binary:copy(Unaligned)))
        end)
    end).

pwrite_of_unaligned_data_checks_in_order_test() ->
    %% Whatever its data, a write first answers that the handle is closed, may not write, or is too short.
    beside_a_shrunk_view(fun(Unaligned) ->
        with_mapping(zeros(200), fun(Handle, Path) ->
            {ok, Reader} = iommap:open(Path, read, []),
            ?assertEqual({error, eacces}, iommap:pwrite(Reader, 0, Unaligned)),
            ?assertEqual({error, out_of_bounds}, iommap:pwrite(Handle, 101, Unaligned)),
            ok = iommap:close(Handle),
            ?assertEqual({error, closed}, iommap:pwrite(Handle, 0, Unaligned))
        end)
    end).

%% While there is a view whose file ends before it, and 100 bytes that begin in the middle of one.
beside_a_shrunk_view(Test) ->
    with_mapping(bytes(3 * page()), fun(Shrunk, _Path) ->
        {ok, View} = iommap:region_binary(Shrunk, 0, 3 * page()),
        ok = iommap:truncate(Shrunk, page()),
        <<_:3, Unaligned:100/binary, _:5>> = bytes(101),
        Test(Unaligned),
        ?assertEqual(3 * page(), byte_size(View))
    end).

pwrite_past_the_end_writes_nothing_test() ->
    %% Data that does not fit is refused as a whole.
    Bytes = bytes(10),
    with_mapping(Bytes, fun(Handle, Path) ->
        [?assertEqual({error, out_of_bounds}, iommap:pwrite(Handle, Offset, Data)) || {Offset, Data} <- [
            {0, bytes(11)}, {9, <<"ab">>}, {9, ["a", "b"]}, {10, "a"}, {11, <<>>},
            {16#8000000000000000, "a"}, {16#FFFFFFFFFFFFFFFF, "a"}, {16#FFFFFFFFFFFFFFFF, <<>>}
        ]],
        ?assertEqual({ok, Bytes}, file:read_file(Path))
    end).

pwrite_measures_data_without_making_it_one_test() ->
    %% A hundred gigabytes made of one shared megabyte are refused, not assembled.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        Data = lists:duplicate(100_000, bytes(1_000_000)),
        ?assertEqual({error, out_of_bounds}, iommap:pwrite(Handle, 0, Data))
    end).

pwrite_of_nothing_is_ok_up_to_the_end_test() ->
    %% Empty data may be written at any offset up to the size.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        [?assertEqual(ok, iommap:pwrite(Handle, Offset, Data)) || Offset <- [0, 9, 10], Data <- [<<>>, [], [[]]]]
    end).

pwrite_of_a_view_of_the_same_bytes_moves_them_test() ->
    %% A view of the mapping itself may be written back elsewhere, overlapping or not.
    Bytes = bytes(?LARGE),
    [with_mapping(Bytes, fun(Handle, Path) ->
         {ok, View} = iommap:region_binary(Handle, From, Length),
         ?assertEqual(ok, iommap:pwrite(Handle, To, View)),
         ?assertEqual({ok, patched(Bytes, To, binary:part(Bytes, From, Length))}, file:read_file(Path))
     end) || {From, To, Length} <- [
         {0, 1, 5000}, {1, 0, 5000}, {0, 5000, 5000}, {7, 7, 5000},
         {0, 3, ?LARGE - 3}, {3, 0, ?LARGE - 3}
     ]].

%% sync

sync_is_ok_test() ->
    %% Every way to sync answers ok in every mode and sharing.
    [with_mapping(bytes(2 * page()), Mode, Options, fun(Handle, _Path) ->
         Mode =:= read orelse (ok = iommap:pwrite(Handle, 5, <<"new">>)),
         ?assertEqual(ok, iommap:sync(Handle)),
         ?assertEqual(ok, iommap:sync(Handle, sync)),
         ?assertEqual(ok, iommap:sync(Handle, async))
     end) || Mode <- [read, write, read_write], Options <- [[], [private]]].

sync_leaves_the_contents_test() ->
    %% What was written before a sync is there after it.
    with_mapping(zeros(page()), fun(Handle, Path) ->
        ok = iommap:pwrite(Handle, 0, bytes(page())),
        ok = iommap:sync(Handle, sync),
        ok = iommap:sync(Handle, async),
        ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())),
        ?assertEqual({ok, bytes(page())}, file:read_file(Path))
    end).

%% position

position_is_the_size_test() ->
    %% position answers the size of the mapping in bytes, in every mode.
    [with_mapping(bytes(Size), Mode, [], fun(Handle, _Path) ->
         ?assertEqual({ok, Size}, iommap:position(Handle))
     end) || Size <- [1, page() - 1, page(), page() + 1], Mode <- [read, write, read_write]].

position_is_that_of_the_mapping_test() ->
    %% A file that grew under the mapping does not move the mapping's end.
    with_mapping(bytes(page()), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 3 * page()),
        ?assertEqual({ok, page()}, iommap:position(Handle)),
        ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, page(), 1))
    end).

%% advise

advise_leaves_the_contents_test_() ->
    %% No hint on any range changes what is read later.
    Bytes = bytes(4 * page() + 17),
    Changed = patched(Bytes, page() - 2, <<"changed">>),
    Size = byte_size(Bytes),
    [{lists:flatten(io_lib:format("~p ~p ~p", [Hint, Options, Range])), fun() ->
         with_mapping(Bytes, read_write, Options, fun(Handle, _Path) ->
             ok = iommap:pwrite(Handle, page() - 2, <<"changed">>),
             {Offset, Length} = Range,
             ?assertEqual(ok, iommap:advise(Handle, Offset, Length, Hint)),
             ?assertEqual({ok, Changed}, iommap:pread(Handle, 0, Size)),
             ok = iommap:pwrite(Handle, 0, <<"x">>),
             ?assertEqual({ok, <<"x">>}, iommap:pread(Handle, 0, 1))
         end)
     end} || Hint <- [normal, random, sequential, willneed, dontneed],
             Options <- [[], [private]],
             Range <- [{0, 0}, {0, Size}, {1, page()}, {page() - 1, 2}, {page(), page()},
                       {2 * page() + 1, 0}, {Size - 1, 1}, {Size, 0}]].

advise_works_in_every_mode_test() ->
    %% A hint needs no right to read or write.
    [with_mapping(bytes(page()), Mode, [], fun(Handle, _Path) ->
         ?assertEqual(ok, iommap:advise(Handle, 0, 0, Hint))
     end) || Mode <- [read, write, read_write], Hint <- [normal, random, sequential, willneed, dontneed]].

advise_of_locked_pages_is_ok_test() ->
    %% A hint is a hint: that locked pages are not needed soon is no error, and they stay in memory.
    Bytes = bytes(4 * page()),
    [with_mapping(Bytes, Mode, [lock, Sharing], fun(Handle, _Path) ->
         {ok, #{locked := Locked}} = iommap:info(Handle),
         ?assertEqual(ok, iommap:advise(Handle, 0, 0, Hint)),
         ?assertEqual(ok, iommap:advise(Handle, page(), page(), Hint)),
         ?assertMatch({ok, #{locked := Locked}}, iommap:info(Handle)),
         Mode =:= write orelse ?assertEqual({ok, Bytes}, iommap:pread(Handle, 0, 4 * page()))
     end) || Mode <- [read, write, read_write], Sharing <- [shared, private],
             Hint <- [normal, random, sequential, willneed, dontneed]].

advise_past_the_end_is_out_of_bounds_test() ->
    %% A hint for a range that leaves the mapping is refused.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        [?assertEqual({error, out_of_bounds}, iommap:advise(Handle, Offset, Length, normal))
            || {Offset, Length} <- leaving(10)]
    end).

%% remap

remap_follows_the_file_test() ->
    %% After remap the mapping is as long as the file that another process grew or shrank.
    Bytes = bytes(2 * page()),
    with_mapping(Bytes, fun(Handle, Path) ->
        ok = test_system:truncate(Path, 5 * page()),
        ?assertEqual({ok, 5 * page()}, iommap:remap(Handle)),
        ?assertEqual({ok, 5 * page()}, iommap:position(Handle)),
        ?assertEqual({ok, <<Bytes/binary, (zeros(3 * page()))/binary>>}, iommap:pread(Handle, 0, 5 * page())),
        ok = test_system:truncate(Path, page() + 1),
        ?assertEqual({ok, page() + 1}, iommap:remap(Handle)),
        ?assertEqual({ok, binary:part(Bytes, 0, page() + 1)}, iommap:pread(Handle, 0, page() + 1)),
        ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, page() + 1, 1))
    end).

remap_of_an_empty_file_leaves_the_handle_test() ->
    %% There is no mapping of nothing: the answer is einval, and the handle works again when the file does.
    with_mapping(bytes(2 * page()), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 0),
        ?assertEqual({error, einval}, iommap:remap(Handle)),
        ?assertEqual({ok, 2 * page()}, iommap:position(Handle)),
        ok = file:write_file(Path, <<"back">>),
        ?assertEqual({ok, 4}, iommap:remap(Handle)),
        ?assertEqual({ok, <<"back">>}, iommap:pread(Handle, 0, 4))
    end).

remap_keeps_private_changes_test() ->
    %% The changes made to a private mapping are still there after remap, and only there.
    Bytes = bytes(3 * page()),
    with_mapping(Bytes, read_write, [private], fun(Handle, Path) ->
        ok = iommap:pwrite(Handle, page() - 2, <<"changed">>),
        ok = test_system:truncate(Path, 4 * page()),
        ?assertEqual({ok, 4 * page()}, iommap:remap(Handle)),
        Changed = patched(Bytes, page() - 2, <<"changed">>),
        ?assertEqual({ok, <<Changed/binary, (zeros(page()))/binary>>}, iommap:pread(Handle, 0, 4 * page())),
        ok = test_system:truncate(Path, 2 * page()),
        ?assertEqual({ok, 2 * page()}, iommap:remap(Handle)),
        ?assertEqual({ok, binary:part(Changed, 0, 2 * page())}, iommap:pread(Handle, 0, 2 * page())),
        ?assertEqual({ok, binary:part(Bytes, 0, 2 * page())}, file:read_file(Path))
    end).

%% info

info_describes_the_mapping_test() ->
    %% info tells size, mode, sharing and whether the mapping lost its file.
    [with_mapping(bytes(page() + 1), Mode, [Sharing], fun(Handle, _Path) ->
         {ok, Info} = iommap:info(Handle),
         ?assertMatch(#{mode := Mode, sharing := Sharing, locked := false, faulted := false}, Info),
         ?assertEqual(page() + 1, maps:get(size, Info)),
         ?assertEqual(page(), maps:get(page_size, Info))
     end) || Mode <- [read, write, read_write], Sharing <- [shared, private]].

%% Types

every_function_has_a_spec_and_every_type_is_exported_test() ->
    %% Users find a spec for each function, and the types to write their own with.
    {ok, {iommap, [{abstract_code, {_, Forms}}]}} = beam_lib:chunks(filename:join([code:lib_dir(iommap), "ebin", "iommap.beam"]), [abstract_code]),
    Specs = [Function || {attribute, _, spec, {Function, _}} <- Forms],
    ?assertEqual([], iommap:module_info(exports) -- [{module_info, 0}, {module_info, 1} | Specs]),
    Types = lists:append([Exported || {attribute, _, export_type, Exported} <- Forms]),
    ?assertEqual([], [{handle, 0}, {mode, 0}, {sync_mode, 0}, {advise_hint, 0}, {open_option, 0}] -- Types).

%% Ranges inside a mapping of Size bytes, around all its edges.
edges(Size) ->
    Points = [0, 1, page() - 1, page(), page() + 1, Size - 1, Size],
    [{From, To - From} || From <- Points, To <- Points, From =< To].

%% Ranges that leave a mapping of Size bytes, some of them so far that a sum of 64 bits wraps.
leaving(Size) ->
    Far = [16#7FFFFFFFFFFFFFFF, 16#8000000000000000, 16#FFFFFFFFFFFFFFFF],
    [{0, Size + 1}, {Size, 1}, {Size + 1, 0}, {1, Size}, {Size - 1, 2}]
        ++ [{Offset, Length} || Offset <- Far, Length <- [0, 1, Size | Far]]
        ++ [{Offset, Length} || Offset <- [0, 1, Size], Length <- Far].

%% The binary as a write of Data at Offset leaves it.
patched(Binary, Offset, Data) ->
    <<Before:Offset/binary, _:(byte_size(Data))/binary, After/binary>> = Binary,
    <<Before/binary, Data/binary, After/binary>>.

overwrite(Path, Offset, Data) ->
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    ok = file:pwrite(File, Offset, Data),
    ok = file:close(File).

drop_from_memory(Handle, Path) ->
    ok = iommap:sync(Handle),
    ok = iommap:advise(Handle, 0, 0, dontneed),
    {ok, File} = file:open(Path, [read, raw, binary]),
    ok = file:datasync(File),
    ok = file:advise(File, 0, 0, dont_need),
    ok = file:close(File).
