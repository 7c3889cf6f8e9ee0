%% Counts in the first eight bytes of a mapped file.
-module(tally).
-behaviour(gen_server).

-export([start_link/1, next/0]).
-export([main/1]).
-export([init/1, handle_call/3, handle_cast/2]).

start_link(File) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, File, []).

%% The number of calls so far, those of earlier runs included.
next() ->
    gen_server:call(?MODULE, next).

%% The escript: counts once.
main([File]) ->
    {ok, Handle} = init(File),
    {reply, Count, _} = handle_call(next, {self(), main}, Handle),
    io:format("~b~n", [Count]).

init(File) ->
    iommap:open(File, read_write, [create, {size, 8}]).

handle_call(next, _From, Handle) ->
    {ok, <<Count:64>>} = iommap:pread(Handle, 0, 8),
    ok = iommap:pwrite(Handle, 0, <<(Count + 1):64>>),
    {reply, Count + 1, Handle}.

handle_cast(_Message, Handle) ->
    {noreply, Handle}.
