//! The atoms of the API, made once; with an underscore after a word that Rust keeps for itself.

rustler::atoms! {
    ok, error, badarg, closed, out_of_bounds, sigbus, nif_panicked,
    read, write, read_write, shared, private, create, truncate, lock, populate, nocache,
    sync, async_ = "async",
    normal, random, sequential, willneed, dontneed,
    // of devices
    eof, bof, cur, append, exclusive, efault, eio, einval, regular, device, none,
    size, mode, sharing, locked, faulted, page_size,
    reserve, permissions, fd, anonymous, length, follow,
    hugepage, nohugepage, collapse, populate_read, populate_write, cold, pageout, dontdump, dodump, dontfork, dofork,
    path, offset, views, descriptor, handle, open, undefined,
    iommap, moved_lock, moved_length, moved_pages, pages_fetched, faults, zero_pages, unmaps_waiting,
}
