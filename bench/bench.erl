%% The commands of the benchmark. Rounds of different VMs alternate, so that both meet the same disturbances.
-module(bench).

-export([hot/1, cold/1, count/1, mechanisms/1, against/1]).

-import(bench_conductor, [conduct/1, start_vm/1, stop_vm/1, call/4, is_quick/0, results/1, plot/2, publish/2, command/1, say/2]).

%% ---- make bench

-spec hot([string()]) -> no_return().
hot([Directory, Memory]) ->
    conduct(fun(Load) ->
        #{rounds := Rounds} = Size = size(),
        Vms = [{Vm, #{args => Arguments}, #{}} || {Vm, _, Arguments} <- vms()],
        Results = maps:merge(hot_rounds(Vms, Directory, Size), scenes(Vms, Directory, Memory, Size)),
        Collecting = collecting(Directory, Size),
        Instructions = instructions(Memory),
        Large = large_file(Memory, Size),
        Long = long_schedules(Directory, Large, Size),
        Unmapping = unmapping(Large, Size),
        ok = file:delete(Large),
        {DelayText, DelayBars, _} = delays([{"local disk", cold_file(Directory, Size)}], Size),
        ok = bench_report:csv(results("hot.csv"), bench_results:csv(Results)),
        plot("latency", bench_results:latency(Results)),
        plot("throughput", bench_results:throughput(Results)),
        Bars = bench_bars:hot(fun(Vm, Case, Contender) -> bench_results:values(Results, Vm, Case, Contender) end,
                             bench_results:slower(Results, busy_wait))
            ++ bench_bars:long_schedules([{Case, counts(A), counts(B)} || {Case, _, A, B} <- Long])
            ++ bench_bars:instructions(Instructions)
            ++ [delay_bar("the collection of many handles", maps:get(iommap, Collecting)),
                delay_bar("the unmapping of the large file", maps:get(iommap, Unmapping)) | DelayBars],
        Circumstances = bench_report:circumstances(command("make bench"), Load),
        publish("bars.md", ["# Bars of `make bench`\n\n", Circumstances, "\n", bench_bars:table(Bars)]),
        publish("README.md", ["# How fast\n\n", Circumstances, "\n", bench_results:in_short(Results)]),
        publish("hot.md", [
            "# Hot calls\n\n", Circumstances,
            [["\n## Nanoseconds per call", Title, "\n\n", bench_results:times_table(Results, Vm)] || {Vm, Title, _} <- vms()],
            "\n", bench_results:notes(Results, Rounds, maps:get(scene_rounds, Size)),
            [["\n## Thousand calls a second, of one handle", Title, "\n\n", bench_results:rates_table(Results, Vm)]
             || {Vm, Title, _} <- vms()],
            "\nA writer writes as fast as it can beside three that read. The floor's readers are beside a writer that is as busy as ",
            "that, but writes only as often as iommap's.\n",
            "\n## Instructions\n\n", bench_count:table(Instructions),
            "\n## Long schedules (over 2 ms)\n\n", long_table(Long),
            "\n## What others wait for while many handles are collected, one scheduler\n\n", collecting_table(Collecting, Size),
            "\n## What others wait for while a large file is unmapped, one scheduler\n\n", unmapping_table(Unmapping),
            "\n## What others wait for while one process reads cold, one scheduler\n\n", DelayText])
    end).

size() ->
    case is_quick() of
        true -> #{rounds => 3, samples => 1, sample_time => 3_000_000, checked => 20, calls => 2_000,
                 long_rounds => 1, large => 1 bsl 28, cold_file => 1 bsl 27, cold_rounds => 1, cold_reads => 200,
                 slow_reads => 5, pressure => 1_000, scene_rounds => 1, opens => 100, shared_time => 50, handles => 1_000};
        false -> #{rounds => 15, samples => 5, sample_time => 6_000_000, checked => 200, calls => 50_000,
               long_rounds => 3, large => 1 bsl 32, cold_file => 1 bsl 31, cold_rounds => 5, cold_reads => 3_000,
               slow_reads => 40, pressure => 5_000, scene_rounds => 7, opens => 1_000, shared_time => 300, handles => 10_000}
    end.

vms() ->
    [{busy_wait, "", []},
     {no_busy_wait, " under `+sbwt none +sbwtdcpu none +sbwtdio none`",
      ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]}].

%% Each VM with how it is started, and which part of the rounds it takes.
hot_rounds(Each, Directory, #{rounds := Rounds, checked := Checked} = Size) ->
    Settings = maps:with([samples, sample_time], Size),
    Vms = [begin
        Vm = start_vm(Options),
        case call(Vm, bench_hot, prepare, [maps:merge(Settings#{directory => Directory}, Part), Checked]) of
            ok -> {Name, Vm};
            {wrong, Wrong} -> throw({wrong_answers, Name, Wrong})
        end
     end || {Name, Options, Part} <- Each],
    say("all answers right", []),
    Results = [begin
        say("round ~b of ~b", [Round, Rounds]),
        [{{Name, Case, Contender}, Value}
         || {Name, Vm} <- bench_hot:shuffle(Vms), {{Case, Contender}, Value} <- call(Vm, bench_hot, round, [])]
     end || Round <- lists:seq(1, Rounds)],
    [stop_vm(Vm) || {_, Vm} <- Vms],
    lists:foldr(
        fun({Key, Value}, All) -> maps:update_with(Key, fun(Values) -> [Value | Values] end, [Value], All) end,
        #{}, lists:append(Results)).

%% What is measured in another way than call by call; in each VM of its own.
scenes(Vms, Directory, Memory, Size) ->
    Settings = (maps:with([scene_rounds, opens, shared_time], Size))#{directory => Directory, memory => Memory},
    maps:from_list(lists:append([begin
        say("~s, ~s", [Module, Name]),
        Vm = start_vm(Options),
        Results = call(Vm, Module, run, [Settings]),
        stop_vm(Vm),
        [{{Name, Case, Contender}, Values} || {{Case, Contender}, Values} <- Results]
    end || Module <- bench_results:scenes(), {Name, Options, _} <- Vms])).

%% ---- Instructions

%% None where there is no gdb, or it may not look at another process.
instructions(Directory) ->
    Calls = case is_quick() of true -> [hd(bench_count:calls())]; false -> bench_count:calls() end,
    say("instructions", []),
    try
        bench_count:counts(Directory, [{Call, Module, #{}} || Call <- Calls, Module <- [iommap, floor]])
    catch
        throw:{gdb, Said} -> say("not counted: ~ts", [Said]), []
    end.

%% What of a call grows with what; or only whether the bar is met.
-spec count([string()]) -> no_return().
count([Directory | Check]) ->
    conduct(fun(Load) ->
        Counts = instructions(Directory),
        Counts =/= [] orelse halt(1),
        Bars = bench_bars:instructions(Counts),
        From = ["\n## Bars\n\n", bench_bars:table(Bars), "\n## From one call to the next\n\n", bench_count:table(Counts)],
        case Check of
            [] -> publish("instructions.md", [
                "# Instructions\n\n", bench_report:circumstances(command("make bench-count"), Load), From,
                "\n## Instructions of a call while things grow\n\n", scale(Directory)]);
            ["check"] ->
                io:format("~ts~n", [From]),
                lists:all(fun({_, _, _, Met}) -> Met end, Bars) orelse halt(1)
        end
    end).

scale(Directory) ->
    bench_count:scale_table([begin
        say("counting: ~s", [Name]),
        {Name, bench_count:counts(Directory, [{Call, iommap, Scene} || Call <- bench_count:scale_calls()])}
    end || {Name, Scene} <- bench_count:scenes()]).

%% ---- Many handles

collecting(Directory, #{long_rounds := Rounds} = Size) ->
    Count = handles(Size),
    Path = filename:join(Directory, "handle"),
    ok = file:write_file(Path, bench_file:contents(0, 4096)),
    Vm = start_vm(#{args => ["+S", "1:1"]}),
    Runs = [{Module, call(Vm, bench_delay, collect, [Module, Path, Count])}
            || Round <- lists:seq(1, Rounds), Module <- collectors(),
               _ <- [say("collecting ~b of ~b: ~s", [Round, Rounds, Module])]],
    stop_vm(Vm),
    ok = file:delete(Path),
    maps:from_list([{Module, proplists:get_all_values(Module, Runs)} || Module <- collectors()]).

%% As many as there can be descriptors.
handles(#{handles := Count}) ->
    min(Count, list_to_integer(string:trim(os:cmd("ulimit -n"))) - 500).

collectors() -> [iommap, floor, atomics].

collecting_table(Collecting, Size) ->
    Count = handles(Size),
    bench_report:table([io_lib:format("~b handles", [Count]) | delay_head() ++ ["worst delay / handles"]],
        [[atom_to_list(Module) | delay_cells(Runs)]
         ++ [[bench_report:number(bench_report:median(values(worst, Runs)) / Count), " ns"]]
         || Module <- collectors(), #{Module := Runs} <- [Collecting]]).

%% ---- Long schedules

long_schedules(Directory, Large, #{long_rounds := Rounds, calls := Calls}) ->
    Names = #{hot => {Directory, 1 bsl 26}, cold => {Directory, 1 bsl 28}},
    Files = maps:map(fun(Name, {Where, Bytes}) ->
        Path = filename:join(Where, Name),
        ok = bench_file:make(Path, Bytes),
        Path
    end, Names),
    Vm = start_vm(#{}),
    Settings = Files#{large => Large, calls => Calls},
    Runs = [{Case, Module, call(Vm, bench_schedule, run, [Case, Module, Settings])}
            || Round <- lists:seq(1, Rounds), {Case, _} <- bench_schedule:cases(),
               _ <- [say("long schedules ~b of ~b: ~s", [Round, Rounds, Case])], Module <- [floor, iommap]],
    stop_vm(Vm),
    _ = [file:delete(Path) || Path <- maps:values(Files)],
    [{Case, Description, [Run || {C, iommap, Run} <- Runs, C =:= Case], [Run || {C, floor, Run} <- Runs, C =:= Case]}
     || {Case, Description} <- bench_schedule:cases()].

%% A file of nothing but holes, in memory, as large as may be where there is little memory.
large_file(Memory, #{large := Bytes}) ->
    Kilobytes = list_to_integer(string:trim(os:cmd("awk '/^MemAvailable/ {print $2}' /proc/meminfo"))),
    Fitting = min(Bytes, Kilobytes div 2048 * (1 bsl 20)),
    say("a large file of ~b MiB", [Fitting bsr 20]),
    Path = filename:join(Memory, "large"),
    {ok, File} = file:open(Path, [write, raw]),
    {ok, _} = file:position(File, Fitting),
    ok = file:truncate(File),
    ok = file:close(File),
    Path.

unmapping(Large, #{long_rounds := Rounds}) ->
    Vm = start_vm(#{args => ["+S", "1:1"]}),
    Runs = [{Module, call(Vm, bench_delay, unmap, [Module, Large])}
            || Round <- lists:seq(1, Rounds), Module <- [floor, iommap],
               _ <- [say("unmapping ~b of ~b: ~s", [Round, Rounds, Module])]],
    stop_vm(Vm),
    maps:from_list([{Module, proplists:get_all_values(Module, Runs)} || Module <- [floor, iommap]]).

unmapping_table(Unmapping) ->
    bench_report:table(["" | delay_head()],
        [[atom_to_list(Module) | delay_cells(maps:get(Module, Unmapping))] || Module <- [iommap, floor]]).

delay_head() ->
    ["worst delay", "worst of all", "less waits for a core", "over 2 ms"].

delay_cells(Runs) ->
    Worst = values(worst, Runs),
    [bench_bars:milliseconds(bench_report:median(Worst)),
     bench_bars:milliseconds(lists:max(Worst)),
     bench_bars:milliseconds(bench_report:median(values(worst_own, Runs))),
     bench_report:number(round(bench_report:median(values(late, Runs))))].

delay_bar(What, Runs) ->
    bench_bars:delay(What, values(worst, Runs), values(worst_own, Runs)).

values(Key, Runs) ->
    [maps:get(Key, Run) || Run <- Runs].

counts(Runs) -> [Count || {Count, _} <- Runs].

long_table(Long) ->
    Cell = fun(Runs) ->
        io_lib:format("~b, worst ~b ms", [trunc(bench_report:median(counts(Runs))), lists:max([Worst || {_, Worst} <- Runs])])
    end,
    bench_report:table(["case", "iommap", "floor", "what it does"],
        [[atom_to_list(Case), Cell(Iommap), Cell(Floor), Description] || {Case, Description, Iommap, Floor} <- Long]).

%% ---- make bench-cold

-spec cold([string()]) -> no_return().
cold([Directory, Reclaim | Slow]) ->
    conduct(fun(Load) ->
        Size = size(),
        Local = cold_file(Directory, Size),
        {Text, DelayBars, Runs} = delays([{"local disk", Local} | slow_file(Slow, Directory)], Size),
        draw_delays(Runs),
        {Batches, BatchBars} = batches(Slow, Size),
        Bars = DelayBars ++ BatchBars,
        Pressure = pressure(Directory, Reclaim, Size),
        Circumstances = bench_report:circumstances(command("make bench-cold"), Load),
        publish("bars_cold.md", ["# Bars of `make bench-cold`\n\n", Circumstances, "\n", bench_bars:table(Bars)]),
        publish("cold.md", [
            "# Cold reads\n\n", Circumstances,
            "\n## What others wait for, one scheduler\n\n", Text,
            "\n## Cold ranges of 64 B in one call, on a device that takes 5 ms a read\n\n", Batches,
            "\n## Pages taken away between the check and the use\n\n", Pressure,
            "\n![delay](delay.svg)\n"])
    end).

cold_file(Directory, #{cold_file := Bytes}) ->
    Path = filename:join(Directory, "cold"),
    say("writing ~b MiB", [Bytes bsr 20]),
    ok = bench_file:make(Path, Bytes),
    Path.

%% The slow device is a file system that shows the directory `behind` and can be told to take its time.
slow_file([], _Directory) ->
    [];
slow_file([Mount], Directory) ->
    ok = bench_file:make(filename:join([Directory, "behind", "slow"]), 1 bsl 28),
    ok = file:write_file(filename:join(Mount, ".control"), "delay /slow 50"),
    [{"slow device", filename:join(Mount, "slow")}].

%% Every contender on every device, the page cache emptied of the file before each run.
delays(Devices, #{cold_rounds := Rounds} = Size) ->
    Vm = start_vm(#{args => ["+S", "1:1"]}),
    Runs = [begin
        say("cold reads ~b of ~b, ~s: ~s", [Round, Rounds, Device, Contender]),
        ok = bench_file:evict(Path),
        Bytes = filelib:file_size(Path),
        Left = bench_file:resident(Path),
        Left * 100 < Bytes orelse throw({still_in_memory, Path, Left}),
        Offsets = [(rand:uniform(Bytes bsr 12) - 1) bsl 12 || _ <- lists:seq(1, reads(Device, Size))],
        Run = call(Vm, bench_delay, cold, [Contender, Path, Offsets]),
        {{Device, Contender}, Run#{resident => bench_file:resident(Path) / Bytes, reads => length(Offsets)}}
     end || Round <- lists:seq(1, Rounds), {Device, Path} <- Devices, {Contender, _} <- bench_delay:contenders()],
    stop_vm(Vm),
    Of = fun(Device, Contender) -> proplists:get_all_values({Device, Contender}, Runs) end,
    Table = bench_report:table(
        ["", "who reads"] ++ delay_head() ++ ["a read", "file in memory after", "major faults"],
        [[Device, Description] ++ delay_cells(Of(Device, Contender)) ++ read_cells(Of(Device, Contender))
         || {Device, _} <- Devices, {Contender, Description} <- bench_delay:contenders()]),
    Bars = [delay_bar(["cold reads, ", Device, Name], Of(Device, Contender))
            || {Device, _} <- Devices, {Contender, Name} <- [{iommap, ""}, {iommap_random, ", advise random"}]],
    {Table, Bars, Runs}.

draw_delays(Runs) ->
    Columns = [worst, worst_own, late, time, reads, resident, faults],
    ok = bench_report:csv(results("delay.csv"), [[device, contender | Columns] |
        [[Device, Contender | [maps:get(Column, Run) || Column <- Columns]] || {{Device, Contender}, Run} <- Runs]]),
    Devices = lists:usort([Device || {{Device, _}, _} <- Runs]),
    plot("delay", [["contender" | Devices] |
        [[string:replace(atom_to_list(Contender), "_", ", ")
          | [bench_report:median(values(worst, proplists:get_all_values({Device, Contender}, Runs))) / 1.0e6 || Device <- Devices]]
         || {Contender, _} <- bench_delay:contenders()]]).

%% One range and many, of pages that are in no memory and lie apart, in turns.
batches([], _Size) ->
    {"No FUSE here, so no slow device.\n", []};
batches([Mount], #{slow_reads := Rounds}) ->
    Path = filename:join(Mount, "slow"),
    ok = file:write_file(filename:join(Mount, ".control"), "delay /slow 5"),
    Pages = filelib:file_size(Path) bsr 12,
    Vm = start_vm(#{}),
    Runs = [begin
        ok = bench_file:evict(Path),
        First = rand:uniform(Pages div 128) - 1,
        {Count, call(Vm, bench_delay, batch, [Path, [(First + N * (Pages div 128)) bsl 12 || N <- lists:seq(1, Count)]])}
    end || _ <- lists:seq(1, Rounds), Count <- [1, 8, 64]],
    stop_vm(Vm),
    Of = fun(Count) -> proplists:get_all_values(Count, Runs) end,
    {bench_report:table(["ranges", "the call"],
        [[integer_to_list(Count), bench_bars:milliseconds(bench_report:median(Of(Count)))] || Count <- [1, 8, 64]]),
     bench_bars:batches(Of(64), Of(1))}.

read_cells(Runs) ->
    Each = [Time / Reads || #{time := Time, reads := Reads} <- Runs],
    [[bench_report:number(round(bench_report:median(Each) / 1000)), " µs"],
     io_lib:format("~b %", [round(100 * bench_report:median(values(resident, Runs)))]),
     bench_report:number(round(bench_report:median(values(faults, Runs))))].

reads("slow device", #{slow_reads := Reads}) -> Reads;
reads(_, #{cold_reads := Reads}) -> Reads.

pressure(Directory, Reclaim, #{pressure := Time}) ->
    Path = filename:join(Directory, "pressed"),
    ok = bench_file:make(Path, 1 bsl 28),
    Vm = start_vm(#{}),
    Rows = [begin
        say("memory pressure: ~s", [Contender]),
        #{reads := Reads, reclaimed := Pages, faults := Faults} =
            call(Vm, bench_delay, pressure, [Contender, Path, Reclaim, Time]),
        [atom_to_list(Contender), bench_report:number(Reads), bench_report:number(Pages),
         bench_report:number(Faults), io_lib:format("~.1f", [1.0e6 * Faults / Reads])]
     end || Contender <- [iommap, floor]],
    stop_vm(Vm),
    bench_report:table(["", "4 KB reads", "pages reclaimed", "major faults on schedulers", "in a million reads"], Rows).

%% ---- One library against another

%% In each directory but `whole` is the library without one mechanism for speed.
-spec mechanisms([string()]) -> no_return().
mechanisms([Directory, Libraries]) ->
    conduct(fun(Load) ->
        #{rounds := Rounds} = Size = size(),
        Mechanisms = bench_libraries:mechanisms(),
        %% All of them run all rows: what a VM did before a row moves it, too.
        Cases = lists:append([Cases || {_, _, Cases} <- Mechanisms]),
        Names = ["whole" | [Name || {Name, _, _} <- Mechanisms]],
        Results = hot_rounds([library(Libraries, Name, Cases) || Name <- Names], Directory, Size),
        publish("mechanisms.md", [
            "# Mechanisms for speed\n\n", bench_report:circumstances(command("make bench-mechanisms"), Load), "\n",
            bench_libraries:mechanisms_table(Mechanisms, Results), "\n", bench_libraries:notes(Mechanisms, Rounds)])
    end).

-spec against([string()]) -> no_return().
against([Directory, Libraries, Commit]) ->
    conduct(fun(Load) ->
        Cases = bench_hot:first_cases(),
        Results = hot_rounds([library(Libraries, Name, Cases) || Name <- ["now", Commit]], Directory, size()),
        io:format("~ts~n", [[
            bench_report:circumstances(command("bench/against " ++ Commit), Load), "\n",
            bench_libraries:table("commit", [{Commit, Case, Commit, "now"} || Case <- Cases, Case =/= "nothing"], Results)]])
    end).

library(Libraries, Name, Cases) ->
    {Name, #{env => [{"ERL_LIBS", filename:join(Libraries, Name)}]},
     #{cases => ["nothing" | Cases], contenders => [loop, iommap]}}.
