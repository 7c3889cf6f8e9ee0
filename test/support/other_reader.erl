%% Another NIF library that reads binaries, wherever a NIF can: c/other_reader.c.
-module(other_reader).

-export([copy/1, copy_dirty_cpu/1, copy_dirty_io/1, copy_in_thread/2]).
-export([smallest_stack/0]).
-export([scribble/1]).
-export([touch_nobodys/0, touch_nobodys_dirty/0]).

-on_load(load/0).
-nifs([copy/1, copy_dirty_cpu/1, copy_dirty_io/1, copy_in_thread/2, smallest_stack/0,
       scribble/1, touch_nobodys/0, touch_nobodys_dirty/0]).

load() ->
    erlang:load_nif(test_tools:nif(?MODULE), 0).

%% What the library reads in the binary, on each kind of scheduler.
-spec copy(binary()) -> binary().
copy(_Binary) -> erlang:nif_error(not_loaded).

-spec copy_dirty_cpu(binary()) -> binary().
copy_dirty_cpu(_Binary) -> erlang:nif_error(not_loaded).

-spec copy_dirty_io(binary()) -> binary().
copy_dirty_io(_Binary) -> erlang:nif_error(not_loaded).

%% The same on a thread of the library's own, whose alternate signal stack has StackSize bytes.
%% 0: it has none.
-spec copy_in_thread(binary(), non_neg_integer()) -> binary().
copy_in_thread(_Binary, _StackSize) -> erlang:nif_error(not_loaded).

%% The least alternate stack that this kernel and processor allow.
-spec smallest_stack() -> pos_integer().
smallest_stack() -> erlang:nif_error(not_loaded).

%% Writes into the binary.
-spec scribble(binary()) -> written.
scribble(_Binary) -> erlang:nif_error(not_loaded).

%% A fault that nobody handles.
-spec touch_nobodys() -> no_return().
touch_nobodys() -> erlang:nif_error(not_loaded).

-spec touch_nobodys_dirty() -> no_return().
touch_nobodys_dirty() -> erlang:nif_error(not_loaded).
