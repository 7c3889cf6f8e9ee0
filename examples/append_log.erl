%% A log of records that one VM appends to and any number of others follow, each record found by its number.
%%
%% Shows: appending with iommap:ensure_size/2 and pwrite/3, which makes the files longer a few times only; reading what
%% others append (the option `follow`); publishing with a word of iommap_atomics.
%%
%% FILE holds the records, one behind the other. FILE.index holds words of 64 bits: how many records there are, a 0, and the
%% end of each record in FILE. The order makes it safe: the record, then its end, then the number. Who has read the number
%% finds the rest. A writer that is killed leaves nothing half: what was not counted is overwritten.
%%
%% Does not: keep a second writer out (there must be one only), wake readers (they ask again every 10 ms), or outlive a crash
%% of the machine: pages reach the disk in any order, so for that call sync/1 and give each record a checksum.
%%
%%     export ERL_LIBS=_build/default/lib
%%     seq 1000 | escript examples/append_log.erl append FILE  # each line is a record
%%     escript examples/append_log.erl read FILE FIRST COUNT   # from number FIRST on; waits for what is not there yet
-module(append_log).
-mode(compile).

-export([main/1]).
-export([open_writer/1, append/2, close_writer/1]).
-export([open_reader/1, count/1, read/2]).

-define(COUNT, 1). % the first word of the index

main(["append", Path]) ->
    ok = io:setopts([binary, {encoding, latin1}]),
    close_writer(append_lines(open_writer(Path)));
main(["read", Path, First, Count]) ->
    ok = io:setopts([{encoding, latin1}]),
    Reader = wait_for(fun() -> open_reader(Path) end),
    From = list_to_integer(First),
    [io:put_chars([wait_for(fun() -> read(Reader, N) end), $\n]) || N <- lists:seq(From, From + list_to_integer(Count) - 1)];
main(_) ->
    io:format(standard_error, "usage: append_log.erl append FILE | read FILE FIRST COUNT~n", []),
    halt(2).

append_lines(Log) ->
    case io:get_line("") of
        eof -> Log;
        Line -> append_lines(append(Log, string:trim(Line, trailing, "\n")))
    end.

wait_for(Function) ->
    case Function() of
        {ok, Result} -> Result;
        {error, Reason} when Reason =:= enoent; Reason =:= not_yet -> timer:sleep(10), wait_for(Function)
    end.

%%% The writer

open_writer(Path) ->
    Options = [create, {size, 4096}, {reserve, 1 bsl 30}],
    {ok, Data} = iommap:open(Path, read_write, Options),
    {ok, Index} = iommap:open(index(Path), read_write, Options),
    Words = iommap_atomics:new(Index, 0, 1, [{signed, false}]),
    Count = iommap_atomics:get(Words, ?COUNT),
    {ok, <<End:64/native>>} = iommap:pread(Index, end_of(Count - 1), 8),
    #{data => Data, index => Index, words => Words, count => Count, 'end' => End}.

append(#{data := Data, index := Index, words := Words, count := Count, 'end' := Start} = Log, Record) ->
    End = Start + byte_size(Record),
    {ok, _} = iommap:ensure_size(Data, End),
    ok = iommap:pwrite(Data, Start, Record),
    {ok, _} = iommap:ensure_size(Index, end_of(Count + 1)),
    ok = iommap:pwrite(Index, end_of(Count), <<End:64/native>>),
    ok = iommap_atomics:put(Words, ?COUNT, Count + 1), % from here on readers see it
    Log#{count := Count + 1, 'end' := End}.

%% The files keep the room that they grew by: readers may have it mapped, so it is not cut off.
close_writer(#{data := Data, index := Index}) ->
    ok = iommap:sync(Data),
    ok = iommap:sync(Index),
    ok = iommap:close(Data),
    ok = iommap:close(Index).

%%% The readers

%% The writer makes the records' file first, so it is there where an index is.
open_reader(Path) ->
    case iommap:open(index(Path), read, [follow]) of
        {ok, Index} ->
            {ok, Data} = iommap:open(Path, read, [follow]),
            {ok, #{data => Data, index => Index, words => iommap_atomics:new(Index, 0, 1, [{signed, false}])}};
        Error ->
            Error
    end.

count(#{words := Words}) ->
    iommap_atomics:get(Words, ?COUNT).

read(#{data := Data, index := Index} = Reader, Number) ->
    case Number < count(Reader) of
        true ->
            {ok, <<Start:64/native, End:64/native>>} = iommap:pread(Index, end_of(Number - 1), 16),
            iommap:pread(Data, Start, End - Start);
        false ->
            {error, not_yet}
    end.

%%% The index

index(Path) ->
    Path ++ ".index".

%% Where the index tells the end of a record. "The record before the first" ends at 0.
end_of(Number) ->
    8 * (Number + 2).
