%% What the rounds gave: as tables for people, as rows for programs, as data for the plots.
-module(bench_results).

-export([cases/0, scenes/0, values/4, in_short/1, times_table/2, rates_table/2, slower/2, notes/3, csv/1, latency/1, throughput/1]).
-export_type([results/0]).

%% What the loop takes without a call is taken off the nanoseconds of what it drives.
-type unit() :: nanoseconds | raw_nanoseconds | calls_per_second.
-type vm() :: atom() | string().
-type results() :: #{{vm(), Case :: string(), Contender :: atom()} => OfTheRounds :: [float()]}.

%% All cases of the report, with their units, in its order.
-spec cases() -> [{Case :: string(), unit()}].
cases() ->
    bench_hot:cases() ++ lists:append([Module:cases() || Module <- scenes()]).

%% The modules whose cases are measured apart from those of `bench_hot`.
-spec scenes() -> [module()].
scenes() ->
    [bench_sweep, bench_open, bench_shared].

%% The results of the rounds, times without what the loop itself took in the same round.
-spec values(results(), vm(), string(), atom()) -> [float()].
values(Results, Vm, Case, Contender) ->
    #{{Vm, Case, Contender} := Values} = Results,
    case proplists:get_value(Case, cases()) of
        calls_per_second -> Values;
        raw_nanoseconds -> Values;
        nanoseconds when Contender =:= loop -> Values;
        nanoseconds -> lists:zipwith(fun(Value, Loop) -> max(0.1, Value - Loop) end, Values,
                                     maps:get({Vm, "nothing", loop}, Results))
    end.

%% The page for those who only want to know how fast it is.
-spec in_short(results()) -> unicode:chardata().
in_short(Results) ->
    Median = fun(Case, Contender) -> bench_report:median(values(Results, busy_wait, Case, Contender)) end,
    Times = fun(Case, Over, Under) ->
        {_, Ratio, _} = bench_report:ratio(values(Results, busy_wait, Case, Over), values(Results, busy_wait, Case, Under)),
        bench_report:times(Ratio)
    end,
    ["Three ways to the same bytes of a file that is in memory, from Erlang, called by the same loop on the same machine in turn:\n\n",
     "- **iommap**: `pread/3` and `pwrite/3` of this library.\n",
     "- **file**: `file:pread/3` and `file:pwrite/3` of a file that was opened `raw`.\n",
     "- **bare copy**: a NIF in C that copies from or to a mapping of the file, and does nothing else. It has no lock, and ends the ",
     "VM if the file is cut: it is what is left of a call when all but the copy is taken out.\n\n",
     bench_report:table(["nanoseconds a call", "iommap", "file", "bare copy", "file / iommap", "iommap / bare copy"],
        [[Title | [bench_report:number(Median(Case, Contender)) || Contender <- [iommap, file, floor]]]
         ++ [Times(Case, file, iommap), Times(Case, iommap, floor)]
         || {Title, Case} <- [{"read 8 B, same page", "read 8 B, same page"}]
                ++ [{["read ", Size, ", at random"], "read " ++ Size} || Size <- ["64 B", "4 KB", "64 KB", "1 MB"]]
                ++ [{["write ", Size, ", at random"], "write " ++ Size} || Size <- ["64 B", "4 KB"]]]),
     "\nA view (`region_binary/3`) of 4 KB is made in ", bench_report:number(Median("view 4 KB", iommap)),
     " ns, whatever its length: nothing is copied. A part of one is taken in ",
     bench_report:number(Median("read 4 KB", part)), " ns.\n\n![A read at random, by size](latency.svg)\n\n",
     "\"part\" is `binary:part/3` of a view, and \"ets\" is `ets:lookup_element/3` of a binary of that size: both copy up to 64 ",
     "bytes, and nothing beyond.\n\n![Reads of 64 bytes by processes](throughput.svg)\n\n",
     "## What to make of it\n\n",
     "- Figures are medians. Ratios were measured in one run on one machine; nanoseconds of two machines, or of two days, do not ",
     "compare.\n",
     "- `file` waits for another thread in each call, so it does worst where schedulers do not wait busily (`+sbwt none`): ",
     bench_report:number(bench_report:median(values(Results, no_busy_wait, "read 64 B", file))), " ns for 64 bytes, where iommap takes ",
     bench_report:number(bench_report:median(values(Results, no_busy_wait, "read 64 B", iommap))), ".\n",
     "- Pages that are not in memory cost what the disk costs, with any of the three: see [cold reads](cold.md).\n",
     "- Some calls are further from the bare copy than these: reads of zeros, first writes to a page, opening and closing. All rows ",
     "are in [hot calls](hot.md).\n\n",
     "To repeat it: `make bench` takes a quarter of an hour on an idle machine, and writes this page anew. What the bytes of a ",
     "call cost in instructions, and how that grows, is in [instructions](instructions.md); what each mechanism saves, in ",
     "[mechanisms](mechanisms.md). What we want of these figures, and where we miss it, is in [the bars](bars.md).\n"].

-spec times_table(results(), vm()) -> unicode:chardata().
times_table(Results, Vm) ->
    Ratio = fun(Case, Over, Under) ->
        case maps:is_key({Vm, Case, Over}, Results) andalso maps:is_key({Vm, Case, Under}, Results) of
            true ->
                {_, Median, _} = bench_report:ratio(values(Results, Vm, Case, Over), values(Results, Vm, Case, Under)),
                bench_report:times(Median);
            false -> "–"
        end
    end,
    bench_report:table(
        ["", "iommap", "floor", "file", "part", "ets", "other", "NIF that does nothing", "iommap / floor", "file / iommap"],
        [[Case | [cell(Results, {Vm, Case, Contender}, 1) || Contender <- contenders() ++ [other, nif]]]
         ++ [Ratio(Case, iommap, floor), Ratio(Case, file, iommap)]
         || {Case, Unit} <- cases(), Unit =/= calls_per_second, Case =/= "nothing"]).

%% How many times as long as the floor iommap takes in each case that has one, with the quartiles.
-spec slower(results(), vm()) -> [{Case :: string(), {float(), float(), float()}}].
slower(Results, Vm) ->
    [{Case, case Unit of
        calls_per_second -> bench_report:ratio(Of(floor), Of(iommap));
        _ -> bench_report:ratio(Of(iommap), Of(floor))
     end}
     || {Case, Unit} <- cases(), maps:is_key({Vm, Case, iommap}, Results), maps:is_key({Vm, Case, floor}, Results),
        Of <- [fun(Contender) -> values(Results, Vm, Case, Contender) end]].

-spec notes(results(), Rounds :: pos_integer(), SceneRounds :: pos_integer()) -> unicode:chardata().
notes(Results, Rounds, SceneRounds) ->
    Loops = [[bench_report:number(bench_report:median(values(Results, Vm, "nothing", loop))), " ns"] || Vm <- vms()],
    Overlaps = [bench_report:times(overlap(Results, busy_wait, Contender)) || Contender <- [iommap, floor]],
    io_lib:format(
        "Medians of ~b rounds (of ~b, from \"~s\" on), ± half the distance of their quartiles; ratios are medians of the rounds' "
        "ratios. One loop drives all, and throws the answers away; what it takes without a call (~s) is taken off. Before each "
        "sample the whole file was read (or written) through the same contender, but for what was \"not lately\" read or written. "
        "A page of zeros may be one that was cut off: `pread` copies it twice, and asks twice where the file ends.\n\n"
        "- \"Used\": the loop takes the first word of each answer. \"Chained\": it needs it to know the next offset. (Random − same "
        "page) / (chained − chained on the same page) is the part of a cache miss that a read of 8 B still takes when the next one "
        "need not wait for it: ~s, of the floor ~s.\n"
        "- \"In turn\": each call reads from one of eight files and writes to the next.\n"
        "- \"Cold\": one page in ten is in no memory at first; what the system reads along with a page stays.\n"
        "- \"Again after 2 s\": the same contender has written all pages of a file of its own before. \"At once\" comes right "
        "after that.\n\n"
        "Who takes part:\n\n",
        [Rounds, SceneRounds, element(1, hd((hd(scenes())):cases())), lists:join(" and ", Loops) | Overlaps])
    ++ contenders_text().

contenders_text() ->
    ["- iommap: this library.\n",
     "- floor: a C NIF that copies from a mapping of the same file (view: makes the binary) and answers in the same form, ",
     "without lock, guard or checks, as an unguarded library would on the scheduler. It opens (open, fstat, mmap, close) and ",
     "closes (munmap) on dirty schedulers. It has the VM gather iodata (`enif_inspect_iolist_as_binary`); while there is a view, ",
     "it takes the list apart, as a NIF must that has to know where each part comes from, and copies each binary.\n",
     "- file: `file:pread/3` and `file:pwrite/3` of a raw file; of lines, `file:read_line/1` of one with `read_ahead`; of appends, ",
     "`file:write/2`.\n",
     "- part: `binary:part/3` of a view of the whole file, which copies up to 64 B and makes a sub-binary beyond.\n",
     "- ets: `ets:lookup_element/3` and `ets:update_element/3` of binaries of that size, which copy up to 64 B and share beyond.\n",
     "- other: of reads of 64 B, an element of a tuple in a persistent term, which is no copy; of words, `atomics:add/3` and ",
     "`atomics:get/2` of OTP, behind the same fun as those of `iommap_atomics`; of `with_view/4` of `erlang:crc32/1`, ",
     "`region_binary/3` and `intact/1` by hand; of reads through a device of `iommap_file`, `iommap:pread/3`; of reads of 64 ",
     "ranges, 64 calls of `iommap:pread/3`; of appends (`ensure_size/2` and `pwrite/3`), `file:write/2` of a raw file with ",
     "`delayed_write`.\n"].

%% Thousand calls a second.
-spec rates_table(results(), vm()) -> unicode:chardata().
rates_table(Results, Vm) ->
    bench_report:table(["" | names()] ++ ["other"],
        [[Case | [cell(Results, {Vm, Case, Contender}, 1000) || Contender <- contenders() ++ [other]]]
         || {Case, calls_per_second} <- cases()]).

cell(Results, {Vm, Case, Contender} = Key, Scale) ->
    case maps:is_key(Key, Results) of
        true ->
            Values = values(Results, Vm, Case, Contender),
            [bench_report:number(bench_report:median(Values) / Scale), " ", bench_report:spread(Values)];
        false -> "–"
    end.

%% Which part of a cache miss a read of 8 B still takes, when the next read need not wait for its bytes.
-spec overlap(results(), vm(), Contender :: atom()) -> float().
overlap(Results, Vm, Contender) ->
    [Random, SamePage, Chained, ChainedSamePage] =
        [bench_report:median(values(Results, Vm, "read 8 B" ++ Case, Contender))
         || Case <- ["", ", same page", ", chained", ", chained, same page"]],
    (Random - SamePage) / max(1.0, Chained - ChainedSamePage).

-spec csv(results()) -> [[term()]].
csv(Results) ->
    [[vm, 'case', unit, contender, median, lowest, highest] |
     [begin
        Values = values(Results, Vm, Case, Contender),
        [Vm, Case, Unit, Contender, bench_report:median(Values), lists:min(Values), lists:max(Values)]
      end || Vm <- vms(), {Case, Unit} <- cases(), Contender <- contenders() ++ [other, nif, loop],
             maps:is_key({Vm, Case, Contender}, Results)]].

%% Nanoseconds by size.
-spec latency(results()) -> [[term()]].
latency(Results) ->
    [["bytes" | plotted()] |
     [[Bytes | [bench_report:median(values(Results, busy_wait, Case, Contender)) || Contender <- contenders()]]
      || {Bytes, Case} <- [{8, "read 8 B"}, {64, "read 64 B"}, {4096, "read 4 KB"}, {1 bsl 16, "read 64 KB"},
                           {1 bsl 20, "read 1 MB"}]]].

%% Million calls a second by processes.
-spec throughput(results()) -> [[term()]].
throughput(Results) ->
    [["processes" | plotted()] |
     [[Processes | [bench_report:median(values(Results, busy_wait, Case, Contender)) / 1.0e6 || Contender <- contenders()]]
      || {Processes, Case} <- [{1, "read 64 B, 1 process"}, {2, "read 64 B, 2 processes"}, {4, "read 64 B, 4 processes"}]]].

vms() -> [busy_wait, no_busy_wait].

contenders() -> [iommap, floor, file, part, ets].

names() -> [atom_to_list(Contender) || Contender <- contenders()].

%% As the page for readers calls them.
plotted() -> [case Contender of floor -> "bare copy"; _ -> atom_to_list(Contender) end || Contender <- contenders()].
