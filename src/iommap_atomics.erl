%% @doc Atomic operations on words of a mapped file.
%%
%% The functions of {@link atomics}, with its names, argument order, indexes from 1, wrap-around and exceptions, on words that other
%% processes of the system share and that outlive the VM. An array stands for words of 64 bits, in the byte order of the machine, that
%% follow one another in a shared mapping.
%%
%% All operations are sequentially consistent, between all processes that map the file and use atomic instructions of their own: no update
%% is lost, and all see the updates in one order. They do not exclude {@link iommap:pread/3} and {@link iommap:pwrite/3}, which may
%% see or leave a word as it is between two updates, or half of it: a word that others use meanwhile belongs to these functions alone.
%%
%% An array keeps its handle, and follows it over {@link iommap:truncate/2} and {@link iommap:remap/1}. An operation finishes on the
%% scheduler it is made on if its page is known to be in memory, and, to update it, ready to be written; else it moves to a dirty I/O scheduler.
%%
%% Exceptions are `badarg', for what {@link atomics} raises it for, for an array whose handle was closed, and for an operation that
%% the mode of the handle does not permit; `badarith' of {@link sub/3} and {@link sub_get/3} for a number that is none; and `sigbus' for
%% a word that the file no longer backs, that was cut off, or whose disk failed.
%%
%% ```
%% {ok, Handle} = iommap:open("hits", read_write, [create, {size, 4096}]),
%% Hits = iommap_atomics:new(Handle, 0, 512, []),
%% ok = iommap_atomics:add(Hits, 1, 10),
%% 11 = iommap_atomics:add_get(Hits, 1, 1),
%% ok = iommap_atomics:compare_exchange(Hits, 1, 11, 12),
%% {ok, <<12:64/native>>} = iommap:pread(Handle, 0, 8),
%% #{size := 512} = iommap_atomics:info(Hits).
%% '''
-module(iommap_atomics).

-export([
    new/4,
    put/3,
    get/2,
    add/3, add_get/3,
    sub/3, sub_get/3,
    exchange/3,
    compare_exchange/4,
    'band'/3, band_get/3,
    'bor'/3, bor_get/3,
    'bxor'/3, bxor_get/3,
    info/1
]).
-export([format_error/2]).
-export_type([atomics_ref/0]).

-define(MAX_UNSIGNED, 16#FFFFFFFFFFFFFFFF).
-define(MAX_SIGNED, 16#7FFFFFFFFFFFFFFF).
-define(MIN_SIGNED, -16#8000000000000000).

%% As atomics does, so that the shell explains the exception.
-define(RAISE(Reason, Arguments), erlang:error(exception(Reason), Arguments, [{error_info, #{}}])).

-opaque atomics_ref() :: reference().
%% An array of words.

%% @doc An array of `Arity' words of the handle's mapping, the first of which is at `Offset', in bytes.
%%
%% The only option is `{signed, boolean()}': whether words are from -2^63 on, the default, or from 0 on. That is no
%% property of the file: another array may show the same words otherwise. Nothing is written: words are what the file holds.
%%
%% A word must lie at a multiple of 8 in the file: `Offset' must be one, and for a handle with `{offset, N}' (see {@link iommap:open/3})
%% `N + Offset' must, whatever `Offset' is.
%%
%% Raises `badarg' if a word is outside the mapping or does not lie so, if `Arity' is 0, if the mapping is private, and if the handle
%% was closed.
-spec new(iommap:handle(), Offset :: non_neg_integer(), Arity :: pos_integer(), [{signed, boolean()}]) -> atomics_ref().
new(Handle, Offset, Arity, Opts) ->
    case signed(Opts, true) of
        badarg ->
            ?RAISE(badarg, [Handle, Offset, Arity, Opts]);
        Signed ->
            case iommap:atomics_new_nif(Handle, Offset, Arity, Signed) of
                Array when is_reference(Array) -> Array;
                {error, _} -> ?RAISE(badarg, [Handle, Offset, Arity, Opts])
            end
    end.

signed([], Signed) -> Signed;
signed([{signed, Signed} | Opts], _) when is_boolean(Signed) -> signed(Opts, Signed);
signed(_, _) -> badarg.

%% @doc Sets a word.
-spec put(atomics_ref(), Ix :: pos_integer(), Value :: integer()) -> ok.
put(Ref, Ix, Value) ->
    case iommap:atomics_put_nif(Ref, Ix, Value) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Value])
    end.

%% @doc Reads a word.
-spec get(atomics_ref(), Ix :: pos_integer()) -> integer().
get(Ref, Ix) ->
    case iommap:atomics_get_nif(Ref, Ix) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix])
    end.

%% @doc Adds to a word. `Incr' is from -2^63 to 2^64 - 1, whether the words have signs or not.
-spec add(atomics_ref(), Ix :: pos_integer(), Incr :: integer()) -> ok.
add(Ref, Ix, Incr) ->
    case iommap:atomics_add_nif(Ref, Ix, Incr) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Incr])
    end.

%% @doc Adds to a word, and gives the sum.
-spec add_get(atomics_ref(), Ix :: pos_integer(), Incr :: integer()) -> integer().
add_get(Ref, Ix, Incr) ->
    case iommap:atomics_add_get_nif(Ref, Ix, Incr) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Incr])
    end.

%% @doc Subtracts from a word.
-spec sub(atomics_ref(), Ix :: pos_integer(), Decr :: integer()) -> ok.
sub(Ref, Ix, Decr) when is_number(Decr) ->
    case iommap:atomics_add_nif(Ref, Ix, -Decr) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Decr])
    end;
sub(Ref, Ix, Decr) ->
    ?RAISE(badarith, [Ref, Ix, Decr]).

%% @doc Subtracts from a word, and gives the difference.
-spec sub_get(atomics_ref(), Ix :: pos_integer(), Decr :: integer()) -> integer().
sub_get(Ref, Ix, Decr) when is_number(Decr) ->
    case iommap:atomics_add_get_nif(Ref, Ix, -Decr) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Decr])
    end;
sub_get(Ref, Ix, Decr) ->
    ?RAISE(badarith, [Ref, Ix, Decr]).

%% @doc Sets a word, and gives what it was.
-spec exchange(atomics_ref(), Ix :: pos_integer(), Desired :: integer()) -> integer().
exchange(Ref, Ix, Desired) ->
    case iommap:atomics_exchange_nif(Ref, Ix, Desired) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Desired])
    end.

%% @doc Sets a word to `Desired' if it is `Expected'; gives what it is, and leaves it, if not.
-spec compare_exchange(atomics_ref(), Ix :: pos_integer(), Expected :: integer(), Desired :: integer()) -> ok | integer().
compare_exchange(Ref, Ix, Expected, Desired) ->
    case iommap:atomics_compare_exchange_nif(Ref, Ix, Expected, Desired) of
        ok -> ok;
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Expected, Desired])
    end.

%% @doc Clears the bits of a word that are not set in `Mask', which is from -2^63 to 2^64 - 1.
-spec 'band'(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> ok.
'band'(Ref, Ix, Mask) ->
    case iommap:atomics_band_nif(Ref, Ix, Mask) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc As {@link 'band'/3}, and gives the new value.
-spec band_get(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> integer().
band_get(Ref, Ix, Mask) ->
    case iommap:atomics_band_get_nif(Ref, Ix, Mask) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc Sets the bits of a word that are set in `Mask'.
-spec 'bor'(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> ok.
'bor'(Ref, Ix, Mask) ->
    case iommap:atomics_bor_nif(Ref, Ix, Mask) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc As {@link 'bor'/3}, and gives the new value.
-spec bor_get(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> integer().
bor_get(Ref, Ix, Mask) ->
    case iommap:atomics_bor_get_nif(Ref, Ix, Mask) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc Flips the bits of a word that are set in `Mask'.
-spec 'bxor'(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> ok.
'bxor'(Ref, Ix, Mask) ->
    case iommap:atomics_bxor_nif(Ref, Ix, Mask) of
        ok -> ok;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc As {@link 'bxor'/3}, and gives the new value.
-spec bxor_get(atomics_ref(), Ix :: pos_integer(), Mask :: integer()) -> integer().
bxor_get(Ref, Ix, Mask) ->
    case iommap:atomics_bxor_get_nif(Ref, Ix, Mask) of
        Value when is_integer(Value) -> Value;
        {error, Reason} -> ?RAISE(Reason, [Ref, Ix, Mask])
    end.

%% @doc How many words there are, the greatest and the least number that one can be, and how many bytes they take in the file.
-spec info(atomics_ref()) -> #{size := pos_integer(), max := pos_integer(), min := integer(), memory := pos_integer()}.
info(Ref) ->
    case iommap:atomics_info_nif(Ref) of
        {error, Reason} ->
            ?RAISE(Reason, [Ref]);
        {Arity, Signed} ->
            {Min, Max} = limits(Signed),
            #{size => Arity, max => Max, min => Min, memory => 8 * Arity}
    end.

limits(true) -> {?MIN_SIGNED, ?MAX_SIGNED};
limits(false) -> {0, ?MAX_UNSIGNED}.

%% Of the words of an array, which were inside the mapping once, one that is not was cut off.
exception(sigbus) -> sigbus;
exception(out_of_bounds) -> sigbus;
exception(badarith) -> badarith;
exception(_) -> badarg.

%% @private Tells the shell which argument was wrong.
-spec format_error(term(), erlang:stacktrace()) -> #{general | pos_integer() => unicode:chardata()}.
format_error(sigbus, _) ->
    #{general => "the file no longer backs the word"};
format_error(badarith, _) ->
    #{3 => "is not a number"};
format_error(badarg, [{?MODULE, new, Arguments, _} | _]) when is_list(Arguments) ->
    wrong_to_new(Arguments);
format_error(badarg, [{?MODULE, Function, [Ref | Arguments], _} | _]) ->
    case iommap:atomics_info_nif(Ref) of
        {Arity, Signed} when is_integer(Arity) -> wrong(Function, Arity, limits(Signed), Arguments);
        {error, _} -> #{1 => "is not an array of iommap_atomics, or its handle was closed"}
    end;
format_error(_, _) ->
    #{}.

wrong_to_new([_, Offset, _, _]) when not is_integer(Offset); Offset < 0 ->
    #{2 => "is not an offset"};
wrong_to_new([_, _, Arity, _]) when not is_integer(Arity); Arity < 1 ->
    #{3 => "is not a number of words"};
wrong_to_new([Handle, Offset, Arity, Opts]) ->
    case {signed(Opts, true), size_of(Handle)} of
        {badarg, _} -> #{4 => "is not a list of options"};
        {_, {ok, Size}} when Offset + 8 * Arity > Size -> #{3 => "is more words than the mapping has there"};
        {_, {ok, _}} -> #{1 => "is a private mapping, or the offset is misaligned"};
        _ -> #{1 => "is not an open handle"}
    end.

size_of(Handle) ->
    try iommap:position(Handle)
    catch error:badarg -> none
    end.

wrong(_, Arity, _, [Ix | _]) when not is_integer(Ix); Ix < 1; Ix > Arity ->
    #{2 => io_lib:format("is not an index from 1 to ~b", [Arity])};
wrong(Function, _, Limits, [_ | Values]) ->
    {Least, Most} = range(Function, Limits),
    Wrong = [Position || {Position, Value} <- lists:zip(lists:seq(3, 2 + length(Values)), Values),
                         not (is_integer(Value) andalso Value >= Least andalso Value =< Most)],
    case Wrong of
        [] -> #{1 => "has a handle whose mode does not permit this"};
        _ -> maps:from_list([{Position, io_lib:format("is not a number from ~b to ~b", [Least, Most])} || Position <- Wrong])
    end.

range(Function, Limits) when Function =:= put; Function =:= exchange; Function =:= compare_exchange -> Limits;
range(Function, _) when Function =:= sub; Function =:= sub_get -> {-?MAX_UNSIGNED, -?MIN_SIGNED};
range(_, _) -> {?MIN_SIGNED, ?MAX_UNSIGNED}.
