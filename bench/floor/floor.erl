%% The floor: what a call costs when nothing is checked, locked or guarded. See floor.c.
-module(floor).

-export([nothing/3, occupy/1, moment/0, open/2, open_to_grow/1, close/1, grow/2, pread/2, pread/3, pwrite/3, pwrite_segments/3,
         pwrite_dirty/3, region_binary/3]).

-on_load(load/0).

load() ->
    erlang:load_nif(filename:rootname(code:which(?MODULE)), 0).

open(_Path, _Option) -> erlang:nif_error(not_loaded).
open_to_grow(_Path) -> erlang:nif_error(not_loaded).
close(_Mapping) -> erlang:nif_error(not_loaded).
grow(_Mapping, _Bytes) -> erlang:nif_error(not_loaded).
occupy(_Milliseconds) -> erlang:nif_error(not_loaded).
moment() -> erlang:nif_error(not_loaded).
nothing(_, _, _) -> erlang:nif_error(not_loaded).
pread(_Mapping, _UpTo1024Ranges) -> erlang:nif_error(not_loaded).
pread(_Mapping, _Offset, _Length) -> erlang:nif_error(not_loaded).
pwrite(_Mapping, _Offset, _Data) -> erlang:nif_error(not_loaded).
pwrite_segments(_Mapping, _Offset, _Data) -> erlang:nif_error(not_loaded).
pwrite_dirty(_Mapping, _Offset, _Data) -> erlang:nif_error(not_loaded).
region_binary(_Mapping, _Offset, _Length) -> erlang:nif_error(not_loaded).
