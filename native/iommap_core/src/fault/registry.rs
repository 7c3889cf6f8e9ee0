//! The live mappings, for the signal handler: which mapping holds this address, and what has it lost?
//!
//! The handler may run on any thread at any moment, so what it reads is lock-free, is never freed, and grows without
//! limit: a list of chunks of slots, all of them static or leaked. A slot belongs to one mapping at a time. A look-up
//! passes over the keys of those chunks that hold anything near the address; they stand close together.
//!
//! ```text
//! free --register--> live --unregister--> free       (a seqlock: see `key`)
//! ```
//!
//! Invariants:
//! - A slot is unregistered before its range is unmapped, so no foreign memory is ever found here.
//! - A reader of a view, which asks about an address, keeps its mapping alive, so the slot that holds the address
//!   does not change meanwhile; a slot whose sequence is odd or changes under the look is not the one, and is skipped.
//!   The look-up is wait-free.
//! - The end of a range only moves away while the mapping lives, in one store, so an entry is never invalid for a moment.
//! - What is lost is recorded, and `faulted` set, before the zero pages appear: a thread that has seen a zero page sees the record.

use super::key::Key;
use super::lost::Lost;
use crate::platform::{file, memory, spare, wake};
use crate::stats::{self, Counter};
use parking_lot::Mutex;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{
    fence, AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering,
};

/// The slot of one mapping in the registry.
#[derive(Clone, Copy)]
pub struct Slot {
    chunk: &'static Chunk,
    index: usize,
}

/// A mapping, as it is registered.
pub struct Entry {
    /// The address of its first byte.
    pub start: usize,
    /// How many bytes it has.
    pub length: usize,
    /// Where in the file that byte is, in bytes.
    pub origin: u64,
    /// The address and length of the reservation that it lies in.
    pub extent: (usize, usize),
    /// The size of its pages.
    pub unit: usize,
    /// The backing file, if its size tells which pages are backed.
    pub fd: Option<RawFd>,
    /// Whether its pages may be written.
    pub writable: bool,
}

/// The other facts of a mapping that the handler needs.
struct Record {
    base: AtomicUsize,
    reserved: AtomicUsize,
    unit: AtomicUsize,
    /// The backing file, or -1 where its size says nothing (a block device).
    fd: AtomicI32,
    origin: AtomicU64,
    writable: AtomicBool,
    faulted: AtomicBool,
    lost: Lost,
}

const SLOTS: usize = 256;

struct Chunk {
    /// All ranges that its slots ever held lie from `lowest` to before `highest`, in the first `used` of them.
    lowest: AtomicUsize,
    highest: AtomicUsize,
    used: AtomicUsize,
    keys: [Key; SLOTS],
    records: [Record; SLOTS],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk {
            lowest: AtomicUsize::new(usize::MAX),
            highest: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            keys: [const { Key::new() }; SLOTS],
            records: [const { Record::new() }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn slots(&'static self) -> impl DoubleEndedIterator<Item = Slot> {
        (0..SLOTS).map(move |index| Slot { chunk: self, index })
    }

    fn find(&'static self, address: usize) -> Option<Slot> {
        if address < self.lowest.load(Ordering::Acquire)
            || address >= self.highest.load(Ordering::Acquire)
        {
            return None;
        }
        let used = self.used.load(Ordering::Acquire);
        let index = self
            .keys
            .iter()
            .take(used)
            .position(|key| key.holds(address))?;
        Some(Slot { chunk: self, index })
    }
}

static FIRST: Chunk = Chunk::new();

/// Slots that no mapping has, once the first chunk was handed out. Never touched by the handler.
static FREE: Mutex<Option<Vec<Slot>>> = Mutex::new(None);

/// How many chunks there are.
static CHUNKS: AtomicUsize = AtomicUsize::new(1);

/// How many views' worth of mappings there are: while it is 0 no binary can lie in a mapping.
static VIEWED: AtomicUsize = AtomicUsize::new(0);

/// The descriptor that is written to when zero pages were put under a mapping for the first time; -1 if nobody wants to know.
static WATCHER: AtomicI32 = AtomicI32::new(-1);

/// From now on that descriptor is woken (`platform::wake`) when zero pages were put under a mapping for the first time. A fault
/// that it is not woken for is seen by who asks about its slot after this.
pub fn watch(descriptor: RawFd) {
    WATCHER.store(descriptor, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

/// The descriptor that is woken.
pub fn watcher() -> Option<RawFd> {
    Some(WATCHER.load(Ordering::SeqCst)).filter(|descriptor| *descriptor >= 0)
}

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&FIRST), |chunk| {
        // SAFETY: a chunk that was linked is leaked, so it lives for ever.
        unsafe { chunk.next.load(Ordering::Acquire).as_ref() }
    })
}

fn find(address: usize) -> Option<Slot> {
    chunks().find_map(|chunk| chunk.find(address))
}

/// A mapping is known for as long as this lives, and unmapped after.
pub struct Registration(Slot);

impl std::ops::Deref for Registration {
    type Target = Slot;

    #[inline]
    fn deref(&self) -> &Slot {
        &self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        unregister(self.0);
    }
}

/// Makes a mapping known.
pub fn register(entry: &Entry) -> Registration {
    let slot = take_free();
    let end = entry.start + entry.length;
    slot.chunk.lowest.fetch_min(entry.start, Ordering::Release);
    slot.chunk.highest.fetch_max(end, Ordering::Release);
    slot.chunk.used.fetch_max(slot.index + 1, Ordering::Release);
    slot.key().change(entry.start, end, || {
        let record = slot.record();
        record.lost.clear();
        record.faulted.store(false, Ordering::Relaxed);
        record.base.store(entry.extent.0, Ordering::Relaxed);
        record.reserved.store(entry.extent.1, Ordering::Relaxed);
        record.unit.store(entry.unit, Ordering::Relaxed);
        record.fd.store(entry.fd.unwrap_or(-1), Ordering::Relaxed);
        record.origin.store(entry.origin, Ordering::Relaxed);
        record.writable.store(entry.writable, Ordering::Relaxed);
    });
    Registration(slot)
}

/// The range is about to be unmapped.
fn unregister(slot: Slot) {
    slot.key().change(0, 0, || ());
    FREE.lock().get_or_insert_default().push(slot);
}

fn take_free() -> Slot {
    let mut free = FREE.lock();
    // The lowest slots are handed out first, so that few mappings are few slots to look at.
    let free = free.get_or_insert_with(|| FIRST.slots().rev().collect());
    if free.is_empty() {
        let added: &'static Chunk = Box::leak(Box::new(Chunk::new()));
        let last = chunks().last().unwrap_or(&FIRST);
        last.next
            .store(ptr::from_ref(added).cast_mut(), Ordering::Release);
        CHUNKS.fetch_add(1, Ordering::Relaxed);
        free.extend(added.slots().rev());
    }
    // It was not empty, or a chunk was added just now.
    free.pop().expect("a chunk has slots")
}

/// The cost of a look-up at the worst, in the time that it takes with few mappings (about a quarter of a microsecond).
#[inline]
pub fn look_up_cost() -> usize {
    CHUNKS.load(Ordering::Relaxed)
}

/// A mapping is shown to others as binaries from now on.
pub fn view_began() {
    VIEWED.fetch_add(1, Ordering::Relaxed);
}

/// No binary shows that mapping any more.
pub fn view_ended() {
    VIEWED.fetch_sub(1, Ordering::Relaxed);
}

/// Whether any mapping is shown.
#[inline]
pub fn has_views() -> bool {
    VIEWED.load(Ordering::Relaxed) != 0
}

/// Called in the signal handler: maps zero pages if the address is in a live mapping.
pub fn resolve(address: usize) -> bool {
    find(address).is_some_and(|slot| slot.map_zero_pages(address))
}

/// Whether every byte of this memory, if it is in a live mapping, is and was backed by its file. `None` if it is not
/// ours: at once, if there are no views at all.
#[inline]
pub fn intact(address: usize, length: usize) -> Option<bool> {
    if !has_views() {
        return None;
    }
    let slot = find(address)?;
    let start = address - slot.key().start.load(Ordering::Relaxed);
    Some(length == 0 || slot.intact(start, start + length))
}

/// Whether every live mapping is intact, or there is no view of any.
pub fn all_intact() -> bool {
    if !has_views() {
        return true;
    }
    // Nobody keeps these mappings alive: what is found of one that changes meanwhile says nothing.
    chunks().flat_map(Chunk::slots).all(|slot| {
        let (sequence, start, end) = slot.key().range();
        start == end || slot.intact(0, end - start) || slot.key().changed_since(sequence)
    })
}

impl Record {
    const fn new() -> Record {
        Record {
            base: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            unit: AtomicUsize::new(1),
            fd: AtomicI32::new(-1),
            origin: AtomicU64::new(0),
            writable: AtomicBool::new(false),
            faulted: AtomicBool::new(false),
            lost: Lost::new(),
        }
    }

    fn unit(&self) -> usize {
        self.unit.load(Ordering::Relaxed)
    }

    /// Where the file ends now, counted from the first byte mapped. Nowhere if that says nothing (a block device); `None` if it cannot be found out.
    fn file_end(&self) -> Option<usize> {
        match self.fd.load(Ordering::Relaxed) {
            -1 => Some(usize::MAX),
            fd => file::size(fd).map(|size| {
                let end = size.saturating_sub(self.origin.load(Ordering::Relaxed));
                usize::try_from(end).unwrap_or(usize::MAX)
            }),
        }
    }
}

impl Slot {
    fn key(self) -> &'static Key {
        &self.chunk.keys[self.index]
    }

    fn record(self) -> &'static Record {
        &self.chunk.records[self.index]
    }

    /// The mapping has `length` bytes from now on, which are more than before.
    pub fn extend(self, length: usize) {
        let end = self.key().start.load(Ordering::Relaxed) + length;
        self.chunk.highest.fetch_max(end, Ordering::Release);
        self.key().end.store(end, Ordering::Release);
    }

    /// Whether zero pages were put under any part of the mapping. Asked after reading: no zero page was seen if not.
    #[inline]
    pub fn faulted(self) -> bool {
        fence(Ordering::Acquire);
        self.record().faulted.load(Ordering::Acquire)
    }

    /// Whether zero pages were put under any of the bytes from offset `start` to before `end`.
    pub fn lost(self, start: usize, end: usize) -> bool {
        self.faulted() && self.record().lost.touches(start, end, self.record().unit())
    }

    /// Whether the file has, or its last page holds, the byte before that offset.
    pub fn file_covers(self, offset: usize) -> bool {
        let end = self.record().file_end().unwrap_or(usize::MAX);
        end.checked_next_multiple_of(self.record().unit())
            .is_none_or(|end| offset <= end)
    }

    /// Whether the bytes from offset `start` to before `end` are and were the file's.
    pub fn intact(self, start: usize, end: usize) -> bool {
        !self.lost(start, end) && self.ends_inside_file(end)
    }

    /// Whether the file has the byte before that offset, as far as can be found out.
    pub fn ends_inside_file(self, end: usize) -> bool {
        self.record()
            .file_end()
            .is_some_and(|file_end| end <= file_end)
    }

    /// Puts zero pages over what lost its backing: all pages after the end of the file, or, if the file still
    /// reaches the address, the page that failed.
    fn map_zero_pages(self, address: usize) -> bool {
        let record = self.record();
        let unit = record.unit();
        let start = self.key().start.load(Ordering::Relaxed);
        let length = self.key().end.load(Ordering::Relaxed) - start;
        let whole = length.next_multiple_of(unit);
        let page = (address - start) & !(unit - 1);
        let file_end = record
            .file_end()
            .and_then(|end| end.checked_next_multiple_of(unit))
            .unwrap_or(usize::MAX);

        let (from, zeroed) = if page >= file_end {
            record.lost.add_from(file_end);
            (file_end, whole - file_end)
        } else {
            record.lost.add_page(page);
            (page, unit)
        };
        if !record.faulted.swap(true, Ordering::SeqCst) {
            if let Some(descriptor) = watcher() {
                wake::wake(descriptor);
            }
        }
        stats::count(Counter::Faults, 1);
        if record.map_zero(start + from, zeroed) {
            stats::count(Counter::ZeroPages, zeroed / unit);
            return true;
        }
        if record.map_zero(start + page, unit) {
            stats::count(Counter::ZeroPages, 1);
            return true;
        }
        // The system has no room for another piece of address space.
        record.lost.add_from(0);
        stats::count(Counter::ZeroPages, whole / unit);
        record.map_zero_all()
    }
}

impl Record {
    fn map_zero(&self, address: usize, length: usize) -> bool {
        let writable = self.writable.load(Ordering::Relaxed);
        // SAFETY: the thread that faulted reads a view of this mapping, which therefore stays mapped.
        unsafe { memory::map_zero_pages(address, length, writable) }
    }

    fn map_zero_all(&self) -> bool {
        let base = self.base.load(Ordering::Relaxed);
        let reserved = self.reserved.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        // SAFETY: as for `map_zero`; the reservation stays as long as the mapping in it.
        unsafe { spare::replace_at_the_limit(base, reserved, writable) }
    }
}

#[cfg(test)]
mod tests;
