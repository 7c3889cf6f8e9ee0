%% One library against another, row by row: what each mechanism for speed saves, what a change costs.
%%
%% bench/without/NAME.patch leaves a mechanism out of the library. Before its first hunk it says in a sentence what the
%% mechanism is, and, on a line that begins with "Row: ", each row of the benchmark that shows it.
-module(bench_libraries).

-export([mechanisms/0, mechanisms_table/2, table/3, notes/2]).
-export_type([mechanism/0, pair/0]).

-type mechanism() :: {Name :: string(), Sentence :: unicode:chardata(), Cases :: [string()]}.
-type pair() :: {Title :: string(), Case :: string(), Before :: string(), After :: string()}.

-spec mechanisms() -> [mechanism()].
mechanisms() ->
    [begin
        {ok, Patch} = file:read_file(Path),
        [Head | _] = string:split(unicode:characters_to_list(Patch), "\n--- a/"),
        {Rows, Sentence} = lists:partition(fun(Line) -> lists:prefix("Row: ", Line) end, string:lexemes(Head, "\n")),
        {filename:basename(Path, ".patch"), lists:join(" ", Sentence), [Case || "Row: " ++ Case <- Rows]}
     end || Path <- filelib:wildcard("bench/without/*.patch")].

-spec mechanisms_table([mechanism()], bench_results:results()) -> unicode:chardata().
mechanisms_table(Mechanisms, Results) ->
    table("without", [{title(Name), Case, "whole", Name} || {Name, _, Cases} <- Mechanisms, Case <- Cases], Results).

%% A line for each pair of libraries: how many times as long a call takes after as before.
-spec table(Head :: string(), [pair()], bench_results:results()) -> unicode:chardata().
table(Head, Pairs, Results) ->
    bench_report:table([Head, "row", "before", "after", "times as long", "quartiles"],
        [line(Pair, proplists:get_value(Case, bench_hot:cases()), Results) || {_, Case, _, _} = Pair <- Pairs]).

line({Title, Case, Before, After}, Unit, Results) ->
    [From, To] = [bench_results:values(Results, Library, Case, iommap) || Library <- [Before, After]],
    {Low, Median, High} = case Unit of
        nanoseconds -> bench_report:ratio(To, From);
        calls_per_second -> bench_report:ratio(From, To)
    end,
    [Title, Case, figure(Unit, From), figure(Unit, To), bench_report:times(Median),
     [bench_report:times(Low), " to ", bench_report:times(High)]].

figure(nanoseconds, Values) ->
    [bench_report:number(bench_report:median(Values)), " ns"];
figure(calls_per_second, Values) ->
    io_lib:format("~.1f million/s", [bench_report:median(Values) / 1.0e6]).

title(Name) ->
    string:replace(Name, "_", " ", all).

-spec notes([mechanism()], Rounds :: pos_integer()) -> unicode:chardata().
notes(Mechanisms, Rounds) ->
    ["Medians of ", integer_to_list(Rounds), " rounds. In each the library with all mechanisms (before) and those without one ",
     "(after) take turns, each in a VM of its own; the ratio is the median of the rounds' ratios, beside it are the quartiles. ",
     "`bench/without/` has the patch that leaves each out.\n\n",
     [["- ", title(Name), ": ", Sentence, "\n"] || {Name, Sentence, _} <- Mechanisms]].
