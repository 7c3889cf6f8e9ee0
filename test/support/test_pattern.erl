%% Bytes that tell where in a file they stand and are never zero: the same as c/external_writer.c writes.
-module(test_pattern).

-export([bytes/1]).
-export([bytes/2]).
-export([zeros/1]).
-export([page/0]).

%% The first bytes of such a file.
-spec bytes(non_neg_integer()) -> binary().
bytes(Length) ->
    bytes(0, Length).

-spec bytes(Offset :: non_neg_integer(), Length :: non_neg_integer()) -> binary().
bytes(Offset, Length) ->
    Whole = whole(Offset + Length),
    binary:part(Whole, Offset, Length).

whole(Size) ->
    case persistent_term:get(?MODULE, <<>>) of
        Known when byte_size(Known) >= Size ->
            Known;
        _ ->
            Rounded = (Size bsr 20 + 1) bsl 20,
            Whole = << <<(byte(Offset))>> || Offset <- lists:seq(0, Rounded - 1) >>,
            persistent_term:put(?MODULE, Whole),
            Whole
    end.

byte(Offset) ->
    (Offset bxor (Offset bsr 8) bxor (Offset bsr 16)) rem 255 + 1.

-spec zeros(non_neg_integer()) -> binary().
zeros(Size) ->
    <<0:Size/unit:8>>.

-spec page() -> pos_integer().
page() ->
    case persistent_term:get({?MODULE, page}, undefined) of
        undefined ->
            Page = list_to_integer(string:trim(os:cmd("getconf PAGESIZE"))),
            persistent_term:put({?MODULE, page}, Page),
            Page;
        Page ->
            Page
    end.
