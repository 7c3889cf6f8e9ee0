//! Words of a mapping (`iommap_atomics`).
//!
//! A library belongs to one module, so these are functions of `iommap`, which `iommap_atomics` calls. None of them raises: it raises
//! what is wrong itself, so that the exception is one of the function that the user called.

use crate::answer::{Answer, Stop};
use crate::atoms;
use crate::resource::{self, Array, HandleReference};
use iommap_core::{Update, Wait};
use rustler::{Decoder, Encoder, Env, Term};

/// `atomics_new_nif(Handle, Offset, Arity, Signed)`
pub fn new<'a>(
    env: Env<'a>,
    [handle, offset, arity, signed]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    let array = Array {
        handle: HandleReference::keep(handle).map_err(unless_foreign)?,
        offset: decode(offset)?,
        arity: decode(arity)?,
        signed: decode(signed)?,
    };
    if array.arity == 0 {
        return Err(badarg());
    }
    array.handle.check_words(wait, array.offset, array.arity)?;
    Ok(resource::encode_array(env, array))
}

/// `atomics_info_nif(Array)`: `{Arity, Signed}`.
pub fn info<'a>(env: Env<'a>, [array]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let array = decode_array(array)?;
    array.handle.position(wait)?;
    Ok((array.arity, array.signed).encode(env))
}

/// `atomics_get_nif(Array, Index)`
#[inline(always)]
pub fn get<'a>(env: Env<'a>, [array, index]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let (array, offset) = word(array, index)?;
    Ok(array.encode(env, array.handle.load(wait, offset)?))
}

/// `atomics_put_nif(Array, Index, Value)`
#[inline(always)]
pub fn put<'a>(env: Env<'a>, [array, index, value]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let (array, offset) = word(array, index)?;
    let update = Update::Exchange(array.decode(value)?);
    array.handle.update(wait, offset, update)?;
    Ok(atoms::ok().to_term(env))
}

/// `atomics_exchange_nif(Array, Index, Value)`: the value before.
#[inline(always)]
pub fn exchange<'a>(env: Env<'a>, [array, index, value]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let (array, offset) = word(array, index)?;
    let update = Update::Exchange(array.decode(value)?);
    Ok(array.encode(env, array.handle.fetch_update(wait, offset, update)?))
}

/// `atomics_compare_exchange_nif(Array, Index, Expected, Desired)`: `ok`, or the value that is there instead.
#[inline(always)]
pub fn compare_exchange<'a>(
    env: Env<'a>,
    [array, index, expected, desired]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    let (array, offset) = word(array, index)?;
    let (expected, new) = (array.decode(expected)?, array.decode(desired)?);
    let update = Update::CompareExchange { expected, new };
    let before = array.handle.fetch_update(wait, offset, update)?;
    Ok(if before == expected {
        atoms::ok().to_term(env)
    } else {
        array.encode(env, before)
    })
}

/// Defines the two calls of an update by an operand: one that answers `ok`, and one that answers the new value.
macro_rules! updates {
    ($($(#[$attribute:meta])* $update:ident, $update_get:ident: $kind:path;)*) => {$(
        $(#[$attribute])*
        #[inline(always)]
        pub fn $update<'a>(
            env: Env<'a>,
            [array, index, operand]: [Term<'a>; 3],
            wait: Wait,
        ) -> Answer<'a> {
            let (array, offset) = word(array, index)?;
            array.handle.update(wait, offset, $kind(decode_operand(operand)?))?;
            Ok(atoms::ok().to_term(env))
        }

        /// The same, with the new value.
        #[inline(always)]
        pub fn $update_get<'a>(
            env: Env<'a>,
            [array, index, operand]: [Term<'a>; 3],
            wait: Wait,
        ) -> Answer<'a> {
            let (array, offset) = word(array, index)?;
            let update = $kind(decode_operand(operand)?);
            let before = array.handle.fetch_update(wait, offset, update)?;
            Ok(array.encode(env, update.applied_to(before)))
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

/// Finds the array, and the offset of the word in its mapping.
#[inline(always)]
fn word<'a>(array: Term<'a>, index: Term<'a>) -> Result<(&'a Array, u64), Stop> {
    let array = decode_array(array)?;
    let index = decode::<u64>(index)?.wrapping_sub(1);
    if index >= array.arity {
        return Err(badarg());
    }
    Ok((array, array.offset + 8 * index)) // does not overflow: `new` has seen that the last is inside
}

#[inline(always)]
fn decode_array(term: Term<'_>) -> Result<&Array, Stop> {
    resource::decode_array(term).map_err(unless_foreign)
}

#[inline(always)]
fn decode<'a, T: Decoder<'a>>(term: Term<'a>) -> Result<T, Stop> {
    term.decode().map_err(|_| badarg())
}

/// Decodes what is added, or a mask: of either sign, whatever the array is.
#[inline(always)]
fn decode_operand(term: Term) -> Result<u64, Stop> {
    match term.decode::<i64>() {
        Ok(operand) => Ok(operand as u64),
        Err(_) => decode(term),
    }
}

impl Array {
    #[inline(always)]
    fn decode(&self, value: Term) -> Result<u64, Stop> {
        if self.signed {
            decode::<i64>(value).map(|value| value as u64)
        } else {
            decode(value)
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

#[cold]
fn unless_foreign(stop: Stop) -> Stop {
    match stop {
        Stop::Foreign(_) => stop,
        _ => badarg(),
    }
}

#[cold]
fn badarg() -> Stop {
    Stop::Error(atoms::badarg())
}
