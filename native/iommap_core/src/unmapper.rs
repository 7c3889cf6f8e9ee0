//! Unmapping and closing, away from the thread that found a mapping unused.
//!
//! The last reference to a mapping goes wherever garbage is collected, and that is on a scheduler. Unmapping a populated
//! gigabyte takes milliseconds; closing a file may wait for its file system for as long as that likes. So the last reference is
//! put into a queue: one for each device, so that no device holds another's mappings up, with a thread while there is work. The
//! thread takes the mapping from the list and out of the registry, unmaps it and closes its file.
//!
//! The reference is put there as it is: to look into the mapping would be a cache miss or two, for each of thousands of handles.
//! So the mapping does not know yet that it only waits, until it is told (`Reclaim::unlist`): by the thread, or by who is going
//! to look at the list of mappings.
//!
//! ```text
//! asleep --release, which wakes it--> gathering, for a moment --> at work, on all that is there --> gathering or asleep
//! ```
//!
//! Thousands of handles come within a millisecond or two, where one process had them. While it gathers the thread needs no wake,
//! and what it is going to unmap interrupts no scheduler that still collects (each munmap(2) of a page that was read does).

use crate::error::Error;
use crate::platform::thread;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem::{swap, take};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A mapping, or a file without one. To drop the last reference to it unmaps and closes.
pub trait Reclaim: Send + Sync {
    /// Nobody uses it any more, so it is not to be shown.
    fn unlist(&self) {}
}

/// The mappings of one device that wait. It is there for as long as its thread is.
struct Queue {
    device: u64,
    waiting: Vec<Arc<dyn Reclaim>>,
    /// How many of them were unlisted.
    unlisted: usize,
    /// How many more the thread has in hand.
    in_hand: usize,
    /// The thread waits to be woken.
    asleep: bool,
}

impl Queue {
    fn length(&self) -> usize {
        self.waiting.len() + self.in_hand
    }

    /// Unlists so many at the most; whether any were left to unlist.
    fn unlist(&mut self, most: usize) -> bool {
        let before = self.unlisted;
        for one in self.waiting.iter().skip(before).take(most) {
            one.unlist();
            self.unlisted += 1;
        }
        self.unlisted > before
    }

    /// Gives all to the thread, in the place of an empty batch, whose room is used again.
    fn give(&mut self, batch: &mut Vec<Arc<dyn Reclaim>>) {
        swap(batch, &mut self.waiting);
        self.in_hand = batch.len();
        self.unlisted = 0;
    }
}

static QUEUES: Mutex<Vec<Queue>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();
static DONE: Condvar = Condvar::new();

/// How many mappings were unmapped and closed.
static RECLAIMED: AtomicUsize = AtomicUsize::new(0);

/// How many mappings wait to be unmapped and closed, or are just being.
pub fn waiting() -> usize {
    QUEUES.lock().iter().map(Queue::length).sum()
}

/// Unlists all that waits.
pub fn unlist_waiting() {
    for queue in &mut *QUEUES.lock() {
        queue.unlist(usize::MAX);
    }
}

/// How long a thread waits for more before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// How long a thread that was woken lets others come: as long as a collection of thousands takes.
const GATHERING: Duration = Duration::from_millis(1);

/// How many it works on before it lets others at the queue, and says how far it is.
const STEP: usize = 64;

/// How long `retry_after_reclaim` waits: a file system may keep its files open for ever.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it waits when there is nothing to wait for: what is collected comes here a moment later, as the VM runs destructors
/// after the collection.
const GRACE: Duration = Duration::from_millis(20);

/// Lets the last reference to what is on a device go, soon and elsewhere. Never waits for a file system.
pub fn release(device: u64, remains: Arc<dyn Reclaim>) {
    let mut queues = QUEUES.lock();
    if let Some(queue) = of_device(&mut queues, device) {
        queue.waiting.push(remains);
        if take(&mut queue.asleep) {
            drop(queues);
            MORE.notify_all();
        }
        return;
    }
    queues.push(Queue {
        device,
        waiting: vec![remains],
        unlisted: 0,
        in_hand: 0,
        asleep: false,
    });
    drop(queues);
    if thread::start("iommap_unmap", move || work(device)).is_none() {
        work_once(device); // no room for a thread: it is done here
    }
}

/// The thread of a device.
fn work(device: u64) {
    let mut batch = Vec::new();
    let mut queues = QUEUES.lock();
    while let Some(queue) = of_device(&mut queues, device) {
        if queue.waiting.is_empty() {
            queue.asleep = true;
            let idle = MORE.wait_for(&mut queues, IDLE).timed_out();
            if idle && of_device(&mut queues, device).is_some_and(|queue| queue.asleep) {
                queues.retain(|queue| queue.device != device);
            }
            continue;
        }
        MutexGuard::unlocked(&mut queues, || std::thread::sleep(GATHERING));
        while of_device(&mut queues, device).is_some_and(|queue| queue.unlist(STEP)) {
            MutexGuard::bump(&mut queues);
        }
        if let Some(queue) = of_device(&mut queues, device) {
            queue.give(&mut batch);
        }
        reclaim(&mut queues, device, &mut batch);
    }
}

/// Drops what the thread of a device has in hand.
fn reclaim(
    queues: &mut MutexGuard<'_, Vec<Queue>>,
    device: u64,
    batch: &mut Vec<Arc<dyn Reclaim>>,
) {
    while !batch.is_empty() {
        let left = batch.len().saturating_sub(STEP);
        let count = batch.len() - left;
        MutexGuard::unlocked(queues, || batch.truncate(left));
        if let Some(queue) = of_device(queues, device) {
            queue.in_hand = left;
        }
        RECLAIMED.fetch_add(count, Ordering::Release);
        DONE.notify_all();
    }
}

/// Does the work of a thread that could not be started.
fn work_once(device: u64) {
    let mut queues = QUEUES.lock();
    let index = queues.iter().position(|queue| queue.device == device);
    let gone = index.map(|index| queues.swap_remove(index));
    drop(queues);
    drop(gone);
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
        let is_busy = |queues: &[Queue]| queues.iter().any(|queue| queue.length() > 0);
        let was_busy = is_busy(&queues);
        let until = if was_busy { deadline } else { grace };
        let late = DONE.wait_until(&mut queues, until).timed_out();
        if late && was_busy == is_busy(&queues) {
            break;
        }
    }
    was_reclaimed()
}
