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
    views = [] :: [{fuzz_model:view(), binary()}],
    %% Devices of `iommap_file', each with a raw file that is to answer the same.
    devices = #{} :: #{fuzz_model:slot() => {file:fd(), file:fd(), fuzz_model:inode()}},
    %% The handles that such devices are on.
    borrowed = #{} :: #{Device :: fuzz_model:slot() => {fuzz_model:slot(), iommap:handle()}}
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
        #run{files = Files, devices = Devices} ->
            lists:foreach(fun file:close/1, maps:values(Files)),
            lists:foreach(fun close_device/1, maps:values(Devices))
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

do({open, Slot, {fd, Of}, Mode, Options}, #run{handles = Handles} = Run) ->
    case Handles of
        #{Of := Source} -> opened_again(Slot, Of, Mode, Options, Source, iommap:info(Source), Run);
        _ -> Run
    end;
do({open, Slot, anonymous, Mode, Options}, Run) ->
    opened(Slot, anonymous, anonymous, Mode, resolved(Options, 0), Run);
do({open, Slot, Name, Mode, Options}, #run{model = Model, directory = Directory} = Run) ->
    Eof = case fuzz_model:name_size(Name, Model) of none -> 0; Size -> Size end,
    opened(Slot, Name, filename:join(Directory, Name), Mode, resolved(Options, Eof), forgotten(Slot, Run));
do(list, Run) ->
    listed(Run);
do({read_file, Name}, Run) ->
    file_read(Name, Run);
do({open_device, N, Name}, Run) ->
    device_opened(N, Name, Run);
do({device_from, N, Slot}, #run{handles = Handles} = Run) ->
    case Handles of
        #{Slot := Handle} -> device_from(N, Slot, Handle, Run);
        _ -> Run
    end;
do({device, N, Call}, #run{devices = Devices, model = Model} = Run) ->
    case Devices of
        #{N := {_, _, Id} = Device} ->
            Eof = fuzz_model:inode_size(Id, Model),
            borrowed(N, fun() -> device(Call, Device, fun(Place) -> fuzz_ops:resolve(Place, Eof, Eof) end, Run) end, Run);
        _ ->
            Run
    end;
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

resolved(Options, Eof) ->
    [case Option of {Key, Place} -> {Key, fuzz_ops:resolve(Place, Eof, Eof)}; _ -> Option end || Option <- Options].

%% Of the descriptor of a handle, which may be the one that the new one takes the place of.
opened_again(Slot, Of, Mode, Options, Source, {ok, #{descriptor := Fd}}, #run{model = Model} = Run) ->
    Eof = fuzz_model:inode_size(fuzz_model:inode_of_handle(Of, Model), Model),
    Opened = opened(Slot, {fd, Of}, {fd, Fd}, Mode, resolved(Options, Eof), Run),
    {ok, #{descriptor := Fd}} = iommap:info(Source),
    collected(Opened);
opened_again(_, _, _, _, _, {error, closed}, Run) ->
    Run.

opened(Slot, Source, Found, Mode, Options, #run{model = Model, handles = Handles} = Run) ->
    put(call, {open, Source, Mode, Options}),
    {Expected, Next} = fuzz_model:open(Slot, Source, Mode, Options, Model),
    case iommap:open(Found, Mode, Options) of
        {ok, Handle} when Expected =:= ok -> with_file(Slot, Handle, Run#run{model = Next, handles = Handles#{Slot => Handle}});
        Expected -> Run#run{model = Next};
        Got -> unlike(Expected, Got)
    end.

%% Memory without a name is looked at by the path that tells where it is.
with_file(Slot, Handle, #run{model = Model, files = Files} = Run) ->
    Id = fuzz_model:inode_of_handle(Slot, Model),
    case iommap:info(Handle) of
        {ok, #{path := <<"/proc/", _/binary>> = Path}} when not is_map_key(Id, Files) ->
            {ok, File} = file:open(Path, [read, raw, binary]),
            Run#run{files = Files#{Id => File}};
        {ok, _} ->
            Run
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
    {Expected, Next} = fuzz_model:pread(Slot, Offset, Length, Model),
    same(Expected, iommap:pread(Handle, Offset, Length)),
    Run#run{model = Next};
call({with_view, Slot, From, Count}, Handle, Resolve, #run{model = Model} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {with_view, Slot, Offset, Length}),
    {Expected, Next} = fuzz_model:with_view(Slot, Offset, Length, Model),
    same(Expected, iommap:with_view(Handle, Offset, Length, fun binary:copy/1)),
    Run#run{model = Next};
call({region, Slot, From, Count}, Handle, Resolve, #run{model = Model, views = Views} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {region_binary, Slot, Offset, Length}),
    {Expected, Next} = fuzz_model:region(Slot, Offset, Length, Model),
    case {Expected, iommap:region_binary(Handle, Offset, Length)} of
        {{ok, View}, {ok, Binary}} when byte_size(Binary) =:= Length ->
            Run#run{model = Next, views = Views ++ [{View, Binary}]};
        {Same, Same} -> Run#run{model = Next};
        {_, Got} -> unlike(Expected, Got)
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
call({pread, Slot, Places}, Handle, Resolve, #run{model = Model} = Run) ->
    Ranges = [{Resolve(From), length_of(Resolve(From), Count, Resolve)} || {From, Count} <- Places],
    put(call, {pread, Slot, Ranges}),
    {Expected, Next} = fuzz_model:pread(Slot, Ranges, Model),
    case {Expected, iommap:pread(Handle, Ranges)} of
        {{ok, All}, {ok, Binaries}} when length(All) =:= length(Binaries) ->
            [same({ok, Bytes}, {ok, Binary}) || {Bytes, Binary} <- lists:zip(All, Binaries)];
        {Same, Same} -> ok;
        {_, Got} -> unlike(Expected, Got)
    end,
    Run#run{model = Next};
call({pwrite, Slot, Places}, Handle, Resolve, Run) ->
    Data = [{Resolve(From), data(Data, Slot, Resolve(From), Resolve, Run)} || {From, Data} <- Places],
    Writes = [{Offset, Written, Bytes, IsIntact} || {Offset, {Written, Bytes, IsIntact}} <- Data],
    put(call, {pwrite, Slot, [{Offset, byte_size(Bytes)} || {Offset, _, Bytes, _} <- Writes]}),
    Got = iommap:pwrite(Handle, [{Offset, Written} || {Offset, Written, _, _} <- Writes]),
    AllIntact = case [IsIntact || {_, _, _, IsIntact} <- Writes, IsIntact =/= true] of
        [] -> true;
        NotSure -> not lists:member(false, NotSure) andalso unknown
    end,
    all_written(Got, Slot, [{Offset, Bytes} || {Offset, _, Bytes, _} <- Writes], AllIntact, Run);
call({truncate, Slot, Place}, Handle, Resolve, #run{model = Model} = Run) ->
    Size = Resolve(Place),
    put(call, {truncate, Slot, Size}),
    {Expected, Next} = fuzz_model:truncate(Slot, Size, Model),
    same(Expected, iommap:truncate(Handle, Size)),
    Run#run{model = Next};
call({ensure_size, Slot, Place}, Handle, Resolve, #run{model = Model} = Run) ->
    Size = Resolve(Place),
    put(call, {ensure_size, Slot, Size}),
    {Expected, Next} = fuzz_model:ensure_size(Slot, Size, Model),
    same(Expected, iommap:ensure_size(Handle, Size)),
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
    case {fuzz_model:advise(Slot, Offset, Length, Hint, Model), iommap:advise(Handle, Offset, Length, Hint)} of
        {Same, Same} -> Run;
        {ok, {error, Reason}} -> lists:member(Reason, may_lack(Hint)) orelse unlike(ok, {error, Reason}), Run;
        {Expected, Got} -> unlike(Expected, Got)
    end;
call({sync, Slot, From, Count, Mode}, Handle, Resolve, #run{model = Model} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {sync, Slot, Offset, Length, Mode}),
    same(fuzz_model:sync(Slot, Offset, Length, Model), iommap:sync(Handle, Offset, Length, Mode)),
    Run;
call({Verb, Slot, From, Count}, Handle, Resolve, #run{model = Model} = Run) when Verb =:= lock; Verb =:= unlock ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {Verb, Slot, Offset, Length}),
    same(fuzz_model:Verb(Slot, Offset, Length, Model), iommap:Verb(Handle, Offset, Length)),
    Run;
call({resident, Slot, From, Count}, Handle, Resolve, #run{model = Model} = Run) ->
    {Offset, Length} = {Resolve(From), length_of(Resolve(From), Count, Resolve)},
    put(call, {resident, Slot, Offset, Length}),
    case {fuzz_model:resident(Slot, Offset, Length, Model), iommap:resident(Handle, Offset, Length)} of
        {{ok, Most}, {ok, Bytes}} when Bytes >= 0, Bytes =< Most -> Run;
        {Same, Same} -> Run;
        {Expected, Got} -> unlike(Expected, Got)
    end;
call({atomic, Slot, Place, Misaligned, What}, Handle, Resolve, #run{model = Model} = Run) ->
    Rough = Resolve(Place),
    Lead = (fuzz_model:start(Slot, Model) + Rough) rem 8,
    Offset = max(0, Rough - Lead) + Misaligned,
    put(call, {atomic, Slot, Offset, What}),
    case {fuzz_model:is_word(Slot, Offset, Model), raised(fun() -> iommap_atomics:new(Handle, Offset, 1, []) end)} of
        {true, {ok, Array}} -> atomic(What, Array, Slot, Offset, Run);
        {false, badarg} -> Run;
        {IsWord, Got} -> unlike({is_word, IsWord}, Got)
    end;
call({position, Slot}, Handle, _, #run{model = Model} = Run) ->
    same(fuzz_model:size(Slot, Model), iommap:position(Handle)),
    Run;
call({info, Slot}, Handle, _, #run{model = Model} = Run) ->
    Known = [size, offset, mode, sharing, faulted, page_size],
    Got = case iommap:info(Handle) of
        {ok, Info} -> {ok, maps:with(Known, Info)};
        Error -> Error
    end,
    same(fuzz_model:info(Slot, Model), Got),
    Run.

%% What a system need not have, or cannot do now.
may_lack(collapse) -> [enotsup, einval, eagain, ebusy, enomem];
may_lack(Hint) when Hint =:= hugepage; Hint =:= nohugepage -> [enotsup];
may_lack(_) -> [].

raised(Function) ->
    try {ok, Function()} catch error:Reason when Reason =:= badarg; Reason =:= sigbus -> Reason end.

%% A word that is known may be added to; the sum says what it was.
atomic(get, Array, Slot, Offset, #run{model = Model} = Run) ->
    same(fuzz_model:load_word(Slot, Offset, Model), word(raised(fun() -> iommap_atomics:get(Array, 1) end))),
    Run;
atomic({put, Value}, Array, Slot, Offset, #run{model = Model} = Run) ->
    {Expected, Next} = fuzz_model:store_word(Slot, Offset, <<Value:64/native>>, Model),
    case {Expected, raised(fun() -> iommap_atomics:put(Array, 1, Value) end)} of
        {ok, {ok, ok}} -> Run#run{model = Next};
        {Same, Same} -> Run;
        {_, Got} -> unlike(Expected, Got)
    end;
atomic({add, Value}, Array, Slot, Offset, #run{model = Model} = Run) ->
    case raised(fun() -> iommap_atomics:add_get(Array, 1, Value) end) of
        {ok, Sum} ->
            same(fuzz_model:load_word(Slot, Offset, Model), word({ok, Sum - Value})),
            {ok, Next} = fuzz_model:store_word(Slot, Offset, <<Sum:64/native>>, Model),
            Run#run{model = Next};
        Reason ->
            %% What may not be written to is not looked at.
            Expected = case {fuzz_model:load_word(Slot, Offset, Model), fuzz_model:store_word(Slot, Offset, <<0:64>>, Model)} of
                {badarg, _} -> badarg;
                {_, {Stored, _}} -> Stored
            end,
            same(Expected, Reason),
            Run
    end.

word({ok, Value}) -> {ok, <<Value:64/native>>};
word(Reason) -> Reason.

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

all_written(Got, Slot, Writes, unknown, #run{model = Model} = Run) ->
    {Expected, _} = fuzz_model:pwrite(Slot, Writes, true, Model),
    all_written(Got, Slot, Writes, Got =:= Expected, Run);
all_written(Got, Slot, Writes, IsIntact, #run{model = Model} = Run) ->
    {Expected, Next} = fuzz_model:pwrite(Slot, Writes, IsIntact, Model),
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
data({Form, Byte, Place}, _, Offset, Resolve, #run{model = Model, devices = Devices}) ->
    Rest = max(0, Resolve({'end', 0}) - Offset),
    Length = min(length_of(Offset, Place, Resolve), Rest + 1),
    Data = form(Form, Byte, Length),
    %% What does not begin at a whole byte is a copy that the VM made, of anything. Devices have mappings, too.
    Known = Form =/= part_of_a_byte orelse (Devices =:= #{} andalso fuzz_model:is_all_intact(Model)),
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

%% ---- Files as a whole -------------------------------------------------------------------------

%% Every open handle is among the mappings that are listed, as often as it is there.
listed(#run{model = Model, directory = Directory, handles = Handles} = Run) ->
    put(call, list),
    Path = fun
        (_, {fd, _}) -> undefined;
        (Slot, anonymous) -> path(maps:get(Slot, Handles));
        (_, Name) -> list_to_binary(filename:join(Directory, Name))
    end,
    Expected = [Info#{path => Path(Slot, Source)} || {Slot, Source, Info} <- fuzz_model:open_handles(Model)],
    Keys = [path, size, offset, mode, sharing, faulted, page_size],
    Listed = [maps:with(Keys, Info) || #{handle := open} = Info <- iommap:list()],
    case Expected -- Listed of
        [] -> Run;
        Missing -> unlike(Missing, Listed)
    end.

path(Handle) ->
    {ok, #{path := Path, descriptor := Fd}} = iommap:info(Handle),
    same(iolist_to_binary(["/proc/", os:getpid(), "/fd/", integer_to_list(Fd)]), Path),
    Path.

file_read(Name, #run{model = Model, directory = Directory, views = Views} = Run) ->
    put(call, {read_file, Name}),
    {Expected, Next} = fuzz_model:read_file(Name, Model),
    case {Expected, iommap:read_file(filename:join(Directory, Name))} of
        {{ok, empty}, {ok, <<>>}} -> Run;
        {{ok, View}, {ok, Binary}} when View =/= empty -> Run#run{model = Next, views = Views ++ [{View, Binary}]};
        {Same, Same} -> Run;
        {_, Got} -> unlike(Expected, Got)
    end.

%% ---- Devices ----------------------------------------------------------------------------------

%% What the file is grown to by a device, at the most.
-define(LONGEST, 4_000_000).

device_opened(N, Name, #run{model = Model, directory = Directory, devices = Devices, borrowed = Borrowed} = Run) ->
    case fuzz_model:names(Model) of
        #{Name := Id} ->
            put(call, {open_device, N, Name}),
            Path = filename:join(Directory, Name),
            is_map_key(N, Devices) andalso close_device(maps:get(N, Devices)),
            {ok, Raw} = file:open(Path, [raw, read, write, binary]),
            case iommap_file:open(Path, [read, write, binary]) of
                {ok, Device} -> Run#run{devices = Devices#{N => {Device, Raw, Id}}, borrowed = maps:remove(N, Borrowed)};
                Error -> unlike({ok, device}, Error)
            end;
        _ ->
            Run
    end.

%% A device on a handle. What a private mapping or one that may not do both shows is no raw file's.
device_from(N, Slot, Handle, #run{model = Model, devices = Devices, borrowed = Borrowed} = Run) ->
    put(call, {device_from, N, Slot}),
    case {fuzz_model:device_from(Slot, Model), iommap_file:from(Handle)} of
        {{ok, Id, read_write, shared}, {ok, Device}} ->
            {ok, #{descriptor := Fd}} = iommap:info(Handle),
            {ok, Raw} = file:open("/proc/self/fd/" ++ integer_to_list(Fd), [raw, read, write, binary]),
            is_map_key(N, Devices) andalso close_device(maps:get(N, Devices)),
            Run#run{devices = Devices#{N => {Device, Raw, Id}}, borrowed = Borrowed#{N => {Slot, Handle}}};
        {{ok, _, _, _}, {ok, Device}} ->
            same(ok, file:close(Device)),
            Run;
        {Same, Same} ->
            Run;
        {Expected, Got} ->
            unlike(Expected, Got)
    end.

%% A call of a device on a handle, after which the handle's mapping may have followed the file. Once the handle is closed, the device
%% is as good as closed.
borrowed(N, Call, #run{borrowed = Borrowed, devices = Devices, handles = Handles} = Run) ->
    case Borrowed of
        #{N := {Slot, Handle}} ->
            case iommap:position(Handle) of
                {ok, _} -> followed(Slot, Handle, Call(), Handles);
                {error, closed} -> same({error, einval}, file:pread(element(1, maps:get(N, Devices)), 0, 1)), Run
            end;
        _ ->
            Call()
    end.

followed(Slot, Handle, #run{model = Model} = Run, Handles) when map_get(Slot, Handles) =:= Handle ->
    {ok, Size} = iommap:position(Handle),
    case fuzz_model:device_left(Slot, Size, Model) of
        {ok, Next} -> Run#run{model = Next};
        {wrong, Sizes} -> unlike({left, Sizes}, {left, Size})
    end;
followed(_, _, Run, _) ->
    Run.

close_device({Device, Raw, _}) ->
    ok = file:close(Device),
    ok = file:close(Raw).

%% Reads are asked of both; writes are done by the device alone, and the raw file is what looks at them (observe/1).
device({pread, From, Count}, Device, Resolve, Run) ->
    {Offset, Length} = {min(Resolve(From), 1 bsl 62), device_length(Resolve(From), Count, Resolve)},
    put(call, {device_pread, Offset, Length}),
    alike(fun(File) -> file:pread(File, Offset, Length) end, Device, Run);
device({read, Count}, Device, Resolve, Run) ->
    Length = device_length(0, Count, Resolve),
    put(call, {device_read, Length}),
    alike(fun(File) -> file:read(File, Length) end, Device, Run);
device({position, Whence, Distance}, Device, _, Run) ->
    put(call, {device_position, Whence, Distance}),
    alike(fun(File) -> file:position(File, {Whence, Distance}) end, Device, Run);
device(read_line, {Device, Raw, _} = Both, _, Run) ->
    put(call, device_read_line),
    alike(line(Raw), file:read_line(Device), Both, Run);
device(datasync, Device, _, Run) ->
    put(call, device_datasync),
    alike(fun file:datasync/1, Device, Run);
device({pwrite, From, Count, Byte}, {Device, _, Id}, Resolve, Run) ->
    {Offset, Length} = {Resolve(From), device_length(Resolve(From), Count, Resolve)},
    put(call, {device_pwrite, Offset, Length}),
    device_write(fun(Data) -> file:pwrite(Device, Offset, Data) end, Offset, Length, Byte, Id, Run);
device({write, Count, Byte}, {Device, Raw, Id}, Resolve, Run) ->
    {ok, Offset} = file:position(Raw, cur),
    Length = device_length(Offset, Count, Resolve),
    put(call, {device_write, Offset, Length}),
    Next = device_write(fun(Data) -> file:write(Device, Data) end, Offset, Length, Byte, Id, Run),
    {ok, Now} = file:position(Device, cur),
    same({ok, Now}, file:position(Raw, case Offset + Length > ?LONGEST of true -> Offset; false -> Offset + Length end)),
    Next;
device(truncate, {Device, Raw, Id}, _, #run{model = Model} = Run) ->
    {ok, Size} = file:position(Raw, cur),
    put(call, {device_truncate, Size}),
    case Size > ?LONGEST of
        true ->
            Run;
        false ->
            {Expected, Next} = fuzz_model:device_truncate(Size, Id, Model),
            same(Expected, file:truncate(Device)),
            Run#run{model = Next}
    end.

%% A raw file reads lines ahead, and would not see what is written meanwhile.
line(Raw) ->
    {ok, At} = file:position(Raw, cur),
    {ok, Size} = file:position(Raw, eof),
    {ok, At} = file:position(Raw, At),
    case file:pread(Raw, At, max(1, Size - At)) of
        {ok, Rest} ->
            Line = case binary:split(Rest, <<"\n">>) of
                [Text, _] -> <<Text/binary, "\n">>;
                [Last] -> Last
            end,
            {ok, _} = file:position(Raw, At + byte_size(Line)),
            {ok, binary:replace(Line, <<"\r\n">>, <<"\n">>)};
        eof ->
            eof
    end.

alike(Call, {Device, Raw, _} = Both, Run) ->
    alike(Call(Raw), Call(Device), Both, Run).

alike(FromRaw, FromDevice, {Device, Raw, Id}, #run{model = Model} = Run) ->
    case {FromRaw, FromDevice, fuzz_model:tail(Id, Model)} of
        {Same, Same, _} ->
            Run;
        {Expected, {ok, Got}, Tail} when is_binary(Got), Tail =/= zeros ->
            %% What another mapping left behind the end of the file, in its last page, is taken for the file's
            %% (guides/features.md, Devices).
            Before = case Expected of {ok, Read} -> Read; eof -> <<>> end,
            Behind = byte_size(Got) - byte_size(Before),
            Behind > 0 andalso Behind =< fuzz_bytes:size(Tail) orelse unlike(Expected, {ok, Got}),
            same({ok, fuzz_bytes:append([Before], fuzz_bytes:part(Tail, 0, Behind))}, {ok, Got}),
            {ok, At} = file:position(Device, cur),
            {ok, At} = file:position(Raw, At),
            Run;
        {{ok, Expected}, {ok, Got}, _} when is_binary(Expected), is_binary(Got) ->
            same({ok, [Expected]}, {ok, Got}),
            Run;
        {Expected, Got, _} ->
            unlike(Expected, Got)
    end.

device_write(_, Offset, Length, _, _, Run) when Offset + Length > ?LONGEST ->
    Run;
device_write(Write, Offset, Length, Byte, Id, #run{model = Model} = Run) ->
    same(ok, Write(binary:copy(<<Byte>>, Length))),
    case Length of
        0 -> Run;
        _ -> Run#run{model = fuzz_model:change({fill, Offset, Length, Byte}, Id, Model)}
    end.

device_length(Offset, Count, Resolve) ->
    min(length_of(Offset, Count, Resolve), Resolve({eof, 5000})).

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
same({sigbus_or, _}, {error, sigbus}) ->
    ok;
same({sigbus_or, Bytes}, Got) ->
    same({ok, Bytes}, Got);
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

%% A few bytes, as hexadecimal digits, from where they are wrong on.
brief(Bytes, {length, _}) ->
    {size, fuzz_bytes:size(Bytes)};
brief(Bytes, At) ->
    Count = min(8, fuzz_bytes:size(Bytes) - At),
    {at, At, 'of', fuzz_bytes:size(Bytes), [binary:encode_hex(One) || One <- fuzz_bytes:part(Bytes, At, Count)]}.

%% Counted around, so that a number means something however many there are.
nth(_, [], _, Otherwise) -> Otherwise;
nth(N, List, Use, _) -> Use(lists:nth(N rem length(List) + 1, List)).
