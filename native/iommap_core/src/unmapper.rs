//! Unmapping and closing, away from the thread that found a mapping unused.
//!
//! The last reference to a mapping goes wherever garbage is collected, and that is on a scheduler. Unmapping a populated
//! gigabyte takes milliseconds; closing a file may wait for its file system for as long as that likes. So what is left of a
//! mapping is put into a queue: one for each device, so that no device holds another's mappings up, with a thread while
//! there is work. The thread is woken once for all that it finds there.

use crate::error::Error;
use crate::file::BackingFile;
use crate::platform::thread;
use crate::reservation::Reservation;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The rest of a mapping that nobody knows any more, or of a file without one. To drop it unmaps, and closes the file if nobody
/// else has it.
pub struct Remains {
    // Dropped in this order.
    _memory: Option<Reservation>,
    file: Arc<BackingFile>,
    was_written: bool,
}

impl Remains {
    /// Of a mapping that is not registered any more, through which the file was written, or not.
    pub fn new(memory: Reservation, file: Arc<BackingFile>, was_written: bool) -> Remains {
        Remains {
            _memory: Some(memory),
            file,
            was_written,
        }
    }

    /// Of a file that may have no mapping.
    pub fn of_file(file: Arc<BackingFile>) -> Remains {
        Remains {
            _memory: None,
            file,
            was_written: false,
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if self.was_written {
            self.file.touch();
        }
    }
}

/// The mappings of one device that wait. It is there for as long as its thread is.
struct Queue {
    device: u64,
    waiting: Vec<Remains>,
    at_work: bool,
}

impl Queue {
    fn is_busy(&self) -> bool {
        self.at_work || !self.waiting.is_empty()
    }
}

static QUEUES: Mutex<Vec<Queue>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();
static DONE: Condvar = Condvar::new();

/// How many mappings were unmapped and closed, and how many were given here to be.
static RECLAIMED: AtomicUsize = AtomicUsize::new(0);
static RELEASED: AtomicUsize = AtomicUsize::new(0);

/// How many mappings wait to be unmapped and closed, or are just being.
pub fn waiting() -> usize {
    let reclaimed = RECLAIMED.load(Ordering::Acquire);
    RELEASED.load(Ordering::Acquire).saturating_sub(reclaimed)
}

/// How long a thread waits for more before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// How long `retry_after_reclaim` waits: a file system may keep its files open for ever.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it waits when there is nothing to wait for: what is collected comes here a moment later, as the VM runs destructors
/// after the collection.
const GRACE: Duration = Duration::from_millis(20);

/// Lets go of what is left of a mapping, soon and elsewhere. Never waits for a file system.
pub fn release(remains: Remains) {
    RELEASED.fetch_add(1, Ordering::Release);
    let device = remains.file.device();
    let mut queues = QUEUES.lock();
    if let Some(queue) = queues.iter_mut().find(|queue| queue.device == device) {
        let was_busy = queue.is_busy();
        queue.waiting.push(remains);
        drop(queues);
        if !was_busy {
            MORE.notify_all();
        }
        return;
    }
    queues.push(Queue {
        device,
        waiting: vec![remains],
        at_work: true,
    });
    drop(queues);
    if thread::start("iommap_unmap", move || work(device)).is_none() {
        work_once(device); // no room for a thread: it is done here
    }
}

/// The thread of a device.
fn work(device: u64) {
    let mut queues = QUEUES.lock();
    loop {
        let Some(queue) = of_device(&mut queues, device) else {
            return;
        };
        let batch = take(&mut queue.waiting);
        queue.at_work = !batch.is_empty();
        if queue.at_work {
            MutexGuard::unlocked(&mut queues, || reclaim(batch));
            DONE.notify_all();
            continue;
        }
        let idle = MORE.wait_for(&mut queues, IDLE).timed_out();
        if idle && of_device(&mut queues, device).is_some_and(|queue| !queue.is_busy()) {
            queues.retain(|queue| queue.device != device);
            return;
        }
    }
}

fn work_once(device: u64) {
    let mut queues = QUEUES.lock();
    let waiting = of_device(&mut queues, device).map(|queue| take(&mut queue.waiting));
    queues.retain(|queue| queue.device != device);
    drop(queues);
    reclaim(waiting.unwrap_or_default());
}

fn reclaim(batch: Vec<Remains>) {
    for remains in batch {
        drop(remains);
        RECLAIMED.fetch_add(1, Ordering::Release);
    }
}

fn of_device(queues: &mut [Queue], device: u64) -> Option<&mut Queue> {
    queues.iter_mut().find(|queue| queue.device == device)
}

/// Does something that takes a descriptor, or address space. If there is none, but some is being reclaimed, does it again.
pub fn retry_after_reclaim<T>(attempt: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let mut deadline = None;
    loop {
        let before = RECLAIMED.load(Ordering::Acquire);
        let done = attempt();
        let Err(Error::System(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) = done else {
            return done;
        };
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + RECLAIM_TIMEOUT);
        if !wait_for_reclaim(before, deadline) {
            return done;
        }
        if Instant::now() >= deadline {
            return attempt();
        }
    }
}

/// Waits until more was reclaimed than `before`, but not for ever, and only a moment if nothing is left to reclaim; whether
/// more was. What is reclaimed after an attempt failed, and before this looks, counts too.
fn wait_for_reclaim(before: usize, deadline: Instant) -> bool {
    let mut queues = QUEUES.lock();
    let grace = Instant::now() + GRACE;
    let was_reclaimed = || RECLAIMED.load(Ordering::Acquire) != before;
    while !was_reclaimed() {
        let is_busy = |queues: &[Queue]| queues.iter().any(Queue::is_busy);
        let was_busy = is_busy(&queues);
        let until = if was_busy { deadline } else { grace };
        let late = DONE.wait_until(&mut queues, until).timed_out();
        if late && was_busy == is_busy(&queues) {
            break;
        }
    }
    was_reclaimed()
}
