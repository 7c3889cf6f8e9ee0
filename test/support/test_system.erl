%% The operating system as the tests see it: other processes, descriptors, address ranges, users.
-module(test_system).

-export([root/0]).
-export([run/2]).
-export([shell/1]).
-export([truncate/2]).
-export([allocated/1]).
-export([descriptors/1]).
-export([descriptors/0]).
-export([ranges/1]).
-export([ranges/0]).
-export([held/1]).
-export([resident/1]).
-export([anonymous/1]).
-export([can_see_pages/0]).
-export([dirty/1]).
-export([flags/1]).
-export([pages/2, page_flags/1]).
-export([sides/1]).
-export([locked/0, locked/1]).
-export([told/2]).
-export([is_root/0]).
-export([copy_library/1]).

%% The directory of the project, also when a build tool has copied this file elsewhere.
-spec root() -> file:filename().
root() ->
    root(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile)))).

root(Directory) ->
    case filelib:is_file(filename:join(Directory, "Cargo.toml")) of
        true -> Directory;
        false when Directory =/= "/" -> root(filename:dirname(Directory))
    end.

%% Runs a program to its end; it must succeed. What it printed.
-spec run(string(), [file:name_all()]) -> binary().
run(Program, Arguments) ->
    case execute(executable(Program), Arguments) of
        {0, Output} -> Output;
        {Status, Output} -> error({exit_status, Status, {Program, Arguments}, Output})
    end.

%% Runs a shell command; its exit status and what it printed.
-spec shell(iodata()) -> {non_neg_integer(), binary()}.
shell(Command) ->
    execute("/bin/sh", ["-c", iolist_to_binary(Command)]).

execute(Executable, Arguments) ->
    Port = open_port({spawn_executable, Executable},
                     [{args, Arguments}, exit_status, stderr_to_stdout, binary, hide, {env, [{"PATH", path()}]}]),
    output(Port, []).

output(Port, Output) ->
    receive
        {Port, {data, Data}} -> output(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    end.

executable(Program) ->
    case os:find_executable(Program, path()) of
        false -> error({not_found, Program});
        Executable -> Executable
    end.

%% Where programs are, also those that only root needs.
path() ->
    os:getenv("PATH", "") ++ ":/usr/sbin:/sbin".

-spec is_root() -> boolean().
is_root() ->
    string:trim(os:cmd("id -u")) =:= "0".

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

%% What lies on either side of where a file is mapped, each time: the rights to it, or `none' of a gap.
-spec sides(file:filename()) -> [{Before :: binary() | none, After :: binary() | none}].
sides(Path) ->
    Name = unicode:characters_to_binary(Path),
    Ranges = [{Addresses, Rights, lists:last(Rest) =:= Name} || Line <- range_lines(),
              [Place, Rights | Rest] <- [binary:split(Line, <<" ">>, [global, trim_all])],
              Addresses <- [list_to_tuple(binary:split(Place, <<"-">>))]],
    sides_of([{{none, none}, none, false} | Ranges] ++ [{{none, none}, none, false}]).

sides_of([{{_, Start}, Before, false}, {{Start, _}, _, true} = Mapped | Rest]) -> sides_of(Before, [Mapped | Rest]);
sides_of([{_, _, false}, {_, _, true} = Mapped | Rest]) -> sides_of(none, [Mapped | Rest]);
sides_of([_ | Rest]) -> sides_of(Rest);
sides_of([]) -> [].

sides_of(Before, [{{_, Next}, _, true}, {{Next, _}, _, true} = Mapped | Rest]) -> sides_of(Before, [Mapped | Rest]);
sides_of(Before, [{{_, End}, _, true}, {{End, _}, After, false} = Range | Rest]) -> [{Before, After} | sides_of([Range | Rest])];
sides_of(Before, [_ | Rest]) -> [{Before, none} | sides_of(Rest)].

%% The descriptors and the address ranges that this VM has of a file.
-spec held(file:filename()) -> {[string()], [binary()]}.
held(Path) ->
    {descriptors(Path), ranges(Path)}.

%% The bytes of a mapped file that this VM has mapped and in memory.
-spec resident(file:filename()) -> non_neg_integer().
resident(Path) ->
    kilobytes("Rss", hd(range_details(Path))).

%% The bytes that a mapping of a file has of its own: copies made by writing to a private mapping.
-spec anonymous(file:filename()) -> non_neg_integer().
anonymous(Path) ->
    kilobytes("Anonymous", hd(range_details(Path))).

%% Whether the system tells of each mapping which pages it has. An emulator of another processor may say 0 of all.
-spec can_see_pages() -> boolean().
can_see_pages() ->
    case file:read_file("/proc/self/smaps") of
        {ok, Ranges} -> re:run(Ranges, "^Rss: *[1-9]", [multiline, {capture, none}]) =:= match;
        {error, _} -> false
    end.

%% The bytes of a mapped file that were written through this VM's mappings and not written back yet.
-spec dirty(file:filename()) -> non_neg_integer().
dirty(Path) ->
    lists:sum([kilobytes(Name, Range) || Range <- range_details(Path), Name <- ["Shared_Dirty", "Private_Dirty"]]).

%% What the kernel knows of each address range of a mapped file, in its two-letter words.
-spec flags(file:filename()) -> [[binary()]].
flags(Path) ->
    [flags_of(Range) || Range <- range_details(Path)].

%% The pages of a mapped file, by number, that have a flag of the kernel's or a copy of their own; in a list as often as mapped.
-spec pages(file:filename(), Flag :: binary() | anonymous) -> [non_neg_integer()].
pages(Path, Flag) ->
    lists:sort([Page || {Pages, Flags} <- page_flags(Path), lists:member(Flag, Flags), Page <- Pages]).

%% For each address range of a mapped file: its pages, by number, and what they have.
-spec page_flags(file:filename()) -> [{[non_neg_integer()], [binary() | anonymous]}].
page_flags(Path) ->
    {ok, Smaps} = file:read_file("/proc/self/smaps"),
    Name = unicode:characters_to_binary([Path, "\n"]),
    [{page_numbers(lists:last(binary:split(Before, <<"\n">>, [global]))),
      [anonymous || kilobytes("Anonymous", After) > 0] ++ flags_of(After)}
     || {Place, Length} <- binary:matches(Smaps, Name),
        <<Before:Place/binary, _:Length/binary, After/binary>> <- [Smaps]].

page_numbers(Header) ->
    [Addresses, _, Offset | _] = binary:split(Header, <<" ">>, [global]),
    [Start, End] = binary:split(Addresses, <<"-">>),
    Page = test_pattern:page(),
    lists:seq(hex(Offset) div Page, (hex(Offset) + hex(End) - hex(Start)) div Page - 1).

hex(Digits) ->
    binary_to_integer(Digits, 16).

flags_of(Range) ->
    {match, [Flags]} = re:run(Range, "VmFlags: (.*)", [{capture, all_but_first, binary}]),
    binary:split(Flags, <<" ">>, [global, trim_all]).

%% What is told of each range of a mapped file, and then of those that follow it.
range_details(Path) ->
    {ok, Ranges} = file:read_file("/proc/self/smaps"),
    Name = unicode:characters_to_binary([Path, "\n"]),
    [_ | Rest] = binary:split(Ranges, Name, [global]),
    Rest.

%% The bytes of a mapped file that this VM has locked in memory.
-spec locked(file:filename()) -> non_neg_integer().
locked(Path) ->
    told("Locked", Path).

%% What the kernel tells by that name of all address ranges of a mapped file, in bytes.
-spec told(Name :: string(), file:filename()) -> non_neg_integer().
told(Name, Path) ->
    lists:sum([kilobytes("\n" ++ Name, Range) || Range <- range_details(Path)]).

%% The bytes that this VM has locked in memory.
-spec locked() -> non_neg_integer().
locked() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    kilobytes("VmLck", Status).

kilobytes(Name, Text) ->
    {match, [Kilobytes]} = re:run(Text, Name ++ ":\\s*(\\d+) kB", [{capture, all_but_first, binary}]),
    1024 * binary_to_integer(Kilobytes).

%% Copies the library into the directory, for every user to read; the application's directory there.
-spec copy_library(file:filename()) -> file:filename().
copy_library(Directory) ->
    Library = filename:join(Directory, "iommap"),
    ok = copy_files(filename:dirname(code:which(iommap)), filename:join(Library, "ebin")),
    ok = copy_files(code:priv_dir(iommap), filename:join(Library, "priv")),
    _ = run("chmod", ["-R", "a+rX", Library]),
    Library.

copy_files(From, To) ->
    ok = filelib:ensure_path(To),
    {ok, Names} = file:list_dir(From),
    [{ok, _} = file:copy(filename:join(From, Name), filename:join(To, Name)) ||
        Name <- Names, filelib:is_regular(filename:join(From, Name))],
    ok.
