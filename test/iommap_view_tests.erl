%% Views: the binaries of region_binary, which are the mapping itself and outlive its handle.
-module(iommap_view_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_mapping/2, with_mapping/4]).
-import(test_processes, [stays/1]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).

region_binary_returns_the_bytes_of_the_file_test() ->
    %% A view holds exactly the bytes at its offset, in every mode that may read and in every sharing.
    Bytes = bytes(3 * page() + 17),
    Size = byte_size(Bytes),
    [with_mapping(Bytes, Mode, Options, fun(Handle, _Path) ->
         [?assertEqual({ok, binary:part(Bytes, Offset, Length)}, iommap:region_binary(Handle, Offset, Length))
             || {Offset, Length} <- [{0, Size}, {0, 1}, {1, page()}, {page() - 1, 2}, {page(), page()}, {Size - 1, 1}]]
     end) || Mode <- [read, read_write], Options <- [[], [private]]].

region_binary_of_nothing_is_empty_up_to_the_end_test() ->
    %% A length of 0 gives an empty binary for any offset up to the size.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        [?assertEqual({ok, <<>>}, iommap:region_binary(Handle, Offset, 0)) || Offset <- [0, 9, 10]]
    end).

region_binary_past_the_end_is_out_of_bounds_test() ->
    %% A view that would leave the mapping is refused, and its range never wraps around.
    with_mapping(<<"0123456789">>, fun(Handle, _Path) ->
        [?assertEqual({error, out_of_bounds}, iommap:region_binary(Handle, Offset, Length)) || {Offset, Length} <- [
            {0, 11}, {10, 1}, {11, 0}, {1, 16#FFFFFFFFFFFFFFFF}, {16#FFFFFFFFFFFFFFFF, 1},
            {16#8000000000000000, 16#8000000000000000}, {16#FFFFFFFFFFFFFFFF, 16#FFFFFFFFFFFFFFFF}
        ]]
    end).

view_is_no_copy_test() ->
    %% A view shows what is written later, through the handle or through another descriptor.
    with_mapping(bytes(2 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, page() - 3, 10),
        ok = iommap:pwrite(Handle, page() - 3, <<"01234">>),
        {ok, File} = file:open(Path, [read, write, raw, binary]),
        ok = file:pwrite(File, page() + 2, <<"56789">>),
        ok = file:close(File),
        ?assertEqual(<<"0123456789">>, View)
    end).

view_takes_no_memory_of_its_own_test() ->
    %% A view of a large file costs the VM next to nothing.
    Size = 64 * 1024 * 1024,
    test_files:with_directory(fun(Directory) ->
        {ok, Handle} = iommap:open(filename:join(Directory, "large"), [create, {size, Size}]),
        Before = erlang:memory(binary),
        {ok, View} = iommap:region_binary(Handle, 0, Size),
        ?assert(erlang:memory(binary) - Before < Size div 2),
        ?assertEqual(Size, byte_size(View))
    end).

view_of_a_private_mapping_shows_its_changes_test() ->
    %% A view of a private mapping is that mapping, not the file.
    with_mapping(<<"0123456789">>, read_write, [private], fun(Handle, _Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 5),
        ok = iommap:pwrite(Handle, 0, <<"ab">>),
        ?assertEqual(<<"ab234">>, View)
    end).

view_outlives_close_test() ->
    %% After close a view is as good as before.
    Bytes = bytes(3 * page()),
    with_mapping(Bytes, fun(Handle, _Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, byte_size(Bytes)),
        ok = iommap:close(Handle),
        ?assertEqual(Bytes, View),
        ?assertEqual({error, closed}, iommap:region_binary(Handle, 0, 1))
    end).

view_outlives_the_file_test() ->
    %% After the file is deleted, and closed too, a view is as good as before.
    Bytes = bytes(3 * page()),
    with_mapping(Bytes, fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, byte_size(Bytes)),
        ok = file:delete(Path),
        ?assertEqual(Bytes, View),
        ok = iommap:close(Handle),
        ?assertEqual(Bytes, View),
        ok = file:write_file(Path, zeros(byte_size(Bytes))),
        ?assertEqual(Bytes, View)
    end).

view_outlives_its_handle_test() ->
    %% A view keeps the mapping when nobody holds the handle any more.
    Bytes = bytes(3 * page()),
    test_files:with_file(Bytes, fun(Path) ->
        View = test_processes:in_a_process(fun() ->
            {ok, Handle} = iommap:open(Path, read, []),
            {ok, View} = iommap:region_binary(Handle, 1, 2 * page()),
            View
        end),
        [erlang:garbage_collect(Process) || Process <- processes()],
        ?assertEqual(binary:part(Bytes, 1, 2 * page()), View)
    end).

view_outlives_its_sender_test() ->
    %% A view, and a part of one, may go to other processes and tables like any binary.
    Bytes = bytes(3 * page()),
    test_files:with_file(Bytes, fun(Path) ->
        Table = ets:new(views, []),
        Part = test_processes:in_a_process(fun() ->
            {ok, Handle} = iommap:open(Path, read, []),
            {ok, View} = iommap:region_binary(Handle, 0, byte_size(Bytes)),
            ok = iommap:close(Handle),
            binary:part(View, page(), page())
        end),
        true = ets:insert(Table, {part, Part}),
        erlang:garbage_collect(),
        [{part, Stored}] = ets:lookup(Table, part),
        ?assertEqual(binary:part(Bytes, page(), page()), Stored),
        true = ets:delete(Table)
    end).

view_survives_resizing_test() ->
    %% After the mapping grew, or shrank to no less than the view's end, an old view shows the file still.
    Bytes = bytes(4 * page()),
    [with_mapping(Bytes, fun(Handle, Path) ->
         {ok, View} = iommap:region_binary(Handle, 1, 2 * page()),
         ok = iommap:truncate(Handle, Size),
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         ?assertEqual(Size, filelib:file_size(Path)),
         ?assertEqual(binary:part(Bytes, 1, 2 * page()), View),
         ok = iommap:pwrite(Handle, 1, <<"new">>),
         ?assertMatch(<<"new", _/binary>>, View),
         ok = iommap:close(Handle),
         ?assertMatch(<<"new", _/binary>>, View)
     end) || Size <- [2 * page() + 1, 3 * page(), 4 * page() + 1, 100 * page(), 5000 * page()]].

view_is_a_binary_like_any_other_test() ->
    %% Matching, comparing, hashing and searching work on a view as on the bytes themselves.
    Bytes = bytes(3 * page()),
    with_mapping(Bytes, read, [], fun(Handle, _Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, byte_size(Bytes)),
        ?assert(is_binary(View)),
        ?assert(View == Bytes),
        ?assertEqual([Byte || <<Byte>> <= Bytes], [Byte || <<Byte>> <= View]),
        ?assertEqual(erlang:crc32(Bytes), erlang:crc32(View)),
        ?assertEqual(crypto:hash(sha256, Bytes), crypto:hash(sha256, View)),
        ?assertEqual({2 * page(), page()}, binary:match(View, binary:part(Bytes, 2 * page(), page()))),
        ?assertEqual(Bytes, binary_to_term(term_to_binary(View))),
        ?assertEqual(<<Bytes/binary, "tail">>, <<View/binary, "tail">>)
    end).

view_is_never_written_by_appending_test() ->
    %% Appending to a view makes a new binary; the file keeps its bytes.
    Bytes = bytes(page()),
    with_mapping(Bytes, fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 100),
        Longer = lists:foldl(fun(_, Binary) -> <<Binary/binary, "#">> end, View, lists:seq(1, 1000)),
        ?assertEqual(1100, byte_size(Longer)),
        ?assertEqual({ok, Bytes}, file:read_file(Path))
    end).

intact_of_a_range_speaks_of_these_bytes_only_test() ->
    %% Of a view that lost its end, what comes before is intact, and any range that reaches into the loss is not.
    with_mapping(bytes(3 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 10, 3 * page() - 10),
        ?assert(iommap:intact(View, 0, byte_size(View))),
        [] = os:cmd("truncate -s " ++ integer_to_list(page()) ++ " " ++ Path),
        _ = erlang:crc32(View),
        Kept = page() - 10,
        [?assertEqual({Offset, Length, true}, {Offset, Length, iommap:intact(View, Offset, Length)})
            || {Offset, Length} <- [{0, 0}, {0, 8}, {0, Kept}, {Kept - 8, 8}]],
        [?assertEqual({Offset, Length, false}, {Offset, Length, iommap:intact(View, Offset, Length)})
            || {Offset, Length} <- [{Kept - 8, 9}, {Kept, 8}, {2 * page(), 1}, {0, byte_size(View)}]]
    end).

part_of_a_lost_view_is_intact_only_if_the_vm_has_copied_it_test_() ->
    %% However a part is taken and carried: of up to 64 bytes it is a copy, of which nobody knows anything, and of more it is
    %% as lost as its view.
    [{atom_to_list(Name), fun() ->
        beside_a_lost_view(fun(View, _Target, _Path) ->
            [?assertEqual({Length, Length =< 64}, {Length, iommap:intact(Carry(Take(View, Length)))})
                || Length <- lists:seq(1, 200), Carry <- carriers()],
            [?assertEqual({Length, Length =< 64}, {Length, iommap:intact(Take(View, Length), Length - 1, 1)})
                || Length <- lists:seq(1, 200)]
        end)
    end} || {Name, Take} <- ways_to_take_a_part()].

part_of_a_lost_view_is_written_only_if_the_vm_has_copied_it_test_() ->
    %% No zero that stands for a lost byte is written as data, alone or among other data.
    [{atom_to_list(Name), fun() ->
        beside_a_lost_view(fun(View, Target, Path) ->
            [?assertEqual({Length, {error, sigbus}}, {Length, iommap:pwrite(Target, 0, Data)})
                || Length <- lists:seq(65, 200), Carry <- carriers(), Part <- [Carry(Take(View, Length))],
                   Data <- [Part, [Part], ["x", Part]]],
            ?assertEqual({ok, bytes(201)}, file:read_file(Path))
        end)
    end} || {Name, Take} <- ways_to_take_a_part()].

part_taken_before_the_loss_is_what_the_file_held_or_lost_test_() ->
    %% A part that was a copy before the file shrank keeps its bytes, and can be written; any other goes with its view.
    [{atom_to_list(Name), fun() ->
        Bytes = bytes(3 * page()),
        with_mapping(Bytes, fun(Handle, _Path) ->
            {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
            Parts = [{Length, Take(Bytes, Length), Take(View, Length)} || Length <- lists:seq(1, 200)],
            ok = iommap:truncate(Handle, 1),
            with_mapping(bytes(200), fun(Target, _) ->
                [begin
                     Copied = Length =< 64,
                     ?assertEqual({Length, Copied}, {Length, iommap:intact(Part)}),
                     ?assertEqual({Length, Copied}, {Length, Part =:= Before}),
                     ?assertEqual({Length, Copied}, {Length, ok =:= iommap:pwrite(Target, 0, Part)}),
                     [?assertEqual({ok, Before}, iommap:pread(Target, 0, Length)) || Copied]
                 end || {Length, Before, Part} <- Parts]
            end)
        end)
    end} || {Name, Take} <- ways_to_take_a_part()].

%% Functions that give so many bytes of a binary: from a whole byte on, and from within one.
ways_to_take_a_part() ->
    [{part, fun(Binary, Length) -> binary:part(Binary, 10, Length) end},
     {last_part, fun(Binary, Length) -> binary:part(Binary, byte_size(Binary), -Length) end},
     {split_binary, fun(Binary, Length) -> {_, Part} = split_binary(Binary, byte_size(Binary) - Length), Part end},
     {matched, fun(Binary, Length) -> <<_:10/binary, Part:Length/binary, _/binary>> = Binary, Part end},
     {matched_tail, fun drop/2},
     {of_a_comprehension, fun(Binary, Length) -> hd([Part || <<Part:Length/binary>> <= Binary]) end},
     {part_of_a_part, fun(Binary, Length) ->
         <<_:100/binary, Part/binary>> = binary:part(Binary, 0, 100 + Length),
         Part
     end},
     {within_a_byte, fun(Binary, Length) -> <<_:3, Part:Length/binary, _/bits>> = Binary, Part end},
     {up_to_within_the_last_byte, fun(Binary, Length) ->
         Before = 8 * (byte_size(Binary) - Length) - 3,
         <<_:Before, Part:Length/binary, _/bits>> = Binary,
         Part
     end},
     {part_of_one_within_a_byte, fun(Binary, Length) ->
         <<_:5, Long:300/binary, _/bits>> = Binary,
         binary:part(Long, 300, -Length)
     end}].

%% A loop's tail.
drop(Binary, Length) when byte_size(Binary) =:= Length -> Binary;
drop(<<_, Tail/binary>>, Length) -> drop(Tail, Length).

%% Functions that give the binary that they are given, as it came back from another place.
carriers() ->
    [fun(Binary) -> Binary end,
     fun(Binary) -> test_processes:in_a_process(fun() -> Binary end) end,
     fun(Binary) ->
         Table = ets:new(carrier, []),
         true = ets:insert(Table, {key, Binary}),
         [{key, Stored}] = ets:lookup(Table, key),
         true = ets:delete(Table),
         Stored
     end].

%% With a view of three pages whose file has but one byte, and a handle of another file, of 201 bytes.
beside_a_lost_view(Test) ->
    with_mapping(bytes(3 * page()), fun(Handle, _) ->
        {ok, View} = iommap:region_binary(Handle, page(), 2 * page()),
        ok = iommap:truncate(Handle, 1),
        with_mapping(bytes(201), fun(Target, Path) -> Test(View, Target, Path) end)
    end).

intact_of_a_range_outside_raises_badarg_test() ->
    %% What is not a range inside a binary is refused like in binary:part/3.
    [?assertError(badarg, iommap:intact(Binary, Offset, Length)) || {Binary, Offset, Length} <- [
        {<<"abc">>, 0, 4}, {<<"abc">>, 4, 0}, {<<"abc">>, -1, 1}, {<<"abc">>, 0, -1}, {<<"abc">>, a, 1}, {<<"abc">>, 0, 1.0},
        {<<"abc">>, 16#FFFFFFFFFFFFFFFF, 1}, {<<"abc">>, 1 bsl 64, 1}, {<<1:4>>, 0, 0}, {"abc", 0, 1}
    ]],
    ?assert(iommap:intact(<<"abc">>, 3, 0)).

what_asks_about_every_mapping_waits_on_a_dirty_scheduler_test() ->
    %% Of a binary that begins within a byte all views are asked about, which takes long among many; of a view, one.
    with_mapping(bytes(200), fun(Handle, _Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 200),
        <<_:4, Unaligned:100/binary, _/bitstring>> = bytes(200),
        ?assert(lists:member(true, [stays(fun() -> true = iommap:intact(View) end) || _ <- lists:seq(1, 20)])),
        ?assertNot(lists:member(true, [stays(fun() -> iommap:intact(Unaligned) end) || _ <- lists:seq(1, 20)])),
        ok = iommap:close(Handle)
    end).
