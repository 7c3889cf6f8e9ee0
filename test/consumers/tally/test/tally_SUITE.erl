-module(tally_SUITE).

-export([all/0]).
-export([the_library_was_built_in_the_dependency/1]).
-export([the_shell_has_documentation/1]).
-export([the_count_is_in_the_file/1]).
-export([the_count_survives_a_restart/1]).
-export([a_view_outlives_the_application/1]).

all() ->
    [the_library_was_built_in_the_dependency,
     the_shell_has_documentation,
     the_count_is_in_the_file,
     the_count_survives_a_restart,
     a_view_outlives_the_application].

%% What runs is the library that rebar3 built inside this project's _build.
the_library_was_built_in_the_dependency(_Config) ->
    Priv = code:priv_dir(iommap),
    {match, _} = re:run(Priv, "/tally/_build/.*/(lib|checkouts)/iommap/priv$"),
    true = filelib:is_regular(filename:join(Priv, "iommap_nif.so")).

%% h(iommap) finds what EDoc made of the comments when rebar3 built the dependency.
the_shell_has_documentation(_Config) ->
    {ok, Documentation} = code:get_doc(iommap),
    docs_v1 = element(1, Documentation).

%% Whoever reads the file sees the count.
the_count_is_in_the_file(Config) ->
    File = start(Config, "in_the_file"),
    [1, 2, 3] = [tally:next() || _ <- [a, b, c]],
    {ok, <<3:64>>} = file:read_file(File),
    ok = application:stop(tally).

%% A new run goes on where the last one stopped.
the_count_survives_a_restart(Config) ->
    _ = start(Config, "survives"),
    [1, 2] = [tally:next() || _ <- [a, b]],
    ok = application:stop(tally),
    _ = start(Config, "survives"),
    3 = tally:next(),
    ok = application:stop(tally).

%% A view stays readable when the process that opened the file, and the file itself, are gone.
a_view_outlives_the_application(Config) ->
    File = start(Config, "view"),
    1 = tally:next(),
    {ok, Handle} = iommap:open(File, read, []),
    {ok, View} = iommap:region_binary(Handle, 0, 8),
    ok = iommap:close(Handle),
    ok = application:stop(tally),
    ok = file:delete(File),
    <<1:64>> = View.

start(Config, Name) ->
    File = filename:join(proplists:get_value(priv_dir, Config), Name),
    application:load(tally),
    ok = application:set_env(tally, file, File),
    {ok, _} = application:ensure_all_started(tally),
    File.
