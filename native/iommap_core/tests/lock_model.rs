//! The handle's lock (`src/lock/mod.rs`) under every interleaving of its readers and writers, and on memories weaker than
//! any processor's; and the proof that the search finds what is wrong with a lock that leaves out one of its steps.
//!
//! Each step below is one access of the real lock, in its order and with its ordering. When a thread biases the lock is left
//! open: a writer that is inside may always bias it to itself, and the search tries both.

mod model;

use model::{
    search, Acquire, Buffers, Location, Memory, Protocol, Relaxed, Release, Value, Views, WORDS,
};

/// `Lock::bias`, `Lock::draining`, `Lock::reads`.
const BIAS: Location = 0;
const DRAINING: Location = 1;
const READS: Location = 2;
/// The reader-writer lock inside: how many readers, or `WRITER`.
const INNER: Location = 3;
/// Two halves of the value, which are equal whenever no writer is inside.
const VALUE: [Location; 2] = [4, 5];
/// `ThreadData::fast_lock` of each thread.
const FAST_LOCKS: Location = 6;

const WRITER: Value = 255;

/// What `BIAS` holds: nobody, all readers, or a thread.
const NOBODY: Value = 0;
const READERS: Value = 1;

fn thread_alone(number: usize) -> Value {
    number as Value + 2
}

/// What may be left out of the lock, or done in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// Who revokes the bias looks at the threads at once.
    NoBarrier,
    /// Who finds the lock unbiased and draining relies on the barrier of who revoked the bias.
    NoSecondBarrier,
    /// Who takes the fast path has looked at the bias before its store, and does not look after.
    CheckBeforeStore,
    /// The second look does not acquire.
    RelaxedRecheck,
    /// Who could not wait until no thread names the lock leaves no note of that.
    DrainingCleared,
    /// `draining` is set after the bias is revoked.
    LateDraining,
    /// The lock is biased to readers by one who has let go of the inner lock.
    BiasedWithoutTheLock,
    /// The bias is revoked only after the barrier.
    BarrierBeforeRevoking,
    /// The bias is revoked whomever the lock is biased to by then.
    BlindRevoke,
    /// A reader with the inner lock does not mind that the lock is biased to a writer.
    ReaderKeepsBias,
    /// A reader with the inner lock revokes the bias, and does not look at the threads.
    ReaderDoesNotDrain,
    /// A writer takes the fast path also when the lock is biased to readers.
    WriterAmongReaders,
    /// A writer biases the lock to itself when it has let go of the inner lock.
    WriterBiasesLate,
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
    // The fast path: in `try_read`, or in `try_write` (`Thread::writing`).
    Try,
    Store,
    Recheck,
    StoreBack,
    Fast,
    FastHalf,
    FastUnlock,
    // The inner lock, in `try_` (not `Thread::blocking`) or not.
    Inner,
    LookToRevoke,
    SetDraining,
    Revoke,
    LoadDraining,
    Barrier(bool),
    LookAtThread(usize),
    ClearDraining,
    GiveUp,
    // A reader inside.
    Count,
    CountUp,
    BiasToReaders,
    Locked,
    LockedHalf,
    Unlock,
    BiasToReadersLate,
    // A writer inside.
    CountDown,
    BiasToWriter,
    Writing,
    WritingHalf,
    UnlockWrite,
    BiasToWriterLate,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Thread {
    at: At,
    /// How often it still asks for the lock.
    rounds: u8,
    /// Whether it asks to write.
    writing: bool,
    /// It waits as long as it takes.
    blocking: bool,
    /// To whom the lock was biased when it looked, if it revokes that.
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
            blocking: false,
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
        !self.writing && matches!(self.at, Fast | FastHalf | FastUnlock)
            || matches!(
                self.at,
                Count | CountUp | BiasToReaders | Locked | LockedHalf | Unlock
            )
    }

    fn writes(self) -> bool {
        use At::*;
        self.writing && matches!(self.at, Fast | FastHalf | FastUnlock)
            || matches!(
                self.at,
                CountDown | BiasToWriter | Writing | WritingHalf | UnlockWrite
            )
    }
}

impl Lock {
    /// A call begins: of one kind or the other, blocking or non-blocking.
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
            for (at, blocking) in [(At::Try, false), (At::Inner, true)] {
                let thread = Thread {
                    writing: *writing,
                    blocking,
                    ..thread.to(at)
                };
                next.push((thread, memory.clone()));
            }
        }
        next
    }

    /// Whether the thread may take the fast path while the lock is biased to that.
    fn is_biased(&self, me: usize, thread: Thread, bias: Value) -> bool {
        let to_readers = !thread.writing || self.broken == Broken::WriterAmongReaders;
        bias == thread_alone(me) || bias == READERS && to_readers
    }

    fn step<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        use Broken::*;
        let fast_lock = FAST_LOCKS + me;
        let to = |at, memory| vec![(thread.to(at), memory)];
        let load = |location, order, next: &dyn Fn(Value) -> Thread| {
            let seen = memory.load(me, location, order);
            seen.into_iter()
                .map(|(value, memory)| (next(value), memory))
                .collect()
        };
        match thread.at {
            At::Outside => self.outside(me, thread, memory),

            At::Try => load(BIAS, Relaxed, &|bias| {
                thread.to(if self.is_biased(me, thread, bias) {
                    At::Store
                } else {
                    At::Inner
                })
            }),
            At::Store => {
                let next = match self.broken {
                    CheckBeforeStore => At::Fast,
                    _ => At::Recheck,
                };
                to(next, memory.store(me, fast_lock, 1, Relaxed))
            }
            At::Recheck => {
                let order = match self.broken {
                    RelaxedRecheck => Relaxed,
                    _ => Acquire,
                };
                load(BIAS, order, &|bias| {
                    thread.to(if self.is_biased(me, thread, bias) {
                        At::Fast
                    } else {
                        At::StoreBack
                    })
                })
            }
            At::StoreBack => to(At::Inner, memory.store(me, fast_lock, 0, Release)),
            At::Fast if thread.writing => self.write_half(me, thread, memory, At::FastHalf),
            At::Fast => load(VALUE[0], Relaxed, &|half| Thread {
                half,
                ..thread.to(At::FastHalf)
            }),
            At::FastHalf if thread.writing => to(
                At::FastUnlock,
                memory.store(me, VALUE[1], thread.half, Relaxed),
            ),
            At::FastHalf => load(VALUE[1], Relaxed, &|half| Thread {
                torn: half != thread.half,
                ..thread.to(At::FastUnlock)
            }),
            At::FastUnlock => vec![(thread.done(), memory.store(me, fast_lock, 0, Release))],

            At::Inner => {
                let take = if thread.writing {
                    the_writer
                } else {
                    one_reader_more
                };
                match memory.change(me, INNER, Acquire, take) {
                    Some((_, memory)) => to(At::LookToRevoke, memory),
                    None if thread.blocking => vec![],
                    None => vec![(thread.done(), memory.clone())],
                }
            }
            At::LookToRevoke => load(BIAS, Acquire, &|bias| {
                let stays = bias == NOBODY
                    || !thread.writing && (bias == READERS || self.broken == ReaderKeepsBias);
                Thread {
                    found: if stays { NOBODY } else { bias },
                    ..thread.to(match (stays, self.broken) {
                        (true, _) => At::LoadDraining,
                        (false, BarrierBeforeRevoking) => At::Barrier(false),
                        (false, LateDraining) => At::Revoke,
                        (false, _) => At::SetDraining,
                    })
                }
            }),
            At::SetDraining => {
                let next = match self.broken {
                    LateDraining => At::LoadDraining,
                    _ => At::Revoke,
                };
                to(next, memory.store(me, DRAINING, 1, Relaxed))
            }
            At::Revoke => {
                let next = match self.broken {
                    LateDraining => At::SetDraining,
                    _ => At::LoadDraining,
                };
                if self.broken == BlindRevoke {
                    return to(next, memory.store(me, BIAS, NOBODY, Release));
                }
                let revoke = |bias| (bias == thread.found).then_some(NOBODY);
                let revoked = memory.change(me, BIAS, Release, revoke);
                to(next, revoked.map_or(memory.clone(), |(_, memory)| memory))
            }
            At::LoadDraining if self.broken == ReaderDoesNotDrain && !thread.writing => {
                to(At::Count, memory.clone())
            }
            At::LoadDraining => load(DRAINING, Acquire, &|draining| {
                let has_passed = match self.broken {
                    NoBarrier | BarrierBeforeRevoking => true,
                    NoSecondBarrier => thread.found == NOBODY,
                    _ => false,
                };
                thread.to(match (draining, has_passed) {
                    (0, _) => inside(thread),
                    (_, true) => At::LookAtThread(0),
                    (_, false) => At::Barrier(true),
                })
            }),
            At::Barrier(revoked) => to(
                if revoked {
                    At::LookAtThread(0)
                } else {
                    At::SetDraining
                },
                memory.barrier(),
            ),
            At::LookAtThread(number) if number == self.threads => {
                to(inside(thread), memory.store(me, DRAINING, 0, Release))
            }
            At::LookAtThread(number) => {
                let mut next = Vec::new();
                for (taken, memory) in memory.load(me, FAST_LOCKS + number, Acquire) {
                    match (taken, thread.blocking) {
                        (0, _) => next.push((thread.to(At::LookAtThread(number + 1)), memory)),
                        // It looks again, which changes nothing until that thread has left.
                        (_, true) => {}
                        (_, false) if self.broken == DrainingCleared => {
                            next.push((thread.to(At::ClearDraining), memory));
                        }
                        (_, false) => next.push((thread.to(At::GiveUp), memory)),
                    }
                }
                next
            }
            At::ClearDraining => to(At::GiveUp, memory.store(me, DRAINING, 0, Relaxed)),
            At::GiveUp => vec![(thread.done(), self.unlock(me, thread, memory))],

            At::Count => load(BIAS, Relaxed, &|bias| {
                thread.to(if bias == NOBODY {
                    At::CountUp
                } else {
                    At::Locked
                })
            }),
            At::CountUp => {
                // One read without a write before it biases the lock.
                let counted = memory.change(me, READS, Relaxed, |reads| Some(reads.min(1) + 1));
                let (before, memory) = counted.unwrap();
                to(
                    if before > 0 {
                        At::BiasToReaders
                    } else {
                        At::Locked
                    },
                    memory,
                )
            }
            At::BiasToReaders if self.broken == BiasedWithoutTheLock => {
                to(At::BiasToReadersLate, self.unlock(me, thread, memory))
            }
            At::BiasToReadersLate => {
                vec![(thread.done(), memory.store(me, BIAS, READERS, Release))]
            }
            At::BiasToReaders => to(At::Locked, memory.store(me, BIAS, READERS, Release)),
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
                    (thread.to(At::BiasToWriter), memory.clone()),
                    (thread.to(At::Writing), memory),
                ]
            }
            At::BiasToWriter if self.broken == WriterBiasesLate => {
                to(At::BiasToWriterLate, self.unlock(me, thread, memory))
            }
            At::BiasToWriterLate => {
                let memory = memory.store(me, BIAS, thread_alone(me), Release);
                vec![(thread.done(), memory)]
            }
            At::BiasToWriter => to(
                At::Writing,
                memory.store(me, BIAS, thread_alone(me), Release),
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
    words[BIAS] = READERS;
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
        (CheckBeforeStore, ONE_OF_EACH),
        (DrainingCleared, ONE_OF_EACH),
        (BiasedWithoutTheLock, ONE_OF_EACH),
        (BarrierBeforeRevoking, ONE_OF_EACH),
        (ReaderKeepsBias, ONE_OF_EACH),
        (ReaderDoesNotDrain, ONE_OF_EACH),
        (WriterAmongReaders, ONE_OF_EACH),
        (WriterBiasesLate, ONE_OF_EACH),
        (NoSecondBarrier, TWO_READERS),
    ] {
        let found = search_lock(size, broken, Buffers::in_order);
        assert!(is_found(found), "{broken:?} was not found");
    }
    for (broken, size) in [(LateDraining, TWO_READERS), (BlindRevoke, ONE_DOES_BOTH)] {
        let found = search_lock(size, broken, Buffers::out_of_order);
        assert!(is_found(found), "{broken:?} was not found");
    }
    let found = search_lock(TWO_READERS, RelaxedRecheck, Views::new);
    assert!(
        found.is_err_and(|wrong| wrong.contains("half")),
        "RelaxedRecheck was not found"
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
        blocking: true,
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
