%% What depends on who runs the VM and how: rights, umask, the encoding of names. Each case has a VM of its own.
-module(iommap_users_SUITE).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [file/2]).
-import(test_pattern, [bytes/1]).

-compile(export_all).

%% More than a call copies on a normal scheduler.
-define(LARGE, 3_000_000).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [open_without_permission_is_eacces,
     open_create_without_permission_is_eacces,
     file_of_another_user_is_read,
     resident_of_a_file_of_another_user_is_eperm,
     open_create_respects_every_umask,
     open_gives_the_permissions_asked_for_under_every_umask,
     open_encodes_strings_as_the_vm_does].

open_without_permission_is_eacces(_Config) ->
    %% A file that the user may not read, or not write, is eacces in the modes that need it.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Path = file(Directory, bytes(10)),
        Open = fun(Mode, Options) -> test_vm:run(Vm, fun() -> answer(iommap:open(Path, Mode, Options)) end) end,
        ok = file:change_mode(Path, 8#444),
        ?assertEqual(ok, Open(read, [])),
        ?assertEqual({error, eacces}, Open(write, [])),
        ?assertEqual({error, eacces}, Open(read_write, [])),
        ok = file:change_mode(Path, 8#000),
        [?assertEqual({error, eacces}, Open(Mode, [])) || Mode <- [read, write, read_write]],
        ?assertEqual({error, eacces}, Open(write, [truncate, {size, 5}])),
        ?assertEqual({error, eacces}, test_vm:run(Vm, fun() -> answer(iommap:read_file(Path)) end)),
        ok = file:change_mode(Path, 8#600),
        ?assertEqual({ok, bytes(10)}, file:read_file(Path))
    end).

open_create_without_permission_is_eacces(_Config) ->
    %% A directory that the user may not write to, or not enter, gives no new file and no old one.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Below = filename:join(Directory, "below"),
        Path = filename:join(Below, "new"),
        Open = fun(Mode, Options) -> test_vm:run(Vm, fun() -> answer(iommap:open(Path, Mode, Options)) end) end,
        ok = file:make_dir(Below),
        ok = file:change_mode(Below, 8#555),
        ?assertEqual({error, eacces}, Open(write, [create, {size, 5}])),
        ok = file:change_mode(Below, 8#000),
        ?assertEqual({error, eacces}, Open(read, [])),
        ok = file:change_mode(Below, 8#755),
        ?assertEqual({ok, []}, file:list_dir(Below))
    end).

file_of_another_user_is_read(_Config) ->
    %% A file that the user may read but not write is read all the same, in memory or not, short or long.
    in_a_vm(another_user(), fun(Vm, Directory) ->
        Path = file(Directory, bytes(?LARGE)),
        ok = file:change_mode(Path, 8#444),
        test_vm:run(Vm, fun() ->
            Expected = bytes(?LARGE),
            {ok, Handle} = iommap:open(Path, read, []),
            [begin
                 ok = test_files:drop_cache(Path),
                 [?assertEqual({ok, binary:part(Expected, 0, Length)}, iommap:pread(Handle, 0, Length)) ||
                     Length <- [1, 8, 5000, 100_000, ?LARGE], _Again <- [1, 2]]
             end || _ <- lists:seq(1, 3)]
        end)
    end).

resident_of_a_file_of_another_user_is_eperm(_Config) ->
    %% The system tells who may not write to a file that all of it is in memory; that is no answer. It tells the truth to who may.
    case test_system:is_root() of
        true ->
            in_a_vm(another_user(), fun(Vm, Directory) ->
                Path = file(Directory, bytes(100_000)),
                Ask = fun(Mode) ->
                    ok = file:change_mode(Path, Mode),
                    test_vm:run(Vm, fun() ->
                        {ok, Handle} = iommap:open(Path, read, []),
                        [iommap:resident(Handle, Offset, Length) || {Offset, Length} <-
                            [{0, 100_000}, {99_999, 1}, {5, 0}, {100_000, 1}]]
                    end)
                end,
                ?assertEqual([{error, eperm}, {error, eperm}, {ok, 0}, {error, out_of_bounds}], Ask(8#444)),
                ?assertEqual([{ok, 100_000}, {ok, 1}, {ok, 0}, {error, out_of_bounds}], Ask(8#666)),
                ?assertEqual([{error, eperm}, {error, eperm}, {ok, 0}, {error, out_of_bounds}], Ask(8#644))
            end);
        false ->
            {skip, "another user needs root"}
    end.

open_create_respects_every_umask(_Config) ->
    %% A file made by open has the mode 8#644 without the bits of the umask.
    [in_a_vm(#{wrapper => "umask " ++ Umask ++ "; exec \"$@\""}, fun(Vm, Directory) ->
         Path = filename:join(Directory, "new"),
         ok = test_vm:run(Vm, fun() -> answer(iommap:open(Path, [create, {size, 10}])) end),
         {ok, #file_info{mode = Actual}} = file:read_file_info(Path),
         ?assertEqual({Umask, Mode}, {Umask, Actual band 8#7777})
     end) || {Umask, Mode} <- [{"000", 8#644}, {"022", 8#644}, {"027", 8#640}, {"077", 8#600}]].

open_gives_the_permissions_asked_for_under_every_umask(_Config) ->
    %% A user's new file has the permissions given without the umask's bits, also those that writing takes away.
    [in_a_vm(another_user("umask " ++ Umask ++ "; "), fun(Vm, Directory) ->
         [begin
              Path = filename:join(Directory, integer_to_list(Permissions, 8)),
              Options = [create, {size, 10}, {permissions, Permissions}],
              ok = test_vm:run(Vm, fun() -> answer(iommap:open(Path, Options)) end),
              {ok, #file_info{mode = Actual}} = file:read_file_info(Path),
              ?assertEqual({Umask, Permissions band bnot list_to_integer(Umask, 8)}, {Umask, Actual band 8#7777})
          end || Permissions <- [0, 8#400, 8#200, 8#600, 8#666, 8#777, 8#4755, 8#6777]]
     end) || Umask <- ["000", "027", "777"]].

open_encodes_strings_as_the_vm_does(_Config) ->
    %% A string path is UTF-8 or Latin-1 as file:native_name_encoding/0 says; what Latin-1 lacks is badarg.
    [in_a_vm(#{env => [{"ERL_FLAGS", Flag}]}, fun(Vm, Directory) ->
         Path = filename:join(Directory, "name \x{e5}"),
         ok = file:write_file(unicode:characters_to_binary(Path, unicode, Encoding), bytes(10)),
         test_vm:run(Vm, fun() ->
             ?assertEqual(Encoding, file:native_name_encoding()),
             ?assertMatch({ok, _}, iommap:open(Path, read, [])),
             ?assertEqual({error, BeyondLatin}, iommap:open(filename:join(Directory, "name \x{3b1}"), read, []))
         end)
     end) || {Flag, Encoding, BeyondLatin} <- [{"+fnu", utf8, enoent}, {"+fnl", latin1, badarg}]].

%% A VM with these options, and a directory that all users may use.
in_a_vm(Options, Test) ->
    test_files:with_directory(fun(Directory) ->
        ok = file:change_mode(Directory, 8#777),
        Vm = test_vm:start(Options#{application => test_system:copy_library(Directory),
                                    args => ["+S", "1:1", "+SDio", "1", "+A", "1"],
                                    modules => [test_files, test_pattern, test_processes, test_system]}),
        try Test(Vm, Directory) after test_vm:stop(Vm) end
    end).

another_user() ->
    another_user("").

another_user(First) ->
    case test_system:is_root() of
        true -> #{wrapper => First ++ "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\""};
        false -> #{wrapper => First ++ "exec \"$@\""}
    end.

%% What a call answered, without what it returned: another VM's handles mean nothing here.
answer({ok, _}) -> ok;
answer(Answer) -> Answer.
