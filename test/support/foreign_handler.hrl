%% A library with a SIGBUS handler of its own, test/faults/c/foreign_handler.c, as the module that includes this.
-export([install/1, install_reporter/1, restore/0]).
-export([recover/0, recover_dirty/0]).
-export([calls/0]).
-export([owner/0]).
-export([is_on_stack/0]).

-on_load(load/0).
-nifs([install/1, install_reporter/1, restore/0, recover/0, recover_dirty/0, calls/0, owner/0, is_on_stack/0]).

load() ->
    erlang:load_nif(test_tools:nif(?MODULE), 0).

%% Puts its handler, or what the system has for one, in place of the one that is there.
-spec install(chaining | without_onstack | not_chaining | plain | ignore | default) -> ok.
install(_Kind) -> erlang:nif_error(not_loaded).

%% The same with a handler that is to be called once, and then writes a line to the file.
-spec install_reporter(file:filename()) -> ok.
install_reporter(_Path) -> erlang:nif_error(not_loaded).

%% Puts back what install/1 found, whoever came since.
-spec restore() -> ok.
restore() -> erlang:nif_error(not_loaded).

%% Touches a page of its own that has lost its file. Only its own handler knows how to go on.
-spec recover() -> recovered.
recover() -> erlang:nif_error(not_loaded).

-spec recover_dirty() -> recovered.
recover_dirty() -> erlang:nif_error(not_loaded).

%% How often its handler was called.
-spec calls() -> non_neg_integer().
calls() -> erlang:nif_error(not_loaded).

%% The file of the library whose handler the kernel calls now.
-spec owner() -> file:filename() | default | ignore | unknown.
owner() -> erlang:nif_error(not_loaded).

%% Whether the kernel calls it on the alternate signal stack of the thread.
-spec is_on_stack() -> boolean().
is_on_stack() -> erlang:nif_error(not_loaded).
