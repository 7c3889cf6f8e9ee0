%% What calls of several processes on several handles answer, one after another: the contract as a function of few, simple states. The
%% tests of calls at the same time ask it whether there is an order in which all answers are right.
%%
%% - `memory' has no name, and no other handle. It never gets shorter; views of it stay.
%% - `file' has one handle. Another OS process writes one byte far behind, and so makes the file longer.
%%   A call on either of these takes effect at once, however many bytes it moves.
%% - `words' is a file of which the first word of each page counts, as single words alone are written at once by anybody. It has several
%%   handles; another OS process writes to it, cuts it and makes it longer, whole pages at a time.
-module(call_model).

-export([new/0]).
-export([call/2]).
-export([is_disturbed/3]).
-export([file_size/0, words/0, far/0, page/0]).

-export_type([call/0, state/0, handle/0, opener/0]).

-type whole() :: memory | file.
-type part() :: main | window | follower | private.
-type handle() :: whole() | part().
-type opener() :: {open, handle()}.
-type range() :: {Offset :: integer(), Length :: non_neg_integer()}.

-type call() ::
    opener()
    | {close | position | info | remap, handle()}
    | {pread, whole(), [range()] | range()}
    | {pwrite, whole(), [{non_neg_integer(), binary()}] | {non_neg_integer(), binary()}}
    | {truncate | ensure_size, whole(), pos_integer()}
    | {sync, whole(), sync | async}
    | {sync | advise, whole(), range(), atom()}
    | {resident | lock | unlock, whole(), range()}
    | {sync | advise, part(), Page :: non_neg_integer(), atom()}
    | {view, Name :: 1..2, range()}
    | {look, Name :: 1..2, Part :: 0..999}
    | {forget, Name :: 1..2}
    | {with_view, range()}
    | {get, part(), Page :: non_neg_integer()}
    | {put, part(), Page :: non_neg_integer(), word()}
    | {atomic, main | window, Page :: non_neg_integer(), {atom(), [word()]}}
    | {cut, Pages :: pos_integer()}
    | {another, far, byte()}
    | {another, pages, pos_integer()}
    | {another, add, pos_integer()}
    | {another, low, byte()}
    | reload
    | list.

-type word() :: 0..16#FFFFFFFFFFFFFFFF.

-record(part, {
    %% Where it begins, and how many pages it may have.
    first = 0 :: non_neg_integer(),
    limit = infinity :: pos_integer() | infinity,
    pages :: pos_integer(),
    %% The words of the pages that it has of its own.
    own = #{} :: #{non_neg_integer() => word()}
}).

-record(state, {
    objects :: #{file | {memory, pos_integer()} => binary()},
    %% How long the mapping is, of what.
    wholes :: #{whole() => {file | {memory, pos_integer()}, pos_integer()} | closed},
    %% Which pages of it are locked.
    locked = #{memory => [], file => []} :: #{whole() => ordsets:ordset(non_neg_integer())},
    words :: [word()],
    parts :: #{part() => #part{} | closed},
    views = #{} :: #{1..2 => {{memory, pos_integer()}, range()}}
}).

-opaque state() :: #state{}.

%% All handles are open, and all files as they were made.
-spec new() -> state().
new() ->
    Empty = #state{objects = #{file => test_pattern:bytes(file_size())}, wholes = #{memory => closed, file => closed},
                   words = words(), parts = #{main => closed, window => closed, follower => closed, private => closed}},
    lists:foldl(fun(Handle, State) -> {ok, Next} = call({open, Handle}, State), Next end, Empty,
                [memory, file, main, window, follower, private]).

%% How long `file' and new `memory' are.
-spec file_size() -> pos_integer().
file_size() -> 2 * page() + 100.

%% What `words' holds at first.
-spec words() -> [word()].
words() -> [1, 2, 3, 4].

%% Where another process writes to `file'.
-spec far() -> pos_integer().
far() -> 5 * page().

-spec page() -> pos_integer().
page() -> test_pattern:page().

%% The answer, and what is so after it.
-spec call(call(), state()) -> {term(), state()}.
call({open, memory}, #state{objects = Objects, wholes = #{memory := closed} = Wholes} = State) ->
    Memory = {memory, map_size(Objects)},
    {ok, State#state{objects = Objects#{Memory => test_pattern:zeros(file_size())}, wholes = Wholes#{memory := {Memory, file_size()}}}};
call({open, file}, #state{objects = #{file := Bytes}, wholes = #{file := closed} = Wholes} = State) ->
    {ok, State#state{wholes = Wholes#{file := {file, byte_size(Bytes)}}}};
call({open, Whole}, State) when Whole =:= memory; Whole =:= file ->
    {open_already, State};
call({open, Part}, #state{parts = Parts} = State) ->
    case Parts of
        #{Part := closed} -> open_part(Part, State);
        _ -> {open_already, State}
    end;
call({close, Handle}, #state{wholes = Wholes, parts = Parts} = State) ->
    case maps:merge(Wholes, Parts) of
        #{Handle := closed} -> {{error, closed}, State};
        _ when is_map_key(Handle, Wholes) -> {ok, locked(Handle, [], State#state{wholes = Wholes#{Handle := closed}})};
        _ -> {ok, State#state{parts = Parts#{Handle := closed}}}
    end;
call({info, Whole}, #state{locked = Locked} = State) when Whole =:= memory; Whole =:= file ->
    on_whole(Whole, State, fun(_, _, Size) -> {{ok, {Size, maps:get(Whole, Locked) =:= pages_of({0, Size})}}, State} end);
call({Verb, Handle}, State) when Verb =:= position; Verb =:= info ->
    {size(Handle, State), State};
call({remap, Whole}, State) when Whole =:= memory; Whole =:= file ->
    on_whole(Whole, State, fun(Object, Bytes, _) -> {{ok, byte_size(Bytes)}, resized(Whole, Object, byte_size(Bytes), State)} end);
call({remap, Part}, State) ->
    on_part(Part, State, fun(Mapping) ->
        case shown(Mapping, State) of
            none -> {{error, einval}, State};
            Pages -> {{ok, Pages * page()}, set_part(Part, Mapping#part{pages = Pages}, State)}
        end
    end);
call({pread, Whole, Ranges}, State) ->
    on_ranges(Whole, Ranges, State, fun(_, Bytes) ->
        Read = [binary:part(Bytes, Offset, Length) || {Offset, Length} <- listed(Ranges)],
        {{ok, if is_list(Ranges) -> Read; true -> hd(Read) end}, State}
    end);
call({pwrite, Whole, Writes}, State) ->
    Ranges = [{Offset, byte_size(Data)} || {Offset, Data} <- listed(Writes)],
    Written = fun(Object, Bytes) -> {ok, set(Object, lists:foldl(fun write/2, Bytes, listed(Writes)), State)} end,
    case on_ranges(Whole, Ranges, State, Written) of
        {{error, Reason}, Same} when is_list(Writes), Reason =/= badarg -> {{error, {0, Reason}}, Same};
        Answer -> Answer
    end;
call({truncate, Whole, Size}, State) ->
    on_whole(Whole, State, fun
        (_, Bytes, _) when Whole =:= memory, Size < byte_size(Bytes) -> {{error, eperm}, State};
        (Object, Bytes, _) -> {ok, resized(Whole, Object, Size, set(Object, sized(Bytes, Size), State))}
    end);
call({ensure_size, Whole, Least}, State) ->
    on_whole(Whole, State, fun
        (_, _, Size) when Size >= Least ->
            {{ok, Size}, State};
        (Object, Bytes, Before) ->
            Size = lists:max([Least, byte_size(Bytes), Before + Before div 2]),
            {{ok, Size}, resized(Whole, Object, Size, set(Object, sized(Bytes, Size), State))}
    end);
call({sync, Whole, _}, State) ->
    on_whole(Whole, State, fun(_, _, _) -> {ok, State} end);
call({Verb, Whole, Range, _}, State) when Verb =:= sync, is_tuple(Range); Verb =:= advise, is_tuple(Range) ->
    on_ranges(Whole, Range, State, fun(_, _) -> {ok, State} end);
call({Verb, Part, Page, _}, State) when Verb =:= sync; Verb =:= advise ->
    case word(Part, Page, State) of
        {ok, _} -> {ok, State};
        {error, sigbus} when Verb =:= advise; Part =:= follower; Part =:= private -> {ok, State}; % nothing to write
        Error -> {Error, State}
    end;
call({Verb, Whole, Range}, #state{locked = Locked} = State) when Verb =:= resident; Verb =:= lock; Verb =:= unlock ->
    on_ranges(Whole, Range, State, fun(_, _) ->
        #{Whole := Before} = Locked,
        {ok, case Verb of
            resident -> State;
            lock -> locked(Whole, ordsets:union(Before, pages_of(Range)), State);
            unlock -> locked(Whole, ordsets:subtract(Before, pages_of(Range)), State)
        end}
    end);
call({view, Name, Range}, #state{views = Views} = State) ->
    on_ranges(memory, Range, State, fun(Object, _) -> {ok, State#state{views = Views#{Name => {Object, Range}}}} end);
call({look, Name, Part}, #state{views = Views, objects = Objects} = State) ->
    case Views of
        #{Name := {_, {_, 0}}} -> {{empty, true}, State};
        #{Name := {Object, {Offset, Length}}} -> {{binary:at(maps:get(Object, Objects), Offset + Length * Part div 1000), true}, State};
        _ -> {none, State}
    end;
call({forget, Name}, #state{views = Views} = State) ->
    {ok, State#state{views = maps:remove(Name, Views)}};
call({with_view, {Offset, Length} = Range}, State) ->
    on_ranges(memory, Range, State, fun(_, Bytes) -> {{ok, if Length =:= 0 -> empty; true -> binary:at(Bytes, Offset) end}, State} end);
call({get, Part, Page}, State) ->
    {Word, Next} = followed(Part, Page, State),
    {case Word of {ok, Value} -> {ok, <<Value:64/native>>}; Error -> Error end, Next};
call({put, follower, _, _}, State) ->
    on_part(follower, State, fun(_) -> {{error, eacces}, State} end);
call({put, Part, Page, Word}, State) ->
    case word(Part, Page, State) of
        {ok, _} -> {ok, set_word(Part, Page, Word, State)};
        Error -> {Error, State}
    end;
call({atomic, Part, Page, {Function, Values}}, State) ->
    case word(Part, Page, State) of
        {ok, Old} ->
            {Answer, New} = atomic(Function, Old, Values),
            {{ok, Answer}, set_word(Part, Page, New band 16#FFFFFFFFFFFFFFFF, State)};
        _ ->
            {error, State}
    end;
call({cut, Pages}, State) ->
    on_part(main, State, fun(Mapping) -> {ok, set_part(main, Mapping#part{pages = Pages}, with_pages(Pages, State))} end);
call({another, far, Byte}, #state{objects = #{file := Bytes}} = State) ->
    {ok, set(file, write({far(), <<Byte>>}, sized(Bytes, max(byte_size(Bytes), far() + 1))), State)};
call({another, pages, Pages}, State) ->
    {ok, with_pages(Pages, State)};
call({another, add, Times}, #state{words = [Word | Rest]} = State) ->
    {ok, State#state{words = [(Word + Times) band 16#FFFFFFFFFFFFFFFF | Rest]}};
call({another, low, Byte}, #state{words = [Word | Rest]} = State) ->
    <<_, High/binary>> = <<Word:64/native>>,
    <<Now:64/native>> = <<Byte, High/binary>>,
    {ok, State#state{words = [Now | Rest]}};
call(Whatever, State) when Whatever =:= reload; Whatever =:= list ->
    {ok, State}.

%% Whether the call may answer so, and leave the same, where another comes between its steps: a read of a mapping that follows its
%% file makes it longer first, and then reads what may be gone again.
-spec is_disturbed(call(), term(), state()) -> boolean().
is_disturbed({get, follower, Page}, {error, Reason}, #state{words = Words} = State) ->
    {error, out_of_bounds} =:= word(follower, Page, State) andalso Page < length(Words)
        andalso lists:member(Reason, [sigbus, out_of_bounds, closed]);
is_disturbed(_, _, _) ->
    false.

%% ---- Memory and a file, of any bytes ----------------------------------------------------------

on_whole(Whole, #state{wholes = Wholes, objects = Objects} = State, Answer) ->
    case Wholes of
        #{Whole := closed} -> {{error, closed}, State};
        #{Whole := {Object, Size}} -> Answer(Object, maps:get(Object, Objects), Size)
    end.

on_ranges(Whole, Ranges, State, Answer) ->
    case [Offset || {Offset, _} <- listed(Ranges), Offset < 0] of
        [] -> on_natural_ranges(Whole, Ranges, State, Answer);
        _ -> {{error, badarg}, State}
    end.

on_natural_ranges(Whole, Ranges, State, Answer) ->
    on_whole(Whole, State, fun(Object, Bytes, Size) ->
        case [Range || {Offset, Length} = Range <- listed(Ranges), Offset + Length > Size] of
            [] -> Answer(Object, Bytes);
            _ -> {{error, out_of_bounds}, State}
        end
    end).

listed(List) when is_list(List) -> List;
listed(One) -> [One].

write({Offset, Data}, Bytes) ->
    Length = byte_size(Data),
    <<Before:Offset/binary, _:Length/binary, After/binary>> = Bytes,
    <<Before/binary, Data/binary, After/binary>>.

sized(Bytes, Size) when Size =< byte_size(Bytes) -> binary:part(Bytes, 0, Size);
sized(Bytes, Size) -> <<Bytes/binary, (test_pattern:zeros(Size - byte_size(Bytes)))/binary>>.

set(Object, Bytes, #state{objects = Objects} = State) ->
    State#state{objects = Objects#{Object := Bytes}}.

resized(Whole, Object, Size, #state{wholes = Wholes, locked = Locked} = State) ->
    Remains = ordsets:intersection(maps:get(Whole, Locked), pages_of({0, Size})),
    locked(Whole, Remains, State#state{wholes = Wholes#{Whole := {Object, Size}}}).

locked(Whole, Pages, #state{locked = Locked} = State) ->
    State#state{locked = Locked#{Whole := Pages}}.

pages_of({_, 0}) -> [];
pages_of({Offset, Length}) -> lists:seq(Offset div page(), (Offset + Length - 1) div page()).

size(Handle, #state{wholes = Wholes, parts = Parts}) ->
    case maps:merge(Wholes, Parts) of
        #{Handle := closed} -> {error, closed};
        #{Handle := {_, Size}} -> {ok, Size};
        #{Handle := #part{pages = Pages}} -> {ok, Pages * page()}
    end.

%% ---- A file of words, one a page --------------------------------------------------------------

open_part(Part, State) ->
    Mapping = case Part of
        window -> #part{first = 1, limit = 2, pages = 1};
        _ -> #part{pages = 1}
    end,
    case shown(Mapping, State) of
        none -> {{error, einval}, State};
        Pages -> {ok, set_part(Part, Mapping#part{pages = Pages}, State)}
    end.

on_part(Part, #state{parts = Parts} = State, Answer) ->
    case Parts of
        #{Part := closed} -> {{error, closed}, State};
        #{Part := Mapping} -> Answer(Mapping)
    end.

set_part(Part, Mapping, #state{parts = Parts} = State) ->
    State#state{parts = Parts#{Part := Mapping}}.

shown(#part{first = First, limit = Limit}, #state{words = Words}) ->
    case min(Limit, length(Words) - First) of
        Pages when Pages > 0 -> Pages;
        _ -> none
    end.

word(Part, Page, #state{words = Words, parts = Parts}) ->
    case Parts of
        #{Part := closed} -> {error, closed};
        #{Part := #part{pages = Pages}} when Page >= Pages -> {error, out_of_bounds};
        #{Part := #part{first = First}} when First + Page >= length(Words) -> {error, sigbus};
        #{Part := #part{own = #{Page := Word}}} -> {ok, Word};
        #{Part := #part{first = First}} -> {ok, lists:nth(First + Page + 1, Words)}
    end.

followed(follower, Page, #state{words = Words, parts = #{follower := #part{pages = Pages} = Mapping}} = State)
        when Page >= Pages, Page < length(Words) ->
    Longer = set_part(follower, Mapping#part{pages = length(Words)}, State),
    {word(follower, Page, Longer), Longer};
followed(Part, Page, State) ->
    {word(Part, Page, State), State}.

set_word(private, Page, Word, #state{parts = #{private := #part{own = Own} = Mapping}} = State) ->
    set_part(private, Mapping#part{own = Own#{Page => Word}}, State);
set_word(Part, Page, Word, #state{parts = Parts, words = Words} = State) ->
    #{Part := #part{first = First}} = Parts,
    {Before, [_ | After]} = lists:split(First + Page, Words),
    State#state{words = Before ++ [Word | After]}.

%% Who cuts the file takes the pages that others have of their own, too.
with_pages(Pages, #state{words = Words, parts = Parts} = State) ->
    Kept = lists:sublist(Words, Pages),
    Left = case Parts of
        #{private := #part{own = Own} = Mapping} ->
            Parts#{private := Mapping#part{own = maps:filter(fun(Page, _) -> Page < Pages end, Own)}};
        _ ->
            Parts
    end,
    State#state{words = Kept ++ lists:duplicate(Pages - length(Kept), 0), parts = Left}.

%% What the functions of iommap_atomics give and leave.
atomic(get, Old, []) -> {Old, Old};
atomic(put, _, [New]) -> {ok, New};
atomic(exchange, Old, [New]) -> {Old, New};
atomic(compare_exchange, Old, [Old, New]) -> {ok, New};
atomic(compare_exchange, Old, [_, _]) -> {Old, Old};
atomic(add, Old, [Value]) -> {ok, Old + Value};
atomic(sub, Old, [Value]) -> {ok, Old - Value};
atomic('band', Old, [Value]) -> {ok, Old band Value};
atomic('bor', Old, [Value]) -> {ok, Old bor Value};
atomic('bxor', Old, [Value]) -> {ok, Old bxor Value};
atomic(add_get, Old, [Value]) -> {(Old + Value) band 16#FFFFFFFFFFFFFFFF, Old + Value};
atomic(sub_get, Old, [Value]) -> {(Old - Value) band 16#FFFFFFFFFFFFFFFF, Old - Value};
atomic(band_get, Old, [Value]) -> {Old band Value, Old band Value};
atomic(bor_get, Old, [Value]) -> {Old bor Value, Old bor Value};
atomic(bxor_get, Old, [Value]) -> {Old bxor Value, Old bxor Value}.
