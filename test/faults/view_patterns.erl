%% Generated matching code: every kind of field that the bit syntax has, at every bit offset, compiled for the VM that
%% runs. view_reader.erl applies it to views.
%%
%% A pattern is the body of a function of (B, S, N): B is what is matched, S the number of bits that are skipped first, so
%% that one function reads at both ends, and N the size of a field whose size only the caller knows. Its text is its name
%% in a report.
-module(view_patterns).

-export([families/0]).
-export([patterns/1]).
-export([sample/0]).
-export([compile/2]).
-export([contents/2]).

-export_type([pattern/0, program/0, contents/0]).

-type family() :: integers | integers_of_variable_size | fields | literals | floats | characters | binaries
                | comprehensions | skips | whole_binaries.

-type pattern() :: #{
    text := string(),
    %% How many bits it reads at most after what it skips.
    bits := non_neg_integer(),
    %% N.
    size := non_neg_integer(),
    contents := contents(),
    %% Of what it is not to skip: one field, the rest, or (it skips nothing) all of B.
    reads := field | rest | whole
}.

%% Patterns, each with the compiled function of it.
-type program() :: [{pattern(), {module(), Function :: atom()}}].

%% Of a file: random bytes, bytes that are no float, or one character again and again, so many bits into a byte.
-type contents() :: random | ones | {unicode:encoding(), char(), Offset :: 0..7}.

%% The first and the last so many bytes of large contents do not depend on their size.
-define(END, 128).

%% Functions in a module.
-define(CHUNK, 250).

-spec families() -> [family()].
families() ->
    [integers, integers_of_variable_size, fields, literals, floats, characters, binaries, comprehensions, skips,
     whole_binaries].

%% Some of every family.
-spec sample() -> [pattern()].
sample() ->
    [Pattern || Family <- families(), {Index, Pattern} <- lists:enumerate(patterns(Family)), Index rem 31 =:= 0].

%% ---- The families -----------------------------------------------------------------------------

-spec patterns(family()) -> [pattern()].
patterns(integers) ->
    [match([skip(Offset), integer(Size, Kind)], Offset + Size)
     || Size <- lists:seq(1, 128), Offset <- offsets(), Kind <- integers(["big", "little"])]
    %% The first field, as most code has it.
    ++ [match_at_the_start([skip(Offset), integer(Size, in_turn(Size + Offset, integers()))], Offset + Size)
        || Size <- lists:seq(1, 128), Offset <- offsets()];
patterns(integers_of_variable_size) ->
    [of_size(Size, match([skip(Offset), ["X:N/", in_turn(Size + Offset, integers())]], Offset + Size))
     || Size <- lists:seq(1, 128), Offset <- offsets()];
patterns(fields) ->
    %% The VM may read neighbouring fields by a common load.
    {Patterns, _} = lists:mapfoldl(fun(_, Seed) -> random_fields(Seed) end, rand:seed_s(exsss, 17), lists:seq(1, 400)),
    Patterns;
patterns(literals) ->
    Strings = [8 * Length || Length <- lists:seq(1, 40) ++ [63, 64, 65, 80, 100]],
    [literal(Kind, in_turn(Size div 8 + Offset, [first, last, neither]), Offset, Size)
     || {Kind, Sizes} <- [{string, Strings}, {number, lists:seq(1, 64)}], Size <- Sizes, Offset <- offsets()]
    ++ [choice(Length) || Length <- lists:seq(1, 8)];
patterns(floats) ->
    [of_contents(Contents, match([skip(Offset), ["X:", text(Size), "/float-", Endian]], Offset + Size))
     || Contents <- [random, ones], Size <- [16, 32, 64], Offset <- offsets(), Endian <- ["big", "little", "native"]];
patterns(characters) ->
    Characters = [{utf8, "utf8", [$a, 16#7ff, 16#20ac, 16#10ffff]},
                  {{utf16, big}, "utf16", [16#20ac, 16#10ffff]}, {{utf16, little}, "utf16-little", [16#20ac, 16#10ffff]},
                  {{utf32, big}, "utf32", [16#1f600]}, {{utf32, little}, "utf32-little", [16#1f600]}],
    Fields = [{{Encoding, Character, Offset}, [skip(Offset), [Variable, "/", Type]], Offset + bit_size(Encoded)}
              || {Encoding, Type, OfEncoding} <- Characters, Character <- OfEncoding,
                 Encoded <- [unicode:characters_to_binary([Character], unicode, Encoding)],
                 Offset <- offsets(), Variable <- ["X" || can_read(Type)] ++ ["_"]],
    [of_contents(Contents, match(Field, Bits)) || {Contents, Field, Bits} <- Fields]
    ++ [match(Field, Bits) || {_, Field, Bits} <- Fields];
patterns(binaries) ->
    Lengths = lists:seq(1, 20) ++ lists:seq(62, 68) ++ [100],
    Sizes = lists:seq(1, 90),
    [match([skip(Offset), ["X:", text(Length), "/binary"]], Offset + 8 * Length) || Length <- Lengths, Offset <- offsets()]
    ++ [of_size(Length, match([skip(Offset), "X:N/binary"], Offset + 8 * Length)) || Length <- Lengths, Offset <- offsets()]
    ++ [match([skip(Offset), ["X:", text(Size), "/bits"]], Offset + Size) || Size <- Sizes, Offset <- offsets()]
    ++ [of_size(Size, match([skip(Offset), "X:N/bits"], Offset + Size)) || Size <- Sizes, Offset <- offsets()]
    %% The tail.
    ++ [match_to_the_end([skip(Offset), "X/bits"], Offset + Size)
        || Size <- [0, 1, 7, 8, 9, 64, 511, 512, 513, 600], Offset <- offsets()]
    ++ [match_to_the_end([skip(8 * Before), "X/binary"], 8 * (Before + Length))
        || Before <- [0, 1, 2, 7], Length <- [0, 1, 8, 64, 65]];
patterns(comprehensions) ->
    Integers = [[skip(Offset), integer(Size, in_turn(Size + Offset, integers()))]
                || Size <- lists:seq(1, 64), Offset <- [0, 1 + Size rem 7]],
    Others = [[skip(Offset), Field]
              || Offset <- offsets(),
                 Field <- ["X:16/float", "X:32/float", "X:64/float-little", "X:3/binary", "X:70/binary", "X:5/bits", "_, X:7"]
                     ++ ["X/" ++ Type || Type <- ["utf8", "utf16", "utf32-little"], can_read(Type)]],
    [whole([Open, " || <<", list(Fields), ">> <= B", Close])
     || Fields <- Integers ++ Others, {Open, Close} <- [{"[X", "]"}, {"<< <<(erlang:phash2(X, 256))>>", " >>"}]];
patterns(skips) ->
    [match([skip(Size), "X:1"], Size + 1) || Size <- lists:seq(1, 130)]
    ++ [of_size(Size, match(["_:N", "X:1"], Size + 1)) || Size <- lists:seq(1, 130)]
    ++ [match([skip(Offset), ["_:", text(Length), "/binary"]], Offset + 8 * Length)
        || Length <- lists:seq(1, 20), Offset <- offsets()]
    ++ [of_size(Length, match([skip(Offset), "_:N/binary"], Offset + 8 * Length))
        || Length <- lists:seq(1, 20), Offset <- offsets()]
    ++ [match_to_the_end([skip(Offset), ["_:", text(Size)]], Offset + Size) || Size <- lists:seq(1, 70), Offset <- [0, 3]]
    ++ [match_to_the_end([skip(Offset), "_/bits"], Offset) || Offset <- offsets()];
patterns(whole_binaries) ->
    %% No patterns, but what else the VM may read a whole binary for: at any bit offset, all of it.
    [whole(["<<0:", text(Offset), ", B/bits, 1:1>>"]) || Offset <- offsets()]
    ++ [whole(Text) || Text <- [
        "<<B/bits, B/bits>>", "bitstring_to_list(B)", "list_to_bitstring([<<1:1>>, B])", "list_to_bitstring([B, 0])",
        "B =:= copy(B)", "B < copy(B)", "#{B => 1} =:= #{copy(B) => 1}", "erlang:phash2(B)", "term_to_binary(B)", "B",
        "binary:copy(B)", "erlang:crc32(B)", "erlang:adler32(B)", "erlang:md5(B)", "binary_to_list(B)",
        "iolist_to_binary([B, B])", "binary:match(B, [<<0, 0>>, <<255>>])", "binary:matches(B, <<255>>)",
        "binary:split(B, <<0>>, [global])", "binary:first(B)", "binary:last(B)", "binary:decode_unsigned(B)",
        "binary:decode_unsigned(B, little)", "binary:longest_common_prefix([B, copy(B)])",
        "binary:longest_common_suffix([B, copy(B)])", "unicode:characters_to_list(B, latin1)",
        "unicode:characters_to_list(B, utf8)", "binary_to_term(B)", "binary_to_integer(B)", "binary_to_float(B)",
        "binary_to_atom(B)", "re:run(B, <<\"[a-z]$\">>)", "base64:encode(B)", "erlang:decode_packet(line, B, [])",
        "binary:encode_hex(B)", "string:length(B)"]].

%% Up to seven fields of any kind after each other.
random_fields(Seed0) ->
    {Count, Seed} = rand:uniform_s(7, Seed0),
    random_fields(Count, [], 0, Seed).

random_fields(0, Fields, Bits, Seed) ->
    {match(lists:reverse(Fields), Bits), Seed};
random_fields(Count, Fields, Bits, Seed0) ->
    {Size, Seed1} = rand:uniform_s(72, Seed0),
    {Choice, Seed} = rand:uniform_s(6, Seed1),
    Name = ["X", text(Count)],
    {Field, Length} = case Choice of
        1 -> {skip(Size), Size};
        2 -> {[Name, ":", text(Size)], Size};
        3 -> {[Name, ":", text(Size), "/little"], Size};
        4 -> {[Name, ":", text(Size), "/signed"], Size};
        5 -> {[Name, ":", text(Size rem 9), "/binary"], 8 * (Size rem 9)};
        6 -> {[Name, ":", text(Size), "/bits"], Size}
    end,
    random_fields(Count - 1, [Field | Fields], Bits + Length, Seed).

%% What random contents have at that place, or what they have nowhere, for its last bit.
literal(Kind, Place, Offset, Size) ->
    Value = case Place of
        first -> value(ending(random, first, ?END), Offset, Size);
        last -> value(ending(random, last, bytes(Offset + Size)), Offset, Size);
        neither -> value(ending(random, first, ?END), Offset, Size) bxor 1
    end,
    Field = case Kind of
        string -> inside(<<Value:Size>>);
        number -> [text(Value), ":", text(Size)]
    end,
    match([skip(Offset), Field], Offset + Size).

value(Binary, Offset, Size) ->
    <<_:Offset, Value:Size, _/bits>> = Binary,
    Value.

%% Clauses for strings that differ in one bit, of which the last one fits.
choice(Length) ->
    <<Fits:Length/unit:8, _/binary>> = ending(random, first, ?END),
    Strings = [Fits bxor (1 bsl Bit) || Bit <- lists:seq(0, 8 * Length - 1)] ++ [Fits],
    Clauses = [["<<_:S/bits, ", inside(<<String:Length/unit:8>>), ", _/bits>> -> ", text(Index), "; "]
               || {Index, String} <- lists:enumerate(Strings)],
    pattern(["case B of ", Clauses, "_ -> nomatch end"], 8 * Length).

%% ---- Their parts ------------------------------------------------------------------------------

offsets() ->
    lists:seq(0, 7).

integers() ->
    integers(["big", "little", "native"]).

integers(Endians) ->
    [[Sign, "-", Endian] || Sign <- ["unsigned", "signed"], Endian <- Endians].

integer(Size, Kind) ->
    ["X:", text(Size), "/", Kind].

%% OTP 25 ends the VM when it reads in UTF-32, in any binary, what is no character.
can_read("utf32" ++ _) -> erlang:system_info(otp_release) > "25";
can_read(_) -> true.

skip(0) -> none;
skip(Size) -> ["_:", text(Size)].

match(Fields, Bits) ->
    match_fields(["_:S/bits" | Fields] ++ ["_/bits"], Bits).

match_at_the_start(Fields, Bits) ->
    match_fields(Fields ++ ["_/bits"], Bits).

match_to_the_end(Fields, Bits) ->
    (match_fields(["_:S/bits" | Fields], Bits))#{reads := rest}.

match_fields(Fields, Bits) ->
    Variables = [hd(string:lexemes(Field, ":/")) || "X" ++ _ = Field <- [lists:flatten([Field]) || Field <- Fields]],
    pattern(["case B of <<", list(Fields), ">> -> {", lists:join(", ", Variables), "}; _ -> nomatch end"], Bits).

whole(Text) ->
    (pattern(Text, 0))#{reads := whole}.

pattern(Text, Bits) ->
    #{text => lists:flatten(Text), bits => Bits, size => 0, contents => random, reads => field}.

of_size(Size, Pattern) ->
    Pattern#{size := Size}.

of_contents(Contents, Pattern) ->
    Pattern#{contents := Contents}.

list(Fields) ->
    lists:join(", ", [Field || Field <- Fields, Field =/= none]).

%% The bytes of a binary, as a pattern lists them.
inside(Binary) ->
    lists:join(",", [text(Byte) || <<Byte>> <= Binary]).

text(Number) ->
    integer_to_list(Number).

in_turn(Index, List) ->
    lists:nth(1 + Index rem length(List), List).

bytes(Bits) ->
    (Bits + 7) div 8.

%% ---- The functions ----------------------------------------------------------------------------

%% Compiles the patterns into modules of this name and a number, and gives these too.
-spec compile(atom(), [pattern()]) -> {program(), [{module(), Beam :: binary()}]}.
compile(Name, Patterns) ->
    Self = self(),
    Compilers = [spawn_link(fun() -> Self ! {self(), compile_module(Module, Chunk)} end)
                 || {Index, Chunk} <- lists:enumerate(chunks(Patterns)),
                    Module <- [list_to_atom(lists:concat([Name, "_", Index]))]],
    {Programs, Modules} = lists:unzip([receive {Compiler, Compiled} -> Compiled end || Compiler <- Compilers]),
    {lists:append(Programs), Modules}.

compile_module(Module, Patterns) ->
    Functions = [{Pattern, list_to_atom("pattern_" ++ text(Index))} || {Index, Pattern} <- lists:enumerate(Patterns)],
    Texts = [[atom_to_list(Function), "(B, S, N) -> ", Text, ".\n"] || {#{text := Text}, Function} <- Functions],
    Forms = [form(["-module(", atom_to_list(Module), ")."]), form("-compile(export_all)."),
             form("copy(B) -> list_to_bitstring([B]).") | [form(Text) || Text <- Texts]],
    {ok, Module, Beam} = compile:forms(Forms, [return_errors]),
    {[{Pattern, {Module, Function}} || {Pattern, Function} <- Functions], {Module, Beam}}.

form(Text) ->
    {ok, Tokens, _} = erl_scan:string(lists:flatten(Text)),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.

chunks(Patterns) when length(Patterns) > ?CHUNK ->
    {Chunk, Rest} = lists:split(?CHUNK, Patterns),
    [Chunk | chunks(Rest)];
chunks(Patterns) ->
    [Patterns].

%% ---- What they read ---------------------------------------------------------------------------

%% So many bytes of such contents.
-spec contents(contents(), pos_integer()) -> binary().
contents(Contents, Size) ->
    Last = min(Size div 2, ?END),
    First = min(Size - Last, 65536),
    <<(ending(Contents, first, First))/binary, 0:(Size - First - Last)/unit:8, (ending(Contents, last, Last))/binary>>.

ending(random, Place, Size) ->
    {Bytes, _} = rand:bytes_s(max(Size, ?END), rand:seed_s(exsss, maps:get(Place, #{first => 1, last => 2}))),
    cut(Place, Bytes, Size);
ending(ones, _, Size) ->
    binary:copy(<<255>>, Size);
ending({Encoding, Character, Offset}, Place, Size) ->
    Encoded = unicode:characters_to_binary([Character], unicode, Encoding),
    Characters = binary:copy(Encoded, 1 + Size div byte_size(Encoded)),
    cut(Place, <<0:Offset, Characters/binary, 0:((8 - Offset) rem 8)>>, Size).

cut(first, Bytes, Size) -> binary:part(Bytes, 0, Size);
cut(last, Bytes, Size) -> binary:part(Bytes, byte_size(Bytes), -Size).
