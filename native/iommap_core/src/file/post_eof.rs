//! Post-EOF bytes: those behind the end of a file.
//!
//! The page that holds the end can be written behind it through any mapping, and so can whole pages behind it where the
//! system keeps a file in memory in larger pieces (tmpfs with `huge=`). tmpfs keeps such bytes, also below an overlayfs, and so does FUSE: a
//! file that grows shows them as its own. So they are zeroed before it grows, if they are not zero, and the file still ends before
//! them a moment later: a write(2) copies its bytes first and sets the size after. An append that takes longer than that moment can
//! be lost, but only its part in that piece, and only where the file grows at the same time.

use super::BackingFile;
use crate::error::Error;
use crate::fault::guard;
use crate::platform::memory::Kind;
use crate::platform::page_size;
use crate::reservation::Reservation;
use std::time::Duration;

/// How long a write(2) may take between its bytes and the size.
const MOMENT: Duration = Duration::from_millis(2);

/// Zeroes what lies behind the end of the file, before `limit`.
pub fn zero(file: &BackingFile, limit: u64) -> Result<(), Error> {
    let Some(piece) = file.keeps_post_eof() else {
        return Ok(());
    };
    let end = file.size()?;
    let stop = limit.min(end.next_multiple_of(piece as u64));
    if end >= stop {
        return Ok(());
    }
    let first = end - end % file.page_size() as u64;
    let length = (stop - first) as usize;
    let window = Reservation::exact(first, length, file.page_size())?;
    let shared = Kind {
        private: false,
        writable: true,
        populate: false,
    };
    window.map(file.fd(), 0, length, shared)?;
    let mut offset = (end - first) as usize;
    while offset < length {
        let next = (offset | (page_size() - 1)) + 1;
        let ends_there = || {
            std::thread::sleep(MOMENT);
            file.size() == Ok(end)
        };
        if zero_part(
            window.start() + offset,
            next.min(length) - offset,
            ends_there,
        )
        .is_err()
        {
            break; // no page is there, and so none behind it
        }
        offset = next;
    }
    Ok(())
}

/// Zeroes a part of a page, if it is not zero and still behind the end of the file.
fn zero_part(address: usize, length: usize, ends_there: impl Fn() -> bool) -> Result<(), Error> {
    let at = std::ptr::with_exposed_provenance_mut::<u8>(address);
    let mut bytes = vec![0; length];
    // SAFETY: the part lies in a window that is mapped to be read and written, and that nobody else knows.
    unsafe { guard::copy(bytes.as_mut_ptr(), at, length)? };
    if bytes.iter().all(|byte| *byte == 0) || !ends_there() {
        return Ok(());
    }
    bytes.fill(0);
    // SAFETY: as above.
    unsafe { guard::copy(at, bytes.as_ptr(), length) }
}
