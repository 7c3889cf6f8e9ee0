%% What the Makefile of test/faults builds for the tests: NIFs, programs, libraries.
-module(test_tools).

-export([build/0, build/1]).
-export([built/1]).
-export([nif/1]).

%% Builds everything that the suites need, by the Makefile of test/faults.
-spec build() -> ok.
build() ->
    build("all").

%% Builds a target of that Makefile. A compiler may take longer than a suite's time trap.
-spec build(Target :: string()) -> ok.
build(Target) ->
    _ = ct:timetrap({hours, 1}),
    case test_system:shell(["make -C ", directory(), " ", Target]) of
        {0, _} -> ok;
        {_, Output} -> io:put_chars(user, Output), error({cannot_build, Target})
    end.

%% test/faults in the project.
-spec directory() -> file:filename().
directory() ->
    filename:join([test_system:root(), "test", "faults"]).

-spec built(file:filename()) -> file:filename().
built(Name) ->
    filename:join([directory(), "build", Name]).

%% The library of a module of test/support, as load_nif wants it.
-spec nif(module()) -> file:filename().
nif(Module) ->
    built(atom_to_list(Module)).
