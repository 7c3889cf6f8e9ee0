#!/usr/bin/env escript
%% Shows iommap at work on a real file and checks every step by other means. `make demo` runs it; so does
%%
%%     ERL_LIBS=_build/default/lib escript examples/demo.escript [FILE]
%%
%% FILE is only read. Whatever writes does so to a copy of (at most) its first 64 MiB.
%% The exit status is 0 if every check held.
-mode(compile).

-include_lib("kernel/include/file.hrl").

-define(COPY_LIMIT, 64 bsl 20).
-define(READS, 2000).
-define(ROUNDS, 9).

main([]) -> main([virtual_machine()]);
main([""]) -> main([]);
main([Argument]) ->
    ok = io:setopts([{encoding, file:native_name_encoding()}]),
    Path = path(Argument),
    io:format("~niommap on ~ts~n", [shown(Path)]),
    case can_be_mapped(file:read_file_info(Path, [raw])) of
        yes -> demonstrate(Path);
        {no, Why} -> give_up(Why)
    end;
main(_) -> give_up("usage: demo.escript [FILE]").

demonstrate(Path) ->
    case iommap:open(Path, read, []) of
        {ok, Handle} ->
            Directory = new_directory(),
            try
                size(Handle, Path),
                checksum(Handle, Path),
                random_reads(Handle, Path),
                Copy = copy(Path, Directory),
                private_write(Copy),
                shared_write(Copy),
                resize(Copy),
                truncation_by_another_process(Copy, Directory)
            after
                ok = file:del_dir_r(Directory)
            end,
            finish();
        {error, Reason} -> give_up(iommap:format_error(Reason))
    end.

%% A name that is not in the encoding of file names comes as what could be decoded of it, and the rest.
path({_, Decoded, Rest}) -> iolist_to_binary([unicode:characters_to_binary(Decoded), Rest]);
path(Path) -> Path.

shown(Path) ->
    case unicode:characters_to_list(Path) of
        Characters when is_list(Characters) -> Characters;
        _ -> binary_to_list(Path)
    end.

can_be_mapped({ok, #file_info{type = regular, size = 0}}) ->
    {no, "the file is empty, or one of /proc, which tells no size: neither can be mapped"};
can_be_mapped({ok, #file_info{type = regular}}) -> yes;
can_be_mapped({ok, #file_info{type = directory}}) -> {no, "a directory cannot be mapped"};
can_be_mapped({ok, #file_info{mode = Mode}}) when Mode band 8#170000 =:= 8#060000 -> yes;
can_be_mapped({ok, _}) -> {no, "only regular files and block devices can be mapped: not a FIFO, a terminal or /dev/null"};
can_be_mapped({error, Reason}) -> {no, iommap:format_error(Reason)}.

%% The executable of the virtual machine that runs this.
virtual_machine() ->
    filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin", "beam.smp"]).

%%% The steps

size(Handle, Path) ->
    {ok, Size} = iommap:position(Handle),
    heading("Size: ~ts bytes", [grouped(Size)]),
    {ok, File} = open_raw(Path),
    check("the end of the file, as file:position/2 finds it, is there", {ok, Size} =:= file:position(File, eof)),
    ok = file:close(File).

%% A block device, too.
open_raw(Path) ->
    file:open(Path, [read, raw, binary, device]).

checksum(Handle, Path) ->
    {ok, Size} = iommap:position(Handle),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    Digest = string:lowercase(binary:encode_hex(crypto:hash(sha256, View))),
    heading("SHA-256 through a view: ~ts", [Digest]),
    {Tool, Theirs} = independent_digest(Path),
    check([Tool, " computes the same"], Digest =:= Theirs).

independent_digest(Path) ->
    [{Tool, Executable, Arguments} | _] =
        [{T, E, A} || {T, A} <- [{"sha256sum", []}, {"shasum", ["-a", "256"]}, {"openssl", ["dgst", "-sha256", "-r"]}],
                      E <- [os:find_executable(T)], E =/= false],
    {0, Output} = run(Executable, Arguments ++ [Path]),
    {match, [Digest]} = re:run(Output, "[0-9a-f]{64}", [{capture, first, binary}]),
    {Tool, Digest}.

%% The same offsets for every contender, in interleaved rounds.
random_reads(Handle, Path) ->
    {ok, Size} = iommap:position(Handle),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    {ok, File} = open_raw(Path),
    heading("Random reads of pages in memory, nanoseconds per read (median of ~b rounds of ~b reads)", [?ROUNDS, ?READS]),
    row(["bytes", "iommap:pread", "view, no copy", "file:pread", "pread gains", "view gains"]),
    Lengths = [Length || Length <- [8, 64, 4096, 65536], Length =< Size],
    Agreed = [compare(Length, Size, Handle, View, File) || Length <- Lengths],
    ok = file:close(File),
    check("all three read the same bytes", lists:all(fun(Same) -> Same end, Agreed)).

compare(Length, Size, Handle, View, File) ->
    Offsets = [rand:uniform(Size - Length + 1) - 1 || _ <- lists:seq(1, ?READS)],
    Readers = [fun(Offset) -> iommap:pread(Handle, Offset, Length) end,
               fun(Offset) -> {ok, binary:part(View, Offset, Length)} end,
               fun(Offset) -> file:pread(File, Offset, Length) end],
    Same = lists:all(fun(Offset) -> 1 =:= length(lists:usort([Read(Offset) || Read <- Readers])) end, Offsets),
    Rounds = [[time_per_read(Read, Offsets) || Read <- Readers] || _ <- lists:seq(1, ?ROUNDS)],
    [Mapped, Viewed, Plain] = [median([lists:nth(N, Round) || Round <- Rounds]) || N <- [1, 2, 3]],
    row([grouped(Length), grouped(Mapped), grouped(Viewed), grouped(Plain), gain(Plain, Mapped), gain(Plain, Viewed)]),
    Same.

time_per_read(Read, Offsets) ->
    Start = erlang:monotonic_time(nanosecond),
    lists:foreach(Read, Offsets),
    (erlang:monotonic_time(nanosecond) - Start) div length(Offsets).

private_write(Copy) ->
    heading("A private write on a copy", []),
    {ok, Before} = file:read_file(Copy),
    {ok, Handle} = iommap:open(Copy, read_write, [private]),
    Mark = mark(Before),
    ok = iommap:pwrite(Handle, 0, Mark),
    check("the mapping holds what was written", {ok, Mark} =:= iommap:pread(Handle, 0, byte_size(Mark))),
    ok = iommap:close(Handle),
    check("the file does not", {ok, Before} =:= file:read_file(Copy)).

shared_write(Copy) ->
    heading("A shared write on a copy", []),
    {ok, Before} = file:read_file(Copy),
    {ok, Handle} = iommap:open(Copy, read_write, []),
    Mark = mark(Before),
    ok = iommap:pwrite(Handle, 0, Mark),
    ok = iommap:sync(Handle),
    <<_:(byte_size(Mark))/binary, Rest/binary>> = Before,
    check("the file holds what was written, and all else as before",
          {ok, <<Mark/binary, Rest/binary>>} =:= file:read_file(Copy)),
    ok = iommap:close(Handle).

resize(Copy) ->
    heading("truncate/2 on a copy", []),
    {ok, Before} = file:read_file(Copy),
    Size = byte_size(Before),
    {ok, Handle} = iommap:open(Copy, read_write, []),
    ok = iommap:truncate(Handle, Size + 4096),
    check("the file grew by a page of zeros", {ok, <<Before/binary, 0:4096/unit:8>>} =:= file:read_file(Copy)),
    check("the mapping grew with it", {ok, <<0:4096/unit:8>>} =:= iommap:pread(Handle, Size, 4096)),
    ok = iommap:truncate(Handle, Size),
    check("both shrank again", {ok, Size} =:= iommap:position(Handle) andalso {ok, Before} =:= file:read_file(Copy)),
    ok = iommap:close(Handle).

truncation_by_another_process(Copy, Directory) ->
    heading("A copy truncated to nothing by another process", []),
    {ok, Before} = file:read_file(Copy),
    Size = byte_size(Before),
    Spare = filename:join(Directory, "spare"),
    {ok, Size} = file:copy(Copy, Spare),
    {ok, Handle} = iommap:open(Copy, read, []),
    {ok, View} = iommap:region_binary(Handle, 0, Size),
    check("before: the view is intact", iommap:intact(View)),
    shell(": > \"$1\"", [Copy]),
    check("pread/3 answers {error, sigbus}", {error, sigbus} =:= iommap:pread(Handle, 0, Size)),
    check("a BIF reads through the view and the VM lives", is_integer(erlang:crc32(View))),
    check("intact/1 tells that the view lost its bytes", not iommap:intact(View)),
    shell("cat \"$2\" > \"$1\"", [Copy, Spare]),
    check("the file is back: remap/1 finds it", {ok, Size} =:= iommap:remap(Handle)),
    check("pread/3 reads it again", {ok, Before} =:= iommap:pread(Handle, 0, Size)),
    ok = iommap:close(Handle).

%%% Files and processes

new_directory() ->
    Name = "iommap-demo-" ++ os:getpid(),
    Directory = filename:join(os:getenv("TMPDIR", "/tmp"), Name),
    ok = file:make_dir(Directory),
    Directory.

copy(Path, Directory) ->
    Copy = filename:join(Directory, "copy"),
    {ok, File} = open_raw(Path),
    {ok, _} = file:copy(File, Copy, ?COPY_LIMIT),
    ok = file:close(File),
    Copy.

%% At most 16 bytes, every one different from what the file begins with.
mark(Bytes) ->
    << <<(bnot Byte)>> || <<Byte>> <= binary:part(Bytes, 0, min(16, byte_size(Bytes))) >>.

shell(Script, Arguments) ->
    {0, <<>>} = run("/bin/sh", ["-c", Script, "sh" | Arguments]).

run(Executable, Arguments) ->
    Port = open_port({spawn_executable, Executable}, [{args, Arguments}, exit_status, binary, stderr_to_stdout]),
    collect(Port, <<>>).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

%%% What the reader sees

heading(Format, Arguments) ->
    io:format("~n" ++ Format ++ "~n", Arguments).

check(Claim, Held) ->
    io:format("  ~-6s  ~ts~n", [case Held of true -> "ok"; false -> "FAILED" end, Claim]),
    put(checks, [Held | checks()]).

checks() ->
    case get(checks) of
        undefined -> [];
        Checks -> Checks
    end.

finish() ->
    Held = length([held || true <- checks()]),
    io:format("~n~b of ~b checks held~n", [Held, length(checks())]),
    halt(case Held =:= length(checks()) of true -> 0; false -> 1 end).

give_up(Reason) ->
    io:format(standard_error, "~ts~n", [Reason]),
    halt(1).

row(Cells) ->
    io:format("  ~8ts~15ts~15ts~15ts~15ts~15ts~n", Cells).

gain(Slow, Fast) ->
    io_lib:format("~.1f x", [Slow / max(1, Fast)]).

median(Numbers) ->
    lists:nth((length(Numbers) + 1) div 2, lists:sort(Numbers)).

grouped(Number) ->
    string:reverse(re:replace(string:reverse(integer_to_list(Number)), "\\d{3}(?=\\d)", "&,", [global, {return, list}])).
