%% Every test of EUnit, none of which fails because the machine is busy: of its own EUnit gives each 5 seconds. (Its option
%% `scale_timeouts' would do, but OTP 26 and older ignore it.) A test that is slow on an idle machine says so itself as well, for it
%% may be run alone: rebar3 eunit --module=...
-module(eunit_patience).

-export([all/0]).

%% So long that only a hang takes longer.
-define(SECONDS, 300).

-type tests() :: term().

-spec all() -> tests().
all() ->
    Directory = filename:dirname(code:which(iommap_tests)),
    Modules = [list_to_atom(filename:basename(Beam, ".beam")) || Beam <- filelib:wildcard(Directory ++ "/*_tests.beam")],
    [{atom_to_list(Module), patient({generator, fun() -> exported(Module) end})} || Module <- Modules].

exported(Module) ->
    Kinds = [{"_test", fun(Name) -> {Module, Name} end}, {"_test_", fun(Name) -> {generator, fun Module:Name/0} end}],
    [Test(Name) || {Name, 0} <- Module:module_info(exports), {Suffix, Test} <- Kinds, lists:suffix(Suffix, atom_to_list(Name))].

%% The shapes of tests that there are.
-spec patient(tests()) -> tests().
patient({generator, Tests}) -> {generator, fun() -> patient(Tests()) end};
patient(Tests) when is_list(Tests) -> lists:map(fun patient/1, Tests);
patient({timeout, _, _} = Slow) -> Slow;
patient({Title, Tests}) when is_list(Title) -> {Title, patient(Tests)};
patient(Test) -> {timeout, ?SECONDS, Test}.
