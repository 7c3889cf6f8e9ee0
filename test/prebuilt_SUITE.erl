%% What IOMMAP_PREBUILT promises to those who build without Rust: the right library is taken, and any other refused in a sentence.
-module(prebuilt_SUITE).

-export([all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([a_file_of_ones_own_is_taken_without_cargo/1]).
-export([a_source_that_does_not_exist_is_an_error/1]).
-export([a_directory_gives_the_library_for_this_vm/1]).
-export([a_url_gives_the_library_for_this_vm/1]).
-export([every_client_fetches/1]).
-export([what_is_in_place_is_not_fetched_again/1]).
-export([what_the_server_lacks_is_an_error/1]).
-export([a_url_of_another_file_is_refused/1]).
-export([a_wrong_sum_is_refused/1]).
-export([a_library_for_another_vm_is_refused/1]).
-export([a_library_of_another_version_is_refused/1]).
-export([a_broken_library_is_refused/1]).
-export([a_library_of_another_module_is_refused/1]).
-export([a_target_without_a_library_is_an_error/1]).

-import(test_build, [build/2, mentions/2, built_library/0, library/1, put_library/2]).

all() ->
    [a_file_of_ones_own_is_taken_without_cargo,
     a_source_that_does_not_exist_is_an_error,
     a_directory_gives_the_library_for_this_vm,
     a_url_gives_the_library_for_this_vm,
     every_client_fetches,
     what_is_in_place_is_not_fetched_again,
     what_the_server_lacks_is_an_error,
     a_url_of_another_file_is_refused,
     a_wrong_sum_is_refused,
     a_library_for_another_vm_is_refused,
     a_library_of_another_version_is_refused,
     a_broken_library_is_refused,
     a_library_of_another_module_is_refused,
     a_target_without_a_library_is_an_error].

init_per_suite(Config) ->
    _ = application:load(iommap),
    {ok, _} = application:ensure_all_started(inets),
    Config.

end_per_suite(_Config) ->
    ok.

%% Each case has released libraries, as `make prebuilt` leaves them, and a server on localhost that has them.
init_per_testcase(Case, Config) ->
    WithProject = test_build:with_project(Case, Config),
    Project = proplists:get_value(project, WithProject),
    Released = filename:join(filename:dirname(Project), "released"),
    {ok, Library} = file:read_file(built_library()),
    Names = [released("2.16", this_target()), released("2.16", "sparc64-unknown-linux-gnu"),
             released("2.15", this_target()), released("2.99", this_target()), released("3.0", this_target())],
    %% All but the right one would be found out: they are no libraries.
    Files = lists:zip(Names, [Library | lists:duplicate(4, <<"of another VM">>)]),
    ok = filelib:ensure_dir(filename:join(Released, "any")),
    [ok = file:write_file(filename:join(Released, Name), Bytes) || {Name, Bytes} <- Files],
    ok = file:write_file(filename:join(Project, "native/prebuilt.sha256"), [sum_line(File) || File <- Files]),
    {ok, Server} = inets:start(httpd, [{port, 0}, {bind_address, {127, 0, 0, 1}}, {server_name, "localhost"},
                                       {server_root, Released}, {document_root, Released}]),
    [{port, Port}] = httpd:info(Server, [port]),
    URL = "http://127.0.0.1:" ++ integer_to_list(Port),
    [{released, Released}, {server, Server}, {url, URL} | WithProject].

end_per_testcase(_Case, Config) ->
    inets:stop(httpd, proplists:get_value(server, Config)).

%% A library that is no released one, of a local file or file URL, needs neither cargo nor a C compiler, and no sum.
a_file_of_ones_own_is_taken_without_cargo(Config) ->
    [begin
         {0, _} = build(Config, [{"CARGO", "no-such-cargo"}, {"CC", "no-such-cc"}, {"IOMMAP_PREBUILT", Source}]),
         is_ours(Config)
     end || Source <- [built_library(), "file://" ++ built_library()]].

%% A wrong IOMMAP_PREBUILT is an error, not a reason to build something else.
a_source_that_does_not_exist_is_an_error(Config) ->
    [refused(Config, Source, [Source]) || Source <- ["/no/such/library.so", "file:///no/such", "ftp://localhost/library.so"]].

%% Among many libraries, the one of this version and target, and of the latest NIF version that this VM has, is taken.
a_directory_gives_the_library_for_this_vm(Config) ->
    Released = proplists:get_value(released, Config),
    [begin
         ok = put_library(Config, <<"another">>),
         {0, _} = build(Config, [{"IOMMAP_PREBUILT", Source}]),
         is_ours(Config)
     end || Source <- [Released, "file://" ++ Released, filename:join(Released, released("2.16", this_target()))]],
    ok = file:delete(filename:join(Released, released("2.16", this_target()))),
    refused(Config, Released, ["has no", released("2.16", this_target())]).

%% The same from a server, by the URL of the directory or of the file.
a_url_gives_the_library_for_this_vm(Config) ->
    URL = proplists:get_value(url, Config),
    [begin
         ok = put_library(Config, <<"another">>),
         {0, _} = build(Config, [{"IOMMAP_PREBUILT", Source}]),
         is_ours(Config)
     end || Source <- [URL, URL ++ "/", URL ++ "/" ++ released("2.16", this_target())]].

%% curl, wget or the VM itself fetches, whichever the machine has.
every_client_fetches(Config) ->
    [begin
         ok = put_library(Config, <<"another">>),
         {0, _} = build(Config, [{"PATH", path(Config, Clients)}, {"IOMMAP_PREBUILT", proplists:get_value(url, Config)}]),
         is_ours(Config),
         ok = put_library(Config, <<"another">>),
         {1, Output} = build(Config, [{"PATH", path(Config, Clients)}, {"IOMMAP_PREBUILT", "http://127.0.0.1:1"}]),
         mentions(Output, ["cannot fetch http://127.0.0.1:1/" ++ released("2.16", this_target())]),
         {match, _} = re:run(Output, "\\.so: .*(connect|refused)", [caseless]) % the client's reason
     end || Clients <- [["curl"], ["wget"], []], lists:all(fun(Client) -> os:find_executable(Client) =/= false end, Clients)].

%% What is compiled again needs no server.
what_is_in_place_is_not_fetched_again(Config) ->
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", proplists:get_value(url, Config)}]),
    {0, _} = build(Config, [{"IOMMAP_PREBUILT", "http://127.0.0.1:1"}]),
    is_ours(Config).

%% A page of the server that tells of an error is not taken for a library.
what_the_server_lacks_is_an_error(Config) ->
    ok = file:delete(filename:join(proplists:get_value(released, Config), released("2.16", this_target()))),
    refused(Config, proplists:get_value(url, Config), ["cannot fetch", "404"]).

%% What comes over the network needs a sum, and so the name of a released library.
a_url_of_another_file_is_refused(Config) ->
    {ok, _} = file:copy(built_library(), filename:join(proplists:get_value(released, Config), "own.so")),
    refused(Config, proplists:get_value(url, Config) ++ "/own.so", ["own.so", "no known sum"]).

%% A released library that is not what it was, is refused with both sums, wherever it comes from.
a_wrong_sum_is_refused(Config) ->
    Released = proplists:get_value(released, Config),
    Path = filename:join(Released, released("2.16", this_target())),
    {ok, Library} = file:read_file(Path),
    ok = file:write_file(Path, [Library, "changed"]),
    [refused(Config, Source, ["SHA-256", sum(Library), sum([Library, "changed"])])
     || Source <- [Released, Path, proplists:get_value(url, Config)]].

%% The name or the first bytes of a library tell that it is for another processor; the name, that it is for a later VM.
a_library_for_another_vm_is_refused(Config) ->
    Released = proplists:get_value(released, Config),
    [refused(Config, filename:join(Where, Name), [Name, "not for this VM", this_target(), erlang:system_info(nif_version)])
     || Name <- [released("2.16", "sparc64-unknown-linux-gnu"), released("2.99", this_target())],
        Where <- [Released, proplists:get_value(url, Config)]],
    {ok, <<Before:18/binary, _:16, After/binary>>} = file:read_file(built_library()),
    Foreign = filename:join(Released, "foreign.so"),
    ok = file:write_file(Foreign, <<Before/binary, 22:16/little, After/binary>>),
    refused(Config, Foreign, ["foreign.so is for s390x", this_target()]).

%% A library of another version is none of those whose sums are known.
a_library_of_another_version_is_refused(Config) ->
    Path = filename:join(proplists:get_value(released, Config), "iommap_nif-1.9.9-nif-2.16-" ++ this_target() ++ ".so"),
    {ok, _} = file:copy(built_library(), Path),
    refused(Config, Path, ["none of the released libraries", "If you built it, give it a name"]).

%% What is no library, what was cut short, and what ends a VM that loads it, is refused in one sentence.
a_broken_library_is_refused(Config) ->
    Path = filename:join(proplists:get_value(released, Config), "broken.so"),
    {ok, Library} = file:read_file(built_library()),
    [begin
         ok = file:write_file(Path, Bytes),
         refused(Config, Path, ["broken.so"])
     end || Bytes <- [<<>>, <<"ready">>, binary:part(Library, 0, 64), binary:part(Library, 0, byte_size(Library) - 1)]],
    %% Its header names no sections any more, and a VM that loads it meets SIGBUS.
    <<Before:40/binary, _:64, After/binary>> = Library,
    ok = file:write_file(Path, binary:part(<<Before/binary, 0:64, After/binary>>, 0, 65536)),
    refused(Config, Path, ["broken.so is broken"]).

%% A library that this VM can load, but that is not iommap's, is refused.
a_library_of_another_module_is_refused(Config) ->
    Other = filename:join([code:priv_dir(crypto), "lib", "crypto.so"]),
    refused(Config, Other, ["cannot load", "crypto"]).

%% Where no library was released for this target, the failure says so. CARGO_BUILD_TARGET is the target, if it is set.
a_target_without_a_library_is_an_error(Config) ->
    {1, Output} = build(Config, [{"IOMMAP_PREBUILT", proplists:get_value(released, Config)},
                                 {"CARGO_BUILD_TARGET", "riscv64gc-unknown-linux-gnu"}]),
    mentions(Output, ["no released library", "riscv64gc-unknown-linux-gnu"]).

%% A refusal is a line, and leaves the library alone that is already there.
refused(Config, Source, Words) ->
    ok = put_library(Config, <<"already here">>),
    {1, Output} = build(Config, [{"IOMMAP_PREBUILT", Source}]),
    mentions(Output, ["iommap: " | Words]),
    [_] = string:split(string:trim(Output), "\n"),
    true = library(Config) =:= <<"already here">>.

%% By sum: Common Test prints what does not match, and what a case returns, and these are libraries.
is_ours(Config) ->
    {ok, Ours} = file:read_file(built_library()),
    Sum = sum(Ours),
    Sum = sum(library(Config)),
    ok.

released(NIF, Target) ->
    {ok, Version} = application:get_key(iommap, vsn),
    lists:concat(["iommap_nif-", Version, "-nif-", NIF, "-", Target, ".so"]).

%% The tests run on Linux.
this_target() ->
    System = string:split(erlang:system_info(system_architecture), "-", all),
    lists:concat([hd(System), "-unknown-linux-", lists:last(System)]).

sum_line({Name, Bytes}) ->
    [sum(Bytes), "  ", Name, "\n"].

sum(Bytes) ->
    string:lowercase(binary_to_list(binary:encode_hex(crypto:hash(sha256, Bytes)))).

%% A PATH with the tools of the build, this VM, and of the clients only the named ones.
path(Config, Clients) ->
    Tools = filename:join(proplists:get_value(project, Config), "tools" ++ Clients),
    ok = filelib:ensure_dir(filename:join(Tools, "any")),
    [file:make_symlink(os:find_executable(Tool), filename:join(Tools, Tool))
     || Tool <- ["sh", "sed", "dirname", "basename", "mkdir", "rm", "cp", "mv", "cmp" | Clients]],
    filename:join(code:root_dir(), "bin") ++ ":" ++ Tools.
