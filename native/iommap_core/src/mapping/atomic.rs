//! Words: loads and updates, atomic between all who map the file.

use super::{Part, WritablePart};
use crate::error::Error;
use crate::fault::guard;
use crate::update::Update;
use std::sync::atomic::Ordering;

/// How many bytes a word has. Its address is a multiple of that.
pub const WORD: usize = 8;

/// A part that is a word.
#[derive(Clone, Copy)]
pub struct Word<'a>(Part<'a>);

/// A part that is a word and may be written to.
#[derive(Clone, Copy)]
pub struct WritableWord<'a>(WritablePart<'a>);

impl<'a> Part<'a> {
    /// Whether its first byte is where a word may begin.
    #[inline(always)]
    pub fn is_aligned(self) -> bool {
        self.address().addr() & (WORD - 1) == 0
    }

    /// The word that is the part.
    #[inline(always)]
    pub fn word(self) -> Result<Word<'a>, Error> {
        if self.length() == WORD && self.is_aligned() {
            Ok(Word(self))
        } else {
            Err(Error::INVALID)
        }
    }
}

impl<'a> WritablePart<'a> {
    /// The word that is the part.
    #[inline(always)]
    pub fn word(self) -> Result<WritableWord<'a>, Error> {
        self.0.word().map(|_| WritableWord(self))
    }
}

impl Word<'_> {
    /// Loads the word.
    ///
    /// A zero is loaded and asked about twice, for what `Mapping::recheck_zeros` says of zeros that were copied.
    #[inline(always)]
    pub fn load(self) -> Result<u64, Error> {
        match self.load_once()? {
            0 => self.recheck_zero(),
            value => Ok(value),
        }
    }

    #[cold]
    fn recheck_zero(self) -> Result<u64, Error> {
        self.check_zero()?;
        let value = self.load_once()?;
        if value == 0 {
            self.check_zero()?;
        }
        Ok(value)
    }

    #[inline(always)]
    fn load_once(self) -> Result<u64, Error> {
        // SAFETY: the word is aligned, and mapped as long as the mapping lives.
        let value = unsafe { guard::load(self.0.address().cast())? };
        self.0.mapping.check_not_faulted()?;
        Ok(value)
    }

    /// `Fault` if a word that was 0 lies in zeros of a page that is no longer the file's.
    fn check_zero(self) -> Result<(), Error> {
        let Part { mapping, range } = self.0;
        if mapping.lies_in_zeros(range) && !mapping.file_covers(range.end()) {
            return Err(Error::Fault);
        }
        Ok(())
    }
}

impl WritableWord<'_> {
    /// Updates the word. Others may read, write and update it at the same time, also through the handle.
    #[inline(always)]
    pub fn update(self, update: Update) -> Result<(), Error> {
        self.update_once(update).map(drop)
    }

    /// Updates the word, and gives what it held before; `Fault` if that was a zero that is not the file's.
    #[inline(always)]
    pub fn fetch_update(self, update: Update) -> Result<u64, Error> {
        let before = self.update_once(update)?;
        if before == 0 {
            self.check_zero()?;
        }
        Ok(before)
    }

    #[cold]
    fn check_zero(self) -> Result<(), Error> {
        Word(self.0 .0).check_zero()
    }

    #[inline(always)]
    fn update_once(self, update: Update) -> Result<u64, Error> {
        let Part { mapping, range } = self.0 .0;
        mapping.check_takes_stores(range)?;
        mapping.mark_private(range);
        if !mapping.written.load(Ordering::Relaxed) {
            mapping.written.store(true, Ordering::Relaxed);
        }
        let word = self.0 .0.address().cast_mut().cast();
        // SAFETY: the word is aligned, and mapped to be written to as long as the mapping lives.
        let before = unsafe { guard::update(word, update)? };
        mapping.check_stored(range)?;
        Ok(before)
    }
}
