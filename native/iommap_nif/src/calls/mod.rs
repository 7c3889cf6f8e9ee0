//! The calls: arguments in, answer out.
//!
//! The order of checks is the contract's: what raises comes before what is answered, and that before the state of the
//! handle, which the core looks at.

pub mod advise;
pub mod info;
pub mod open;
pub mod read;
pub mod resize;
pub mod view;
pub mod write;

use crate::answer::Stop;
use crate::term::{self, Env, Number, Term};

#[inline]
fn naturals<const N: usize>(env: Env, terms: [Term; N]) -> Result<[u64; N], Stop> {
    let mut naturals = [0; N];
    let mut negative = false;
    for (natural, term) in naturals.iter_mut().zip(terms) {
        match term::number(env, term)? {
            Number::Natural(number) => *natural = number,
            Number::Negative => negative = true,
        }
    }
    if negative {
        Err(Stop::ErrorBadarg)
    } else {
        Ok(naturals)
    }
}
