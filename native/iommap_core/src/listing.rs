//! The list of all mappings of this image that a handle holds or a view shows, for everybody who asks what is mapped.
//!
//! A mapping is on the list from the moment on that a handle has it (`Listing::begin`), and off it before it is unmapped
//! (`Listing`'s `Drop`). Both, and every look at the list, are under one lock, so that nobody asks about a slot of the registry that
//! another mapping has by now. Nothing under that lock waits for the system.

use crate::fault::registry::{self, Slot};
use crate::options::Access;
use crate::platform::time;
use crate::unmapper;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// What there is to tell of a mapping.
#[derive(Debug, Clone)]
pub struct Info {
    /// In bytes.
    pub size: usize,
    /// What its handle may do.
    pub access: Access,
    /// Whether changes stay in this mapping.
    pub private: bool,
    /// Whether the pages are locked in memory.
    pub locked: bool,
    /// Whether zero pages were put under it.
    pub faulted: bool,
    /// The absolute path of the file, as it was opened.
    pub path: Option<Arc<Path>>,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many views of it are alive; `None` if that cannot be found out.
    pub views: Option<usize>,
    /// The descriptor of the file.
    pub descriptor: RawFd,
    /// Whether a handle has it. If not, only views keep it.
    pub open: bool,
}

/// The facts that do not change while a mapping lives.
pub struct Facts {
    /// Its slot in the registry.
    pub slot: Slot,
    /// What its handle may do.
    pub access: Access,
    /// Whether changes stay in it.
    pub private: bool,
    /// Whether its pages are locked, as the mapping keeps it.
    pub locked: Arc<AtomicBool>,
    /// The absolute path of its file.
    pub path: Option<Arc<Path>>,
    /// Where in the file it begins.
    pub offset: u64,
    /// The descriptor of its file.
    pub descriptor: RawFd,
}

/// Counts the references to what keeps a mapping alive for its views; `None` if that cannot be found out.
pub type CountReferences = Box<dyn Fn() -> Option<usize> + Send>;

struct Entry {
    facts: Facts,
    size: AtomicUsize,
    open: AtomicBool,
    /// Whether it was given to who wants to know what has faulted.
    told: AtomicBool,
    /// There is one while there is something that views hold. Of its references the handle has one.
    references: Mutex<Option<CountReferences>>,
}

/// The place of a mapping on the list. Dropped before its slot.
pub struct Listing {
    entry: Arc<Entry>,
    /// When a handle got it: its key on the list. 0 before.
    begun: AtomicU64,
}

/// The mappings by the time when a handle got them.
struct List {
    mappings: BTreeMap<u64, Arc<Entry>>,
    latest: u64,
    /// Mappings that have faulted, and were gone before that was asked about.
    gone: Vec<Info>,
}

static LIST: Mutex<List> = Mutex::new(List {
    mappings: BTreeMap::new(),
    latest: 0,
    gone: Vec::new(),
});

impl Listing {
    /// Of a mapping of `size` bytes that no handle has yet.
    pub fn new(facts: Facts, size: usize) -> Listing {
        Listing {
            entry: Arc::new(Entry {
                facts,
                size: AtomicUsize::new(size),
                open: AtomicBool::new(false),
                told: AtomicBool::new(false),
                references: Mutex::new(None),
            }),
            begun: AtomicU64::new(0),
        }
    }

    /// A handle has the mapping from now on.
    pub fn begin(&self) {
        self.entry.open.store(true, Ordering::Relaxed);
        let mut list = LIST.lock();
        list.latest = time::nanoseconds().max(list.latest + 1);
        let latest = list.latest;
        list.mappings.insert(latest, self.entry.clone());
        self.begun.store(latest, Ordering::Relaxed);
    }

    /// No handle has it any more.
    pub fn close(&self) {
        self.entry.open.store(false, Ordering::Relaxed);
    }

    /// It has so many bytes by now.
    pub fn set_size(&self, size: usize) {
        self.entry.size.store(size, Ordering::Relaxed);
    }

    /// There is something that views hold, whose references are counted so; or nothing any more.
    pub fn count_references(&self, count: Option<CountReferences>) {
        *self.entry.references.lock() = count;
    }

    /// What there is to tell.
    pub fn info(&self) -> Info {
        self.entry.info()
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let begun = *self.begun.get_mut();
        if begun != 0 {
            let mut list = LIST.lock();
            list.mappings.remove(&begun);
            if registry::watcher().is_some() && self.entry.tell() {
                list.gone.push(self.entry.info());
            }
        }
    }
}

impl Entry {
    fn info(&self) -> Info {
        let facts = &self.facts;
        let open = self.open.load(Ordering::Relaxed);
        let faulted = facts.slot.faulted();
        Info {
            size: self.size.load(Ordering::Relaxed),
            access: facts.access,
            private: facts.private,
            locked: facts.locked.load(Ordering::Relaxed) && !faulted,
            faulted,
            path: facts.path.clone(),
            offset: facts.offset,
            views: self.views(open),
            descriptor: facts.descriptor,
            open,
        }
    }

    fn views(&self, open: bool) -> Option<usize> {
        match &*self.references.lock() {
            Some(count) => Some(count()?.saturating_sub(usize::from(open))),
            None => Some(0),
        }
    }

    /// Whether it has faulted, and this is the first time that somebody asks.
    fn tell(&self) -> bool {
        self.facts.slot.faulted() && !self.told.swap(true, Ordering::Relaxed)
    }

    /// Whether it is more than the rest of a call that still runs.
    fn is_in_use(&self) -> bool {
        self.open.load(Ordering::Relaxed) || self.references.lock().is_some()
    }
}

/// The time, as keys of the list are.
pub fn now() -> u64 {
    time::nanoseconds()
}

/// The next so many mappings at the most, oldest first, that a handle got after one time and up to another; each with its own time.
pub fn list(after: u64, until: u64, most: usize) -> Vec<(u64, Info)> {
    if until <= after {
        return Vec::new();
    }
    unmapper::unlist_waiting();
    let list = LIST.lock();
    list.mappings
        .range((Bound::Excluded(after), Bound::Included(until)))
        .filter(|(_, entry)| entry.is_in_use())
        .take(most)
        .map(|(begun, entry)| (*begun, entry.info()))
        .collect()
}

/// The mappings that have faulted since this was asked before, those that are gone by now last.
pub fn take_faulted() -> Vec<Info> {
    /// How many are looked at under the lock.
    const AT_ONCE: usize = 256;
    unmapper::unlist_waiting();
    let mut faulted = Vec::new();
    let mut after = 0;
    loop {
        let mut list = LIST.lock();
        let next = list
            .mappings
            .range((Bound::Excluded(after), Bound::Unbounded));
        let mut seen = 0;
        for (begun, entry) in next.take(AT_ONCE) {
            after = *begun;
            seen += 1;
            if entry.tell() {
                faulted.push(entry.info());
            }
        }
        if seen < AT_ONCE {
            faulted.append(&mut list.gone);
            return faulted;
        }
    }
}
