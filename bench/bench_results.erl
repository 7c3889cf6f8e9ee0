%% What the rounds gave: as tables for people, as rows for programs, as data for the plots.
-module(bench_results).

-export([values/4, times_table/2, rates_table/1, notes/2, csv/1, latency/1, throughput/1]).
-export_type([results/0]).

-type vm() :: atom() | string().
-type results() :: #{{vm(), Case :: string(), Contender :: atom()} => OfTheRounds :: [float()]}.

%% The results of the rounds, times without what the loop itself took in the same round.
-spec values(results(), vm(), string(), atom()) -> [float()].
values(Results, Vm, Case, Contender) ->
    #{{Vm, Case, Contender} := Values} = Results,
    case proplists:get_value(Case, bench_hot:cases()) of
        calls_per_second -> Values;
        nanoseconds when Contender =:= loop -> Values;
        nanoseconds -> lists:zipwith(fun(Value, Loop) -> max(0.1, Value - Loop) end, Values,
                                     maps:get({Vm, "nothing", loop}, Results))
    end.

-spec times_table(results(), vm()) -> unicode:chardata().
times_table(Results, Vm) ->
    Cell = fun(Case, Contender) ->
        case maps:is_key({Vm, Case, Contender}, Results) of
            true ->
                Values = values(Results, Vm, Case, Contender),
                [bench_report:number(bench_report:median(Values)), " ", bench_report:spread(Values)];
            false -> "–"
        end
    end,
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
        [[Case | [Cell(Case, Contender) || Contender <- contenders() ++ [other, nif]]]
         ++ [Ratio(Case, iommap, floor), Ratio(Case, file, iommap)]
         || {Case, nanoseconds} <- bench_hot:cases(), Case =/= "nothing"]).

-spec notes(results(), Rounds :: pos_integer()) -> unicode:chardata().
notes(Results, Rounds) ->
    Loops = [[bench_report:number(bench_report:median(values(Results, Vm, "nothing", loop))), " ns"] || Vm <- vms()],
    ["Medians of ", integer_to_list(Rounds), " rounds, ± half the distance of their quartiles; ratios are medians of the rounds' ratios. ",
     "One loop drives all; what it takes without a call (", lists:join(" and ", Loops), ") is taken off. ",
     "Before each sample the whole file was read (or written) through the same contender, but for what was \"not lately\" ",
     "read or written. A page of zeros may be one that was cut off: `pread` copies it twice, and asks twice where the file ends.\n\n",
     "- iommap: this library.\n",
     "- floor: a C NIF that copies from a mapping of the same file (view: makes the binary) and answers in the same form, ",
     "without lock, guard or checks. It flattens iodata with `enif_inspect_iolist_as_binary`; \"not flattened\", it takes the ",
     "list apart as a NIF can, and copies each binary.\n",
     "- file: `file:pread/3` and `file:pwrite/3` of a raw file; of lines, `file:read_line/1` of one with `read_ahead`; of appends, ",
     "`file:write/2`.\n",
     "- part: `binary:part/3` of a view of the whole file, which copies up to 64 B and makes a sub-binary beyond.\n",
     "- ets: `ets:lookup_element/3` and `ets:update_element/3` of binaries of that size, which copy up to 64 B and share beyond.\n",
     "- other: of words, `atomics:add/3` and `atomics:get/2` of OTP, behind the same fun as those of `iommap_atomics`; of `with_view/4` of `erlang:crc32/1`, ",
     "`region_binary/3` and `intact/1` by hand; of reads through a device of `iommap_file`, `iommap:pread/3`; of reads of 64 ranges, 64 calls of `iommap:pread/3`; of appends ",
     "(`ensure_size/2` and `pwrite/3`), `file:write/2` of a raw file with `delayed_write`.\n"].

-spec rates_table(results()) -> unicode:chardata().
rates_table(Results) ->
    Cases = [Case || {Case, calls_per_second} <- bench_hot:cases()],
    bench_report:table(["" | names()],
        [[Case | [begin
            Values = values(Results, busy_wait, Case, Contender),
            [io_lib:format("~.2f ", [bench_report:median(Values) / 1.0e6]), bench_report:spread(Values)]
          end || Contender <- contenders()]] || Case <- Cases]).

-spec csv(results()) -> [[term()]].
csv(Results) ->
    [[vm, 'case', unit, contender, median, lowest, highest] |
     [begin
        Values = values(Results, Vm, Case, Contender),
        [Vm, Case, Unit, Contender, bench_report:median(Values), lists:min(Values), lists:max(Values)]
      end || Vm <- vms(), {Case, Unit} <- bench_hot:cases(), Contender <- contenders() ++ [other, nif, loop],
             maps:is_key({Vm, Case, Contender}, Results)]].

%% Nanoseconds by size.
-spec latency(results()) -> [[term()]].
latency(Results) ->
    [["bytes" | names()] |
     [[Bytes | [bench_report:median(values(Results, busy_wait, Case, Contender)) || Contender <- contenders()]]
      || {Bytes, Case} <- [{8, "read 8 B"}, {64, "read 64 B"}, {4096, "read 4 KB"}, {1 bsl 16, "read 64 KB"},
                           {1 bsl 20, "read 1 MB"}]]].

%% Million calls a second by processes.
-spec throughput(results()) -> [[term()]].
throughput(Results) ->
    [["processes" | names()] |
     [[Processes | [bench_report:median(values(Results, busy_wait, Case, Contender)) / 1.0e6 || Contender <- contenders()]]
      || {Processes, Case} <- lists:zip([1, 2, 4], [Case || {Case, calls_per_second} <- bench_hot:cases()])]].

vms() -> [busy_wait, no_busy_wait].

contenders() -> [iommap, floor, file, part, ets].

names() -> [atom_to_list(Contender) || Contender <- contenders()].
