//! The atoms of the API, made once when the library is loaded.

use crate::term;
use rustler::sys::{ErlNifEnv, ERL_NIF_TERM};
use std::sync::OnceLock;

macro_rules! atoms {
    ($($atom:ident)*) => {
        /// The atoms, by name; with an underscore after a word that Rust keeps for itself.
        #[derive(Clone, Copy)]
        pub struct Atoms {
            $(pub $atom: ERL_NIF_TERM,)*
        }

        /// Makes them. Atoms are the same terms for the life of the VM.
        pub fn make(env: *mut ErlNifEnv) {
            ATOMS.get_or_init(|| Atoms {
                $($atom: term::atom(env, stringify!($atom).trim_end_matches('_')),)*
            });
        }
    };
}

atoms! {
    ok error badarg closed out_of_bounds sigbus nif_panicked
    read write read_write shared private create truncate lock populate nocache
    sync async_
    normal random sequential willneed dontneed
    size mode sharing locked faulted page_size
    true_ false_
}

static ATOMS: OnceLock<Atoms> = OnceLock::new();

/// The atoms. `load` made them: the VM makes no call before it, and a load that fails gives it none to make.
#[inline]
pub fn atoms() -> &'static Atoms {
    ATOMS.get().expect("load makes the atoms")
}
