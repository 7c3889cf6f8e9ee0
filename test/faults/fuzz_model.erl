%% What files, handles and views must be after any calls and any changes by another process: the contract as a
%% function. It says which answers are right, and which bytes; several, where the system may choose.
%%
%% - A shared mapping shows its file. After the file's end, in the page that holds it, are zeros, or what was written
%%   there through a mapping; pages behind that are lost.
%% - A private mapping has pages of its own: those that were written. Others show the file. Who cuts the file takes them
%%   too; what else is done to the file may.
%% - A lost page under a view becomes zeros, with all after it, for good: the mapping is faulted.
%% - A window shows a part of its file. Here mappings, their own pages and views count from the file's first byte, and only
%%   calls count from the window's.
%% - A resize may go on with the same mapping, or make a fresh one: an old view may show what is written to the handle's
%%   private mapping, and where it is zeroed, the handle may be faulted. Then it is asked, and believed.
-module(fuzz_model).

-export([new/0]).
-export([make/3, unlink/2, change/3]).
-export([names/1, name_size/2, inodes/1, observed/3]).
-export([open/5, close/2, forget/2]).
-export([pread/3, pread/4, pwrite/4, pwrite/5, region/4, with_view/4, read_file/2]).
-export([advise/5, sync/2, sync/4, resident/4, lock/4, unlock/4]).
-export([truncate/3, ensure_size/3, remap/2, size/2, info/2, open_handles/1]).
-export([is_word/3, load_word/3, store_word/4]).
-export([sizes/2, start/2, inode_size/2, tail/2]).
-export([may_be_faulted/1, told_faulted/3]).
-export([look/2, is_intact/4, is_sure/2, is_all_intact/1, drop/2, inode_of_view/2, inode_of_handle/2]).

-export([device_from/2, device_left/3, device_truncate/3]).

-export_type([model/0, change/0, inode/0, slot/0, view/0]).

-type inode() :: pos_integer().
-type slot() :: pos_integer().
-type source() :: string() | {fd, Of :: slot()} | anonymous.
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
    held = false :: boolean(),
    %% Whether nobody can make it shorter.
    sealed = false :: boolean()
}).

%% A page that a private mapping has of its own; from `sure' on it may be the file's again.
-record(page, {bytes :: fuzz_bytes:bytes(), sure :: non_neg_integer()}).

-record(mapping, {
    inode :: inode(),
    %% From where to where in its file, and how long it may become.
    start = 0 :: non_neg_integer(),
    size :: pos_integer(),
    limit = infinity :: pos_integer() | infinity,
    private :: boolean(),
    %% Mappings of one family may be one mapping.
    family :: pos_integer(),
    %% Zero pages are there from here on, and perhaps from there on.
    zeroed = infinity :: non_neg_integer() | infinity,
    suspect = infinity :: non_neg_integer() | infinity,
    own = #{} :: #{non_neg_integer() => #page{}},
    %% Pages of a private one that were ever written, or were to be: what a fresh mapping takes over, also of one that a cut has made
    %% the file's.
    written = #{} :: #{non_neg_integer() => []}
}).

-record(handle, {
    mapping :: pos_integer(),
    mode :: iommap:mode(),
    source :: source(),
    %% What its descriptor permits: a duplicate permits what the other does, whatever the mode.
    may_write :: boolean(),
    follow = false :: boolean()
}).
-record(view, {mapping :: pos_integer(), offset :: non_neg_integer(), length :: non_neg_integer()}).

-record(model, {
    next = 1 :: pos_integer(),
    names = #{} :: #{string() => inode()},
    inodes = #{} :: #{inode() => #inode{}},
    mappings = #{} :: #{pos_integer() => #mapping{}},
    handles = #{} :: #{slot() => #handle{} | closed}
}).

-define(IS_WINDOW(Mapping), Mapping#mapping.start > 0 orelse Mapping#mapping.limit =/= infinity).

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
-spec open(slot(), source(), iommap:mode(), [iommap:open_option()], model()) ->
    {ok, model()} | {{error, atom()}, model()}.
open(Slot, anonymous, Mode, Options, Model) ->
    Size = last(size, Options, 0),
    IsWindow = last(offset, Options, 0) > 0 orelse lists:keymember(length, 1, Options),
    case Mode =:= read orelse is_private(Options) orelse IsWindow orelse Size =:= 0 of
        true -> {{error, einval}, Model};
        false -> {ok, opened(Slot, anonymous, Mode, Options, sealed(Size, Model))}
    end;
open(Slot, Source, Mode, Options, Model) ->
    Found = found(Source, Model),
    Now = case Found of none -> none; _ -> file_size(Found, Model) end,
    Truncate = lists:member(truncate, Options),
    Create = is_list(Source) andalso lists:member(create, Options),
    Size = last(size, Options, 0),
    Wanted = case Truncate orelse Now =:= none of
        true -> Size;
        false -> max(Now, Size)
    end,
    Shown = shown(last(offset, Options, 0), last(length, Options, infinity), Wanted),
    IsCut = Truncate andalso is_sealed(Found, Model) andalso Wanted < Now,
    if
        Mode =:= read, Truncate orelse Create -> {{error, einval}, Model};
        Now =:= none, not Create -> {{error, enoent}, Model};
        Shown =:= none, is_list(Source) -> {{error, einval}, Model};
        true ->
            Permitted = Mode =:= read orelse may_write(Source, Model),
            if
                not Permitted -> {{error, eacces}, Model};
                Shown =:= none -> {{error, einval}, Model};
                Mode =:= read, Wanted > Now -> {{error, einval}, Model};
                IsCut -> {{error, eperm}, Model};
                true -> {ok, opened(Slot, Source, Mode, Options, sized(Source, Found, Truncate, Wanted, Model))}
            end
    end.

%% The file that is there; a descriptor is that of an open handle.
found({fd, Of}, Model) -> inode_of_handle(Of, Model);
found(Name, #model{names = Names}) -> maps:get(Name, Names, none).

may_write({fd, Of}, #model{handles = Handles}) -> (maps:get(Of, Handles))#handle.may_write;
may_write(_, _) -> true.

sealed(Size, Model) ->
    #model{next = Next, inodes = Inodes} = Model,
    Inode = #inode{bytes = [test_pattern:zeros(Size)], tail = zero_tail(Size), sealed = true},
    {Next, Model#model{next = Next + 1, inodes = Inodes#{Next => Inode}}}.

is_sealed(none, _) -> false;
is_sealed(Id, Model) -> (inode(Id, Model))#inode.sealed.

is_private(Options) ->
    lists:last([shared | [Option || Option <- Options, Option =:= shared orelse Option =:= private]]) =:= private.

last(Option, Options, Default) ->
    proplists:get_value(Option, lists:reverse(Options), Default).

%% Where a window ends in a file of a size.
shown(Start, Limit, Size) when Start < Size, Limit > 0 ->
    case Limit of
        infinity -> Size;
        _ -> min(Size, Start + Limit)
    end;
shown(_, _, _) ->
    none.

sized(Name, none, _, Wanted, Model) ->
    make(Name, test_pattern:zeros(Wanted), Model);
sized(_, Id, true, Wanted, Model) ->
    Now = file_size(Id, Model),
    Emptied = set_bytes([test_pattern:zeros(Wanted)], Id, resize(Wanted, zero, Id, Model)),
    {Id, doubt_own(0, Now, Id, Emptied)};
sized(_, Id, false, Wanted, Model) ->
    {Id, resize(Wanted, zero, Id, Model)}.

opened(Slot, Source, Mode, Options, {Id, Model}) ->
    Private = is_private(Options),
    {Start, Limit} = {last(offset, Options, 0), last(length, Options, infinity)},
    Mapping = #mapping{inode = Id, start = Start, limit = Limit, size = shown(Start, Limit, file_size(Id, Model)),
                       private = Private, family = Model#model.next},
    MayWrite = Mode =/= read orelse not is_list(Source) andalso may_write(Source, Model),
    Handle = #handle{mapping = 0, mode = Mode, source = Source, may_write = MayWrite, follow = lists:member(follow, Options)},
    map(Slot, Handle, Mapping, Model).

map(Slot, Handle, Mapping, #model{next = Next, mappings = Mappings, handles = Handles} = Model) ->
    Model#model{next = Next + 1, mappings = Mappings#{Next => Mapping},
                handles = Handles#{Slot => Handle#handle{mapping = Next}}}.

-spec close(slot(), model()) -> {ok | {error, closed}, model()}.
close(Slot, #model{handles = Handles} = Model) ->
    case Handles of
        #{Slot := closed} -> {{error, closed}, Model};
        _ -> {ok, Model#model{handles = Handles#{Slot => closed}}}
    end.

-spec forget(slot(), model()) -> model().
forget(Slot, #model{handles = Handles} = Model) ->
    Model#model{handles = maps:remove(Slot, Handles)}.

-spec pread(slot(), non_neg_integer(), non_neg_integer(), model()) -> {{ok, fuzz_bytes:bytes()} | {error, atom()}, model()}.
pread(Slot, Offset, Length, Model) ->
    following(Slot, Offset, Length, Model, fun(_, #mapping{start = Start} = Mapping, Now) ->
        {Seen, Backed} = visible(Mapping, Now),
        case is_faulted(Mapping) orelse (Length > 0 andalso Start + Offset + Length > Backed) of
            true -> {error, sigbus};
            false -> {ok, fuzz_bytes:part(Seen, Start + Offset, Length)}
        end
    end).

%% Of several ranges, of which any may be the reason for an error of all.
-spec pread(slot(), [{non_neg_integer(), non_neg_integer()}], model()) ->
    {{ok, [fuzz_bytes:bytes()]} | {error, atom()}, model()}.
pread(Slot, [], Model) ->
    case pread(Slot, 0, 0, Model) of
        {{ok, _}, _} -> {{ok, []}, Model};
        Error -> Error
    end;
pread(Slot, Ranges, Model) ->
    {_, {Furthest, Length}} = lists:max([{Offset + Length, {Offset, Length}} || {Offset, Length} <- Ranges]),
    case followed(Slot, Furthest, Length, Model) of
        {ok, Now} ->
            Answers = [element(1, pread(Slot, Offset, Count, Now)) || {Offset, Count} <- Ranges],
            {all_or_error(Answers), Now};
        Error ->
            {Error, Model}
    end.

%% What is checked first is told first.
all_or_error(Answers) ->
    case [lists:keyfind(Reason, 2, Answers) || Reason <- [closed, eacces, out_of_bounds, sigbus],
                                               lists:member({error, Reason}, Answers)] of
        [Error | _] -> Error;
        [] -> {ok, [Bytes || {ok, Bytes} <- Answers]}
    end.

%% The view, if region_binary makes one.
-spec region(slot(), non_neg_integer(), non_neg_integer(), model()) -> {{ok, view()} | {error, atom()}, model()}.
region(Slot, Offset, Length, Model) ->
    following(Slot, Offset, Length, Model, fun(#handle{mapping = Id}, #mapping{start = Start} = Mapping, _) ->
        case is_faulted(Mapping) of
            true -> {error, sigbus};
            false -> {ok, #view{mapping = Id, offset = Start + Offset, length = Length}}
        end
    end).

%% What with_view gives whose function copies the view. Behind the end of the file, in its last page, a byte that is not zero was
%% written there by somebody, and may pass for the file's.
-spec with_view(slot(), non_neg_integer(), non_neg_integer(), model()) ->
    {{ok | sigbus_or, fuzz_bytes:bytes()} | {error, atom()}, model()}.
with_view(Slot, Offset, Length, Model) ->
    following(Slot, Offset, Length, Model, fun(_, #mapping{start = Start, inode = Inode} = Mapping, Now) ->
        {Seen, _} = visible(Mapping, Now),
        Bytes = fuzz_bytes:part(Seen, Start + Offset, Length),
        IsFaulted = is_faulted(Mapping),
        IsLost = Length > 0 andalso Start + Offset + Length > file_size(Inode, Now),
        Written = [One || One <- Bytes, IsLost, not Mapping#mapping.private, binary:last(One) =/= 0],
        if
            not IsFaulted, Written =/= [] -> {sigbus_or, Written};
            IsFaulted; IsLost -> {error, sigbus};
            true -> {ok, Bytes}
        end
    end).

%% What a read answers, of a mapping that may have got longer for it.
following(Slot, Offset, Length, Model, Answer) ->
    case followed(Slot, Offset, Length, Model) of
        {ok, Now} -> {maybe_of(readable(Slot, Offset, Length, Now), fun(Handle, Mapping) -> Answer(Handle, Mapping, Now) end), Now};
        Error -> {Error, Model}
    end.

followed(Slot, Offset, Length, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{follow = true, mode = Mode} = Handle, #mapping{start = Start, size = Before} = Mapping} when
                Mode =/= write, Start + Offset + Length > Before ->
            case shown(Mapping, Model) of
                Size when is_integer(Size), Start + Offset + Length =< Size ->
                    case is_faulted(Mapping) of
                        true -> {error, sigbus};
                        false -> {ok, fit(Slot, Handle, Size, Model)}
                    end;
                _ ->
                    {ok, Model}
            end;
        _ ->
            {ok, Model}
    end.

%% Where a mapping would end now.
shown(#mapping{inode = Id, start = Start, limit = Limit}, Model) ->
    shown(Start, Limit, file_size(Id, Model)).

%% A view of a whole file, whose handle is closed.
-spec read_file(string(), model()) -> {{ok, view()} | {ok, empty} | {error, atom()}, model()}.
read_file(Name, #model{next = Next, mappings = Mappings} = Model) ->
    case name_size(Name, Model) of
        none ->
            {{error, enoent}, Model};
        0 ->
            {{ok, empty}, Model};
        Size ->
            Mapping = #mapping{inode = maps:get(Name, names(Model)), size = Size, private = false, family = Next},
            {{ok, #view{mapping = Next, offset = 0, length = Size}},
             Model#model{next = Next + 1, mappings = Mappings#{Next => Mapping}}}
    end.

%% What a write answers, the data being what its file has or not.
-spec pwrite(slot(), non_neg_integer(), binary(), IsIntact :: boolean(), model()) -> {ok | {error, atom()}, model()}.
pwrite(Slot, Offset, Data, IsIntact, Model) ->
    Length = byte_size(Data),
    case writable(Slot, Offset, Length, Model) of
        {ok, #handle{mapping = Id}, #mapping{start = Start} = Mapping} ->
            {_, Backed} = visible(Mapping, Model),
            {Lost, At} = {is_faulted(Mapping) orelse not IsIntact, Start + Offset},
            if
                Lost -> {{error, sigbus}, Model};
                Length =:= 0 -> {ok, Model};
                At >= Backed -> {{error, sigbus}, tried(Id, At, Length, Model)};
                At + Length > Backed ->
                    %% Some of it may be written, or nothing: data that nobody knows the origin of is refused with the same error.
                    Some = written(Id, At, binary:part(Data, 0, Backed - At), some, Model),
                    {{error, sigbus}, tried(Id, At, Length, Some)};
                true -> {ok, written(Id, At, Data, all, Model)}
            end;
        Error ->
            {Error, Model}
    end.

%% Of several, in order; where one meets a lost page, how many were written before it. All the pages of a private mapping may be its
%% own from then on.
-spec pwrite(slot(), [{non_neg_integer(), binary()}], IsIntact :: boolean(), model()) ->
    {ok | {error, {non_neg_integer(), atom()}}, model()}.
pwrite(Slot, Writes, IsIntact, Model) ->
    Checks = [writable(Slot, 0, 0, Model) | [writable(Slot, Offset, byte_size(Data), Model) || {Offset, Data} <- Writes]],
    case all_or_error([case Check of {ok, _, _} -> {ok, []}; _ -> Check end || Check <- Checks]) of
        {ok, _} when Writes =:= [] -> {element(1, numbered(pwrite(Slot, 0, <<>>, true, Model), 0)), Model};
        {ok, _} -> write_each(Writes, 0, Slot, IsIntact, Model);
        {error, Reason} -> {{error, {0, Reason}}, Model}
    end.

write_each([], _, _, _, Model) ->
    {ok, Model};
write_each([{Offset, Data} | Rest], N, Slot, IsIntact, Model) ->
    case pwrite(Slot, Offset, Data, IsIntact, Model) of
        {ok, Next} -> write_each(Rest, N + 1, Slot, IsIntact, Next);
        {Error, Next} -> numbered({Error, touched(Slot, Next)}, N)
    end.

%% What was brought in to be written, and then was not.
touched(Slot, #model{mappings = Mappings} = Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mapping = Id}, #mapping{private = true, own = Own} = Mapping} ->
            #mapping{own = All} = own_all(Mapping, Model),
            Touched = Mapping#mapping{own = maps:merge(All, Own), written = as_set(All)},
            Model#model{mappings = Mappings#{Id := Touched}};
        _ ->
            Model
    end.

own_all(#mapping{size = Size} = Mapping, Model) ->
    {Seen, _} = visible(Mapping, Model),
    Pages = lists:seq(0, (Size - 1) div page()),
    Whole = fuzz_bytes:sized(Seen, round_up(Size)),
    Mapping#mapping{own = maps:from_list([{Page, #page{bytes = fuzz_bytes:part(Whole, Page * page(), page()), sure = 0}} || Page <- Pages])}.

numbered({ok, Model}, _) -> {ok, Model};
numbered({{error, Reason}, Model}, N) -> {{error, {N, Reason}}, Model}.

written(Id, Offset, Data, HowMuch, #model{mappings = Mappings} = Model) ->
    case Mappings of
        #{Id := #mapping{private = true} = Mapping} ->
            Written = write_own(Offset, Data, HowMuch, Mapping, Model),
            Model#model{mappings = maps:map(fun(_, Kin) -> show_kin(Written, Kin, Model) end, Mappings#{Id := Written})};
        #{Id := #mapping{inode = Inode}} ->
            write_file(Offset, Data, HowMuch, Inode, Model)
    end.

%% A private mapping does not tell pages that it wrote from lost ones that it was to write.
tried(Id, Offset, Length, #model{mappings = Mappings} = Model) ->
    #{Id := #mapping{written = Written} = Mapping} = Mappings,
    Pages = maps:from_keys(pages(Offset, Length), []),
    Model#model{mappings = Mappings#{Id := Mapping#mapping{written = maps:merge(Written, Pages)}}}.

write_own(Offset, Data, HowMuch, #mapping{own = Own, size = Size} = Mapping, Model) ->
    {Seen, _} = visible(Mapping#mapping{size = round_up(Size)}, Model),
    Written = with_data(Seen, Offset, Data, HowMuch),
    Now = maps:from_list([{Page, #page{bytes = fuzz_bytes:part(Written, Page * page(), page()), sure = sure(HowMuch, Page, Own)}}
        || Page <- pages(Offset, byte_size(Data))]),
    Mapping#mapping{own = maps:merge(Own, Now), written = maps:merge(Mapping#mapping.written, as_set(Now))}.

as_set(Pages) ->
    maps:map(fun(_, _) -> [] end, Pages).

pages(Offset, Length) ->
    lists:seq(Offset div page(), (Offset + Length - 1) div page()).

sure(all, _, _) -> page();
sure(some, Page, Own) when is_map_key(Page, Own) -> (maps:get(Page, Own))#page.sure;
sure(some, _, _) -> 0.

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

-spec advise(slot(), non_neg_integer(), non_neg_integer(), atom(), model()) -> ok | {error, atom()}.
advise(Slot, Offset, Length, Hint, Model) ->
    case {Hint, mapped(Slot, Model)} of
        {populate_write, {ok, #handle{mode = read}, _}} ->
            {error, eacces};
        {_, Mapped} ->
            maybe_of(in_bounds(Mapped, Offset, Length), fun(_, #mapping{start = Start, size = Size} = Mapping) ->
                Rest = Size - Start - Offset,
                case lists:member(Hint, [populate_read, populate_write]) of
                    true -> backed(Offset, case Length of 0 -> Rest; _ -> Length end, Mapping, Model);
                    false -> ok
                end
            end)
    end.

%% Locking, and bringing in, needs pages that were not lost.
backed(_, 0, _, _) ->
    ok;
backed(Offset, Length, #mapping{start = Start, zeroed = Zeroed} = Mapping, Model) ->
    {_, Backed} = visible(Mapping, Model),
    case Start + Offset + Length > min(Backed, Zeroed) of
        true -> {error, sigbus};
        false -> ok
    end.

-spec lock(slot(), non_neg_integer(), non_neg_integer(), model()) -> ok | {error, atom()}.
lock(Slot, Offset, Length, Model) ->
    maybe_of(in_bounds(mapped(Slot, Model), Offset, Length), fun(_, Mapping) -> backed(Offset, Length, Mapping, Model) end).

-spec unlock(slot(), non_neg_integer(), non_neg_integer(), model()) -> ok | {error, atom()}.
unlock(Slot, Offset, Length, Model) ->
    maybe_of(in_bounds(mapped(Slot, Model), Offset, Length), fun(_, _) -> ok end).

%% How many bytes of a range may be in memory.
-spec resident(slot(), non_neg_integer(), non_neg_integer(), model()) -> {ok, Most :: non_neg_integer()} | {error, atom()}.
resident(Slot, Offset, Length, Model) ->
    maybe_of(in_bounds(mapped(Slot, Model), Offset, Length), fun(_, #mapping{start = Start, inode = Id, zeroed = Zeroed}) ->
        {ok, max(0, min(Length, min(Zeroed, file_size(Id, Model)) - Start - Offset))}
    end).

-spec sync(slot(), model()) -> ok | {error, atom()}.
sync(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(_, Mapping) ->
        case is_faulted(Mapping) of
            true -> {error, sigbus};
            false -> ok
        end
    end).

%% Of a range: what the file lost of it cannot reach the device.
-spec sync(slot(), non_neg_integer(), non_neg_integer(), model()) -> ok | {error, atom()}.
sync(Slot, Offset, Length, Model) ->
    maybe_of(in_bounds(mapped(Slot, Model), Offset, Length), fun(#handle{mode = Mode}, #mapping{private = Private} = Mapping) ->
        #mapping{start = Start, inode = Id} = Mapping,
        Cut = Length > 0 andalso Start + Offset + Length > file_size(Id, Model),
        case is_faulted(Mapping) orelse (Cut andalso Mode =/= read andalso not Private) of
            true -> {error, sigbus};
            false -> ok
        end
    end).

-spec size(slot(), model()) -> {ok, pos_integer()} | {error, closed}.
size(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(_, Mapping) -> {ok, length_of(Mapping)} end).

length_of(#mapping{start = Start, size = Size}) -> Size - Start.

%% What info/1 says that cannot be otherwise.
-spec info(slot(), model()) -> {ok, map()} | {error, closed}.
info(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun(#handle{mode = Mode}, #mapping{private = Private, start = Start} = Mapping) ->
        Sharing = case Private of true -> private; false -> shared end,
        {ok, #{size => length_of(Mapping), offset => Start, mode => Mode, sharing => Sharing,
               faulted => is_faulted(Mapping), page_size => page()}}
    end).

%% What open handles were opened of, and what list/0 says of them that cannot be otherwise.
-spec open_handles(model()) -> [{slot(), source(), map()}].
open_handles(#model{handles = Handles} = Model) ->
    [{Slot, Source, Info} || {Slot, #handle{source = Source}} <- maps:to_list(Handles), {ok, Info} <- [info(Slot, Model)]].

%% Whether an array of a word may be made there.
-spec is_word(slot(), non_neg_integer(), model()) -> boolean().
is_word(Slot, Offset, Model) ->
    case in_bounds(mapped(Slot, Model), Offset, 8) of
        {ok, _, #mapping{private = false, start = Start}} -> (Start + Offset) rem 8 =:= 0;
        _ -> false
    end.

%% What a word there holds, or the exception.
-spec load_word(slot(), non_neg_integer(), model()) -> {ok, fuzz_bytes:bytes()} | badarg | sigbus.
load_word(Slot, Offset, Model) ->
    {ok, #handle{mode = Mode, mapping = Id}, _} = mapped(Slot, Model),
    case Mode of
        write -> badarg;
        _ -> word_of(Offset, maps:get(Id, Model#model.mappings), Model)
    end.

word_of(Offset, #mapping{start = Start} = Mapping, Model) ->
    {Seen, Backed} = visible(Mapping, Model),
    case is_faulted(Mapping) orelse Start + Offset + 8 > Backed of
        true -> sigbus;
        false -> {ok, fuzz_bytes:part(Seen, Start + Offset, 8)}
    end.

-spec store_word(slot(), non_neg_integer(), binary(), model()) -> {ok | badarg | sigbus, model()}.
store_word(Slot, Offset, Word, Model) ->
    case pwrite(Slot, Offset, Word, true, Model) of
        {{error, sigbus}, _} -> {sigbus, Model};
        {{error, eacces}, _} -> {badarg, Model};
        {ok, Next} -> {ok, Next}
    end.

-spec truncate(slot(), non_neg_integer(), model()) -> {ok | {error, atom()}, model()}.
truncate(_, 0, Model) ->
    {{error, einval}, Model};
truncate(Slot, Size, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mode = read}, _} -> {{error, eacces}, Model};
        {ok, _, Mapping} when ?IS_WINDOW(Mapping) -> {{error, einval}, Model};
        {ok, Handle, #mapping{inode = Id}} ->
            case is_sealed(Id, Model) andalso Size < file_size(Id, Model) of
                true -> {{error, eperm}, Model};
                false -> {ok, fit(Slot, Handle, Size, resize(Size, zero, Id, Model))}
            end;
        Error -> {Error, Model}
    end.

%% It grows by half at least, and takes in what others made of the file; what the file lost does not become zeros.
-spec ensure_size(slot(), non_neg_integer(), model()) -> {{ok, pos_integer()} | {error, atom()}, model()}.
ensure_size(Slot, Least, Model) ->
    case mapped(Slot, Model) of
        {ok, #handle{mode = read}, _} -> {{error, eacces}, Model};
        {ok, _, Mapping} when ?IS_WINDOW(Mapping) -> {{error, einval}, Model};
        {ok, Handle, #mapping{inode = Id, size = Before} = Mapping} ->
            {Now, IsFaulted} = {file_size(Id, Model), is_faulted(Mapping)},
            if
                IsFaulted -> {{error, sigbus}, Model};
                Before >= Least -> {{ok, Before}, Model};
                Now < Before -> {{error, sigbus}, Model};
                true ->
                    Size = lists:max([Least, Now, Before + Before div 2]),
                    {{ok, Size}, fit(Slot, Handle, Size, resize(Size, zero, Id, Model))}
            end;
        Error ->
            {Error, Model}
    end.

-spec remap(slot(), model()) -> {{ok, pos_integer()} | {error, atom()}, model()}.
remap(Slot, Model) ->
    case mapped(Slot, Model) of
        {ok, Handle, #mapping{start = Start, size = Before} = Mapping} ->
            case {shown(Mapping, Model), is_faulted(Mapping)} of
                {none, _} -> {{error, einval}, Model};
                {Before, false} -> {{ok, Before - Start}, Model};
                {Size, _} -> {{ok, Size - Start}, fit(Slot, Handle, Size, Model)}
            end;
        Error ->
            {Error, Model}
    end.

%% The mapping of a handle gets the size of its file. What a private one has of its own stays, as far as both reach; the
%% rest of the page is the file's.
fit(Slot, #handle{mapping = Before, mode = Mode} = Handle, Size, #model{mappings = Mappings} = Model) ->
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
    Again = maps:from_list([{Page, #page{bytes = fuzz_bytes:part(File, Page * page(), page()), sure = 0}}
        || Page <- maps:keys(Mapping#mapping.written), Page * page() < Keep]),
    Fitted = Fresh#mapping{family = Next, own = maps:merge(Again, maps:filtermap(Carry, Own))},
    Ended = own_end(Mode, Size, Fitted, Model),
    Added = Ended#mapping{own = maps:without(maps:keys(Fitted#mapping.own), Ended#mapping.own)},
    Kin = maps:map(fun(_, Kin) -> show_kin(Added, Kin, Model) end, Mappings),
    map(Slot, Handle, Ended, Model#model{mappings = Kin}).

%% The page with the end may be made a private mapping's own, as what it had behind that must be zero, should it grow.
own_end(Mode, End, #mapping{private = true, size = Size, own = Own} = Mapping, Model) when Mode =/= read ->
    {Page, Rest} = {End div page(), End rem page()},
    case Rest > 0 andalso not is_map_key(Page, Own) of
        true ->
            {Seen, _} = visible(Mapping, Model),
            Bytes = fuzz_bytes:part(Seen, End - Rest, min(page(), Size - (End - Rest))),
            Mapping#mapping{own = Own#{Page => #page{bytes = fuzz_bytes:sized(Bytes, page()), sure = 0}}};
        false ->
            Mapping
    end;
own_end(_, _, Mapping, _) ->
    Mapping.

first(#mapping{zeroed = Zeroed, suspect = Suspect}) -> min(Zeroed, Suspect).

%% Whether a device may be made of a handle: then its file, and what the handle may do.
-spec device_from(slot(), model()) -> {ok, inode(), iommap:mode(), Sharing :: shared | private} | {error, atom()}.
device_from(Slot, Model) ->
    maybe_of(mapped(Slot, Model), fun
        (_, Mapping) when ?IS_WINDOW(Mapping) -> {error, einval};
        (#handle{mode = Mode}, #mapping{inode = Id, private = Private}) ->
            {ok, Id, Mode, case Private of true -> private; false -> shared end}
    end).

%% The size that a device left the mapping of its handle with: the one it had, or that of the file.
-spec device_left(slot(), Size :: pos_integer(), model()) -> {ok, model()} | {wrong, [pos_integer()]}.
device_left(Slot, Size, Model) ->
    case mapped(Slot, Model) of
        {ok, _, #mapping{size = Size}} ->
            {ok, Model};
        {ok, Handle, #mapping{inode = Id, size = Before}} ->
            case file_size(Id, Model) of
                Size -> {ok, fit(Slot, Handle, Size, Model)};
                Now -> {wrong, [Before, Now]}
            end
    end.

%% The sizes that matter to the calls of a handle: of its mapping and of its file, from where it begins.
-spec sizes(slot(), model()) -> {non_neg_integer(), non_neg_integer()} | none.
sizes(Slot, #model{handles = Handles} = Model) ->
    case Handles of
        #{Slot := #handle{mapping = Id}} ->
            #{Id := #mapping{inode = Inode, start = Start} = Mapping} = Model#model.mappings,
            {length_of(Mapping), max(0, file_size(Inode, Model) - Start)};
        #{Slot := closed} ->
            {page(), page()};
        _ ->
            none
    end.

%% Where a handle's mapping begins in its file.
-spec start(slot(), model()) -> non_neg_integer().
start(Slot, #model{handles = Handles, mappings = Mappings}) ->
    case Handles of
        #{Slot := #handle{mapping = Id}} -> (maps:get(Id, Mappings))#mapping.start;
        #{Slot := closed} -> 0
    end.

%% What file:truncate/1 answers of a device whose position is there.
-spec device_truncate(non_neg_integer(), inode(), model()) -> {ok | {error, eperm}, model()}.
device_truncate(Size, Id, Model) ->
    case is_sealed(Id, Model) andalso Size < file_size(Id, Model) of
        true -> {{error, eperm}, Model};
        false -> {ok, change({resize, Size}, Id, Model)}
    end.

-spec inode_size(inode(), model()) -> non_neg_integer().
inode_size(Id, Model) ->
    file_size(Id, Model).

%% What mappings show after the end of a file, if it is more than zeros.
-spec tail(inode(), model()) -> fuzz_bytes:bytes() | zeros.
tail(Id, Model) ->
    #inode{bytes = Bytes, tail = Tail} = inode(Id, Model),
    case zero_tail(fuzz_bytes:size(Bytes)) of
        Tail -> zeros;
        _ -> Tail
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

in_bounds({ok, _, #mapping{start = Start, size = Size}}, Offset, Length) when Start + Offset + Length > Size ->
    {error, out_of_bounds};
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
