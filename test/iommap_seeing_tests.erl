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
