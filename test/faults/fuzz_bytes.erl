%% Bytes of which not all is known: a few binaries of one length, any of which may be right at each byte.
-module(fuzz_bytes).

-export([size/1]).
-export([part/3]).
-export([sized/2]).
-export([append/2]).
-export([put/3]).
-export([zeros_from/2]).
-export([also/2]).
-export([first_wrong/2]).

-export_type([bytes/0]).

-type bytes() :: [binary(), ...].

-spec size(bytes()) -> non_neg_integer().
size([One | _]) ->
    byte_size(One).

-spec part(bytes(), non_neg_integer(), non_neg_integer()) -> bytes().
part(Bytes, Offset, Length) ->
    lists:usort([binary:part(One, Offset, Length) || One <- Bytes]).

%% Cut, or continued with zeros.
-spec sized(bytes(), non_neg_integer()) -> bytes().
sized(Bytes, Size) ->
    case fuzz_bytes:size(Bytes) of
        Now when Size =< Now -> part(Bytes, 0, Size);
        Now -> append(Bytes, [test_pattern:zeros(Size - Now)])
    end.

-spec append(bytes(), bytes()) -> bytes().
append(First, Second) ->
    pairs(fun(One, Other) -> <<One/binary, Other/binary>> end, First, Second).

%% Others in the place of some.
-spec put(bytes(), Offset :: non_neg_integer(), bytes()) -> bytes().
put(Bytes, Offset, Others) ->
    pairs(fun(One, Other) ->
        After = Offset + byte_size(Other),
        <<(binary:part(One, 0, Offset))/binary, Other/binary,
          (binary:part(One, After, byte_size(One) - After))/binary>>
    end, Bytes, Others).

%% Each of the first and each of the second in some pair: bytes are known or unknown one by one.
pairs(Combine, First, Second) ->
    Count = max(length(First), length(Second)),
    lists:usort([Combine(nth(N, First), nth(N, Second)) || N <- lists:seq(1, Count)]).

nth(N, List) -> lists:nth(min(N, length(List)), List).

-spec zeros_from(bytes(), non_neg_integer() | infinity) -> bytes().
zeros_from(Bytes, From) ->
    case fuzz_bytes:size(Bytes) of
        Size when From >= Size -> Bytes;
        Size -> sized(part(Bytes, 0, From), Size)
    end.

%% These, or those.
-spec also(bytes(), bytes()) -> bytes().
also(Bytes, Others) ->
    lists:usort(Bytes ++ Others).

%% Where a binary is none of them.
-spec first_wrong(binary(), bytes()) -> none | {length, non_neg_integer()} | non_neg_integer().
first_wrong(Binary, Bytes) ->
    case fuzz_bytes:size(Bytes) of
        Size when Size =:= byte_size(Binary) ->
            case lists:member(Binary, Bytes) of
                true -> none;
                false -> first_wrong(Binary, Bytes, lists:min([prefix(Binary, One) || One <- Bytes]))
            end;
        Size ->
            {length, Size}
    end.

prefix(Binary, Other) -> binary:longest_common_prefix([Binary, Other]).

first_wrong(Binary, _, At) when At >= byte_size(Binary) ->
    none;
first_wrong(Binary, Bytes, At) ->
    case lists:any(fun(One) -> binary:at(One, At) =:= binary:at(Binary, At) end, Bytes) of
        true -> first_wrong(Binary, Bytes, At + 1);
        false -> At
    end.
