%% The programs of examples/, run as a reader runs them: each in an OS process of its own, beside those that it shares with.
-module(iommap_examples_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [examples_compile_without_warnings,
     two_vms_and_a_python_process_count_together,
     a_slot_of_the_counter_has_one_owner,
     a_reader_follows_a_log_that_is_appended_to,
     a_log_goes_on_after_its_writer_was_killed,
     a_constant_database_of_python_is_read,
     a_constant_database_is_made_as_its_format_says,
     a_model_gives_its_tensors_one_at_a_time,
     a_model_that_was_cut_is_no_model,
     messages_go_to_python_and_back,
     python_ends_with_its_input,
     the_demo_takes_a_file_of_any_name,
     the_demo_takes_a_block_device,
     the_demo_tells_what_cannot_be_mapped,
     make_gives_the_demo_any_name].

init_per_testcase(Case, Config) ->
    case [Tool || Tool <- tools(Case), os:find_executable(Tool) =:= false] of
        [] -> [{directory, filename:absname(test_files:case_directory(Config))} | Config];
        Missing -> {skip, lists:concat(["not installed: " | lists:join(", ", Missing)])}
    end.

%% A program that waits for what a failed case did not give it ends here. The case's directory is in its arguments.
end_per_testcase(_Case, Config) ->
    Directory = list_to_binary(?config(directory, Config)),
    [test_system:shell(["kill -KILL ", lists:nth(3, filename:split(Process))]) ||
        Process <- filelib:wildcard("/proc/[0-9]*/cmdline"),
        {ok, Command} <- [file:read_file(Process)],
        binary:match(Command, Directory) =/= nomatch],
    ok.

tools(examples_compile_without_warnings) -> [];
tools(the_demo_takes_a_block_device) -> ["losetup"];
tools(the_demo_tells_what_cannot_be_mapped) -> ["mkfifo"];
tools(make_gives_the_demo_any_name) -> ["make"];
tools(the_demo_takes_a_file_of_any_name) -> [];
tools(a_log_goes_on_after_its_writer_was_killed) -> [];
tools(a_reader_follows_a_log_that_is_appended_to) -> [];
tools(a_model_that_was_cut_is_no_model) -> ["python3", "elixir"];
tools(a_model_gives_its_tensors_one_at_a_time) -> ["python3", "elixir"];
tools(_) -> ["python3"].

%% The compiler has nothing to say about an example.
examples_compile_without_warnings(_Config) ->
    Sources = [_, _, _, _ | _] = filelib:wildcard(example("*.erl")),
    [{ok, _, _, []} = compile:file(Source, [binary, return]) || Source <- Sources].

%% Two VMs that add to one word, and a Python process that has its own, lose nothing, and both languages give the sum.
two_vms_and_a_python_process_count_together(Config) ->
    Path = path(Config, "counter"),
    Add = fun(Program, More) -> fun() -> <<>> = run(Program, [Path, "add" | More]) end end,
    <<"0\n">> = run("counter.erl", [Path]),
    %% Each takes longer than it takes to start the next.
    _ = test_processes:together([Add("counter.erl", ["20000000"]), Add("counter.erl", ["30000000"]),
                                 Add("counter.py", ["10000000", "1"])]),
    <<"60000000\n">> = run("counter.erl", [Path]),
    <<"60000000\n">> = run("counter.py", [Path]).

%% A second Python process is not let into a slot in which one counts.
a_slot_of_the_counter_has_one_owner(Config) ->
    Path = path(Config, "counter"),
    <<"0\n">> = run("counter.erl", [Path]),
    First = start("counter.py", [Path, "add", "1000000000", "7"]),
    ok = test_processes:eventually(fun() -> run("counter.py", [Path]) =/= <<"0\n">> end),
    {1, Output} = fails("counter.py", [Path, "add", "1", "7"]),
    {_, _} = binary:match(Output, <<"another process counts in slot 7">>),
    <<>> = run("counter.py", [Path, "add", "1", "8"]),
    ok = kill(First),
    <<>> = run("counter.py", [Path, "add", "1", "7"]).

%% A reader that has read all there is reads on what a writer then appends, past what it had mapped.
a_reader_follows_a_log_that_is_appended_to(Config) ->
    Path = path(Config, "log"),
    Records = [["record ", integer_to_list(N), lists:duplicate(N rem 50, $.), $\n] || N <- lists:seq(1, 5000)],
    {First, Second} = lists:split(3, Records),
    Reader = start("append_log.erl", ["read", Path, "0", "5000"]), % waits for the log itself
    ok = append(Config, Path, First),
    Read = read_lines(Reader, iolist_to_binary(First)),
    true = filelib:file_size(Path) < iolist_size(Records), % so the reader has to follow
    ok = append(Config, Path, Second),
    ok = expect(Reader, Read, iolist_to_binary(Second)),
    Last = iolist_to_binary(lists:last(Records)),
    Last = run("append_log.erl", ["read", Path, "4999", "1"]).

%% What a writer appended is there when it was killed, and the next writer goes on behind it.
a_log_goes_on_after_its_writer_was_killed(Config) ->
    Path = path(Config, "log"),
    Writer = start("append_log.erl", ["append", Path]),
    true = port_command(Writer, "one\ntwo\n"),
    <<"one\ntwo\n">> = run("append_log.erl", ["read", Path, "0", "2"]),
    ok = kill(Writer),
    ok = append(Config, Path, ["three\n"]),
    <<"one\ntwo\nthree\n">> = run("append_log.erl", ["read", Path, "0", "3"]).

%% Every key of a database that another program made has its first value; others have none.
a_constant_database_of_python_is_read(Config) ->
    Path = path(Config, "database"),
    <<>> = oracle(["make-cdb", Path | pairs() ++ ["key 5=again", "=empty"]]),
    Expected = answers(),
    Expected = run("cdb.erl", ["get", Path | keys()]),
    <<"=empty\n">> = run("cdb.erl", ["get", Path, ""]).

%% Another program finds every key in a database that the example made, also when it replaced another.
a_constant_database_is_made_as_its_format_says(Config) ->
    Path = path(Config, "database"),
    <<>> = run("cdb.erl", ["make", Path, "other=value"]),
    <<>> = run("cdb.erl", ["make", Path | pairs() ++ ["key 5=again"]]),
    Expected = answers(),
    Expected = oracle(["read-cdb", Path | keys()]),
    <<"other is not there\n">> = oracle(["read-cdb", Path, "other"]).

%% Name, type, shape, length and checksum of each tensor are those of the program that made the file.
a_model_gives_its_tensors_one_at_a_time(Config) ->
    Path = path(Config, "model"),
    Expected = oracle(["make-safetensors", Path]),
    Expected = run("safetensors.exs", [Path]).

%% A tensor that is not all there is an error, and so is another format.
a_model_that_was_cut_is_no_model(Config) ->
    Path = path(Config, "model"),
    [Whole | _] = binary:split(oracle(["make-safetensors", Path]), <<"\n">>),
    ok = test_system:truncate(Path, filelib:file_size(Path) - 1000),
    {1, Output} = fails("safetensors.exs", [Path]),
    {0, _} = binary:match(Output, Whole),
    {_, _} = binary:match(Output, <<"out_of_bounds">>),
    ok = file:write_file(Path, "nothing of that kind"),
    {1, _} = fails("safetensors.exs", [Path]).

%% Many times as many messages as a ring has slots come back, each once, in order and changed by Python.
messages_go_to_python_and_back(_Config) ->
    <<"20000 messages, 20000 answers\n">> = run("ring.erl", ["20000"]).

%% The Python process ends when the VM closes its input, and does not wait for messages for ever.
python_ends_with_its_input(Config) ->
    Path = test_files:file(?config(directory, Config), test_pattern:zeros(64 bsl 10)),
    Python = start("ring.py", [Path]),
    {os_pid, OsPid} = erlang:port_info(Python, os_pid),
    Process = lists:concat(["/proc/", OsPid]),
    ok = test_processes:eventually(fun() ->
        {ok, Maps} = file:read_file(Process ++ "/maps"),
        binary:match(Maps, list_to_binary(Path)) =/= nomatch
    end),
    true = port_close(Python),
    ok = test_processes:eventually(fun() -> not filelib:is_dir(Process) end).

%% The demo takes names with blanks, quotes and dollar signs, and those that are in no encoding of this system.
the_demo_takes_a_file_of_any_name(Config) ->
    [begin
         Path = iolist_to_binary(path(Config, Name)),
         ok = file:write_file(Path, test_pattern:bytes(10000)),
         {match, _} = re:run(run("demo.escript", [Path]), "15 of 15 checks held")
     end || Name <- odd_names()].

odd_names() ->
    [<<"a \"name\" of $HOME's">>, <<"caf", 233>>].

%% The demo takes a block device, whose size the directory does not tell.
the_demo_takes_a_block_device(Config) ->
    Path = path(Config, "image"),
    ok = file:write_file(Path, test_pattern:bytes(1 bsl 20)),
    case test_system:shell(["losetup --find --show --read-only '", Path, "'"]) of
        {0, Device} ->
            Name = string:trim(Device),
            try {match, _} = re:run(run("demo.escript", [Name]), "15 of 15 checks held")
            after {0, _} = test_system:shell(["losetup --detach ", Name])
            end;
        {_, Output} ->
            {skip, binary_to_list(Output)}
    end.

%% The demo says of what cannot be mapped why, and waits for no FIFO.
the_demo_tells_what_cannot_be_mapped(Config) ->
    Fifo = path(Config, "fifo"),
    {0, _} = test_system:shell(["mkfifo '", Fifo, "'"]),
    Empty = path(Config, "empty"),
    ok = file:write_file(Empty, <<>>),
    [begin
         {1, Said} = fails("demo.escript", [Path]),
         {match, _} = re:run(Said, Why)
     end || {Path, Why} <- [{Fifo, "not a FIFO"}, {"/dev/null", "or /dev/null"}, {"/proc/cpuinfo", "/proc, which tells no size"},
                            {Empty, "is empty"}, {path(Config, ""), "directory"}, {path(Config, "missing"), "no such file"}]].

%% `make demo FILE=...` gives the demo the name as it is.
make_gives_the_demo_any_name(Config) ->
    ok = file:write_file(path(Config, "escript"), "#!/bin/sh\nprintf '<%s>' \"$2\"\n"),
    ok = file:change_mode(path(Config, "escript"), 8#755),
    [<<"<", Name:(byte_size(Name))/binary, ">">> =
         test_system:run("env", ["PATH=" ++ path(Config, "") ++ ":" ++ os:getenv("PATH"),
                                 "make", "--no-print-directory", "-C", test_system:root(), "--old-file=build", "demo",
                                 <<"FILE=", Name/binary>>])
     || Name <- odd_names()].

%%% Databases

pairs() ->
    [lists:concat(["key ", N, "=", lists:duplicate(N rem 200, $v), N]) || N <- lists:seq(1, 1000)].

keys() ->
    [lists:concat(["key ", N]) || N <- lists:seq(1, 1000)] ++ ["nobody", "key 1001"].

answers() ->
    iolist_to_binary([[Pair, $\n] || Pair <- pairs() ++ ["nobody is not there", "key 1001 is not there"]]).

%%% Logs

append(Config, Path, Records) ->
    Input = path(Config, "records"),
    ok = file:write_file(Input, Records),
    Append = lists:join(" ", ["env" | command("append_log.erl", ["append", Path])]),
    {0, <<>>} = test_system:shell([Append, " <", Input]),
    ok.

%% Reads from a program until it has printed this, and gives what it printed behind it.
read_lines(Port, Expected) ->
    receive
        {Port, {data, Data}} ->
            case Expected of
                <<Data:(byte_size(Data))/binary, Missing/binary>> when Missing =/= <<>> -> read_lines(Port, Missing);
                _ -> <<Expected:(byte_size(Expected))/binary, Behind/binary>> = Data, Behind
            end
    end.

%% The rest of what a program prints is this, and then it ends well.
expect(Port, Read, Expected) ->
    receive
        {Port, {data, Data}} -> expect(Port, <<Read/binary, Data/binary>>, Expected);
        {Port, {exit_status, 0}} -> Expected = Read, ok
    end.

%%% Programs

path(Config, Name) ->
    filename:join(?config(directory, Config), Name).

example(Name) ->
    filename:join([test_system:root(), "examples", Name]).

oracle(Arguments) ->
    test_system:run("python3", [filename:join([test_system:root(), "test", "support", "format_oracle.py"]) | Arguments]).

%% Runs an example to its end; it must succeed. What it printed.
run(Program, Arguments) ->
    test_system:run("env", command(Program, Arguments)).

%% Runs an example that must not succeed; its exit status and what it printed.
fails(Program, Arguments) ->
    Port = start(Program, Arguments),
    {Status, _} = Result = all_of(Port, <<>>),
    true = Status =/= 0,
    Result.

all_of(Port, Output) ->
    receive
        {Port, {data, Data}} -> all_of(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

%% Starts an example, for others to run meanwhile.
start(Program, Arguments) ->
    Options = [{args, command(Program, Arguments)}, exit_status, stderr_to_stdout, binary, hide],
    open_port({spawn_executable, os:find_executable("env")}, Options).

kill(Port) ->
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    {0, <<>>} = test_system:shell(["kill -KILL ", integer_to_list(OsPid)]),
    {_, _} = all_of(Port, <<>>),
    ok.

command(Program, Arguments) ->
    ["ERL_LIBS=" ++ libraries(), interpreter(filename:extension(Program)), example(Program) | Arguments].

interpreter(".erl") -> "escript";
interpreter(".escript") -> "escript";
interpreter(".exs") -> "elixir";
interpreter(".py") -> "python3".

%% The directory of the application, the one that is tested.
libraries() ->
    filename:absname(filename:dirname(filename:dirname(filename:dirname(code:which(iommap))))).
