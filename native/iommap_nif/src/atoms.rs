//! The atoms of the API, made once; with an underscore after a word that Rust keeps for itself.

rustler::atoms! {
    ok, error, badarg, closed, out_of_bounds, sigbus, nif_panicked,
    read, write, read_write, shared, private, create, truncate, lock, populate, nocache,
    sync, async_ = "async",
    normal, random, sequential, willneed, dontneed,
    // of devices
    eof, bof, cur, append, exclusive, efault, eio, einval, regular, device, none,
    size, mode, sharing, locked, faulted, page_size,
}
