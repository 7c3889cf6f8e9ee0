%% The examples of README.md, of the guides and of the EDoc pages, each run as it stands, in an empty directory.
-module(iommap_docs_tests).

-include_lib("eunit/include/eunit.hrl").

-import(test_system, [root/0]).

erlang_examples_run_test_() ->
    %% Every Erlang example is evaluated to its end: all of its matches hold.
    [{Title, fun() -> in_a_directory(fun(_) -> evaluate(Text) end) end}
        || {Title, Text} <- examples("erlang") ++ edoc_examples()].

elixir_examples_run_test_() ->
    %% Every Elixir example is evaluated to its end: all of its matches hold.
    case os:find_executable("elixir") of
        false ->
            {"skipped: elixir is not installed", fun() -> ?debugMsg("skipped: elixir is not installed") end};
        _ ->
            [{Title, {timeout, 300, fun() -> in_a_directory(fun(Directory) -> evaluate_elixir(Directory, Text) end) end}}
                || {Title, Text} <- examples("elixir")]
    end.

links_lead_somewhere_test_() ->
    %% Every link to a file of the project leads to a file, and one to a heading leads to a heading.
    [{lists:concat([Document, " to ", Link]), fun() -> ?assert(exists(Document, Link)) end}
        || Document <- documents(), Link <- links(Document)].

install_instructions_name_the_version_test() ->
    %% The version that README.md says to depend on is the version of the application.
    _ = application:load(iommap),
    {ok, Version} = application:get_key(iommap, vsn),
    Tags = matches(read("README.md"), "tag(?:,|:) \"([^\"]+)\""),
    ?assertEqual([Version, Version, Version], Tags).

the_manifests_name_the_version_test() ->
    %% The version in Cargo.toml is the version of the application.
    {ok, [{application, iommap, Properties}]} = file:consult(filename:join(root(), "src/iommap.app.src")),
    ?assertEqual([proplists:get_value(vsn, Properties)], matches(read("Cargo.toml"), "^version = \"([^\"]+)\"")).

%% What the shells show

the_shell_has_documentation_test_() ->
    %% h(Module), h(Module, Function) and ht(Module) show the texts of the comments: of the module, and of each function and type.
    [{lists:concat([Kind, " ", Module, ":", Name, "/", Arity]), fun() -> ?assertNotEqual(none, Text) end}
        || Module <- [iommap, iommap_atomics, iommap_file],
           {{Kind, Name, Arity}, Text} <- documented(Module)].

documented(Module) ->
    {ok, {docs_v1, _, erlang, <<"application/erlang+html">>, Text, _, Items}} = code:get_doc(Module),
    Known = maps:from_list([{Key, known(Doc)} || {Key, _, _, Doc, _} <- Items]),
    Private = private(Module),
    Exported = [{function, Name, Arity} || {Name, Arity} <- Module:module_info(exports),
                                           not lists:member(atom_to_list(Name), ["module_info" | Private])],
    Types = [Key || {type, _, _} = Key <- maps:keys(Known)],
    [{{module, Module, 0}, known(Text)} | [{Key, maps:get(Key, Known, none)} || Key <- Exported ++ Types]].

%% The functions that are called by other modules of this library alone, or by OTP's.
private(Module) ->
    matches(read(lists:concat(["src/", Module, ".erl"])), "%% @private[^\\n]*\\n(?:-spec (?:[^\\n]*[^.\\n]\\n)*[^\\n]*\\.\\n)?([a-z0-9_]+)\\(").

known(#{<<"en">> := [_ | _] = Text}) -> Text;
known(hidden) -> hidden;
known(_) -> none.

iex_has_documentation_test_() ->
    %% IEx's h finds the same texts.
    case os:find_executable("elixir") of
        false ->
            {"skipped: elixir is not installed", fun() -> ?debugMsg("skipped: elixir is not installed") end};
        _ ->
            {timeout, 300, fun() ->
                in_a_directory(fun(Directory) ->
                    Shown = evaluate_elixir(Directory, "{:ok, _} = Application.ensure_all_started(:iex)\n"
                                                       "require IEx.Helpers\n"
                                                       "IEx.Helpers.h(:iommap.open)"),
                    case re:run(Shown, "Unknown documentation format", [{capture, none}]) of
                        match -> ?debugMsg("skipped: this Elixir does not show what EDoc makes");
                        nomatch -> ?assertMatch({match, _}, re:run(Shown, "Opens a file and maps it"))
                    end
                end)
            end}
    end.

%% Evaluating

evaluate(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, _, _} = erl_eval:exprs(Expressions, []).

evaluate_elixir(Directory, Text) ->
    Script = filename:join(Directory, "example.exs"),
    ok = file:write_file(Script, Text),
    test_system:run("elixir", ["-pa", filename:dirname(code:which(iommap)), Script]).

in_a_directory(Test) ->
    {ok, Before} = file:get_cwd(),
    test_files:with_directory(fun(Directory) ->
        ok = file:set_cwd(Directory),
        try Test(Directory) after ok = file:set_cwd(Before) end
    end).

%% The documents

documents() ->
    ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        ++ filelib:wildcard("guides/*.md", root()) ++ filelib:wildcard("bench/results/*.md", root()).

read(Document) ->
    {ok, Text} = file:read_file(filename:join(root(), Document)),
    unicode:characters_to_list(Text).

%% The code blocks of a language, each with the place where it begins.
examples(Language) ->
    [Example || Document <- documents(), Example <- examples(Document, "```" ++ Language, "```")].

examples(Document, First, Last) ->
    [{lists:concat([Document, ":", Number]), lists:flatten(lists:join("\n", Lines))}
        || {Number, Lines} <- blocks(First, Last, lists:enumerate(string:split(read(Document), "\n", all)))].

edoc_examples() ->
    [{Title, re:replace(Text, "^%% ", "", [global, multiline, {return, list}])}
        || Module <- filelib:wildcard("src/*.erl", root()), {Title, Text} <- examples(Module, "%% ```", "%% '''")].

blocks(First, Last, Lines) ->
    case lists:dropwhile(fun({_, Line}) -> Line =/= First end, Lines) of
        [] ->
            [];
        [{Number, _} | Rest] ->
            {Block, [_ | Others]} = lists:splitwith(fun({_, Line}) -> Line =/= Last end, Rest),
            [{Number, [Line || {_, Line} <- Block]} | blocks(First, Last, Others)]
    end.

links(Document) ->
    [Link || Link <- matches(read(Document), "\\]\\(([^)]+)\\)"), not lists:prefix("http", Link)].

exists(Document, "#" ++ Heading) ->
    lists:member(Heading, headings(Document));
exists(Document, Link) ->
    [Path | Heading] = string:split(Link, "#"),
    Target = filename:join([root(), filename:dirname(Document), Path]),
    filelib:is_file(Target) andalso
        (Heading =:= [] orelse exists(Target, "#" ++ hd(Heading))).

%% Headings as links name them: lower case, hyphens for blanks, and only letters, digits, hyphens and underscores.
headings(Document) ->
    [re:replace(re:replace(string:lowercase(Heading), "[^\\w -]", "", [global, unicode, ucp]), " ", "-", [global, {return, list}])
        || Heading <- matches(read(Document), "^#+ (.*)$")].

matches(Text, Pattern) ->
    case re:run(Text, Pattern, [global, multiline, unicode, {capture, all_but_first, list}]) of
        {match, Found} -> [Match || [Match] <- Found];
        nomatch -> []
    end.
