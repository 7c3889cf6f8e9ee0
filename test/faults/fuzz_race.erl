%% Everything at once, without an order: the other process cuts the file to whole pages and appends the pattern again as fast
%% as it can, while processes read, write, view, remap, open and close. The bytes are always the pattern, so that each answer
%% can be judged without knowing when it was given. And what a write answered `ok' to is in the file, whoever grows and closes
%% the handle meanwhile.
-module(fuzz_race).

-export([run/3]).

-define(PAGES, 24).

-record(race, {path :: file:filename(), handle :: iommap:handle(), device :: file:fd(), size :: pos_integer(), until :: integer(),
               may_see_zeros :: [pread | view]}).

-type options() :: #{
    milliseconds := pos_integer(),
    %% What may show zeros while a file is cut (guides/features.md, Faults).
    may_see_zeros := [pread | view]
}.

-spec run(file:filename(), Seed :: integer(), options()) -> ok | {wrong, Role :: atom(), term()}.
run(Directory, Seed, #{milliseconds := Milliseconds, may_see_zeros := MaySeeZeros}) ->
    Path = filename:join(Directory, "raced"),
    Size = ?PAGES * test_pattern:page(),
    External = external_writer:start(),
    ok = external_writer:write(External, Path, Size),
    _ = test_pattern:bytes(Size),
    Sharing = lists:nth(Seed rem 2 + 1, [shared, private]),
    {ok, Handle} = iommap:open(Path, read_write, [Sharing]),
    {ok, Device} = iommap_file:open(Path, [read, binary]),
    Race = #race{path = Path, handle = Handle, device = Device, size = Size, may_see_zeros = MaySeeZeros,
                 until = erlang:monotonic_time(millisecond) + Milliseconds},
    ok = external_writer:race(External, Path, Size, Seed),
    Outcome = all([{Name, fun() -> again(Role, Race) end} || {Name, Role} <- roles()]),
    ok = external_writer:stop_race(External, Path, Size),
    ok = external_writer:stop(External),
    _ = iommap:close(Handle),
    ok = file:close(Device),
    Outcome.

roles() ->
    [{reader, fun read/1}, {reader, fun read/1}, {writer, fun write/1}, {viewer, fun view/1}, {viewer, fun with_view/1},
     {device, fun read_device/1}, {follower, fun follow/1},
     {remapper, fun remap/1}, {opener, fun open/1}, {grower, fun grow_write_close/1}, {grower, fun grow_write_close/1}].

all(Roles) ->
    Workers = [{Name, spawn_monitor(Role)} || {Name, Role} <- Roles],
    Ends = [{Name, receive {'DOWN', Monitor, process, Pid, Reason} -> Reason end} || {Name, {Pid, Monitor}} <- Workers],
    case [{Name, Reason} || {Name, Reason} <- Ends, Reason =/= normal] of
        [] -> ok;
        [{Name, Reason} | _] -> {wrong, Name, Reason}
    end.

again(Role, #race{until = Until} = Race) ->
    case erlang:monotonic_time(millisecond) < Until of
        true -> Role(Race), again(Role, Race);
        false -> ok
    end.

read(#race{handle = Handle, size = Size} = Race) ->
    {Offset, Length} = part(Size),
    case iommap:pread(Handle, Offset, Length) of
        {ok, Bytes} -> pattern(Bytes, Offset, lists:member(pread, Race#race.may_see_zeros));
        Error -> may_be(Error, [sigbus, out_of_bounds])
    end.

write(#race{handle = Handle, size = Size}) ->
    {Offset, Length} = part(Size),
    may_be(iommap:pwrite(Handle, Offset, test_pattern:bytes(Offset, Length)), [sigbus, out_of_bounds]).

%% What is intact after it was read is the pattern.
view(#race{handle = Handle, size = Size, may_see_zeros = MaySeeZeros}) ->
    {Offset, Length} = part(Size),
    case iommap:region_binary(Handle, Offset, Length) of
        {ok, View} ->
            Seen = binary:copy(View),
            pattern(Seen, Offset, not iommap:intact(View) orelse lists:member(view, MaySeeZeros));
        Error ->
            may_be(Error, [sigbus, out_of_bounds])
    end.

with_view(#race{handle = Handle, size = Size, may_see_zeros = MaySeeZeros}) ->
    {Offset, Length} = part(Size),
    case iommap:with_view(Handle, Offset, Length, fun binary:copy/1) of
        {ok, Seen} -> pattern(Seen, Offset, lists:member(view, MaySeeZeros));
        Error -> may_be(Error, [sigbus, out_of_bounds])
    end.

%% What there is of a range at some moment, or nothing, and never an error.
read_device(#race{device = Device, size = Size, may_see_zeros = MaySeeZeros}) ->
    {Offset, Length} = part(Size),
    case file:pread(Device, Offset, Length) of
        {ok, Bytes} -> pattern(Bytes, Offset, lists:member(pread, MaySeeZeros));
        eof -> ok
    end.

%% A window that follows, from any byte on.
follow(#race{path = Path, size = Size, may_see_zeros = MaySeeZeros}) ->
    {Start, _} = part(Size),
    case iommap:open(Path, read, [follow, {offset, Start}]) of
        {ok, Window} ->
            [begin
                 {Offset, Length} = part(Size - Start),
                 case iommap:pread(Window, Offset, Length) of
                     {ok, Bytes} -> pattern(Bytes, Start + Offset, lists:member(pread, MaySeeZeros));
                     Error -> may_be(Error, [sigbus, out_of_bounds])
                 end
             end || _ <- lists:seq(1, 50)],
            ok = iommap:close(Window);
        Error ->
            may_be(Error, [einval])
    end.

remap(#race{handle = Handle, size = Size}) ->
    case iommap:remap(Handle) of
        {ok, Now} when Now > 0, Now =< Size -> ok;
        Error -> may_be(Error, [einval])
    end,
    receive after rand:uniform(5) -> ok end.

open(#race{path = Path, size = Size, may_see_zeros = MaySeeZeros}) ->
    Mode = lists:nth(rand:uniform(2), [read, read_write]),
    Options = [Option || Option <- [private, lock, populate], rand:uniform(2) =:= 1],
    case iommap:open(Path, Mode, Options) of
        {ok, Handle} ->
            {ok, Now} = iommap:position(Handle),
            {Offset, Length} = part(min(Now, Size)),
            case iommap:pread(Handle, Offset, Length) of
                {ok, Bytes} -> pattern(Bytes, Offset, lists:member(pread, MaySeeZeros));
                Error -> may_be(Error, [sigbus])
            end,
            rand:uniform(2) =:= 1 andalso iommap:close(Handle);
        Error ->
            may_be(Error, [einval])
    end.

%% A file of its own that nobody cuts: one process makes it longer, one writes to what is new as soon as it is there, one
%% closes the handle about then.
grow_write_close(#race{path = Path}) ->
    Own = lists:concat([Path, ".", erlang:unique_integer([positive])]),
    ok = file:write_file(Own, <<"short">>),
    {ok, Handle} = iommap:open(Own, read_write, []),
    Offset = 3 * test_pattern:page() + 7,
    ok = all([
        {grower, fun() -> may_be(iommap:truncate(Handle, 4 * test_pattern:page()), [closed]) end},
        {writer, fun() -> write_when_long(Handle, Offset, Own) end},
        {closer, fun() -> close_when_long(Handle) end}
    ]),
    ok = file:delete(Own).

write_when_long(Handle, Offset, Path) ->
    case iommap:pwrite(Handle, Offset, <<"written">>) of
        ok ->
            receive after 1 -> ok end,
            {ok, File} = file:open(Path, [read, raw, binary]),
            Found = file:pread(File, Offset, 7),
            ok = file:close(File),
            Found =:= {ok, <<"written">>} orelse exit({acknowledged_but_not_there, Found});
        {error, out_of_bounds} ->
            write_when_long(Handle, Offset, Path);
        Error ->
            may_be(Error, [closed])
    end.

close_when_long(Handle) ->
    case iommap:position(Handle) of
        {ok, 5} -> close_when_long(Handle);
        {ok, _} -> ok = iommap:close(Handle)
    end.

part(Size) ->
    Offset = rand:uniform(Size) - 1,
    Longest = lists:nth(rand:uniform(3), [8, 500, Size]),
    {Offset, rand:uniform(min(Longest, Size - Offset))}.

may_be(ok, _) -> ok;
may_be({error, Reason}, Reasons) -> lists:member(Reason, Reasons) orelse exit({unexpected, Reason}).

pattern(Bytes, Offset, MayBeZero) ->
    Whole = test_pattern:bytes(Offset, byte_size(Bytes)),
    Bytes =:= Whole orelse (MayBeZero andalso is_pattern_or_zero(Bytes, Whole)) orelse exit({made_up, Offset, first_wrong(Bytes, Whole)}).

is_pattern_or_zero(<<Byte, Bytes/binary>>, <<Byte, Whole/binary>>) -> is_pattern_or_zero(Bytes, Whole);
is_pattern_or_zero(<<0, Bytes/binary>>, <<_, Whole/binary>>) -> is_pattern_or_zero(Bytes, Whole);
is_pattern_or_zero(<<>>, <<>>) -> true;
is_pattern_or_zero(_, _) -> false.

first_wrong(Bytes, Whole) ->
    At = binary:longest_common_prefix([Bytes, Whole]),
    Count = min(8, byte_size(Bytes) - At),
    #{at => At, 'of' => byte_size(Bytes), found => binary_to_list(binary:part(Bytes, At, Count))}.
