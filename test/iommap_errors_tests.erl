%% Which error answers: every argument of every call in every wrong form, and every combination of them,
%% against the order of checks that the contract gives.
-module(iommap_errors_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_files, [with_file/2]).
-import(test_pattern, [bytes/1]).

-define(SIZE, 10).
-define(LARGEST, 16#FFFFFFFFFFFFFFFF).

%% The rows of the contract's table, in its order. The first that fits answers.
-define(ORDER, [raises, {error, badarg}, {error, einval}, {error, closed}, {error, eacces},
    {error, out_of_bounds}, {error, enoent}]).

%% The calls

pread_checks_in_order_test_() ->
    %% pread answers by the first row that fits, for every handle, offset and length.
    {timeout, 300, ?_test(reading_checks_in_order(fun iommap:pread/3))}.

region_binary_checks_in_order_test_() ->
    %% region_binary answers by the first row that fits, for every handle, offset and length.
    {timeout, 300, ?_test(reading_checks_in_order(fun iommap:region_binary/3))}.

with_view_checks_in_order_test_() ->
    %% with_view answers by the first row that fits, for every handle, offset and length.
    WithView = fun(Handle, Offset, Length) -> iommap:with_view(Handle, Offset, Length, fun erlang:byte_size/1) end,
    {timeout, 300, ?_test(reading_checks_in_order(WithView))}.

reading_checks_in_order(Read) ->
    with_handles(fun(Handles) ->
        assert_rows([{Read, [Handle, Offset, Length],
                [HandleRow, integer_row(Offset), integer_row(Length), may(read, HandleRow), range_row(Offset, Length)]}
            || {HandleRow, Handle} <- Handles, Offset <- integers(), Length <- integers()])
    end).

pwrite_checks_in_order_test_() ->
    %% pwrite answers by the first row that fits, for every handle, offset and data.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:pwrite/3, [Handle, Offset, Data],
                [HandleRow, integer_row(Offset), DataRow, may(write, HandleRow), range_row(Offset, Size)]}
            || {DataRow, Size, Data} <- data(), {HandleRow, Handle} <- Handles, Offset <- integers()])
    end))}.

pread_of_ranges_checks_in_order_test_() ->
    %% pread/2 answers by the first row that fits any element of its list, for every handle, offset and length.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:pread/2, [Handle, Ranges],
                [HandleRow, integer_row(Offset), integer_row(Length), may(read, HandleRow), range_row(Offset, Length)]}
            || {HandleRow, Handle} <- Handles, Offset <- integers(), Length <- integers(),
               Ranges <- among({Offset, Length}, {0, ?SIZE})]),
        assert_rows([{fun iommap:pread/2, [Handle, NoRanges], [raises]}
            || {_, Handle} <- Handles, NoRanges <- no_batches({0, 1})]),
        assert_rows([{fun iommap:pread/2, [Handle, Ranges], [Row, HandleRow, may(read, HandleRow)]}
            || {HandleRow, Handle} <- Handles, {Row, Ranges} <- [
                {ok, []},
                {{error, badarg}, [{-1, 0}, {?SIZE, 1}]},
                {{error, out_of_bounds}, [{?SIZE, 1}, {0, 1}]},
                {raises, [{-1, 0}, {0, atom}]}]])
    end))}.

pwrite_of_elements_checks_in_order_test_() ->
    %% pwrite/2 answers by the first row that fits any element, for every handle, offset and data. None was written.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun pwrite_nothing/2, [Handle, Writes],
                [HandleRow, integer_row(Offset), DataRow, may(write, HandleRow), range_row(Offset, Size)]}
            || {DataRow, Size, Data} <- data(), {HandleRow, Handle} <- Handles, Offset <- integers(),
               Writes <- among({Offset, Data}, {0, <<>>})]),
        assert_rows([{fun pwrite_nothing/2, [Handle, NoWrites], [raises]}
            || {_, Handle} <- Handles, NoWrites <- no_batches({0, <<>>})]),
        assert_rows([{fun pwrite_nothing/2, [Handle, Writes], [Row, HandleRow, may(write, HandleRow)]}
            || {HandleRow, Handle} <- Handles, {Row, Writes} <- [
                {ok, []},
                {{error, badarg}, [{-1, <<>>}, {?SIZE, <<1>>}]},
                {{error, out_of_bounds}, [{?SIZE, <<1>>}, {0, <<1>>}]},
                {raises, [{-1, <<>>}, {0, atom}]}]])
    end))}.

%% What it answers but for the number of elements that were written before an error, which is none.
pwrite_nothing(Handle, Writes) ->
    case iommap:pwrite(Handle, Writes) of
        {error, {0, Reason}} when Reason =/= badarg -> {error, Reason};
        {error, badarg} -> {error, badarg};
        ok -> ok
    end.

%% Lists that have the element, beside a good one.
among(Element, Good) ->
    [[Element], [Good, Element], [Element, Good]].

no_batches(Good) ->
    [atom, 1, <<>>, {}, #{}, Good, [Good | Good], [Good | atom], [Good, atom], [[Good]], [{}], [{0}], [{0, 1, 2}], [{0, 1, <<>>}],
     [Good, {atom, 1}], "list", [[]]].

advise_checks_in_order_test_() ->
    %% advise answers by the first row that fits, for every handle, offset, length and hint.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:advise/4, [Handle, Offset, Length, Hint],
                [HandleRow, integer_row(Offset), integer_row(Length), HintRow, range_row(Offset, Length)]}
            || {HandleRow, Handle} <- Handles, Offset <- integers(), Length <- integers(), {HintRow, Hint} <- hints()])
    end))}.

truncate_checks_in_order_test_() ->
    %% truncate answers by the first row that fits, for every handle and size.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:truncate/2, [Handle, Size],
                [HandleRow, integer_row(Size), size_row(Size), may(write, HandleRow)]}
            || {HandleRow, Handle} <- Handles, Size <- integers(),
               answer([HandleRow, integer_row(Size), may(write, HandleRow)]) =/= ok orelse Size =< ?SIZE])
    end))}.

ensure_size_checks_in_order_test_() ->
    %% ensure_size answers by the first row that fits, for every handle and size.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:ensure_size/2, [Handle, Size], [HandleRow, integer_row(Size), may(write, HandleRow)]}
            || {HandleRow, Handle} <- Handles, Size <- integers(),
               answer([HandleRow, integer_row(Size), may(write, HandleRow)]) =/= ok orelse Size =< ?SIZE])
    end))}.

sync_checks_in_order_test_() ->
    %% sync answers by the first row that fits, for every handle and mode.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{fun iommap:sync/2, [Handle, Mode], [HandleRow, ModeRow]}
            || {HandleRow, Handle} <- Handles, {ModeRow, Mode} <- sync_modes()])
    end))}.

calls_with_a_handle_only_check_it_test_() ->
    %% sync, position, remap, info and close raise for what is no handle and know a closed one.
    {timeout, 300, ?_test(with_handles(fun(Handles) ->
        assert_rows([{Call, [Handle], [HandleRow]}
            || Call <- [fun iommap:sync/1, fun iommap:position/1, fun iommap:remap/1, fun iommap:info/1,
                        fun iommap:close/1],
               {HandleRow, Handle} <- Handles])
    end))}.

intact_takes_binaries_test() ->
    %% intact raises for what is no binary, and is true for a binary that is no view.
    [?assertError(badarg, iommap:intact(Term)) || Term <- [atom, 1, 1.0, "list", {}, #{}, <<1:1>>, self(), make_ref()]],
    [?assertEqual(true, iommap:intact(Binary)) || Binary <- [<<>>, <<1>>, bytes(100_000)]].

open_checks_in_order_test() ->
    %% open answers by the first row that fits, for every path, mode and options.
    with_file(bytes(?SIZE), fun(File) ->
        assert_rows([{fun iommap:open/3, [Path, Mode, Options], [PathRow, ModeRow, OptionsRow, SystemRow]}
            || {PathRow, SystemRow, Path} <- paths(File), {ModeRow, Mode} <- modes(),
               {OptionsRow, Options} <- options(Mode)]),
        assert_rows([{fun iommap:open/2, [Path, Options], [PathRow, OptionsRow, SystemRow]}
            || {PathRow, SystemRow, Path} <- paths(File), {OptionsRow, Options} <- options(none)]),
        assert_rows([{fun iommap:open/3, [anonymous, Mode, Options], [ModeRow, OptionsRow, anonymous_row(Mode, Options)]}
            || {ModeRow, Mode} <- modes(), {OptionsRow, Options} <- options(Mode)]),
        ?assertEqual({ok, bytes(?SIZE)}, file:read_file(File)),
        ?assertEqual({ok, [filename:basename(File)]}, file:list_dir(filename:dirname(File)))
    end).

%% What the system says

every_errno_has_a_name_test() ->
    %% Each number that the C headers give a name to has one in the library: none comes out as unknown.
    case c_errnos() of
        [] -> ?debugMsg("skipped: the C headers are not installed");
        Names -> ?assertEqual([], Names -- library_errnos())
    end.

%% EOPNOTSUPP is the number that file:posix() calls enotsup.
c_errnos() ->
    Headers = filelib:wildcard("/usr/include/asm-generic/errno{,-base}.h"),
    [case Name of "EOPNOTSUPP" -> "ENOTSUP"; _ -> Name end || Header <- Headers,
        Name <- matches(Header, "^#define\\s+(E\\w+)\\s+\\d")].

library_errnos() ->
    Source = filename:join(test_system:root(), "native/iommap_nif/src/errno.rs"),
    [Names] = matches(Source, "target_os = \"linux\"\\)\\]\\s*names! {([^}]*)}"),
    string:lexemes(Names, " ;\n").

matches(Path, Pattern) ->
    {ok, Text} = file:read_file(Path),
    {match, Found} = re:run(Text, Pattern, [global, multiline, {capture, all_but_first, list}]),
    lists:append(Found).

%% What the shell says

open_says_which_argument_is_wrong_test() ->
    %% The exceptions of open carry error_info: the shell names the argument and the reason.
    [begin
         Explained = explanation(fun() -> apply(iommap, open, Arguments) end),
         ?assertEqual({Arguments, [Position]}, {Arguments, maps:keys(Explained)}),
         ?assertNotEqual(<<>>, iolist_to_binary(maps:get(Position, Explained)))
     end || {Position, Arguments} <- [
         {1, [<<"a", 0>>, []]},
         {1, ["a\0", []]},
         {1, [{fd, -1}, []]},
         {1, [{fd, atom}, read, []]},
         {2, ["a", [unknown]]},
         {2, ["a", not_a_list]},
         {1, [<<"a", 0>>, read, []]},
         {1, ["a\0", read, []]},
         {2, ["a", unknown, []]},
         {3, ["a", read, [unknown]]},
         {3, ["a", read, not_a_list]},
         {3, ["a", read, [shared | private]]},
         {3, ["a", read, [{size, large}]]},
         {3, ["a", read, [{size, ?LARGEST + 1}]]}
     ]].

calls_that_erlang_checks_say_which_argument_is_wrong_test() ->
    %% So do those of with_view and intact.
    with_file(bytes(?SIZE), fun(File) ->
        {ok, Handle} = iommap:open(File, read, []),
        Size = fun erlang:byte_size/1,
        [?assertMatch({Arguments, [{Position, _}]},
                      {Arguments, maps:to_list(explanation(fun() -> apply(iommap, Function, Arguments) end))})
            || {Position, Function, Arguments} <- [
                {4, with_view, [Handle, 0, 1, not_a_function]},
                {4, with_view, [Handle, -1, atom, fun() -> no_argument end]},
                {1, with_view, [not_a_handle, 0, 1, not_a_function]},
                {1, intact, [<<1:1>>]},
                {1, intact, ["list", 0, 1]}]],
        ?assertEqual({ok, 1}, iommap:with_view(Handle, 0, 1, Size))
    end).

read_file_checks_its_path_test() ->
    %% read_file answers for every path what open for reading does, and says in the shell what is wrong with it.
    with_file(bytes(?SIZE), fun(File) ->
        assert_rows([{fun iommap:read_file/1, [Path], [PathRow, SystemRow]} || {PathRow, SystemRow, Path} <- paths(File)])
    end),
    [?assertEqual({error, badarg}, iommap:read_file(Source)) || Source <- [anonymous, {fd, 0}]],
    ?assertMatch(#{1 := _}, explanation(fun() -> iommap:read_file(<<"a", 0>>) end)).

open_explains_itself_in_the_shell_test() ->
    %% The text that the shell prints for a wrong option names the argument.
    try iommap:open("a", read, [unknown]) of
        _ -> error(no_exception)
    catch
        error:badarg:Stack ->
            Text = lists:flatten(erl_error:format_exception(error, badarg, Stack)),
            ?assert(string:find(Text, "argument 3: unknown is not an option") =/= nomatch)
    end.

%% The reasons that an exception gives, by position of the argument.
explanation(Call) ->
    try Call() of
        _ -> error(no_exception)
    catch
        error:badarg:Stack ->
            [{Module, _, _, Info} | _] = Stack,
            ErrorInfo = proplists:get_value(error_info, Info, #{}),
            Formatter = maps:get(module, ErrorInfo, Module),
            Explained = apply(Formatter, maps:get(function, ErrorInfo, format_error), [badarg, Stack]),
            maps:filter(fun(Position, _Reason) -> is_integer(Position) end, Explained)
    end.

%% The table

assert_rows(Calls) ->
    ?assertEqual([], lists:foldl(fun assert_row/2, [], Calls)).

assert_row({Call, Arguments, Rows}, Wrong) ->
    case {answer(Rows), outcome(Call, Arguments)} of
        {Expected, Expected} -> Wrong;
        {Expected, Actual} -> [{Call, Arguments, {expected, Expected}, {actual, Actual}} | Wrong]
    end.

answer(Rows) ->
    hd([Row || Row <- ?ORDER, lists:member(Row, Rows)] ++ [ok]).

outcome(Call, Arguments) ->
    try apply(Call, Arguments) of
        {ok, _} -> ok;
        Answer -> Answer
    catch
        error:badarg -> raises
    end.

%% A handle is of one row by itself; {can, Calls} means that only these go through it.
with_handles(Test) ->
    with_file(bytes(?SIZE), fun(Path) ->
        Open = fun(Mode, Options) -> element(2, {ok, _} = iommap:open(Path, Mode, Options)) end,
        Closed = [Open(Mode, []) || Mode <- [read, write, read_write]],
        [ok = iommap:close(Handle) || Handle <- Closed],
        Test([{raises, NoHandle} || NoHandle <- no_handles()]
            ++ [{{error, closed}, Handle} || Handle <- Closed]
            ++ [{{can, Can}, Open(Mode, Options)} ||
                {Can, Mode} <- [{[read], read}, {[write], write}, {[read, write], read_write}],
                Options <- [[], [private]]])
    end).

may(Access, {can, Can}) ->
    case lists:member(Access, Can) of
        true -> ok;
        false -> {error, eacces}
    end;
may(_Access, _HandleRow) ->
    ok.

%% Memory without a name needs a size and to be written.
anonymous_row(read, _Options) -> {error, einval};
anonymous_row(_Mode, Options) when is_list(Options), length(Options) > 0 ->
    case lists:keymember(size, 1, Options) andalso not lists:member(private, Options) of
        true -> ok;
        false -> {error, einval}
    end;
anonymous_row(_Mode, _Options) -> {error, einval}.

integer_row(Integer) when not is_integer(Integer); Integer > ?LARGEST -> raises;
integer_row(Integer) when Integer < 0 -> {error, badarg};
integer_row(_Integer) -> ok.

range_row(Offset, Length) when is_integer(Offset), is_integer(Length), Offset + Length > ?SIZE -> {error, out_of_bounds};
range_row(_Offset, _Length) -> ok.

size_row(0) -> {error, einval};
size_row(_Size) -> ok.

%% The wrong forms

no_handles() ->
    FromAnotherNode = binary_to_term(<<131, 90, 3:16, 100, 3:16, "a@b", 1:32, 1:32, 2:32, 3:32>>),
    [not_a_handle, 1, -1, 1.0, <<"handle">>, "handle", [], {}, #{}, self(), fun no_handles/0, ?LARGEST + 1,
     make_ref(), FromAnotherNode, atomics:new(1, []), zlib:open(), ets:whereis(ets_table())].

ets_table() ->
    case ets:whereis(?MODULE) of
        undefined -> ets:new(?MODULE, [named_table]);
        _ -> ?MODULE
    end.

integers() ->
    [atom, 1.0, -1.0, <<1>>, "1", [], {}, #{}, self(), make_ref(), ?LARGEST + 1, ?LARGEST + 2, 1 bsl 65, 1 bsl 200,
     -1, -2, -(1 bsl 59), -(1 bsl 59) - 1, -(1 bsl 63), -(1 bsl 63) - 1, -?LARGEST, -?LARGEST - 1, -(1 bsl 200),
     0, 1, ?SIZE - 1, ?SIZE, ?SIZE + 1, 1 bsl 31, 1 bsl 32, 1 bsl 59, (1 bsl 63) - 1, 1 bsl 63, ?LARGEST - 1, ?LARGEST].

data() ->
    Refused = [
        atom, 1, 1.0, {}, #{}, self(), make_ref(), ?LARGEST + 1, fun data/0,
        <<1:1>>, <<1:9>>, [<<1:1>>], [256], [-1], [?LARGEST + 1], [atom], [1.0], [1 | 2], [1 | atom], [<<1>> | <<1:1>>],
        ["good" | 1], [[[["deep"], [256]]]], lists:duplicate(1000, <<"good">>) ++ [bad],
        lists:foldl(fun(_, Deep) -> [Deep] end, bad, lists:seq(1, 10_000))],
    Taken = [
        <<>>, [], <<"1">>, "1", [1 | <<2>>], bytes(?SIZE), bytes(?SIZE + 1), bytes(1000),
        lists:duplicate(1000, <<"good">>)],
    [{raises, none, Data} || Data <- Refused] ++ [{ok, iolist_size(Data), Data} || Data <- Taken].

hints() ->
    [{raises, Hint} || Hint <- [unknown, 'NORMAL', 1, <<"normal">>, "normal", {}, [normal]]]
        ++ [{ok, normal}, {ok, dontneed}].

sync_modes() ->
    [{{error, badarg}, Mode} || Mode <- [unknown, 'SYNC', 1, <<"sync">>, "sync", {}, [sync]]]
        ++ [{ok, sync}, {ok, async}].

paths(File) ->
    [{raises, ok, Path} || Path <- [<<0>>, [0], <<"a", 0>>, [$a, 0, $b], File ++ [0]]]
        ++ [{{error, badarg}, ok, Path} || Path <- [atom, 1, -1, 1.0, {}, #{}, self(), make_ref(), <<1:1>>, <<"a", 1:1>>,
               [-1], [16#110000], [16#D800], [?LARGEST + 1], [atom], [1.0], [$a | $b], [{}]]]
        ++ [{ok, {error, enoent}, File ++ "-missing"}, {ok, ok, File}, {ok, ok, list_to_binary(File)}].

modes() ->
    [{raises, Mode} || Mode <- [unknown, 'READ', shared, 1, <<"read">>, "read", {}, [], [read]]]
        ++ [{ok, read}, {ok, write}, {ok, read_write}].

options(read) ->
    Changing = [[create], [truncate], [create, {size, 1}], [shared, truncate]],
    options(none) ++ [{{error, einval}, Options} || Options <- Changing];
options(_Mode) ->
    [{raises, Options} || Options <- [
            atom, 1, <<>>, {}, #{}, self(), [unknown], ['SHARED'], [1], [<<"shared">>], ["shared"], [{}], [[shared]],
            [shared | private], [shared | shared], [{size}], [{size, 1, 2}], [{size, atom}], [{size, 1.0}],
            [{size, "1"}], [{size, ?LARGEST + 1}], [{size, 1 bsl 200}], [{shared, true}], [{create, true}],
            [{unknown, 1}], [size], [shared, unknown], [unknown, shared], [{size, -1}, unknown], [create, unknown],
            [{size, -1}], [{size, -(1 bsl 63)}], [{size, -(1 bsl 63) - 1}], [{size, -(1 bsl 200)}], [{size, -1}, {size, 1}],
            [readwrite], [{read, true}], [read, 'WRITE'],
            [permissions], [{permissions, -1}], [{permissions, 8#10000}], [{permissions, atom}], [{permissions, 6.0}],
            [{follow, true}], [offset], [{offset, -1}], [{offset, atom}], [{offset, 1.0}], [{offset, ?LARGEST + 1}],
            [length], [{length, -1}], [{length, none}], [{length, 1.0}], [{length, ?LARGEST + 1}],
            [reserve], [{reserve, -1}], [{reserve, atom}], [{reserve, 1.0}], [{reserve, ?LARGEST + 1}]]]
        ++ [{ok, Options} || Options <- [[], [shared], [private, populate], [{size, 1}], [{size, ?SIZE}],
            [read], [write], [shared, read_write, {size, 1}], [read, write], [{reserve, 0}], [{reserve, ?LARGEST}],
            [follow], [{permissions, 0}], [{permissions, 8#7777}],
            [{offset, 0}], [{offset, ?SIZE - 1}], [{length, 1}], [{length, ?LARGEST}]]].
