%% Real files for the tests, in a directory that is gone when the test is over.
-module(iommap_scratch).

-export([with_directory/1]).
-export([with_file/2]).
-export([with_mapping/2]).
-export([with_mapping/4]).
-export([bytes/1]).
-export([zeros/1]).
-export([page/0]).

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

%% Size bytes, none of them zero, that tell where in the file they stand.
-spec bytes(non_neg_integer()) -> binary().
bytes(Size) ->
    Digit = fun(N) -> 1 + N rem 255 end,
    Words = << <<(Digit(N div 65025)), (Digit(N div 255)), (Digit(N)), "|">>
               || N <- lists:seq(0, Size div 4) >>,
    binary:part(Words, 0, Size).

-spec zeros(non_neg_integer()) -> binary().
zeros(Size) ->
    <<0:Size/unit:8>>.

-spec page() -> pos_integer().
page() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined ->
            Page = list_to_integer(string:trim(os:cmd("getconf PAGESIZE"))),
            persistent_term:put(?MODULE, Page),
            Page;
        Page ->
            Page
    end.
