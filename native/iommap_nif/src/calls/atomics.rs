//! Words of a mapping (`iommap_atomics`).
//!
//! A library belongs to one module, so these are functions of `iommap` that `iommap_atomics` calls. They answer the value, or `ok`, or
//! the reason of the exception that it raises: as a term, so that the exception is one of the function that the user called.

use crate::answer::{Answer, Stop};
use crate::atoms;
use crate::resource::{self, Array, HandleReference};
use iommap_core::{Update, Wait};
use rustler::{Encoder, Env, Term};

/// `atomics_new_nif(Handle, Offset, Arity, Signed)`
pub fn new<'a>(
    env: Env<'a>,
    [handle, offset, arity, signed]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    let new = || {
        let array = Array {
            handle: HandleReference::keep(handle)?,
            offset: offset.decode()?,
            arity: arity.decode()?,
            signed: signed.decode()?,
        };
        if array.arity == 0 {
            return Err(Stop::Raise);
        }
        array.handle.check_words(wait, array.offset, array.arity)?;
        Ok(resource::encode_array(env, array))
    };
    match new() {
        Err(Stop::Error(_) | Stop::System(_)) => Err(Stop::Raise),
        answer => answer,
    }
    .or_else(|stop| reason(env, stop))
}

/// `atomics_info_nif(Array)`: `{Arity, Signed}`.
pub fn info<'a>(env: Env<'a>, [array]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    answer(env, || {
        let array = resource::decode_array(array)?;
        array.handle.position(wait)?;
        Ok((array.arity, array.signed).encode(env))
    })
}

/// `atomics_get_nif(Array, Index)`
#[inline(always)]
pub fn get<'a>(env: Env<'a>, [array, index]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        Ok(array.encode(env, array.handle.load(wait, offset)?))
    })
}

/// `atomics_put_nif(Array, Index, Value)`
#[inline(always)]
pub fn put<'a>(env: Env<'a>, [array, index, value]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        let update = Update::Exchange(array.decode(value)?);
        array.handle.update(wait, offset, update)?;
        Ok(atoms::ok().to_term(env))
    })
}

/// `atomics_exchange_nif(Array, Index, Value)`: what was there before.
#[inline(always)]
pub fn exchange<'a>(env: Env<'a>, [array, index, value]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        let update = Update::Exchange(array.decode(value)?);
        Ok(array.encode(env, array.handle.fetch_update(wait, offset, update)?))
    })
}

/// `atomics_compare_exchange_nif(Array, Index, Expected, Desired)`: `ok`, or what was there instead.
#[inline(always)]
pub fn compare_exchange<'a>(
    env: Env<'a>,
    [array, index, expected, desired]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        let (expected, new) = (array.decode(expected)?, array.decode(desired)?);
        let update = Update::CompareExchange { expected, new };
        let before = array.handle.fetch_update(wait, offset, update)?;
        Ok(if before == expected {
            atoms::ok().to_term(env)
        } else {
            array.encode(env, before)
        })
    })
}

/// Defines the two calls of an update by an operand: without an answer, and with the new value for one.
macro_rules! updates {
    ($($(#[$attribute:meta])* $update:ident, $update_get:ident: $kind:path;)*) => {$(
        $(#[$attribute])*
        #[inline(always)]
        pub fn $update<'a>(env: Env<'a>, arguments: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
            update(env, arguments, wait, $kind)
        }

        /// The same, with the new value.
        #[inline(always)]
        pub fn $update_get<'a>(env: Env<'a>, arguments: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
            update_get(env, arguments, wait, $kind)
        }
    )*};
}

updates! {
    /// `atomics_add_nif(Array, Index, Increment)`
    add, add_get: Update::Add;
    /// `atomics_band_nif(Array, Index, Mask)`
    band, band_get: Update::And;
    /// `atomics_bor_nif(Array, Index, Mask)`
    bor, bor_get: Update::Or;
    /// `atomics_bxor_nif(Array, Index, Mask)`
    bxor, bxor_get: Update::Xor;
}

#[inline(always)]
fn update<'a>(
    env: Env<'a>,
    [array, index, operand]: [Term<'a>; 3],
    wait: Wait,
    kind: fn(u64) -> Update,
) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        let update = kind(decode_operand(operand)?);
        array.handle.update(wait, offset, update)?;
        Ok(atoms::ok().to_term(env))
    })
}

#[inline(always)]
fn update_get<'a>(
    env: Env<'a>,
    [array, index, operand]: [Term<'a>; 3],
    wait: Wait,
    kind: fn(u64) -> Update,
) -> Answer<'a> {
    answer(env, || {
        let (array, offset) = word(array, index)?;
        let update = kind(decode_operand(operand)?);
        let before = array.handle.fetch_update(wait, offset, update)?;
        Ok(array.encode(env, update.applied_to(before)))
    })
}

/// Finds the array, and the offset of the word in its mapping.
#[inline(always)]
fn word<'a>(array: Term<'a>, index: Term<'a>) -> Result<(&'a Array, u64), Stop> {
    let array = resource::decode_array(array)?;
    let index = index.decode::<u64>()?.wrapping_sub(1);
    if index >= array.arity {
        return Err(Stop::Raise);
    }
    Ok((array, array.offset + 8 * index)) // inside: `new` has seen that
}

/// Decodes what is added, or whose bits are taken: of either sign, whatever the array is.
#[inline(always)]
fn decode_operand(term: Term) -> Result<u64, Stop> {
    match term.decode::<i64>() {
        Ok(operand) => Ok(operand as u64),
        Err(_) => Ok(term.decode()?),
    }
}

impl Array {
    #[inline(always)]
    fn decode(&self, value: Term) -> Result<u64, Stop> {
        if self.signed {
            Ok(value.decode::<i64>()? as u64)
        } else {
            Ok(value.decode()?)
        }
    }

    #[inline(always)]
    fn encode<'a>(&self, env: Env<'a>, word: u64) -> Term<'a> {
        if self.signed {
            (word as i64).encode(env)
        } else {
            word.encode(env)
        }
    }
}

/// Runs the body of a call. Of the words of an array that `new` has seen, one that is outside was cut off.
#[inline(always)]
fn answer<'a>(env: Env<'a>, body: impl FnOnce() -> Result<Term<'a>, Stop>) -> Answer<'a> {
    body().or_else(|stop| reason(env, stop))
}

/// Makes the reason of the exception, unless the call goes on elsewhere.
#[cold]
fn reason(env: Env, stop: Stop) -> Answer {
    match stop {
        Stop::WouldBlock | Stop::Foreign(_) => Err(stop),
        Stop::Error(reason) if reason == atoms::sigbus() || reason == atoms::out_of_bounds() => {
            Ok(atoms::sigbus().to_term(env))
        }
        _ => Ok(atoms::badarg().to_term(env)),
    }
}
