%% Many processes on one handle: no half of a write, no call after close, no end of the VM.
-module(iommap_concurrency_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_files, [file/2, mapping/2, mapping/4]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).
-import(test_processes, [eventually/1, together/1, during/2]).

-compile(export_all).

%% More than a call copies on a normal scheduler, and less, but long enough for others to come between.
-define(LARGE, 3_000_000).
-define(SHORT, 800_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [reads_see_no_half_of_a_write,
     large_reads_see_no_half_of_a_write,
     cold_reads_see_no_half_of_a_write,
     private_reads_see_no_half_of_a_write,
     close_waits_for_running_calls,
     close_happens_once,
     readers_live_with_resizing,
     views_live_with_everything,
     every_call_at_once,
     killed_callers_leave_the_handle_whole].

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(?config(directory, Config)).

reads_see_no_half_of_a_write(Config) ->
    %% Blocks written whole are read whole, by any number of processes at once.
    whole_blocks(Config, [], page(), 2000),
    whole_blocks(Config, [], ?SHORT, 1000).

large_reads_see_no_half_of_a_write(Config) ->
    %% The same for blocks that are too long for a normal scheduler.
    whole_blocks(Config, [], ?LARGE, 100).

cold_reads_see_no_half_of_a_write(Config) ->
    %% The same for pages that have to be fetched from the disk while the write goes on.
    {Path, Handle} = mapping(Config, zeros(?LARGE)),
    Block = fun(Byte) -> binary:copy(<<Byte>>, ?LARGE) end,
    [begin
         ok = drop_from_memory(Handle, Path),
         {Old, New} = {Block(N - 1), Block(N)},
         Write = fun() -> ok = iommap:pwrite(Handle, 0, New) end,
         Read = fun() ->
             {ok, Read} = iommap:pread(Handle, 0, ?LARGE),
             ?assert(Read =:= Old orelse Read =:= New)
         end,
         together([Read, Write, Read])
     end || N <- lists:seq(1, 40)].

private_reads_see_no_half_of_a_write(Config) ->
    %% The same for a private mapping.
    whole_blocks(Config, [private], page(), 2000),
    whole_blocks(Config, [private], ?SHORT, 1000).

%% Writers fill the block with one byte each; whoever reads it must find one byte all over.
whole_blocks(Config, Options, Length, Reads) ->
    Offset = page() - 7,
    {_Path, Handle} = mapping(Config, zeros(Length + 2 * page()), read_write, Options),
    Write = fun(Byte, Parts) ->
        Data = lists:duplicate(Parts, binary:copy(<<Byte>>, Length div Parts)),
        fun() -> ok = iommap:pwrite(Handle, Offset, Data) end
    end,
    Whole = [binary:copy(<<Byte>>, Length) || Byte <- [0, $a, $b]],
    Read = fun() ->
        {ok, Block} = iommap:pread(Handle, Offset, Length),
        ?assert(lists:member(Block, Whole))
    end,
    during([Write($a, 1), Write($b, 4)], fun() ->
        together(lists:duplicate(4, fun() -> [Read() || _ <- lists:seq(1, Reads)] end))
    end).

drop_from_memory(Handle, Path) ->
    ok = iommap:sync(Handle),
    ok = iommap:advise(Handle, 0, 0, dontneed),
    ok = test_files:drop_cache(Path).

close_waits_for_running_calls(Config) ->
    %% Readers that close surprises have read the truth until they are told that the mapping is closed.
    Contents = bytes(?LARGE),
    Path = file(?config(directory, Config), Contents),
    [begin
         {ok, Handle} = iommap:open(Path, read, []),
         Reads = atomics:new(1, []),
         Close = fun() ->
             ok = eventually(fun() -> atomics:get(Reads, 1) >= Started end),
             iommap:close(Handle)
         end,
         Readers = [fun() -> read_until_closed(Handle, Contents, Length, Reads) end ||
             Length <- [8, page(), 100_000, ?LARGE]],
         ?assertEqual([ok, closed, closed, closed, closed], together([Close | Readers]))
     end || Started <- lists:seq(0, 40, 2)].

read_until_closed(Handle, Contents, Length, Reads) ->
    case iommap:pread(Handle, ?LARGE - Length, Length) of
        {ok, Bytes} ->
            ?assert(Bytes =:= binary:part(Contents, ?LARGE, -Length)),
            ok = atomics:add(Reads, 1, 1),
            read_until_closed(Handle, Contents, Length, Reads);
        {error, closed} ->
            closed
    end.

close_happens_once(Config) ->
    %% Of many processes that close a handle at once, one is told ok and the others that it is closed.
    Path = file(?config(directory, Config), bytes(10)),
    [begin
         {ok, Handle} = iommap:open(Path, read, []),
         Answers = together(lists:duplicate(8, fun() -> iommap:close(Handle) end)),
         ?assertEqual([ok | lists:duplicate(7, {error, closed})], lists:sort(Answers))
     end || _ <- lists:seq(1, 200)].

readers_live_with_resizing(Config) ->
    %% While the mapping grows and shrinks, a read is right or out_of_bounds, and writes are not lost.
    {_Path, Handle} = mapping(Config, bytes(2 * page())),
    Kept = fun() -> ?assertEqual({ok, bytes(2 * page())}, iommap:pread(Handle, 0, 2 * page())) end,
    Zeros = zeros(page()),
    Lost = fun() ->
        case iommap:pread(Handle, 3 * page(), page()) of
            {ok, Bytes} -> ?assertEqual(Zeros, Bytes);
            Error -> ?assertEqual({error, out_of_bounds}, Error)
        end
    end,
    Write = fun() -> ok = iommap:pwrite(Handle, page(), binary:part(bytes(2 * page()), page(), page())) end,
    during([Kept, Kept, Lost, Write], fun() ->
        [ok = iommap:truncate(Handle, Pages * page()) ||
            _ <- lists:seq(1, 100), Pages <- [4, 2, 5, 3, 1000, 2]]
    end),
    Kept().

views_live_with_everything(Config) ->
    %% Views are read while their mapping grows, shrinks to their end, is remapped, closed and collected.
    Path = file(?config(directory, Config), bytes(2 * page())),
    Expected = bytes(2 * page()),
    Handles = ets:new(handles, [public]),
    Open = fun() ->
        {ok, Handle} = iommap:open(Path, read_write, []),
        true = ets:insert(Handles, {handle, Handle}),
        Handle
    end,
    Open(),
    Look = fun() ->
        [{handle, Handle}] = ets:lookup(Handles, handle),
        case iommap:region_binary(Handle, 0, 2 * page()) of
            {ok, View} -> [?assert(View =:= Expected) || _ <- lists:seq(1, 20)];
            {error, closed} -> ok
        end
    end,
    during([Look, Look, Look], fun() ->
        [begin
             Handle = Open(),
             [ok = iommap:truncate(Handle, Pages * page()) || Pages <- [3, 2, 2000, 2]],
             {ok, _} = iommap:remap(Handle),
             N rem 2 =:= 0 orelse (ok = iommap:close(Handle))
         end || N <- lists:seq(1, 60)]
    end).

every_call_at_once(Config) ->
    %% Any mixture of calls from many processes is answered as each call alone would be.
    {_Path, Handle} = mapping(Config, bytes(8 * page())),
    Calls = [
        fun() -> iommap:pread(Handle, page(), 3 * page()) end,
        fun() -> iommap:pwrite(Handle, 6 * page(), [bytes(100), bytes(page())]) end,
        fun() -> iommap:region_binary(Handle, 0, page()) end,
        fun() -> iommap:sync(Handle) end,
        fun() -> iommap:sync(Handle, async) end,
        fun() -> iommap:truncate(Handle, 8 * page()) end,
        fun() -> iommap:truncate(Handle, 4 * page()) end,
        fun() -> iommap:truncate(Handle, 64 * page()) end,
        fun() -> iommap:advise(Handle, 0, 0, willneed) end,
        fun() -> iommap:advise(Handle, page(), 0, dontneed) end,
        fun() -> iommap:position(Handle) end,
        fun() -> iommap:remap(Handle) end,
        fun() -> iommap:info(Handle) end
    ],
    Allowed = [ok, {error, out_of_bounds}],
    during([fun() -> ?assert(lists:member(answer(Call()), Allowed)) end || Call <- Calls], fun() ->
        [?assertEqual({ok, bytes(page())}, iommap:pread(Handle, 0, page())) || _ <- lists:seq(1, 5_000)]
    end),
    ?assertEqual(ok, iommap:close(Handle)).

killed_callers_leave_the_handle_whole(Config) ->
    %% Processes killed inside of a call leave nothing locked and nothing broken.
    {_Path, Handle} = mapping(Config, bytes(?LARGE)),
    Contents = bytes(?LARGE),
    [begin
         Forever = fun Forever() ->
             {ok, _} = iommap:pread(Handle, 0, ?LARGE),
             ok = iommap:pwrite(Handle, 0, Contents),
             atomics:add(Calls, 1, 1),
             Forever()
         end,
         Callers = [spawn_monitor(Forever) || _ <- lists:seq(1, 4)],
         ok = eventually(fun() -> atomics:get(Calls, 1) > 2 end),
         [exit(Process, kill) || {Process, _} <- Callers],
         [receive {'DOWN', Monitor, process, Process, killed} -> ok end || {Process, Monitor} <- Callers],
         ?assertEqual({ok, Contents}, iommap:pread(Handle, 0, ?LARGE)),
         ?assertEqual(ok, iommap:pwrite(Handle, 0, Contents))
     end || _ <- lists:seq(1, 10), Calls <- [atomics:new(1, [])]],
    ?assertEqual(ok, iommap:close(Handle)).

%% What a call answered, without what it returned: another VM's handles mean nothing here.
answer({ok, _}) -> ok;
answer(Answer) -> Answer.
