//! The four resources of the VM: a handle; a view, which keeps a mapping alive for its binaries; an array of words, which keeps a
//! handle alive; and a device, which has or borrows one.
//!
//! An object may meet another library image than the one that made it: after a code upgrade the VM gives us objects
//! whose layout, locks and thread-locals are another image's. So every object begins with a header that never changes,
//! and names the image that made it. An image that finds another's name there lets that image do the work (`image`).

use crate::answer::Stop;
use crate::image::{self, Image, MAGIC};
use iommap_core::{Device, Handle, Region, View};
use rustler::sys::{
    self, ErlNifEnv, ErlNifMonitor, ErlNifPid, ErlNifResourceDown, ErlNifResourceDtor,
    ErlNifResourceType, ErlNifResourceTypeInit,
};
use rustler::{Env, Term};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// The first bytes of every object of every image, now and for ever.
#[repr(C)]
struct Header {
    magic: u64,
    image: *const Image,
}

/// An object as this image lays it out.
#[repr(C)]
struct Object<T> {
    header: Header,
    #[cfg(feature = "alternate_layout")]
    _elsewhere: [u64; 5],
    inside: T,
}

/// A reference to the resource that the binaries of a mapping hold. The VM counts the references.
pub struct ViewReference(NonNull<Object<View>>);

// SAFETY: the VM's reference counts are atomic, and what is inside is only dropped.
unsafe impl Send for ViewReference {}
// SAFETY: as above.
unsafe impl Sync for ViewReference {}

impl Drop for ViewReference {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that `from` made.
        unsafe { sys::enif_release_resource(self.0.as_ptr().cast()) };
    }
}

impl From<View> for ViewReference {
    /// Allocates a resource for the view (`enif_alloc_resource`).
    fn from(view: View) -> ViewReference {
        let object = make(&VIEWS, view);
        let address = object.as_ptr().expose_provenance();
        // SAFETY: the object was just made. The view forgets the counting before it is destroyed, and so before the object is.
        unsafe {
            (*object.as_ptr())
                .inside
                .counted(move || references(address))
        };
        ViewReference(object)
    }
}

/// Tells how many references the VM counts to an object: there is no call for it, but a word before each object, at a place that
/// depends on the VM. `None` if it was not found.
fn references(object: usize) -> Option<usize> {
    static DISTANCE: OnceLock<Option<usize>> = OnceLock::new();
    let distance = (*DISTANCE.get_or_init(find_references))?;
    let word = ptr::with_exposed_provenance::<AtomicUsize>(object - distance);
    // SAFETY: the caller's object lives, and the word before it with it; the VM changes it atomically.
    Some(unsafe { (*word).load(Ordering::Relaxed) })
}

/// Finds how far before an object that word is: it follows the references that are taken to one and given back
/// (`enif_keep_resource`, `enif_release_resource`).
fn find_references() -> Option<usize> {
    /// Words further away are not looked at: before the VM's header of an object lies another block of its allocator.
    const MOST_WORDS: usize = 10;
    const WORD: usize = size_of::<usize>();
    // SAFETY: the type is open. The object is all zeros: it has no header that our destructor knows, which leaves it alone. Words
    // are read while there is a reference at least.
    unsafe {
        let kind = VIEWS.pointer().cast_const();
        let object = sys::enif_alloc_resource(kind, size_of::<Header>());
        ptr::write_bytes(object.cast::<u8>(), 0, size_of::<Header>());
        let at = object.expose_provenance();
        let follows = |distance: &usize, count: usize| {
            let word = ptr::with_exposed_provenance::<AtomicUsize>(at - distance);
            (*word).load(Ordering::Relaxed) == count
        };
        let mut found: Vec<usize> = (1..=MOST_WORDS).map(|words| words * WORD).collect();
        found.retain(|distance| follows(distance, 1));
        for count in [2, 3] {
            sys::enif_keep_resource(object);
            found.retain(|distance| follows(distance, count));
        }
        for count in [2, 1] {
            sys::enif_release_resource(object);
            found.retain(|distance| follows(distance, count));
        }
        sys::enif_release_resource(object);
        found.first().copied()
    }
}

/// Makes a binary of the region, which holds the resource of its view (`enif_make_resource_binary`).
#[inline]
pub fn encode_region<'a>(env: Env<'a>, region: Region<ViewReference>) -> Term<'a> {
    let object = region.keeper().0.as_ptr().cast_const().cast();
    let (address, length) = (region.address().cast(), region.length());
    // SAFETY: the resource holds the view of the region, and so the memory is mapped as long as it lives; the term is of
    // the environment.
    unsafe {
        let term = sys::enif_make_resource_binary(env.as_c_arg(), object, address, length);
        Term::new(env, term)
    }
}

/// The handle type of this library.
pub type ErlangHandle = Handle<ViewReference>;

/// Makes a term that holds the handle (`enif_make_resource`).
pub fn encode_handle(env: Env, handle: ErlangHandle) -> Term {
    encode(env, make(&HANDLES, handle))
}

fn encode<T>(env: Env, object: NonNull<Object<T>>) -> Term {
    // SAFETY: the object was just made; the term takes its own reference, and ours is given back.
    unsafe {
        let term = sys::enif_make_resource(env.as_c_arg(), object.as_ptr().cast());
        sys::enif_release_resource(object.as_ptr().cast());
        Term::new(env, term)
    }
}

/// Finds the handle in the term (`enif_get_resource`), which keeps it alive while the call runs; or the image whose it
/// is.
#[inline]
pub fn decode_handle(term: Term<'_>) -> Result<&ErlangHandle, Stop> {
    Ok(&decode(term, &HANDLES)?.inside)
}

/// Finds an object of the type in the term.
#[inline(always)]
fn decode<'a, T>(term: Term<'a>, kind: &Type<T>) -> Result<&'a Object<T>, Stop> {
    let mut found: *const c_void = ptr::null();
    let (env, kind) = (term.get_env().as_c_arg(), kind.pointer());
    // SAFETY: the term is of a live environment; the pointer is written on success.
    if unsafe { sys::enif_get_resource(env, term.as_c_arg(), kind, &mut found) } == 0 {
        return Err(Stop::Raise);
    }
    // SAFETY: every object of this type begins with a header; it is a whole object of ours only if the image is ours.
    unsafe {
        let header = found.cast::<Header>();
        if ptr::eq((*header).image, image::this()) {
            return Ok(&*found.cast::<Object<T>>());
        }
        Err(recognized(header).map_or(Stop::Raise, Stop::Foreign))
    }
}

/// A reference to the resource of a handle that an array or a device holds. The VM counts the references.
pub struct HandleReference(NonNull<Object<ErlangHandle>>);

impl HandleReference {
    /// Keeps the handle in the term alive (`enif_keep_resource`).
    pub fn keep(term: Term) -> Result<HandleReference, Stop> {
        let object = NonNull::from(decode(term, &HANDLES)?);
        // SAFETY: the object is the VM's, and alive as the term is.
        unsafe { sys::enif_keep_resource(object.as_ptr().cast()) };
        Ok(HandleReference(object))
    }
}

impl Drop for HandleReference {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that `keep` made.
        unsafe { sys::enif_release_resource(self.0.as_ptr().cast()) };
    }
}

impl Deref for HandleReference {
    type Target = ErlangHandle;

    #[inline(always)]
    fn deref(&self) -> &ErlangHandle {
        // SAFETY: the object is one of this image, and the reference keeps it alive; it is only ever shared.
        unsafe { &(*self.0.as_ptr()).inside }
    }
}

/// Words of a handle's mapping, as `iommap_atomics` counts them. The handle is of the same image.
pub struct Array {
    pub handle: HandleReference,
    /// Of the first word, in bytes.
    pub offset: u64,
    /// How many words.
    pub arity: u64,
    pub signed: bool,
}

/// Makes a term that holds the array (`enif_make_resource`).
pub fn encode_array(env: Env, array: Array) -> Term {
    encode(env, make(&ARRAYS, array))
}

/// Finds the array in the term (`enif_get_resource`), or the image whose it is.
#[inline(always)]
pub fn decode_array(term: Term<'_>) -> Result<&Array, Stop> {
    Ok(&decode(term, &ARRAYS)?.inside)
}

/// The device type of this library.
pub type ErlangDevice = Device<ViewReference, HandleReference>;

/// Makes a term that holds the device (`enif_make_resource`).
pub fn encode_device(env: Env, device: ErlangDevice) -> Term {
    encode(env, make(&DEVICES, device))
}

/// Finds the device in the term (`enif_get_resource`), or the image whose it is.
#[inline(always)]
pub fn decode_device(term: Term<'_>) -> Result<&ErlangDevice, Stop> {
    Ok(&decode(term, &DEVICES)?.inside)
}

/// Recognizes a header and its image, by the magic numbers of both.
///
/// # Safety
///
/// The header is of an object of one of our resource types.
unsafe fn recognized(header: *const Header) -> Option<&'static Image> {
    // SAFETY: the caller's promise; images are never unloaded.
    unsafe {
        if (*header).magic != MAGIC {
            return None;
        }
        Image::recognized((*header).image)
    }
}

/// Allocates an object with its header (`enif_alloc_resource`).
fn make<T>(kind: &Type<T>, inside: T) -> NonNull<Object<T>> {
    const { assert!(align_of::<Object<T>>() <= align_of::<u64>()) };
    // SAFETY: the type is open; the memory is as large as the object, and aligned for it.
    unsafe {
        let memory = sys::enif_alloc_resource(kind.pointer().cast_const(), size_of::<Object<T>>())
            .cast::<Object<T>>();
        memory.write(Object {
            header: Header {
                magic: MAGIC,
                image: image::this(),
            },
            #[cfg(feature = "alternate_layout")]
            _elsewhere: [0xdead_beef; 5],
            inside,
        });
        NonNull::new_unchecked(memory)
    }
}

/// A resource type, whose objects of this image have a `T` inside.
struct Type<T>(AtomicPtr<ErlNifResourceType>, PhantomData<fn(T)>);

impl<T> Type<T> {
    const fn new() -> Type<T> {
        Type(AtomicPtr::new(ptr::null_mut()), PhantomData)
    }

    #[inline(always)]
    fn pointer(&self) -> *mut ErlNifResourceType {
        self.0.load(Ordering::Relaxed)
    }
}

static HANDLES: Type<ErlangHandle> = Type::new();
static VIEWS: Type<View> = Type::new();
static ARRAYS: Type<Array> = Type::new();
static DEVICES: Type<ErlangDevice> = Type::new();

/// Opens the resource types, or takes over those of the image before this one (`enif_open_resource_type_x`).
pub fn open_types(env: Env) -> bool {
    open_type(env, c"iommap handle 1", drop_any_handle, &HANDLES)
        && open_type(env, c"iommap view 1", drop_any_view, &VIEWS)
        && open_type(env, c"iommap atomics 1", drop_any_array, &ARRAYS)
        && open_type(env, c"iommap device 1", drop_any_device, &DEVICES)
}

type Destructor = unsafe extern "C" fn(*mut ErlNifEnv, *mut c_void);

fn open_type<T>(env: Env, name: &CStr, destructor: Destructor, kind: &Type<T>) -> bool {
    /// Takes the flags as a number: rustler's enum has no value for both.
    type OpenResourceType = unsafe extern "C" fn(
        *mut ErlNifEnv,
        *const c_char,
        *const ErlNifResourceTypeInit,
        c_int,
        *mut c_int,
    ) -> *mut ErlNifResourceType;
    const CREATE_OR_TAKE_OVER: c_int = 1 | 2;

    let callbacks = ErlNifResourceTypeInit {
        dtor: destructor as *const ErlNifResourceDtor,
        stop: ptr::null(),
        down: on_down as *const ErlNifResourceDown,
        members: 3,
        dyncall: ptr::null(),
    };
    // SAFETY: the VM exports the function, with this signature; it copies the callbacks.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"enif_open_resource_type_x".as_ptr());
        if symbol.is_null() {
            return false;
        }
        let open = std::mem::transmute::<*mut c_void, OpenResourceType>(symbol);
        let mut tried = 0;
        let opened = open(
            env.as_c_arg(),
            name.as_ptr(),
            &callbacks,
            CREATE_OR_TAKE_OVER,
            &mut tried,
        );
        kind.0.store(opened, Ordering::Relaxed);
        !opened.is_null()
    }
}

/// Is never called, as no process is monitored. But a type must always have this callback. While a load takes a type
/// over, the VM puts one of its own in its place, and `enif_alloc_resource` on another thread looks twice whether there
/// is one; if it saw none first and one then, it would lay its mutex over the object (seen in OTP 25).
unsafe extern "C" fn on_down(
    _env: *mut ErlNifEnv,
    _object: *mut c_void,
    _process: *const ErlNifPid,
    _monitor: *const ErlNifMonitor,
) {
}

unsafe extern "C" fn drop_any_handle(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM destroys an object of the type once; its image knows how. One of an unknown image is leaked.
    unsafe {
        if let Some(image) = recognized(object.cast()) {
            (image.drop_handle)(object);
        }
    }
}

unsafe extern "C" fn drop_any_view(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: as for handles.
    unsafe {
        if let Some(image) = recognized(object.cast()) {
            (image.drop_view)(object);
        }
    }
}

unsafe extern "C" fn drop_any_array(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: as for handles.
    unsafe {
        if let Some(image) = recognized(object.cast()) {
            (image.drop_array)(object);
        }
    }
}

unsafe extern "C" fn drop_any_device(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: as for handles.
    unsafe {
        if let Some(image) = recognized(object.cast()) {
            (image.drop_device)(object);
        }
    }
}

/// Destroys an object that this image made.
///
/// # Safety
///
/// The object is one of this image, with a `T` inside, and is destroyed once.
pub unsafe extern "C" fn drop_object<T>(object: *mut c_void) {
    // SAFETY: the caller's promise.
    let dropped = std::panic::catch_unwind(|| unsafe {
        ptr::drop_in_place(&raw mut (*object.cast::<Object<T>>()).inside);
    });
    debug_assert!(dropped.is_ok());
}
