%% Messages between this VM and a Python process, there and back, through rings of memory that both map (ring.py).
%%
%% Shows: memory without a name (`anonymous`) that another process opens by the path that iommap:info/1 gives, and words of
%% iommap_atomics that hand what is beside them over. A message costs no system call.
%%
%% Each ring has one sender and one receiver, 64 slots of 256 bytes, and two words: how many messages were sent, which the
%% sender alone changes, and how many were taken, which the receiver alone changes. The rules:
%%
%%   1. The sender fills a slot, then counts it as sent. The receiver reads the count, then the slot, then counts it as taken.
%%   2. The counts are aligned words of 64 bits, read and written whole: iommap_atomics here, memoryview.cast("Q") there.
%%   3. iommap_atomics keeps the order of rule 1 on every processor. Python has no barriers. x86-64 shows stores in their order
%%      all the same; others (aarch64) may show the count before the slot. So each message has a checksum, of its number too,
%%      and one that does not match has not arrived yet: the receiver looks again. It counts a slot as taken only after the
%%      checksum matched, so nobody fills a slot that is still being read.
%%
%% Does not: wake the other side (who waits looks again every millisecond; a pipe or socket can be the doorbell), let two
%% processes send into one ring or take from it, or pass messages of more than 248 bytes: put long ones elsewhere in the
%% memory, and send where.
%%
%%     export ERL_LIBS=_build/default/lib
%%     escript examples/ring.erl COUNT   # sends so many messages; Python sends each back in upper case
-module(ring).
-mode(compile).

-export([main/1]).
-export([start/1, send/2, take/1, wait/1, stop/1]).

-define(SLOTS, 64).
-define(SLOT, 256).
-define(HEAD, 8). % checksum and length
-define(PAGE, 4096). % the words; the slots of both rings come after them

%% The words, 64 bytes apart: to Python, and from Python.
-define(SENT, 1).
-define(TAKEN, 9).
-define(SENT_BACK, 17).
-define(TAKEN_BACK, 25).

main([Count]) ->
    Ring = start(filename:join(filename:dirname(escript:script_name()), "ring.py")),
    Messages = [<<"message ", (integer_to_binary(N))/binary>> || N <- lists:seq(1, list_to_integer(Count))],
    Answers = exchange(Ring, Messages, length(Messages)),
    ok = stop(Ring),
    Answers = [string:uppercase(Message) || Message <- Messages],
    io:format("~b messages, ~b answers~n", [length(Messages), length(Answers)]);
main(_) ->
    io:format(standard_error, "usage: ring.erl COUNT~n", []),
    halt(2).

%% Sends as long as there is room, takes as long as there are answers, and waits only where there is neither.
exchange(_, _, 0) ->
    [];
exchange(Ring, Messages, Missing) ->
    Left = send_some(Ring, Messages),
    case take(Ring) of
        {ok, Answer} -> [Answer | exchange(Ring, Left, Missing - 1)];
        empty -> ok = wait(Ring), exchange(Ring, Left, Missing)
    end.

send_some(_, []) ->
    [];
send_some(Ring, [Message | Rest] = Messages) ->
    case send(Ring, Message) of
        ok -> send_some(Ring, Rest);
        full -> Messages
    end.

%%% The ring

start(Script) ->
    {ok, Memory} = iommap:open(anonymous, read_write, [{size, ?PAGE + 2 * ?SLOTS * ?SLOT}]),
    {ok, #{path := Path}} = iommap:info(Memory),
    Python = open_port({spawn_executable, os:find_executable("python3")}, [{args, [Script, Path]}, exit_status]),
    #{memory => Memory, words => iommap_atomics:new(Memory, 0, 32, [{signed, false}]), python => Python}.

%% Python sees the end of its standard input, and ends too. So it does if this VM dies.
stop(#{memory := Memory, python := Python}) ->
    true = port_close(Python),
    iommap:close(Memory).

send(#{memory := Memory, words := Words}, Message) when byte_size(Message) =< ?SLOT - ?HEAD ->
    Number = iommap_atomics:get(Words, ?SENT),
    case Number - iommap_atomics:get(Words, ?TAKEN) of
        ?SLOTS ->
            full;
        _ ->
            Head = <<(checksum(Number, Message)):32/native, (byte_size(Message)):32/native>>,
            ok = iommap:pwrite(Memory, ?PAGE + Number rem ?SLOTS * ?SLOT, [Head, Message]),
            iommap_atomics:put(Words, ?SENT, Number + 1)
    end.

take(#{memory := Memory, words := Words}) ->
    Number = iommap_atomics:get(Words, ?TAKEN_BACK),
    case iommap_atomics:get(Words, ?SENT_BACK) of
        Number ->
            empty;
        _ ->
            {ok, Slot} = iommap:pread(Memory, ?PAGE + (?SLOTS + Number rem ?SLOTS) * ?SLOT, ?SLOT),
            <<Checksum:32/native, Length:32/native, Rest/binary>> = Slot,
            Message = binary:part(Rest, 0, min(Length, byte_size(Rest))),
            case checksum(Number, Message) of
                Checksum -> ok = iommap_atomics:put(Words, ?TAKEN_BACK, Number + 1), {ok, Message};
                _ -> empty % rule 3
            end
    end.

checksum(Number, Message) ->
    erlang:crc32([<<Number:64/native>>, Message]).

wait(#{python := Python}) ->
    receive {Python, {exit_status, Status}} -> {error, {python, Status}}
    after 1 -> ok
    end.
