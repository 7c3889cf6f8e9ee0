%% What `erlang:system_monitor(long_schedule)` has to say of the library and of the floor. Runs inside a VM of its own.
-module(bench_schedule).

-export([cases/0, run/3]).
-export_type([settings/0]).

-type settings() :: #{hot := file:filename(), cold := file:filename(), large := file:filename(), calls := pos_integer()}.

%% A process that ran for longer than this many milliseconds without a break is reported.
-define(LONG, 2).
-define(COLD_READS, 1000).
-define(PAGE, 4096).

-spec cases() -> [{atom(), Description :: string()}].
cases() ->
    [{hot, "64 B and 4 KB reads and 4 KB writes by three processes"},
     {megabyte, "1 MB reads, one after the other"},
     {cold, "4 KB reads of a file that is not in memory"},
     {contended, "readers, writers, a 16 MB writer and sync on one handle; the floor's last two on dirty schedulers too"},
     {large, "a read and a write of a quarter of the large file"},
     {unmap, "garbage collection of the last view of the large file, mapped with populate"}].

%% How many long schedules the processes of one case had, and the worst in milliseconds.
-spec run(Case :: atom(), iommap | floor, settings()) -> {non_neg_integer(), non_neg_integer()}.
run(Case, Module, Settings) ->
    Works = works(Case, Module, Settings),
    Caller = self(),
    Monitor = spawn_link(fun() -> report_to(Caller) end),
    _ = erlang:system_monitor(Monitor, [{long_schedule, ?LONG}]),
    Workers = [start(Work) || Work <- Works],
    [receive {'DOWN', Reference, _, _, Why} -> normal = Why end || {_, Reference} <- Workers],
    %% Reports come in order but late; one that is certain to come shows that there will be no others.
    {Last, _} = start(fun() -> floor:occupy(2 * ?LONG) end),
    Monitor ! {last, Last},
    Long = receive {Monitor, Events} -> [Time || {Pid, Time} <- Events, lists:keymember(Pid, 1, Workers)] end,
    _ = erlang:system_monitor(undefined),
    {length(Long), lists:max([0 | Long])}.

%% A process is reported when its slice ends; the yield ends the last one before the process does.
start(Work) ->
    spawn_monitor(fun() -> _ = Work(), erlang:yield() end).

report_to(Caller) ->
    Last = receive {last, Pid} -> Pid end,
    Caller ! {self(), reports(Last)}.

reports(Last) ->
    receive
        {monitor, Last, long_schedule, _} -> [];
        {monitor, Pid, long_schedule, Info} -> [{Pid, proplists:get_value(timeout, Info)} | reports(Last)]
    end.

%% What each process of a case does.
works(hot, Module, #{hot := Path, calls := Calls}) ->
    Handle = open(Module, Path, write),
    [reading(Module, Handle, Path, 64, Calls),
     reading(Module, Handle, Path, ?PAGE, Calls),
     writing(Module, Handle, Path, ?PAGE, Calls)];
works(megabyte, Module, #{hot := Path, calls := Calls}) ->
    [reading(Module, open(Module, Path, read), Path, 1 bsl 20, Calls div 100)];
works(cold, Module, #{cold := Path}) ->
    ok = bench_file:evict(Path),
    [reading(Module, open(Module, Path, read), Path, ?PAGE, ?COLD_READS)];
works(contended, Module, #{hot := Path, calls := Calls}) ->
    Handle = open(Module, Path, write),
    lists:duplicate(4, reading(Module, Handle, Path, ?PAGE, Calls))
    ++ lists:duplicate(2, writing(Module, Handle, Path, 64, Calls))
    ++ [writing_long(Module, Handle, Path, 16 bsl 20, 20),
        fun() -> [sync(Module, Handle, Path) || _ <- lists:seq(1, 20)] end];
works(large, Module, #{large := Path}) ->
    Handle = open(Module, Path, write),
    Length = filelib:file_size(Path) div 4,
    [fun() ->
        {ok, Data} = Module:pread(Handle, 0, Length),
        ok = Module:pwrite(Handle, Length, Data),
        freed_elsewhere(Data)
     end];
works(unmap, Module, #{large := Path}) ->
    [fun() ->
        hold_the_last_view(Module, Path),
        erlang:garbage_collect()
     end].

reading(Module, Handle, Path, Length, Calls) ->
    each(Path, Length, Calls, fun(Offset) -> {ok, _} = Module:pread(Handle, Offset, Length) end).

writing(Module, Handle, Path, Length, Calls) ->
    Data = bench_file:contents(0, Length),
    each(Path, Length, Calls, fun(Offset) -> ok = Module:pwrite(Handle, Offset, Data) end).

writing_long(iommap, Handle, Path, Length, Calls) ->
    writing(iommap, Handle, Path, Length, Calls);
writing_long(floor, Handle, Path, Length, Calls) ->
    Data = bench_file:contents(0, Length),
    each(Path, Length, Calls, fun(Offset) -> ok = floor:pwrite_dirty(Handle, Offset, Data) end).

each(Path, Length, Calls, Act) ->
    Places = filelib:file_size(Path) div max(Length, ?PAGE),
    fun() -> repeat(Calls, fun() -> Act((rand:uniform(Places) - 1) * max(Length, ?PAGE)) end) end.

repeat(0, _Act) -> ok;
repeat(Times, Act) -> Act(), repeat(Times - 1, Act).

%% Freeing a gigabyte takes its time whoever made it, so a process that nobody watches is the last to have it.
freed_elsewhere(Data) ->
    Worker = self(),
    Last = spawn(fun() ->
        Monitor = monitor(process, Worker),
        receive {'DOWN', Monitor, _, _, _} -> ok end
    end),
    Last ! Data.

hold_the_last_view(Module, Path) ->
    Holder = self(),
    {_, Monitor} = spawn_monitor(fun() ->
        Handle = open(Module, Path, populate),
        {ok, View} = Module:region_binary(Handle, 0, filelib:file_size(Path)),
        Holder ! {view, View},
        close(Module, Handle)
    end),
    receive {'DOWN', Monitor, _, _, Why} -> normal = Why end,
    receive {view, View} -> true = byte_size(View) > 0 end.

open(floor, Path, Option) -> element(2, {ok, _} = floor:open(Path, Option));
open(iommap, Path, read) -> element(2, {ok, _} = iommap:open(Path, read, []));
open(iommap, Path, write) -> element(2, {ok, _} = iommap:open(Path, read_write, []));
open(iommap, Path, populate) -> element(2, {ok, _} = iommap:open(Path, read, [populate])).

close(floor, _Handle) -> ok;
close(iommap, Handle) -> ok = iommap:close(Handle).

sync(floor, _Handle, Path) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    ok = file:sync(File),
    ok = file:close(File);
sync(iommap, Handle, _Path) ->
    ok = iommap:sync(Handle).
