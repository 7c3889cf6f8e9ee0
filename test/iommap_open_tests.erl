%% open: modes, options, paths, and what is refused.
-module(iommap_open_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-import(test_files, [with_directory/1, with_file/2, with_mapping/2, with_mapping/4]).
-import(test_pattern, [bytes/1, zeros/1, page/0]).

-define(MODES, [read, write, read_write]).

%% Modes

open_answers_a_reference_test() ->
    %% A handle is a reference, another one for every open.
    with_file(<<"0123456789">>, fun(Path) ->
        {ok, One} = iommap:open(Path, read, []),
        {ok, Two} = iommap:open(Path, read, []),
        ?assert(is_reference(One)),
        ?assert(is_reference(Two)),
        ?assertNotEqual(One, Two)
    end).

open_without_a_mode_reads_and_writes_test() ->
    %% open/2 without a mode among its options opens for both.
    with_file(<<"0123456789">>, fun(Path) ->
        {ok, Handle} = iommap:open(Path, []),
        ?assertEqual(ok, iommap:pwrite(Handle, 0, <<"ab">>)),
        ?assertEqual({ok, <<"ab2">>}, iommap:pread(Handle, 0, 3))
    end).

open_takes_the_mode_from_its_options_test() ->
    %% open/2 with one mode among its options opens in that mode, wherever it stands.
    with_file(<<"0123456789">>, fun(Path) ->
        [begin
             {ok, Handle} = iommap:open(Path, Options),
             {ok, Info} = iommap:info(Handle),
             ?assertMatch(#{mode := Mode}, Info)
         end || Mode <- ?MODES,
                Options <- [[Mode], [Mode, shared, populate], [shared, Mode, populate], [shared, populate, Mode]]]
    end).

open_for_reading_refuses_changes_test() ->
    %% Through a handle opened with read nothing can be written or resized.
    with_mapping(<<"0123456789">>, read, [], fun(Handle, Path) ->
        ?assertEqual({ok, <<"345">>}, iommap:pread(Handle, 3, 3)),
        ?assertEqual({ok, <<"345">>}, iommap:region_binary(Handle, 3, 3)),
        ?assertEqual({error, eacces}, iommap:pwrite(Handle, 0, <<"a">>)),
        ?assertEqual({error, eacces}, iommap:truncate(Handle, 5)),
        ?assertEqual({error, eacces}, iommap:truncate(Handle, 10)),
        ?assertEqual({ok, <<"0123456789">>}, file:read_file(Path))
    end).

open_for_writing_refuses_reads_test() ->
    %% Through a handle opened with write nothing can be read or viewed, and all can be written.
    with_mapping(<<"0123456789">>, write, [], fun(Handle, Path) ->
        ?assertEqual({error, eacces}, iommap:pread(Handle, 3, 3)),
        ?assertEqual({error, eacces}, iommap:pread(Handle, 0, 0)),
        ?assertEqual({error, eacces}, iommap:region_binary(Handle, 3, 3)),
        ?assertEqual(ok, iommap:pwrite(Handle, 0, <<"ab">>)),
        ?assertEqual(ok, iommap:truncate(Handle, 3)),
        ?assertEqual({ok, <<"ab2">>}, file:read_file(Path))
    end).

%% Sharing

open_shares_by_default_test() ->
    %% Without an option, and with shared, writes go into the file.
    [with_mapping(<<"0123456789">>, read_write, Options, fun(Handle, Path) ->
         ok = iommap:pwrite(Handle, 0, <<"ab">>),
         ?assertEqual({ok, <<"ab23456789">>}, file:read_file(Path))
     end) || Options <- [[], [shared]]].

open_private_keeps_writes_from_the_file_test() ->
    %% Writes to a private mapping are seen through its handle only.
    with_mapping(<<"0123456789">>, read_write, [private], fun(Handle, Path) ->
        {ok, Other} = iommap:open(Path, read_write, [private]),
        ok = iommap:pwrite(Handle, 0, <<"ab">>),
        ok = iommap:sync(Handle),
        ?assertEqual({ok, <<"ab2">>}, iommap:pread(Handle, 0, 3)),
        ?assertEqual({ok, <<"ab2">>}, iommap:region_binary(Handle, 0, 3)),
        ?assertEqual({ok, <<"012">>}, iommap:pread(Other, 0, 3)),
        ok = iommap:close(Handle),
        ?assertEqual({ok, <<"0123456789">>}, file:read_file(Path))
    end).

%% Other options

open_takes_every_option_test() ->
    %% populate, lock and nocache change no result, on any platform, in any mode and sharing.
    Bytes = bytes(2 * page() + 1),
    [with_mapping(Bytes, Mode, [Sharing | Options], fun(Handle, _Path) ->
         Mode =:= write orelse ?assertEqual({ok, Bytes}, iommap:pread(Handle, 0, byte_size(Bytes))),
         Mode =:= read orelse ?assertEqual(ok, iommap:pwrite(Handle, page() - 1, <<"ab">>))
     end) || Mode <- ?MODES, Sharing <- [shared, private],
             Options <- [[populate], [lock], [nocache], [populate, lock, nocache], [lock, lock]]].

open_private_reads_in_what_is_still_the_files_test_() ->
    %% populate and lock bring all of a private mapping into memory as the file's cache, not as a copy of it; a write makes
    %% a copy of its page.
    Pages = 256,
    Bytes = bytes(Pages * page()),
    [{lists:flatten(io_lib:format("~p ~p", [Mode, Options])), fun() ->
         with_mapping(Bytes, Mode, [private | Options], fun(Handle, Path) ->
             ?assertEqual(Pages * page(), test_system:resident(Path)),
             ?assertEqual(0, test_system:anonymous(Path)),
             Mode =:= read orelse begin
                 ok = iommap:pwrite(Handle, 3 * page(), <<"ab">>),
                 ?assertEqual(page(), test_system:anonymous(Path))
             end,
             ?assertEqual({ok, Bytes}, file:read_file(Path))
         end)
     end} || test_system:can_see_pages(), Mode <- ?MODES, Options <- [[populate], [lock], [lock, populate]]].

open_private_lock_goes_on_when_the_file_grows_test() ->
    %% What a locked private mapping grows by is locked and in memory too, and its changes are kept.
    Pages = 64,
    with_mapping(bytes(Pages * page()), read_write, [private, lock], fun(Handle, Path) ->
        {ok, #{locked := Locked}} = iommap:info(Handle),
        ok = iommap:pwrite(Handle, 0, <<"ab">>),
        ok = iommap:truncate(Handle, 2 * Pages * page()),
        ?assertMatch({ok, #{locked := Locked}}, iommap:info(Handle)),
        ?assertEqual({ok, <<"ab">>}, iommap:pread(Handle, 0, 2)),
        test_system:can_see_pages() andalso ?assertEqual(2 * Pages * page(), test_system:resident(Path))
    end).

open_create_makes_the_file_test() ->
    %% create makes a missing file, of the size asked for, full of zeros.
    [with_directory(fun(Directory) ->
         Path = filename:join(Directory, "new"),
         {ok, Handle} = iommap:open(Path, Mode, Options),
         ?assertEqual({ok, 5000}, iommap:position(Handle)),
         ?assertEqual({ok, zeros(5000)}, file:read_file(Path))
     end) || Mode <- [write, read_write], Options <- [[create, {size, 5000}], [{size, 5000}, create],
                                                      [create, truncate, {size, 5000}]]].

open_create_keeps_an_existing_file_test() ->
    %% create opens a file that is there as it is.
    with_mapping(<<"0123456789">>, read_write, [create], fun(Handle, _Path) ->
        ?assertEqual({ok, <<"0123456789">>}, iommap:pread(Handle, 0, 10))
    end).

open_create_makes_what_a_link_leads_to_test() ->
    %% With create, a symbolic link to a file that is not there makes that file.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        ok = file:make_symlink(Path, Path ++ "-link"),
        ?assertEqual({error, enoent}, iommap:open(Path ++ "-link", [{size, 10}])),
        ?assertMatch({ok, _}, iommap:open(Path ++ "-link", [create, {size, 10}])),
        ?assertEqual({ok, zeros(10)}, file:read_file(Path))
    end).

open_create_without_a_size_makes_nothing_test() ->
    %% A new file would be empty, which cannot be mapped: einval, and no file appears.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        [begin
             ?assertEqual({error, einval}, iommap:open(Path, Mode, Options)),
             ?assertEqual({error, enoent}, file:read_file_info(Path))
         end || Mode <- [write, read_write], Options <- [[create], [create, {size, 0}], [create, truncate]]]
    end).

open_truncate_empties_the_file_first_test() ->
    %% truncate with a size gives exactly that size, longer or shorter, all of it zeros.
    [with_mapping(bytes(5000), Mode, [truncate, {size, Size}], fun(Handle, Path) ->
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         ?assertEqual({ok, zeros(Size)}, file:read_file(Path))
     end) || Mode <- [write, read_write], Size <- [1, 4999, 5000, 5001, 3 * page()]].

open_truncate_without_a_size_touches_nothing_test() ->
    %% A file made empty cannot be mapped: einval, and the file keeps its contents.
    with_file(bytes(5000), fun(Path) ->
        [begin
             ?assertEqual({error, einval}, iommap:open(Path, Mode, Options)),
             ?assertEqual({ok, bytes(5000)}, file:read_file(Path))
         end || Mode <- [write, read_write], Options <- [[truncate], [truncate, {size, 0}], [create, truncate]]]
    end).

open_size_grows_a_smaller_file_test() ->
    %% A size above the file's lengthens the file with zeros.
    [with_mapping(bytes(5000), Mode, [{size, Size}], fun(Handle, Path) ->
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         ?assertEqual({ok, <<(bytes(5000))/binary, (zeros(Size - 5000))/binary>>}, file:read_file(Path))
     end) || Mode <- [write, read_write], Size <- [5001, 2 * page(), 2 * page() + 1]].

open_size_grows_an_empty_file_test() ->
    %% A file without bytes can be mapped when the size gives it some.
    [with_mapping(<<>>, Mode, [{size, Size}], fun(Handle, Path) ->
         ?assertEqual({ok, Size}, iommap:position(Handle)),
         ?assertEqual({ok, zeros(Size)}, file:read_file(Path))
     end) || Mode <- [write, read_write], Size <- [1, page(), page() + 1]].

open_size_never_shrinks_test() ->
    %% A size up to the file's leaves the file as it is, also for readers.
    [with_mapping(bytes(5000), Mode, [{size, Size}], fun(Handle, Path) ->
         ?assertEqual({ok, 5000}, iommap:position(Handle)),
         ?assertEqual({ok, bytes(5000)}, file:read_file(Path))
     end) || Mode <- ?MODES, Size <- [0, 1, 4999, 5000]].

open_size_allocates_the_blocks_test() ->
    %% The room of a file that open made or lengthened is really there, not a hole.
    Size = 2_000_000,
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "new"),
        {ok, _} = iommap:open(Path, [create, {size, Size}]),
        ?assert(test_system:allocated(Path) >= Size)
    end),
    [with_mapping(bytes(5000), read_write, Options, fun(_Handle, Path) ->
         ?assert(test_system:allocated(Path) >= Size)
     end) || Options <- [[{size, Size}], [truncate, {size, Size}]]].

open_lets_later_options_win_test() ->
    %% Of two options that disagree, the later one counts.
    with_mapping(bytes(10), read_write, [private, shared, {size, 30}, {size, 20}], fun(Handle, Path) ->
        ?assertEqual({ok, 20}, iommap:position(Handle)),
        ok = iommap:pwrite(Handle, 0, <<"ab">>),
        ?assertMatch({ok, <<"ab", _:18/binary>>}, file:read_file(Path))
    end),
    with_mapping(bytes(10), read_write, [shared, private, {size, 20}, {size, 30}], fun(Handle, Path) ->
        ?assertEqual({ok, 30}, iommap:position(Handle)),
        ok = iommap:pwrite(Handle, 0, <<"ab">>),
        ?assertEqual({ok, <<(bytes(10))/binary, (zeros(20))/binary>>}, file:read_file(Path))
    end).

open_for_reading_changes_no_file_test() ->
    %% read with create, truncate or a larger size is einval; the file stays, and none is made.
    with_file(bytes(10), fun(Path) ->
        [begin
             ?assertEqual({error, einval}, iommap:open(Path, read, Options)),
             ?assertEqual({error, einval}, iommap:open(Path, [read | Options])),
             ?assertEqual({ok, bytes(10)}, file:read_file(Path))
         end || Options <- [[create], [truncate], [{size, 11}], [create, {size, 5}], [truncate, {size, 5}],
                            [{size, 16#8000000000000000}], [{size, 16#FFFFFFFFFFFFFFFF}]]],
        Missing = Path ++ "-missing",
        [begin
             ?assertEqual({error, einval}, iommap:open(Missing, read, Options)),
             ?assertEqual({error, enoent}, file:read_file_info(Missing))
         end || Options <- [[create], [truncate], [create, {size, 5}]]]
    end).

%% Paths

open_takes_every_form_of_path_test() ->
    %% A path may be a string or a binary.
    with_file(<<"0123456789">>, fun(Path) ->
        [?assertMatch({ok, _}, iommap:open(Form, read, [])) || Form <- [Path, list_to_binary(Path)]]
    end).

open_takes_strings_as_the_file_module_does_test() ->
    %% A string names the same file as it does for file:read_file/1, whatever its code points.
    [with_directory(fun(Directory) ->
         Path = filename:join(Directory, Name),
         case file:write_file(Path, <<"0123456789">>) of
             ok ->
                 {ok, Handle} = iommap:open(Path, read, []),
                 ?assertEqual({ok, <<"0123456789">>}, iommap:pread(Handle, 0, 10));
             {error, badarg} ->
                 ?assertEqual({error, badarg}, iommap:open(Path, read, []))
         end
     end) || Name <- ["latin \x{e5}\x{f6}", "greek \x{3b1}\x{3c9}", "han \x{6f22}", "smile \x{1f600}"]].

open_takes_binaries_as_they_are_test() ->
    %% The bytes of a binary are the name, also where they are no UTF-8.
    with_directory(fun(Directory) ->
        Path = <<(list_to_binary(Directory))/binary, "/", 255, 254, 128, 1, "\n">>,
        ok = file:write_file(Path, <<"0123456789">>),
        {ok, Handle} = iommap:open(Path, read, []),
        ?assertEqual({ok, <<"345">>}, iommap:pread(Handle, 3, 3))
    end).

open_takes_a_view_as_a_path_test() ->
    %% The bytes of a view, or of a part of one, are the name, also where they begin inside a byte.
    with_directory(fun(Directory) ->
        Name = list_to_binary(string:pad(filename:join(Directory, "file"), 200, trailing, $x)),
        ok = file:write_file(Name, <<"0123456789">>),
        ok = file:write_file(filename:join(Directory, "names"), <<Name/binary, 0, (shifted(Name))/binary>>),
        {ok, Names} = iommap:open(filename:join(Directory, "names"), read, []),
        {ok, View} = iommap:region_binary(Names, 0, byte_size(Name)),
        {ok, Whole} = iommap:region_binary(Names, 0, 2 * byte_size(Name) + 2),
        <<Part:(byte_size(Name))/binary, 0, _:3, Unaligned:(byte_size(Name))/binary, _:5>> = Whole,
        [begin
             {ok, Handle} = iommap:open(Path, read, []),
             ?assertEqual({ok, <<"345">>}, iommap:pread(Handle, 3, 3))
         end || Path <- [View, Part, Unaligned]],
        ?assertError(badarg, iommap:open(Whole, read, []))
    end).

open_of_a_path_that_its_view_lost_is_sigbus_test() ->
    %% The zeros in the place of a name are nothing that anybody called a file.
    test_processes:in_a_process(fun() ->
        with_mapping(bytes(2 * page()), fun(Names, File) ->
            {ok, View} = iommap:region_binary(Names, page(), 100),
            {ok, Device} = file:open(File, [raw, read, write]),
            {ok, _} = file:position(Device, page()),
            ok = file:truncate(Device),
            ok = file:close(Device),
            ?assertEqual({error, sigbus}, iommap:open(View, read, [])),
            ?assertEqual({error, sigbus}, iommap:open(["/tmp", View], read, [])),
            ?assertError(badarg, iommap:open(zeros(100), read, []))
        end)
    end).

%% The bytes from the fourth bit on.
shifted(Bytes) ->
    <<0:3, Bytes/binary, 0:5>>.

the_last_mode_among_the_options_counts_test() ->
    with_file(<<"0123456789">>, fun(Path) ->
        [begin
             {ok, Handle} = iommap:open(Path, Modes),
             ?assertMatch({Modes, {ok, #{mode := Last}}}, {Modes, iommap:info(Handle)}),
             ok = iommap:close(Handle)
         end || {Modes, Last} <- [{[read, read_write], read_write}, {[read_write, read], read},
                                  {[write, lock, read, shared, read_write], read_write}]]
    end).

open_takes_relative_paths_test() ->
    %% A path that does not begin at the root begins at the VM's working directory.
    with_file(<<"0123456789">>, fun(Path) ->
        {ok, Directory} = file:get_cwd(),
        Up = lists:duplicate(length(filename:split(Directory)) - 1, "../"),
        ?assertMatch({ok, _}, iommap:open(lists:append(Up) ++ tl(Path), read, []))
    end).

open_follows_links_test() ->
    %% A symbolic link to a file stands for the file.
    with_file(<<"0123456789">>, fun(Path) ->
        ok = file:make_symlink(Path, Path ++ "-link"),
        {ok, Handle} = iommap:open(Path ++ "-link", read, []),
        ?assertEqual({ok, <<"345">>}, iommap:pread(Handle, 3, 3))
    end).

open_raises_for_a_nul_in_the_path_test() ->
    %% A NUL never cuts a path short: it raises, and nothing is opened or made.
    with_file(<<"0123456789">>, fun(Path) ->
        Binary = list_to_binary(Path),
        [begin
             ?assertError(badarg, iommap:open(Form, [])),
             [?assertError(badarg, iommap:open(Form, Mode, [create, {size, 5}])) || Mode <- ?MODES]
         end || Form <- [<<Binary/binary, 0>>, <<Binary/binary, 0, "tail">>, <<0, Binary/binary>>, <<0>>,
                         Path ++ [0], Path ++ [0 | "tail"], [0 | Path], [0]]],
        ?assertEqual({ok, ["file"]}, file:list_dir(filename:dirname(Path)))
    end).

%% What the system refuses

open_of_a_missing_file_is_enoent_test() ->
    %% A file that is not there is enoent, and stays so.
    with_directory(fun(Directory) ->
        [begin
             ?assertEqual({error, enoent}, iommap:open(Path, Mode, Options)),
             ?assertEqual({ok, []}, file:list_dir(Directory))
         end || Path <- [filename:join(Directory, "missing"), filename:join([Directory, "missing", "file"])],
                Mode <- ?MODES,
                Options <- [[], [{size, 10}]]],
        ?assertEqual({error, enoent}, iommap:open(filename:join([Directory, "missing", "file"]), [create, {size, 1}])),
        ?assertEqual({error, enoent}, iommap:open(filename:join(Directory, "missing"), [truncate, {size, 1}]))
    end).

open_of_no_name_is_enoent_test() ->
    %% The empty path names no file.
    [?assertEqual({error, enoent}, iommap:open(Path, Mode, [])) || Path <- ["", <<>>], Mode <- ?MODES].

open_of_an_empty_file_is_einval_test() ->
    %% A file without bytes cannot be mapped.
    with_file(<<>>, fun(Path) ->
        [?assertEqual({error, einval}, iommap:open(Path, Mode, Options))
            || Mode <- ?MODES, Options <- [[], [private], [{size, 0}], [populate]]]
    end).

open_of_a_directory_is_eisdir_test() ->
    %% A directory is eisdir in every mode.
    with_directory(fun(Directory) ->
        [?assertEqual({error, eisdir}, iommap:open(Path, Mode, []))
            || Path <- [Directory, Directory ++ "/", Directory ++ "/."], Mode <- ?MODES],
        ?assertEqual({error, eisdir}, iommap:open(Directory, [create, {size, 10}]))
    end).

open_through_a_file_is_enotdir_test() ->
    %% A path that goes on after a file is enotdir.
    with_file(<<"0123456789">>, fun(Path) ->
        [?assertEqual({error, enotdir}, iommap:open(filename:join(Path, "below"), Mode, [])) || Mode <- ?MODES]
    end).

open_of_links_in_a_circle_is_eloop_test() ->
    %% A symbolic link that leads to itself is eloop.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "circle"),
        ok = file:make_symlink(Path, Path),
        [?assertEqual({error, eloop}, iommap:open(Path, Mode, [])) || Mode <- ?MODES]
    end).

open_of_a_long_name_is_enametoolong_test() ->
    %% A name longer than the file system's longest is enametoolong, of one part or of many.
    with_directory(fun(Directory) ->
        [?assertEqual({error, enametoolong}, iommap:open(filename:join(Directory, Name), read, []))
            || Name <- [lists:duplicate(300, $a), lists:append(lists:duplicate(5000, "a/")) ++ "a"]]
    end).

open_never_blocks_on_a_pipe_test() ->
    %% A named pipe is einval at once, whether or not anyone stands at its other end.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "pipe"),
        _ = test_system:run("mkfifo", [Path]),
        [?assertEqual({error, einval}, iommap:open(Path, Mode, Options))
            || Mode <- ?MODES, Options <- [[], [private], [{size, 0}]]],
        [?assertEqual({error, einval}, iommap:open(Path, Mode, Options))
            || Mode <- [write, read_write], Options <- [[create], [truncate, {size, 10}], [{size, 10}]]]
    end).

open_of_a_socket_is_einval_test() ->
    %% A local socket is no file to map.
    with_directory(fun(Directory) ->
        Path = filename:join(Directory, "socket"),
        {ok, Socket} = gen_tcp:listen(0, [{ifaddr, {local, Path}}]),
        [?assertEqual({error, einval}, iommap:open(Path, Mode, [])) || Mode <- ?MODES],
        ok = gen_tcp:close(Socket)
    end).

open_of_a_character_device_is_einval_test() ->
    %% A character device is no file to map, even one that the system could map.
    [?assertEqual({error, einval}, iommap:open(Path, Mode, Options))
        || Path <- ["/dev/null", "/dev/zero"], Mode <- ?MODES, Options <- [[], [private]]],
    [?assertEqual({error, einval}, iommap:open(Path, Mode, [{size, 10}]))
        || Path <- ["/dev/null", "/dev/zero"], Mode <- [write, read_write]].

open_of_a_size_that_no_file_has_is_efbig_test() ->
    %% A size beyond every file system's is efbig, and the file stays as it was.
    with_file(bytes(10), fun(Path) ->
        [begin
             ?assertEqual({error, efbig}, iommap:open(Path, Mode, Options)),
             ?assertEqual({ok, bytes(10)}, file:read_file(Path))
         end || Mode <- [write, read_write], Size <- [16#8000000000000000, 16#FFFFFFFFFFFFFFFF],
                Options <- [[{size, Size}], [private, {size, Size}]]]
    end).

%% What holds for the descriptor

open_leaves_no_descriptor_behind_when_it_fails_test() ->
    %% After an open that was refused the file can be deleted and nothing holds it.
    with_file(<<>>, fun(Path) ->
        [?assertMatch({error, _}, iommap:open(Path, Mode, [])) || Mode <- ?MODES],
        case os:type() of
            {unix, linux} -> ?assertEqual([], test_system:descriptors(Path));
            _ -> io:format(user, "skipped: descriptors are counted in /proc, which is Linux's~n", [])
        end
    end).
