%% Figures: medians, quartiles, ratios, the bars, and how all of it is written down.
-module(bench_report).

-export([median/1, ratio/2, table/2, csv/2, plot/3, circumstances/2, load/0]).
-export([number/1, times/1, spread/1]).

-spec median([number()]) -> float().
median(Values) ->
    quantile(0.5, Values).

%% The median of the ratios of the rounds, and its quartiles. The two were measured next to each other in each round, so
%% that what disturbed a round disturbed both.
-spec ratio([number()], [number()]) -> {float(), float(), float()}.
ratio(Over, Under) ->
    Ratios = lists:zipwith(fun(A, B) -> A / B end, Over, Under),
    {quantile(0.25, Ratios), median(Ratios), quantile(0.75, Ratios)}.

quantile(Part, Values) ->
    Sorted = lists:sort(Values),
    Place = Part * (length(Sorted) - 1),
    Below = lists:nth(1 + trunc(Place), Sorted),
    Above = lists:nth(min(2 + trunc(Place), length(Sorted)), Sorted),
    float(Below + (Above - Below) * (Place - trunc(Place))).

%% ---- Text

-spec number(number()) -> string().
number(Number) when is_float(Number), Number < 100 -> float_to_list(Number, [{decimals, 1}]);
number(Number) -> grouped(integer_to_list(round(Number))).

-spec times(float()) -> string().
times(Ratio) when Ratio < 20 -> float_to_list(Ratio, [{decimals, 2}]);
times(Ratio) -> number(round(Ratio)).

%% Half the distance of the quartiles, in percent of the median.
-spec spread([number()]) -> string().
spread(Values) ->
    Half = (quantile(0.75, Values) - quantile(0.25, Values)) / 2,
    [$±, integer_to_list(round(100 * Half / max(1.0e-9, abs(median(Values))))), $%].

grouped(Digits) when length(Digits) > 3 ->
    {High, Low} = lists:split(length(Digits) - 3, Digits),
    grouped(High) ++ "," ++ Low;
grouped(Digits) ->
    Digits.

%% A table in Markdown, its columns aligned for those who read the source.
-spec table([unicode:chardata()], [[unicode:chardata()]]) -> unicode:chardata().
table(Head, Rows) ->
    Widths = [lists:max([string:length(Cell) || Cell <- Column]) || Column <- columns([Head | Rows])],
    Rule = [lists:duplicate(Width, $-) || Width <- Widths],
    [["| ", lists:join(" | ", lists:zipwith(fun pad/2, Row, Widths)), " |\n"] || Row <- [Head, Rule | Rows]].

columns([[] | _]) -> [];
columns(Rows) -> [[hd(Row) || Row <- Rows] | columns([tl(Row) || Row <- Rows])].

pad(Cell, Width) -> string:pad(Cell, Width).

-spec csv(file:filename(), [[unicode:chardata() | atom() | number()]]) -> ok.
csv(Path, Rows) ->
    Field = fun(Value) when is_float(Value) -> float_to_list(Value, [{decimals, 2}]);
               (Value) when is_integer(Value) -> integer_to_list(Value);
               (Value) when is_atom(Value) -> atom_to_list(Value);
               (Value) -> [$", Value, $"]
            end,
    file:write_file(Path, unicode:characters_to_binary(
        [[lists:join($,, [Field(Value) || Value <- Row]), $\n] || Row <- Rows])).

%% Draws bench/plots/Name.gp from a file of data.
-spec plot(Name :: string(), Data :: file:filename(), Svg :: file:filename()) -> ok | {error, string()}.
plot(Name, Data, Svg) ->
    Command = io_lib:format("gnuplot -e \"data='~ts'\" bench/plots/~ts.gp 2>&1 > '~ts'", [Data, Name, Svg]),
    case os:cmd(lists:flatten(Command)) of
        "" -> ok;
        Trouble -> {error, Trouble}
    end.

%% How busy the machine is: the load average of the last minute.
-spec load() -> string().
load() ->
    cmd("cut -d' ' -f1 /proc/loadavg").

%% The machine, the date and the command, and how busy the machine was before.
-spec circumstances(Command :: string(), Load :: string()) -> unicode:chardata().
circumstances(Command, Load) ->
    Processor = case cmd("sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1") of
        "" -> cmd("uname -m"); % of some processors there is no name
        Name -> Name
    end,
    io_lib:format(
        "~ts, ~b cores, ~ts of memory, ~ts; Erlang/OTP ~ts, ERTS ~ts; ~ts; load before ~ts; `~ts`\n",
        [Processor, erlang:system_info(logical_processors_available), cmd("free -h | awk '/^Mem/ {print $2}'"), cmd("uname -sr"),
         erlang:system_info(otp_release), erlang:system_info(version),
         calendar:system_time_to_rfc3339(erlang:system_time(second), [{offset, "Z"}]),
         Load, Command]).

cmd(Command) ->
    string:trim(os:cmd(Command)).
