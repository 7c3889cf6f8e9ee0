%% Sees the signals that the VM hands to Erlang, and tells a process.
-module(signal_witness).
-behaviour(gen_event).

-export([watch/0]).
-export([init/1, handle_event/2, handle_call/2]).

%% From now on the caller gets {signal, Name} for each.
-spec watch() -> ok.
watch() ->
    ok = gen_event:add_handler(erl_signal_server, ?MODULE, self()).

init(Watcher) ->
    {ok, Watcher}.

handle_event(Signal, Watcher) ->
    Watcher ! {signal, Signal},
    {ok, Watcher}.

handle_call(_Request, Watcher) ->
    {ok, ok, Watcher}.
