//! The SIGBUS handler (`c_src/handler.c`): whose it is, and what it asks of Rust.

use super::registry;
use crate::error::Error;
use crate::platform;
use crate::platform::spare::{self, Spares};
use parking_lot::Mutex;
use std::ffi::{c_int, c_void};
use std::sync::{Once, OnceLock};

mod c {
    use std::ffi::{c_int, c_void};
    extern "C" {
        pub fn iommap_guard_prepare(page_size: usize);
        pub fn iommap_guard_install(resolve: super::Resolve) -> c_int;
        pub fn iommap_guard_leave(address: usize, context: *mut c_void);
        pub fn iommap_guard_follow(leave: super::Leave, resolve: super::Resolve) -> c_int;
    }
}

extern "C" fn resolve(address: usize) -> c_int {
    c_int::from(registry::resolve(address))
}

type Leave = unsafe extern "C" fn(usize, *mut c_void);
type Resolve = extern "C" fn(usize) -> c_int;

/// The handler of an image of this library, as later images use it: one process has one handler of ours, however many
/// images were loaded.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Handler {
    install: extern "C" fn() -> c_int,
    follow: extern "C" fn(Leave, Resolve) -> c_int,
    spares: Spares,
}

impl Handler {
    /// The handler of this image.
    pub const fn own() -> Handler {
        Handler {
            install: install_own,
            follow: follow_own,
            spares: Spares::own(),
        }
    }
}

static SERIALIZED: Mutex<()> = Mutex::new(());

/// The handler that this image uses, if not its own.
static FOLLOWED: OnceLock<Handler> = OnceLock::new();

fn prepare() {
    static PREPARED: Once = Once::new();
    // SAFETY: once, before anything is guarded.
    PREPARED.call_once(|| unsafe { c::iommap_guard_prepare(platform::page_size()) });
}

extern "C" fn install_own() -> c_int {
    let _one_at_a_time = SERIALIZED.lock();
    prepare();
    // SAFETY: `resolve` is async-signal-safe (see `registry`) and never unloaded; calls are serialized.
    unsafe { c::iommap_guard_install(resolve) }
}

extern "C" fn follow_own(leave: Leave, resolve: Resolve) -> c_int {
    let _one_at_a_time = SERIALIZED.lock();
    // SAFETY: the two are another image's `iommap_guard_leave` and `resolve`, never unloaded; calls are serialized.
    unsafe { c::iommap_guard_follow(leave, resolve) }
}

/// From now on this image uses the handler of another one, which was loaded before.
pub fn follow(handler: Handler) -> Result<(), Error> {
    let mut status = 0;
    FOLLOWED.get_or_init(|| {
        prepare();
        spare::follow(handler.spares);
        status = (handler.follow)(c::iommap_guard_leave, resolve);
        handler
    });
    succeeded(status)
}

/// Puts our SIGBUS handler on top of the one that is there, if ours is not there already (`sigaction(2)`), and keeps pages for it.
///
/// Cheap when there is nothing to do, so every open calls it: a library loaded since may have taken the signal.
pub fn install() -> Result<(), Error> {
    spare::keep();
    let own = Handler::own();
    succeeded((FOLLOWED.get().unwrap_or(&own).install)())
}

fn succeeded(status: c_int) -> Result<(), Error> {
    match status {
        0 => Ok(()),
        errno => Err(Error::System(errno)),
    }
}
