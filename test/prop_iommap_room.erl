%% Any growth, on a file system that has little room: what finds none has done nothing. It needs root, to mount it.
-module(prop_iommap_room).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_what_finds_no_room_does_nothing/0]).

-import(test_files, [with_directory/1]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_property, [holds/1]).

%% The pages of the file system, of which it may take some for itself.
-define(PAGES, 20).

prop_what_finds_no_room_does_nothing() ->
    %% A call that answers enospc leaves files, contents, blocks and mappings as they were; and there was less room than it asked for.
    case with_directory(fun(Directory) -> with_mount(Directory, fun(_) -> true end) end) of
        true -> numtests(100, ?FORALL(Calls, non_empty(list(call())), holds(fun() -> run(Calls) end)));
        {skip, _} -> true % the reason is printed
    end.

%% Calls

call() ->
    frequency([
        {4, {open, name(), size(), [create | oneof([[], [private], [{reserve, ?PAGES * page()}]])]}},
        {4, {oneof([truncate, ensure_size]), name(), size()}},
        {2, {another, size()}},
        {1, {close, name()}},
        {1, {delete, oneof([name(), "others"])}}
    ]).

name() -> oneof(["a", "b"]).

size() -> oneof([range(1, ?PAGES * page()), ?LET(Pages, range(1, ?PAGES + 5), Pages * page())]).

%% Running

run(Calls) ->
    with_directory(fun(Directory) -> with_mount(Directory, fun(Mount) -> run(Calls, Mount) end) end).

with_mount(Directory, Use) ->
    case test_mounts:mount({tmpfs, "size=" ++ integer_to_list(?PAGES * page())}, Directory) of
        {ok, Mount} -> try Use(Mount) after test_mounts:unmount(Mount) end;
        Skip -> Skip
    end.

run(Calls, Mount) ->
    Handles = lists:foldl(fun(Call, Handles) -> step(Call, Mount, Handles) end, #{}, Calls),
    [ok = iommap:close(Handle) || Handle <- maps:values(Handles)],
    true.

step({close, Name}, _, Handles) ->
    [ok = iommap:close(Handle) || #{Name := Handle} <- [Handles]],
    maps:remove(Name, Handles);
step({delete, Name}, Mount, Handles) ->
    _ = file:delete(test_mounts:path(Mount, Name)),
    Handles;
step({another, Size}, Mount, Handles) ->
    _ = file:write_file(test_mounts:path(Mount, "others"), bytes(Size)),
    Handles;
step(Call, Mount, Handles) ->
    Before = seen(Mount, Handles),
    case call(Call, Mount, Handles) of
        {error, enospc} ->
            ?assertEqual({Call, Before}, {Call, seen(Mount, Handles)}),
            Handles;
        {ok, Name, Handle} ->
            step({close, Name}, Mount, Handles),
            {ok, Size} = iommap:position(Handle),
            ?assert(Size >= element(3, Call)),
            Handles#{Name => Handle};
        Answer ->
            ?assertEqual({Call, ok}, {Call, Answer}),
            Handles
    end.

call({open, Name, Size, Options}, Mount, _) ->
    case iommap:open(test_mounts:path(Mount, Name), read_write, [{size, Size} | Options]) of
        {ok, Handle} -> {ok, Name, Handle};
        Error -> Error
    end;
call({Verb, Name, Size}, _, Handles) ->
    case Handles of
        #{Name := Handle} ->
            case iommap:Verb(Handle, Size) of
                {ok, Grown} when Grown >= Size -> ok;
                Answer -> Answer
            end;
        _ -> ok
    end.

%% The files, what they hold, the blocks that are taken, and what is mapped.
seen(#{point := Point} = Mount, Handles) ->
    {ok, Names} = file:list_dir(Point),
    {[{Name, file:read_file(test_mounts:path(Mount, Name))} || Name <- lists:sort(Names)],
     test_system:allocated(Point),
     [{Name, iommap:info(Handle), iommap:pread(Handle, 0, 1)} || {Name, Handle} <- lists:sort(maps:to_list(Handles))],
     [{Pages, Flags} || Name <- Names, {Pages, Flags} <- test_system:page_flags(test_mounts:path(Mount, Name))]}.
