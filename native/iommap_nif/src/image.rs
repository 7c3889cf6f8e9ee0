//! The loaded copies of this library. A code upgrade with a rebuilt library loads another image beside the old one,
//! with its own statics and perhaps other layouts. Images are never unloaded, and work on each other's objects only
//! through the table (`Image`) that each of them shows here. The table only ever grows, at its end; calls are numbered,
//! and numbers are only added.
//!
//! The images form a list, newest first. `iommap.erl` hands its head from one to the next in a persistent term, which
//! survives even the deletion of the module. A new image tells all others that it is the newest: handles of any may
//! meet views of any.

use iommap_core::{Handler, Segment, COUNTERS};
use rustler::sys::{ErlNifEnv, ErlNifFunc, ERL_NIF_TERM};
use rustler::{Env, Term};
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::atomic::{fence, AtomicPtr, Ordering};

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
    pub(crate) drop_array: unsafe extern "C" fn(*mut c_void),
    pub(crate) drop_device: unsafe extern "C" fn(*mut c_void),
    /// Tells of memory: 1 if it lies in a mapping of the image and is intact, 0 if it is lost, -1 if it lies elsewhere.
    intact: extern "C" fn(*const u8, usize) -> c_int,
    /// Tells 1 if all mappings of the image are intact, else 0.
    all_intact: extern "C" fn() -> c_int,
    older: AtomicPtr<Image>,
    handler: Handler,
    /// Tells the image which is the newest.
    set_newest: unsafe extern "C" fn(*mut Image),
    list: List,
    count: Count,
    watch: Watch,
    take_faulted: TakeFaulted,
    subscribe: Subscribe,
}

/// Makes the image wake that descriptor when one of its mappings has faulted, or only asks with -1; gives the descriptor that the
/// image wakes, or -1.
pub type Watch = unsafe extern "C" fn(c_int) -> c_int;

/// Makes a list, in the environment, of the mappings of the image that have faulted since the last time, as `List` tells of them.
pub type TakeFaulted = unsafe extern "C" fn(*mut ErlNifEnv) -> ERL_NIF_TERM;

/// Subscribes the calling process (1) at this image, or ends that (0). Gives 0, or an errno.
pub type Subscribe = unsafe extern "C" fn(*mut ErlNifEnv, c_int) -> c_int;

/// What a table is made of besides what this room knows.
pub struct Functions {
    /// The NIFs.
    pub calls: &'static [ErlNifFunc],
    /// Destroys a handle.
    pub drop_handle: unsafe extern "C" fn(*mut c_void),
    /// Destroys what holds a view.
    pub drop_view: unsafe extern "C" fn(*mut c_void),
    /// Destroys an array of words.
    pub drop_array: unsafe extern "C" fn(*mut c_void),
    /// Destroys a device.
    pub drop_device: unsafe extern "C" fn(*mut c_void),
    /// Lists mappings.
    pub list: List,
    /// Lists mappings that have faulted.
    pub take_faulted: TakeFaulted,
    /// Subscribes a process.
    pub subscribe: Subscribe,
}

/// Adds the image's counts to so many numbers at the most; gives how many it has added to. Later images may have more counts, at
/// the end.
pub type Count = unsafe extern "C" fn(*mut u64, usize) -> usize;

/// How many counts there are: the core's counters, and how many mappings wait to be unmapped.
pub const STATS: usize = COUNTERS + 1;

/// Makes a list of the next mappings, oldest first, that a handle of the image got after one time and up to another: of
/// `{Time, Info}`, in the environment. Empty if there are no more.
pub type List = unsafe extern "C" fn(*mut ErlNifEnv, after: u64, until: u64) -> ERL_NIF_TERM;

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
    pub const fn new(functions: Functions) -> Image {
        Image {
            magic: MAGIC,
            size: size_of::<Image>(),
            calls: functions.calls.as_ptr(),
            call_count: functions.calls.len(),
            drop_handle: functions.drop_handle,
            drop_view: functions.drop_view,
            drop_array: functions.drop_array,
            drop_device: functions.drop_device,
            intact: intact_here,
            all_intact: all_intact_here,
            older: AtomicPtr::new(ptr::null_mut()),
            handler: Handler::own(),
            set_newest,
            list: functions.list,
            count: count_here,
            watch: watch_here,
            take_faulted: functions.take_faulted,
            subscribe: functions.subscribe,
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

    /// Makes the image list its next mappings, which were got after one time and up to another. `None` if it cannot.
    pub fn list<'a>(&self, env: Env<'a>, after: u64, until: u64) -> Option<Term<'a>> {
        if !self.has(offset_of!(Image, list)) {
            return None;
        }
        // SAFETY: the environment is live, and the term of it.
        Some(unsafe { Term::new(env, (self.list)(env.as_c_arg(), after, until)) })
    }

    /// Adds the image's counts to the others'. Nothing of an image that has none.
    pub fn add_counts(&self, counts: &mut [u64; STATS]) {
        if self.has(offset_of!(Image, count)) {
            // SAFETY: there are so many numbers.
            unsafe { (self.count)(counts.as_mut_ptr(), counts.len()) };
        }
    }

    /// Makes the image wake that descriptor when one of its mappings has faulted. Nothing of an image that cannot.
    pub fn watch(&self, descriptor: c_int) {
        if self.has(offset_of!(Image, watch)) {
            // SAFETY: the descriptor is for that, and never closed.
            unsafe { (self.watch)(descriptor) };
        }
    }

    /// The descriptor that the image wakes.
    fn watcher(&self) -> Option<c_int> {
        if !self.has(offset_of!(Image, watch)) {
            return None;
        }
        // SAFETY: only asks.
        Some(unsafe { (self.watch)(-1) }).filter(|descriptor| *descriptor >= 0)
    }

    /// Lists the mappings of the image that have faulted since the last time. `None` of an image that cannot.
    pub fn take_faulted<'a>(&self, env: Env<'a>) -> Option<Term<'a>> {
        if !self.has(offset_of!(Image, take_faulted)) {
            return None;
        }
        // SAFETY: the environment is live, and the term of it.
        Some(unsafe { Term::new(env, (self.take_faulted)(env.as_c_arg())) })
    }

    /// Whether the table has the pointer at that offset.
    fn has(&self, offset: usize) -> bool {
        self.size >= offset + size_of::<*const c_void>()
    }

    /// The image as a number, by which `numbered` finds it.
    pub fn number(&self) -> u64 {
        ptr::from_ref(self).expose_provenance() as u64
    }
}

/// The loaded image of that number.
pub fn numbered(number: u64) -> Option<&'static Image> {
    images().find(|image| image.number() == number)
}

/// All images, the newest first.
pub fn images() -> impl Iterator<Item = &'static Image> {
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
    watch_as_others_do(table);
    follow_first(this)
}

/// Subscribes the calling process at the oldest image that has subscribers, or ends that: all of them are there, whichever image is
/// called. Gives 0, or an errno.
pub fn subscribe(env: Env, on: bool) -> c_int {
    let has = |image: &&Image| image.has(offset_of!(Image, subscribe));
    // Never: this image has.
    let oldest = images().filter(has).last().expect("this image");
    // SAFETY: the environment is the calling process's.
    unsafe { (oldest.subscribe)(env.as_c_arg(), c_int::from(on)) }
}

/// A new image wakes what the others wake. Who makes them wake something meanwhile looks at the list of images after that, and so
/// finds the new one.
fn watch_as_others_do(table: &Image) {
    fence(Ordering::SeqCst);
    if let Some(descriptor) = images().find_map(Image::watcher) {
        table.watch(descriptor);
    }
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

/// Asks every image whether the bytes lie in a mapping of it. Of no bytes each can tell without asking for the file's size.
pub fn is_mapped(bytes: &Segment) -> bool {
    images().any(|image| (image.intact)(bytes.address(), 0) >= 0)
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

unsafe extern "C" fn watch_here(descriptor: c_int) -> c_int {
    if descriptor >= 0 {
        iommap_core::watch(descriptor);
    }
    iommap_core::watcher().unwrap_or(-1)
}

unsafe extern "C" fn count_here(counts: *mut u64, length: usize) -> usize {
    // SAFETY: the other image gives so many numbers.
    let counts = unsafe { std::slice::from_raw_parts_mut(counts, length) };
    let waiting = iommap_core::unmaps_waiting() as u64;
    let here = iommap_core::counts().into_iter().chain([waiting]);
    counts
        .iter_mut()
        .zip(here)
        .map(|(count, more)| *count += more)
        .count()
}

extern "C" fn all_intact_here() -> c_int {
    c_int::from(iommap_core::all_intact())
}

extern "C" fn intact_here(address: *const u8, length: usize) -> c_int {
    iommap_core::intact(address.addr(), length).map_or(-1, c_int::from)
}
