%% Generations of the library in a VM that never stops: every case has a VM and a copy of the application of its own, in
%% which one library file takes the place of another.
-module(test_generations).

-export([build/1]).
-export([start_vm/2]).
-export([stop_vm/1]).
-export([in_vm/2]).
-export([over_generations/3]).
-export([reload/0]).
-export([put_in_place/2]).
-export([open/3]).
-export([everything_works/2]).

%% Builds the library as it is, with another layout, and as one that the others do not understand.
-spec build(Config) -> Config when Config :: [tuple()].
build(Config) ->
    [ok = test_tools:build(Target) || Target <- ["all", "alternate_layout", "unknown_abi"]],
    Config.

%% Makes the case's directory, with a copy of the application, and starts its VM.
-spec start_vm(Config, test_vm:vm_options()) -> Config when Config :: [tuple()].
start_vm(Config, Options) ->
    Directory = test_files:case_directory(Config),
    Application = filename:join(Directory, "iommap"),
    {0, _} = test_system:shell(["cp -r ", test_tools:built("iommap"), " ", Application]),
    [{vm, test_vm:start(Options#{application => Application})}, {directory, Directory} | Config].

-spec stop_vm(Config :: [tuple()]) -> ok.
stop_vm(Config) ->
    test_vm:stop(proplists:get_value(vm, Config)).

%% Evaluates the function, with the directory of the case, in its VM.
-spec in_vm(Config :: [tuple()], fun((file:filename()) -> Result)) -> Result.
in_vm(Config, Function) ->
    test_vm:run_with(proplists:get_value(vm, Config), Function, [proplists:get_value(directory, Config)]).

%% What the function makes in each of so many generations, in turns of two layouts.
-spec over_generations(file:filename(), pos_integer(), fun((pos_integer()) -> Made)) -> [Made].
over_generations(Directory, Count, Make) ->
    [begin
        Made = Make(Generation),
        put_in_place(Directory, lists:nth(1 + Generation rem 2, [same, alternate_layout])),
        ok = reload(),
        Made
    end || Generation <- lists:seq(1, Count)].

%% The code of the generation before may still be running a call: it is not ours to kill.
-spec reload() -> ok.
reload() ->
    ok = test_processes:eventually(fun() -> code:soft_purge(iommap) end),
    {module, iommap} = code:load_file(iommap),
    ok.

%% Another library file with a rename, as a package manager does.
-spec put_in_place(file:filename(), same | alternate_layout | unknown_abi) -> ok.
put_in_place(Directory, Library) ->
    Source = case Library of
        same -> test_tools:built("iommap/priv/iommap_nif.so");
        _ -> test_tools:built(filename:join(Library, "iommap_nif.so"))
    end,
    Target = filename:join([Directory, "iommap", "priv", "iommap_nif.so"]),
    {ok, _} = file:copy(Source, Target ++ ".new"),
    ok = file:rename(Target ++ ".new", Target).

%% Makes a file of the pattern, and maps it.
-spec open(file:filename(), Name :: term(), pos_integer()) -> {file:filename(), iommap:handle()}.
open(Directory, Name, Size) ->
    Path = filename:join(Directory, lists:flatten(io_lib:format("file-~p", [Name]))),
    ok = file:write_file(Path, test_pattern:bytes(Size)),
    {ok, Handle} = iommap:open(Path, read_write, []),
    {Path, Handle}.

%% Makes every call with the handle, the last of which closes it.
-spec everything_works(file:filename(), iommap:handle()) -> term().
everything_works(Path, Handle) ->
    {ok, Size} = iommap:position(Handle),
    Whole = test_pattern:bytes(Size),
    {ok, Whole} = iommap:pread(Handle, 0, Size),
    ok = iommap:pwrite(Handle, 10, <<"written">>),
    ok = iommap:pwrite(Handle, [{20, "also "}, {25, <<"this">>}]),
    {error, {0, out_of_bounds}} = iommap:pwrite(Handle, [{20, "not "}, {Size, "this"}]),
    {ok, [<<"written">>, <<"also this">>]} = iommap:pread(Handle, [{10, 7}, {20, 9}]),
    {ok, View} = iommap:region_binary(Handle, 10, 7),
    <<"written">> = View,
    true = iommap:intact(View),
    {ok, <<"written">>} = iommap:with_view(Handle, 10, 7, fun binary:copy/1),
    ok = iommap:sync(Handle),
    ok = iommap:sync(Handle, 0, Size, async),
    ok = iommap:advise(Handle, 0, 0, random),
    ok = iommap:advise(Handle, 0, 1, dontdump),
    {ok, Size} = iommap:resident(Handle, 0, Size),
    ok = iommap:lock(Handle, 0, 1),
    ok = iommap:truncate(Handle, Size + 5000),
    {ok, <<0:5000/unit:8>>} = iommap:pread(Handle, Size, 5000),
    ok = file:write_file(Path, <<"more">>, [append]),
    {ok, More} = iommap:remap(Handle),
    More = Size + 5004,
    {ok, <<"more">>} = iommap:pread(Handle, Size + 5000, 4),
    {ok, #{size := More, faulted := false, mode := read_write}} = iommap:info(Handle),
    ok = iommap:unlock(Handle, 0, More),
    ok = iommap:close(Handle),
    {error, closed} = iommap:close(Handle),
    <<"written">> = View.
