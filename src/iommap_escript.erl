%% @hidden
%% The native library in an escript, which has its applications in an archive: the system's loader reads files only, so the library is
%% copied out for as long as it takes to load it. An escript that has none takes that of a compiled application.
-module(iommap_escript).

-export([with_library/2]).

%% Calls the function with the path of the library, without its extension. Priv is the directory in the escript.
-spec with_library(Priv :: file:filename(), fun((file:filename()) -> Result)) -> Result | {error, {load_failed, string()}}.
with_library(Priv, Load) ->
    Escript = filename:dirname(filename:dirname(Priv)),
    try library(Escript) of
        Bytes -> with_copy(Bytes, Load)
    catch
        error:_ -> with_library_of_an_application(Load)
    end.

%% The archive comes first in the code path, but the library may be in an application behind it: in a directory of ERL_LIBS.
with_library_of_an_application(Load) ->
    Libraries = [filename:join([filename:dirname(Ebin), "priv", "iommap_nif"]) || Ebin <- code:get_path()],
    case [Library || Library <- Libraries, filelib:is_regular(Library ++ ".so")] of
        [Library | _] ->
            Load(Library);
        [] ->
            {error, {load_failed, "it is not in the escript. With rebar3, put {escript_incl_priv, [{iommap, \"*.so\"}]} into rebar.config; "
                                  "otherwise run the escript with ERL_LIBS naming a directory that has the compiled iommap in it"}}
    end.

library(Escript) ->
    {ok, Sections} = escript:extract(Escript, []),
    {ok, [{_, Bytes}]} = zip:extract(proplists:get_value(archive, Sections),
                                     [memory, {file_list, ["iommap/priv/iommap_nif.so"]}]),
    Bytes.

%% Nobody else may write into the directory, nor have written into it: what is loaded is this copy.
with_copy(Bytes, Load) ->
    Name = lists:concat(["iommap-", os:getpid(), "-", erlang:unique_integer([positive]), "-", rand:uniform(1 bsl 59)]),
    Directory = filename:join(os:getenv("TMPDIR", "/tmp"), Name),
    Copy = filename:join(Directory, "iommap_nif.so"),
    try
        ok = file:make_dir(Directory),
        ok = file:change_mode(Directory, 8#700),
        ok = file:write_file(Copy, Bytes, [exclusive]),
        Load(filename:rootname(Copy))
    catch
        error:{badmatch, {error, Reason}} ->
            {error, {load_failed, lists:concat(["it cannot be copied out of the escript to ", Directory, ": ",
                                                file:format_error(Reason)])}}
    after
        _ = file:delete(Copy),
        _ = file:del_dir(Directory)
    end.
