-module(tally_app).
-behaviour(application).
-behaviour(supervisor).

-export([start/2, stop/1]).
-export([init/1]).

start(_Type, _Arguments) ->
    {ok, File} = application:get_env(tally, file),
    supervisor:start_link(?MODULE, File).

stop(_State) ->
    ok.

init(File) ->
    {ok, {#{}, [#{id => tally, start => {tally, start_link, [File]}}]}}.
