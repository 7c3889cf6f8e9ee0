%% @hidden
%% The table of iommap:i/0.
-module(iommap_table).

-export([print/1]).

-define(COLUMNS, 80).

%% The width of a column, in characters. The path has what is left.
-define(WIDTHS, [{handle, 6}, {mode, 10}, {sharing, 7}, {size, 12}, {views, 5}, {flags, 5}]).

%% Prints a line for each mapping.
-spec print([iommap:listed()]) -> ok.
print(Mappings) ->
    Options = io:getopts(), % a group leader need not know of any
    Unicode = is_list(Options) andalso lists:keyfind(encoding, 1, Options) =:= {encoding, unicode},
    io:put_chars(line([{Name, atom_to_list(Name)} || {Name, _} <- ?WIDTHS], "path")),
    lists:foreach(fun(Mapping) -> io:put_chars(line(columns(Mapping), path(Mapping, Unicode))) end, Mappings).

line(Columns, Path) ->
    Cells = [pad(Name, proplists:get_value(Name, Columns), Width) || {Name, Width} <- ?WIDTHS],
    [lists:join($\s, Cells), $\s, Path, $\n].

%% Numbers stand on the right.
pad(Name, Text, Width) when Name =:= size; Name =:= views -> string:pad(Text, Width, leading);
pad(_Name, Text, Width) -> string:pad(Text, Width, trailing).

columns(#{handle := Handle, mode := Mode, sharing := Sharing, size := Size, views := Views} = Mapping) ->
    [
        {handle, atom_to_list(Handle)},
        {mode, atom_to_list(Mode)},
        {sharing, atom_to_list(Sharing)},
        {size, bytes(Size)},
        {views, count(Views)},
        {flags, [Letter || {Key, Letter} <- [{locked, $L}, {faulted, $F}], maps:get(Key, Mapping)]}
    ].

%% In bytes if there is room.
bytes(Size) when Size < 1_000_000_000_000 -> integer_to_list(Size);
bytes(Size) -> integer_to_list(Size bsr 30) ++ " GiB".

count(Views) when is_integer(Views), Views < 100_000 -> integer_to_list(Views);
count(Views) when is_integer(Views) -> ">10^5";
count(undefined) -> "?".

path(#{path := undefined}, _Unicode) ->
    "-";
path(#{path := Path} = Mapping, Unicode) ->
    Room = ?COLUMNS - lists:sum([Width + 1 || {_, Width} <- ?WIDTHS]),
    Text = [printable(Char, Unicode) || Char <- characters(Path)] ++ window(Mapping),
    case width(Text) > Room of
        true -> "..." ++ last(lists:reverse(Text), Room - 3, []);
        false -> Text
    end.

window(#{offset := 0}) -> "";
window(#{offset := Offset}) -> "+" ++ integer_to_list(Offset).

characters(Path) ->
    case unicode:characters_to_list(Path, file:native_name_encoding()) of
        Characters when is_list(Characters) -> Characters;
        _ -> binary_to_list(Path)
    end.

printable(Char, Unicode) ->
    case io_lib:printable_unicode_list([Char]) andalso Char >= $\s andalso (Unicode orelse Char < 127) of
        true -> Char;
        false -> $?
    end.

%% The end of the text, reversed, that has room.
last([Char | Before], Room, Text) ->
    case Room - width([Char]) of
        Left when Left >= 0 -> last(Before, Left, [Char | Text]);
        _ -> Text
    end.

%% Columns of a terminal, or more: characters of East Asia and symbols take two.
width(Text) ->
    lists:sum([if Char >= 16#1100 -> 2; true -> 1 end || Char <- Text]).
