%% What iommap_atomics does, one promise a case. `test/prop_iommap_atomics.erl' compares every function with OTP's `atomics'.
-module(iommap_atomics_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_mapping/2, with_mapping/4]).
-import(test_pattern, [zeros/1, page/0]).

words_are_those_of_the_file_in_native_order_test() ->
    %% The first word of an array is at its offset; others of the file are left alone; everybody sees what is put.
    with_mapping(zeros(64), fun(Handle, Path) ->
        Array = iommap_atomics:new(Handle, 16, 3, []),
        ok = iommap_atomics:put(Array, 1, 1),
        ok = iommap_atomics:put(Array, 3, -2),
        Expected = <<0:128, 1:64/native, 0:64, -2:64/native, 0:192>>,
        ?assertEqual({ok, Expected}, file:read_file(Path)),
        ?assertEqual({ok, Expected}, iommap:pread(Handle, 0, 64)),
        ok = iommap:pwrite(Handle, 24, <<7:64/native>>),
        ?assertEqual(7, iommap_atomics:get(Array, 2))
    end).

every_function_gives_and_leaves_what_otps_does_test() ->
    with_mapping(zeros(8), fun(Handle, _) ->
        Ours = iommap_atomics:new(Handle, 0, 1, []),
        Otps = atomics:new(1, []),
        [begin
             ?assertEqual({Name, apply(atomics, Name, [Otps, 1 | Values])}, {Name, apply(iommap_atomics, Name, [Ours, 1 | Values])}),
             ?assertEqual({Name, atomics:get(Otps, 1)}, {Name, iommap_atomics:get(Ours, 1)})
         end || {Name, Values} <- [{put, [2#1100]}, {add, [3]}, {add_get, [-20]}, {sub, [7]}, {sub_get, [-90]}, {get, []},
                                   {exchange, [2#1010_1010]}, {compare_exchange, [2#1010_1010, 5]}, {compare_exchange, [6, 7]}]],
        %% And those that OTP has not.
        [begin
             ok = iommap_atomics:put(Ours, 1, 2#1100),
             ?assertEqual({Name, Given}, {Name, apply(iommap_atomics, Name, [Ours, 1, 2#1010])}),
             ?assertEqual({Name, Left}, {Name, iommap_atomics:get(Ours, 1)})
         end || {Name, Given, Left} <- [{'band', ok, 2#1000}, {band_get, 2#1000, 2#1000}, {'bor', ok, 2#1110},
                                        {bor_get, 2#1110, 2#1110}, {'bxor', ok, 2#0110}, {bxor_get, 2#0110, 2#0110}]]
    end).

signed_and_unsigned_arrays_show_the_same_words_test() ->
    with_mapping(zeros(16), fun(Handle, _) ->
        Signed = iommap_atomics:new(Handle, 0, 2, [{signed, true}]),
        Unsigned = iommap_atomics:new(Handle, 0, 2, [{signed, false}]),
        ok = iommap_atomics:sub(Unsigned, 2, 1),
        ?assertEqual(-1, iommap_atomics:get(Signed, 2)),
        ?assertEqual(16#FFFFFFFFFFFFFFFF, iommap_atomics:get(Unsigned, 2))
    end).

compare_exchange_tells_what_was_there_test() ->
    %% `ok' and the new word, if the word is the expected one; else what it is, and it stays.
    with_mapping(zeros(8), fun(Handle, _) ->
        Array = iommap_atomics:new(Handle, 0, 1, []),
        ?assertEqual(ok, iommap_atomics:compare_exchange(Array, 1, 0, 5)),
        ?assertEqual(5, iommap_atomics:compare_exchange(Array, 1, 0, 7)),
        ?assertEqual(5, iommap_atomics:get(Array, 1))
    end).

subtracting_is_adding_the_opposite_test() ->
    %% What is no number is badarith, as unary minus is in OTP's.
    with_mapping(zeros(8), fun(Handle, _) ->
        Array = iommap_atomics:new(Handle, 0, 1, []),
        ?assertEqual(-3, iommap_atomics:sub_get(Array, 1, 3)),
        ?assertEqual(ok, iommap_atomics:sub(Array, 1, -4)),
        ?assertEqual(1, iommap_atomics:get(Array, 1)),
        ?assertError(badarith, iommap_atomics:sub(Array, 1, a)),
        ?assertError(badarith, iommap_atomics:sub_get(Array, 1, a)),
        ?assertEqual(3, iommap_atomics:bor_get(Array, 1, 2))
    end).

info_tells_size_and_limits_test() ->
    with_mapping(zeros(64), fun(Handle, _) ->
        Info = fun(Options) -> iommap_atomics:info(iommap_atomics:new(Handle, 8, 5, Options)) end,
        ?assertEqual(#{size => 5, memory => 40, max => 1 bsl 63 - 1, min => -1 bsl 63}, Info([])),
        ?assertEqual(#{size => 5, memory => 40, max => 1 bsl 64 - 1, min => 0}, Info([{signed, false}]))
    end).

new_raises_badarg_for_what_is_no_array_of_shared_words_test() ->
    %% Misaligned, outside, private, closed, malformed; the last one that fits is good.
    Size = 3 * page(),
    New = fun iommap_atomics:new/4,
    with_mapping(zeros(Size), fun(Handle, Path) ->
        {ok, Private} = iommap:open(Path, read_write, [private]),
        {ok, Closed} = iommap:open(Path, read_write, []),
        ok = iommap:close(Closed),
        ?assert(is_reference(New(Handle, Size - 8, 1, []))),
        ?assert(is_reference(New(Handle, 0, Size div 8, [{signed, false}]))),
        [?assertMatch({Arguments, badarg, [{iommap_atomics, new, Arguments, _} | _]},
                      try {Arguments, apply(New, Arguments)} catch error:Reason:Stack -> {Arguments, Reason, Stack} end)
         || Arguments <- [
                [Handle, 4, 1, []], [Handle, 1, 1, []],
                [Handle, Size, 1, []], [Handle, Size - 8, 2, []], [Handle, 8, Size div 8, []],
                [Handle, 0, 1 bsl 61, []], [Handle, 8, 1 bsl 61 - 1, []], [Handle, 1 bsl 63, 1, []],
                [Handle, 0, 1 bsl 64, []], [Handle, 1 bsl 64, 1, []],
                [Handle, -8, 1, []], [Handle, 0, 0, []], [Handle, 0, -1, []], [Handle, 0, a, []], [Handle, a, 1, []],
                [Handle, 0, 1.0, []], [Handle, 0, 1, [x]], [Handle, 0, 1, x], [Handle, 0, 1, [{signed, 1}]],
                [Handle, 0, 1, [{signed, true} | x]],
                [Private, 0, 1, []], [Closed, 0, 1, []], [make_ref(), 0, 1, []], [x, 0, 1, []]]],
        ok = iommap:close(Private)
    end).

words_lie_at_multiples_of_8_in_the_file_wherever_the_window_begins_test() ->
    %% The window's offset and the array's together decide, in a window that begins inside a page and in one that does not.
    with_mapping(zeros(3 * page()), fun(_, Path) ->
        [begin
             {ok, Handle} = iommap:open(Path, read_write, [{offset, Start}]),
             New = fun(Offset) -> try iommap_atomics:new(Handle, Offset, 2, []) catch error:badarg -> badarg end end,
             [?assertEqual({Start, Offset, (Start + Offset) rem 8 =:= 0}, {Start, Offset, New(Offset) =/= badarg})
              || Offset <- lists:seq(0, 16)],
             Offset = (8 - Start rem 8) rem 8,
             ok = iommap_atomics:put(New(Offset), 1, Start),
             ?assertEqual({ok, <<Start:64/native>>}, iommap:pread(Handle, Offset, 8)),
             ok = iommap:close(Handle)
         end || Start <- [0, 1, 4, 7, 8, page() - 4, page(), page() + 3]]
    end).

words_do_not_follow_what_others_append_test() ->
    %% With follow, words behind the mapping are outside until a read has made it longer.
    with_mapping(zeros(16), read, [follow], fun(Handle, Path) ->
        ok = file:write_file(Path, zeros(16), [append]),
        ?assertError(badarg, iommap_atomics:new(Handle, 16, 1, [])),
        ?assertEqual({ok, 16}, iommap:position(Handle)),
        ?assertEqual({ok, <<0:64>>}, iommap:pread(Handle, 16, 8)),
        ?assertEqual(0, iommap_atomics:get(iommap_atomics:new(Handle, 16, 1, []), 1))
    end).

operations_that_the_mode_does_not_permit_raise_badarg_test() ->
    %% What writes, through read; what reads, through write.
    with_mapping(zeros(64), fun(_, Path) ->
        Of = fun(Mode) ->
            {ok, Handle} = iommap:open(Path, Mode, []),
            iommap_atomics:new(Handle, 0, 8, [])
        end,
        Answers = fun(Array) -> [{Name, outcome(Call, Array)} || {Name, Call} <- calls()] end,
        ?assertEqual([{Name, case Name of get -> {ok, 0}; _ -> badarg end} || {Name, _} <- calls()], Answers(Of(read))),
        Writing = [put, add, sub, 'band', 'bor', 'bxor'],
        ?assertEqual([{Name, case lists:member(Name, Writing) of true -> {ok, ok}; false -> badarg end} || {Name, _} <- calls()],
                     Answers(Of(write)))
    end).

an_array_of_a_closed_handle_raises_badarg_test() ->
    with_mapping(zeros(64), fun(Handle, _) ->
        Array = iommap_atomics:new(Handle, 0, 8, []),
        ok = iommap:close(Handle),
        [?assertEqual({Name, badarg}, {Name, outcome(Call, Array)})
         || {Name, Call} <- [{info, fun iommap_atomics:info/1} | calls()]]
    end).

what_is_no_array_raises_badarg_test() ->
    with_mapping(zeros(64), fun(Handle, _) ->
        [?assertEqual({Name, badarg}, {Name, outcome(Call, NoArray)})
         || NoArray <- [make_ref(), atomics:new(8, []), Handle, x, 1],
            {Name, Call} <- [{info, fun iommap_atomics:info/1} | calls()]]
    end).

a_handle_that_is_not_used_any_more_stays_for_its_array_test() ->
    %% Only the array refers to the handle; when it goes, all that they had goes.
    with_mapping(zeros(64), fun(_, Path) ->
        test_processes:in_a_process(fun() ->
            Array = test_processes:in_a_process(fun() ->
                {ok, Handle} = iommap:open(Path, read_write, []),
                iommap_atomics:new(Handle, 0, 8, [])
            end),
            [erlang:garbage_collect(Process) || Process <- processes()],
            ?assertEqual(5, iommap_atomics:add_get(Array, 8, 5))
        end)
    end),
    with_mapping(zeros(64), fun(Other, Path) ->
        ok = iommap:close(Other),
        test_processes:in_a_process(fun() ->
            {ok, Handle} = iommap:open(Path, read_write, []),
            iommap_atomics:add(iommap_atomics:new(Handle, 0, 8, []), 1, 1)
        end),
        ok = test_processes:eventually(fun() -> test_system:held(Path) =:= {[], []} end)
    end).

an_array_follows_its_handle_test() ->
    %% Over growth in place, growth beyond all reservations, shrinking to less than the array, and remap.
    Size = 4 * page(),
    with_mapping(zeros(Size), fun(Handle, Path) ->
        Array = iommap_atomics:new(Handle, 0, Size div 8, []),
        Last = Size div 8,
        Add = fun(Ix) -> iommap_atomics:add_get(Array, Ix, 1) end,
        ?assertEqual([1, 1], [Add(1), Add(Last)]),
        ok = iommap:truncate(Handle, Size + 100),
        ?assertEqual([2, 2], [Add(1), Add(Last)]),
        ok = iommap:truncate(Handle, 1 bsl 28),
        ?assertEqual([3, 3], [Add(1), Add(Last)]),
        ok = iommap:truncate(Handle, page()),
        ?assertEqual(4, Add(1)),
        [?assertEqual({Name, sigbus}, {Name, outcome(Call, Array, Last)}) || {Name, Call} <- calls_at()],
        [] = os:cmd("truncate -s " ++ integer_to_list(Size) ++ " " ++ Path),
        {ok, Size} = iommap:remap(Handle),
        ?assertEqual([5, 1], [Add(1), Add(Last)])
    end).

a_word_in_the_middle_of_the_end_is_cut_off_test() ->
    with_mapping(zeros(16), fun(Handle, _) ->
        Array = iommap_atomics:new(Handle, 0, 2, []),
        ok = iommap:truncate(Handle, 15),
        ?assertEqual([{ok, 0}, sigbus], [outcome(fun iommap_atomics:get/2, Array, Ix) || Ix <- [1, 2]])
    end).

lost_words_are_sigbus_and_work_again_test() ->
    %% Another process cuts the file: the words it has are there, the others are sigbus until it has grown back.
    Size = 4 * page(),
    with_mapping(zeros(Size), fun(Handle, Path) ->
        Array = iommap_atomics:new(Handle, 0, Size div 8, []),
        Last = Size div 8,
        [begin
            ok = iommap_atomics:put(Array, Last, 7),
            [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [page(), Path])),
            [?assertEqual({Name, sigbus}, {Name, outcome(Call, Array, Last)}) || {Name, Call} <- calls_at()],
            ?assertEqual(Round, iommap_atomics:add_get(Array, 1, 1)),
            [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Size, Path])),
            ?assertEqual(0, iommap_atomics:get(Array, Last))
        end || Round <- lists:seq(1, 3)]
    end).

words_of_a_faulted_mapping_are_sigbus_until_it_is_remapped_test() ->
    Size = 4 * page(),
    with_mapping(zeros(Size), fun(Handle, Path) ->
        Array = iommap_atomics:new(Handle, 0, Size div 8, []),
        {ok, View} = iommap:region_binary(Handle, 0, Size),
        [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [page(), Path])),
        _ = erlang:crc32(View),
        [?assertEqual({Name, sigbus}, {Name, outcome(Call, Array)}) || {Name, Call} <- calls()],
        {ok, _} = iommap:remap(Handle),
        ?assertEqual(1, iommap_atomics:add_get(Array, 1, 1))
    end).

processes_that_add_to_one_word_lose_none_test_() ->
    %% Through two handles, while others read, write beside it and resize.
    {timeout, 300, fun() ->
        Times = 20_000,
        with_mapping(zeros(page()), fun(Handle, Path) ->
            {ok, Other} = iommap:open(Path, read_write, []),
            Adders = [iommap_atomics:new(One, 0, 8, []) || One <- [Handle, Other, Handle, Other]],
            test_processes:during(
                [fun() -> ok = iommap:pwrite(Handle, 64, <<"beside">>) end,
                 fun() -> {ok, <<0:64>>} = iommap:pread(Other, 8, 8) end,
                 fun() -> ok = iommap:truncate(Handle, page() + rand:uniform(100_000)) end],
                fun() ->
                    test_processes:together([fun() -> [ok = iommap_atomics:add(Array, 1, 1) || _ <- lists:seq(1, Times)] end
                                             || Array <- Adders])
                end),
            ?assertEqual(4 * Times, iommap_atomics:get(hd(Adders), 1)),
            ok = iommap:close(Other)
        end)
    end}.

an_operation_on_a_page_in_memory_stays_on_its_scheduler_test_() ->
    %% The first update of a page may move; of those that follow at once, one in a hundred tries does not.
    {timeout, 300, fun() ->
        with_mapping(zeros(page()), fun(Handle, _) ->
            Array = iommap_atomics:new(Handle, 0, 8, []),
            Stays = fun(Operation) ->
                lists:any(fun(_) ->
                    ok = iommap_atomics:add(Array, 2, 1),
                    test_processes:stays(Operation)
                end, lists:seq(1, 100))
            end,
            ?assert(Stays(fun() -> iommap_atomics:add(Array, 1, 1) end)),
            ?assert(Stays(fun() -> iommap_atomics:get(Array, 2) end))
        end)
    end}.

the_shell_explains_exceptions_test() ->
    %% The argument that is wrong, and why; of a lost word, that no argument is.
    with_mapping(zeros(2 * page()), fun(Handle, Path) ->
        Array = iommap_atomics:new(Handle, 0, 2 * page() div 8, []),
        Unsigned = iommap_atomics:new(Handle, 0, 2, [{signed, false}]),
        Explained = fun(Function, Arguments) ->
            try apply(iommap_atomics, Function, Arguments), none
            catch error:Reason:Stack -> lists:sort(maps:keys(iommap_atomics:format_error(Reason, Stack)))
            end
        end,
        ?assertEqual([1], Explained(get, [x, 1])),
        ?assertEqual([2], Explained(get, [Array, 0])),
        ?assertEqual([2], Explained(add, [Unsigned, 3, x])),
        ?assertEqual([3], Explained(put, [Unsigned, 1, -1])),
        ?assertEqual([3], Explained(sub_get, [Array, 1, 1 bsl 64])),
        ?assertEqual([3, 4], Explained(compare_exchange, [Array, 1, x, 1 bsl 63])),
        ?assertEqual([1], Explained(new, [x, 0, 1, []])),
        ?assertEqual([1], Explained(new, [Handle, 4, 1, []])),
        ?assertEqual([1], Explained(new, [make_ref(), 0, 1, []])),
        ?assertEqual([2], Explained(new, [Handle, -8, 1, []])),
        ?assertEqual([3], Explained(new, [Handle, 0, 1 bsl 20, []])),
        ?assertEqual([4], Explained(new, [Handle, 0, 1, [x]])),
        ?assertEqual([3], Explained(new, [Handle, 0, 0, []])),
        ?assertEqual([3], Explained(add, [Array, 1, 1 bsl 64])),
        ?assertEqual([3], Explained(sub, [Array, 1, x])),
        {ok, Reader} = iommap:open(Path, read, []),
        ?assertEqual([1], Explained(put, [iommap_atomics:new(Reader, 0, 1, []), 1, 0])),
        [] = os:cmd(": > " ++ Path),
        ?assertEqual([general], Explained(get, [Array, 1])),
        ok = iommap:close(Handle),
        ?assertEqual([1], Explained(info, [Array]))
    end).

%% Every operation on a word, with arguments that leave a zero as it is.

calls() ->
    [{Name, fun(Array) -> Call(Array, 1) end} || {Name, Call} <- calls_at()].

calls_at() ->
    [{get, fun iommap_atomics:get/2}]
    ++ [{Name, fun(Array, Ix) -> iommap_atomics:Name(Array, Ix, 0) end}
        || Name <- [put, add, add_get, sub, sub_get, exchange, 'band', band_get, 'bor', bor_get, 'bxor', bxor_get]]
    ++ [{compare_exchange, fun(Array, Ix) -> iommap_atomics:compare_exchange(Array, Ix, 0, 0) end}].

outcome(Call, Array) ->
    try {ok, Call(Array)}
    catch error:Reason:Stack -> [{iommap_atomics, _, _, _} | _] = Stack, Reason
    end.

outcome(Call, Array, Ix) ->
    outcome(fun(One) -> Call(One, Ix) end, Array).
