//! The loaded copies of this library. A code upgrade with a rebuilt library loads another image beside the old one,
//! with its own statics and perhaps other layouts. Images are never unloaded, and work on each other's objects only
//! through the table (`Image`) that each of them shows here. The table only ever grows, at its end; calls are numbered,
//! and numbers are only added.
//!
//! The images form a list, newest first. `iommap.erl` hands its head from one to the next in a persistent term, which
//! survives even the deletion of the module. A new image tells all others that it is the newest: handles of any may
//! meet views of any.

use iommap_core::{Handler, Segment};
use rustler::sys::{ErlNifEnv, ErlNifFunc, ERL_NIF_TERM};
use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Begins every image's table and every object's header.
pub const MAGIC: u64 = u64::from_be_bytes(if cfg!(feature = "unknown_abi") {
    *b"otherabi"
} else {
    *b"iommap\x00\x01"
});

/// The table that an image shows to the others. Fields are only ever added, at the end; an older image has no more than
/// its size.
#[repr(C)]
pub struct Image {
    magic: u64,
    /// Of this table, in bytes. A user of a field that was added later checks first that it is there.
    #[allow(dead_code)] // for later images
    size: usize,
    /// The NIFs, by their numbers.
    calls: *const ErlNifFunc,
    call_count: usize,
    pub(crate) drop_handle: unsafe extern "C" fn(*mut c_void),
    pub(crate) drop_view: unsafe extern "C" fn(*mut c_void),
    /// Tells of memory: 1 if it lies in a mapping of the image and is intact, 0 if it is lost, -1 if it lies elsewhere.
    intact: extern "C" fn(*const u8, usize) -> c_int,
    /// Tells 1 if all mappings of the image are intact, else 0.
    all_intact: extern "C" fn() -> c_int,
    older: AtomicPtr<Image>,
    handler: Handler,
    /// Tells the image which is the newest.
    set_newest: unsafe extern "C" fn(*mut Image),
    /// Every image whose devices there can be has it.
    pub(crate) drop_device: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: everything but `older` is constant, and points to constants.
unsafe impl Sync for Image {}

/// This image. `load` sets it before anything else, so it is never null when a call runs.
static THIS: AtomicPtr<Image> = AtomicPtr::new(ptr::null_mut());

/// The newest image.
static NEWEST: AtomicPtr<Image> = AtomicPtr::new(ptr::null_mut());

/// Gives this image, as its objects name it.
#[inline]
pub fn this() -> *const Image {
    THIS.load(Ordering::Relaxed)
}

impl Image {
    /// Makes the table of this image.
    pub const fn new(
        calls: &'static [ErlNifFunc],
        drop_handle: unsafe extern "C" fn(*mut c_void),
        drop_view: unsafe extern "C" fn(*mut c_void),
        drop_device: unsafe extern "C" fn(*mut c_void),
    ) -> Image {
        Image {
            magic: MAGIC,
            size: size_of::<Image>(),
            calls: calls.as_ptr(),
            call_count: calls.len(),
            drop_handle,
            drop_view,
            intact: intact_here,
            all_intact: all_intact_here,
            older: AtomicPtr::new(ptr::null_mut()),
            handler: Handler::own(),
            set_newest,
            drop_device,
        }
    }

    /// Recognizes an image by its magic number.
    ///
    /// # Safety
    ///
    /// The pointer is null or that of an image.
    pub unsafe fn recognized(image: *const Image) -> Option<&'static Image> {
        // SAFETY: the caller's promise; images are never unloaded.
        unsafe { image.as_ref() }.filter(|image| image.magic == MAGIC)
    }

    /// Makes the image do a call that was made with an object of its own; `None` if it has no such call.
    ///
    /// # Safety
    ///
    /// The arguments are the running call's.
    pub unsafe fn call(
        &self,
        number: usize,
        env: *mut ErlNifEnv,
        argc: c_int,
        argv: *const ERL_NIF_TERM,
    ) -> Option<ERL_NIF_TERM> {
        if number >= self.call_count {
            return None;
        }
        // SAFETY: the table has that many entries; the rest is promised.
        Some(unsafe { ((*self.calls.add(number)).function)(env, argc, argv) })
    }
}

fn images() -> impl Iterator<Item = &'static Image> {
    // SAFETY: the list has nothing but images in it.
    let image =
        |pointer: &AtomicPtr<Image>| unsafe { Image::recognized(pointer.load(Ordering::Acquire)) };
    std::iter::successors(image(&NEWEST), move |newer| image(&newer.older))
}

/// Puts this image at the head of the list; `older` is the newest image that was loaded before, as a number, or 0.
///
/// # Safety
///
/// `older` came from `newest`, and this image is always loaded with the same table.
pub unsafe fn load(table: &'static Image, older: u64) -> bool {
    let this = ptr::from_ref(table).cast_mut();
    THIS.store(this, Ordering::Relaxed);
    let older = ptr::with_exposed_provenance_mut(older as usize);
    NEWEST.store(older, Ordering::Release);
    if !images().any(|image| ptr::eq(image, this)) {
        table.older.store(older, Ordering::Release);
        NEWEST.store(this, Ordering::Release);
        for image in images() {
            // SAFETY: this image's own table.
            unsafe { (image.set_newest)(this) };
        }
    }
    follow_first(this)
}

unsafe extern "C" fn set_newest(newest: *mut Image) {
    NEWEST.store(newest, Ordering::Release);
}

/// Leaves the signal to the handler of the process's first image.
fn follow_first(this: *const Image) -> bool {
    match images().last() {
        Some(first) if !ptr::eq(first, this) => iommap_core::follow(first.handler).is_ok(),
        _ => true,
    }
}

/// Gives the newest image, as a number for the next one's `load`.
pub fn newest() -> u64 {
    NEWEST.load(Ordering::Acquire).expose_provenance() as u64
}

/// Asks every image whether the bytes are what their file held; `None` if they lie in no mapping.
#[inline]
pub fn intact(bytes: &Segment) -> Option<bool> {
    images()
        .map(|image| (image.intact)(bytes.address(), bytes.length()))
        .find(|told| *told >= 0)
        .map(|told| told != 0)
}

/// Tells whether there may be a view, of this image or another.
#[inline]
pub fn has_views() -> bool {
    iommap_core::has_views() || images().nth(1).is_some()
}

/// Asks every image whether all its mappings are what their files held.
pub fn all_intact() -> bool {
    images().all(|image| (image.all_intact)() != 0)
}

extern "C" fn all_intact_here() -> c_int {
    c_int::from(iommap_core::all_intact())
}

extern "C" fn intact_here(address: *const u8, length: usize) -> c_int {
    iommap_core::intact(address.addr(), length).map_or(-1, c_int::from)
}
