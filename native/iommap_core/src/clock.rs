//! Coarse time in one load: asking the system costs as much as half a short read does.
//!
//! A thread of ours writes the time down sixteen times a second for as long as somebody asks, and sleeps otherwise:
//!
//! ```text
//! stopped (0) --asked--> time, asked --thread--> time, not asked --asked--> time, asked
//!                                                       |--not asked for a second--> stopped
//! ```
//!
//! The time that is read is old by a sixteenth of a second, and by what the thread was kept waiting for a processor.

use crate::platform::{thread, time};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;

/// The time in ticks, shifted left by one; the lowest bit tells that somebody asked since the thread wrote it. 0: stopped.
static NOW: AtomicU32 = AtomicU32::new(0);
const ASKED: u32 = 1;

const PERIOD: Duration = Duration::from_micros(62_500);
/// After so many periods in which nobody asked the thread stops.
const IDLE_PERIODS: u32 = 16;

/// The time in ticks of about a sixteenth of a second; it counts from anywhere, and wraps.
#[inline(always)]
pub fn ticks() -> u32 {
    let now = NOW.load(Ordering::Relaxed);
    if now & ASKED != 0 {
        now >> 1
    } else {
        ask(now)
    }
}

/// The first to ask in a period says so, and the first after a stop starts the thread again.
#[cold]
fn ask(seen: u32) -> u32 {
    if seen != 0 {
        // If the thread wrote meanwhile, the next one who asks says it.
        let _ = NOW.compare_exchange(seen, seen | ASKED, Ordering::Relaxed, Ordering::Relaxed);
        return seen >> 1;
    }
    let time = written();
    let Some(thread) = ticker() else {
        return time >> 1;
    };
    match NOW.compare_exchange(0, time | ASKED, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => {
            thread.unpark();
            time >> 1
        }
        // Another was first, and everybody has the same time.
        Err(now) => now >> 1,
    }
}

/// The true time as it is written down: never 0.
fn written() -> u32 {
    (time::ticks() << 1).max(2)
}

/// Without it nothing is ever written, and everybody always asks the system.
fn ticker() -> Option<&'static Thread> {
    static TICKER: OnceLock<Option<Thread>> = OnceLock::new();
    let started =
        TICKER.get_or_init(|| Some(thread::start("iommap_clock", tick)?.thread().clone()));
    started.as_ref()
}

fn tick() {
    let mut unasked = 0;
    loop {
        if NOW.load(Ordering::Acquire) == 0 {
            unasked = 0;
            std::thread::park();
            continue;
        }
        std::thread::sleep(PERIOD);
        let now = NOW.load(Ordering::Acquire);
        unasked = if now & ASKED == 0 { unasked + 1 } else { 0 };
        let next = if unasked < IDLE_PERIODS { written() } else { 0 };
        // Who asks meanwhile is heard in the next period; who asks at the end is not stopped.
        let _ = NOW.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_while_asked_stops_when_not_and_starts_again() {
        let begun = ticks();
        while ticks().wrapping_sub(begun) < 3 {
            std::thread::yield_now();
        }
        while NOW.load(Ordering::Relaxed) != 0 {
            std::thread::sleep(PERIOD);
        }
        let truth = written() >> 1;
        assert!(ticks().wrapping_sub(truth) <= 1);
        assert_ne!(NOW.load(Ordering::Relaxed), 0);
    }
}
