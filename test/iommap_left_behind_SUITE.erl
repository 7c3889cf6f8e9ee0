%% Descriptors, addresses and memory: what a mapping takes, and that everything is given back.
-module(iommap_left_behind_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [file/2, mapping/2, mapping/4]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_processes, [eventually/1, in_a_process/1]).
-import(test_system, [truncate/2, held/1]).

-compile(export_all).

%% More than a call copies on a normal scheduler.
-define(LARGE, 3_000_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [child_process_has_no_descriptor,
     close_gives_back_descriptor_and_range,
     collected_handle_gives_back_descriptor_and_range,
     ten_thousand_handles_at_once_give_back_everything,
     last_view_gives_back_descriptor_and_range,
     part_of_a_view_holds_the_mapping,
     anonymous_memory_outlives_the_vm_that_made_it_in_others_alone,
     pread_holds_no_mapping,
     large_mapping_is_given_back,
     resizing_gives_back_what_it_replaced,
     failed_open_gives_back_everything,
     ten_thousand_cycles_leave_nothing,
     lock_keeps_the_pages_in_memory,
     populate_fetches_the_pages,
     lasting_hints_survive_resizing].

init_per_suite(Config) ->
    case os:type() of
        {unix, linux} -> Config;
        _ -> {skip, "descriptors and ranges are counted in /proc, which is Linux's"}
    end.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

child_process_has_no_descriptor(Config) ->
    %% A program started by the VM finds no descriptor of a mapping among its own.
    {Path, Handle} = mapping(Config, bytes(10)),
    ?assertEqual(nomatch, string:find(test_system:run("ls", ["-l", "/proc/self/fd"]), Path)),
    ok = iommap:close(Handle).

close_gives_back_descriptor_and_range(Config) ->
    %% Without views, close gives back the descriptor and the addresses, whoever still holds the handle.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    {ok, _} = iommap:pread(Handle, 0, 3 * page()),
    ?assertMatch({[_], [_]}, held(Path)),
    ok = iommap:close(Handle),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    ?assertEqual({error, closed}, iommap:position(Handle)).

collected_handle_gives_back_descriptor_and_range(Config) ->
    %% A handle that nobody closed gives all back when the garbage collector finds it.
    Path = file(?config(directory, Config), bytes(3 * page())),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        ?assertMatch({[_], [_]}, held(Path)),
        iommap:position(Handle)
    end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

ten_thousand_handles_at_once_give_back_everything(Config) ->
    %% Handles that one process had when it died, and as many that one closes, of all modes, some with a view: nothing is
    %% left of them.
    Path = file(?config(directory, Config), bytes(3 * page())),
    ok = test_tools:build(),
    Vm = test_vm:start(#{wrapper => "ulimit -n 12000 && exec \"$@\""}),
    try
        ok = test_vm:run(Vm, fun() ->
            Listed = fun() -> [Info || #{path := Of} = Info <- iommap:list(), Of =:= list_to_binary(Path)] end,
            Forget = fun(Handle) -> {ok, 3 * page()} =:= iommap:position(Handle) end,
            [begin
                 ok = test_processes:in_a_process(fun() -> true = lists:all(End, open_many(Path, 10_000)), ok end),
                 ok = eventually(fun() -> Listed() =:= [] andalso held(Path) =:= {[], []} end),
                 ok = eventually(fun() -> maps:get(unmaps_waiting, iommap:stats()) =:= 0 end)
             end || End <- [Forget, fun(Handle) -> ok =:= iommap:close(Handle) end]],
            ok
        end)
    after
        test_vm:stop(Vm)
    end.

open_many(Path, Count) ->
    [begin
         {ok, Handle} = iommap:open(Path, lists:nth(N rem 4 + 1, [read, read, read_write, write]), []),
         [{ok, _} = iommap:region_binary(Handle, 0, 100) || N rem 100 =:= 0], % of mode read
         Handle
     end || N <- lists:seq(1, Count)].

last_view_gives_back_descriptor_and_range(Config) ->
    %% The addresses stay as long as one view does, after close and after the file is deleted, and go with the last.
    Path = file(?config(directory, Config), bytes(3 * page())),
    Holders = [holder(), holder()],
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        [begin
             {ok, View} = iommap:region_binary(Handle, page(), page()),
             ok = hold(Holder, View)
         end || Holder <- Holders],
        ok = iommap:close(Handle)
    end),
    ok = file:delete(Path),
    [begin
         ?assertMatch({_, [_]}, held(Path)),
         ?assertEqual([binary:part(bytes(3 * page()), page(), page())], release(Holder))
     end || Holder <- Holders],
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

part_of_a_view_holds_the_mapping(Config) ->
    %% A part of a view is enough to keep the mapping, and the last one to keep it.
    Path = file(?config(directory, Config), bytes(3 * page())),
    Holder = holder(),
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        ok = hold(Holder, binary:part(View, page(), 100))
    end),
    erlang:garbage_collect(Holder),
    ?assertMatch({_, [_]}, held(Path)),
    ?assertEqual([binary:part(bytes(3 * page()), page(), 100)], release(Holder)),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

anonymous_memory_outlives_the_vm_that_made_it_in_others_alone(_Config) ->
    %% The VM that made it is killed: another one that has mapped it keeps all of it, also what was written last. That one is
    %% killed, too: no process of the system holds it.
    ok = test_tools:build(),
    [Maker, Other] = Vms = [test_vm:start() || _ <- [1, 2]],
    try
        {Path, Inode} = test_vm:run(Maker, fun() ->
            {ok, Handle} = iommap:open(anonymous, read_write, [{size, ?LARGE}]),
            ok = iommap:pwrite(Handle, 0, bytes(?LARGE)),
            {ok, #{path := Path}} = iommap:info(Handle),
            {ok, Info} = file:read_file_info(Path),
            ok = persistent_term:put(?MODULE, Handle),
            {Path, element(#file_info.inode, Info)}
        end),
        ok = test_vm:run_with(Other, fun(Shared) ->
            {ok, Handle} = iommap:open(Shared, read_write, []),
            persistent_term:put(?MODULE, Handle)
        end, [Path]),
        Both = lists:sort([test_vm:os_pid(Vm) || Vm <- Vms]),
        ?assertEqual(Both, holders(Inode)),
        ok = test_vm:run(Maker, fun() -> iommap:pwrite(persistent_term:get(?MODULE), ?LARGE - 4, <<"last">>) end),
        ok = test_vm:stop(Maker),
        ok = eventually(fun() -> holders(Inode) =:= [test_vm:os_pid(Other)] end),
        Kept = test_vm:run(Other, fun() -> iommap:pread(persistent_term:get(?MODULE), 0, ?LARGE) end),
        ?assertEqual({ok, <<(bytes(?LARGE - 4))/binary, "last">>}, Kept),
        ok = test_vm:run(Other, fun() -> iommap:pwrite(persistent_term:get(?MODULE), 0, <<"alive">>) end),
        ok = test_vm:stop(Other),
        ok = eventually(fun() -> holders(Inode) =:= [] end)
    after
        [test_vm:stop(Vm) || #{peer := Peer} = Vm <- Vms, is_process_alive(Peer)]
    end.

%% The processes of the system, by number, that have memory without a name mapped, or open.
holders(Inode) ->
    Mapped = io_lib:format("grep -lE ' ~b +/memfd:' /proc/[0-9]*/maps 2> /dev/null", [Inode]),
    Open = io_lib:format("find /proc/[0-9]*/fd -lname '/memfd:*' -printf '%p ' -exec stat -Lc %i {} \\; 2> /dev/null | grep ' ~b$'",
                         [Inode]),
    Lines = lists:append([string:lexemes(element(2, test_system:shell(Command)), "\n") || Command <- [Mapped, Open]]),
    lists:usort([binary_to_list(lists:nth(2, string:lexemes(Line, "/"))) || Line <- Lines]).

pread_holds_no_mapping(Config) ->
    %% What pread returned is a copy: it keeps neither descriptor nor addresses, short or long.
    {Path, Handle} = mapping(Config, bytes(?LARGE)),
    Copies = [element(2, {ok, _} = iommap:pread(Handle, 0, Length)) || Length <- [1, 8, 64, 65, page(), ?LARGE]],
    ok = iommap:close(Handle),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    [?assertEqual(binary:part(bytes(?LARGE), 0, byte_size(Copy)), Copy) || Copy <- Copies].

large_mapping_is_given_back(Config) ->
    %% A large mapping with all its pages in use is given back by close and by collection.
    Path = filename:join(?config(directory, Config), "large"),
    Use = fun(Handle) ->
        {ok, View} = iommap:region_binary(Handle, 0, 256 * 1024 * 1024),
        ?assertEqual(nomatch, binary:match(View, <<1>>))
    end,
    in_a_process(fun() ->
        {ok, Handle} = iommap:open(Path, [create, {size, 256 * 1024 * 1024}]),
        Use(Handle),
        ok = iommap:close(Handle)
    end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    in_a_process(fun() -> Use(element(2, {ok, _} = iommap:open(Path, read, []))) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end).

resizing_gives_back_what_it_replaced(Config) ->
    %% However often a mapping is resized, there is one descriptor and one range; old ones go with their views.
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    Resize = fun() ->
        [begin
             ok = iommap:truncate(Handle, Size * page()),
             ok = truncate(Path, (Size + 1) * page()),
             {ok, _} = iommap:remap(Handle)
         end || Size <- [5, 3, 100, 4, 3000, 1, 3]]
    end,
    Resize(),
    ok = eventually(fun() -> matches(held(Path)) end),
    in_a_process(fun() ->
        Views = [begin
                     {ok, View} = iommap:region_binary(Handle, 0, page()),
                     Resize(),
                     View
                 end || _ <- lists:seq(1, 5)],
        ?assertEqual([bytes(page())], lists:usort(Views))
    end),
    ok = eventually(fun() -> matches(held(Path)) end),
    ?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())).

matches({[_], [_]}) -> true;
matches(_) -> false.

failed_open_gives_back_everything(Config) ->
    %% An open that fails leaves no descriptor, at whatever step it failed.
    Directory = ?config(directory, Config),
    Empty = file(Directory, <<>>),
    Full = file(Directory, bytes(10)),
    Before = test_system:descriptors(),
    [begin
         {error, _} = iommap:open(Empty, Mode, []),
         {error, _} = iommap:open(Directory, Mode, []),
         {error, _} = iommap:open("/dev/null", Mode, []),
         {error, _} = iommap:open("/dev/zero", Mode, [private]),
         {error, _} = iommap:open(Full, read, [{size, 11}]),
         {error, _} = iommap:open(Full, write, [{size, 1 bsl 62}]),
         {error, _} = iommap:open(Full, write, [{size, 1 bsl 63}])
     end || _ <- lists:seq(1, 30), Mode <- [read, write, read_write]],
    ok = eventually(fun() -> test_system:descriptors() =< Before end),
    ?assertEqual({[], []}, held(Full)).

ten_thousand_cycles_leave_nothing(Config) ->
    %% Opening, reading, viewing, closing and collecting, over and over, leaves the counts where they began.
    Path = file(?config(directory, Config), bytes(3 * page())),
    AllButOne = 3 * page() - 1,
    Cycle = fun(N) ->
        {ok, Handle} = iommap:open(Path, read, []),
        {ok, _} = iommap:pread(Handle, N rem 3 * page(), page()),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * page()),
        N rem 2 =:= 0 andalso (ok = iommap:close(Handle)),
        <<_:AllButOne/binary, _>> = View,
        N rem 100 =:= 0 andalso erlang:garbage_collect()
    end,
    in_a_process(fun() -> lists:foreach(Cycle, lists:seq(1, 100)) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    {Descriptors, Ranges} = {test_system:descriptors(), test_system:ranges()},
    in_a_process(fun() -> lists:foreach(Cycle, lists:seq(1, 10_000)) end),
    ok = eventually(fun() -> held(Path) =:= {[], []} end),
    ok = eventually(fun() -> test_system:descriptors() =< Descriptors end),
    %% The VM's own allocators take and give back a few ranges meanwhile.
    ok = eventually(fun() -> test_system:ranges() < Ranges + 100 end).

lock_keeps_the_pages_in_memory(Config) ->
    %% lock locks the whole mapping in memory, until it is closed.
    Before = test_system:locked(),
    {_Path, Handle} = mapping(Config, bytes(64 * page()), read, [lock]),
    case test_system:is_root() of
        true ->
            ?assertMatch({ok, #{locked := true}}, iommap:info(Handle)),
            ?assertEqual(Before + 64 * page(), test_system:locked()),
            ok = iommap:close(Handle),
            ok = eventually(fun() -> test_system:locked() =:= Before end);
        false ->
            {skip, "only root may lock as much memory as it likes"}
    end.

populate_fetches_the_pages(Config) ->
    %% With populate every page is mapped when open returns.
    if_pages_are_seen(fun() ->
        {Path, Handle} = mapping(Config, bytes(64 * page()), read, [populate]),
        ?assertEqual(64 * page(), test_system:resident(Path)),
        ok = iommap:close(Handle)
    end).

lasting_hints_survive_resizing(Config) ->
    %% A hint for the whole mapping holds after truncate and remap too: where it grows, and where another mapping takes over.
    if_pages_are_seen(fun() ->
        [lasting_hints_survive_resizing(Config, Hints, Lasting)
            || {Hints, Lasting} <- [{[random], [<<"rr">>]}, {[sequential], [<<"sr">>]}, {[random, normal], []},
                                    {[random, willneed, dontneed], [<<"rr">>]}]]
    end).

lasting_hints_survive_resizing(Config, Hints, Lasting) ->
    {Path, Handle} = mapping(Config, bytes(3 * page())),
    [ok = iommap:advise(Handle, 0, 0, Hint) || Hint <- Hints],
    Told = fun() -> [[Flag || Flag <- Flags, lists:member(Flag, [<<"rr">>, <<"sr">>])] ||
        Flags <- test_system:flags(Path)] end,
    ok = iommap:truncate(Handle, 5 * page()),
    ?assertEqual([Lasting], Told()),
    {ok, First} = iommap:region_binary(Handle, 0, page()),
    ok = iommap:truncate(Handle, 8 * page()),
    ?assertEqual([Lasting], Told()),
    ok = iommap:truncate(Handle, 4 * page()),
    ?assertEqual([Lasting, Lasting], Told()),
    {ok, Second} = iommap:region_binary(Handle, 0, page()),
    ok = truncate(Path, 2 * page()),
    {ok, _} = iommap:remap(Handle),
    ?assertEqual([Lasting, Lasting, Lasting], Told()),
    ?assertEqual([bytes(page())], lists:usort([First, Second])),
    ok = iommap:close(Handle).

%% Tests what the system tells of each mapping; an emulator of another processor may not.
if_pages_are_seen(Test) ->
    case test_system:can_see_pages() of
        true -> Test();
        false -> {skip, "the system does not tell which pages a mapping has"}
    end.

%% A process that holds terms until it is told to give them up, and then is gone.
holder() ->
    spawn_link(fun() -> holder([]) end).

holder(Terms) ->
    receive
        {hold, Term, From} -> From ! {self(), ok}, holder([Term | Terms]);
        {release, From} -> From ! {self(), Terms}
    end.

hold(Holder, Term) ->
    Holder ! {hold, Term, self()},
    receive {Holder, ok} -> ok end.

%% The terms come back as copies that hold nothing.
release(Holder) ->
    Holder ! {release, self()},
    receive {Holder, Terms} -> [binary:copy(Term) || Term <- Terms] end.
