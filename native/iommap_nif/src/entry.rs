//! The library as the VM sees it: the table of NIFs, load, upgrade and unload. No other room imports this one.

use crate::calls::{advise, batch, info, open, read, resize, view, write};
use crate::dispatch::{self, enter, Call};
use crate::image::{self, Image};
use crate::resource::{self, drop_object, ErlangHandle};
use iommap_core::{View, Wait};
use rustler::sys::{self, ErlNifEntry, ErlNifEnv, ErlNifFunc, ERL_NIF_TERM};
use rustler::{Env, Term};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Once;

/// Builds the table of NIFs. An entry has a number for other images, name and arity, the scheduler it starts on, and
/// its body.
///
/// The numbers count from 0, and are only ever added to (see `image`).
macro_rules! nifs {
    ($($number:literal: $name:literal / $arity:literal, $start:ident, $body:path;)*) => {
        &[$(ErlNifFunc {
            name: $name.as_ptr(),
            arity: $arity,
            function: {
                static CALL: Call = Call {
                    name: $name,
                    number: $number,
                    dirty_io,
                };
                #[allow(dead_code)]
                unsafe extern "C" fn normal(
                    env: *mut ErlNifEnv,
                    _argc: c_int,
                    argv: *const ERL_NIF_TERM,
                ) -> ERL_NIF_TERM {
                    // SAFETY: the VM gives a live environment, and as many arguments as the table says.
                    unsafe { enter::<$arity>(&CALL, |env, arguments| $body(env, arguments, Wait::NonBlocking), env, argv) }
                }
                unsafe extern "C" fn dirty_io(
                    env: *mut ErlNifEnv,
                    _argc: c_int,
                    argv: *const ERL_NIF_TERM,
                ) -> ERL_NIF_TERM {
                    // SAFETY: as above.
                    unsafe { enter::<$arity>(&CALL, |env, arguments| $body(env, arguments, Wait::Blocking), env, argv) }
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
    0: c"open_nif" / 4, dirty_io, open::open;
    1: c"close" / 1, dirty_io, open::close;
    2: c"pread" / 3, normal, read::pread;
    3: c"pwrite_nif" / 3, normal, write::pwrite;
    4: c"region_binary" / 3, normal, view::region_binary;
    5: c"sync" / 2, dirty_io, advise::sync;
    6: c"truncate" / 2, dirty_io, resize::truncate;
    7: c"advise" / 4, dirty_io, advise::advise;
    8: c"position" / 1, normal, info::position;
    9: c"remap" / 1, dirty_io, resize::remap;
    10: c"info" / 1, normal, info::info;
    11: c"intact_nif" / 4, normal, view::intact;
    12: c"image_nif" / 0, normal, info::image;
    13: c"pwrite_nif" / 4, normal, write::pwrite_long;
    14: c"pread" / 2, normal, batch::pread;
    15: c"pwrite_all_nif" / 2, normal, batch::pwrite;
});

/// This image, as others see it.
struct This {
    #[cfg(feature = "alternate_layout")]
    _elsewhere: [u64; 9],
    image: Image,
}

static THIS: This = This {
    #[cfg(feature = "alternate_layout")]
    _elsewhere: [0; 9],
    image: Image::new(
        FUNCTIONS.0,
        drop_object::<ErlangHandle>,
        drop_object::<View>,
    ),
};

unsafe extern "C" fn load(
    env: *mut ErlNifEnv,
    _priv_data: *mut *mut c_void,
    older: ERL_NIF_TERM,
) -> c_int {
    let loaded = std::panic::catch_unwind(|| {
        let lifetime = ();
        // SAFETY: the environment is live as long as this function runs, and so longer than `lifetime`.
        let env = unsafe { Env::new(&lifetime, env) };
        // SAFETY: a term of the environment.
        let older = unsafe { Term::new(env, older) }.decode();
        // SAFETY: the number is one that `iommap.erl` has kept; loads are serialized by the VM.
        older.is_ok_and(|older| unsafe { image::load(&THIS.image, older) })
            && resource::open_types(env)
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

/// Gives the VM the table: it looks this function up (`dlsym`).
#[no_mangle]
pub extern "C" fn nif_init() -> *const ErlNifEntry {
    static LOOKED_UP: Once = Once::new();
    // SAFETY: called once, before anything else of this image runs; looks the VM's functions up.
    LOOKED_UP.call_once(|| unsafe { rustler::codegen_runtime::internal_write_symbols() });
    &raw const ENTRY.0
}
