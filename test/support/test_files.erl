%% Real files for the tests, in a directory that is gone when the test is over, or that Common Test keeps for the case.
-module(test_files).

-export([with_directory/1]).
-export([with_file/2]).
-export([with_mapping/2]).
-export([with_mapping/4]).
-export([case_directory/1]).
-export([file/2]).
-export([mapping/2]).
-export([mapping/4]).
-export([drop_cache/1]).

-spec with_directory(fun((file:filename()) -> Result)) -> Result.
with_directory(Test) ->
    Name = io_lib:format("iommap-~s-~b", [os:getpid(), erlang:unique_integer([positive])]),
    Directory = filename:join(os:getenv("TMPDIR", "/tmp"), Name),
    ok = file:make_dir(Directory),
    try Test(Directory) after ok = file:del_dir_r(Directory) end.

-spec with_file(binary(), fun((file:filename()) -> Result)) -> Result.
with_file(Contents, Test) ->
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "file"),
        ok = file:write_file(Path, Contents),
        Test(Path)
    end).

-spec with_mapping(binary(), fun((iommap:handle(), file:filename()) -> Result)) -> Result.
with_mapping(Contents, Test) ->
    with_mapping(Contents, read_write, [], Test).

-spec with_mapping(binary(), iommap:mode(), [iommap:open_option()],
    fun((iommap:handle(), file:filename()) -> Result)) -> Result.
with_mapping(Contents, Mode, Options, Test) ->
    with_file(Contents, fun(Path) ->
        {ok, Handle} = iommap:open(Path, Mode, Options),
        try Test(Handle, Path) after iommap:close(Handle) end
    end).

%% Makes a directory of its own for a case of Common Test.
-spec case_directory(Config :: [tuple()]) -> file:filename().
case_directory(Config) ->
    Name = integer_to_list(erlang:unique_integer([positive])),
    Directory = filename:join(proplists:get_value(priv_dir, Config), Name),
    ok = file:make_dir(Directory),
    Directory.

%% Makes a new file in the directory.
-spec file(Directory :: file:filename(), binary()) -> file:filename().
file(Directory, Contents) ->
    Path = filename:join(Directory, "file" ++ integer_to_list(erlang:unique_integer([positive]))),
    ok = file:write_file(Path, Contents),
    Path.

%% Makes a new file in the case's `directory`, and maps it.
-spec mapping(Config :: [tuple()], binary()) -> {file:filename(), iommap:handle()}.
mapping(Config, Contents) ->
    mapping(Config, Contents, read_write, []).

-spec mapping(Config :: [tuple()], binary(), iommap:mode(), [iommap:open_option()]) -> {file:filename(), iommap:handle()}.
mapping(Config, Contents, Mode, Options) ->
    Path = file(proplists:get_value(directory, Config), Contents),
    {ok, Handle} = iommap:open(Path, Mode, Options),
    {Path, Handle}.

%% Drops the file's clean pages from memory (POSIX_FADV_DONTNEED).
-spec drop_cache(file:filename()) -> ok.
drop_cache(Path) ->
    {ok, File} = file:open(Path, [read, raw]),
    ok = file:advise(File, 0, 0, dont_need),
    file:close(File).
