//! The handle's lock (`src/lock.rs`) under every interleaving of its readers and writers, and on memories weaker than
//! any processor's; and the proof that the search finds what is wrong with a lock that leaves out one of its steps.
//!
//! Each step below is one access of the real lock, in its order and with its ordering.

mod model;

use model::{
    search, Acquire, Buffers, Location, Memory, Protocol, Relaxed, Release, Value, Views, WORDS,
};

/// `Lock::open`, `Lock::draining`, `Lock::quiet`.
const OPEN: Location = 0;
const DRAINING: Location = 1;
const QUIET: Location = 2;
/// The reader-writer lock inside: how many readers, or `WRITER`.
const INNER: Location = 3;
/// Two halves of the value, which are equal whenever no writer is inside.
const VALUE: [Location; 2] = [4, 5];
/// `Place::reading` of each thread.
const SEATS: Location = 6;

const WRITER: Value = 255;

/// What may be left out of the lock, or done in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// The writer closes the lock, and looks at the seats at once.
    NoBarrier,
    /// The reader looks whether the lock is open before it sits down, and not after.
    LookBeforeSitting,
    /// The second look does not acquire.
    RelaxedLook,
    /// A writer who could not wait for the seats to be empty leaves no note of that.
    DrainingForgotten,
    /// The lock is opened by a reader who has let go of the inner lock.
    OpenedWithoutTheLock,
    /// The writer closes the lock only after the barrier.
    BarrierBeforeClosing,
}

/// The lock, and the threads that use it: first the readers, then the writers.
struct Lock {
    broken: Broken,
    readers: usize,
    /// Reads without a write between them that open the lock, one less.
    quiet: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Outside,
    // A reader in `try_read`, with a seat.
    TryRead,
    Sit,
    Look,
    LeaveUnread,
    Seated,
    SeatedHalf,
    Leave,
    // A reader with the inner lock, by `try_read` or `read`.
    TryInnerRead,
    Read,
    Count,
    CountUp,
    Open,
    Locked,
    LockedHalf,
    Unlock,
    OpenLate,
    // A writer in `try_write` or `write`.
    TryWrite,
    Write,
    CountDown,
    Close,
    NoteDraining,
    Barrier,
    AskDraining,
    LookAtSeat(usize),
    ForgetDraining,
    Writing,
    WritingHalf,
    GiveUp,
    UnlockWrite,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Thread {
    at: At,
    /// How often it still asks for the lock.
    rounds: u8,
    /// A writer in `write`, who waits until the seats are empty.
    patient: bool,
    /// The first half of the value.
    half: Value,
    torn: bool,
}

impl Thread {
    fn to(self, at: At) -> Thread {
        Thread { at, ..self }
    }

    fn done(self) -> Thread {
        Thread {
            at: At::Outside,
            rounds: self.rounds - 1,
            patient: false,
            half: 0,
            ..self
        }
    }

    /// One of two calls begins.
    fn either<M: Memory>(self, one: At, other: At, memory: &M) -> Vec<(Thread, M)> {
        if self.rounds == 0 {
            return vec![];
        }
        [one, other].map(|at| (self.to(at), memory.clone())).into()
    }

    fn reads(self) -> bool {
        use At::*;
        matches!(self.at, Seated | SeatedHalf | Leave)
            || matches!(
                self.at,
                Count | CountUp | Open | Locked | LockedHalf | Unlock
            )
    }

    fn writes(self) -> bool {
        matches!(self.at, At::Writing | At::WritingHalf | At::UnlockWrite)
    }
}

impl Lock {
    fn reader<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let seat = SEATS + me;
        let to = |at, memory| vec![(thread.to(at), memory)];
        let load = |location, order, next: &dyn Fn(Value) -> Thread| {
            let seen = memory.load(me, location, order);
            seen.into_iter()
                .map(|(value, memory)| (next(value), memory))
                .collect()
        };
        let look = if self.broken == Broken::RelaxedLook {
            Relaxed
        } else {
            Acquire
        };
        match thread.at {
            At::Outside => thread.either(At::TryRead, At::Read, memory),
            At::TryRead => load(OPEN, Relaxed, &|open| {
                thread.to(if open == 1 { At::Sit } else { At::TryInnerRead })
            }),
            At::Sit => {
                let next = match self.broken {
                    Broken::LookBeforeSitting => At::Seated,
                    _ => At::Look,
                };
                to(next, memory.store(me, seat, 1, Relaxed))
            }
            At::Look => load(OPEN, look, &|open| {
                thread.to(if open == 1 {
                    At::Seated
                } else {
                    At::LeaveUnread
                })
            }),
            At::LeaveUnread => to(At::TryInnerRead, memory.store(me, seat, 0, Release)),
            At::Seated => load(VALUE[0], Relaxed, &|half| Thread {
                half,
                ..thread.to(At::SeatedHalf)
            }),
            At::SeatedHalf => load(VALUE[1], Relaxed, &|half| Thread {
                torn: half != thread.half,
                ..thread.to(At::Leave)
            }),
            At::Leave => vec![(thread.done(), memory.store(me, seat, 0, Release))],

            At::TryInnerRead => match memory.change(me, INNER, Acquire, one_reader_more) {
                Some((_, memory)) => to(At::Count, memory),
                None => vec![(thread.done(), memory.clone())],
            },
            At::Read => match memory.change(me, INNER, Acquire, one_reader_more) {
                Some((_, memory)) => to(At::Count, memory),
                None => vec![],
            },
            At::Count => load(OPEN, Relaxed, &|open| {
                thread.to(if open == 1 { At::Locked } else { At::CountUp })
            }),
            At::CountUp => {
                let counted = memory.change(me, QUIET, Relaxed, |quiet| Some(quiet + 1));
                let (before, memory) = counted.unwrap();
                to(
                    if before >= self.quiet {
                        At::Open
                    } else {
                        At::Locked
                    },
                    memory,
                )
            }
            At::Open if self.broken == Broken::OpenedWithoutTheLock => {
                let unlocked = memory.change(me, INNER, Release, |readers| Some(readers - 1));
                to(At::OpenLate, unlocked.unwrap().1)
            }
            At::OpenLate => vec![(thread.done(), memory.store(me, OPEN, 1, Release))],
            At::Open => to(At::Locked, memory.store(me, OPEN, 1, Release)),
            At::Locked => load(VALUE[0], Relaxed, &|half| Thread {
                half,
                ..thread.to(At::LockedHalf)
            }),
            At::LockedHalf => load(VALUE[1], Relaxed, &|half| Thread {
                torn: half != thread.half,
                ..thread.to(At::Unlock)
            }),
            At::Unlock => {
                let unlocked = memory.change(me, INNER, Release, |readers| Some(readers - 1));
                vec![(thread.done(), unlocked.unwrap().1)]
            }
            _ => unreachable!("a reader does not write"),
        }
    }

    fn writer<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let to = |at, memory| vec![(thread.to(at), memory)];
        let load = |location, order, next: &dyn Fn(Value) -> Thread| {
            let seen = memory.load(me, location, order);
            seen.into_iter()
                .map(|(value, memory)| (next(value), memory))
                .collect()
        };
        match thread.at {
            At::Outside => thread.either(At::TryWrite, At::Write, memory),
            At::TryWrite => match memory.change(me, INNER, Acquire, the_writer) {
                Some((_, memory)) => to(At::CountDown, memory),
                None => vec![(thread.done(), memory.clone())],
            },
            At::Write => match memory.change(me, INNER, Acquire, the_writer) {
                Some((_, memory)) => vec![(
                    Thread {
                        patient: true,
                        ..thread.to(At::CountDown)
                    },
                    memory,
                )],
                None => vec![],
            },
            At::CountDown => {
                let memory = memory.store(me, QUIET, 0, Relaxed);
                memory
                    .load(me, OPEN, Relaxed)
                    .into_iter()
                    .map(|(open, memory)| match (open, self.broken) {
                        (0, _) => (thread.to(At::AskDraining), memory),
                        (_, Broken::BarrierBeforeClosing) => (thread.to(At::Barrier), memory),
                        _ => (thread.to(At::Close), memory),
                    })
                    .collect()
            }
            At::Close => to(At::NoteDraining, memory.store(me, OPEN, 0, Release)),
            At::NoteDraining => {
                let memory = memory.store(me, DRAINING, 1, Relaxed);
                match self.broken {
                    Broken::NoBarrier | Broken::BarrierBeforeClosing => to(At::AskDraining, memory),
                    _ => to(At::Barrier, memory),
                }
            }
            At::Barrier if self.broken == Broken::BarrierBeforeClosing => {
                to(At::Close, memory.barrier())
            }
            At::Barrier => to(At::AskDraining, memory.barrier()),
            At::AskDraining => load(DRAINING, Relaxed, &|draining| {
                thread.to(if draining == 1 {
                    At::LookAtSeat(0)
                } else {
                    At::Writing
                })
            }),
            At::LookAtSeat(seat) if seat == self.readers => {
                to(At::Writing, memory.store(me, DRAINING, 0, Relaxed))
            }
            At::LookAtSeat(seat) => {
                let mut next = Vec::new();
                for (taken, memory) in memory.load(me, SEATS + seat, Acquire) {
                    match (taken, thread.patient) {
                        (0, _) => next.push((thread.to(At::LookAtSeat(seat + 1)), memory)),
                        // It looks again, which changes nothing until the reader has left.
                        (_, true) => {}
                        (_, false) if self.broken == Broken::DrainingForgotten => {
                            next.push((thread.to(At::ForgetDraining), memory));
                        }
                        (_, false) => next.push((thread.to(At::GiveUp), memory)),
                    }
                }
                next
            }
            At::ForgetDraining => to(At::GiveUp, memory.store(me, DRAINING, 0, Relaxed)),
            At::Writing => {
                let (half, memory) = memory.load(me, VALUE[0], Relaxed).pop().unwrap();
                vec![(
                    Thread {
                        half: 1 - half,
                        ..thread.to(At::WritingHalf)
                    },
                    memory.store(me, VALUE[0], 1 - half, Relaxed),
                )]
            }
            At::WritingHalf => to(
                At::UnlockWrite,
                memory.store(me, VALUE[1], thread.half, Relaxed),
            ),
            At::GiveUp | At::UnlockWrite => {
                let unlocked = memory.change(me, INNER, Release, |_| Some(0));
                vec![(thread.done(), unlocked.unwrap().1)]
            }
            _ => unreachable!("a writer does not read"),
        }
    }
}

fn one_reader_more(readers: Value) -> Option<Value> {
    (readers != WRITER).then(|| readers + 1)
}

fn the_writer(readers: Value) -> Option<Value> {
    (readers == 0).then_some(WRITER)
}

impl Protocol for Lock {
    type Thread = Thread;

    fn steps<M: Memory>(&self, number: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        if number < self.readers {
            self.reader(number, thread, memory)
        } else {
            self.writer(number, thread, memory)
        }
    }

    fn finished(&self, thread: &Thread) -> bool {
        thread.at == At::Outside && thread.rounds == 0
    }

    fn wrong(&self, threads: &[Thread]) -> Option<&'static str> {
        let writers = threads.iter().filter(|thread| thread.writes()).count();
        let readers = threads.iter().filter(|thread| thread.reads()).count();
        match (writers, readers) {
            (2.., _) => Some("two writers are inside"),
            (1, 1..) => Some("a reader is inside with a writer"),
            _ if threads.iter().any(|thread| thread.torn) => Some("a reader saw half a write"),
            _ => None,
        }
    }
}

/// How many threads there are, and how often each asks for the lock.
#[derive(Clone, Copy)]
struct Size {
    readers: usize,
    reads: u8,
    writers: usize,
    writes: u8,
}

const ONE_OF_EACH: Size = Size {
    readers: 1,
    reads: 3,
    writers: 1,
    writes: 2,
};
const TWO_READERS: Size = Size {
    readers: 2,
    reads: 2,
    writers: 1,
    writes: 1,
};
const TWO_WRITERS: Size = Size {
    readers: 1,
    reads: 2,
    writers: 2,
    writes: 1,
};
const TWO_OF_EACH: Size = Size {
    readers: 2,
    reads: 1,
    writers: 2,
    writes: 1,
};

type Found = Result<usize, String>;

fn search_lock<M: Memory>(
    size: Size,
    broken: Broken,
    memory: impl Fn(usize, [Value; WORDS]) -> M,
) -> Found {
    let lock = Lock {
        broken,
        readers: size.readers,
        quiet: 0,
    };
    let thread = |rounds| Thread {
        at: At::Outside,
        rounds,
        patient: false,
        half: 0,
        torn: false,
    };
    let mut threads = vec![thread(size.reads); size.readers];
    threads.resize(size.readers + size.writers, thread(size.writes));
    let mut words = [0; WORDS];
    words[OPEN] = 1;
    search(&lock, threads.clone(), memory(threads.len(), words))
}

fn assert_none_is_wrong(found: Found) {
    let states = found.unwrap();
    assert!(states > 1000, "{states} states are too few to be all");
}

#[test]
fn no_reader_is_with_a_writer_when_stores_are_late() {
    // On x86: no exclusion is broken, no draining lost, nobody waits for ever.
    for size in [ONE_OF_EACH, TWO_READERS, TWO_WRITERS, TWO_OF_EACH] {
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::in_order));
    }
}

#[test]
fn no_reader_is_with_a_writer_when_stores_overtake_each_other() {
    // On processors that keep no order between stores to different places.
    for size in [ONE_OF_EACH, TWO_READERS, TWO_WRITERS, TWO_OF_EACH] {
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::out_of_order));
    }
}

#[test]
fn no_reader_is_with_a_writer_when_loads_overtake_each_other() {
    // In the language's own memory model, which allows more than any processor does.
    assert_none_is_wrong(search_lock(ONE_OF_EACH, Broken::Nothing, Views::new));
}

#[test]
#[ignore = "millions of states: cargo test --release -p iommap_core --test lock_model -- --ignored"]
fn no_reader_is_with_a_writer_among_more_threads() {
    // In the language's own memory model, with two of either kind.
    for size in [TWO_WRITERS, TWO_READERS] {
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Views::new));
    }
}

#[test]
fn a_lock_that_leaves_a_step_out_is_found_out() {
    // The search is worth something: it finds what each step of the lock is for.
    use Broken::*;
    for broken in [
        NoBarrier,
        LookBeforeSitting,
        DrainingForgotten,
        OpenedWithoutTheLock,
        BarrierBeforeClosing,
    ] {
        let found = [
            search_lock(ONE_OF_EACH, broken, Buffers::in_order),
            search_lock(ONE_OF_EACH, broken, Buffers::out_of_order),
            search_lock(ONE_OF_EACH, broken, Views::new),
        ];
        for found in found {
            assert!(
                found.is_err_and(|wrong| wrong.contains("reader")),
                "{broken:?} was not found"
            );
        }
    }
    let found = search_lock(TWO_READERS, RelaxedLook, Views::new);
    assert!(
        found.is_err_and(|wrong| wrong.contains("half")),
        "RelaxedLook was not found"
    );
}

#[test]
fn a_lock_that_nobody_unlocks_is_found_out() {
    // A state from which nobody can go on is told of.
    let lock = Lock {
        broken: Broken::Nothing,
        readers: 1,
        quiet: 0,
    };
    let reader = Thread {
        at: At::Read,
        rounds: 1,
        patient: false,
        half: 0,
        torn: false,
    };
    let mut words = [0; WORDS];
    words[INNER] = WRITER;
    let found = search(&lock, vec![reader], Buffers::in_order(1, words));
    assert!(found.is_err_and(|wrong| wrong.contains("nobody can go on")));
}
