%% Random runs of calls on a device, against the same calls on a raw file of the OTP that runs: the oracle.
-module(prop_iommap_file).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([prop_a_device_is_a_raw_file/0]).
-export([prop_a_device_on_a_changing_file_is_a_raw_file/0]).
-export([prop_a_device_on_a_handle_is_a_raw_file/0]).

-import(test_files, [with_directory/1]).
-import(test_pattern, [bytes/1, page/0]).
-import(test_property, [holds/1]).

prop_a_device_is_a_raw_file() ->
    %% After any run of calls answers, position, size and contents are those of a raw file, whatever the mode.
    ?FORALL({Size, Modes, Calls}, {size(), modes(), list(call())},
        runs(Size, fun(Path) -> iommap_file:open(Path, Modes) end, Modes, Calls)).

prop_a_device_on_a_changing_file_is_a_raw_file() ->
    %% The same holds while the file is cut, grown and written through another descriptor.
    ?FORALL({Size, Modes, Calls}, {size(), modes(), list(oneof([call(), call_of_another()]))},
        runs(Size, fun(Path) -> iommap_file:open(Path, Modes) end, Modes, Calls)).

prop_a_device_on_a_handle_is_a_raw_file() ->
    %% The same holds for a device that `from' made, as long as its file is there.
    Modes = [read, write, binary],
    ?FORALL({Size, Calls}, {range(1, 3 * page()), list(oneof([call(), call_of_another()]))},
        runs(Size, fun on_a_handle/1, Modes, Calls)).

on_a_handle(Path) ->
    {ok, Handle} = iommap:open(Path, read_write, []),
    iommap_file:from(Handle).

%% Calls

modes() ->
    oneof([[read, write, binary], [read, write], [read, binary], [read], [read, append, binary], [append], [write],
           [read, write, sync, binary]]).

call() ->
    frequency([
        {5, {pread, [place(), place()]}},
        {3, {read, [place()]}},
        {3, {read_line, []}},
        {5, {pwrite, [place(), data()]}},
        {4, {write, [data()]}},
        {4, {position, [oneof([place(), cur, eof, {cur, integer()}, {eof, integer()}, {bof, place()}])]}},
        {2, {truncate, []}},
        {1, {pread, [list({place(), place()})]}},
        {1, {pwrite, [list({place(), data()})]}},
        {1, {ipread_s32bu_p32bu, [place(), oneof([infinity, 100])]}},
        {1, {allocate, [place(), place()]}},
        {1, {advise, [place(), place(), oneof([normal, random, sequential, will_need, dont_need])]}},
        {1, {oneof([sync, datasync]), []}}
    ]).

%% What happens through another descriptor of the file.
call_of_another() ->
    oneof([{another, size, size()}, {another, write, {place(), data()}}]).

size() ->
    oneof([0, 1, page() - 1, page(), page() + 1, range(0, 3 * page())]).

place() ->
    oneof([0, 1, 10, page() - 1, page(), page() + 1, range(0, 4 * page()), -1]).

data() ->
    oneof([binary(), <<"line\n">>, <<"line\r\n">>, ["a", <<"list\n">>],
           ?LET(Size, range(0, 2 * page()), bytes(Size)), ?LET(Size, range(0, 200), <<0:Size/unit:8>>)]).

%% Running

runs(Size, Open, Modes, Calls) ->
    holds(fun() -> run(Size, Open, Modes, Calls) end).

run(Size, Open, Modes, Calls) ->
    with_directory(fun(Directory) ->
        [Raw, Device] = Paths = [filename:join(Directory, Name) || Name <- ["raw", "device"]],
        [ok = file:write_file(Path, bytes(Size)) || Path <- Paths],
        {ok, RawFile} = file:open(Raw, [raw | Modes]),
        {ok, DeviceFile} = Open(Device),
        try
            lists:foreach(fun(Call) ->
                ?assertEqual({Call, step(RawFile, Raw, Call)}, {Call, step(DeviceFile, Device, Call)})
            end, Calls),
            true
        after
            [ok, ok] = [file:close(File) || File <- [RawFile, DeviceFile]]
        end
    end).

%% Makes the call, and tells all that can be seen after it. To ask for the position also makes a raw file forget what it has read
%% ahead, which it would give from then on, however the file changes.
step(File, Path, Call) ->
    Answer = call(File, Path, Call),
    Position = file:position(File, cur),
    {Answer, Position, file:read_file(Path)}.

call(_File, Path, {another, size, Size}) ->
    with_another(Path, fun(Other) ->
        {ok, Size} = file:position(Other, Size),
        file:truncate(Other)
    end);
call(_File, Path, {another, write, {Offset, Data}}) ->
    with_another(Path, fun(Other) -> file:pwrite(Other, Offset, Data) end);
call(File, _Path, {Name, Arguments}) ->
    apply(file, Name, [File | Arguments]).

with_another(Path, Use) ->
    {ok, Other} = file:open(Path, [raw, read, write]),
    Answer = Use(Other),
    ok = file:close(Other),
    Answer.
