%% The library in the archive of an escript; `test/iommap_packaging_SUITE.erl' runs such escripts.
-module(iommap_escript_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [with_directory/1]).

the_library_is_copied_out_for_as_long_as_it_takes_to_load_it_test() ->
    %% The function gets the path of a copy that nobody else may write to; it is gone afterwards, also if the function fails.
    with_escript([{"iommap/priv/iommap_nif.so", <<"library">>}], fun(Priv) ->
        Load = fun(Name) ->
            Copy = Name ++ ".so",
            ?assertEqual({ok, <<"library">>}, file:read_file(Copy)),
            {ok, #file_info{mode = Mode}} = file:read_file_info(filename:dirname(Copy)),
            ?assertEqual(8#700, Mode band 8#777),
            Copy
        end,
        Copy = iommap_escript:with_library(Priv, Load),
        ?assertNot(filelib:is_file(filename:dirname(Copy))),
        Self = self(),
        ?assertError(broken, iommap_escript:with_library(Priv, fun(Name) -> Self ! {copy, Name}, error(broken) end)),
        receive {copy, Name} -> ?assertNot(filelib:is_file(filename:dirname(Name))) end
    end).

an_escript_without_the_library_takes_that_of_an_application_test() ->
    %% One that is in the code path, as this VM's own is.
    with_escript([{"iommap/ebin/iommap.beam", <<"beam">>}], fun(Priv) ->
        ?assertEqual(filename:join(code:priv_dir(iommap), "iommap_nif"), iommap_escript:with_library(Priv, fun(Name) -> Name end))
    end).

a_copy_that_cannot_be_made_names_its_place_test() ->
    with_escript([{"iommap/priv/iommap_nif.so", <<"library">>}], fun(Priv) ->
        Before = os:getenv("TMPDIR"),
        true = os:putenv("TMPDIR", filename:dirname(filename:dirname(Priv))), % a file
        try iommap_escript:with_library(Priv, fun(_) -> loaded end) of
            {error, {load_failed, Text}} -> ?assertMatch({match, _}, re:run(Text, "copied out.*/script/iommap-.*not a directory"))
        after
            case Before of
                false -> os:unsetenv("TMPDIR");
                _ -> os:putenv("TMPDIR", Before)
            end
        end
    end).

%% The function gets what the code server takes for the library's directory.
with_escript(Files, Test) ->
    with_directory(fun(Directory) ->
        Script = filename:join(Directory, "script"),
        {ok, Bytes} = escript:create(binary, [shebang, {archive, Files, []}]),
        ok = file:write_file(Script, Bytes),
        Test(filename:join([Script, "iommap", "priv"]))
    end).
