%% The files that are measured. Every line of 64 bytes begins with its own offset, so that the right answer of any
%% read at a multiple of 64 is known without reading.
-module(bench_file).

-export([make/2, contents/2, evict/1, resident/1]).

-define(LINE_SIZE, 64).
-define(CHUNK, (1 bsl 20)).
-define(FILLER, "the rest of a line of sixty-four bytes, always the same.").

-spec make(file:filename(), pos_integer()) -> ok.
make(Path, Size) when Size rem ?CHUNK =:= 0 ->
    {ok, File} = file:open(Path, [write, raw, binary]),
    [ok = file:write(File, contents(Offset, ?CHUNK)) || Offset <- lists:seq(0, Size - 1, ?CHUNK)],
    ok = file:sync(File),
    ok = file:close(File).

-spec contents(non_neg_integer(), pos_integer()) -> binary().
contents(Offset, Length) when Offset rem ?LINE_SIZE =:= 0 ->
    Lines = << <<Start:64, ?FILLER>> || Start <- lists:seq(Offset, Offset + Length - 1, ?LINE_SIZE) >>,
    binary:part(Lines, 0, Length).

%% Takes the file out of the page cache; what is mapped or dirty stays.
-spec evict(file:filename()) -> ok.
evict(Path) ->
    "" = os:cmd("dd of='" ++ Path ++ "' oflag=nocache conv=notrunc,fdatasync count=0 status=none"),
    ok.

%% The bytes of the file that are in the page cache.
-spec resident(file:filename()) -> non_neg_integer().
resident(Path) ->
    list_to_integer(string:trim(os:cmd("fincore --bytes --noheadings --output RES '" ++ Path ++ "'"))).
