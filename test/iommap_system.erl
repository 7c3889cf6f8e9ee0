%% The operating system as the tests see it: other processes, descriptors, address ranges, a second VM.
-module(iommap_system).

-export([root/0]).
-export([run/2]).
-export([truncate/2]).
-export([allocated/1]).
-export([descriptors/1]).
-export([descriptors/0]).
-export([ranges/1]).
-export([ranges/0]).
-export([resident/1]).
-export([anonymous/1]).
-export([can_see_pages/0]).
-export([dirty/1]).
-export([flags/1]).
-export([locked/0]).
-export([eventually/1]).
-export([in_a_process/1]).
-export([start_vm/3]).
-export([stop_vm/1]).

%% The directory of the project.
-spec root() -> file:filename().
root() ->
    filename:join(lists:droplast(lists:droplast(lists:droplast(lists:droplast(filename:split(code:lib_dir(iommap))))))).

%% Runs a program to its end in a process of its own; it must succeed.
-spec run(string(), [file:name_all()]) -> binary().
run(Program, Arguments) ->
    Port = open_port({spawn_executable, executable(Program)},
        [{args, Arguments}, exit_status, stderr_to_stdout, binary, hide]),
    run_output(Port, {Program, Arguments}, <<>>).

run_output(Port, Command, Output) ->
    receive
        {Port, {data, Data}} -> run_output(Port, Command, <<Output/binary, Data/binary>>);
        {Port, {exit_status, 0}} -> Output;
        {Port, {exit_status, Status}} -> error({exit_status, Status, Command, Output})
    end.

executable(Program) ->
    SystemPath = os:getenv("PATH", "") ++ ":/usr/sbin:/sbin",
    case os:find_executable(Program, SystemPath) of
        false -> error({not_found, Program});
        Executable -> Executable
    end.

%% Another process gives the file a new size.
-spec truncate(file:filename(), non_neg_integer()) -> ok.
truncate(Path, Size) ->
    _ = run("truncate", ["-s", integer_to_list(Size), Path]),
    ok.

%% The bytes of the disk that the file occupies.
-spec allocated(file:filename()) -> non_neg_integer().
allocated(Path) ->
    [Kilobytes | _] = string:lexemes(run("du", ["-k", Path]), "\t "),
    1024 * binary_to_integer(Kilobytes).

%% The descriptors that this VM has open, of one file or of anything.
-spec descriptors(file:filename()) -> [string()].
descriptors(Path) ->
    [Descriptor || {Descriptor, Target} <- descriptor_targets(), names(Path, Target)].

-spec descriptors() -> non_neg_integer().
descriptors() ->
    length(descriptor_targets()).

descriptor_targets() ->
    Directory = "/proc/self/fd",
    {ok, Descriptors} = file:list_dir(Directory),
    [{Descriptor, Target} || Descriptor <- Descriptors,
        {ok, Target} <- [file:read_link_all(filename:join(Directory, Descriptor))]].

%% The address ranges that this VM has mapped, of one file or of anything.
-spec ranges(file:filename()) -> [binary()].
ranges(Path) ->
    Name = unicode:characters_to_binary(Path),
    [Line || Line <- range_lines(), binary:match(Line, Name) =/= nomatch].

-spec ranges() -> non_neg_integer().
ranges() ->
    length(range_lines()).

range_lines() ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    binary:split(Maps, <<"\n">>, [global, trim_all]).

names(Path, Target) ->
    Target =:= Path orelse Target =:= Path ++ " (deleted)".

%% The bytes of a mapped file that this VM has mapped and in memory.
-spec resident(file:filename()) -> non_neg_integer().
resident(Path) ->
    kilobytes("Rss", hd(range_details(Path))).

%% The bytes that a mapping of a file has of its own: copies made by writing to a private mapping.
-spec anonymous(file:filename()) -> non_neg_integer().
anonymous(Path) ->
    kilobytes("Anonymous", hd(range_details(Path))).

%% Whether the system tells of each mapping which pages it has.
-spec can_see_pages() -> boolean().
can_see_pages() ->
    filelib:is_regular("/proc/self/smaps").

%% The bytes of a mapped file that were written through this VM's mappings and not written back yet.
-spec dirty(file:filename()) -> non_neg_integer().
dirty(Path) ->
    lists:sum([kilobytes(Name, Range) || Range <- range_details(Path), Name <- ["Shared_Dirty", "Private_Dirty"]]).

%% What the kernel knows of each address range of a mapped file, in its two-letter words.
-spec flags(file:filename()) -> [[binary()]].
flags(Path) ->
    [begin
         {match, [Flags]} = re:run(Range, "VmFlags: (.*)", [{capture, all_but_first, binary}]),
         binary:split(Flags, <<" ">>, [global, trim_all])
     end || Range <- range_details(Path)].

%% What is told of each range of a mapped file, and then of those that follow it.
range_details(Path) ->
    {ok, Ranges} = file:read_file("/proc/self/smaps"),
    Name = unicode:characters_to_binary([Path, "\n"]),
    [_ | Rest] = binary:split(Ranges, Name, [global]),
    Rest.

%% The bytes that this VM has locked in memory.
-spec locked() -> non_neg_integer().
locked() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    kilobytes("VmLck", Status).

kilobytes(Name, Text) ->
    {match, [Kilobytes]} = re:run(Text, Name ++ ":\\s*(\\d+) kB", [{capture, all_but_first, binary}]),
    1024 * binary_to_integer(Kilobytes).

%% Waits until the condition holds. Half a minute stands for never.
-spec eventually(fun(() -> boolean())) -> ok.
eventually(Condition) ->
    eventually(Condition, erlang:monotonic_time(millisecond) + 30_000).

eventually(Condition, Deadline) ->
    case Condition() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error(never),
            receive after 2 -> eventually(Condition, Deadline) end
    end.

%% The result of a function evaluated in a process that is gone afterwards, and all it held with it.
-spec in_a_process(fun(() -> Result)) -> Result.
in_a_process(Function) ->
    {Process, Monitor} = spawn_monitor(fun() -> exit({done, Function()}) end),
    receive
        {'DOWN', Monitor, process, Process, {done, Result}} -> Result;
        {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
    end.

%% A second VM with a copy of the library in Directory and with the given test modules, started through
%% Command: the program, with its arguments, that is to run the VM. ["setpriv", "--reuid=65534"] makes
%% another user of it.
-spec start_vm([string()], file:filename(), [module()]) -> pid().
start_vm(Command, Directory, Modules) ->
    [Program | Arguments] = Command ++ [executable("erl")],
    {ok, Vm, _Node} = peer:start(#{
        connection => standard_io,
        exec => {executable(Program), Arguments},
        args => ["-pa", copy_library(Directory), "+S", "1:1", "+SDio", "1", "+A", "1"]
    }),
    [{module, Module} = peer:call(Vm, code, load_binary, [Module, File, Beam]) ||
        {Module, Beam, File} <- [code:get_object_code(Module) || Module <- Modules]],
    Vm.

-spec stop_vm(pid()) -> ok.
stop_vm(Vm) ->
    peer:stop(Vm).

copy_library(Directory) ->
    Library = filename:join(Directory, "iommap"),
    Ebin = filename:join(Library, "ebin"),
    ok = copy_files(filename:dirname(code:which(iommap)), Ebin),
    ok = copy_files(code:priv_dir(iommap), filename:join(Library, "priv")),
    _ = run("chmod", ["-R", "a+rX", Library]),
    Ebin.

copy_files(From, To) ->
    ok = filelib:ensure_path(To),
    {ok, Names} = file:list_dir(From),
    [{ok, _} = file:copy(filename:join(From, Name), filename:join(To, Name)) ||
        Name <- Names, filelib:is_regular(filename:join(From, Name))],
    ok.
