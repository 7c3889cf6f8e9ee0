%% What a VM may do with a view: match it, in every way that the bit syntax has. It reads more than it shows: the code that
%% OTP 27 and later make of a pattern loads whole words, which begin up to seven bytes before the field, and to compare
%% bitstrings every OTP reads the byte behind the last one. So these views lie between guard pages (c/guard_pages.c), and an
%% access to what iommap has not mapped ends the VM.
%%
%% Every case has a VM of its own, and goes on in another one after a pattern that was the death of it.
-module(iommap_pattern_SUITE).

-include_lib("common_test/include/ct.hrl").

-compile(export_all).

%% A case ends after so many deaths.
-define(MOST_DEATHS, 5).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [integers_of_1_to_128_bits_are_read_at_either_end,
     integers_of_variable_size_are_read_at_either_end,
     neighbouring_fields_are_read_at_either_end,
     literals_are_compared_at_either_end,
     floats_are_read_at_either_end,
     characters_are_read_at_either_end,
     parts_and_tails_are_taken_at_either_end,
     comprehensions_read_from_end_to_end,
     skipped_bits_may_be_those_at_either_end,
     whole_binaries_are_read_at_any_bit_offset,
     views_of_mappings_of_every_kind_are_read_at_either_end,
     a_view_that_is_lost_at_the_limit_of_mappings_is_read_at_either_end].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, Config) ->
    {0, _} = test_system:shell(["rm -r ", ?config(directory, Config)]),
    ok.

%% ---- Fields of every kind ---------------------------------------------------------------------

%% An integer of any size, signed and not, big and little, at any bit offset, is the same in a view and in a copy.
integers_of_1_to_128_bits_are_read_at_either_end(Config) -> read_files(Config, integers).

%% The same of integers whose size the compiler does not know.
integers_of_variable_size_are_read_at_either_end(Config) -> read_files(Config, integers_of_variable_size).

%% The same of several fields in one pattern.
neighbouring_fields_are_read_at_either_end(Config) -> read_files(Config, fields).

%% Literal strings and numbers match where they should, and nowhere else.
literals_are_compared_at_either_end(Config) -> read_files(Config, literals).

%% Floats of 16, 32 and 64 bits, and what is no float.
floats_are_read_at_either_end(Config) -> read_files(Config, floats).

%% Characters in UTF-8, UTF-16 and UTF-32, and what is no character.
characters_are_read_at_either_end(Config) -> read_files(Config, characters).

%% Binaries and bitstrings of literal and variable size, and what is left.
parts_and_tails_are_taken_at_either_end(Config) -> read_files(Config, binaries).

%% List and binary comprehensions.
comprehensions_read_from_end_to_end(Config) -> read_files(Config, comprehensions).

%% What is skipped is looked at no more than what is read.
skipped_bits_may_be_those_at_either_end(Config) -> read_files(Config, skips).

%% Functions that read all of a bitstring, wherever it begins.
whole_binaries_are_read_at_any_bit_offset(Config) -> read_files(Config, whole_binaries).

%% ---- Mappings of every kind -------------------------------------------------------------------

%% However a mapping came to be what it is, and whatever it lost, its views are read as others are.
views_of_mappings_of_every_kind_are_read_at_either_end(Config) ->
    Page = test_pattern:page(),
    read(Config, compile(view_patterns:sample()),
         [{{Kind, Size}, fun(Path, Contents) -> view(Kind, Path, view_patterns:contents(Contents, Size)) end}
          || Kind <- kinds(), Size <- [100, 2 * Page + 1]]).

%% Where the VM has no map entry left, what replaces lost pages is no less guarded. (It is all of the mapping, if that cannot
%% be cut in two, or the lost page.)
a_view_that_is_lost_at_the_limit_of_mappings_is_read_at_either_end(Config) ->
    Patterns = [Pattern || #{contents := random} = Pattern <- view_patterns:sample()],
    Page = test_pattern:page(),
    Bytes = view_patterns:contents(random, 2 * Page),
    Lost = fun(Path, random) ->
        {View, Bytes} = opened(Path, Bytes, read, []),
        ok = persistent_term:put(?MODULE, test_limits:exhaust_map_count(Path)),
        [] = os:cmd("truncate -s " ++ integer_to_list(Page) ++ " " ++ Path),
        Left = binary:copy(View),
        true = lists:member(Left, [<<(binary:part(Bytes, 0, Page))/binary, 0:Page/unit:8>>, <<0:(2 * Page)/unit:8>>]),
        {View, Left}
    end,
    test_limits:alone(fun() -> read(Config, compile(Patterns), [{lost_at_the_limit, Lost}]) end).

kinds() ->
    [read, private, locked, populated, grown, grown_by_much, shrunk, shrunk_and_grown, remapped, closed, deleted,
     loaded_again, half_lost, lost, lost_and_mended].

view(read, Path, Bytes) -> opened(Path, Bytes, read, []);
view(private, Path, Bytes) -> opened(Path, Bytes, read_write, [private]);
view(locked, Path, Bytes) -> opened(Path, Bytes, read_write, [lock]);
view(populated, Path, Bytes) -> opened(Path, Bytes, read, [populate]);
view(grown, Path, Bytes) -> resized(Path, Bytes, [byte_size(Bytes) - 1]);
view(grown_by_much, Path, Bytes) -> resized(Path, Bytes, [1]);
view(shrunk, Path, Bytes) -> resized(Path, Bytes, [byte_size(Bytes) + 200_000]);
view(shrunk_and_grown, Path, Bytes) -> resized(Path, Bytes, [byte_size(Bytes) + 1, 1, 9_000_000, 2]);
view(remapped, Path, Bytes) ->
    {First, Rest} = split_binary(Bytes, byte_size(Bytes) div 2),
    ok = file:write_file(Path, First),
    {ok, Handle} = iommap:open(Path, read, []),
    ok = file:write_file(Path, Rest, [append]),
    {ok, _} = iommap:remap(Handle),
    {whole_view(Handle, Path), Bytes};
view(closed, Path, Bytes) ->
    ok = file:write_file(Path, Bytes),
    {ok, Handle} = iommap:open(Path, read, []),
    View = whole_view(Handle, Path),
    ok = iommap:close(Handle),
    {View, Bytes};
view(deleted, Path, Bytes) ->
    Opened = opened(Path, Bytes, read, []),
    ok = file:delete(Path),
    Opened;
view(loaded_again, Path, Bytes) ->
    Opened = opened(Path, Bytes, read, []),
    true = code:soft_purge(iommap),
    {module, iommap} = code:load_file(iommap),
    Opened;
view(half_lost, Path, Bytes) -> cut(Path, Bytes, byte_size(Bytes) div 2);
view(lost, Path, Bytes) -> cut(Path, Bytes, 0);
view(lost_and_mended, Path, Bytes) ->
    ok = file:write_file(Path, Bytes),
    {ok, Handle} = iommap:open(Path, read_write, []),
    Lost = whole_view(Handle, Path),
    [] = os:cmd("truncate -s 0 " ++ Path),
    _ = erlang:crc32(Lost),
    ok = iommap:truncate(Handle, byte_size(Bytes)),
    ok = iommap:pwrite(Handle, 0, Bytes),
    {whole_view(Handle, Path), Bytes}.

opened(Path, Bytes, Mode, Options) ->
    ok = file:write_file(Path, Bytes),
    {ok, Handle} = iommap:open(Path, Mode, Options),
    {whole_view(Handle, Path), Bytes}.

%% Opened in the first of the sizes, brought to the others and then to its own.
resized(Path, Bytes, [First | Sizes]) ->
    {ok, Handle} = iommap:open(Path, read_write, [create, truncate, {size, First}]),
    [ok = iommap:truncate(Handle, Size) || Size <- Sizes ++ [byte_size(Bytes)]],
    ok = iommap:pwrite(Handle, 0, Bytes),
    {whole_view(Handle, Path), Bytes}.

%% Another OS process leaves so many bytes of the file, and not all that is gone has been missed.
cut(Path, Bytes, Left) ->
    {View, Bytes} = opened(Path, Bytes, read, []),
    [] = os:cmd("truncate -s " ++ integer_to_list(Left) ++ " " ++ Path),
    {View, <<(binary:part(Bytes, 0, Left))/binary, 0:(byte_size(Bytes) - Left)/unit:8>>}.

whole_view(Handle, Path) ->
    {ok, Size} = iommap:position(Handle),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    true = view_reader:is_guarded(Path),
    View.

%% ---- Reading ----------------------------------------------------------------------------------

%% Applies all patterns of the family to files of every size.
read_files(Config, Family) ->
    Page = test_pattern:page(),
    read(Config, compile(view_patterns:patterns(Family)),
         [{Size, fun(Path, Contents) -> opened(Path, view_patterns:contents(Contents, Size), read, []) end}
          || Size <- [1, 100, Page, Page + 1, 65536, 8 bsl 20]]).

%% The patterns and their compiled functions. A VM that gets another one in its place needs them again.
compile(Patterns) ->
    {Program, Modules} = view_patterns:compile(compiled_pattern, Patterns),
    #{program => Program, modules => Modules}.

start_vm(#{modules := Modules}) ->
    Vm = test_vm:start(#{env => [{"LD_PRELOAD", test_tools:built("guard_pages.so")}]}),
    true = test_vm:call(Vm, os, unsetenv, ["LD_PRELOAD"]), % programs that it runs may be of another processor
    [{module, Module} = test_vm:call(Vm, code, load_binary, [Module, atom_to_list(Module), Beam]) || {Module, Beam} <- Modules],
    Vm.

%% Applies the program to views of every kind: to those that each function makes.
read(Config, Compiled, Kinds) ->
    {Vm, Deaths, Differences} = lists:foldl(
        fun(Kind, Before) -> read_kind(Config, Compiled, Kind, 0, Before) end,
        {start_vm(Compiled), [], []}, Kinds),
    test_vm:stop(Vm),
    io:format("~b patterns, ~b kinds of views~n", [length(maps:get(program, Compiled)), length(Kinds)]),
    case {lists:reverse(Deaths), lists:append(Differences)} of
        {[], []} -> ok;
        {Died, Wrong} -> ct:fail("deaths:~n~tp~n~b wrong answers:~n~tp", [Died, length(Wrong), lists:sublist(Wrong, 20)])
    end.

read_kind(_, _, _, _, {Vm, Deaths, Differences}) when length(Deaths) >= ?MOST_DEATHS ->
    {Vm, Deaths, Differences};
read_kind(Config, #{program := Program} = Compiled, {Kind, Make} = Views, From, {Vm, Deaths, Differences}) ->
    Directory = ?config(directory, Config),
    [Path, Progress] = [filename:join(Directory, Name) || Name <- ["file", "progress"]],
    ViewOf = fun(Contents) ->
        _ = file:delete(Path),
        Make(Path, Contents)
    end,
    try
        test_vm:run(Vm, fun() -> view_reader:apply_all(Program, From, Progress, ViewOf) end)
    of
        More -> {Vm, Deaths, [[{Kind, Difference} || Difference <- More] | Differences]}
    catch
        error:{vm_died, How} ->
            Last = view_reader:last_applied(Progress),
            {#{text := Text}, _} = lists:nth(1 + Last, Program),
            read_kind(Config, Compiled, Views, Last + 1, {start_vm(Compiled), [{How, Kind, Text} | Deaths], Differences})
    end.
