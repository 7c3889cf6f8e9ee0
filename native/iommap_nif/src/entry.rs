//! What the VM sees of the library: the table of NIFs, and its loading.

use crate::calls::{advise, info, open, read, resize, view, write};
use crate::dispatch::{self, enter, Call};
use crate::image::{self, Image};
use crate::{atoms, resource};
use iommap_core::Wait;
use rustler::sys::{self, ErlNifEntry, ErlNifEnv, ErlNifFunc, ERL_NIF_TERM};
use std::ffi::{c_int, c_uint, c_void, CStr};
use std::sync::Once;

/// Every NIF: its number for other images, its name and arity, where it starts, and its body.
///
/// The numbers count from 0, and are only ever added to (see `image`).
macro_rules! nifs {
    ($($number:literal: $name:literal / $arity:literal, $start:ident, $body:path;)*) => {
        &[$(ErlNifFunc {
            name: concat!($name, "\0").as_ptr().cast(),
            arity: $arity,
            function: {
                const NAME: &CStr = match CStr::from_bytes_with_nul(concat!($name, "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                };
                static CALL: Call = Call {
                    name: NAME,
                    number: $number,
                    dirty_io,
                };
                #[allow(dead_code)]
                unsafe extern "C" fn normal(
                    env: *mut ErlNifEnv,
                    argc: c_int,
                    argv: *const ERL_NIF_TERM,
                ) -> ERL_NIF_TERM {
                    // SAFETY: the VM gives a live environment and `argc` arguments.
                    unsafe { enter(&CALL, |env, arguments| $body(env, arguments, Wait::NonBlocking), env, argc, argv) }
                }
                unsafe extern "C" fn dirty_io(
                    env: *mut ErlNifEnv,
                    argc: c_int,
                    argv: *const ERL_NIF_TERM,
                ) -> ERL_NIF_TERM {
                    // SAFETY: the VM gives a live environment and `argc` arguments.
                    unsafe { enter(&CALL, |env, arguments| $body(env, arguments, Wait::Blocking), env, argc, argv) }
                }
                $start
            },
            flags: scheduler!($start),
        },)*]
    };
}

macro_rules! scheduler {
    (normal) => {
        0
    };
    (dirty_io) => {
        dispatch::DIRTY_IO as c_uint
    };
}

/// The table of NIFs.
struct Functions(&'static [ErlNifFunc]);
// SAFETY: the table is constant; the pointers in it are to static strings and functions.
unsafe impl Sync for Functions {}

static FUNCTIONS: Functions = Functions(nifs! {
    0: "open_nif" / 4, dirty_io, open::open;
    1: "close" / 1, dirty_io, open::close;
    2: "pread" / 3, normal, read::pread;
    3: "pwrite_nif" / 3, normal, write::pwrite;
    4: "region_binary" / 3, normal, view::region_binary;
    5: "sync" / 2, dirty_io, advise::sync;
    6: "truncate" / 2, dirty_io, resize::truncate;
    7: "advise" / 4, dirty_io, advise::advise;
    8: "position" / 1, normal, info::position;
    9: "remap" / 1, dirty_io, resize::remap;
    10: "info" / 1, normal, info::info;
    11: "intact_nif" / 4, normal, view::intact;
    12: "image_nif" / 0, normal, info::image;
    13: "pwrite_nif" / 4, normal, write::pwrite_long;
});

/// What this image is to others.
struct This {
    #[cfg(feature = "alternate_layout")]
    _elsewhere: [u64; 9],
    image: Image,
}

static THIS: This = This {
    #[cfg(feature = "alternate_layout")]
    _elsewhere: [0; 9],
    image: Image::new(FUNCTIONS.0, resource::drop_handle, resource::drop_view),
};

unsafe extern "C" fn load(
    env: *mut ErlNifEnv,
    _priv_data: *mut *mut c_void,
    older: ERL_NIF_TERM,
) -> c_int {
    let loaded = std::panic::catch_unwind(|| {
        atoms::make(env);
        // SAFETY: called by the VM with a live environment, once at a time, and the number that `iommap.erl` has kept.
        unsafe { image::load(env, &THIS.image, older) && resource::open_types(env) }
    });
    c_int::from(!matches!(loaded, Ok(true)))
}

unsafe extern "C" fn upgrade(
    env: *mut ErlNifEnv,
    priv_data: *mut *mut c_void,
    _old_priv_data: *mut *mut c_void,
    older: ERL_NIF_TERM,
) -> c_int {
    // SAFETY: an upgrade is a load that finds the resource types there, and takes them over.
    unsafe { load(env, priv_data, older) }
}

unsafe extern "C" fn unload(_env: *mut ErlNifEnv, _priv_data: *mut c_void) {}

struct Entry(ErlNifEntry);
// SAFETY: constant, with pointers to statics only.
unsafe impl Sync for Entry {}

static ENTRY: Entry = Entry(ErlNifEntry {
    major: 2,
    minor: 16,
    name: c"iommap".as_ptr(),
    num_of_funcs: FUNCTIONS.0.len() as c_int,
    funcs: FUNCTIONS.0.as_ptr(),
    load: Some(load),
    reload: None,
    upgrade: Some(upgrade),
    unload: Some(unload),
    vm_variant: c"beam.vanilla".as_ptr(),
    options: sys::ERL_NIF_DIRTY_NIF_OPTION,
    sizeof_ErlNifResourceTypeInit: std::mem::size_of::<sys::ErlNifResourceTypeInit>(),
    min_erts: c"erts-12.0".as_ptr(),
});

/// What the VM looks for in the library.
#[no_mangle]
pub extern "C" fn nif_init() -> *const ErlNifEntry {
    static LOOKED_UP: Once = Once::new();
    // SAFETY: once, before anything else of this image runs; looks the VM's functions up.
    LOOKED_UP.call_once(|| unsafe { rustler::codegen_runtime::internal_write_symbols() });
    &raw const ENTRY.0
}
