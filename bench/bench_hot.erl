%% Hot calls: the cases and one round of them. Runs inside a VM that is measured; the registered process holds what the
%% contenders work on.
-module(bench_hot).

-export([prepare/2, round/0, cases/0, first_cases/0, shuffle/1]).
-export_type([settings/0, cell/0, result/0]).

-type settings() :: #{directory := file:filename(), samples := pos_integer(), sample_time := pos_integer(),
                      cases => [Case :: string()], contenders => [atom()]}. % only these
-type cell() :: {Case :: string(), nanoseconds | {first, Calls :: pos_integer()} | {processes, pos_integer()},
                 [bench_loop:contender()]}.
-type result() :: {{Case :: string(), Contender :: atom()}, float()}.

%% The cases in the order of the report, with the unit of their results.
-spec cases() -> [{string(), nanoseconds | calls_per_second}].
cases() ->
    [{Name, nanoseconds} || Name <- [
        "nothing", "read 8 B", "read 64 B", "read 4 KB", "read 64 KB", "read 1 MB", "read 8 B, same page",
        "read 8 B, used", "read 64 B, used", "read 8 B, chained", "read 8 B, chained, same page",
        "read 8 B of zeros", "read 8 B of zeros among data", "read 4 KB of zeros", "view 4 KB", "write 64 B", "write 4 KB", "write 16 x 256 B",
        "write 64 B, while there is a view", "write 16 x 256 B, while there is a view", "read and write 64 B, 8 handles in turn",
        "read 64 B, not lately read", "read 64 B, one page in ten cold", "write 64 B, not lately written",
        "read 64 x 64 B", "grow by 4 KB", "append 64 B", "with_view 4 KB", "device read 64 B", "device read_line", "atomics add", "atomics get"]]
    ++ [{Name, calls_per_second} || Name <- ["read 64 B, 1 process", "read 64 B, 2 processes", "read 64 B, 4 processes",
                                               "read 64 B, 32 processes"]].

%% Those whose calls every version of the library has.
-spec first_cases() -> [string()].
first_cases() ->
    [Case || {Case, _} <- cases()] -- ["read 64 x 64 B", "append 64 B", "with_view 4 KB", "device read 64 B", "device read_line", "atomics add",
                                       "atomics get"].

%% Makes the files and tables, and has every contender's first answers checked.
-spec prepare(settings(), Calls :: pos_integer()) -> ok | {wrong, [{string(), atom()}]}.
prepare(Settings, Checked) ->
    Caller = self(),
    _ = spawn(fun() ->
        register(?MODULE, self()),
        Cells = bench_cells:cells(Settings),
        Wrong = [{Case, Name} || {Case, _, Contenders} <- Cells, #{name := Name} = Contender <- Contenders,
                                 not bench_loop:answers(Contender, Checked)],
        Caller ! {prepared, case Wrong of [] -> ok; _ -> {wrong, Wrong} end},
        serve(Settings, [{Case, Unit, [calibrate(Unit, Contender, Settings) || Contender <- Contenders]}
                         || {Case, Unit, Contenders} <- Cells])
    end),
    receive {prepared, Answer} -> Answer end.

%% One round: of every case several samples of every contender, in another order each time, and their median.
-spec round() -> [result()].
round() ->
    ?MODULE ! {round, self()},
    receive {?MODULE, Results} -> Results end.

serve(#{samples := Samples} = Settings, Cells) ->
    receive {round, Caller} ->
        Caller ! {?MODULE, lists:append([sample(Cell, Samples) || Cell <- Cells])},
        serve(Settings, Cells)
    end.

sample({Case, {first, _} = Unit, Contenders}, _Samples) ->
    [{{Case, Name}, measure(Unit, Contender, Calls)} || {#{name := Name} = Contender, Calls} <- shuffle(Contenders)];
sample({Case, Unit, Contenders}, Samples) ->
    Results = [{Name, measure(Unit, Contender, Calls)}
               || _ <- lists:seq(1, Samples), {#{name := Name} = Contender, Calls} <- shuffle(Contenders)],
    [{{Case, Name}, bench_report:median(proplists:get_all_values(Name, Results))} || {#{name := Name}, _} <- Contenders].

measure(nanoseconds, Contender, Calls) -> bench_loop:nanoseconds_per_call(Contender, Calls);
measure({first, _}, Contender, Calls) -> bench_loop:nanoseconds_at_first(Contender, Calls);
measure({processes, Count}, Contender, Calls) -> bench_loop:calls_per_second(Contender, Count, Calls).

calibrate(nanoseconds, Contender, #{sample_time := Time}) -> {Contender, bench_loop:calls_within(Contender, Time)};
calibrate({first, Calls}, Contender, _) -> {Contender, Calls};
calibrate({processes, _}, Contender, #{sample_time := Time}) -> {Contender, bench_loop:calls_within(Contender, 2 * Time)}.

%% In another order each time, so that nobody always comes after the same.
-spec shuffle([Item]) -> [Item].
shuffle(List) ->
    [Item || {_, Item} <- lists:sort([{rand:uniform(), Item} || Item <- List])].
