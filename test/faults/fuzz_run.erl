%% Does operations one after another, on handles of iommap and by another OS process, and compares each answer, each view
%% and each file with the model.
-module(fuzz_run).

-export([run/3]).

-export_type([outcome/0, wrong/0]).

-type outcome() :: ok | {wrong, wrong()}.
-type wrong() :: #{
    index := non_neg_integer(),
    op := fuzz_ops:op() | look_at_all,
    %% The call with its numbers.
    call := term(),
    expected := term(),
    got := term()
}.

-record(run, {
    directory :: file:filename(),
    external_writer :: port(),
    model = fuzz_model:new() :: fuzz_model:model(),
    files = #{} :: #{fuzz_model:inode() => file:fd()},
    handles = #{} :: #{fuzz_model:slot() => iommap:handle()},
    views = [] :: [{fuzz_model:view(), binary()}]
}).

%% What ends the VM can be found out afterwards: Progress says which operation began last.
-spec run(file:filename(), [fuzz_ops:op()], Progress :: file:filename()) -> outcome().
run(Directory, Ops, Progress) ->
    {ok, Log} = file:open(Progress, [write, raw]),
    External = external_writer:start(),
    Start = #run{directory = Directory, external_writer = External},
    try
        Run = lists:foldl(fun(Op, Run) -> one(Op, Log, Run) end, Start, lists:enumerate(Ops)),
        one({length(Ops), look_at_all}, Log, Run)
    of
        #run{files = Files} -> lists:foreach(fun file:close/1, maps:values(Files))
    catch
        throw:{wrong, Wrong} -> {wrong, Wrong}
    after
        external_writer:stop(External),
        file:close(Log),
        erase(call)
    end.

one({Index, Op}, Log, Run) ->
    ok = file:pwrite(Log, 0, io_lib:format("~10b", [Index])),
    put(call, Op),
    try
        Done = do(Op, Run),
        ask_faulted(observe(Done))
    catch
        throw:{unlike, Expected, Got} ->
            throw({wrong, #{index => Index, op => Op, call => get(call), expected => Expected, got => Got}})
    end.

%% ---- Calls ------------------------------------------------------------------------------------

do({open, Slot, Name, Mode, Options}, #run{model = Model} = Run) ->
    Eof = case fuzz_model:name_size(Name, Model) of none -> 0; Size -> Size end,
    Resolved = [case Option of {size, Place} -> {size, fuzz_ops:resolve(Place, Eof, Eof)}; _ -> Option end || Option <- Options],
    opened(Slot, Name, Mode, Resolved, forgotten(Slot, Run));
do({forget, Slot}, Run) ->
    forgotten(Slot, Run);
do({look, N}, #run{views = Views} = Run) ->
    nth(N, Views, fun(View) -> looked(View, Run) end, Run);
do(look_at_all, #run{views = Views} = Run) ->
    lists:foldl(fun looked/2, Run, Views);
do({drop, N}, #run{views = Views} = Run) ->
    nth(N, Views, fun(View) -> collected(Run#run{views = Views -- [View]}) end, Run);
do({Verb, Name, _} = Op, Run) when is_list(Name), Verb =/= look ->
    by_another(Op, Run);
do({Verb, Name, _, _} = Op, Run) when is_list(Name), Verb =/= look ->
    by_another(Op, Run);
do({fill, Name, _, _, _} = Op, Run) when is_list(Name) ->
    by_another(Op, Run);
do({unlink, _} = Op, Run) ->
    by_another(Op, Run);
do(Op, #run{model = Model, handles = Handles} = Run) ->
    Slot = element(2, Op),
    case {Handles, fuzz_model:sizes(Slot, Model)} of
        {#{Slot := Handle}, {End, Eof}} -> call(Op, Handle, fun(Place) -> fuzz_ops:resolve(Place, End, Eof) end, Run);
        _ -> Run
    end.

opened(Slot, Name, Mode, Options, #run{directory = Directory, model = Model, handles = Handles} = Run) ->
    Path = filename:join(Directory, Name),
    put(call, {open, Name, Mode, Options}),
    {Expected, Next} = fuzz_model:open(Slot, Name, Mode, Options, Model),
    case iommap:open(Path, Mode, Options) of
        {ok, Handle} when Expected =:= ok -> Run#run{model = Next, handles = Handles#{Slot => Handle}};
        Expected -> Run#run{model = Next};
        Got -> unlike(Expected, Got)
    end.

forgotten(Slot, #run{model = Model, handles = Handles} = Run) ->
    collected(Run#run{model = fuzz_model:forget(Slot, Model), handles = maps:remove(Slot, Handles)}).

collected(Run) ->
    true = garbage_collect(),
    Run.

call({close, Slot}, Handle, _, #run{model = Model} = Run) ->
    {Expected, Next} = fuzz_model:close(Slot, Model),
    same(Expected, iommap:close(Handle)),
    Run#run{model = Next};
call({pread, Slot, From, Count}, Handle, Resolve, #run{model = Model} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {pread, Slot, Offset, Length}),
    same(fuzz_model:pread(Slot, Offset, Length, Model), iommap:pread(Handle, Offset, Length)),
    Run;
call({region, Slot, From, Count}, Handle, Resolve, #run{model = Model, views = Views} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {region_binary, Slot, Offset, Length}),
    case {fuzz_model:region(Slot, Offset, Length, Model), iommap:region_binary(Handle, Offset, Length)} of
        {{ok, View}, {ok, Binary}} when byte_size(Binary) =:= Length -> Run#run{views = Views ++ [{View, Binary}]};
        {Same, Same} -> Run;
        {Expected, Got} -> unlike(Expected, Got)
    end;
call({pwrite, Slot, From, Data}, Handle, Resolve, Run) ->
    Offset = Resolve(From),
    case data(Data, Slot, Offset, Resolve, Run) of
        none ->
            Run;
        {Written, Bytes, IsIntact} ->
            put(call, {pwrite, Slot, Offset, element(1, Data), byte_size(Bytes)}),
            written(iommap:pwrite(Handle, Offset, Written), Slot, Offset, Bytes, IsIntact, Run)
    end;
call({truncate, Slot, Place}, Handle, Resolve, #run{model = Model} = Run) ->
    Size = Resolve(Place),
    put(call, {truncate, Slot, Size}),
    {Expected, Next} = fuzz_model:truncate(Slot, Size, Model),
    same(Expected, iommap:truncate(Handle, Size)),
    Run#run{model = Next};
call({remap, Slot}, Handle, _, #run{model = Model} = Run) ->
    {Expected, Next} = fuzz_model:remap(Slot, Model),
    same(Expected, iommap:remap(Handle)),
    Run#run{model = Next};
call({sync, Slot, Mode}, Handle, _, #run{model = Model} = Run) ->
    same(fuzz_model:sync(Slot, Model), iommap:sync(Handle, Mode)),
    Run;
call({advise, Slot, From, Count, Hint}, Handle, Resolve, #run{model = Model} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {advise, Slot, Offset, Length, Hint}),
    same(fuzz_model:advise(Slot, Offset, Length, Model), iommap:advise(Handle, Offset, Length, Hint)),
    Run;
call({position, Slot}, Handle, _, #run{model = Model} = Run) ->
    same(fuzz_model:size(Slot, Model), iommap:position(Handle)),
    Run;
call({info, Slot}, Handle, _, #run{model = Model} = Run) ->
    Known = [size, mode, sharing, faulted, page_size],
    Got = case iommap:info(Handle) of
        {ok, Info} -> {ok, maps:with(Known, Info)};
        Error -> Error
    end,
    same(fuzz_model:info(Slot, Model), Got),
    Run.

%% Of data that nobody knows the origin of, both answers are right.
written(Got, Slot, Offset, Bytes, unknown, #run{model = Model} = Run) ->
    case fuzz_model:pwrite(Slot, Offset, Bytes, true, Model) of
        {ok, _} -> written(Got, Slot, Offset, Bytes, Got =:= ok, Run);
        _ -> written(Got, Slot, Offset, Bytes, true, Run)
    end;
written(Got, Slot, Offset, Bytes, IsIntact, #run{model = Model} = Run) ->
    {Expected, Next} = fuzz_model:pwrite(Slot, Offset, Bytes, IsIntact, Model),
    same(Expected, Got),
    Run#run{model = Next}.

%% From the offset on, as far as a place that is counted from there.
length_of(Offset, {'end', _} = Place, Resolve) -> max(0, Resolve(Place) - Offset);
length_of(Offset, {eof, _} = Place, Resolve) -> max(0, Resolve(Place) - Offset);
length_of(Offset, {part, Part}, Resolve) -> max(0, (Resolve({'end', 0}) - Offset)) * Part div 1000;
length_of(_, Place, Resolve) -> Resolve(Place).

%% Iodata, the bytes it has, and whether they are all real. Data that cannot be written anywhere is one byte too long.
data({view, N, From, To}, Slot, _, _, #run{model = Model, views = Views} = Run) ->
    nth(N, Views, fun({View, Binary}) ->
        Other = fuzz_model:inode_of_view(View, Model) =/= fuzz_model:inode_of_handle(Slot, Model),
        case Other andalso fuzz_model:is_sure(View, Model) of
            true -> part_of_a_view(View, Binary, From, To, Run);
            false -> none
        end
    end, none);
data({Form, Byte, Place}, _, Offset, Resolve, #run{model = Model}) ->
    Rest = max(0, Resolve({'end', 0}) - Offset),
    Length = min(length_of(Offset, Place, Resolve), Rest + 1),
    Data = form(Form, Byte, Length),
    %% What does not begin at a whole byte is a copy that the VM made, of anything.
    Known = Form =/= part_of_a_byte orelse fuzz_model:is_all_intact(Model),
    {Data, iolist_to_binary(Data), case Known of true -> true; false -> unknown end}.

%% A part of more than 64 bytes is a view itself. One that is not intact is never read here.
part_of_a_view(View, Binary, From, To, #run{model = Model}) ->
    Size = byte_size(Binary),
    {Start, End} = {Size * min(From, To) div 1000, Size * max(From, To) div 1000},
    case End - Start > 64 of
        true ->
            Part = binary:part(Binary, Start, End - Start),
            case fuzz_model:is_intact(View, Start, End - Start, Model) of
                true -> {Part, binary:copy(Part), true};
                false -> {Part, test_pattern:zeros(End - Start), false}
            end;
        false ->
            none
    end.

form(binary, Byte, Length) ->
    binary:copy(<<Byte>>, Length);
form(sub_binary, Byte, Length) ->
    binary:part(binary:copy(<<Byte>>, Length + 7), 3, Length);
form(part_of_a_byte, Byte, Length) ->
    <<_:3, Data:Length/binary, _:5>> = <<1:3, (binary:copy(<<Byte>>, Length))/binary, 1:5>>,
    Data;
form(segments, Byte, Length) ->
    [binary:copy(<<Byte>>, Length div 2), [[] | binary:copy(<<(255 - Byte)>>, Length - Length div 2)]];
form(bytes, Byte, Length) ->
    lists:duplicate(Length, Byte).

%% ---- Views ------------------------------------------------------------------------------------

looked({View, Binary}, #run{model = Model} = Run) ->
    put(call, {look, View}),
    {Expected, Next} = fuzz_model:look(View, Model),
    Seen = binary:copy(Binary),
    same({ok, Expected}, {ok, Seen}),
    Size = byte_size(Binary),
    intact(View, Binary, 0, Size, Next),
    intact(View, Binary, 0, Size div 2, Next),
    intact(View, Binary, Size div 2, Size - Size div 2, Next),
    Run#run{model = Next}.

intact(View, Binary, Offset, Length, Model) ->
    put(call, {intact, View, Offset, Length}),
    case fuzz_model:is_intact(View, Offset, Length, Model) of
        unknown -> ok;
        Expected -> same(Expected, iommap:intact(Binary, Offset, Length))
    end.

%% ---- Another process --------------------------------------------------------------------------

by_another(Op, #run{model = Model} = Run) ->
    Name = element(2, Op),
    case {Op, fuzz_model:name_size(Name, Model)} of
        {{replace, _, _}, none} -> ordered(Op, 0, Run);
        {_, none} -> Run;
        {_, Eof} -> ordered(Op, Eof, Run)
    end.

ordered({replace, Name, Place}, Eof, #run{model = Model} = Run) ->
    Size = fuzz_ops:resolve(Place, Eof, Eof),
    ok = told(["replace", Name, Size], Run),
    {_, Next} = fuzz_model:make(Name, test_pattern:bytes(Size), Model),
    Run#run{model = Next};
ordered({unlink, Name}, _, #run{model = Model} = Run) ->
    ok = told(["unlink", Name], Run),
    Run#run{model = fuzz_model:unlink(Name, Model)};
ordered({resize, Name, Place}, Eof, Run) ->
    Size = fuzz_ops:resolve(Place, Eof, Eof),
    changed({resize, Size}, ["truncate", Name, Size], Name, Run);
ordered({append, Name, Length, Byte}, Eof, Run) ->
    changed({fill, Eof, Length, Byte}, ["repeat", Name, Eof, Length, Byte], Name, Run);
ordered({fill, Name, From, Count, Byte}, Eof, Run) ->
    within(From, Count, Eof, Run, fun(Offset, Length) ->
        changed({fill, Offset, Length, Byte}, ["repeat", Name, Offset, Length, Byte], Name, Run)
    end);
ordered({punch, Name, From, Count}, Eof, Run) ->
    within(From, Count, Eof, Run, fun(Offset, Length) ->
        changed({punch, Offset, Length}, ["punch", Name, Offset, Length], Name, Run)
    end);
ordered({hold, Name, From, Count}, Eof, Run) ->
    within(From, Count, Eof, Run, fun(Offset, Length) ->
        changed(hold, ["hold", Name, Offset, Length], Name, Run)
    end);
ordered({collapse, Name, From, Count}, Eof, Run) ->
    {Offset, Length} = {fuzz_ops:resolve(From, Eof, Eof), fuzz_ops:resolve(Count, Eof, Eof)},
    case Offset + Length < Eof of
        true -> changed({collapse, Offset, Length}, ["collapse", Name, Offset, Length], Name, Run);
        false -> Run
    end;
ordered({clone, Name, Source}, _, #run{model = Model, directory = Directory} = Run) ->
    case fuzz_model:name_size(Source, Model) of
        none -> Run;
        _ when Source =:= Name -> Run;
        _ -> changed({clone, Source}, ["reflink", Name, filename:join(Directory, Source)], Name, Run)
    end.

within(From, Count, Eof, Run, Change) ->
    Resolve = fun(Place) -> fuzz_ops:resolve(Place, Eof, Eof) end,
    Offset = Resolve(From),
    case min(length_of(Offset, Count, Resolve), Eof - Offset) of
        Length when Length > 0 -> Change(Offset, Length);
        _ -> Run
    end.

%% What the file system cannot do has not happened.
changed(Change, Order, Name, #run{model = Model} = Run) ->
    case told(Order, Run) of
        ok -> Run#run{model = fuzz_model:change(Change, maps:get(Name, fuzz_model:names(Model)), Model)};
        {error, _} -> Run
    end.

told([Verb, Name | Rest], #run{directory = Directory, external_writer = External}) ->
    put(call, {by_another, [Verb, Name | Rest]}),
    external_writer:try_to(External, [Verb, filename:join(Directory, Name) | Rest]).

%% ---- What is seen besides ---------------------------------------------------------------------

%% Every file, as read(2) shows it, also those that have no name any more.
observe(#run{model = Model, directory = Directory} = Run) ->
    Names = maps:to_list(fuzz_model:names(Model)),
    Opened = lists:foldl(fun({Name, Id}, #run{files = Files} = Now) ->
        case Files of
            #{Id := _} -> Now;
            _ ->
                {ok, File} = file:open(filename:join(Directory, Name), [read, raw, binary]),
                Now#run{files = Files#{Id => File}}
        end
    end, Run, Names),
    lists:foldl(fun observe/2, Opened, fuzz_model:inodes(Model)).

observe(Id, #run{model = Model, files = Files} = Run) ->
    {ok, Size} = file:position(maps:get(Id, Files), eof),
    Bytes = case file:pread(maps:get(Id, Files), 0, Size) of
        {ok, Read} -> Read;
        eof -> <<>>
    end,
    case fuzz_model:observed(Id, Bytes, Model) of
        {ok, Next} -> Run#run{model = Next};
        {wrong, Where, Expected} -> throw({unlike, {file, Id, brief(Expected, Where)}, {file, Id, brief([Bytes], Where)}})
    end.

ask_faulted(#run{model = Model, handles = Handles} = Run) ->
    Asked = lists:foldl(fun(Slot, Now) ->
        {ok, #{faulted := Faulted}} = iommap:info(maps:get(Slot, Handles)),
        fuzz_model:told_faulted(Slot, Faulted, Now)
    end, Model, fuzz_model:may_be_faulted(Model)),
    Run#run{model = Asked}.

%% ---- Comparing --------------------------------------------------------------------------------

same({ok, Bytes}, {ok, Binary}) when is_list(Bytes), is_binary(Binary) ->
    case fuzz_bytes:first_wrong(Binary, Bytes) of
        none -> ok;
        Where -> throw({unlike, brief(Bytes, Where), brief([Binary], Where)})
    end;
same(Same, Same) ->
    ok;
same(Expected, Got) ->
    unlike(Expected, Got).

-spec unlike(term(), term()) -> no_return().
unlike(Expected, Got) ->
    throw({unlike, brief(Expected), brief(Got)}).

brief({ok, [Binary | _] = Bytes}) when is_binary(Binary) -> {ok, brief(Bytes, 0)};
brief({ok, Binary}) when is_binary(Binary) -> {ok, brief([Binary], 0)};
brief(Term) -> Term.

%% A few bytes, from where they are wrong on.
brief(Bytes, {length, _}) ->
    {size, fuzz_bytes:size(Bytes)};
brief(Bytes, At) ->
    Count = min(8, fuzz_bytes:size(Bytes) - At),
    {at, At, 'of', fuzz_bytes:size(Bytes), [binary_to_list(One) || One <- fuzz_bytes:part(Bytes, At, Count)]}.

%% Counted around, so that a number means something however many there are.
nth(_, [], _, Otherwise) -> Otherwise;
nth(N, List, Use, _) -> Use(lists:nth(N rem length(List) + 1, List)).
