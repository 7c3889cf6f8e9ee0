%% @hidden
%% The texts of errors: of the reasons that are answered, and of the arguments that raise.
-module(iommap_error).

-export([text/1, info/1, format_error/2]).

%% What the shell is to tell of an exception `badarg': the third argument of erlang:error/3.
-spec info(Cause :: term()) -> [{error_info, map()}].
info(Cause) ->
    [{error_info, #{module => ?MODULE, cause => Cause}}].

%% Tells the shell which argument of a call was wrong, where Erlang has checked it.
-spec format_error(badarg, erlang:stacktrace()) -> #{pos_integer() => unicode:chardata()}.
format_error(badarg, [{_Module, _Function, Arguments, Info} | _]) ->
    #{cause := Cause} = proplists:get_value(error_info, Info, #{}),
    {Position, Text} = describe(Cause, length(Arguments)),
    #{Position => Text}.

describe(path, _) -> {1, "contains a NUL character"};
describe(fd, _) -> {1, "is not a descriptor: an integer from 0 on"};
describe(mode, _) -> {2, "is not read, write or read_write"};
describe(binary, _) -> {1, "is not a binary"};
describe(function, _) -> {4, "is not a function of one argument"};
describe(handle, _) -> {1, "is not a handle"};
describe(writes, _) -> {2, "is not a list of {Offset, Data}, integers below 2^64 and iodata"};
describe(options, Arity) -> {Arity, "is not a proper list"};
describe({option, Option}, Arity) -> {Arity, io_lib:format("~tp is not an option", [Option])}.

%% The text of a reason: see iommap:format_error/1.
-spec text(term()) -> string().
text({0, Reason}) ->
    "no element was written: " ++ text(Reason);
text({1, Reason}) ->
    "1 element was written, then: " ++ text(Reason);
text({N, Reason}) when is_integer(N), N > 1 ->
    integer_to_list(N) ++ " elements were written, then: " ++ text(Reason);
text(Reason) when is_atom(Reason) ->
    case lists:keyfind(Reason, 1, own_reasons() ++ unknown_to_file()) of
        {Reason, Text} -> Text;
        false -> format_posix(file:format_error(Reason), Reason)
    end;
text(Reason) ->
    format_unknown(Reason).

format_posix("unknown POSIX error" ++ _, Reason) -> format_unknown(Reason);
format_posix(Text, _Reason) -> Text.

format_unknown(Reason) ->
    lists:flatten(io_lib:format("unknown error: ~tP", [Reason, 50])).

own_reasons() ->
    [
        {badarg, "an argument is negative or of the wrong kind"},
        {closed, "the handle is closed"},
        {out_of_bounds, "the range ends after the end of the mapping"},
        {sigbus, "the file does not back the bytes any more, or its disk failed under them"},
        {nif_panicked, "the native library met a bug of its own"}
    ].

%% The POSIX errors that `file' of OTP 25 has no text for, in the words of the GNU C library.
unknown_to_file() ->
    [
        {ecanceled, "operation canceled"},
        {eftype, "wrong file type for intended operation"},
        {ehwpoison, "memory page has hardware error"},
        {eilseq, "invalid or incomplete multibyte or wide character"},
        {ekeyexpired, "key has expired"},
        {ekeyrejected, "key was rejected by service"},
        {ekeyrevoked, "key has been revoked"},
        {emediumtype, "wrong medium type"},
        {enokey, "required key not available"},
        {enomedium, "no medium found"},
        {enotrecoverable, "state not recoverable"},
        {eownerdead, "owner died"},
        {erestart, "interrupted system call should be restarted"},
        {erfkill, "operation not possible due to RF-kill"},
        {estrpipe, "streams pipe error"}
    ].
