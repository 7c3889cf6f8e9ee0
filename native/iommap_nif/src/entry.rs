//! The library as the VM sees it: the table of NIFs, load, upgrade and unload. No other room imports this one.

use crate::calls::{
    advise, atomics, batch, device, info, list, lock, open, read, resize, subscribe, view, write,
};
use crate::dispatch::{self, enter, Call};
use crate::image::{self, Image};
use crate::resource::{self, drop_object, Array, ErlangDevice, ErlangHandle};
use crate::subscribers;
use iommap_core::{View, Wait};
use rustler::sys::{self, ErlNifEntry, ErlNifEnv, ErlNifFunc, ERL_NIF_TERM};
use rustler::{Env, Term};
use std::ffi::{c_int, c_uint, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
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
    14: c"ensure_size" / 2, normal, resize::ensure_size;
    15: c"sync" / 4, dirty_io, advise::sync_range;
    16: c"resident" / 3, dirty_io, info::resident;
    17: c"lock" / 3, dirty_io, lock::lock;
    18: c"unlock" / 3, dirty_io, lock::unlock;
    19: c"backed_region_nif" / 3, normal, view::backed_region;
    20: c"images_nif" / 0, normal, list::images;
    21: c"list_nif" / 3, normal, list::list;
    22: c"stats" / 0, normal, info::stats;
    23: c"subscribe" / 0, dirty_io, subscribe::subscribe;
    24: c"unsubscribe" / 0, dirty_io, subscribe::unsubscribe;
    25: c"atomics_new_nif" / 4, normal, atomics::new;
    26: c"atomics_info_nif" / 1, normal, atomics::info;
    27: c"atomics_get_nif" / 2, normal, atomics::get;
    28: c"atomics_put_nif" / 3, normal, atomics::put;
    29: c"atomics_exchange_nif" / 3, normal, atomics::exchange;
    30: c"atomics_compare_exchange_nif" / 4, normal, atomics::compare_exchange;
    31: c"atomics_add_nif" / 3, normal, atomics::add;
    32: c"atomics_add_get_nif" / 3, normal, atomics::add_get;
    33: c"atomics_band_nif" / 3, normal, atomics::band;
    34: c"atomics_band_get_nif" / 3, normal, atomics::band_get;
    35: c"atomics_bor_nif" / 3, normal, atomics::bor;
    36: c"atomics_bor_get_nif" / 3, normal, atomics::bor_get;
    37: c"atomics_bxor_nif" / 3, normal, atomics::bxor;
    38: c"atomics_bxor_get_nif" / 3, normal, atomics::bxor_get;
    39: c"device_open_nif" / 3, dirty_io, device::open;
    40: c"device_from_nif" / 1, dirty_io, device::from;
    41: c"device_close_nif" / 1, dirty_io, device::close;
    42: c"device_pread_nif" / 3, normal, device::pread;
    43: c"device_read_nif" / 2, normal, device::read;
    44: c"device_read_line_nif" / 1, normal, device::read_line;
    45: c"device_pwrite_nif" / 3, normal, device::pwrite;
    46: c"device_pwrite_long_nif" / 3, dirty_io, device::pwrite;
    47: c"device_write_nif" / 2, normal, device::write;
    48: c"device_write_long_nif" / 2, dirty_io, device::write;
    49: c"device_position_nif" / 3, normal, device::position;
    50: c"device_truncate_nif" / 1, dirty_io, device::truncate;
    51: c"device_sync_nif" / 2, dirty_io, device::sync;
    52: c"device_allocate_nif" / 3, dirty_io, device::allocate;
    53: c"device_advise_nif" / 4, dirty_io, device::advise;
    54: c"device_info_nif" / 1, dirty_io, device::info;
    55: c"pread" / 2, normal, batch::pread;
    56: c"pwrite_all_nif" / 2, normal, batch::pwrite;
    57: c"is_known_intact_nif" / 3, normal, view::is_known_intact;
    58: c"pwrite_short_nif" / 3, normal, write::pwrite_short;
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
    image: Image::new(image::Functions {
        calls: FUNCTIONS.0,
        drop_handle: drop_object::<ErlangHandle>,
        drop_view: drop_object::<View>,
        drop_array: drop_object::<Array>,
        drop_device: drop_object::<ErlangDevice>,
        list: list_here,
        take_faulted: faulted_here,
        subscribe: subscribe_here,
    }),
};

unsafe extern "C" fn list_here(env: *mut ErlNifEnv, after: u64, until: u64) -> ERL_NIF_TERM {
    let lifetime = ();
    // SAFETY: the environment is live as long as this function runs, and so longer than `lifetime`.
    let env = unsafe { Env::new(&lifetime, env) };
    let listed = catch_unwind(AssertUnwindSafe(|| list::next_here(env, after, until)));
    listed
        .unwrap_or_else(|_| Term::list_new_empty(env))
        .as_c_arg()
}

unsafe extern "C" fn faulted_here(env: *mut ErlNifEnv) -> ERL_NIF_TERM {
    let lifetime = ();
    // SAFETY: the environment is live as long as this function runs, and so longer than `lifetime`.
    let env = unsafe { Env::new(&lifetime, env) };
    let listed = catch_unwind(AssertUnwindSafe(|| list::faulted_here(env)));
    listed
        .unwrap_or_else(|_| Term::list_new_empty(env))
        .as_c_arg()
}

unsafe extern "C" fn subscribe_here(env: *mut ErlNifEnv, on: c_int) -> c_int {
    let lifetime = ();
    // SAFETY: the environment is live as long as this function runs, and so longer than `lifetime`.
    let env = unsafe { Env::new(&lifetime, env) };
    let done = catch_unwind(AssertUnwindSafe(|| {
        if on == 0 {
            subscribers::unsubscribe(env);
            Ok(())
        } else {
            subscribers::subscribe(env)
        }
    }));
    done.map_or(libc::EAGAIN, |done| done.err().unwrap_or(0))
}

unsafe extern "C" fn load(
    env: *mut ErlNifEnv,
    _priv_data: *mut *mut c_void,
    older: ERL_NIF_TERM,
) -> c_int {
    let loaded = catch_unwind(|| {
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
