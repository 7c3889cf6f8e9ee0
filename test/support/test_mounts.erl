%% Real file systems, each on a device, memory or daemon of its own.
-module(test_mounts).

-export([mount/2]).
-export([unmount/1, sync/1]).
-export([path/2]).
-export([behind/2]).
-export([control/3]).
-export([reads/2]).
-export([waiting/2]).
-export([closing/2]).

-export_type([mount/0, kind/0]).

-type kind() :: ext4 | xfs | btrfs | {btrfs | tmpfs, Options :: string()} | vfat | overlayfs | faultfs | faultfs_direct_io.
-type mount() :: #{kind := kind(), point := file:filename()}.

%% Mounts a file system of its own at Directory/KIND.
-spec mount(kind(), file:filename()) -> {ok, mount()} | {skip, string()}.
mount(Kind, Directory) ->
    Point = filename:join(Directory, name(Kind)),
    ok = filelib:ensure_path(Point),
    case lacks(Kind) of
        nothing ->
            case test_system:shell(command(Kind, Point)) of
                {0, _} -> {ok, #{kind => Kind, point => Point}};
                {_, Output} -> skip(Kind, Output)
            end;
        Lack ->
            skip(Kind, Lack)
    end.

lacks(faultfs_direct_io) ->
    lacks(faultfs);
lacks(faultfs) ->
    case filelib:is_regular(test_tools:built("faultfs")) of
        true -> nothing;
        false -> "it is built where libfuse3 is"
    end;
lacks(_) ->
    case test_system:is_root() of
        true -> nothing;
        false -> "mounting needs root"
    end.

skip(Kind, Why) ->
    Reason = lists:flatten(io_lib:format("no ~s: ~s", [name(Kind), Why])),
    io:put_chars(user, ["Skipped: ", Reason, $\n]),
    {skip, Reason}.

name({Kind, _}) -> atom_to_list(Kind);
name(Kind) -> atom_to_list(Kind).

command(ext4, Point) -> on_loop_device(Point, "64M", "mkfs.ext4 -q");
command(xfs, Point) -> on_loop_device(Point, "320M", "mkfs.xfs -q");
command(btrfs, Point) -> command({btrfs, "defaults"}, Point);
command({btrfs, Options}, Point) -> on_loop_device(Point, "320M", "mkfs.btrfs -q", "," ++ Options);
command(vfat, Point) -> on_loop_device(Point, "64M", "mkfs.vfat > /dev/null");
%% Its upper layer is an ext4.
command(overlayfs, Point) ->
    Upper = Point ++ ".upper",
    ["mkdir -p ", Upper, " && ", command(ext4, Upper), " && cd ", Upper, " && mkdir upper lower work",
     " && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work ", Point];
command({tmpfs, Options}, Point) -> ["mount -t tmpfs -o ", Options, " iommap-test ", Point];
command(faultfs, Point) -> faultfs(Point, "");
command(faultfs_direct_io, Point) -> faultfs(Point, " --direct-io").

faultfs(Point, Options) ->
    ["mkdir -p ", Point, ".backing && ", test_tools:built("faultfs"), Options, " ", Point, ".backing ", Point].

on_loop_device(Point, Size, Make) ->
    on_loop_device(Point, Size, Make, "").

on_loop_device(Point, Size, Make, Options) ->
    Image = [Point, ".image"],
    ["truncate -s ", Size, " ", Image, " && ", Make, " ", Image,
     " && mount -o loop", Options, " ", Image, " ", Point].

-spec unmount(mount()) -> ok.
unmount(#{kind := Kind, point := Point}) when Kind =:= faultfs; Kind =:= faultfs_direct_io ->
    {0, _} = test_system:shell(["fusermount3 -u -z ", Point]),
    ok;
unmount(#{kind := overlayfs, point := Point}) ->
    {0, _} = test_system:shell(["umount -l ", Point]),
    unmount(#{kind => ext4, point => Point ++ ".upper"});
unmount(#{point := Point}) ->
    {0, _} = test_system:shell(["umount -l ", Point, " && rm -f ", Point, ".image"]),
    ok.

%% Writes back what this file system has, and no other: one that hangs for another test would hang here, too, and be changed by it.
-spec sync(mount()) -> ok.
sync(#{point := Point}) ->
    {0, _} = test_system:shell(["sync -f ", Point]),
    ok.

-spec path(mount(), file:filename()) -> file:filename().
path(#{point := Point}, Name) ->
    filename:join(Point, Name).

%% Where faultfs, or the upper layer of an overlay, keeps the file.
-spec behind(mount(), file:filename()) -> file:filename().
behind(#{kind := overlayfs, point := Point}, Name) ->
    filename:join([Point ++ ".upper", "upper", Name]);
behind(#{kind := faultfs, point := Point}, Name) ->
    filename:join(Point ++ ".backing", Name).

%% Asks faultfs for trouble with a file, or for its end: see c/faultfs.c.
-spec control(mount(), file:filename(), {Verb :: atom(), [integer()]}) -> ok.
control(#{kind := faultfs} = Mount, Name, {Verb, Numbers}) ->
    Command = lists:join(" ", [atom_to_list(Verb), "/" ++ Name | [integer_to_list(N) || N <- Numbers]]),
    ok = file:write_file(path(Mount, ".control"), Command).

%% How many reads of the file have come to faultfs, since the file was first in trouble.
-spec reads(mount(), file:filename()) -> non_neg_integer().
reads(Mount, Name) ->
    reported(Mount, Name, reads).

%% How many calls of the file hang in faultfs now, but for closes.
-spec waiting(mount(), file:filename()) -> non_neg_integer().
waiting(Mount, Name) ->
    reported(Mount, Name, waiting).

%% How many closes of it hang. The system may send those late that came before, as that of a writer.
-spec closing(mount(), file:filename()) -> non_neg_integer().
closing(Mount, Name) ->
    reported(Mount, Name, closing).

reported(#{kind := faultfs} = Mount, Name, What) ->
    {ok, Report} = file:read_file(path(Mount, ".control")),
    Lines = [string:lexemes(Line, " ") || Line <- string:lexemes(binary_to_list(Report), "\n")],
    Column = #{reads => 3, waiting => 5, closing => 7},
    lists:sum([list_to_integer(lists:nth(maps:get(What, Column), Line)) || ["/" ++ File | _] = Line <- Lines, File =:= Name]).
