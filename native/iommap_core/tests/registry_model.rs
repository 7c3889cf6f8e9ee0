//! The registry's key (`Key` in `src/fault/key.rs`), which a signal handler reads while its slot changes hands, under every
//! interleaving and in the language's own memory model; and the proof that each of its fences is needed.

mod model;

use model::{search, Acquire, Location, Memory, Protocol, Relaxed, Release, Value, Views, WORDS};

/// `Key::sequence`, `Key::start`, `Key::end`.
const SEQUENCE: Location = 0;
const START: Location = 1;
const END: Location = 2;
/// Something of `Record`.
const RECORD: Location = 3;
/// A binary of the first mapping is on its way to the reader; the reader has let it go.
const SENT: Location = 4;
const RELEASED: Location = 5;

/// The mappings that have the slot, one after the other.
const FIRST: (Value, Value) = (10, 20);
const SECOND: (Value, Value) = (30, 40);
/// An address in the first; one in none, but between the start of the first and the end of the second.
const INSIDE: Value = 15;
const BETWEEN: Value = 25;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    NoReleaseFence,
    NoAcquireFence,
    RelaxedEnd,
    RelaxedBefore,
    OddIsTaken,
}

struct Key {
    broken: Broken,
}

/// A thread's place in its program: the number of its next line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Thread {
    line: u8,
    asks: Value,
    before: Value,
    start: Value,
    found_nothing: bool,
    found_ours: bool,
    wrong_record: bool,
}

impl Key {
    /// Gives the slot to the first mapping, sends a view of it, waits for its end, and gives the slot to the second.
    fn owner<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let next = Thread {
            line: thread.line + 1,
            ..thread
        };
        let changes = [FIRST, (0, 0), SECOND];
        let (change, line) = match thread.line {
            0..=5 => (0, thread.line),
            6 => return vec![(next, memory.store(me, SENT, 1, Release))],
            7 => {
                let seen = memory.load(me, RELEASED, Acquire).into_iter();
                return seen
                    .filter(|(done, _)| *done == 1)
                    .map(|(_, memory)| (next, memory))
                    .collect();
            }
            8..=13 => (1, thread.line - 8),
            14..=19 => (2, thread.line - 14),
            _ => return vec![],
        };
        let sequence = 2 * change as Value;
        let (start, end) = changes[change];
        let memory = match line {
            0 => memory.store(me, SEQUENCE, sequence + 1, Relaxed),
            1 if self.broken == Broken::NoReleaseFence => memory.clone(),
            1 => memory.fence(me),
            2 => memory.store(me, RECORD, change as Value + 1, Relaxed),
            3 => memory.store(me, START, start, Relaxed),
            4 => memory.store(me, END, end, Relaxed),
            _ => {
                let order = if self.broken == Broken::RelaxedEnd {
                    Relaxed
                } else {
                    Release
                };
                memory.store(me, SEQUENCE, sequence + 2, order)
            }
        };
        vec![(next, memory)]
    }

    /// Receives the view, and asks who holds an address in it; or asks about an address without holding anything.
    fn asker<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let next = Thread {
            line: thread.line + 1,
            ..thread
        };
        let load = |location, order, then: &dyn Fn(Value) -> Thread| {
            let seen = memory.load(me, location, order).into_iter();
            seen.map(|(value, memory)| (then(value), memory))
                .collect::<Vec<_>>()
        };
        let nothing = Thread {
            line: 7,
            found_nothing: true,
            ..thread
        };
        match thread.line {
            0 if thread.asks == BETWEEN => vec![(next, memory.clone())],
            0 => {
                let seen = memory.load(me, SENT, Acquire).into_iter();
                seen.filter(|(sent, _)| *sent == 1)
                    .map(|(_, memory)| (next, memory))
                    .collect()
            }
            1 => {
                let order = if self.broken == Broken::RelaxedBefore {
                    Relaxed
                } else {
                    Acquire
                };
                load(SEQUENCE, order, &|before| Thread { before, ..next })
            }
            2 => load(START, Relaxed, &|start| Thread { start, ..next }),
            3 => load(END, Relaxed, &|end| {
                if (thread.start..end).contains(&thread.asks) {
                    next
                } else {
                    nothing
                }
            }),
            4 if self.broken == Broken::NoAcquireFence => vec![(next, memory.clone())],
            4 => vec![(next, memory.fence(me))],
            5 => load(SEQUENCE, Relaxed, &|sequence| {
                let even = thread.before % 2 == 0 || self.broken == Broken::OddIsTaken;
                if even && sequence == thread.before {
                    Thread {
                        found_ours: true,
                        ..next
                    }
                } else {
                    nothing
                }
            }),
            6 => load(RECORD, Relaxed, &|record| Thread {
                wrong_record: record != 1,
                ..next
            }),
            7 if thread.asks == BETWEEN => vec![(next, memory.clone())],
            7 => vec![(next, memory.store(me, RELEASED, 1, Release))],
            _ => vec![],
        }
    }
}

impl Protocol for Key {
    type Thread = Thread;

    fn steps<M: Memory>(&self, number: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        match number {
            0 => self.owner(number, thread, memory),
            _ => self.asker(number, thread, memory),
        }
    }

    fn finished(&self, thread: &Thread) -> bool {
        thread.line == if thread.asks == 0 { 20 } else { 8 }
    }

    fn wrong(&self, threads: &[Thread]) -> Option<&'static str> {
        let any = |wrong: &dyn Fn(&Thread) -> bool| threads.iter().any(wrong);
        if any(&|thread| thread.asks == BETWEEN && thread.found_ours) {
            Some("an address of no mapping was found")
        } else if any(&|thread| thread.asks == INSIDE && thread.found_nothing) {
            Some("the address of a live view was not found")
        } else if any(&|thread| thread.asks == INSIDE && thread.wrong_record) {
            Some("the record is another mapping's")
        } else {
            None
        }
    }
}

/// The owner of the slot, and a thread that asks about the address.
fn search_key(broken: Broken, asks: &[Value]) -> Result<usize, String> {
    let thread = |asks| Thread {
        line: 0,
        asks,
        before: 0,
        start: 0,
        found_nothing: false,
        found_ours: false,
        wrong_record: false,
    };
    let threads: Vec<_> = std::iter::once(0)
        .chain(asks.iter().copied())
        .map(thread)
        .collect();
    let memory = Views::new(threads.len(), [0; WORDS]);
    search(&Key { broken }, threads, memory)
}

#[test]
fn a_look_up_finds_a_live_view_and_never_half_of_two_mappings() {
    // Whoever holds a view finds its slot, whatever the others do; whoever asks about foreign memory finds none.
    let states = search_key(Broken::Nothing, &[INSIDE, BETWEEN]).unwrap();
    assert!(states > 1000, "{states} states are too few to be all");
}

#[test]
fn a_key_without_one_of_its_fences_is_found_out() {
    // The search is worth something: it finds what each part of the key is for.
    use Broken::*;
    for broken in [
        NoReleaseFence,
        NoAcquireFence,
        RelaxedEnd,
        RelaxedBefore,
        OddIsTaken,
    ] {
        let found = search_key(broken, &[INSIDE, BETWEEN]);
        assert!(found.is_err(), "{broken:?} was not found");
    }
}
