%% Limits of the system, used up by the VM that is asked.
-module(test_limits).

-export([exhaust_map_count/1]).
-export([open_until_error/2]).
-export([limit_address_space/1]).

%% Leaves no map entry: advice on every other page of one mapping takes them without a descriptor each,
%% and opens take what is left. The result keeps them; closing the first handle gives most of them back. Skips the case where
%% an emulator keeps the entries, which has no such limit.
-spec exhaust_map_count(file:filename()) -> {Splitter :: iommap:handle(), [iommap:handle()]}.
exhaust_map_count(Path) ->
    test_system:can_see_pages() orelse throw(test_scene:skip("the map entries are an emulator's")),
    Page = test_pattern:page(),
    {ok, Limit} = file:read_file("/proc/sys/vm/max_map_count"),
    Pages = 2 * binary_to_integer(string:trim(Limit)),
    Sparse = Path ++ ".sparse",
    [] = os:cmd("truncate -s " ++ integer_to_list(Pages * Page) ++ " " ++ Sparse),
    {ok, Splitter} = iommap:open(Sparse, read, []),
    %% madvise's word for it.
    eagain = split(Splitter, Page, 0, Pages),
    {Handles, enomem} = open_until_error(Path, 1000),
    {Splitter, Handles}.

split(_, _, Index, Pages) when Index >= Pages ->
    nothing;
split(Splitter, Page, Index, Pages) ->
    case iommap:advise(Splitter, Index * Page, Page, random) of
        ok -> split(Splitter, Page, Index + 2, Pages);
        {error, Error} -> Error
    end.

%% Opens the file so many times, or until that fails.
-spec open_until_error(file:filename(), non_neg_integer()) -> {[iommap:handle()], iommap:reason() | nothing}.
open_until_error(Path, Most) ->
    open_until_error(Path, Most, []).

open_until_error(_, 0, Handles) ->
    {Handles, nothing};
open_until_error(Path, Most, Handles) ->
    case iommap:open(Path, read, []) of
        {ok, Handle} -> open_until_error(Path, Most - 1, [Handle | Handles]);
        {error, Error} -> {Handles, Error}
    end.

%% Lets this VM have so much more address space than it has.
-spec limit_address_space(MoreKilobytes :: pos_integer()) -> ok.
limit_address_space(MoreKilobytes) ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kilobytes]} = re:run(Status, "VmSize:\\s*(\\d+) kB", [{capture, all_but_first, list}]),
    Limit = (list_to_integer(Kilobytes) + MoreKilobytes) * 1024,
    [] = os:cmd("prlimit --pid " ++ os:getpid() ++ " --as=" ++ integer_to_list(Limit) ++ ":"),
    ok.
