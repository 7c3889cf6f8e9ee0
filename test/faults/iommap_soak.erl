%% Everything at once for as long as one likes: readers, writers, truncating OS processes, resizing,
%% reloading, collecting, opening and closing, with every answer checked. Started by soak.sh.
%%
%% A first short phase brings the VM to its working size; what the long one leaves beyond that (memory,
%% descriptors, address ranges) is a leak.
-module(iommap_soak).

-export([main/0]).

-define(LARGE, 1_000_000).

%% How long one step of a worker may take, in milliseconds; more means that it hangs.
-define(PATIENCE, 150_000).

main() ->
    [Directory, Libraries, Seconds] = init:get_plain_arguments(),
    Duration = list_to_integer(Seconds),
    _ = foreign_handler:install(chaining),
    Roles = roles(Libraries),
    WarmUp = min(20, Duration div 4 + 1),
    _ = phase(Roles, Directory, WarmUp),
    Before = footprint(Directory),
    Counts = phase(Roles, Directory, Duration - WarmUp),
    [io:format("~-28s~12b~n", [Role, Count]) || {Role, Count} <- Counts],
    [] = [Role || {Role, 0} <- Counts],
    Leaks = leaks(Before, fun() -> footprint(Directory) end),
    [io:format("LEAK ~p: ~p before, ~p after~n", [What, Was, Is]) || {What, Was, Is} <- Leaks],
    halt(case Leaks of [] -> 0; _ -> 1 end).

%% What each process does over and over; the same role may have several.
roles(Libraries) ->
    [{reader, fun start_reader/2, fun read/1},
     {reader, fun start_reader/2, fun read/1},
     {writer, fun start_writer/2, fun write/1},
     {private_writer, fun start_private_writer/2, fun write_privately/1},
     {reader_of_truncated_file, fun start_victim/2, fun read_truncated/1},
     {reader_of_truncated_file, fun start_victim/2, fun read_truncated/1},
     {writer_of_truncated_file, fun start_victim/2, fun write_truncated/1},
     {resizer, fun start_resizer/2, fun resize/1},
     {opener, fun start_opener/2, fun open_and_leave/1},
     {opener, fun start_opener/2, fun open_and_leave/1},
     {opener, fun start_opener/2, fun open_and_leave/1},
     {closer, fun start_closer/2, fun close_under_a_reader/1},
     {collector, fun start_reader/2, fun collect/1},
     {foreign_handler, fun(_, _) -> none end, fun have_a_foreign_handlers_fault/1},
     {reloader, fun(Directory, _) -> start_reloader(Directory, Libraries) end, fun reload/1}].

%% ---- Phases -----------------------------------------------------------------------------------

phase(Roles, Directory, Seconds) ->
    Files = filename:join(Directory, "files"),
    ok = file:make_dir(Files),
    Workers = [start_worker(Role, Number, Files) || {Number, Role} <- lists:zip(lists:seq(1, length(Roles)), Roles)],
    Alarm = erlang:start_timer(Seconds * 1000, self(), enough),
    receive
        {timeout, Alarm, enough} -> ok;
        {'DOWN', _, process, Pid, Reason} -> fail(Workers, Pid, Reason)
    end,
    [Pid ! stop || {_, Pid, _} <- Workers],
    Counts = [count(Worker, Workers) || Worker <- Workers],
    ok = file:del_dir_r(Files),
    Counts.

count({Role, Pid, Monitor}, Workers) ->
    receive
        {'DOWN', Monitor, process, Pid, {done, Count}} -> {Role, Count};
        {'DOWN', Monitor, process, Pid, Reason} -> fail(Workers, Pid, Reason)
    after ?PATIENCE ->
        io:format("HANGS ~p~n", [Role]),
        fail(Workers, Pid, {hangs, state(Pid)})
    end.

%% A process that a scheduler does not come back from never answers.
state(Pid) ->
    {_, Monitor} = spawn_monitor(fun() ->
        exit({state, process_info(Pid, [status, current_stacktrace, message_queue_len])})
    end),
    receive
        {'DOWN', Monitor, process, _, {state, State}} -> State
    after 10_000 ->
        on_a_scheduler
    end.

start_worker({Role, Start, Step}, Number, Files) ->
    {Pid, Monitor} = spawn_monitor(fun() -> work(Step, Start(Files, Number), 0) end),
    {Role, Pid, Monitor}.

work(Step, State, Count) ->
    receive
        stop -> exit({done, Count})
    after 0 ->
        work(Step, Step(State), Count + 1)
    end.

fail(Workers, Pid, Reason) ->
    {Role, Pid, _} = lists:keyfind(Pid, 2, Workers),
    io:format("FAILED ~p: ~p~n", [Role, Reason]),
    halt(1).

%% ---- Roles ------------------------------------------------------------------------------------

file(Files, Number, Size) ->
    Path = filename:join(Files, integer_to_list(Number)),
    ok = file:write_file(Path, test_pattern:bytes(Size)),
    Path.

start_reader(Files, Number) ->
    {ok, Handle} = iommap:open(file(Files, Number, ?LARGE), read, []),
    Handle.

read(Handle) ->
    {Offset, Length} = part(?LARGE),
    Bytes = test_pattern:bytes(Offset, Length),
    {ok, Bytes} = iommap:pread(Handle, Offset, Length),
    {ok, View} = iommap:region_binary(Handle, Offset, Length),
    true = View =:= Bytes,
    true = iommap:intact(View),
    Handle.

start_writer(Files, Number) ->
    Path = file(Files, Number, ?LARGE),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Path, Handle}.

%% The bytes of another place, seen at once through the handle, a view and the file.
write({Path, Handle} = State) ->
    {Offset, Length} = part(?LARGE),
    Bytes = test_pattern:bytes(rand:uniform(1000), Length),
    ok = iommap:pwrite(Handle, Offset, halves(Bytes)),
    {ok, Bytes} = iommap:pread(Handle, Offset, Length),
    {ok, View} = iommap:region_binary(Handle, Offset, Length),
    true = View =:= Bytes,
    case rand:uniform(100) of
        1 ->
            ok = iommap:sync(Handle),
            {ok, File} = file:open(Path, [read, raw, binary]),
            {ok, Bytes} = file:pread(File, Offset, Length),
            ok = file:close(File);
        2 ->
            ok = iommap:sync(Handle, async);
        3 ->
            ok = iommap:advise(Handle, Offset, Length, dontneed),
            {ok, Bytes} = iommap:pread(Handle, Offset, Length);
        _ ->
            ok
    end,
    State.

halves(Bytes) ->
    {First, Second} = split_binary(Bytes, byte_size(Bytes) div 2),
    [First, [Second]].

start_private_writer(Files, Number) ->
    {ok, Handle} = iommap:open(file(Files, Number, ?LARGE), read_write, [private]),
    {filename:join(Files, integer_to_list(Number)), Handle}.

write_privately({Path, Handle} = State) ->
    {Offset, Length} = part(?LARGE),
    Bytes = test_pattern:bytes(rand:uniform(1000), Length),
    ok = iommap:pwrite(Handle, Offset, Bytes),
    {ok, Bytes} = iommap:pread(Handle, Offset, Length),
    case rand:uniform(1000) of
        1 -> true = file:read_file(Path) =:= {ok, test_pattern:bytes(?LARGE)};
        _ -> true
    end,
    State.

%% A file that an OS process shrinks and appends to for ever; it never holds a zero.
start_victim(Files, Number) ->
    Size = 64 * test_pattern:page(),
    Path = file(Files, Number, Size),
    {ok, Handle} = iommap:open(Path, read_write, []),
    External = external_writer:start(),
    ok = external_writer:race(External, Path, Size, Number),
    {Handle, Size}.

read_truncated({Handle, Size} = State) ->
    {Offset, Length} = part(Size),
    Bytes = test_pattern:bytes(Offset, Length),
    case iommap:pread(Handle, Offset, Length) of
        {ok, Copy} -> true = Copy =:= Bytes;
        {error, Reason} -> true = lists:member(Reason, [sigbus, out_of_bounds])
    end,
    case iommap:region_binary(Handle, Offset, Length) of
        {ok, View} ->
            Seen = binary:copy(View),
            true = not iommap:intact(View) orelse Seen =:= Bytes;
        {error, Lost} ->
            true = lists:member(Lost, [sigbus, out_of_bounds]),
            case iommap:remap(Handle) of
                {ok, _} -> ok;
                {error, einval} -> ok
            end
    end,
    State.

%% What it writes is what the file had, so that nothing changes.
write_truncated({Handle, Size} = State) ->
    {Offset, Length} = part(Size),
    case iommap:pwrite(Handle, Offset, test_pattern:bytes(Offset, Length)) of
        ok -> ok;
        {error, sigbus} -> ok;
        {error, out_of_bounds} -> {_, _} = iommap:remap(Handle)
    end,
    State.

start_resizer(Files, Number) ->
    {ok, Handle} = iommap:open(file(Files, Number, ?LARGE), read_write, []),
    {Handle, ?LARGE, none}.

%% The pattern as far as it was never cut, zeros from there; a view of before is that or not intact.
resize({Handle, Pattern, View}) ->
    Size = rand:uniform(?LARGE),
    ok = iommap:truncate(Handle, Size),
    {ok, Size} = iommap:position(Handle),
    Kept = min(Pattern, Size),
    true = iommap:pread(Handle, 0, Size)
        =:= {ok, <<(test_pattern:bytes(Kept))/binary, (test_pattern:zeros(Size - Kept))/binary>>},
    case View of
        none ->
            ok;
        {Old, OldPattern} ->
            Seen = binary:copy(Old),
            true = not iommap:intact(Old) orelse binary:part(Seen, 0, min(Kept, OldPattern))
                =:= test_pattern:bytes(min(Kept, OldPattern))
    end,
    ok = iommap:pwrite(Handle, 0, test_pattern:bytes(Size)),
    {ok, Next} = iommap:region_binary(Handle, 0, Size),
    {Handle, Size, {Next, Size}}.

start_opener(Files, Number) ->
    file(Files, Number, 100_000).

%% Half of the handles are closed, half are left to the collector; views outlive both.
open_and_leave(Path) ->
    Mode = lists:nth(rand:uniform(2), [read, read_write]),
    Sharing = lists:nth(rand:uniform(2), [shared, private]),
    {ok, Handle} = iommap:open(Path, Mode, [Sharing | [populate || rand:uniform(10) =:= 1]]),
    {ok, View} = iommap:region_binary(Handle, 50_000, 100),
    case rand:uniform(2) of
        1 -> ok = iommap:close(Handle), {error, closed} = iommap:close(Handle);
        2 -> ok
    end,
    true = View =:= test_pattern:bytes(50_000, 100),
    Path.

start_closer(Files, Number) ->
    file(Files, Number, ?LARGE).

%% A reader meets a close from elsewhere: right bytes, or closed, and a view that stays.
close_under_a_reader(Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    {Reader, Monitor} = spawn_monitor(fun() -> exit(read_until_closed(Handle, none)) end),
    erlang:yield(),
    ok = iommap:close(Handle),
    receive {'DOWN', Monitor, process, Reader, Reason} -> closed = Reason end,
    Path.

read_until_closed(Handle, View) ->
    {Offset, Length} = part(?LARGE),
    Bytes = test_pattern:bytes(Offset, Length),
    case iommap:pread(Handle, Offset, Length) of
        {ok, Copy} ->
            true = Copy =:= Bytes,
            case iommap:region_binary(Handle, 0, 1000) of
                {ok, Next} -> read_until_closed(Handle, Next);
                {error, closed} -> read_until_closed(Handle, View)
            end;
        {error, closed} when View =:= none ->
            closed;
        {error, closed} ->
            true = View =:= test_pattern:bytes(1000),
            closed
    end.

%% Views by the hundred, dropped at once.
collect(Handle) ->
    Views = [begin
        {ok, View} = iommap:region_binary(Handle, N * 1000, 500),
        View
    end || N <- lists:seq(0, 999)],
    true = lists:nth(500, Views) =:= test_pattern:bytes(499_000, 500),
    true = erlang:garbage_collect(),
    Handle.

have_a_foreign_handlers_fault(none) ->
    recovered = foreign_handler:recover(),
    recovered = foreign_handler:recover_dirty(),
    receive after 100 -> none end.

%% The same library again and again, and twenty times without a pause now and then; another one ten times
%% in all, since the images of replaced libraries stay.
start_reloader(_, Libraries) ->
    {Libraries, persistent_term:get(?MODULE, 0)}.

reload({Libraries, Generation}) ->
    receive after 200 -> ok end,
    Now = case Generation < 10 andalso rand:uniform(5) of
        1 -> put_in_place(Libraries, Generation), Generation + 1;
        _ -> Generation
    end,
    persistent_term:put(?MODULE, Now),
    Loads = case rand:uniform(10) of 1 -> 10; _ -> 1 end,
    [load() || _ <- lists:seq(1, Loads)],
    {Libraries, Now}.

load() ->
    ok = test_processes:eventually(fun() -> code:soft_purge(iommap) end),
    {module, iommap} = code:load_file(iommap).

put_in_place(Libraries, Generation) ->
    Library = lists:nth(1 + Generation rem 2, string:lexemes(Libraries, ":")),
    Target = filename:join(code:priv_dir(iommap), "iommap_nif.so"),
    {ok, _} = file:copy(Library, Target ++ ".new"),
    ok = file:rename(Target ++ ".new", Target).

%% A range, short more often than long.
part(Size) ->
    Offset = rand:uniform(Size) - 1,
    Most = case rand:uniform(20) of 1 -> Size; _ -> 4096 end,
    {Offset, rand:uniform(min(Most, Size - Offset))}.

%% ---- Leaks ------------------------------------------------------------------------------------

%% What the process holds, the images of the library left out.
footprint(Directory) ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, Maps} = file:read_file("/proc/self/maps"),
    Lines = [Line || Line <- string:lexemes(Maps, "\n"), string:find(Line, "iommap_nif") =:= nomatch],
    {ok, Descriptors} = file:list_dir("/proc/self/fd"),
    {ok, Status} = file:read_file("/proc/self/status"),
    #{descriptors => length(Descriptors),
      mapped_files => length([Line || Line <- Lines, string:find(Line, Directory) =/= nomatch]),
      address_ranges => length(Lines),
      binary_bytes => erlang:memory(binary),
      resident_kilobytes => kilobytes(Status, "RssAnon"),
      address_kilobytes => kilobytes(Status, "VmSize")}.

kilobytes(Status, Name) ->
    {match, [Kilobytes]} = re:run(Status, Name ++ ":\\s*(\\d+) kB", [{capture, all_but_first, list}]),
    list_to_integer(Kilobytes).

%% Every measure has to come back to where it was, give or take what a VM at rest varies by; the
%% collector and the threads that unmap get time for it.
leaks(Before, Measure) ->
    try
        test_processes:eventually(fun() -> grown(Before, Measure()) =:= [] end),
        []
    catch
        error:never -> grown(Before, Measure())
    end.

grown(Before, After) ->
    Slack = #{descriptors => 0, mapped_files => 0, address_ranges => 100, binary_bytes => 4_000_000,
              resident_kilobytes => 48_000, address_kilobytes => 128_000},
    [{What, Was, maps:get(What, After)}
     || {What, Was} <- maps:to_list(Before), maps:get(What, After) > Was + maps:get(What, Slack)].
