%% Limits of the system that are reached: the right error, every handle and view unharmed, and room is found again. Every
%% case has a VM of its own.
-module(iommap_limits_SUITE).

-include_lib("common_test/include/ct.hrl").

-import(test_scene, [limited/4]).

-compile(export_all).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [descriptors_exhausted_is_emfile,
     address_space_exhausted_is_enomem,
     a_lock_beyond_the_limit_is_enomem_and_locks_nothing,
     a_lock_without_any_right_is_eperm,
     hints_and_locks_at_the_limit_of_mappings_leave_what_was_set,
     memory_that_may_not_be_locked_is_mapped_unlocked,
     map_count_exhausted_is_enomem,
     a_lost_view_is_read_though_the_map_count_is_exhausted,
     every_lost_view_is_read_at_the_limit_of_mappings,
     thirty_thousand_mappings_fit_the_usual_limit,
     a_hundred_thousand_mappings_fit_a_raised_limit,
     fifty_thousand_views_are_safe].

init_per_suite(Config) ->
    ok = test_tools:build(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{directory, test_files:case_directory(Config)} | Config].

end_per_testcase(_Case, _Config) ->
    ok.

%% ---- Limits -----------------------------------------------------------------------------------

%% Out of descriptors: emfile, every handle that is open works, and one that is closed makes room.
descriptors_exhausted_is_emfile(Config) ->
    limited(Config, "ulimit -n 200; exec \"$@\"", [], fun(Path) ->
        Whole = test_pattern:bytes(10_000),
        {Handles, Error} = test_limits:open_until_error(Path, 1000),
        emfile = Error,
        true = length(Handles) > 50,
        {error, emfile} = iommap:open(Path, read, []),
        [{ok, Whole} = iommap:pread(Handle, 0, 10_000) || Handle <- Handles],
        ok = iommap:close(hd(Handles)),
        {ok, _} = iommap:open(Path, read, []),
        [ok = iommap:close(Handle) || Handle <- tl(Handles)],
        ok
    end).

%% Out of address space: enomem from open, truncate, remap and a pread that is too long, which leave all as it was.
address_space_exhausted_is_enomem(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Large = Path ++ ".large",
        [] = os:cmd("truncate -s 1G " ++ Large),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 5000),
        {ok, Mapped} = iommap:open(Large, read_write, []),
        test_limits:limit_address_space(300_000),
        {error, enomem} = iommap:pread(Mapped, 0, 1 bsl 30),
        ok = iommap:pwrite(Mapped, 1 bsl 30 - 3, <<"end">>),
        {ok, <<"end">>} = iommap:pread(Mapped, 1 bsl 30 - 3, 3),
        {error, enomem} = iommap:open(Large, read, []),
        {error, enomem} = iommap:truncate(Handle, 1_000_000_000),
        10_000 = filelib:file_size(Path),
        [] = os:cmd("truncate -s 1G " ++ Path),
        {error, enomem} = iommap:remap(Handle),
        [] = os:cmd("truncate -s 10000 " ++ Path),
        {ok, 10_000} = iommap:position(Handle),
        ok = iommap:pwrite(Handle, 0, test_pattern:bytes(10_000)),
        ok = iommap:truncate(Handle, 20_000),
        {ok, Small} = iommap:open(Path, read, []),
        [ok = iommap:close(Open) || Open <- [Small, Mapped]],
        [] = os:cmd("prlimit --pid " ++ os:getpid() ++ " --as=unlimited:"),
        {ok, Now} = iommap:open(Large, read, []),
        ok = iommap:close(Now),
        true = iommap:intact(View)
    end).

%% lock/3 of more than this VM may lock is refused as a whole; what was locked before stays so, counts once, and makes room again
%% when it is unlocked.
a_lock_beyond_the_limit_is_enomem_and_locks_nothing(Config) ->
    limited(Config, locking_at_most(64), [], fun(Path) ->
        Page = test_pattern:page(),
        Most = 65536 div Page,
        [] = os:cmd("truncate -s 1M " ++ Path),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {error, enomem} = iommap:lock(Handle, 0, (Most + 1) * Page),
        0 = test_system:locked(),
        ok = iommap:lock(Handle, 2 * Page, Page),
        {error, enomem} = iommap:lock(Handle, 0, (Most + 1) * Page),
        Page = test_system:locked(),
        ok = iommap:lock(Handle, 0, Most * Page),
        ok = iommap:lock(Handle, 0, Most * Page),
        65536 = test_system:locked(),
        {error, enomem} = iommap:lock(Handle, Most * Page, 1),
        65536 = test_system:locked(),
        %% In a fresh mapping, too: the old one's, which a view keeps, count no more.
        {ok, View} = iommap:region_binary(Handle, 0, 1),
        ok = iommap:truncate(Handle, 500_000),
        65536 = test_system:locked(),
        ok = iommap:unlock(Handle, 0, Page),
        ok = iommap:lock(Handle, Most * Page, 1),
        65536 = test_system:locked(),
        ok = iommap:unlock(Handle, 0, 500_000),
        0 = test_system:locked(),
        {Page, 1} = {Page, byte_size(View)},
        ok = iommap:close(Handle)
    end).

%% lock/3 of who may lock nothing is eperm, unlock/3 is ok.
a_lock_without_any_right_is_eperm(Config) ->
    limited(Config, locking_at_most(0), [], fun(Path) ->
        {ok, Handle} = iommap:open(Path, read, []),
        {error, eperm} = iommap:lock(Handle, 0, 1),
        ok = iommap:lock(Handle, 0, 0),
        ok = iommap:unlock(Handle, 0, 1),
        {ok, #{locked := false}} = iommap:info(Handle),
        0 = test_system:locked(),
        ok = iommap:close(Handle)
    end).

%% Where the system has no room for another piece of a mapping, what would need one is refused and changes nothing.
hints_and_locks_at_the_limit_of_mappings_leave_what_was_set(Config) ->
    at_the_limit(Config, fun(Path) ->
        Page = test_pattern:page(),
        [] = os:cmd("truncate -s 1M " ++ Path),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, Locked} = iommap:open(Path, read_write, []),
        ok = iommap:lock(Locked, 0, 4 * Page),
        {Splitter, _Handles} = test_limits:exhaust_map_count(Path),
        {error, eagain} = iommap:advise(Handle, 8 * Page, Page, dontdump),
        {error, enomem} = iommap:lock(Handle, 8 * Page, Page),
        {error, enomem} = iommap:unlock(Locked, Page, Page),
        true = 4 * Page =:= test_system:locked(),
        %% What needs no other piece is done.
        ok = iommap:unlock(Locked, 0, 4 * Page),
        0 = test_system:locked(),
        ok = iommap:close(Splitter),
        ok = test_processes:eventually(fun() -> iommap:lock(Handle, 8 * Page, Page) =:= ok end),
        ok = iommap:close(Handle)
    end).

locking_at_most(Kilobytes) ->
    Limit = "ulimit -l " ++ integer_to_list(Kilobytes) ++ "; exec ",
    case test_system:is_root() of
        true -> Limit ++ "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$@\"";
        false -> Limit ++ "\"$@\""
    end.

%% lock that the system refuses is no error; info/1 tells.
memory_that_may_not_be_locked_is_mapped_unlocked(Config) ->
    limited(Config, locking_at_most(64), [], fun(Path) ->
        Large = Path ++ ".large",
        [] = os:cmd("truncate -s 1M " ++ Large),
        {ok, Unlocked} = iommap:open(Large, read_write, [lock]),
        {ok, #{locked := false}} = iommap:info(Unlocked),
        ok = iommap:pwrite(Unlocked, 0, <<"data">>),
        {ok, Locked} = iommap:open(Path, read_write, [lock]),
        {ok, #{locked := true}} = iommap:info(Locked),
        {ok, Again} = iommap:open(Large, read_write, [lock]),
        {ok, #{locked := false}} = iommap:info(Again)
    end).

%% Out of map entries: enomem, and room comes back with a close.
map_count_exhausted_is_enomem(Config) ->
    at_the_limit(Config, fun(Path) ->
        {ok, Before} = iommap:open(Path, read_write, []),
        {Splitter, Handles} = test_limits:exhaust_map_count(Path),
        {error, enomem} = iommap:open(Path, read, []),
        {ok, <<_>>} = iommap:pread(Before, 0, 1),
        [{ok, <<_>>} = iommap:pread(Handle, 0, 1) || Handle <- Handles],
        ok = iommap:close(Splitter),
        ok = test_processes:eventually(fun() ->
            case iommap:open(Path, read, []) of
                {ok, Handle} -> iommap:close(Handle) =:= ok;
                {error, enomem} -> false
            end
        end)
    end).

%% Putting zero pages under a view may need one entry more than there is.
a_lost_view_is_read_though_the_map_count_is_exhausted(Config) ->
    at_the_limit(Config, fun(Path) ->
        Page = test_pattern:page(),
        ok = file:write_file(Path, test_pattern:bytes(3 * Page)),
        {ok, Handle} = iommap:open(Path, read_write, []),
        {ok, View} = iommap:region_binary(Handle, 0, 3 * Page),
        _Held = test_limits:exhaust_map_count(Path),
        [] = os:cmd(io_lib:format("truncate -s ~b ~ts", [Page, Path])),
        <<_:Page/binary, 0, _/binary>> = View,
        false = iommap:intact(View),
        {error, sigbus} = iommap:pread(Handle, 0, 1)
    end).

%% Thirty thousand mappings where the system allows as many entries as it usually does.
thirty_thousand_mappings_fit_the_usual_limit(Config) ->
    many_mappings_are_safe(Config, 65_530, 30_000).

%% A hundred thousand mappings where it allows more.
a_hundred_thousand_mappings_fit_a_raised_limit(Config) ->
    many_mappings_are_safe(Config, 300_000, 100_000).

%% A file lost under any of the mappings is told apart from the rest. A truncate to less leaves the mapping before to its
%% view, so that a hundred need one descriptor. The system itself counts what is below its limit: /proc may list more entries,
%% as an emulator's does.
many_mappings_are_safe(Config, Limit, Count) ->
    Page = test_pattern:page(),
    test_limits:with_map_count(Limit, fun() ->
        limited(Config, "exec \"$@\"", [], fun(Path) ->
            Handles = [{N rem 10, open_new(Path, N rem 10)} || N <- lists:seq(1, Count div 100)],
            Mapped = [begin
                {ok, View} = iommap:region_binary(Handle, 0, Page + 1000),
                ok = iommap:truncate(Handle, 3 * Page - N),
                {Kind, View}
            end || {Kind, Handle} <- Handles, N <- lists:seq(1, 100)],
            Count = length(Mapped),
            true = map_count() > 2 * Count,
            [] = os:cmd("truncate -s 0 " ++ Path ++ ".0-*"),
            Whole = test_pattern:bytes(Page + 1000),
            Zeros = test_pattern:zeros(Page + 1000),
            [case Kind of
                0 -> {Zeros, false} = {binary:copy(View), iommap:intact(View)};
                _ -> {Whole, true} = {binary:copy(View), iommap:intact(View)}
            end || {Kind, View} <- Mapped],
            [case Kind of
                0 -> {error, sigbus} = iommap:pread(Handle, 0, 1);
                _ -> {ok, <<1>>} = iommap:pread(Handle, 0, 1)
            end || {Kind, Handle} <- Handles],
            [ok = iommap:close(Handle) || {_, Handle} <- Handles],
            ok
        end)
    end).

%% At the limit of mappings every lost view is read, however many there are and whoever reads them.
every_lost_view_is_read_at_the_limit_of_mappings(Config) ->
    Page = test_pattern:page(),
    at_the_limit(Config, fun(Path) ->
        Views = [begin
            {ok, View} = iommap:region_binary(open_new(Path, 0), 0, Page + 1000),
            View
        end || _ <- lists:seq(1, 400)],
        _Held = test_limits:exhaust_map_count(Path),
        [] = os:cmd("truncate -s 10 " ++ Path ++ ".0-*"),
        Readers = [spawn_monitor(fun() ->
            [<<_:Page/binary, 0:1000/unit:8>> = View || View <- Views],
            [false = iommap:intact(View) || View <- Views]
        end) || _ <- lists:seq(1, 4)],
        [receive {'DOWN', Monitor, process, Reader, Reason} -> normal = Reason end || {Reader, Monitor} <- Readers],
        ok
    end).

%% Evaluates the function, with a small file, in a VM that may use up its map entries.
at_the_limit(Config, Function) ->
    test_limits:alone(fun() -> limited(Config, "exec \"$@\"", [], Function) end).

open_new(Path, Kind) ->
    New = lists:flatten(io_lib:format("~s.~b-~b", [Path, Kind, erlang:unique_integer([positive])])),
    {ok, _} = file:copy(Path, New),
    {ok, Handle} = iommap:open(New, read_write, []),
    Handle.

%% The map entries of this VM.
map_count() ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    length(binary:matches(Maps, <<"\n">>)).

%% Fifty thousand views of a few mappings: intact/1 speaks of each.
fifty_thousand_views_are_safe(Config) ->
    limited(Config, "exec \"$@\"", [], fun(Path) ->
        Page = test_pattern:page(),
        ok = file:write_file(Path, test_pattern:bytes(50 * Page)),
        {ok, Handle} = iommap:open(Path, read, []),
        Views = [begin
            {ok, View} = iommap:region_binary(Handle, N rem 50 * Page + N rem 100, 200),
            {N rem 50, View}
        end || N <- lists:seq(1, 50_000)],
        [] = os:cmd("truncate -s " ++ integer_to_list(25 * Page) ++ " " ++ Path),
        [case Index >= 25 of
            true -> {<<0:200/unit:8>>, false} = {View, iommap:intact(View)};
            false -> {nomatch, true} = {binary:match(View, <<0>>), iommap:intact(View)}
        end || {Index, View} <- Views],
        ok
    end).
