%% A disk that is stopped at a moment, as it is when the machine ends: an image on a file system that shares blocks (xfs), which is cloned by
%% one call (FICLONE). A copy of an image that is in use would be a state that never was, and fsfreeze(8) would write what the
%% test wants to miss.
%%
%% All that the disk was given by then is in the clone, whether the disk was told to flush it or not.
-module(test_disk).

-export([new/2]).
-export([path/2]).
-export([stop/2]).
-export([recover/1]).
-export([remove/1]).

-export_type([disk/0, kind/0]).

-type kind() :: ext4 | xfs | btrfs.
-type disk() :: #{kind := kind(), host := file:filename()}.

%% Makes a disk with a file system, and mounts it.
-spec new(kind(), file:filename()) -> {ok, disk()} | {skip, string()}.
new(Kind, Directory) ->
    Host = filename:join(Directory, "host"),
    Disk = #{kind => Kind, host => Host},
    ok = filelib:ensure_path(Host),
    Commands = ["truncate -s 2G ", Host, ".image && mkfs.xfs -q -m reflink=1 ", Host, ".image && mount -o loop ", Host, ".image ", Host,
                " && mkdir ", point(Disk), " && ", make(Kind, image(Disk)), " && touch ", clone(Disk), " && ", mount(Disk)],
    case test_system:is_root() andalso test_system:shell(Commands) of
        {0, _} -> {ok, Disk};
        Not -> {skip, lists:flatten(io_lib:format("no disk of ~s, in an image on xfs: ~p", [Kind, Not]))}
    end.

make(ext4, Image) -> ["truncate -s 64M ", Image, " && mkfs.ext4 -q ", Image];
make(Kind, Image) -> ["truncate -s 320M ", Image, " && mkfs.", atom_to_list(Kind), " -q ", Image].

%% btrfs remembers disks by what they say of themselves, and takes no older state of one that it knows.
mount(#{kind := btrfs} = Disk) -> ["btrfs device scan --forget && ", mount_loop(Disk)];
mount(Disk) -> mount_loop(Disk).

mount_loop(Disk) -> ["mount -o loop ", image(Disk), " ", point(Disk)].

%% Where a file of the disk is.
-spec path(disk(), file:filename()) -> file:filename().
path(Disk, Name) -> filename:join(point(Disk), Name).

point(#{host := Host}) -> filename:join(Host, "disk").
image(#{host := Host}) -> filename:join(Host, "image").
clone(#{host := Host}) -> filename:join(Host, "clone").

%% Keeps what the disk has in this moment. The other process is there already, so that the moment is this one.
-spec stop(disk(), External :: port()) -> ok.
stop(Disk, External) ->
    ok = external_writer:try_to(External, ["reflink", clone(Disk), image(Disk)]).

%% Mounts what the disk had when it was stopped, in its place: the journal is replayed. Nothing of the disk may be in use.
-spec recover(disk()) -> ok.
recover(Disk) ->
    ok = test_processes:eventually(fun() -> element(1, test_system:shell(["umount ", point(Disk)])) =:= 0 end),
    {0, _} = test_system:shell(["mv ", clone(Disk), " ", image(Disk), " && touch ", clone(Disk), " && ", mount(Disk)]),
    ok.

-spec remove(disk()) -> ok.
remove(#{host := Host} = Disk) ->
    {0, _} = test_system:shell(["umount -l ", point(Disk), " && umount -l ", Host, " && rm -f ", Host, ".image"]),
    ok.
