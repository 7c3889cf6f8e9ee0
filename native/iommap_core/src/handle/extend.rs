//! Makes a mapping longer, and never shorter (`ensure_size`, `follow`): what faults and failed write-backs have left stays as it is.

use super::{opened, Handle, Wait};
use crate::error::Error;
use crate::file::{mappable, post_eof, BackingFile};
use crate::mapping::Mapping;
use std::sync::Arc;

impl<V> Handle<V> {
    /// Makes file and mapping at least so many bytes long, and gives their size. They grow by half at least, if there is room
    /// for that, so that growing again and again costs little each time.
    #[inline]
    pub fn ensure_size(&self, wait: Wait, least: u64) -> Result<usize, Error> {
        let size = {
            let reading = self.reading(wait)?;
            self.extensible(&opened(&reading)?.mapping)?
        };
        match wait {
            _ if size as u64 >= least => Ok(size),
            Wait::NonBlocking => Err(Error::WouldBlock),
            Wait::Blocking => self.grow(mappable(least)?),
        }
    }

    /// The size of a mapping that may be made longer.
    #[inline]
    fn extensible(&self, mapping: &Mapping) -> Result<usize, Error> {
        self.permit(self.options.access.writes())?;
        self.check_whole()?;
        mapping.check_not_faulted()?;
        Ok(mapping.size())
    }

    #[cold]
    fn grow(&self, least: usize) -> Result<usize, Error> {
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping()?;
        let size = self.extensible(&mapping)?;
        if size >= least {
            return Ok(size); // another call was faster
        }
        let now = mappable(mapping.file().size()?)?;
        if now < size {
            return Err(Error::Fault); // the file lost bytes, which must not become zeros
        }
        let least = least.max(now);
        let more = least.max(size.saturating_add(size / 2));
        match self.extend_with_file(mapping, more) {
            Err(Error::System(_)) if more > least => self.extend_with_file(self.mapping()?, least),
            grown => grown,
        }
    }

    fn extend_with_file(&self, mapping: Arc<Mapping>, size: usize) -> Result<usize, Error> {
        self.extend(mapping, size, |file| {
            post_eof::zero(file, size as u64)?;
            file.grow_to(size as u64)
        })?;
        Ok(size)
    }

    /// Makes the mapping longer for a read past its end, to the end of the file or the window, if the range lies before that. The
    /// read itself answers for every range that does not.
    pub(super) fn follow(&self, offset: u64, length: u64) -> Result<(), Error> {
        let is_beyond =
            |mapping: &Mapping| mapping.part(offset, length).err() == Some(Error::OutOfBounds);
        if !self.options.follow || !is_beyond(&*self.mapping()?) {
            return Ok(());
        }
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping()?;
        self.permit(self.options.access.reads())?;
        if !is_beyond(&mapping) {
            return Ok(()); // another call was faster
        }
        let end = offset.saturating_add(length);
        match self.options.window.length_in(mapping.file().size()?) {
            Some(size) if end <= size => {
                mapping.check_not_faulted()?;
                self.extend(mapping, mappable(size)?, |_| Ok(()))
            }
            _ => Ok(()),
        }
    }

    /// Makes the mapping so long, after `grow_file` has seen to it that the file is. If any step fails, the handle is what it was.
    fn extend(
        &self,
        mapping: Arc<Mapping>,
        size: usize,
        grow_file: impl FnOnce(&BackingFile) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let file = mapping.file().clone();
        if mapping.can_grow_to(size) {
            let growth = mapping.prepare_growth(size)?;
            grow_file(&file)?;
            self.publish(growth);
            return Ok(());
        }
        let mut fresh = self.replacement(&mapping, size)?;
        fresh.share_writeback_error(&mapping);
        drop(mapping);
        grow_file(&file)?;
        self.replace(fresh, Mapping::check_not_faulted)
    }
}
