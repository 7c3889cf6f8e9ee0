%% The application as it is shipped: in an escript, in a release, and as the next version of a running one. Each in a VM of its own.
-module(iommap_packaging_SUITE).

-export([all/0, init_per_testcase/2]).
-export([an_escript_has_the_library_in_it/1]).
-export([an_escript_without_the_library_says_so/1]).
-export([an_escript_takes_the_library_of_erl_libs/1]).
-export([an_escript_that_cannot_copy_its_library_says_so/1]).
-export([an_application_without_its_library_says_so/1]).
-export([a_release_without_the_library_says_so/1]).
-export([a_library_that_is_none_is_named/1]).
-export([an_upgrade_keeps_handles_and_views/1]).
-export([the_upgrade_loads_every_module/1]).
-export([open_and_keep/1, read_kept/0]).

all() ->
    [an_escript_has_the_library_in_it,
     an_escript_without_the_library_says_so,
     an_escript_takes_the_library_of_erl_libs,
     an_escript_that_cannot_copy_its_library_says_so,
     an_application_without_its_library_says_so,
     a_release_without_the_library_says_so,
     a_library_that_is_none_is_named,
     an_upgrade_keeps_handles_and_views,
     the_upgrade_loads_every_module].

init_per_testcase(_Case, Config) ->
    Directory = filename:absname(test_files:case_directory(Config)),
    ok = file:write_file(filename:join(Directory, "data"), <<"mapped">>),
    [{directory, Directory} | Config].

%% An escript with the library in its archive maps files, and leaves no copy behind.
an_escript_has_the_library_in_it(Config) ->
    Escript = escript(Config, ["ebin/*.beam", "priv/*.so"]),
    Temporary = path(Config, "tmp"),
    ok = file:make_dir(Temporary),
    {0, <<"{ok,<<\"mapped\">>}\n">>} = run(["TMPDIR='", Temporary, "' escript '", Escript, "' '", path(Config, "data"), "'"]),
    {ok, []} = file:list_dir(Temporary).

%% An escript without it says what is missing, and how to put it there.
an_escript_without_the_library_says_so(Config) ->
    Escript = escript(Config, ["ebin/*.beam"]),
    {127, Said} = run(["escript '", Escript, "' '", path(Config, "data"), "'"]),
    mentions(Said, [Escript, "cannot be loaded", "not in the escript", "{escript_incl_priv, [{iommap, \"*.so\"}]}"]).

%% It takes the library of an application that ERL_LIBS has, if there is one.
an_escript_takes_the_library_of_erl_libs(Config) ->
    Escript = escript(Config, ["ebin/*.beam"]),
    _ = application(Config, version()),
    {0, <<"{ok,<<\"mapped\">>}\n">>} =
        run(["ERL_LIBS='", path(Config, version()), "' escript '", Escript, "' '", path(Config, "data"), "'"]).

%% An escript that has no place for a copy names the place.
an_escript_that_cannot_copy_its_library_says_so(Config) ->
    Escript = escript(Config, ["ebin/*.beam", "priv/*.so"]),
    {127, Said} = run(["TMPDIR=/no/such escript '", Escript, "' '", path(Config, "data"), "'"]),
    mentions(Said, ["cannot be loaded", "/no/such/iommap-", "no such file or directory"]).

%% Where the library is missing, the first call says so, once.
an_application_without_its_library_says_so(Config) ->
    Application = application(Config, version()),
    ok = file:del_dir_r(filename:join(Application, "priv")),
    {0, Said} = run(["erl -noshell -pa '", Application, "/ebin' -eval '{error, _} = code:load_file(iommap), halt().'"]),
    mentions(Said, [[Application, "/priv/iommap_nif.so cannot be loaded: it is missing"]]).

%% A release whose library was left behind does not boot, and says that this is why.
a_release_without_the_library_says_so(Config) ->
    Application = application(Config, version()),
    Boot = boot_script(Config, Application),
    Start = ["erl -noshell -mode embedded -boot '", Boot, "' -pa '", Application, "/ebin' -eval 'io:put_chars(\"up\"), halt().'"],
    {0, <<"up">>} = run(Start),
    ok = file:del_dir_r(filename:join(Application, "priv")),
    {Status, Said} = run(["ERL_CRASH_DUMP=/dev/null ", Start]),
    true = Status =/= 0,
    mentions(Said, ["iommap_nif.so cannot be loaded: it is missing"]).

%% What the system's loader says of a file that is no library is told.
a_library_that_is_none_is_named(Config) ->
    Application = application(Config, version()),
    Library = filename:join([Application, "priv", "iommap_nif.so"]),
    ok = file:delete(Library),
    ok = file:write_file(Library, "no library"),
    {0, Said} = run(["erl -noshell -pa '", Application, "/ebin' -eval '{error, _} = code:load_file(iommap), halt().'"]),
    mentions(Said, [[Library, " cannot be loaded: load_failed, "]]).

%% The .appup brings a running application to another version, as a release upgrade does: handles and views go on working.
an_upgrade_keeps_handles_and_views(Config) ->
    Old = application(Config, version()),
    New = application(Config, version() ++ ".1"),
    Vm = test_vm:start(#{application => Old, modules => [?MODULE]}),
    {ok, _} = test_vm:call(Vm, application, ensure_all_started, [sasl]),
    ok = test_vm:call(Vm, application, start, [iommap]),
    ok = test_vm:call(Vm, ?MODULE, open_and_keep, [path(Config, "data")]),
    {ok, _} = test_vm:call(Vm, release_handler, upgrade_app, [iommap, New]),
    New = test_vm:call(Vm, code, lib_dir, [iommap]),
    true = lists:prefix(New, test_vm:call(Vm, code, which, [iommap])),
    {ok, <<"mapped">>, <<"mapped">>, true} = test_vm:call(Vm, ?MODULE, read_kept, []),
    {ok, _} = test_vm:call(Vm, release_handler, downgrade_app, [iommap, version(), Old]),
    {ok, <<"mapped">>, <<"mapped">>, true} = test_vm:call(Vm, ?MODULE, read_kept, []),
    test_vm:stop(Vm).

open_and_keep(Path) ->
    {ok, Handle} = iommap:open(Path, read, []),
    {ok, View} = iommap:region_binary(Handle, 0, 6),
    persistent_term:put(?MODULE, {Handle, View}).

read_kept() ->
    {Handle, View} = persistent_term:get(?MODULE),
    {ok, Copy} = iommap:pread(Handle, 0, 6),
    {ok, Copy, View, iommap:intact(View)}.

%% Both ways the .appup loads every module of the application, and it is the one of this version.
the_upgrade_loads_every_module(_Config) ->
    Ebin = filename:dirname(code:which(iommap)),
    {ok, [{application, iommap, Properties}]} = file:consult(filename:join(Ebin, "iommap.app")),
    {ok, [{Version, [{_, Up}], [{_, Down}]}]} = file:consult(filename:join(Ebin, "iommap.appup")),
    Version = proplists:get_value(vsn, Properties),
    Modules = lists:sort(proplists:get_value(modules, Properties)),
    [Modules = lists:sort([element(2, Instruction) || Instruction <- Instructions]) || Instructions <- [Up, Down]].

%%% What is shipped

%% A copy of the application, of that version.
application(Config, Version) ->
    Application = filename:join([path(Config, Version), "iommap-" ++ Version]),
    [copy(File, filename:join(Application, File), Version) || File <- files(["ebin/*", "priv/*.so"])],
    Application.

copy(File, To, Version) ->
    ok = filelib:ensure_dir(To),
    {ok, Bytes} = file:read_file(filename:join(library(), File)),
    Copied = case lists:member(filename:extension(File), [".app", ".appup"]) of
        true -> binary:replace(Bytes, iolist_to_binary([$", version(), $"]), iolist_to_binary([$", Version, $"]));
        false -> Bytes
    end,
    ok = file:write_file(To, Copied).

%% An escript, as rebar3 builds it, that prints what it reads from its argument.
escript(Config, Patterns) ->
    Source = "-module(reader). -export([main/1]).\n"
             "main([Path]) -> {ok, Handle} = iommap:open(Path, read, []), io:format(\"~p~n\", [iommap:pread(Handle, 0, 6)]).",
    ok = file:write_file(path(Config, "reader.erl"), Source),
    {ok, reader, Reader} = compile:file(path(Config, "reader.erl"), [binary]),
    Archive = [{"reader/ebin/reader.beam", Reader} |
               [{filename:join("iommap", File), element(2, {ok, _} = file:read_file(filename:join(library(), File)))}
                || File <- files(Patterns)]],
    Escript = path(Config, "reader"),
    ok = escript:create(Escript, [shebang, {emu_args, "-escript main reader"}, {archive, Archive, []}]),
    Escript.

%% A boot script of kernel, stdlib and the application.
boot_script(Config, Application) ->
    Versions = [begin _ = application:load(Name), {ok, Version} = application:get_key(Name, vsn), {Name, Version} end
                || Name <- [kernel, stdlib, iommap]],
    Release = {release, {"shipped", "1"}, {erts, erlang:system_info(version)}, Versions},
    ok = file:write_file(path(Config, "shipped.rel"), io_lib:format("~p.~n", [Release])),
    ok = systools:make_script(path(Config, "shipped"),
                              [{path, [filename:join(Application, "ebin")]}, {outdir, path(Config, "")}, local, no_warn_sasl]),
    path(Config, "shipped").

version() ->
    _ = application:load(iommap),
    {ok, Version} = application:get_key(iommap, vsn),
    Version.

library() ->
    filename:dirname(filename:dirname(code:which(iommap))).

files(Patterns) ->
    [File || Pattern <- Patterns, File <- filelib:wildcard(Pattern, library())].

path(Config, Name) ->
    filename:join(proplists:get_value(directory, Config), Name).

%% Its exit status, and what it printed. What this VM's libraries are is not for it to know.
run(Command) ->
    Result = test_system:shell(["unset ERL_LIBS; ", Command]),
    ct:log("~p", [Result]),
    Result.

mentions(Output, Words) ->
    [] = [Word || Word <- Words, string:find(Output, Word) =:= nomatch].
