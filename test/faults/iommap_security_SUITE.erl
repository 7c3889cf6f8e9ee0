%% A handle gives no access that open(2) with its mode would not, to nobody in the VM and to no
%% other process.
-module(iommap_security_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [a_read_handle_is_mapped_read_only,
     a_read_handle_has_a_read_only_descriptor,
     no_nif_can_write_the_file_through_a_view_of_a_read_handle,
     a_write_to_a_private_view_stays_out_of_the_file,
     descriptors_are_closed_on_exec].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    Directory = test_files:case_directory(Config),
    Path = filename:join(Directory, "mapped-file"),
    ok = file:write_file(Path, <<"data">>),
    [{path, Path}, {directory, Directory} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% The kernel's own table says that the pages cannot be written.
a_read_handle_is_mapped_read_only(Config) ->
    in_vm(Config, fun(Path) ->
        {ok, Shared} = iommap:open(Path, read, []),
        ["r--s"] = protections(Path),
        {ok, Private} = iommap:open(Path, read, [private]),
        ["r--p", "r--s"] = lists:sort(protections(Path)),
        [ok = iommap:close(Handle) || Handle <- [Shared, Private]]
    end).

%% Nor can the file be written through the descriptor.
a_read_handle_has_a_read_only_descriptor(Config) ->
    in_vm(Config, fun(Path) ->
        {ok, Handle} = iommap:open(Path, read, []),
        [Flags] = descriptor_flags(Path),
        0 = Flags band 8#3,
        ok = iommap:close(Handle)
    end).

%% A hostile NIF that writes through a view of a read handle gets SIGSEGV, and the file stays as it is.
no_nif_can_write_the_file_through_a_view_of_a_read_handle(Config) ->
    Path = ?config(path, Config),
    Vm = test_vm:start(),
    {signal, 11} = test_vm:death(Vm, ?MODULE, scribble, [Path, []]),
    {ok, <<"data">>} = file:read_file(Path).

%% Through a view of a private mapping it reaches memory only.
a_write_to_a_private_view_stays_out_of_the_file(Config) ->
    in_vm(Config, fun(Path) ->
        {ok, Handle} = iommap:open(Path, read_write, [private]),
        {ok, View} = iommap:region_binary(Handle, 0, 4),
        written = other_reader:scribble(View),
        ok = iommap:sync(Handle),
        {ok, <<"data">>} = file:read_file(Path)
    end).

scribble(Path, Options) ->
    {ok, Handle} = iommap:open(Path, read, Options),
    {ok, View} = iommap:region_binary(Handle, 0, 4),
    other_reader:scribble(View).

%% No program that the VM starts inherits the file.
descriptors_are_closed_on_exec(Config) ->
    in_vm(Config, fun(Path) ->
        Handles = [Handle || Mode <- [read, write, read_write], {ok, Handle} <- [iommap:open(Path, Mode, [])]],
        Flags = descriptor_flags(Path),
        3 = length(Flags),
        [ok = iommap:close(Handle) || Handle <- Handles],
        true = lists:all(fun(Flag) -> Flag band 8#2000000 =/= 0 end, Flags)
    end).

%% ---- In the VM --------------------------------------------------------------------------------

in_vm(Config, Function) ->
    in_vm(?config(path, Config), "exec \"$@\"", Function).

in_vm(Path, Wrapper, Function) ->
    Vm = test_vm:start(#{wrapper => Wrapper}),
    try test_vm:run(Vm, fun() -> Function(Path), ok end) after test_vm:stop(Vm) end.

protections(Path) ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    Lines = [string:lexemes(Line, " ") || Line <- string:lexemes(binary_to_list(Maps), "\n")],
    [lists:nth(2, Words) || Words <- Lines, lists:last(Words) =:= Path].

descriptor_flags(Path) ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    [begin
        {ok, Text} = file:read_file(filename:join("/proc/self/fdinfo", Name)),
        {match, [Flags]} = re:run(Text, "flags:\\s*([0-7]+)", [{capture, all_but_first, list}]),
        list_to_integer(Flags, 8)
    end || Name <- Names, {ok, Path} =:= file:read_link(filename:join("/proc/self/fd", Name))].
