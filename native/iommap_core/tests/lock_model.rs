//! The handle's lock (`src/lock.rs`) under every interleaving of its readers and writers, and on memories weaker than
//! any processor's; and the proof that the search finds what is wrong with a lock that leaves out one of its steps.
//!
//! Each step below is one access of the real lock, in its order and with its ordering. When a thread opens the lock is left
//! open: a writer that is inside may always open it to itself, and the search tries both.

mod model;

use model::{
    search, Acquire, Buffers, Location, Memory, Protocol, Relaxed, Release, Value, Views, WORDS,
};

/// `Lock::open`, `Lock::draining`, `Lock::reads`.
const OPEN: Location = 0;
const DRAINING: Location = 1;
const READS: Location = 2;
/// The reader-writer lock inside: how many readers, or `WRITER`.
const INNER: Location = 3;
/// Two halves of the value, which are equal whenever no writer is inside.
const VALUE: [Location; 2] = [4, 5];
/// `Place::reading` of each thread.
const SEATS: Location = 6;

const WRITER: Value = 255;

/// What `OPEN` holds: nobody, all readers, or a thread.
const NOBODY: Value = 0;
const READERS: Value = 1;

fn thread_alone(number: usize) -> Value {
    number as Value + 2
}

/// What may be left out of the lock, or done in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// Who closes the lock looks at the seats at once.
    NoBarrier,
    /// Who finds the lock closed and draining relies on the barrier of who closed it.
    NoSecondBarrier,
    /// Who sits down has looked whether the lock is open before, and does not look after.
    LookBeforeSitting,
    /// The second look does not acquire.
    RelaxedLook,
    /// Who could not wait for the seats to be empty leaves no note of that.
    DrainingForgotten,
    /// The note that seats may be taken comes after the closing.
    LateNote,
    /// The lock is opened to readers by one who has let go of the inner lock.
    OpenedWithoutTheLock,
    /// The lock is closed only after the barrier.
    BarrierBeforeClosing,
    /// The lock is closed whoever it is open to by then.
    BlindClose,
    /// A reader with the inner lock does not mind that the lock is open to a writer.
    ReaderLeavesOpen,
    /// A reader with the inner lock closes the lock, and does not look at the seats.
    ReaderDoesNotDrain,
    /// A writer sits down also when the lock is open to readers.
    WriterAmongReaders,
    /// A writer opens the lock to itself when it has let go of the inner lock.
    WriterOpensLate,
}

/// The lock, and the threads that use it: first those that only read, then those that write too.
struct Lock {
    broken: Broken,
    readers: usize,
    threads: usize,
    /// Whether those that write also read.
    writers_read: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Outside,
    // A seat: in `try_read`, or in `try_write` (`Thread::writing`).
    Try,
    Sit,
    Look,
    LeaveUnseated,
    Seated,
    SeatedHalf,
    Leave,
    // The inner lock, in `try_` (not `Thread::patient`) or not.
    Inner,
    LookToClose,
    NoteDraining,
    Close,
    AskDraining,
    Barrier(bool),
    LookAtSeat(usize),
    ForgetDraining,
    GiveUp,
    // A reader inside.
    Count,
    CountUp,
    Open,
    Locked,
    LockedHalf,
    Unlock,
    OpenLate,
    // A writer inside.
    CountDown,
    Favour,
    Writing,
    WritingHalf,
    UnlockWrite,
    FavourLate,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Thread {
    at: At,
    /// How often it still asks for the lock.
    rounds: u8,
    /// Whether it asks to write.
    writing: bool,
    /// It waits as long as it takes.
    patient: bool,
    /// To whom the lock was open when it looked, if it closes it.
    found: Value,
    /// The first half of the value.
    half: Value,
    torn: bool,
}

impl Thread {
    fn new(rounds: u8) -> Thread {
        Thread {
            at: At::Outside,
            rounds,
            writing: false,
            patient: false,
            found: NOBODY,
            half: 0,
            torn: false,
        }
    }

    fn to(self, at: At) -> Thread {
        Thread { at, ..self }
    }

    fn done(self) -> Thread {
        Thread {
            torn: self.torn,
            ..Thread::new(self.rounds - 1)
        }
    }

    fn reads(self) -> bool {
        use At::*;
        !self.writing && matches!(self.at, Seated | SeatedHalf | Leave)
            || matches!(
                self.at,
                Count | CountUp | Open | Locked | LockedHalf | Unlock
            )
    }

    fn writes(self) -> bool {
        use At::*;
        self.writing && matches!(self.at, Seated | SeatedHalf | Leave)
            || matches!(
                self.at,
                CountDown | Favour | Writing | WritingHalf | UnlockWrite
            )
    }
}

impl Lock {
    /// A call begins: of one kind or the other, and with or without patience.
    fn outside<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        if thread.rounds == 0 {
            return vec![];
        }
        let kinds: &[bool] = match (me < self.readers, self.writers_read) {
            (true, _) => &[false],
            (false, false) => &[true],
            (false, true) => &[false, true],
        };
        let mut next = Vec::new();
        for writing in kinds {
            for (at, patient) in [(At::Try, false), (At::Inner, true)] {
                let thread = Thread {
                    writing: *writing,
                    patient,
                    ..thread.to(at)
                };
                next.push((thread, memory.clone()));
            }
        }
        next
    }

    /// Whether the thread may sit down while the lock is open to that.
    fn is_open(&self, me: usize, thread: Thread, open: Value) -> bool {
        let to_readers = !thread.writing || self.broken == Broken::WriterAmongReaders;
        open == thread_alone(me) || open == READERS && to_readers
    }

    fn step<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        use Broken::*;
        let seat = SEATS + me;
        let to = |at, memory| vec![(thread.to(at), memory)];
        let load = |location, order, next: &dyn Fn(Value) -> Thread| {
            let seen = memory.load(me, location, order);
            seen.into_iter()
                .map(|(value, memory)| (next(value), memory))
                .collect()
        };
        match thread.at {
            At::Outside => self.outside(me, thread, memory),

            At::Try => load(OPEN, Relaxed, &|open| {
                thread.to(if self.is_open(me, thread, open) {
                    At::Sit
                } else {
                    At::Inner
                })
            }),
            At::Sit => {
                let next = match self.broken {
                    LookBeforeSitting => At::Seated,
                    _ => At::Look,
                };
                to(next, memory.store(me, seat, 1, Relaxed))
            }
            At::Look => {
                let order = match self.broken {
                    RelaxedLook => Relaxed,
                    _ => Acquire,
                };
                load(OPEN, order, &|open| {
                    thread.to(if self.is_open(me, thread, open) {
                        At::Seated
                    } else {
                        At::LeaveUnseated
                    })
                })
            }
            At::LeaveUnseated => to(At::Inner, memory.store(me, seat, 0, Release)),
            At::Seated if thread.writing => self.write_half(me, thread, memory, At::SeatedHalf),
            At::Seated => load(VALUE[0], Relaxed, &|half| Thread {
                half,
                ..thread.to(At::SeatedHalf)
            }),
            At::SeatedHalf if thread.writing => {
                to(At::Leave, memory.store(me, VALUE[1], thread.half, Relaxed))
            }
            At::SeatedHalf => load(VALUE[1], Relaxed, &|half| Thread {
                torn: half != thread.half,
                ..thread.to(At::Leave)
            }),
            At::Leave => vec![(thread.done(), memory.store(me, seat, 0, Release))],

            At::Inner => {
                let take = if thread.writing {
                    the_writer
                } else {
                    one_reader_more
                };
                match memory.change(me, INNER, Acquire, take) {
                    Some((_, memory)) => to(At::LookToClose, memory),
                    None if thread.patient => vec![],
                    None => vec![(thread.done(), memory.clone())],
                }
            }
            At::LookToClose => load(OPEN, Acquire, &|open| {
                let stays = open == NOBODY
                    || !thread.writing && (open == READERS || self.broken == ReaderLeavesOpen);
                Thread {
                    found: if stays { NOBODY } else { open },
                    ..thread.to(match (stays, self.broken) {
                        (true, _) => At::AskDraining,
                        (false, BarrierBeforeClosing) => At::Barrier(false),
                        (false, LateNote) => At::Close,
                        (false, _) => At::NoteDraining,
                    })
                }
            }),
            At::NoteDraining => {
                let next = match self.broken {
                    LateNote => At::AskDraining,
                    _ => At::Close,
                };
                to(next, memory.store(me, DRAINING, 1, Relaxed))
            }
            At::Close => {
                let next = match self.broken {
                    LateNote => At::NoteDraining,
                    _ => At::AskDraining,
                };
                if self.broken == BlindClose {
                    return to(next, memory.store(me, OPEN, NOBODY, Release));
                }
                let close = |open| (open == thread.found).then_some(NOBODY);
                let closed = memory.change(me, OPEN, Release, close);
                to(next, closed.map_or(memory.clone(), |(_, memory)| memory))
            }
            At::AskDraining if self.broken == ReaderDoesNotDrain && !thread.writing => {
                to(At::Count, memory.clone())
            }
            At::AskDraining => load(DRAINING, Acquire, &|draining| {
                let has_passed = match self.broken {
                    NoBarrier | BarrierBeforeClosing => true,
                    NoSecondBarrier => thread.found == NOBODY,
                    _ => false,
                };
                thread.to(match (draining, has_passed) {
                    (0, _) => inside(thread),
                    (_, true) => At::LookAtSeat(0),
                    (_, false) => At::Barrier(true),
                })
            }),
            At::Barrier(closed) => to(
                if closed {
                    At::LookAtSeat(0)
                } else {
                    At::NoteDraining
                },
                memory.barrier(),
            ),
            At::LookAtSeat(number) if number == self.threads => {
                to(inside(thread), memory.store(me, DRAINING, 0, Release))
            }
            At::LookAtSeat(number) => {
                let mut next = Vec::new();
                for (taken, memory) in memory.load(me, SEATS + number, Acquire) {
                    match (taken, thread.patient) {
                        (0, _) => next.push((thread.to(At::LookAtSeat(number + 1)), memory)),
                        // It looks again, which changes nothing until that thread has left.
                        (_, true) => {}
                        (_, false) if self.broken == DrainingForgotten => {
                            next.push((thread.to(At::ForgetDraining), memory));
                        }
                        (_, false) => next.push((thread.to(At::GiveUp), memory)),
                    }
                }
                next
            }
            At::ForgetDraining => to(At::GiveUp, memory.store(me, DRAINING, 0, Relaxed)),
            At::GiveUp => vec![(thread.done(), self.unlock(me, thread, memory))],

            At::Count => load(OPEN, Relaxed, &|open| {
                thread.to(if open == NOBODY {
                    At::CountUp
                } else {
                    At::Locked
                })
            }),
            At::CountUp => {
                // One read without a write before it opens the lock.
                let counted = memory.change(me, READS, Relaxed, |reads| Some(reads.min(1) + 1));
                let (before, memory) = counted.unwrap();
                to(if before > 0 { At::Open } else { At::Locked }, memory)
            }
            At::Open if self.broken == OpenedWithoutTheLock => {
                to(At::OpenLate, self.unlock(me, thread, memory))
            }
            At::OpenLate => vec![(thread.done(), memory.store(me, OPEN, READERS, Release))],
            At::Open => to(At::Locked, memory.store(me, OPEN, READERS, Release)),
            At::Locked => load(VALUE[0], Relaxed, &|half| Thread {
                half,
                ..thread.to(At::LockedHalf)
            }),
            At::LockedHalf => load(VALUE[1], Relaxed, &|half| Thread {
                torn: half != thread.half,
                ..thread.to(At::Unlock)
            }),
            At::Unlock => vec![(thread.done(), self.unlock(me, thread, memory))],

            At::CountDown => {
                let memory = memory.store(me, READS, 0, Relaxed);
                vec![
                    (thread.to(At::Favour), memory.clone()),
                    (thread.to(At::Writing), memory),
                ]
            }
            At::Favour if self.broken == WriterOpensLate => {
                to(At::FavourLate, self.unlock(me, thread, memory))
            }
            At::FavourLate => {
                let open = memory.store(me, OPEN, thread_alone(me), Release);
                vec![(thread.done(), open)]
            }
            At::Favour => to(
                At::Writing,
                memory.store(me, OPEN, thread_alone(me), Release),
            ),
            At::Writing => self.write_half(me, thread, memory, At::WritingHalf),
            At::WritingHalf => to(
                At::UnlockWrite,
                memory.store(me, VALUE[1], thread.half, Relaxed),
            ),
            At::UnlockWrite => vec![(thread.done(), self.unlock(me, thread, memory))],
        }
    }

    /// A writer that is inside sees the last value, and only that.
    fn write_half<M: Memory>(
        &self,
        me: usize,
        thread: Thread,
        memory: &M,
        next: At,
    ) -> Vec<(Thread, M)> {
        let seen = memory.load(me, VALUE[0], Relaxed);
        let torn = seen.len() > 1;
        seen.into_iter()
            .map(|(half, memory)| {
                let thread = Thread {
                    half: 1 - half,
                    torn,
                    ..thread.to(next)
                };
                (thread, memory.store(me, VALUE[0], 1 - half, Relaxed))
            })
            .collect()
    }

    fn unlock<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> M {
        let fewer = |holders| Some(if thread.writing { 0 } else { holders - 1 });
        memory.change(me, INNER, Release, fewer).unwrap().1
    }
}

fn inside(thread: Thread) -> At {
    if thread.writing {
        At::CountDown
    } else {
        At::Count
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
        self.step(number, thread, memory)
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
            _ if threads.iter().any(|thread| thread.torn) => Some("someone saw half a write"),
            _ => None,
        }
    }
}

/// How many threads there are, and how often each asks for the lock.
#[derive(Clone, Copy, Debug)]
struct Size {
    readers: usize,
    reads: u8,
    writers: usize,
    writes: u8,
    writers_read: bool,
}

const ONE_OF_EACH: Size = Size {
    readers: 1,
    reads: 3,
    writers: 1,
    writes: 3,
    writers_read: false,
};
const ONE_DOES_BOTH: Size = Size {
    reads: 2,
    writers_read: true,
    ..ONE_OF_EACH
};
const TWO_READERS: Size = Size {
    readers: 2,
    reads: 2,
    writes: 2,
    ..ONE_OF_EACH
};
const TWO_WRITERS: Size = Size {
    reads: 2,
    writers: 2,
    writes: 2,
    ..ONE_OF_EACH
};
const ONLY_WRITERS: Size = Size {
    readers: 0,
    writers: 2,
    ..ONE_DOES_BOTH
};
const SIZES: [Size; 5] = [
    ONE_OF_EACH,
    ONE_DOES_BOTH,
    TWO_READERS,
    TWO_WRITERS,
    ONLY_WRITERS,
];

type Found = Result<usize, String>;

fn search_lock<M: Memory>(
    size: Size,
    broken: Broken,
    memory: impl Fn(usize, [Value; WORDS]) -> M,
) -> Found {
    let lock = Lock {
        broken,
        readers: size.readers,
        threads: size.readers + size.writers,
        writers_read: size.writers_read,
    };
    let mut threads = vec![Thread::new(size.reads); size.readers];
    threads.resize(lock.threads, Thread::new(size.writes));
    let mut words = [0; WORDS];
    words[OPEN] = READERS;
    search(&lock, threads.clone(), memory(threads.len(), words))
}

fn assert_none_is_wrong(found: Found) {
    let states = found.unwrap();
    assert!(states > 1000, "{states} states are too few to be all");
}

#[test]
fn nobody_is_with_a_writer_when_stores_are_late() {
    // On x86: no exclusion is broken, no draining lost, nobody waits for ever.
    for size in [ONE_OF_EACH, ONE_DOES_BOTH, ONLY_WRITERS] {
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::in_order));
    }
}

#[test]
fn nobody_is_with_a_writer_when_stores_overtake_each_other() {
    // On processors that keep no order between stores to different places.
    for size in [ONE_OF_EACH, ONE_DOES_BOTH, ONLY_WRITERS] {
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::out_of_order));
    }
}

#[test]
fn nobody_is_with_a_writer_when_loads_overtake_each_other() {
    // In the language's own memory model, which allows more than any processor does.
    let size = Size {
        reads: 2,
        writes: 2,
        ..ONE_OF_EACH
    };
    assert_none_is_wrong(search_lock(size, Broken::Nothing, Views::new));
}

#[test]
fn a_lock_that_leaves_a_step_out_is_found_out() {
    // The search is worth something: it finds what each step of the lock is for.
    use Broken::*;
    let is_found = |found: Found| {
        let wrong = found.err().unwrap_or_default();
        wrong.contains("inside") || wrong.contains("half")
    };
    for (broken, size) in [
        (NoBarrier, ONE_OF_EACH),
        (LookBeforeSitting, ONE_OF_EACH),
        (DrainingForgotten, ONE_OF_EACH),
        (OpenedWithoutTheLock, ONE_OF_EACH),
        (BarrierBeforeClosing, ONE_OF_EACH),
        (ReaderLeavesOpen, ONE_OF_EACH),
        (ReaderDoesNotDrain, ONE_OF_EACH),
        (WriterAmongReaders, ONE_OF_EACH),
        (WriterOpensLate, ONE_OF_EACH),
        (NoSecondBarrier, TWO_READERS),
    ] {
        let found = search_lock(size, broken, Buffers::in_order);
        assert!(is_found(found), "{broken:?} was not found");
    }
    for (broken, size) in [(LateNote, TWO_READERS), (BlindClose, ONE_DOES_BOTH)] {
        let found = search_lock(size, broken, Buffers::out_of_order);
        assert!(is_found(found), "{broken:?} was not found");
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
        threads: 1,
        writers_read: false,
    };
    let reader = Thread {
        at: At::Inner,
        patient: true,
        ..Thread::new(1)
    };
    let mut words = [0; WORDS];
    words[INNER] = WRITER;
    let found = search(&lock, vec![reader], Buffers::in_order(1, words));
    assert!(found.is_err_and(|wrong| wrong.contains("nobody can go on")));
}

#[test]
#[ignore = "millions of states: cargo test --release -p iommap_core --test lock_model -- --ignored"]
fn nobody_is_with_a_writer_among_more_threads() {
    // With two of either kind; and in the language's own memory model, with each of two doing both.
    for size in SIZES {
        println!("{size:?}");
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::in_order));
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Buffers::out_of_order));
    }
    let twice = |size| Size {
        reads: 2,
        writes: 2,
        ..size
    };
    for size in [ONE_OF_EACH, twice(ONE_DOES_BOTH), twice(ONLY_WRITERS)] {
        println!("{size:?}");
        assert_none_is_wrong(search_lock(size, Broken::Nothing, Views::new));
    }
}
