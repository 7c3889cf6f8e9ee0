%% Applies generated patterns (view_patterns.erl) to views, in a VM that may die of it: at the first and at the last bytes
%% of a view and of parts of it. Every answer is compared with what the same code says of the expected bytes.
-module(view_reader).

-export([apply_all/4]).
-export([last_applied/1]).
-export([is_guarded/1]).

-export_type([view_of/0, difference/0]).

%% A view of a file with such contents, and the bytes that the view must have.
-type view_of() :: fun((view_patterns:contents()) -> {View :: binary(), Expected :: binary()}).

%% A part of the view, the ends of it that are looked at, and the same part of the expected bytes.
-type part() :: {{Name :: atom(), [first | last_bytes | last_bits]}, bitstring(), Expected :: bitstring()}.

-type difference() :: {Pattern :: string(), Place :: tuple(), Expected :: term(), Answer :: term()}.

%% Longer ones are not read from front to back: not by so many patterns.
-define(SHORT, 5000).

%% Applies the patterns of the program from that one on (0 is the first), and gives the answers that are wrong. Before each,
%% the file Progress says which it is.
-spec apply_all(view_patterns:program(), non_neg_integer(), file:filename(), view_of()) -> [difference()].
apply_all(Program, From, Progress, ViewOf) ->
    {ok, File} = file:open(Progress, [write, raw]),
    Numbered = lists:zip(lists:seq(From, length(Program) - 1), lists:nthtail(From, Program)),
    {Differences, _} = lists:mapfoldl(
        fun({Number, {#{contents := Contents}, _} = Entry}, {Seen, SeenParts}) ->
            ok = file:pwrite(File, 0, <<Number:32>>),
            Parts = case Contents of
                Seen -> SeenParts;
                _ -> parts(ViewOf(Contents))
            end,
            {apply_one(Entry, Parts), {Contents, Parts}}
        end, {none, []}, Numbered),
    ok = file:close(File),
    lists:append(Differences).

%% The number of the pattern that was applied last.
-spec last_applied(file:filename()) -> non_neg_integer().
last_applied(Progress) ->
    {ok, <<Number:32>>} = file:read_file(Progress),
    Number.

-spec parts({View :: binary(), Expected :: binary()}) -> [part()].
parts({View, Expected}) ->
    Ends = [first, last_bytes, last_bits],
    Parts = fun(Binary) ->
        Length = min(100, byte_size(Binary)),
        <<_:3, Bits/bits>> = Binary,
        [Binary, binary:part(Binary, 0, Length), binary:part(Binary, byte_size(Binary), -Length), Bits]
    end,
    lists:zip3([{view, Ends}, {head, [first]}, {tail, Ends -- [first]}, {bits, Ends}], Parts(View), Parts(Expected)).

apply_one({#{text := Text, size := N} = Pattern, Function}, Parts) ->
    [{Text, {Name, byte_size(Bits), End}, Right, Answer}
     || {{Name, Ends}, Bits, Expected} <- Parts,
        End <- ends(Pattern, Bits, Ends),
        S <- [skipped(Pattern, Bits, End)],
        Answer <- [answer(Function, Bits, S, N)],
        Right <- [answer(Function, Expected, S, N)],
        Right =/= Answer].

ends(#{reads := field}, _, Ends) -> Ends;
ends(#{reads := rest}, Bits, Ends) when byte_size(Bits) =< ?SHORT -> Ends;
ends(#{reads := rest}, _, Ends) -> Ends -- [first];
ends(#{reads := whole}, Bits, _) when byte_size(Bits) =< ?SHORT -> [all];
ends(#{reads := whole}, _, _) -> [].

%% How much stands before what the pattern reads, if that ends in the last byte, or with the last bit.
skipped(#{bits := Needed}, Bits, last_bytes) -> max(0, 8 * (byte_size(Bits) - (Needed + 7) div 8));
skipped(#{bits := Needed}, Bits, last_bits) -> max(0, bit_size(Bits) - Needed);
skipped(_, _, _) -> 0.

answer({Module, Function}, Bits, S, N) ->
    try
        Module:Function(Bits, S, N)
    catch
        Class:Reason -> {Class, Reason}
    end.

%% Whether nobody can read before and behind the readable memory that a mapped file is in.
-spec is_guarded(file:filename()) -> boolean().
is_guarded(Path) ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    Ranges = [range(Line) || Line <- string:lexemes(binary_to_list(Maps), "\n")],
    Unreadable = [{From, To} || {From, To, [$- | _], _} <- Ranges],
    Areas = [{From, To} || {From, To, Names} <- readable_areas(Ranges), lists:member(Path, Names)],
    Areas =/= [] andalso
        lists:all(fun({From, To}) -> lists:keymember(From, 2, Unreadable) andalso lists:keymember(To, 1, Unreadable) end, Areas).

range(Line) ->
    [Addresses, Permissions, _Offset, _Device, _Inode | Name] = string:lexemes(Line, " "),
    [From, To] = [list_to_integer(Address, 16) || Address <- string:lexemes(Addresses, "-")],
    {From, To, Permissions, lists:flatten(lists:join(" ", Name))}.

%% Readable ranges that lie side by side are one area.
readable_areas(Ranges) ->
    lists:foldl(
        fun({From, To, [$r | _], Name}, [{First, From, Names} | Areas]) -> [{First, To, [Name | Names]} | Areas];
           ({From, To, [$r | _], Name}, Areas) -> [{From, To, [Name]} | Areas];
           (_, Areas) -> Areas
        end, [], Ranges).
