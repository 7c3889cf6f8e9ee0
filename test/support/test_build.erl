%% native/build.sh, run for real in a copy of the sources of its own, with the environment that a case is about.
-module(test_build).

-export([with_project/2, build/2, run/3, mentions/2]).
-export([built_library/0, library/1, library_path/1, put_library/2]).

-import(test_system, [root/0]).

%% Each case has a project directory: the scripts, what they read, and nothing built.
with_project(Case, Config) ->
    Project = filename:join([proplists:get_value(priv_dir, Config), Case, "iommap"]),
    [copy(Name, Project) || Name <- ["native/build.sh", "native/prebuilt", "native/prebuilt.sha256", "Cargo.toml",
                                     "src/iommap.app.src", "src/iommap.erl"]],
    [{project, Project} | Config].

copy(Name, Project) ->
    To = filename:join(Project, Name),
    ok = filelib:ensure_dir(To),
    {ok, _} = file:copy(filename:join(root(), Name), To),
    ok = file:change_mode(To, 8#755).

%% The status of a build, and what it said.
build(Config, Environment) ->
    run(proplists:get_value(project, Config), "build", Environment).

run(Project, Word, Environment) ->
    Clean = [{Name, false} || Name <- ["CARGO", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CC", "IOMMAP_PREBUILT"],
                              not lists:keymember(Name, 1, Environment)],
    Port = open_port({spawn_executable, filename:join([Project, "native", "build.sh"])},
                     [{args, [Word]}, {env, Clean ++ Environment},
                      exit_status, binary, stderr_to_stdout]),
    collect(Port, <<>>).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} ->
            ct:log("exit status ~b~n~ts", [Status, Output]),
            {Status, Output}
    end.

mentions(Output, Words) ->
    [] = [Word || Word <- Words, string:find(Output, Word) =:= nomatch].

%% The library that these tests run with.
built_library() ->
    filename:join(code:priv_dir(iommap), "iommap_nif.so").

library_path(Config) ->
    filename:join([proplists:get_value(project, Config), "priv", "iommap_nif.so"]).

library(Config) ->
    {ok, Bytes} = file:read_file(library_path(Config)),
    Bytes.

put_library(Config, Bytes) ->
    ok = filelib:ensure_dir(library_path(Config)),
    ok = file:write_file(library_path(Config), Bytes).
