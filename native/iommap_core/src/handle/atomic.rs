//! Loads and updates words (`iommap_atomics`). Both take the lock as readers do: they do not exclude each other, and a write
//! through the handle excludes them.

use super::{opened, Handle, Wait};
use crate::error::Error;
use crate::lock::Lock;
use crate::mapping::atomic::{WritableWord, WORD};
use crate::mapping::{Mapping, Part};
use crate::update::Update;

impl<V> Handle<V> {
    /// Checks that so many words from `offset` on can be shared with others: inside, aligned, and in no private mapping.
    pub fn check_words(&self, wait: Wait, offset: u64, count: u64) -> Result<(), Error> {
        let reading = self.reading(wait)?;
        let mapping = &opened(&reading)?.mapping;
        let length = count.checked_mul(WORD as u64).ok_or(Error::OutOfBounds)?;
        let part = mapping.part(offset, length)?;
        if mapping.is_private() || !part.is_aligned() {
            return Err(Error::INVALID);
        }
        Ok(())
    }

    /// Loads the word at `offset`.
    #[inline(always)]
    pub fn load(&self, wait: Wait, offset: u64) -> Result<u64, Error> {
        if wait == Wait::Blocking {
            return self.load_blocking(offset);
        }
        self.prefetch(offset);
        let reading = self.reading(wait)?;
        let part = self.readable_part_of_word(&opened(&reading)?.mapping, offset)?;
        if !part.is_ready_to_read() {
            return Err(Error::WouldBlock);
        }
        part.word()?.load()
    }

    #[cold]
    fn load_blocking(&self, offset: u64) -> Result<u64, Error> {
        let prepare = |mapping: &Mapping| {
            let part = self.readable_part_of_word(mapping, offset)?;
            if !part.is_ready_to_read() {
                part.fetch(&mut vec![0; WORD]);
            }
            Ok(())
        };
        let load = |mapping: &Mapping, ()| {
            let part = self.readable_part_of_word(mapping, offset)?;
            part.word()?.load()
        };
        self.two_phase(prepare, Lock::read, load)
    }

    /// Updates the word at `offset`.
    #[inline(always)]
    pub fn update(&self, wait: Wait, offset: u64, update: Update) -> Result<(), Error> {
        if wait == Wait::Blocking {
            return self.update_blocking(offset, |word| word.update(update));
        }
        self.prefetch(offset);
        let reading = self.reading(wait)?;
        word_ready_to_write(&opened(&reading)?.mapping, offset)?.update(update)
    }

    /// Updates the word at `offset`, and gives what it held before.
    #[inline(always)]
    pub fn fetch_update(&self, wait: Wait, offset: u64, update: Update) -> Result<u64, Error> {
        self.permit(self.options.access.reads())?;
        if wait == Wait::Blocking {
            return self.update_blocking(offset, |word| word.fetch_update(update));
        }
        self.prefetch(offset);
        let reading = self.reading(wait)?;
        word_ready_to_write(&opened(&reading)?.mapping, offset)?.fetch_update(update)
    }

    #[cold]
    fn update_blocking<R>(
        &self,
        offset: u64,
        update: impl FnOnce(WritableWord) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let prepare = |mapping: &Mapping| {
            let part = mapping.writable_part(offset, WORD as u64)?;
            mapping.check_not_faulted()?;
            let _ = part.fault_in_writeable();
            Ok(())
        };
        let update = |mapping: &Mapping, ()| {
            let part = mapping.writable_part(offset, WORD as u64)?;
            let stamp = part.write_stamp();
            let updated = update(part.word()?)?;
            part.insert_written(stamp);
            Ok(updated)
        };
        self.two_phase(prepare, Lock::read, update)
    }

    #[inline(always)]
    fn readable_part_of_word<'a>(
        &self,
        mapping: &'a Mapping,
        offset: u64,
    ) -> Result<Part<'a>, Error> {
        self.permit(self.options.access.reads())?;
        mapping.part(offset, WORD as u64)
    }
}

#[inline(always)]
fn word_ready_to_write(mapping: &Mapping, offset: u64) -> Result<WritableWord<'_>, Error> {
    let part = mapping.writable_part(offset, WORD as u64)?;
    if !part.is_ready_to_write() {
        return Err(Error::WouldBlock);
    }
    part.word()
}
