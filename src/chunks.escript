#!/usr/bin/env escript
%% Makes the documentation that a shell shows (h(iommap), IEx's h): chunks as of EEP 48, made by EDoc of the comments in src/,
%% in doc/chunks/ beside the ebin/ that rebar3 has compiled to. rebar3's compile hook calls it, in the directory of the sources.
%%
%% An Erlang without EDoc compiles the library all the same, and its shell has no documentation.
-mode(compile).

main(_) ->
    Sources = filelib:wildcard("src/*.erl"),
    case [Directory || Directory <- compiled_to(), is_stale(Directory, Sources)] of
        [] -> ok;
        Stale -> make(Sources, Stale)
    end.

%% rebar3 tells its hooks of these. A dependency's are compiled where they are, and mix names a directory.
compiled_to() ->
    Build = os:getenv("REBAR_BUILD_DIR", "_build/default"),
    Known = [os:getenv("REBAR_BARE_COMPILER_OUTPUT_DIR", "."), ".",
             filename:join([Build, "lib", "iommap"]), filename:join([Build, "checkouts", "iommap"])],
    [Directory || Directory <- Known, filelib:is_regular(filename:join([Directory, "ebin", "iommap.beam"]))].

is_stale(Directory, Sources) ->
    lists:any(fun(Source) ->
        Chunk = filename:join([Directory, "doc", "chunks", filename:basename(Source, ".erl") ++ ".chunk"]),
        filelib:last_modified(Chunk) =< filelib:last_modified(Source)
    end, Sources).

make(Sources, Directories) ->
    try
        [edoc:files(Sources, [{doclet, edoc_doclet_chunks}, {layout, edoc_layout_chunks}, {preprocess, true},
                              {dir, filename:join(Directory, "doc")}])
         || Directory <- Directories]
    catch
        error:undef -> say("this Erlang has no EDoc (Debian: erlang-edoc)");
        _:Reason -> say(io_lib:format("EDoc failed: ~tp", [Reason]))
    end.

say(Why) ->
    io:format(standard_error, "iommap: no documentation for the shell: ~ts~n", [Why]).
