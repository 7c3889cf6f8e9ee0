%% Makes the calls of call_model.erl on real files, from any process.
-module(call_runner).

-export([with_files/1]).
-export([call/1]).

-import(call_model, [page/0]).

%% Makes the files, opens all handles, and evaluates the function.
-spec with_files(fun(() -> Result)) -> Result.
with_files(Function) ->
    test_files:with_directory(fun(Directory) ->
        ?MODULE = ets:new(?MODULE, [named_table, public]),
        ok = file:write_file(filename:join(Directory, "file"), test_pattern:bytes(call_model:file_size())),
        Pages = [[<<Word:64/native>>, test_pattern:zeros(page() - 8)] || Word <- call_model:words()],
        ok = file:write_file(filename:join(Directory, "words"), Pages),
        Self = self(),
        Other = spawn_link(fun() -> Port = external_writer:start(), Self ! {self(), started}, serve(Port, Directory) end),
        receive {Other, started} -> ok end,
        true = register(?MODULE, Other),
        [ok = call({open, Handle}) || Handle <- [memory, file, main, window, follower, private]],
        try
            Function()
        after
            _ = ask(stop),
            [iommap:close(Handle) || {_, Handle} <- ets:tab2list(?MODULE), is_reference(Handle)],
            ets:delete(?MODULE)
        end
    end).

%% One process opens, loads, and talks to the other OS process: at most one handle of a name is open, and one command under way.
serve(Port, Directory) ->
    receive
        {From, stop} ->
            external_writer:stop(Port),
            unlink(From),
            From ! {self(), ok};
        {From, Call} ->
            From ! {self(), serve(Call, Port, Directory)},
            serve(Port, Directory)
    end.

serve({open, Name}, _, Directory) ->
    case ets:lookup(?MODULE, Name) of
        [] -> opened(Name, open(Name, Directory));
        [{_, Handle}] ->
            case iommap:position(Handle) of
                {error, closed} -> opened(Name, open(Name, Directory));
                {ok, _} -> open_already
            end
    end;
serve(reload, _, _) ->
    %% Not if a call of the code before is still running.
    _ = code:soft_purge(iommap) andalso code:load_file(iommap),
    ok;
serve({another, What, Value}, Port, Directory) ->
    [File, Words] = [filename:join(Directory, Name) || Name <- ["file", "words"]],
    external_writer:try_to(Port, case What of
        far -> ["repeat", File, call_model:far(), 1, Value];
        pages -> ["truncate", Words, Value * page()];
        add -> ["add", Words, 0, Value];
        low -> ["repeat", Words, 0, 1, Value]
    end).

ask(Call) ->
    Server = whereis(?MODULE),
    Server ! {self(), Call},
    receive {Server, Answer} -> Answer end.

open(memory, _) -> iommap:open(anonymous, read_write, [{size, call_model:file_size()}]);
open(file, Directory) -> iommap:open(filename:join(Directory, "file"), read_write, [{reserve, 3 * page()}]);
open(Part, Directory) ->
    {Mode, Options} = case Part of
        main -> {read_write, [{reserve, 4 * page()}]};
        window -> {read_write, [{offset, page()}, {length, 2 * page()}]};
        follower -> {read, [follow]};
        private -> {read_write, [private]}
    end,
    iommap:open(filename:join(Directory, "words"), Mode, Options).

opened(Name, {ok, Handle}) ->
    true = ets:insert(?MODULE, {Name, Handle}),
    ok;
opened(_, Error) ->
    Error.

%% The answer, as the model gives it.
-spec call(call_model:call()) -> term().
call({open, _} = Open) ->
    ask(Open);
call({another, _, _} = Another) ->
    ask(Another);
call(reload) ->
    ask(reload);
call(list) ->
    _ = iommap:stats(),
    [_ | _] = iommap:list(),
    ok;
call({look, Name, Part}) ->
    case ets:lookup(?MODULE, {view, Name}) of
        [] -> none;
        [{_, <<>> = View}] -> {empty, iommap:intact(View)};
        [{_, View}] -> {binary:at(View, byte_size(View) * Part div 1000), iommap:intact(View)}
    end;
call({forget, Name}) ->
    true = ets:delete(?MODULE, {view, Name}),
    ok;
call({view, Name, {Offset, Length}}) ->
    case iommap:region_binary(handle(memory), Offset, Length) of
        {ok, View} when byte_size(View) =:= Length -> true = ets:insert(?MODULE, {{view, Name}, View}), ok;
        Error -> Error
    end;
call({with_view, {Offset, Length}}) ->
    iommap:with_view(handle(memory), Offset, Length, fun(<<>>) -> empty; (View) -> binary:first(View) end);
call({close, Name}) ->
    iommap:close(handle(Name));
call({position, Name}) ->
    iommap:position(handle(Name));
call({info, Name}) ->
    case iommap:info(handle(Name)) of
        {ok, #{size := Size, locked := Locked}} when Name =:= memory; Name =:= file -> {ok, {Size, Locked}};
        {ok, #{size := Size}} -> {ok, Size};
        Error -> Error
    end;
call({remap, Name}) ->
    iommap:remap(handle(Name));
call({pread, Name, {Offset, Length}}) ->
    iommap:pread(handle(Name), Offset, Length);
call({pread, Name, Ranges}) ->
    iommap:pread(handle(Name), Ranges);
call({pwrite, Name, {Offset, Data}}) ->
    iommap:pwrite(handle(Name), Offset, Data);
call({pwrite, Name, Writes}) ->
    iommap:pwrite(handle(Name), Writes);
call({Verb, Name, Size}) when Verb =:= truncate; Verb =:= ensure_size ->
    iommap:Verb(handle(Name), Size);
call({sync, Name, Mode}) ->
    iommap:sync(handle(Name), Mode);
call({Verb, Name, {Offset, Length}, Argument}) when Verb =:= sync; Verb =:= advise ->
    iommap:Verb(handle(Name), Offset, Length, Argument);
call({Verb, Name, Page, Argument}) when Verb =:= sync; Verb =:= advise ->
    iommap:Verb(handle(Name), Page * page(), page(), Argument);
call({resident, Name, {Offset, Length}}) ->
    case iommap:resident(handle(Name), Offset, Length) of
        {ok, Bytes} when Bytes >= 0, Bytes =< Length -> ok;
        Answer -> Answer
    end;
call({Verb, Name, {Offset, Length}}) when Verb =:= lock; Verb =:= unlock ->
    iommap:Verb(handle(Name), Offset, Length);
call({get, Name, Page}) ->
    iommap:pread(handle(Name), Page * page(), 8);
call({put, Name, Page, Word}) ->
    iommap:pwrite(handle(Name), Page * page(), <<Word:64/native>>);
call({atomic, Name, Page, {Function, Values}}) ->
    %% Between the two calls the word may be cut off, or the handle closed: which of both saw it makes no difference here.
    try
        Array = iommap_atomics:new(handle(Name), Page * page(), 1, [{signed, false}]),
        {ok, apply(iommap_atomics, Function, [Array, 1 | Values])}
    catch
        error:Reason when Reason =:= badarg; Reason =:= sigbus -> error
    end;
call({cut, Pages}) ->
    iommap:truncate(handle(main), Pages * page()).

handle(Name) ->
    ets:lookup_element(?MODULE, Name, 2).
