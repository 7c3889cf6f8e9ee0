%% What native/build.sh promises to those who compile iommap: run for real, in a copy of the sources of its own,
%% with a PATH that holds what the case is about.
-module(build_SUITE).

-export([all/0, init_per_testcase/2]).
-export([without_cargo_it_says_what_to_install/1]).
-export([without_cargo_an_existing_library_serves/1]).
-export([a_cargo_too_old_is_named_with_both_versions/1]).
-export([without_a_c_compiler_it_says_so/1]).
-export([an_unchanged_library_is_left_alone/1]).
-export([a_path_with_spaces_and_quotes_works/1]).
-export([cargo_build_target_is_respected/1]).
-export([cargo_target_dir_is_respected/1]).
-export([cargo_is_respected/1]).
-export([flags_for_musl_are_added_to_those_of_the_user/1]).
-export([a_failing_cargo_fails_the_build_and_keeps_the_library/1]).
-export([without_crates_it_names_the_ways_to_do_without/1]).
-export([a_virtual_machine_goes_on_while_its_library_is_replaced/1]).
-export([clean_removes_what_was_built/1]).
-export([every_locked_crate_builds_with_the_rust_that_is_asked_for/1]).
-export([open_and_keep/1, read_kept/2]).

-include_lib("kernel/include/file.hrl").

-import(test_build, [build/2, run/3, mentions/2, built_library/0, library/1, library_path/1, put_library/2]).
-import(test_system, [root/0]).

all() ->
    [without_cargo_it_says_what_to_install,
     without_cargo_an_existing_library_serves,
     a_cargo_too_old_is_named_with_both_versions,
     without_a_c_compiler_it_says_so,
     an_unchanged_library_is_left_alone,
     a_path_with_spaces_and_quotes_works,
     cargo_build_target_is_respected,
     cargo_target_dir_is_respected,
     cargo_is_respected,
     flags_for_musl_are_added_to_those_of_the_user,
     a_failing_cargo_fails_the_build_and_keeps_the_library,
     without_crates_it_names_the_ways_to_do_without,
     a_virtual_machine_goes_on_while_its_library_is_replaced,
     clean_removes_what_was_built,
     every_locked_crate_builds_with_the_rust_that_is_asked_for].

init_per_testcase(Case, Config) ->
    test_build:with_project(Case, Config).

%% Without cargo and without a library the build fails, naming cargo, the version needed and where to get it.
without_cargo_it_says_what_to_install(Config) ->
    {1, Output} = build(Config, [{"CARGO", "no-such-cargo"}]),
    mentions(Output, ["no cargo", "no-such-cargo", needed_rust(), "rustup.rs", "brew install", "pkg install", "IOMMAP_PREBUILT"]).

%% Without cargo a library that is already in place is used as it is.
without_cargo_an_existing_library_serves(Config) ->
    put_library(Config, <<"already here">>),
    {0, Output} = build(Config, [{"CARGO", "no-such-cargo"}]),
    mentions(Output, ["no cargo", "serves"]),
    <<"already here">> = library(Config).

%% A cargo that is too old is not run; the message has its version and the one needed.
a_cargo_too_old_is_named_with_both_versions(Config) ->
    Cargo = script(Config, "cargo", "echo 'cargo 1.63.0 (fd9c4297c 2022-07-01)'"),
    {1, Output} = build(Config, [{"CARGO", Cargo}]),
    mentions(Output, ["1.63.0", "too old", needed_rust(), "rustup.rs"]).

%% Without a C compiler that works the build fails and names the one it tried.
without_a_c_compiler_it_says_so(Config) ->
    {1, Output} = build(Config, [{"CARGO", new_cargo(Config, "exit 1")}, {"CC", "no-such-cc"}]),
    mentions(Output, ["C11 compiler", "no-such-cc", "apt-get install gcc", "xcode-select --install"]).

%% The same library again is not written again.
an_unchanged_library_is_left_alone(Config) ->
    Prebuilt = built_library(),
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", Prebuilt}]),
    Before = written(Config),
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", Prebuilt}]),
    Before = written(Config).

%% When the library was written, and into which file. (Comparing reads it, which may move its time of access.)
written(Config) ->
    {ok, #file_info{inode = Inode, mtime = Modified, ctime = Changed}} = file:read_file_info(library_path(Config)),
    {Inode, Modified, Changed}.

%% cargo says where the library is; blanks and quotes in that path do not matter.
a_path_with_spaces_and_quotes_works(Config) ->
    Target = filename:join(proplists:get_value(project, Config), "it's a target"),
    Built = filename:join(Target, "libiommap_nif.so"),
    ok = filelib:ensure_dir(Built),
    ok = file:write_file(Built, <<"built">>),
    Message = "{\"reason\":\"compiler-artifact\",\"filenames\":[\"$CARGO_TARGET_DIR/libiommap_nif.so\"],\"fresh\":true}",
    Cargo = new_cargo(Config, "cat <<END\n" ++ Message ++ "\nEND"),
    {0, _} = build(Config, [{"CARGO", Cargo}, {"CARGO_TARGET_DIR", Target}]),
    <<"built">> = library(Config).

%% A library built for a named target is taken from that target's directory, whatever lies in the usual one.
cargo_build_target_is_respected(Config) ->
    Target = "riscv64gc-unknown-linux-musl",
    put_built(Config, "target/release", <<"usual">>),
    {0, _} = build(Config, [{"CARGO", building_cargo(Config, "of a target")}, {"CARGO_BUILD_TARGET", Target}]),
    <<"of a target\n">> = library(Config),
    <<"of a target\n">> = built(Config, filename:join(["target", Target, "release"])).

%% A library built in a named directory is taken from there, alone or for a named target.
cargo_target_dir_is_respected(Config) ->
    put_built(Config, "target/release", <<"usual">>),
    [begin
         Target = filename:join([proplists:get_value(project, Config), "elsewhere"]),
         Environment = [{"CARGO", building_cargo(Config, Word)}, {"CARGO_TARGET_DIR", Target} | Triple],
         {0, _} = build(Config, Environment),
         Expected = list_to_binary(Word ++ "\n"),
         Expected = library(Config),
         Expected = built(Config, Below)
     end || {Word, Triple, Below} <- [{"one", [], "elsewhere/release"},
                                      {"two", [{"CARGO_BUILD_TARGET", "triple"}], "elsewhere/triple/release"}]].

%% CARGO names the cargo that builds, not the first of the PATH.
cargo_is_respected(Config) ->
    Project = proplists:get_value(project, Config),
    Cargo = building_cargo(Config, "by the one that was named"),
    Named = filename:join(Project, "another cargo"),
    ok = file:rename(Cargo, Named),
    _ = building_cargo(Config, "by the first of the PATH"),
    {0, _} = build(Config, [{"PATH", Project ++ ":" ++ os:getenv("PATH")}, {"CARGO", Named}]),
    <<"by the one that was named\n">> = library(Config),
    {0, _} = build(Config, [{"PATH", Project ++ ":" ++ os:getenv("PATH")}]),
    <<"by the first of the PATH\n">> = library(Config).

%% cargo is told not to link a C library into a library for musl, and RUSTFLAGS, which would hide that, get it too: for
%% musl alone, and behind what the user wants.
flags_for_musl_are_added_to_those_of_the_user(Config) ->
    Cargo = script(Config, "cargo", [
        "case $* in --version) echo 'cargo 999.0.0' ;; tree*) ;; *verbose) echo \"host: $HOST\" ;;\n"
        "*) echo \"$* flags: $RUSTFLAGS.\" >&2; exit 1; esac"]),
    Flags = fun(Environment) ->
        {_, Output} = build(Config, [{"CARGO", Cargo} | Environment]),
        mentions(Output, ["target.'cfg(target_env=\"musl\")'.rustflags=['-Ctarget-feature=-crt-static']"]),
        [_, Told] = string:split(string:trim(Output), "flags: "),
        Told
    end,
    Musl = {"HOST", "x86_64-alpine-linux-musl"},
    User = {"RUSTFLAGS", "-Cdebuginfo=0"},
    <<".">> = Flags([Musl, {"RUSTFLAGS", false}]),
    <<"-Cdebuginfo=0 -Ctarget-feature=-crt-static.">> = Flags([Musl, User]),
    <<"-Cdebuginfo=0.">> = Flags([Musl, User, {"CARGO_BUILD_TARGET", "aarch64-unknown-linux-gnu"}]),
    <<"-Cdebuginfo=0.">> = Flags([{"HOST", "aarch64-unknown-linux-gnu"}, User]),
    <<"-Cdebuginfo=0 -Ctarget-feature=-crt-static.">> =
        Flags([{"HOST", "aarch64-unknown-linux-gnu"}, User, {"CARGO_BUILD_TARGET", "aarch64-unknown-linux-musl"}]).

%% When cargo fails, so does the build, and the library of the last one stays.
a_failing_cargo_fails_the_build_and_keeps_the_library(Config) ->
    put_library(Config, <<"last one">>),
    {Status, Output} = build(Config, [{"CARGO", new_cargo(Config, "echo 'error: it does not compile' >&2; exit 101")}]),
    true = Status =/= 0,
    mentions(Output, ["it does not compile"]),
    <<"last one">> = library(Config).

%% When cargo fails and has not all crates in store, the build names the ways to do without; else the crates are not the reason.
without_crates_it_names_the_ways_to_do_without(Config) ->
    Failing = fun(Tree) ->
        Cargo = new_cargo(Config, "case $1 in tree) " ++ Tree ++ " ;; *) echo 'error: it failed' >&2; exit 101 ;; esac"),
        {101, Output} = build(Config, [{"CARGO", Cargo}]),
        mentions(Output, ["it failed"]),
        Output
    end,
    mentions(Failing("exit 101"), ["neither on this machine nor within reach", "IOMMAP_PREBUILT=", "archive"]),
    nomatch = string:find(Failing("exit 0"), "IOMMAP_PREBUILT").

%% A virtual machine that has the old file mapped goes on with it, handles and all, and can load the new one.
a_virtual_machine_goes_on_while_its_library_is_replaced(Config) ->
    Project = proplists:get_value(project, Config),
    Ebin = filename:join(Project, "ebin"),
    ok = filelib:ensure_dir(filename:join(Ebin, "any")),
    [{ok, _} = file:copy(Beam, filename:join(Ebin, filename:basename(Beam)))
     || Beam <- filelib:wildcard(filename:join([code:lib_dir(iommap), "ebin", "*"]))],
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", built_library()}]),
    Data = filename:join(Project, "data"),
    ok = file:write_file(Data, <<"before and after">>),
    Vm = test_vm:start(#{application => Project, modules => [?MODULE]}),
    ok = test_vm:call(Vm, ?MODULE, open_and_keep, [Data]),
    Project = test_vm:call(Vm, code, lib_dir, [iommap]),

    {ok, Same} = file:read_file(built_library()),
    Changed = filename:join(Project, "changed.so"),
    ok = file:write_file(Changed, [Same, <<"another build">>]),
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", Changed}]),

    {ok, <<"before">>} = test_vm:call(Vm, ?MODULE, read_kept, [0, 6]),
    {module, iommap} = test_vm:call(Vm, code, load_file, [iommap]),
    {ok, <<"after">>} = test_vm:call(Vm, ?MODULE, read_kept, [11, 5]),
    test_vm:stop(Vm).

open_and_keep(Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    persistent_term:put(?MODULE, Handle).

read_kept(Offset, Length) ->
    iommap:pread(persistent_term:get(?MODULE), Offset, Length).

%% `native/build.sh clean` removes the library and cargo's default target directory.
clean_removes_what_was_built(Config) ->
    Project = proplists:get_value(project, Config),
    put_library(Config, <<"built">>),
    ok = filelib:ensure_dir(filename:join([Project, "target", "release", "x"])),
    {0, _} = run(Project, "clean", []),
    false = filelib:is_file(library_path(Config)),
    false = filelib:is_file(filename:join(Project, "target")).

%% No crate of a lock file names a later Rust than Cargo.toml does, which would turn its users away.
every_locked_crate_builds_with_the_rust_that_is_asked_for(_Config) ->
    [begin
         Crates = locked_crates(filename:join(root(), Directory)),
         [] = [Crate || {_, _, Rust} = Crate <- Crates, version(Rust) > version(needed_rust())]
     end || Directory <- [".", "test/faults/stress"]].

%% Name, version and rust-version of each crate of a lock file that names one, as cargo tells of them. (Some versions leave out what a
%% cross build does not need.)
locked_crates(Directory) ->
    Metadata = test_system:run("env", ["-u", "CARGO_BUILD_TARGET", os:getenv("CARGO", "cargo"),
                                       "metadata", "--quiet", "--locked", "--format-version", "1",
                                       "--manifest-path", filename:join(Directory, "Cargo.toml")]),
    Each = re:split(Metadata, <<"(?=\\{\"name\":\"[^\"]+\",\"version\":)">>),
    {ok, Lock} = file:read_file(filename:join(Directory, "Cargo.lock")),
    Locked = length(binary:matches(Lock, <<"[[package]]">>)),
    Locked = length(Each) - 1,
    [list_to_tuple(Crate)
     || Text <- tl(Each),
        {match, Crate} <- [re:run(Text, "^.\"name\":\"([^\"]+)\",\"version\":\"([^\"]+)\".*\"rust_version\":\"([0-9.]+)\"",
                                  [dotall, {capture, all_but_first, list}])]].

version(Text) ->
    lists:sublist([list_to_integer(Number) || Number <- string:split(Text, ".", all)] ++ [0, 0], 3).

%%% Files

%% What cargo left, or would have left, in a directory of the project.
built_path(Config, Below) ->
    filename:join([proplists:get_value(project, Config), Below, "libiommap_nif.so"]).

built(Config, Below) ->
    {ok, Bytes} = file:read_file(built_path(Config, Below)),
    Bytes.

put_built(Config, Below, Bytes) ->
    ok = filelib:ensure_dir(built_path(Config, Below)),
    ok = file:write_file(built_path(Config, Below), Bytes).

needed_rust() ->
    {ok, Manifest} = file:read_file(filename:join(root(), "Cargo.toml")),
    {match, [Version]} = re:run(Manifest, "rust-version = \"([^\"]*)\"", [{capture, all_but_first, list}]),
    Version.

%% A cargo new enough, that does Action when it is told to build.
new_cargo(Config, Action) ->
    script(Config, "cargo", ["if [ \"$1\" = --version ]; then echo 'cargo 999.0.0'; exit; fi\n", Action]).

%% A cargo that puts Word where the true one puts the library, and tells of it as that does.
building_cargo(Config, Word) ->
    new_cargo(Config, [
        "built=${CARGO_TARGET_DIR:-$PWD/target}/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release\n"
        "mkdir -p \"$built\"\n"
        "echo '", Word, "' > \"$built/libiommap_nif.so\"\n"
        "artifact() { printf '{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"%s\"],\"name\":\"%s\"},"
        "\"profile\":{\"opt_level\":\"3\"},\"features\":[],\"filenames\":[%s],\"executable\":null,\"fresh\":false}\\n' \"$@\"; }\n"
        "artifact lib libc '\"/deps/liblibc.rlib\",\"/deps/liblibc.rmeta\"'\n"
        "artifact cdylib iommap_nif \"\\\"$built/libiommap_nif.so\\\"\"\n"
        "echo '{\"reason\":\"build-finished\",\"success\":true}'"]).

script(Config, Name, Body) ->
    Path = filename:join(proplists:get_value(project, Config), Name),
    ok = file:write_file(Path, ["#!/bin/sh\n", Body, "\n"]),
    ok = file:change_mode(Path, 8#755),
    Path.
