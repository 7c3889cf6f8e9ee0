%% More than one range: pread/2 and pwrite/2. The oracle is a raw file, or a plain binary. (Which error answers is in
%% iommap_errors_tests; what is asked of a device at once, in the suite of hanging file systems.)
-module(iommap_batch_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, bytes/2, page/0, zeros/1]).

%% The limits of what a normal scheduler does, as guides/features.md has them.
-define(ELEMENTS, 512).
-define(READ, (1 bsl 20)).
-define(WRITTEN, 65_536).
-define(CELLS, 2048).

%% Reading

pread_gives_what_a_raw_file_gives_test_() ->
    %% Any ranges, in any order, that overlap or not, come as file:pread/2 gives them; an empty one is empty.
    {timeout, 300, fun() ->
        Size = 3 * page() + 100,
        with_mapping(bytes(Size), fun(Handle, Path) ->
            {ok, File} = file:open(Path, [read, raw, binary]),
            Edges = [0, 1, page() - 1, page(), page() + 1, Size - 1, Size],
            Ranges = [{Offset, Length} || Offset <- Edges, Length <- Edges, Offset + Length =< Size],
            [?assertEqual({ok, from_file(File, Batch)}, iommap:pread(Handle, Batch))
                || Batch <- [[], Ranges, lists:reverse(Ranges), Ranges ++ Ranges | [[Range] || Range <- Ranges]]]
        end)
    end}.

from_file(File, Ranges) ->
    {ok, Read} = file:pread(File, Ranges),
    [case Bytes of eof -> <<>>; _ -> Bytes end || Bytes <- Read].

binaries_of_a_batch_are_separate_test() ->
    %% None of the binaries keeps more alive than its own bytes, short or long, on whichever scheduler it was read.
    with_mapping(bytes(3_000_000), fun(Handle, _Path) ->
        [begin
             {ok, Read} = iommap:pread(Handle, [{N, Length} || N <- lists:seq(1, Count)]),
             Most = if Length > 64 -> Length; true -> 8 * Length end, % OTP 27 counts the bits of short ones
             ?assertEqual([], [Bytes || Bytes <- Read, binary:referenced_byte_size(Bytes) > Most]),
             ?assertEqual([bytes(N, Length) || N <- lists:seq(1, Count)], Read)
         end || {Count, Length} <- [{3, 8}, {3, 64}, {3, 65}, {3, 5000}, {3, 1_000_000}, {1000, 64}, {1000, 65}, {300, 5000}]]
    end).

ranges_of_a_window_count_from_it_test() ->
    %% A window that begins anywhere in its file is read and written from there.
    with_mapping(bytes(3 * page()), read_write, [{offset, page() + 7}, {length, page()}], fun(Handle, Path) ->
        Ranges = [{0, 10}, {page() - 10, 10}, {100, 0}],
        ?assertEqual({ok, [bytes(page() + 7 + Offset, Length) || {Offset, Length} <- Ranges]}, iommap:pread(Handle, Ranges)),
        ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, [{0, 10}, {page() - 10, 11}])),
        ok = iommap:pwrite(Handle, [{0, <<"first">>}, {page() - 4, <<"last">>}]),
        {ok, File} = file:read_file(Path),
        ?assertEqual([<<"first">>, <<"last">>], [binary:part(File, page() + 7, 5), binary:part(File, 2 * page() + 3, 4)])
    end).

pread_follows_what_others_append_test() ->
    %% With follow, a batch of which a range lies past the mapping, but not past the file, makes the mapping longer, and no other.
    [with_mapping(bytes(1000), Mode, [follow | Options], fun(Handle, Path) ->
         ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, [{1000, 1}, {0, 1}])),
         ok = file:write_file(Path, bytes(1000, 99_000), [append]),
         [?assertEqual({error, out_of_bounds}, iommap:pread(Handle, [{0, 1}, Past, {1500, 1}]))
             || Past <- [{100_000, 1}, {0, 100_001}, {100_001, 0}, {1 bsl 64 - 1, 1}, {1 bsl 63, 1 bsl 63}]],
         ?assertEqual({ok, 1000}, iommap:position(Handle)),
         ?assertEqual({ok, [bytes(10), bytes(99_990, 10), bytes(500, 1000)]},
                      iommap:pread(Handle, [{0, 10}, {99_990, 10}, {500, 1000}])),
         ?assertEqual({ok, 100_000}, iommap:position(Handle))
     end) || {Mode, Options} <- [{read, []}, {read_write, []}, {read_write, [private]}]].

pwrite_does_not_follow_test() ->
    %% A write past the mapping is out of bounds, whatever the file is by then.
    with_mapping(bytes(1000), read_write, [follow], fun(Handle, Path) ->
        ok = file:write_file(Path, bytes(1000, 1000), [append]),
        ?assertEqual({error, {0, out_of_bounds}}, iommap:pwrite(Handle, [{0, <<"a">>}, {1000, <<"a">>}])),
        ?assertEqual({ok, [bytes(1)]}, iommap:pread(Handle, [{0, 1}]))
    end).

%% Writing

pwrite_leaves_what_file_pwrite_leaves_test() ->
    %% The same list leaves the same bytes, in whatever form its data is; a later element wins where two overlap.
    Size = 2 * page(),
    Long = binary:copy(<<"long">>, page() div 4),
    [with_mapping(bytes(Size), fun(Handle, Path) ->
         with_file(bytes(Size), fun(Oracle) ->
             {ok, File} = file:open(Oracle, [read, write, raw, binary]),
             ?assertEqual(file:pwrite(File, Writes), iommap:pwrite(Handle, Writes)),
             ?assertEqual(file:read_file(Oracle), file:read_file(Path)),
             ?assertEqual({ok, [element(2, file:read_file(Oracle))]}, iommap:pread(Handle, [{0, Size}]))
         end)
     end) || Writes <- [
         [],
         [{0, <<>>}, {Size, []}],
         [{0, <<"first">>}, {Size - 4, <<"last">>}],
         [{10, <<"aaaa">>}, {12, <<"bbbb">>}, {11, <<"c">>}],
         [{page() - 3, Long}, {page() - 4, <<"across">>}, {0, Long}],
         [{0, "bytes"}, {100, [1, <<2>>, [3 | <<4>>], [[[]]] | <<5>>]}, {200, [<<>>, "x", <<>>]}],
         [{0, part_of_a_byte(<<"unaligned">>)}, {50, [part_of_a_byte(Long), part_of_a_byte(<<"both">>)]}],
         [{N, [N rem 256]} || N <- lists:seq(0, 2000)],
         [{N, [<<N:32>>, "and"]} || N <- lists:seq(0, 100, 3)]
     ]].

%% Those bytes, as a binary that begins inside a byte.
part_of_a_byte(Bytes) ->
    <<_:3, Part/binary>> = <<0:3, Bytes/binary>>,
    Part.

private_writes_stay_in_the_mapping_test() ->
    %% Through a private handle a batch is written and read back, and the file has what it had.
    with_mapping(bytes(3 * page()), read_write, [private], fun(Handle, Path) ->
        ok = iommap:pwrite(Handle, [{0, <<"first">>}, {2 * page(), <<"third">>}]),
        ?assertEqual({ok, [<<"first">>, <<"third">>, bytes(page(), 5)]},
                     iommap:pread(Handle, [{0, 5}, {2 * page(), 5}, {page(), 5}])),
        ?assertEqual({ok, bytes(3 * page())}, file:read_file(Path))
    end).

nothing_is_written_if_an_element_is_refused_test() ->
    %% All are checked first, the last element too: what is refused leaves the bytes as they were.
    with_mapping(bytes(1000), fun(Handle, Path) ->
        Parts = lists:foldl(fun(_, Twice) -> [Twice | Twice] end, <<"parts">>, lists:seq(1, 20)),
        [?assertEqual({error, {0, out_of_bounds}}, iommap:pwrite(Handle, [{0, <<"written">>}, Refused]))
            || Refused <- [{1000, <<"a">>}, {1001, <<>>}, {1 bsl 64 - 1, <<"a">>}, {990, bytes(11)}, {0, Parts}]],
        ?assertEqual({error, badarg}, iommap:pwrite(Handle, [{0, <<"written">>}, {-1, <<"a">>}])),
        [?assertError(badarg, iommap:pwrite(Handle, [{0, <<"written">>}, Malformed]))
            || Malformed <- [{0, bad}, {bad, <<>>}, bad, {0, [<<"deep">>, [bad]]}, {1 bsl 64, <<>>}]],
        ?assertEqual({ok, bytes(1000)}, file:read_file(Path))
    end).

pwrite_says_which_argument_is_wrong_test() ->
    %% The exception names the argument in the shell: what is not a handle, or the list.
    with_mapping(bytes(10), fun(Handle, _Path) ->
        [?assertMatch({Arguments, [Position]}, {Arguments, positions(Arguments)})
            || {Position, Arguments} <- [{1, [make_ref(), []]}, {1, [atom, [{0, <<>>}]]}, {2, [Handle, atom]}, {2, [Handle, [{0}]]},
                                         {2, [Handle, [{0, <<>>} | atom]]}, {2, [Handle, [{a, <<>>}]]}, {2, [Handle, [{0, a}]]}]]
    end).

positions(Arguments) ->
    try apply(iommap, pwrite, Arguments)
    catch error:badarg:Stack -> maps:keys(iommap_error:format_error(badarg, Stack))
    end.

%% Losses

a_lost_range_is_the_error_of_the_whole_batch_test() ->
    %% A page that the file lost is sigbus for a batch that has it, wherever it stands there; the others are read as before.
    with_mapping(bytes(10 * page()), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 2 * page()),
        There = [{0, 10}, {page(), page()}],
        Lost = {5 * page(), 1},
        [?assertEqual({error, sigbus}, iommap:pread(Handle, Ranges))
            || Ranges <- [[Lost], [Lost | There], There ++ [Lost], [{0, 1}, Lost, {0, 1}], [{page(), 2 * page()}]]],
        ?assertEqual({ok, [bytes(10), bytes(page(), page())]}, iommap:pread(Handle, There)),
        ok = file:write_file(Path, bytes(10 * page()), [read, write]),
        ?assertEqual({ok, [bytes(5 * page(), 1)]}, iommap:pread(Handle, [Lost]))
    end).

a_write_that_meets_a_lost_page_says_how_many_were_written_test() ->
    %% The elements before it are written whole, those after it are not.
    with_mapping(bytes(10 * page()), fun(Handle, Path) ->
        ok = test_system:truncate(Path, 2 * page()),
        Lost = {5 * page(), <<"lost">>},
        [begin
             Before = [{N, <<Tag>>} || N <- lists:seq(1, Count)],
             ?assertEqual({error, {Count, sigbus}}, iommap:pwrite(Handle, Before ++ [Lost, {page(), <<Tag>>}])),
             ?assertEqual({ok, [binary:copy(<<Tag>>, Count), bytes(page(), 1)]}, iommap:pread(Handle, [{1, Count}, {page(), 1}]))
         end || {Tag, Count} <- [{$a, 0}, {$b, 1}, {$c, 5}, {$d, 600}]]
    end).

a_faulted_mapping_is_sigbus_for_every_batch_test() ->
    %% Once zeros were put under it: also for a batch of nothing, until remap.
    with_mapping(bytes(4 * page()), fun(Handle, Path) ->
        {ok, View} = iommap:region_binary(Handle, 0, 4 * page()),
        ok = test_system:truncate(Path, page()),
        ?assertEqual(0, binary:last(View)),
        [?assertEqual({error, sigbus}, iommap:pread(Handle, Ranges)) || Ranges <- [[], [{0, 0}], [{0, 1}]]],
        [?assertEqual({error, {0, sigbus}}, iommap:pwrite(Handle, Writes)) || Writes <- [[], [{0, <<>>}], [{0, <<1>>}]]],
        {ok, _} = iommap:remap(Handle),
        ?assertEqual({ok, []}, iommap:pread(Handle, [])),
        ?assertEqual(ok, iommap:pwrite(Handle, []))
    end).

views_are_written_as_what_they_show_test() ->
    %% Data may be views, of this mapping and of others, alone or in a list, beside other data.
    with_mapping(bytes(2 * page()), fun(Source, _) ->
        {ok, View} = iommap:region_binary(Source, 0, 2 * page()),
        with_mapping(zeros(4 * page()), fun(Handle, _Path) ->
            ok = iommap:pwrite(Handle, [{0, <<"plain">>}, {10, binary:part(View, 10, 100)},
                                        {200, [<<"list">>, binary:part(View, 200, 100)]}, {page(), View}]),
            ?assertEqual({ok, [<<"plain">>, bytes(10, 100), <<"list", (bytes(200, 100))/binary>>, bytes(2 * page())]},
                         iommap:pread(Handle, [{0, 5}, {10, 100}, {200, 104}, {page(), 2 * page()}]))
        end)
    end).

a_lost_view_among_the_data_writes_nothing_test() ->
    %% No made-up zero is written, and nothing beside it; what is not permitted, or does not fit, is said first.
    with_mapping(bytes(4 * page()), fun(Source, SourcePath) ->
        {ok, View} = iommap:region_binary(Source, 0, 4 * page()),
        ok = test_system:truncate(SourcePath, page()),
        Lost = binary:part(View, 3 * page(), page()),
        with_file(bytes(4 * page()), fun(Path) ->
            {ok, Handle} = iommap:open(Path, read_write, []),
            {ok, Reader} = iommap:open(Path, read, []),
            [?assertEqual({error, {0, sigbus}}, iommap:pwrite(Handle, Writes))
                || Writes <- [[{0, Lost}], [{0, <<"a">>}, {9, Lost}], [{0, [<<"a">>, Lost]}, {page(), <<"a">>}],
                              [{0, part_of_a_byte(<<"a">>)}, {1, binary:part(View, 2 * page(), 100)}]]],
            ?assertEqual({error, {0, out_of_bounds}}, iommap:pwrite(Handle, [{0, Lost}, {4 * page(), <<"a">>}])),
            ?assertEqual({error, {0, eacces}}, iommap:pwrite(Reader, [{0, Lost}])),
            ok = iommap:close(Handle),
            ?assertEqual({error, {0, closed}}, iommap:pwrite(Handle, [{0, Lost}])),
            ?assertEqual({ok, bytes(4 * page())}, file:read_file(Path))
        end)
    end).

%% One lock

a_batch_is_read_as_it_was_written_test_() ->
    %% While batches are written, hot ones and ones that move to a dirty scheduler, a batch that is read has one of them whole.
    {timeout, 300, fun() ->
        Offsets = [N * 100 || N <- lists:seq(0, 99)],
        with_mapping(zeros(10_000), fun(Handle, _Path) ->
            Ranges = [{Offset, 8} || Offset <- Offsets],
            Read = fun() ->
                {ok, Words} = iommap:pread(Handle, Ranges),
                ?assertMatch([_], lists:usort(Words))
            end,
            ReadLong = fun() ->
                {ok, Words} = iommap:pread(Handle, lists:append(lists:duplicate(6, Ranges))),
                ?assertMatch([_], lists:usort(Words))
            end,
            test_processes:during([Read, Read, ReadLong], fun() ->
                [ok = iommap:pwrite(Handle, [{Offset, data(N)} || Offset <- Offsets]) || N <- lists:seq(1, 1000)]
            end),
            ?assertEqual({ok, [<<1000:64>> || _ <- Ranges]}, iommap:pread(Handle, Ranges))
        end)
    end}.

%% Every third is too long a list for a normal scheduler.
data(N) when N rem 3 =:= 0 -> [<<N:64>> | lists:duplicate(30, [])];
data(N) -> <<N:64>>.

%% Schedulers

what_is_short_stays_on_its_scheduler_test() ->
    %% A hot batch up to the limits of the guide finishes where it began; one beyond moves, and says the same.
    with_mapping(bytes(?READ + 1), fun(Handle, _Path) ->
        Read = fun(Ranges) -> {ok, _} = iommap:pread(Handle, Ranges) end,
        Write = fun(Writes) -> ok = iommap:pwrite(Handle, Writes) end,
        Bytes = fun(Count, Data) -> [{N, Data} || N <- lists:seq(1, Count)] end,
        Cells = fun(Count) -> lists:duplicate(Count, []) end,
        ?assertEqual([], [Call || {Call, Moves, Function, Argument} <- [
            {elements_read, 0, Read, Bytes(?ELEMENTS, 8)},
            {elements_read, 1, Read, Bytes(?ELEMENTS + 1, 8)},
            {bytes_read, 0, Read, [{0, ?READ div 2}, {0, ?READ div 2}]},
            {bytes_read, 1, Read, [{0, ?READ div 2}, {0, ?READ div 2 + 1}]},
            {elements_written, 0, Write, Bytes(?ELEMENTS, <<1>>)},
            {elements_written, 1, Write, Bytes(?ELEMENTS + 1, <<1>>)},
            {bytes_written, 0, Write, Bytes(2, bytes(?WRITTEN div 2))},
            {bytes_written, 1, Write, [{0, <<1>>} | Bytes(2, bytes(?WRITTEN div 2))]},
            {cells_written, 0, Write, Bytes(2, Cells(?CELLS div 2))},
            {cells_written, 1, Write, [{0, [<<1>>]} | Bytes(2, Cells(?CELLS div 2))]}
        ], Moves =/= moves(Function, Argument)])
    end).

%% How many calls moved because they are long: the second of two, the first of which has made the pages hot.
moves(Function, Argument) ->
    Function(Argument),
    #{moved_length := Before} = iommap:stats(),
    Function(Argument),
    #{moved_length := After} = iommap:stats(),
    After - Before.

a_long_list_is_a_batch_like_any_other_test_() ->
    %% A hundred thousand elements are read and written; an improper end raises, however far away, and a negative number after it
    %% does not matter.
    {timeout, 300, fun() ->
        Count = 100_000,
        with_mapping(zeros(8 * Count), fun(Handle, _Path) ->
            Numbers = lists:seq(0, Count - 1),
            ok = iommap:pwrite(Handle, [{8 * N, <<N:64>>} || N <- Numbers]),
            Ranges = [{8 * N, 8} || N <- Numbers],
            ?assertEqual({ok, [<<N:64>> || N <- Numbers]}, iommap:pread(Handle, Ranges)),
            [?assertError(badarg, iommap:pread(Handle, Wrong))
                || Wrong <- [Ranges ++ improper, [{-1, 0} | Ranges] ++ [{0, bad}], Ranges ++ [bad]]],
            ?assertEqual({error, badarg}, iommap:pread(Handle, Ranges ++ [{0, -1}])),
            ?assertEqual({error, out_of_bounds}, iommap:pread(Handle, Ranges ++ [{8 * Count, 1}])),
            ?assertEqual({error, {0, out_of_bounds}}, iommap:pwrite(Handle, [{0, <<1>>} || _ <- Numbers] ++ [{8 * Count, <<1>>}]))
        end)
    end}.

more_than_there_is_memory_for_is_enomem_test() ->
    %% The same bytes named again and again do not end the VM.
    with_file(<<1>>, fun(Path) ->
        ok = test_system:truncate(Path, 1 bsl 40),
        {ok, Handle} = iommap:open(Path, read, []),
        ?assertEqual({error, enomem}, iommap:pread(Handle, [{0, 1 bsl 40} || _ <- lists:seq(1, 10_000)])),
        ?assertEqual({ok, [<<1>>]}, iommap:pread(Handle, [{0, 1}]))
    end).
