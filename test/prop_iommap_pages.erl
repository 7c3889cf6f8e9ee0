%% Random runs of hints, locks, writes, syncs and resizes, against what the kernel says of the pages afterwards (`/proc/self/smaps`).
-module(prop_iommap_pages).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_each_page_is_as_it_was_asked_for/0]).

-import(test_files, [with_mapping/4]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_property, [holds/1]).

%% How many pages a mapping is asked to have; it may get half as many more.
-define(PAGES, 12).

-record(state, {
    size :: pos_integer(),
    %% For a page, by what it sets, the last hint; also for pages behind the end, as it was given for what the mapping grows by.
    hints = #{} :: #{{non_neg_integer(), access | dump | fork} => atom()},
    locked = [] :: ordsets:ordset(non_neg_integer()),
    %% Whether what the mapping grows by is to be locked, too.
    lock_all = false :: boolean(),
    sharing :: shared | private,
    %% The pages that a private mapping has of its own.
    copies = [] :: ordsets:ordset(non_neg_integer()),
    is_synced = false :: boolean()
}).

prop_each_page_is_as_it_was_asked_for() ->
    %% Whatever is hinted at, locked, written and synced, and however the mapping is resized: each page has the last that was said of
    %% it; a private mapping has copies of what was written, and no more; after a sync there is nothing to write back; and on either
    %% side lies memory that may be read.
    case test_system:can_see_pages() of
        true ->
            numtests(200,
                ?FORALL({Size, Options, Calls}, {size(), options(), list(call())},
                    holds(fun() -> run(Size, Options, Calls) end)));
        false ->
            io:format("Skipped: the system does not tell which pages a mapping has~n"),
            true
    end.

run(Size, Options, Calls) ->
    with_mapping(bytes(Size), read_write, Options, fun(Handle, Path) ->
        Opened = resized(#state{size = Size, lock_all = lists:member(lock, Options), sharing = hd(Options)}),
        ?assertEqual(expected(Opened), seen(Opened, Handle, Path)),
        _ = lists:foldl(fun(Call, Before) ->
            ?assertEqual(ok, ok(call(Call, Handle))),
            After = after_call(Call, Before),
            ?assertEqual({Call, expected(After)}, {Call, seen(After, Handle, Path)}),
            ?assert(is_brought(Call, After, Path)),
            ?assertEqual({Call, [{<<"r--p">>, <<"r--p">>}]}, {Call, test_system:sides(Path)}),
            After
        end, Opened, Calls),
        true
    end).

%% Calls

size() ->
    oneof([range(1, ?PAGES * page()), ?LET(Pages, range(1, ?PAGES), Pages * page())]).

%% With room to grow in place, and without.
options() ->
    ?LET({Sharing, More, Pages}, {oneof([shared, private]), oneof([[], [lock], [populate]]), oneof([0, ?PAGES div 2, ?PAGES])},
        [Sharing, {reserve, Pages * page()} | More]).

call() ->
    frequency([
        {6, {advise, range(), oneof([normal, random, sequential, dontdump, dodump, dontfork, dofork])}},
        {4, {lock, range()}},
        {4, {unlock, range()}},
        {4, {pwrite, range()}},
        {2, {oneof([populate_read, populate_write]), range()}},
        {2, sync},
        {3, {oneof([truncate, ensure_size]), size()}},
        {1, remap}
    ]).

%% In thousandths of the mapping; some of no byte.
range() ->
    ?LET({One, Other}, oneof([{edge(), edge()}, {edge(), edge()}, ?LET(Edge, edge(), {Edge, Edge})]), {min(One, Other), max(One, Other)}).

edge() ->
    frequency([{1, 0}, {1, 1000}, {4, range(0, 1000)}]).

call({advise, Part, Hint}, Handle) -> on_range(Part, Handle, fun(Offset, Length) -> iommap:advise(Handle, Offset, Length, Hint) end);
call({lock, Part}, Handle) -> on_range(Part, Handle, fun(Offset, Length) -> iommap:lock(Handle, Offset, Length) end);
call({unlock, Part}, Handle) -> on_range(Part, Handle, fun(Offset, Length) -> iommap:unlock(Handle, Offset, Length) end);
call({Hint, Part}, Handle) when Hint =:= populate_read; Hint =:= populate_write -> call({advise, Part, Hint}, Handle);
call({pwrite, Part}, Handle) -> on_range(Part, Handle, fun(Offset, Length) -> iommap:pwrite(Handle, Offset, bytes(Length)) end);
call(sync, Handle) -> iommap:sync(Handle);
call({truncate, Size}, Handle) -> iommap:truncate(Handle, Size);
call({ensure_size, Size}, Handle) -> iommap:ensure_size(Handle, Size);
call(remap, Handle) -> iommap:remap(Handle).

on_range(Part, Handle, Call) ->
    {ok, Size} = iommap:position(Handle),
    {From, To} = span(Part, Size),
    Call(From, To - From).

span({From, To}, Size) ->
    {Size * From div 1000, Size * To div 1000}.

ok({ok, _}) -> ok;
ok(Answer) -> Answer.

%% What is so afterwards

after_call({advise, Part, Hint}, #state{size = Size, hints = Hints} = State) ->
    {Setting, _} = setting(Hint),
    %% Up to the end means whatever comes behind it, too.
    Pages = case advised(Part, Size) of
        {Size, Size} -> [];
        {From, Size} -> lists:seq(From div page(), 2 * ?PAGES);
        Bytes -> pages(Bytes)
    end,
    State#state{hints = maps:merge(Hints, maps:from_list([{{Page, Setting}, Hint} || Page <- Pages]))};
after_call({lock, Part}, #state{size = Size, locked = Locked} = State) ->
    State#state{locked = ordsets:union(Locked, pages(span(Part, Size)))};
after_call({unlock, Part}, #state{size = Size, locked = Locked} = State) ->
    case pages(span(Part, Size)) of
        [] -> State;
        Pages -> State#state{locked = ordsets:subtract(Locked, Pages), lock_all = false}
    end;
after_call({populate_read, _}, State) ->
    State;
after_call({populate_write, _}, State) ->
    State#state{is_synced = false};
after_call({pwrite, Part}, #state{size = Size, copies = Copies} = State) ->
    State#state{copies = ordsets:union(Copies, pages(span(Part, Size))), is_synced = false};
after_call(sync, State) ->
    State#state{is_synced = true};
after_call({ensure_size, Size}, #state{size = Before} = State) when Size =< Before ->
    State;
after_call({ensure_size, Size}, #state{size = Before} = State) ->
    resized(State#state{size = max(Size, Before + Before div 2)});
after_call({truncate, Size}, State) ->
    resized(State#state{size = Size});
after_call(remap, State) ->
    State.

%% A resize writes zeros where the file ends.
resized(#state{locked = Locked, lock_all = LockAll, copies = Copies} = State) ->
    Pages = all_pages(State),
    State#state{locked = if LockAll -> Pages; true -> ordsets:intersection(Locked, Pages) end,
                copies = ordsets:intersection(Copies, Pages), is_synced = false}.

%% A length of 0 means up to the end.
advised(Part, Size) ->
    case span(Part, Size) of
        {Same, Same} -> {Same, Size};
        Bytes -> Bytes
    end.

%% Whether the pages that a call brings in, or makes writable, are.
is_brought({populate_read, Part}, State, Path) -> test_system:told("Rss", Path) >= populated(Part, State);
is_brought({populate_write, Part}, #state{sharing = shared} = State, Path) -> test_system:dirty(Path) >= populated(Part, State);
is_brought(_, _, _) -> true.

populated(Part, #state{size = Size}) -> page() * length(pages(advised(Part, Size))).

setting(normal) -> {access, none};
setting(random) -> {access, <<"rr">>};
setting(sequential) -> {access, <<"sr">>};
setting(dodump) -> {dump, none};
setting(dontdump) -> {dump, <<"dd">>};
setting(dofork) -> {fork, none};
setting(dontfork) -> {fork, <<"dc">>}.

pages({Same, Same}) -> [];
pages({From, To}) -> lists:seq(From div page(), (To - 1) div page()).

all_pages(#state{size = Size}) -> pages({0, Size}).

%% The pages that are mapped, by each flag, and whether all are locked.
expected(#state{size = Size, hints = Hints, locked = Locked} = State) ->
    Hinted = [{Flag, [Page || Page <- all_pages(State), Hint <- [maps:get({Page, Setting}, Hints, none)], flag(Hint) =:= Flag]}
              || {Setting, Flag} <- flags()],
    {Size, Locked =:= all_pages(State), [{<<"lo">>, Locked} | Hinted], own(State)}.

%% How many bytes are the mapping's own, and, right after a sync, how many the system has to write back.
own(#state{sharing = private, copies = Copies}) -> length(Copies) * page();
own(#state{sharing = shared, is_synced = true}) -> 0;
own(#state{sharing = shared}) -> any.

seen(State, Handle, Path) ->
    {ok, #{size := Size, locked := IsLocked}} = iommap:info(Handle),
    Ranges = test_system:page_flags(Path),
    {Size, IsLocked, [{Flag, lists:sort([Page || {Pages, Flags} <- Ranges, lists:member(Flag, Flags), Page <- Pages])}
                      || Flag <- [<<"lo">> | [Flag || {_, Flag} <- flags()]]],
     case own(State) of
         any -> any;
         _ when State#state.sharing =:= private -> test_system:told("Anonymous", Path);
         _ -> test_system:dirty(Path)
     end}.

flags() ->
    [Set || Hint <- [random, sequential, dontdump, dontfork], Set <- [setting(Hint)]].

flag(none) -> none;
flag(Hint) -> element(2, setting(Hint)).
