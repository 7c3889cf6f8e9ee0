%% A reader that parses first and asks iommap:intact/1 after can never act on invented bytes: random
%% readers race an OS process that truncates the file.
-module(iommap_intact_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("proper/include/proper.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([what_intact_accepts_was_in_the_file_while_it_shrinks_and_is_appended_to/1,
         what_intact_accepts_was_in_the_file_while_it_only_shrinks/1,
         what_pread_returns_was_in_the_file_while_it_shrinks_and_is_appended_to/1,
         no_page_that_pread_returns_was_made_up_of_a_file_in_large_folios/1]).
-export([appended/0, shrinking/0, pread/0]).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [what_intact_accepts_was_in_the_file_while_it_shrinks_and_is_appended_to,
     what_intact_accepts_was_in_the_file_while_it_only_shrinks,
     what_pread_returns_was_in_the_file_while_it_shrinks_and_is_appended_to,
     no_page_that_pread_returns_was_made_up_of_a_file_in_large_folios].

init_per_suite(Config) ->
    case code:which(proper) of
        non_existing -> {skip, "PropEr is not installed"};
        _ -> ok = test_tools:build(), Config
    end.

end_per_suite(_Config) ->
    ok.

%% The file is cut at whole pages and grown again with its old bytes, so it never holds a zero: a zero
%% in a part that intact/1 accepts was made up.
what_intact_accepts_was_in_the_file_while_it_shrinks_and_is_appended_to(Config) ->
    holds(Config, appended, 40).

%% The file is cut anywhere. In the page of its new end the kernel shows zeros without a fault: only
%% intact/1 tells.
what_intact_accepts_was_in_the_file_while_it_only_shrinks(Config) ->
    holds(Config, shrinking, 100).

%% A copy is the file's bytes or an error.
what_pread_returns_was_in_the_file_while_it_shrinks_and_is_appended_to(Config) ->
    holds(Config, pread, 20).

%% A kernel that keeps the file in pieces of many pages shows zeros in whole pages while it is cut, and without a
%% fault. (What it zeroes in the very moment in which a page is copied can be anything.)
no_page_that_pread_returns_was_made_up_of_a_file_in_large_folios(Config) ->
    case test_mounts:mount({tmpfs, "size=16m,huge=always"}, ?config(priv_dir, Config)) of
        {ok, Mount} ->
            Vm = test_vm:start(),
            try
                test_vm:run(Vm, fun() -> race_readers(test_mounts:path(Mount, "file"), 20_000) end)
            after
                test_vm:stop(Vm),
                test_mounts:unmount(Mount)
            end;
        Skipped ->
            Skipped
    end.

race_readers(Path, Copies) ->
    Size = 512 * test_pattern:page(),
    External = external_writer:start(),
    ok = external_writer:write(External, Path, Size),
    Handles = [Handle || {ok, Handle} <- [iommap:open(Path, read, []) || _ <- lists:seq(1, 3)]],
    ok = external_writer:race(External, Path, Size, 1),
    Readers = [spawn_monitor(fun() -> exit(read_parts(Handle, Size, Copies, 0)) end) || Handle <- Handles],
    [receive {'DOWN', Monitor, process, Reader, Faults} -> true = is_integer(Faults) andalso Faults > 0 end
     || {Reader, Monitor} <- Readers],
    ok = external_writer:stop_race(External, Path, Size),
    external_writer:stop(External).

%% Reads until so many reads met no fault; how many did.
read_parts(_Handle, _Size, 0, Faults) ->
    Faults;
read_parts(Handle, Size, Copies, Faults) ->
    {Offset, Length, Unit} = part_of(Size, test_pattern:page()),
    case iommap:pread(Handle, Offset, Length) of
        {ok, Copy} ->
            [] = [made_up || <<Part:Unit/binary>> <= Copy, Part =:= test_pattern:zeros(Unit)],
            read_parts(Handle, Size, Copies - 1, Faults);
        {error, sigbus} ->
            read_parts(Handle, Size, Copies, Faults + 1)
    end.

%% Offset and length, of whole pages or of eight bytes, and of what all may be made up.
part_of(Size, Page) ->
    case rand:uniform(2) of
        1 ->
            Pages = rand:uniform(16),
            {Page * rand:uniform(Size div Page - Pages), Page * Pages, Page};
        2 ->
            {8 * (rand:uniform(Size div 8) - 1), 8, 8}
    end.

holds(Config, Property, Runs) ->
    Vm = test_vm:start(#{env => [{"TMPDIR", ?config(priv_dir, Config)}]}),
    try
        true = test_vm:run(Vm, fun() ->
            proper:quickcheck(?MODULE:Property(), [{numtests, Runs}, {to_file, user}])
        end)
    after
        test_vm:stop(Vm)
    end.

%% ---- The properties, evaluated in a VM that may die -------------------------------------------

appended() ->
    ?FORALL({Pages, Sharing, Reader, Seed, Picks}, {integer(1, 64), sharing(), reader(), seed(), picks(300)},
        with_file(Pages, Sharing, fun(External, Path, Handle, Size) ->
            ok = external_writer:race(External, Path, Size, Seed),
            Verdicts = [read_view(Handle, Reader, part(Pick, Size)) || Pick <- Picks],
            ok = external_writer:stop_race(External, Path, Size),
            aggregate(Verdicts, not lists:member(invented, Verdicts) andalso is_whole(Handle, Size))
        end)).

shrinking() ->
    ?FORALL({Pages, Sharing, Reader, Cuts, Picks}, {integer(1, 64), sharing(), reader(), non_empty(list(fraction())), picks(60)},
        with_file(Pages, Sharing, fun(External, Path, Handle, Size) ->
            {ok, View} = iommap:region_binary(Handle, 0, Size),
            Descending = lists:reverse(lists:usort([1 + trunc(Cut * (Size - 1)) || Cut <- Cuts])),
            Cutter = spawn_link(fun() -> cut(Path, Descending) end),
            Monitor = monitor(process, Cutter),
            Verdicts = [read_part(View, Reader, part(Pick, Size)) || Pick <- Picks],
            receive {'DOWN', Monitor, process, Cutter, normal} -> ok end,
            true = erlang:port_info(External) =/= undefined,
            aggregate(Verdicts, not lists:member(invented, Verdicts))
        end)).

pread() ->
    ?FORALL({Pages, Sharing, Seed, Picks}, {integer(1, 64), sharing(), seed(), picks(300)},
        with_file(Pages, Sharing, fun(External, Path, Handle, Size) ->
            ok = external_writer:race(External, Path, Size, Seed),
            Verdicts = [copy(Handle, part(Pick, Size)) || Pick <- Picks],
            ok = external_writer:stop_race(External, Path, Size),
            aggregate(Verdicts, not lists:member(invented, Verdicts) andalso is_whole(Handle, Size))
        end)).

sharing() -> oneof([shared, private]).
reader() -> oneof([matching, comparing, copying, other_nif, dirty_nif]).
seed() -> integer(0, 1_000_000).
fraction() -> float(0.0, 1.0).
picks(Count) -> vector(Count, {fraction(), fraction()}).

%% Two fractions make an offset and a length, short more often than long.
part({First, Second}, Size) ->
    Offset = trunc(First * (Size - 1)),
    {Offset, 1 + trunc(Second * Second * (Size - Offset - 1))}.

with_file(Pages, Sharing, Test) ->
    Path = filename:join(os:getenv("TMPDIR"), "raced-" ++ integer_to_list(erlang:unique_integer([positive]))),
    Size = Pages * test_pattern:page(),
    External = external_writer:start(),
    ok = external_writer:write(External, Path, Size),
    {ok, Handle} = iommap:open(Path, read, [Sharing]),
    try
        Test(External, Path, Handle, Size)
    after
        iommap:close(Handle),
        external_writer:stop(External),
        file:delete(Path)
    end.

cut(Path, Descending) ->
    External = external_writer:start(),
    [ok = external_writer:truncate(External, Path, Length) || Length <- Descending],
    external_writer:stop(External).

%% A new view each time: a view that met a loss is lost for good.
read_view(Handle, Reader, {Offset, Length} = Range) ->
    case iommap:region_binary(Handle, Offset, Length) of
        {ok, View} ->
            judge(read(Reader, View), View, Range);
        {error, sigbus} ->
            %% The file may be empty at this moment, or be shorter than the range.
            _ = iommap:remap(Handle),
            stopped;
        {error, out_of_bounds} ->
            _ = iommap:remap(Handle),
            stopped
    end.

%% The VM makes a copy of a part of up to 64 bytes, of which nobody can say any more where it came from.
read_part(View, Reader, {Wanted, Least}) ->
    Length = max(65, Least),
    Offset = min(Wanted, byte_size(View) - Length),
    Part = binary:part(View, Offset, Length),
    judge(read(Reader, Part), Part, {Offset, Length}).

read(matching, View) -> match(View, []);
read(comparing, View) -> << <<(smallest_equal(View, Index))>> || Index <- [0, byte_size(View) - 1] >>;
read(copying, View) -> binary:copy(View);
read(other_nif, View) -> other_reader:copy(View);
read(dirty_nif, View) -> other_reader:copy_dirty_io(View).

match(<<Byte, Rest/binary>>, Seen) -> match(Rest, [Byte | Seen]);
match(<<>>, Seen) -> list_to_binary(lists:reverse(Seen)).

%% The byte at the index, found by comparing it with all bytes.
smallest_equal(View, Index) ->
    Part = binary:part(View, Index, 1),
    hd([Byte || Byte <- lists:seq(0, 255), Part =:= <<Byte>>] ++ [0]).

%% Parse first, ask after.
judge(Seen, View, {Offset, Length}) ->
    Intact = iommap:intact(View),
    case {is_pattern(Seen, Offset, Length), Intact} of
        {true, true} -> accepted;
        {true, false} -> doubted;
        {false, false} -> rejected;
        {false, true} -> invented
    end.

is_pattern(Seen, Offset, Length) when byte_size(Seen) =:= Length ->
    Seen =:= test_pattern:bytes(Offset, Length);
is_pattern(<<First, Last>>, Offset, Length) ->
    <<First>> =:= test_pattern:bytes(Offset, 1)
        andalso <<Last>> =:= test_pattern:bytes(Offset + Length - 1, 1).

copy(Handle, {Offset, Length}) ->
    case iommap:pread(Handle, Offset, Length) of
        {ok, Seen} ->
            case Seen =:= test_pattern:bytes(Offset, Length) of
                true -> accepted;
                false -> invented
            end;
        {error, sigbus} ->
            stopped
    end.

%% When the file is whole again, so is the handle.
is_whole(Handle, Size) ->
    {ok, Size} = iommap:remap(Handle),
    iommap:pread(Handle, 0, Size) =:= {ok, test_pattern:bytes(Size)}.
