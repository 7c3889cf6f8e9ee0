//! Lists all mappings, of all images.

use super::info;
use crate::answer::{Answer, Stop};
use crate::{atoms, dispatch, image};
use iommap_core::{Info, Wait};
use rustler::{Encoder, Env, Term};
use std::ffi::c_int;

/// How many mappings are listed at once.
const MOST: usize = 64;
/// How much of a time slice that takes: a mapping takes about a microsecond.
const PERCENT: c_int = 10;

/// `images_nif()`: the time now, and the numbers of all images.
pub fn images<'a>(env: Env<'a>, []: [Term<'a>; 0], _wait: Wait) -> Answer<'a> {
    let numbers: Vec<u64> = image::images().map(|image| image.number()).collect();
    Ok((iommap_core::now(), numbers).encode(env))
}

/// `list_nif(Image, After, Until)`: the next mappings of an image, which a handle got after one time and up to another, each as
/// `{Time, Info}`, oldest first. Empty if there are no more, or if the image is of a build that has no list.
pub fn list<'a>(env: Env<'a>, [number, after, until]: [Term<'a>; 3], _wait: Wait) -> Answer<'a> {
    let image = image::numbered(number.decode()?).ok_or(Stop::Raise)?;
    let listed = image.list(env, after.decode()?, until.decode()?);
    dispatch::consume_percent(env, PERCENT);
    Ok(listed.unwrap_or_else(|| Term::list_new_empty(env)))
}

/// The same of this image.
pub fn next_here(env: Env, after: u64, until: u64) -> Term {
    let listed = iommap_core::list(after, until, MOST);
    let encode = |(time, info): &(u64, Info)| (time, entry(env, info)).encode(env);
    listed.iter().map(encode).collect::<Vec<Term>>().encode(env)
}

/// The mappings of this image that have faulted since the last time.
pub fn faulted_here(env: Env) -> Term {
    let faulted = iommap_core::take_faulted();
    let entries: Vec<Term> = faulted.iter().map(|info| entry(env, info)).collect();
    entries.encode(env)
}

/// Makes the map of a mapping on the list.
pub fn entry<'a>(env: Env<'a>, info: &Info) -> Term<'a> {
    let handle = if info.open {
        atoms::open()
    } else {
        atoms::closed()
    };
    // Never: it is a map.
    info::encode(env, info)
        .map_put(atoms::handle(), handle)
        .expect("a map")
}
