%% Random changes of a mapped file, and which of them are there after a crash.
%%
%% The file consists of cells of 16 bytes, <<Cell:64, Stamp:64>>, or zeros. Each change has a stamp of its own, greater than all before,
%% so that the file tells which changes it has, whole or in part. Cell 0 is changed by iommap_atomics.
-module(durability).

-export([new/1, open/2, close/1]).
-export([choose/2, do/2]).
-export([sync/2]).
-export([after_change/3]).
-export([wrong/3, outcomes/2]).

-export_type([file/0, model/0, change/0, later/0]).

-type cell() :: non_neg_integer().
-type model() :: #{size := cell(), stamps := #{cell() => pos_integer()}}.
-type file() :: #{handle := iommap:handle(), word := iommap_atomics:atomics_ref(), stamp := non_neg_integer(), model := model()}.
-type span() :: {cell(), Count :: pos_integer()}.
-type change() :: {write | batch, [span()]} | word | {ensure_size | truncate | cut, cell()} | sync | {sync | async, span()}.
%% Changes that need not be there.
-type later() :: [{Stamp :: pos_integer(), change()}].

-define(CELL, 16).
-define(LEAST, 5_000).
-define(MOST, 40_000).

%% Makes a file of zeros.
-spec new(file:filename()) -> ok.
new(Path) ->
    {ok, Handle} = iommap:open(Path, read_write, [create, {size, ?LEAST * ?CELL}]),
    ok = iommap:sync(Handle),
    iommap:close(Handle).

%% Maps a file. What a crash has left of a cell that is neither old nor new becomes zeros.
-spec open(file:filename(), Stamp :: non_neg_integer()) -> file().
open(Path, Stamp) ->
    {ok, Bytes} = file:read_file(Path),
    {ok, Handle} = iommap:open(Path, read_write, []),
    Cells = [{Cell, stamp(Cell, Found)} || {Cell, Found} <- cells(Bytes)],
    [ok = iommap:pwrite(Handle, Cell * ?CELL, <<0:?CELL/unit:8>>) || {Cell, torn} <- Cells],
    #{handle => Handle, word => word(Handle), stamp => Stamp,
      model => #{size => length(Cells), stamps => maps:from_list([One || {_, Found} = One <- Cells, Found =/= torn, Found > 0])}}.

word(Handle) -> iommap_atomics:new(Handle, ?CELL div 2, 1, [{signed, false}]).

-spec close(file()) -> ok.
close(#{handle := Handle}) -> iommap:close(Handle).

%% ---- Changes ----------------------------------------------------------------------------------

%% Chooses the next change; some make the file shorter only if they may.
-spec choose(file(), MayCut :: boolean()) -> change().
choose(#{model := #{size := Size}}, MayCut) ->
    case rand:uniform(20) of
        1 when Size < ?MOST -> {ensure_size, Size + rand:uniform(2_000)};
        2 when Size < ?MOST -> {truncate, Size + rand:uniform(2_000)};
        3 when MayCut -> {cut, max(?LEAST, Size - rand:uniform(9_000))};
        4 -> sync;
        5 -> {sync, span(Size)};
        6 -> {async, span(Size)};
        7 -> word;
        Other when Other < 13 -> {batch, [span(Size) || _ <- lists:seq(1, 1 + rand:uniform(4))]};
        _ -> {write, [span(Size)]}
    end.

%% Of up to three pages, and now and then of up to all.
span(Size) ->
    Cell = rand:uniform(Size - 1),
    Most = case rand:uniform(8) of 1 -> Size; _ -> 600 end,
    {Cell, min(rand:uniform(Most), Size - Cell)}.

%% Does it; the call has to answer `ok'.
-spec do(change(), file()) -> file().
do(Change, #{handle := Handle, stamp := Stamp, model := Model} = File) ->
    ok = call(Change, File, Stamp + 1),
    {ok, Size} = iommap:position(Handle),
    File#{stamp := Stamp + 1, model := after_change(Change, Stamp + 1, Model#{size := Size div ?CELL})}.

%% Syncs all of it, or a range.
-spec sync(file(), whole | span()) -> ok.
sync(File, whole) -> call(sync, File, none);
sync(File, Span) -> call({sync, Span}, File, none).

call({write, [{Cell, _} = Span]}, #{handle := Handle}, Stamp) -> iommap:pwrite(Handle, Cell * ?CELL, bytes(Span, Stamp));
call({batch, Spans}, #{handle := Handle}, Stamp) ->
    iommap:pwrite(Handle, [{Cell * ?CELL, bytes(Span, Stamp)} || {Cell, _} = Span <- Spans]);
call(word, #{word := Word}, Stamp) -> iommap_atomics:put(Word, 1, Stamp);
call({ensure_size, Size}, #{handle := Handle}, _) -> element(1, iommap:ensure_size(Handle, Size * ?CELL));
call({_, Size}, #{handle := Handle}, _) when is_integer(Size) -> iommap:truncate(Handle, Size * ?CELL);
call(sync, #{handle := Handle}, _) -> iommap:sync(Handle);
call({Mode, {Cell, Count}}, #{handle := Handle}, _) -> iommap:sync(Handle, Cell * ?CELL, Count * ?CELL, Mode).

bytes({Cell, Count}, Stamp) ->
    << <<(cell(Each, Stamp))/binary>> || Each <- lists:seq(Cell, Cell + Count - 1) >>.

%% What the file holds after a change that was answered.
-spec after_change(change(), Stamp :: pos_integer(), model()) -> model().
after_change({cut, Size}, _, #{stamps := Stamps} = Model) ->
    Model#{size := Size, stamps := maps:filter(fun(Cell, _) -> Cell < Size end, Stamps)};
after_change({truncate, Size}, _, Model) ->
    Model#{size := Size};
after_change({ensure_size, Size}, _, #{size := Before} = Model) ->
    Model#{size := max(Size, Before)}; % or more
after_change(Change, Stamp, #{stamps := Stamps} = Model) ->
    Model#{stamps := lists:foldl(fun(Cell, All) -> All#{Cell => Stamp} end, Stamps, changed(Change))}.

changed(word) -> [0];
changed({Write, Spans}) when Write =:= write; Write =:= batch ->
    lists:append([lists:seq(Cell, Cell + Count - 1) || {Cell, Count} <- Spans]);
changed(_) -> [].

%% ---- After a crash ----------------------------------------------------------------------------

%% The cells of a range, or of the model's whole file, that are not what the model says, nor what later changes made of them, whole
%% or in part.
-spec wrong(file:filename(), {whole | span(), model()}, later()) -> [{cell(), Found :: binary() | none, Expected :: binary()}].
wrong(Path, {whole, #{size := Size} = Model}, Later) ->
    wrong(Path, {{0, lists:min([Size | [Cut || {_, {cut, Cut}} <- Later]])}, Model}, Later);
wrong(Path, {{First, Count}, #{stamps := Stamps}}, Later) ->
    {ok, Bytes} = file:read_file(Path),
    May = lists:foldl(fun({Cell, Stamp}, All) -> maps:update_with(Cell, fun(Some) -> [Stamp | Some] end, [Stamp], All) end, #{},
                      [{Cell, Stamp} || {Stamp, Change} <- Later, Cell <- changed(Change)]),
    Range = binary:part(Bytes, First * ?CELL, max(0, min(Count * ?CELL, byte_size(Bytes) - First * ?CELL))),
    [{byte_size(Bytes) div ?CELL, none, none} || byte_size(Range) < Count * ?CELL] ++
        [{Cell, Found, Expected} || {Index, Found} <- cells(Range), Cell <- [First + Index],
            Expected <- [cell(Cell, maps:get(Cell, Stamps, 0))],
            Found =/= Expected, not is_mix(Found, [Expected | [cell(Cell, Stamp) || Stamp <- maps:get(Cell, May, [])]])].

%% Every byte is one of those that stand there in the others.
is_mix(<<>>, _) -> true;
is_mix(<<Byte, Rest/binary>>, Others) ->
    lists:any(fun(<<Other, _/binary>>) -> Byte =:= Other end, Others)
        andalso is_mix(Rest, [Other || <<_, Other/binary>> <- Others]).

%% What became of later writes that no other one overwrote: they are there, or not, or in part: some of their pages, or part of a page.
-spec outcomes(file:filename(), later()) -> [there | missing | some_pages | part_of_a_page].
outcomes(Path, Later) ->
    {ok, Bytes} = file:read_file(Path),
    Last = maps:from_list([{Cell, Stamp} || {Stamp, Change} <- Later, Cell <- changed(Change)]),
    [outcome([{Cell * ?CELL div test_pattern:page(), stamp(Cell, Found) =:= Stamp}
              || Cell <- Cells, Found <- [cell_of(Bytes, Cell)]])
     || {Stamp, Change} <- Later, Cells <- [changed(Change)], Cells =/= [],
        lists:all(fun(Cell) -> maps:get(Cell, Last) =:= Stamp end, Cells)].

outcome(Cells) ->
    case {lists:usort([IsThere || {_, IsThere} <- Cells]), length(lists:usort(Cells)), length(lists:ukeysort(1, Cells))} of
        {[true], _, _} -> there;
        {[false], _, _} -> missing;
        {_, Pages, Pages} -> some_pages;
        _ -> part_of_a_page
    end.

%% ---- Cells ------------------------------------------------------------------------------------

cell(_, 0) -> <<0:?CELL/unit:8>>;
cell(Cell, Stamp) -> <<Cell:64/native, Stamp:64/native>>.

stamp(Cell, <<Cell:64/native, Stamp:64/native>>) -> Stamp;
stamp(_, <<0:?CELL/unit:8>>) -> 0;
stamp(_, _) -> torn.

cells(Bytes) ->
    Cells = [Cell || <<Cell:?CELL/binary>> <= Bytes],
    lists:zip(lists:seq(0, length(Cells) - 1), Cells).

cell_of(Bytes, Cell) when byte_size(Bytes) >= (Cell + 1) * ?CELL -> binary:part(Bytes, Cell * ?CELL, ?CELL);
cell_of(_, _) -> <<-1:?CELL/unit:8>>.
