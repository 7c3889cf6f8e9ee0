%% What files, handles and views must be after any calls and any changes by another process: the contract as a
%% function. It says which answers are right, and which bytes; several, where the system may choose.
%%
%% - A shared mapping shows its file. After the file's end, in the page that holds it, are zeros, or what was written
%%   there through a mapping; pages behind that are lost.
%% - A private mapping has pages of its own: those that were written. Others show the file. Who cuts the file takes them
%%   too; what else is done to the file may.
%% - A lost page under a view becomes zeros, with all after it, for good: the mapping is faulted.
%% - A resize may go on with the same mapping, or make a fresh one: an old view may show what is written to the handle's
%%   private mapping, and where it is zeroed, the handle may be faulted. Then it is asked, and believed.
-module(fuzz_model).

-export([new/0]).
-export([make/3, unlink/2, change/3]).
-export([names/1, name_size/2, inodes/1, observed/3]).
-export([open/5, close/2, forget/2]).
-export([pread/4, pwrite/5, region/4, advise/4, sync/2, truncate/3, remap/2, size/2, info/2]).
-export([sizes/2]).
-export([may_be_faulted/1, told_faulted/3]).
-export([look/2, is_intact/4, is_sure/2, is_all_intact/1, drop/2, inode_of_view/2, inode_of_handle/2]).

-export_type([model/0, change/0, inode/0, slot/0, view/0]).

-type inode() :: pos_integer().
-type slot() :: pos_integer().
-type change() ::
    {resize, Size :: non_neg_integer()}
    | {fill, Offset :: non_neg_integer(), Length :: pos_integer(), byte()}
    | {punch, Offset :: non_neg_integer(), Length :: pos_integer()}
    | {collapse, Offset :: non_neg_integer(), Length :: pos_integer()}
    | {clone, Source :: string()}
    | hold.

-record(inode, {
    bytes :: fuzz_bytes:bytes(),
    %% What a mapping shows after the end, in the last page.
    tail :: fuzz_bytes:bytes(),
    %% Whether somebody held pages of it: then a view of lost pages may show zeros without a fault.
    held = false :: boolean()
}).

%% A page that a private mapping has of its own; from `sure' on it may be the file's again.
-record(page, {bytes :: fuzz_bytes:bytes(), sure :: non_neg_integer()}).

-record(mapping, {
    inode :: inode(),
    size :: pos_integer(),
    private :: boolean(),
    %% Mappings of one family may be one mapping.
    family :: pos_integer(),
    %% Zero pages are there from here on, and perhaps from there on.
    zeroed = infinity :: non_neg_integer() | infinity,
    suspect = infinity :: non_neg_integer() | infinity,
    own = #{} :: #{non_neg_integer() => #page{}}
}).

-record(handle, {mapping :: pos_integer(), mode :: iommap:mode()}).
-record(view, {mapping :: pos_integer(), offset :: non_neg_integer(), length :: non_neg_integer()}).

-record(model, {
    next = 1 :: pos_integer(),
    names = #{} :: #{string() => inode()},
    inodes = #{} :: #{inode() => #inode{}},
    mappings = #{} :: #{pos_integer() => #mapping{}},
    handles = #{} :: #{slot() => #handle{} | closed}
}).

-opaque model() :: #model{}.
-opaque view() :: #view{}.

-spec new() -> model().
new() ->
    #model{}.

%% ---- Files, as another process sees and changes them ------------------------------------------

%% A new file under the name, in the place of what had it.
-spec make(string(), binary(), model()) -> {inode(), model()}.
make(Name, Bytes, #model{next = Next, names = Names, inodes = Inodes} = Model) ->
    Inode = #inode{bytes = [Bytes], tail = zero_tail(byte_size(Bytes))},
    {Next, Model#model{next = Next + 1, names = Names#{Name => Next}, inodes = Inodes#{Next => Inode}}}.

-spec unlink(string(), model()) -> model().
unlink(Name, #model{names = Names} = Model) ->
    Model#model{names = maps:remove(Name, Names)}.

-spec names(model()) -> #{string() => inode()}.
names(#model{names = Names}) ->
    Names.

-spec name_size(string(), model()) -> non_neg_integer() | none.
name_size(Name, #model{names = Names} = Model) ->
    case Names of
        #{Name := Inode} -> file_size(Inode, Model);
        _ -> none
    end.

-spec inodes(model()) -> [inode()].
inodes(#model{inodes = Inodes}) ->
    maps:keys(Inodes).

%% The bytes that a file was found to hold: where they are wrong, or what is known from now on.
-spec observed(inode(), binary(), model()) -> {ok, model()} | {wrong, term(), fuzz_bytes:bytes()}.
observed(Id, Found, #model{inodes = Inodes} = Model) ->
    #{Id := #inode{bytes = Bytes} = Inode} = Inodes,
    case fuzz_bytes:first_wrong(Found, Bytes) of
        none -> {ok, Model#model{inodes = Inodes#{Id := Inode#inode{bytes = [Found]}}}};
        Where -> {wrong, Where, Bytes}
    end.

%% What another process did to a file.
-spec change(change(), inode(), model()) -> model().
change({resize, Size}, Id, Model) ->
    resize(Size, as_it_is, Id, Model);
change({fill, Offset, Length, Byte}, Id, Model) ->
    End = Offset + Length,
    Grown = case End > file_size(Id, Model) of
        true -> resize(End, as_it_is, Id, Model);
        false -> Model
    end,
    overwrite(Offset, [binary:copy(<<Byte>>, Length)], Id, Grown);
change({punch, Offset, Length}, Id, Model) ->
    Within = max(0, min(Length, file_size(Id, Model) - Offset)),
    doubt_own(Offset, Within, Id, overwrite(Offset, [test_pattern:zeros(Within)], Id, Model));
change({collapse, Offset, Length}, Id, Model) ->
    #inode{bytes = Bytes} = inode(Id, Model),
    Size = fuzz_bytes:size(Bytes),
    After = Offset + Length,
    Left = fuzz_bytes:append(fuzz_bytes:part(Bytes, 0, Offset), fuzz_bytes:part(Bytes, After, Size - After)),
    doubt_own(Offset, Size - Offset, Id, set_bytes(Left, Id, resize(Size - Length, zero, Id, Model)));
change(hold, Id, #model{inodes = Inodes} = Model) ->
    #{Id := Inode} = Inodes,
    Model#model{inodes = Inodes#{Id := Inode#inode{held = true}}};
change({clone, Source}, Id, #model{names = Names} = Model) ->
    #inode{bytes = Bytes} = inode(maps:get(Source, Names), Model),
    Size = fuzz_bytes:size(Bytes),
    doubt_own(0, Size, Id, set_bytes(Bytes, Id, resize(Size, zero, Id, Model))).

%% New bytes are zero; or, where another process made the file longer, what was written behind the end before.
resize(Size, New, Id, #model{inodes = Inodes, mappings = Mappings} = Model) ->
    #inode{bytes = Bytes, tail = Tail} = Inode = inode(Id, Model),
    {Now, Behind} = resized(Bytes, Tail, Size, New),
    Resized = Inode#inode{bytes = Now, tail = Behind},
    Cut = case Size < fuzz_bytes:size(Bytes) of
        true -> maps:map(fun(_, Mapping) -> cut_own(Size, Id, Mapping) end, Mappings);
        false -> Mappings
    end,
    Model#model{inodes = Inodes#{Id := Resized}, mappings = Cut}.

resized(Bytes, Tail, Size, New) ->
    case fuzz_bytes:size(Bytes) of
        Size ->
            {Bytes, Tail};
        Now when Size < Now ->
            {fuzz_bytes:part(Bytes, 0, Size), zero_tail(Size)};
        Now ->
            Zeros = fuzz_bytes:sized(Bytes, Size),
            Behind = fuzz_bytes:sized(fuzz_bytes:append(Bytes, Tail), Size),
            Rest = case Size < Now + fuzz_bytes:size(Tail) of
                true -> fuzz_bytes:part(Tail, Size - Now, Now + fuzz_bytes:size(Tail) - Size);
                false -> [<<>>]
            end,
            Grown = case New of
                zero -> Zeros;
                as_it_is -> fuzz_bytes:also(Zeros, Behind)
            end,
            {Grown, fuzz_bytes:also(zero_tail(Size), fuzz_bytes:sized(Rest, tail_size(Size)))}
    end.

%% A private mapping loses the pages of its own that the file loses; in the last one the rest may be the file's again.
cut_own(Size, Id, #mapping{inode = Id, own = Own} = Mapping) ->
    {Last, Rest} = {Size div page(), Size rem page()},
    Kept = maps:filtermap(
        fun(Page, Data) when Page < Last -> {true, Data};
           (Page, #page{sure = Sure} = Data) when Page =:= Last, Rest > 0 -> {true, Data#page{sure = min(Sure, Rest)}};
           (_, _) -> false
        end, Own),
    Mapping#mapping{own = Kept};
cut_own(_, _, Mapping) ->
    Mapping.

%% Pages of private mappings may be the file's again.
doubt_own(_, 0, _, Model) ->
    Model;
doubt_own(Offset, Length, Id, #model{mappings = Mappings} = Model) ->
    {First, Last} = {Offset div page(), (Offset + Length - 1) div page()},
    Doubt = fun(Page, Data) when Page >= First, Page =< Last -> Data#page{sure = 0};
               (_, Data) -> Data
            end,
    Doubtful = fun(_, #mapping{inode = Of, own = Own} = Mapping) when Of =:= Id ->
                       Mapping#mapping{own = maps:map(Doubt, Own)};
                  (_, Mapping) -> Mapping
               end,
    Model#model{mappings = maps:map(Doubtful, Mappings)}.

overwrite(Offset, Data, Id, Model) ->
    #inode{bytes = Bytes} = inode(Id, Model),
    set_bytes(fuzz_bytes:put(Bytes, Offset, Data), Id, Model).

set_bytes(Bytes, Id, #model{inodes = Inodes} = Model) ->
    #{Id := Inode} = Inodes,
    Model#model{inodes = Inodes#{Id := Inode#inode{bytes = Bytes}}}.

%% ---- Handles ----------------------------------------------------------------------------------

%% The handle that open answers, or why there is none.
-spec open(slot(), string(), iommap:mode(), [iommap:open_option()], model()) ->
    {ok, model()} | {{error, atom()}, model()}.
open(Slot, Name, Mode, Options, Model) ->
    Now = name_size(Name, Model),
    Truncate = lists:member(truncate, Options),
    Create = lists:member(create, Options),
    Size = proplists:get_value(size, lists:reverse(Options), 0),
    Wanted = case Truncate orelse Now =:= none of
        true -> Size;
        false -> max(Now, Size)
    end,
    if
        Mode =:= read, Truncate orelse Create -> {{error, einval}, Model};
        Now =:= none, not Create -> {{error, enoent}, Model};
        Wanted =:= 0 -> {{error, einval}, Model};
        Mode =:= read, Wanted > Now -> {{error, einval}, Model};
        true -> {ok, opened(Slot, Mode, Options, sized(Name, Now, Truncate, Wanted, Model))}
    end.

sized(Name, none, _, Wanted, Model) ->
    make(Name, test_pattern:zeros(Wanted), Model);
sized(Name, Now, true, Wanted, Model) ->
    Id = maps:get(Name, names(Model)),
    Emptied = set_bytes([test_pattern:zeros(Wanted)], Id, resize(Wanted, zero, Id, Model)),
    {Id, doubt_own(0, Now, Id, Emptied)};
sized(Name, _, false, Wanted, Model) ->
    Id = maps:get(Name, names(Model)),
    {Id, resize(Wanted, zero, Id, Model)}.

opened(Slot, Mode, Options, {Id, Model}) ->
    Private = lists:last([shared | [Option || Option <- Options, Option =:= shared orelse Option =:= private]]) =:= private,
    Size = file_size(Id, Model),
    Mapping = #mapping{inode = Id, size = Size, private = Private, family = Model#model.next},
    Eager = Private andalso Mode =/= read andalso [] =/= [Option || Option <- Options, lists:member(Option, [lock, populate])],
    map(Slot, Mode, own_all(Eager, Mapping, Model), Model).

%% Locking or prefetching a private mapping may have made all its pages its own.
own_all(false, Mapping, _) ->
    Mapping;
own_all(true, #mapping{size = Size} = Mapping, Model) ->
    {Seen, _} = visible(Mapping, Model),
    Pages = lists:seq(0, (Size - 1) div page()),
    Whole = fuzz_bytes:sized(Seen, round_up(Size)),
    Mapping#mapping{own = maps:from_list([{Page, #page{bytes = fuzz_bytes:part(Whole, Page * page(), page()), sure = 0}} || Page <- Pages])}.

map(Slot, Mode, Mapping, #model{next = Next, mappings = Mappings, handles = Handles} = Model) ->
    Model#model{next = Next + 1, mappings = Mappings#{Next => Mapping},
                handles = Handles#{Slot => #handle{mapping = Next, mode = Mode}}}.

-spec close(slot(), model()) -> {ok | {error, closed}, model()}.
close(Slot, #model{handles = Handles} = Model) ->
    case Handles of
        #{Slot := closed} -> {{error, closed}, Model};
        _ -> {ok, Model#model{handles = Handles#{Slot => closed}}}
    end.

-spec forget(slot(), model()) -> model().
forget(Slot, #model{handles = Handles} = Model) ->
    Model#model{handles = maps:remove(Slot, Handles)}.

-spec pread(slot(), non_neg_integer(), non_neg_integer(), model()) -> {ok, fuzz_bytes:bytes()} | {error, atom()}.
pread(Slot, Offset, Length, Model) ->
    maybe_of(readable(Slot, Offset, Length, Model), fun(_, Mapping) ->
        {Seen, Backed} = visible(Mapping, Model),
        case is_faulted(Mapping) orelse (Length > 0 andalso Offset + Length > Backed) of
            true -> {error, sigbus};
            false -> {ok, fuzz_bytes:part(Seen, Offset, Length)}
        end
    end).

%% The view, if region_binary makes one.
-spec region(slot(), non_neg_integer(), non_neg_integer(), model()) -> {ok, view()} | {error, atom()}.
region(Slot, Offset, Length, Model) ->
    maybe_of(readable(Slot, Offset, Length, Model), fun(#handle{mapping = Id}, Mapping) ->
        case is_faulted(Mapping) of
            true -> {error, sigbus};
            false -> {ok, #view{mapping = Id, offset = Offset, length = Length}}
        end
    end).

%% What a write answers, the data being what its file has or not.
-spec pwrite(slot(), non_neg_integer(), binary(), IsIntact :: boolean(), model()) -> {ok | {error, atom()}, model()}.
pwrite(Slot, Offset, Data, IsIntact, Model) ->
    Length = byte_size(Data),
    case writable(Slot, Offset, Length, Model) of
        {ok, #handle{mapping = Id}, Mapping} ->
            {_, Backed} = visible(Mapping, Model),
            Lost = is_faulted(Mapping) orelse not IsIntact,
            if
                Lost -> {{error, sigbus}, Model};
                Length =:= 0 -> {ok, Model};
                Offset >= Backed -> {{error, sigbus}, Model};
                Offset + Length > Backed ->
                    %% Some of it may be written, and a private mapping has the pages of its own in any case.
                    {{error, sigbus}, written(Id, Offset, binary:part(Data, 0, Backed - Offset), some, Model)};
                true -> {ok, written(Id, Offset, Data, all, Model)}
            end;
        Error ->
            {Error, Model}
    end.

written(Id, Offset, Data, HowMuch, #model{mappings = Mappings} = Model) ->
    case Mappings of
        #{Id := #mapping{private = true} = Mapping} ->
            Written = write_own(Offset, Data, HowMuch, Mapping, Model),
            Model#model{mappings = maps:map(fun(_, Kin) -> show_kin(Written, Kin, Model) end, Mappings#{Id := Written})};
        #{Id := #mapping{inode = Inode}} ->
            write_file(Offset, Data, HowMuch, Inode, Model)
    end.

write_own(Offset, Data, HowMuch, #mapping{own = Own, size = Size} = Mapping, Model) ->
    {Seen, _} = visible(Mapping#mapping{size = round_up(Size)}, Model),
    Written = with_data(Seen, Offset, Data, HowMuch),
    Pages = lists:seq(Offset div page(), (Offset + byte_size(Data) - 1) div page()),
    Now = maps:from_list([{Page, #page{bytes = fuzz_bytes:part(Written, Page * page(), page()), sure = page()}} || Page <- Pages]),
    Mapping#mapping{own = maps:merge(Own, Now)}.

%% What may be the same mapping may show what was written to this one.
show_kin(#mapping{family = Family, own = Written} = Mapping, #mapping{family = Family, size = Size} = Kin, Model) when Kin =/= Mapping ->
    {Seen, _} = visible(Kin#mapping{size = round_up(Size)}, Model),
    Shown = maps:filtermap(fun(Page, #page{bytes = Bytes}) ->
        Page * page() < Size
            andalso {true, #page{bytes = fuzz_bytes:also(fuzz_bytes:part(Seen, Page * page(), page()), Bytes), sure = 0}}
    end, Written),
    Kin#mapping{own = maps:merge(Kin#mapping.own, Shown)};
show_kin(_, Kin, _) ->
    Kin.

%% The file has what is before its end, the mapping alone what is behind it.
write_file(Offset, Data, HowMuch, Id, #model{inodes = Inodes} = Model) ->
    #inode{bytes = Bytes, tail = Tail} = Inode = inode(Id, Model),
    Size = fuzz_bytes:size(Bytes),
    Written = with_data(fuzz_bytes:append(Bytes, Tail), Offset, Data, HowMuch),
    Behind = fuzz_bytes:also(zero_tail(Size), fuzz_bytes:part(Written, Size, fuzz_bytes:size(Tail))),
    Now = Inode#inode{bytes = fuzz_bytes:part(Written, 0, Size),
                      tail = case Offset + byte_size(Data) > Size of true -> Behind; false -> Tail end},
    Model#model{inodes = Inodes#{Id := Now}}.

with_data(Bytes, Offset, Data, all) -> fuzz_bytes:put(Bytes, Offset, [Data]);
with_data(Bytes, Offset, Data, some) -> fuzz_bytes:also(Bytes, fuzz_bytes:put(Bytes, Offset, [Data])).

-spec advise(slot(), non_neg_integer(), non_neg_integer(), model()) -> ok | {error, atom()}.
advise(Slot, Offset, Length, Model) ->
    maybe_of(in_bounds(mapped(Slot, Model), Offset, Length), fun(_, _) -> ok end).

-spec sync(slot(), model()) -> ok | {error, atom()}.
sync(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(_, Mapping) ->
        case is_faulted(Mapping) of
            true -> {error, sigbus};
            false -> ok
        end
    end).

-spec size(slot(), model()) -> {ok, pos_integer()} | {error, closed}.
size(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(_, #mapping{size = Size}) -> {ok, Size} end).

%% What info/1 says that cannot be otherwise.
-spec info(slot(), model()) -> {ok, map()} | {error, closed}.
info(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(#handle{mode = Mode}, #mapping{size = Size, private = Private} = Mapping) ->
        Sharing = case Private of true -> private; false -> shared end,
        {ok, #{size => Size, mode => Mode, sharing => Sharing, faulted => is_faulted(Mapping), page_size => page()}}
    end).

-spec truncate(slot(), non_neg_integer(), model()) -> {ok | {error, atom()}, model()}.
truncate(_, 0, Model) ->
    {{error, einval}, Model};
truncate(Slot, Size, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mode = read}, _} -> {{error, eacces}, Model};
        {ok, Handle, #mapping{inode = Id}} -> {ok, fit(Slot, Handle, Size, resize(Size, zero, Id, Model))};
        Error -> {Error, Model}
    end.

-spec remap(slot(), model()) -> {{ok, pos_integer()} | {error, atom()}, model()}.
remap(Slot, Model) ->
    case mapped(Slot, Model) of
        {ok, Handle, #mapping{inode = Id, size = Before} = Mapping} ->
            case {file_size(Id, Model), is_faulted(Mapping)} of
                {0, _} -> {{error, einval}, Model};
                {Before, false} -> {{ok, Before}, Model};
                {Size, _} -> {{ok, Size}, fit(Slot, Handle, Size, Model)}
            end;
        Error ->
            {Error, Model}
    end.

%% The mapping of a handle gets the size of its file. What a private one has of its own stays, as far as both reach; the
%% rest of the page is the file's.
fit(Slot, #handle{mapping = Before, mode = Mode}, Size, #model{mappings = Mappings} = Model) ->
    #{Before := #mapping{size = Old, family = Family, own = Own} = Mapping} = Mappings,
    Keep = min(Old, Size),
    Fresh = Mapping#mapping{size = Size, zeroed = infinity, suspect = infinity, own = #{}},
    {File, _} = visible(Fresh#mapping{size = round_up(Size)}, Model),
    {Seen, _} = visible(Mapping#mapping{size = round_up(Size), zeroed = infinity, suspect = infinity}, Model),
    Carry = fun(Page, #page{sure = Sure} = Data) ->
        {Start, End} = {Page * page(), min((Page + 1) * page(), Keep)},
        case Start < End andalso End =< first(Mapping) of
            true ->
                Mine = fuzz_bytes:part(Seen, Start, End - Start),
                Rest = fuzz_bytes:part(File, End, Start + page() - End),
                {true, Data#page{bytes = fuzz_bytes:append(Mine, Rest), sure = min(Sure, End - Start)}};
            false ->
                Start < End andalso {true, Data#page{sure = 0}}
        end
    end,
    Next = case is_faulted(Mapping) of
        true -> Model#model.next;
        false -> Family
    end,
    Fitted = Fresh#mapping{family = Next, own = maps:filtermap(Carry, Own)},
    map(Slot, Mode, own_end(Mode, Fitted, Model), Model).

%% The page with the end may be made a private mapping's own: what it had behind the end must be zero, should it grow.
own_end(Mode, #mapping{private = true, size = Size, own = Own} = Mapping, Model) when Mode =/= read ->
    Page = Size div page(),
    case Size rem page() of
        Rest when Rest > 0, not is_map_key(Page, Own) ->
            {Seen, _} = visible(Mapping, Model),
            Bytes = fuzz_bytes:sized(fuzz_bytes:part(Seen, Size - Rest, Rest), page()),
            Mapping#mapping{own = Own#{Page => #page{bytes = Bytes, sure = 0}}};
        _ ->
            Mapping
    end;
own_end(_, Mapping, _) ->
    Mapping.

first(#mapping{zeroed = Zeroed, suspect = Suspect}) -> min(Zeroed, Suspect).

%% The sizes that matter to the calls of a handle: of its mapping and of its file.
-spec sizes(slot(), model()) -> {non_neg_integer(), non_neg_integer()} | none.
sizes(Slot, #model{handles = Handles} = Model) ->
    case Handles of
        #{Slot := #handle{mapping = Id}} ->
            #{Id := #mapping{inode = Inode, size = Size}} = Model#model.mappings,
            {Size, file_size(Inode, Model)};
        #{Slot := closed} ->
            {page(), page()};
        _ ->
            none
    end.

%% The handles of which only they themselves know whether they are faulted.
-spec may_be_faulted(model()) -> [slot()].
may_be_faulted(#model{handles = Handles, mappings = Mappings}) ->
    [Slot || {Slot, #handle{mapping = Id}} <- maps:to_list(Handles),
             #mapping{zeroed = infinity, suspect = Suspect} <- [maps:get(Id, Mappings)],
             Suspect =/= infinity].

-spec told_faulted(slot(), boolean(), model()) -> model().
told_faulted(Slot, Faulted, #model{handles = Handles, mappings = Mappings, next = Next} = Model) ->
    #{Slot := #handle{mapping = Id}} = Handles,
    #{Id := #mapping{suspect = Suspect} = Mapping} = Mappings,
    Known = case Faulted of
        true -> Mapping#mapping{zeroed = Suspect, suspect = infinity};
        false -> Mapping#mapping{suspect = infinity, family = Next}
    end,
    Model#model{next = Next + 1, mappings = Mappings#{Id := Known}}.

%% ---- Views ------------------------------------------------------------------------------------

%% What reading a view gives; and what it does, if pages are lost.
-spec look(view(), model()) -> {fuzz_bytes:bytes(), model()}.
look(#view{mapping = Id, offset = Offset, length = Length}, #model{mappings = Mappings} = Model) ->
    #{Id := Mapping} = Mappings,
    {Seen, Backed} = visible(Mapping, Model),
    Zeroed = Mapping#mapping.zeroed,
    Looked = case Length > 0 andalso Offset + Length > Backed andalso Backed < Zeroed of
        true -> zeroed(Id, Backed, Model);
        false -> Model
    end,
    {fuzz_bytes:part(Seen, Offset, Length), Looked}.

zeroed(Id, From, #model{mappings = Mappings} = Model) ->
    #{Id := #mapping{family = Family, inode = Inode}} = Mappings,
    #inode{held = Held} = inode(Inode, Model),
    Kin = fun(Other, #mapping{} = Mapping) when Other =:= Id, not Held -> Mapping#mapping{zeroed = From};
             (_, #mapping{family = Of, suspect = Suspect} = Mapping) when Of =:= Family ->
                 Mapping#mapping{suspect = min(Suspect, From)};
             (_, Mapping) -> Mapping
          end,
    Model#model{mappings = maps:map(Kin, Mappings)}.

%% What intact/3 says of a part of a view after it was read; of bytes that may be zeroed either.
-spec is_intact(view(), non_neg_integer(), non_neg_integer(), model()) -> boolean() | unknown.
is_intact(_, _, 0, _) ->
    true;
is_intact(#view{mapping = Id, offset = Start}, Offset, Length, #model{mappings = Mappings} = Model) ->
    #{Id := #mapping{zeroed = Zeroed, suspect = Suspect, inode = Inode}} = Mappings,
    End = Start + Offset + Length,
    if
        End > Zeroed -> false;
        true ->
            case End > file_size(Inode, Model) of
                true -> false;
                false when End > Suspect -> unknown;
                false -> true
            end
    end.

%% Whether it is known what the view shows, and that its file has it.
-spec is_sure(view(), model()) -> boolean().
is_sure(#view{length = Length} = View, Model) ->
    {Seen, _} = look(View, Model),
    length(Seen) =:= 1 andalso is_intact(View, 0, Length, Model) =/= unknown.

%% Whether no mapping has lost anything; one that is gone may still be counted.
-spec is_all_intact(model()) -> boolean().
is_all_intact(#model{mappings = Mappings} = Model) ->
    lists:all(fun(#mapping{inode = Id, size = Size} = Mapping) ->
        first(Mapping) =:= infinity andalso Size =< file_size(Id, Model)
    end, maps:values(Mappings)).

%% The view is gone.
-spec drop(view(), model()) -> model().
drop(_, Model) ->
    Model.

-spec inode_of_view(view(), model()) -> inode().
inode_of_view(#view{mapping = Id}, #model{mappings = Mappings}) ->
    #mapping{inode = Inode} = maps:get(Id, Mappings),
    Inode.

-spec inode_of_handle(slot(), model()) -> inode() | none.
inode_of_handle(Slot, #model{handles = Handles, mappings = Mappings}) ->
    case Handles of
        #{Slot := #handle{mapping = Id}} -> (maps:get(Id, Mappings))#mapping.inode;
        _ -> none
    end.

%% ---- The order of checks ----------------------------------------------------------------------

readable(Slot, Offset, Length, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mode = write}, _} -> {error, eacces};
        Mapped -> in_bounds(Mapped, Offset, Length)
    end.

writable(Slot, Offset, Length, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mode = read}, _} -> {error, eacces};
        Mapped -> in_bounds(Mapped, Offset, Length)
    end.

mapped(Slot, #model{handles = Handles, mappings = Mappings}) ->
    case Handles of
        #{Slot := closed} -> {error, closed};
        #{Slot := #handle{mapping = Id} = Handle} -> {ok, Handle, maps:get(Id, Mappings)}
    end.

in_bounds({ok, _, #mapping{size = Size}}, Offset, Length) when Offset + Length > Size -> {error, out_of_bounds};
in_bounds(Mapped, _, _) -> Mapped.

maybe_of({ok, Handle, Mapping}, Answer) -> Answer(Handle, Mapping);
maybe_of(Error, _) -> Error.

is_faulted(#mapping{zeroed = Zeroed}) -> Zeroed =/= infinity.

%% ---- What a mapping shows ---------------------------------------------------------------------

%% All its bytes, lost ones being zero; and where those begin that are lost, or were not when they became zero.
visible(#mapping{inode = Id, size = Size, own = Own, zeroed = Zeroed, suspect = Suspect}, Model) ->
    #inode{bytes = Bytes, tail = Tail} = inode(Id, Model),
    File = fuzz_bytes:sized(fuzz_bytes:append(Bytes, Tail), Size),
    Backed = min(Size, round_up(fuzz_bytes:size(Bytes))),
    Seen = fuzz_bytes:zeros_from(maps:fold(fun overlay/3, File, Own), Zeroed),
    {fuzz_bytes:also(Seen, fuzz_bytes:zeros_from(Seen, Suspect)), Backed}.

overlay(Page, #page{bytes = Bytes, sure = Sure}, File) ->
    Start = Page * page(),
    Length = min(page(), fuzz_bytes:size(File) - Start),
    case Length > 0 of
        true ->
            Mine = fuzz_bytes:part(Bytes, 0, Length),
            Theirs = case Sure < Length of
                true -> fuzz_bytes:append(fuzz_bytes:part(Mine, 0, Sure), fuzz_bytes:part(File, Start + Sure, Length - Sure));
                false -> Mine
            end,
            fuzz_bytes:put(File, Start, fuzz_bytes:also(Mine, Theirs));
        false ->
            File
    end.

inode(Id, #model{inodes = Inodes}) ->
    maps:get(Id, Inodes).

file_size(Id, Model) ->
    #inode{bytes = Bytes} = inode(Id, Model),
    fuzz_bytes:size(Bytes).

zero_tail(Size) -> [test_pattern:zeros(tail_size(Size))].

tail_size(Size) -> round_up(Size) - Size.

round_up(Size) -> (Size + page() - 1) div page() * page().

page() -> test_pattern:page().
