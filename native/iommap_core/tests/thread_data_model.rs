//! How a thread claims its record (`c_src/guard.c`, `src/thread_data.rs`), while a drainer of the lock looks over the records
//! and a signal handler wants one too: every interleaving, on memories weaker than any processor's; and the proof that the
//! search finds what is wrong with a claim or a look that leaves out one of its steps.
//!
//! Each step below is one access of the real code, in its order and with its ordering. Of the lock there is only what a look
//! is for, the fast path of a reader and one drainer; `lock_model.rs` has the rest.

mod model;

use model::{
    search, AcqRel, Acquire, Buffers, Location, Memory, Order, Protocol, Relaxed, Release, Value,
    Views, WORDS,
};
use std::ops::Range;

/// `Lock::bias`.
const BIAS: Location = 0;
/// What the C library passes on from a thread that ended to the one that gets its `pthread_self()`.
const ENDED: Location = 1;
/// `iommap_threads::next` of each block: the number of another block, or none.
const NEXT: Location = 2;
/// `iommap_thread::owner` and `fast_lock` of each record, of whichever block.
const OWNER: Location = NEXT + BLOCKS.len();
const FAST_LOCK: Location = OWNER + RECORDS;

/// The first block, and one that each of two readers may link: then there are records enough, and nobody links a second.
const BLOCKS: [Range<usize>; 3] = [0..2, 2..4, 4..6];
const RECORDS: usize = 6;

const NOBODY: Value = 0;
const READERS: Value = 1;
const NO_BLOCK: Value = 0;
/// The owner of a record that is none of the threads here.
const ANOTHER: Value = 100;
/// What is in memory that was just allocated.
const GARBAGE: Value = 255;

/// What may be left out of a claim or a look, or done in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// The drainer looks at once.
    NoBarrier,
    /// The drainer looks, and then passes the barrier.
    LookBeforeBarrier,
    /// The drainer revokes the bias after the barrier.
    BarrierBeforeRevoking,
    /// The drainer looks at the first block only.
    FirstBlockOnly,
    /// The drainer follows a link without acquiring.
    RelaxedNext,
    /// A thread with a new record does not look at the bias after its store.
    NoRecheck,
    /// A thread claims a record though one before it has no owner.
    NotTheFirst,
    /// A thread claims a record by a plain store.
    PlainClaim,
    /// A thread links a block by a plain store.
    PlainLink,
    /// A thread links a block without releasing.
    RelaxedLink,
    /// A thread uses the record that it has claimed, and does not look for the first that it owns.
    NoLookAfterClaim,
    /// A thread that ends gives its record back.
    GivesBack,
    /// A thread that ends passes its `pthread_self()` on without what it stored.
    RelaxedEnd,
    /// A thread follows a link in search of its record without acquiring.
    RelaxedFindNext,
    /// No access to an owner orders anything. That is no mistake.
    RelaxedOwners,
}

/// Readers without a record, and a drainer.
struct Records {
    broken: Broken,
    size: Size,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    readers: usize,
    reads: u8,
    writes: u8,
    /// How many records of the first block others have.
    taken: usize,
    /// A signal handler may run in the midst of a claim.
    signals: bool,
    /// The second reader begins when the first has ended, and has its `pthread_self()`.
    heir: bool,
}

/// The search of a record by its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Wanted {
    Mine,
    Unowned,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Begin,
    // `owned_by`: a record, or the link of a block. Then the claim of a record.
    Find(Wanted, usize),
    FindNext(Wanted, usize),
    Claim(usize),
    // `iommap_guard_thread`: adds a block behind the last.
    Allocate,
    FindLast(usize),
    Link(usize),
    // `Lock::try_fast`.
    Try,
    Store,
    Recheck,
    StoreBack,
    Fast,
    End,
    Ended,
    // A drainer: `Lock::write`, with the inner lock.
    Revoke,
    Barrier,
    Look(usize),
    LookAtLock(usize),
    LookNext(usize),
    Writing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Thread {
    at: At,
    /// How often it still asks for the lock.
    rounds: u8,
    /// Its record, until it ends.
    record: Option<usize>,
    /// Where a signal came, while its handler runs; and the record that a handler had.
    interrupted: Option<At>,
    handlers_record: Option<usize>,
    saw_garbage: bool,
}

impl Thread {
    fn new(at: At, rounds: u8) -> Thread {
        Thread {
            at,
            rounds,
            record: None,
            interrupted: None,
            handlers_record: None,
            saw_garbage: false,
        }
    }

    fn to(self, at: At) -> Thread {
        Thread { at, ..self }
    }

    /// The end of one call.
    fn done(self, again: At, last: At) -> Thread {
        let rounds = self.rounds - 1;
        let at = if rounds == 0 { last } else { again };
        Thread { at, rounds, ..self }
    }

    fn found(self, record: usize) -> Thread {
        match self.interrupted {
            None => Thread {
                at: At::Try,
                record: Some(record),
                ..self
            },
            Some(at) => Thread {
                at,
                interrupted: None,
                handlers_record: Some(record),
                ..self
            },
        }
    }

    fn is_unknown_to_its_handler(&self) -> bool {
        let records = self.record.zip(self.handlers_record);
        records.is_some_and(|(mine, handlers)| mine != handlers)
    }

    /// A signal comes, at most once until it has been given a record.
    fn interrupt(self) -> Option<Thread> {
        let claims = self.record.is_none() && !matches!(self.at, At::Begin | At::Ended);
        let first = self.interrupted.is_none() && self.handlers_record.is_none();
        (claims && first).then_some(Thread {
            at: At::Find(Wanted::Mine, 0),
            interrupted: Some(self.at),
            ..self
        })
    }
}

/// The record behind that one in its block, or else the block.
fn behind(record: usize) -> Result<usize, usize> {
    let block = BLOCKS.iter().position(|block| block.contains(&record));
    let block = block.unwrap();
    match record + 1 < BLOCKS[block].end {
        true => Ok(record + 1),
        false => Err(block),
    }
}

fn first_of(block: Value) -> usize {
    BLOCKS[block as usize].start
}

/// Every value that the thread may see, and what it does then.
fn load<M: Memory>(
    me: usize,
    memory: &M,
    at: Location,
    order: Order,
    next: impl Fn(Value) -> Thread,
) -> Vec<(Thread, M)> {
    let seen = memory.load(me, at, order).into_iter();
    seen.map(|(value, memory)| {
        let saw_garbage = value == GARBAGE;
        let thread = match saw_garbage {
            true => Thread::new(At::Ended, 0),
            false => next(value),
        };
        (
            Thread {
                saw_garbage,
                ..thread
            },
            memory,
        )
    })
    .collect()
}

/// `atomic_compare_exchange_strong` of zero: whether it exchanged, and the memory after it. When not, it has seen why.
fn exchange_zero<M: Memory>(
    me: usize,
    memory: &M,
    at: Location,
    value: Value,
    order: Order,
) -> Vec<(bool, M)> {
    match memory.change(me, at, order, |before| (before == 0).then_some(value)) {
        Some((_, memory)) => vec![(true, memory)],
        None => {
            let seen = memory.load(me, at, Acquire).into_iter();
            seen.filter(|(value, _)| *value != 0)
                .map(|(_, memory)| (false, memory))
                .collect()
        }
    }
}

impl Records {
    fn pthread_self(&self, me: usize) -> Value {
        match self.size.heir {
            true => 1,
            false => me as Value + 1,
        }
    }

    /// `iommap_guard_thread`, and `iommap_guard_own_record` in the handler.
    fn claim<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let again = thread.to(At::Find(Wanted::Mine, 0));
        let myself = self.pthread_self(me);
        match thread.at {
            At::Find(wanted, record) => load(
                me,
                memory,
                OWNER + record,
                self.unless(Broken::RelaxedOwners, Acquire),
                |owner| {
                    let behind = behind(record);
                    match wanted {
                        Wanted::Mine if owner == myself => thread.found(record),
                        Wanted::Unowned if owner == 0 && !self.skips(behind) => {
                            thread.to(At::Claim(record))
                        }
                        _ => thread.to(match behind {
                            Ok(record) => At::Find(wanted, record),
                            Err(block) => At::FindNext(wanted, block),
                        }),
                    }
                },
            ),
            At::FindNext(wanted, block) => load(
                me,
                memory,
                NEXT + block,
                self.unless(Broken::RelaxedFindNext, Acquire),
                |next| match (next, wanted, thread.interrupted) {
                    (NO_BLOCK, Wanted::Mine, _) => thread.to(At::Find(Wanted::Unowned, 0)),
                    (NO_BLOCK, _, None) => thread.to(At::Allocate),
                    (NO_BLOCK, _, Some(at)) => Thread {
                        interrupted: None,
                        ..thread.to(at)
                    },
                    (next, ..) => thread.to(At::Find(wanted, first_of(next))),
                },
            ),
            At::Claim(record) if self.broken == Broken::PlainClaim => {
                vec![(again, memory.store(me, OWNER + record, myself, Release))]
            }
            At::Claim(record) => {
                let claimed = exchange_zero(
                    me,
                    memory,
                    OWNER + record,
                    myself,
                    self.unless(Broken::RelaxedOwners, AcqRel),
                )
                .into_iter();
                let no_look = self.broken == Broken::NoLookAfterClaim;
                claimed
                    .map(|(mine, memory)| match mine && no_look {
                        true => (thread.found(record), memory),
                        false => (again, memory),
                    })
                    .collect()
            }
            _ => self.add_block(me, thread, memory),
        }
    }

    /// The second reader may wait for the end of the first.
    fn begin<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let next = thread.to(At::Find(Wanted::Mine, 0));
        if !self.size.heir || me == 0 {
            return vec![(next, memory.clone())];
        }
        let seen = memory.load(me, ENDED, Acquire).into_iter();
        seen.filter(|(ended, _)| *ended == 1)
            .map(|(_, memory)| (next, memory))
            .collect()
    }

    fn skips(&self, behind: Result<usize, usize>) -> bool {
        self.broken == Broken::NotTheFirst && behind.is_ok()
    }

    /// The rest of `iommap_guard_thread`. Nobody else knows of the block until it is linked.
    fn add_block<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let again = thread.to(At::Find(Wanted::Mine, 0));
        let added = me + 1;
        match thread.at {
            At::Allocate => {
                let mut memory = memory.store(me, NEXT + added, NO_BLOCK, Relaxed);
                for record in BLOCKS[added].clone() {
                    memory = memory.store(me, OWNER + record, 0, Relaxed);
                    memory = memory.store(me, FAST_LOCK + record, 0, Relaxed);
                }
                vec![(thread.to(At::FindLast(0)), memory)]
            }
            At::FindLast(block) => load(me, memory, NEXT + block, Acquire, |next| {
                thread.to(match next {
                    NO_BLOCK => At::Link(block),
                    next => At::FindLast(next as usize),
                })
            }),
            At::Link(block) if self.broken == Broken::PlainLink => {
                let memory = memory.store(me, NEXT + block, added as Value, Release);
                vec![(again, memory)]
            }
            At::Link(block) => {
                let order = self.unless(Broken::RelaxedLink, AcqRel);
                let linked = exchange_zero(me, memory, NEXT + block, added as Value, order);
                linked
                    .into_iter()
                    .map(|(_, memory)| (again, memory))
                    .collect()
            }
            at => unreachable!("{at:?} is no step of a claim"),
        }
    }

    /// A reader with its record: `Lock::try_fast` and the drop of its guard; then its end.
    fn read<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let record = thread.record.unwrap();
        let fast_lock = FAST_LOCK + record;
        let done = || thread.done(At::Try, At::End);
        match thread.at {
            At::Try => load(me, memory, BIAS, Relaxed, |bias| match bias {
                READERS => thread.to(At::Store),
                _ => done(),
            }),
            At::Store => {
                let next = match self.broken {
                    Broken::NoRecheck => At::Fast,
                    _ => At::Recheck,
                };
                vec![(thread.to(next), memory.store(me, fast_lock, 1, Relaxed))]
            }
            At::Recheck => load(me, memory, BIAS, Acquire, |bias| {
                thread.to(match bias {
                    READERS => At::Fast,
                    _ => At::StoreBack,
                })
            }),
            At::StoreBack | At::Fast => vec![(done(), memory.store(me, fast_lock, 0, Release))],
            At::End => {
                let memory = match (self.broken, self.size.heir) {
                    (Broken::GivesBack, _) => memory.store(me, OWNER + record, 0, Release),
                    (Broken::RelaxedEnd, true) => memory.store(me, ENDED, 1, Relaxed),
                    (_, true) => memory.store(me, ENDED, 1, Release),
                    (_, false) => memory.clone(),
                };
                let thread = Thread {
                    record: None,
                    ..thread.to(At::Ended)
                };
                vec![(thread, memory)]
            }
            at => unreachable!("{at:?} is no step of a reader"),
        }
    }

    /// What the drainer does, in this order.
    fn drainers_steps(&self) -> &'static [At] {
        match self.broken {
            Broken::NoBarrier => &[At::Revoke, At::Look(0), At::Writing],
            Broken::LookBeforeBarrier => &[At::Revoke, At::Look(0), At::Barrier, At::Writing],
            Broken::BarrierBeforeRevoking => &[At::Barrier, At::Revoke, At::Look(0), At::Writing],
            _ => &[At::Revoke, At::Barrier, At::Look(0), At::Writing],
        }
    }

    fn drainers_step_after(&self, step: At) -> At {
        let mut steps = self.drainers_steps().iter().copied();
        steps.find(|one| *one == step);
        steps.next().unwrap()
    }

    /// `Lock::write`, with the inner lock.
    fn drain<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let after = |step| thread.to(self.drainers_step_after(step));
        match thread.at {
            At::Revoke => {
                let revoked = memory.change(me, BIAS, AcqRel, |_| Some(NOBODY));
                vec![(after(At::Revoke), revoked.unwrap().1)]
            }
            At::Barrier => vec![(after(At::Barrier), memory.barrier())],
            At::Look(record) => load(
                me,
                memory,
                OWNER + record,
                self.unless(Broken::RelaxedOwners, Acquire),
                |owner| match owner {
                    NOBODY => after(At::Look(0)),
                    _ => thread.to(At::LookAtLock(record)),
                },
            ),
            At::LookAtLock(record) => {
                // While a record names the lock it looks again, which changes nothing until that thread has left.
                let seen = memory.load(me, FAST_LOCK + record, Acquire).into_iter();
                let free = seen.filter(|(taken, _)| *taken == 0);
                let next = match behind(record) {
                    Ok(record) => thread.to(At::Look(record)),
                    Err(_) if self.broken == Broken::FirstBlockOnly => after(At::Look(0)),
                    Err(block) => thread.to(At::LookNext(block)),
                };
                free.map(|(_, memory)| (next, memory)).collect()
            }
            At::LookNext(block) => {
                let order = self.unless(Broken::RelaxedNext, Acquire);
                load(me, memory, NEXT + block, order, |next| match next {
                    NO_BLOCK => after(At::Look(0)),
                    next => thread.to(At::Look(first_of(next))),
                })
            }
            At::Writing => {
                // The next reader, which has the inner lock too, biases the lock to readers again.
                let memory = memory.store(me, BIAS, READERS, Release);
                vec![(thread.done(self.drainers_steps()[0], At::Ended), memory)]
            }
            at => unreachable!("{at:?} is no step of a drainer"),
        }
    }

    fn unless(&self, relaxed: Broken, order: Order) -> Order {
        match self.broken == relaxed {
            true => Relaxed,
            false => order,
        }
    }
}

impl Protocol for Records {
    type Thread = Thread;

    fn steps<M: Memory>(&self, me: usize, thread: Thread, memory: &M) -> Vec<(Thread, M)> {
        let interrupted = thread
            .interrupt()
            .filter(|_| self.size.signals && me < self.size.readers);
        let mut next = match (thread.at, thread.record) {
            (At::Ended, _) => vec![],
            _ if me == self.size.readers => self.drain(me, thread, memory),
            (At::Begin, _) => self.begin(me, thread, memory),
            (_, None) => self.claim(me, thread, memory),
            (_, Some(_)) => self.read(me, thread, memory),
        };
        next.extend(interrupted.map(|thread| (thread, memory.clone())));
        next
    }

    fn finished(&self, thread: &Thread) -> bool {
        thread.at == At::Ended
    }

    fn wrong(&self, threads: &[Thread]) -> Option<&'static str> {
        let any = |wrong: &dyn Fn(&Thread) -> bool| threads.iter().any(wrong);
        let mut records: Vec<_> = threads.iter().filter_map(|thread| thread.record).collect();
        records.sort_unstable();
        if any(&|thread| thread.at == At::Fast) && any(&|thread| thread.at == At::Writing) {
            Some("a reader is inside with a writer")
        } else if any(&|thread| thread.saw_garbage) {
            Some("a block was read before it was written")
        } else if records.windows(2).any(|pair| pair[0] == pair[1]) {
            Some("two threads have one record")
        } else if any(&Thread::is_unknown_to_its_handler) {
            Some("a handler had another record than its thread")
        } else {
            None
        }
    }
}

const ONE_CLAIMS: Size = Size {
    readers: 1,
    reads: 2,
    writes: 2,
    taken: 0,
    signals: false,
    heir: false,
};
const ONE_LINKS: Size = Size {
    taken: 2,
    ..ONE_CLAIMS
};
const TWO_CLAIM: Size = Size {
    readers: 2,
    reads: 1,
    writes: 1,
    ..ONE_CLAIMS
};
const ONE_OF_TWO_LINKS: Size = Size {
    taken: 1,
    ..TWO_CLAIM
};
const TWO_LINK: Size = Size {
    taken: 2,
    ..TWO_CLAIM
};
const SIGNAL: Size = Size {
    signals: true,
    reads: 1,
    writes: 1,
    ..ONE_CLAIMS
};
const HEIR: Size = Size {
    heir: true,
    ..TWO_CLAIM
};

type Found = Result<usize, String>;

fn search_records<M: Memory>(
    size: Size,
    broken: Broken,
    memory: impl Fn(usize, [Value; WORDS]) -> M,
) -> Found {
    let records = Records { broken, size };
    let mut threads = vec![Thread::new(At::Begin, size.reads); size.readers];
    threads.push(Thread::new(records.drainers_steps()[0], size.writes));
    let mut words = [GARBAGE; WORDS];
    words[BIAS] = READERS;
    words[ENDED] = 0;
    words[NEXT] = NO_BLOCK;
    for record in BLOCKS[0].clone() {
        words[OWNER + record] = if record < size.taken { ANOTHER } else { NOBODY };
        words[FAST_LOCK + record] = 0;
    }
    search(&records, threads.clone(), memory(threads.len(), words))
}

fn is_found(found: Found, wrong: &str) -> bool {
    found.is_err_and(|found| found.starts_with(wrong))
}

#[test]
fn no_reader_with_a_new_record_is_with_a_writer() {
    // A record that is claimed behind the look of a drainer is of a thread that finds the bias revoked.
    for size in [
        ONE_CLAIMS,
        ONE_LINKS,
        TWO_CLAIM,
        ONE_OF_TWO_LINKS,
        SIGNAL,
        HEIR,
    ] {
        search_records(size, Broken::Nothing, Buffers::in_order).unwrap();
        search_records(size, Broken::Nothing, Buffers::out_of_order).unwrap();
    }
    for size in [ONE_CLAIMS, ONE_LINKS, TWO_CLAIM, SIGNAL, HEIR] {
        let states = search_records(size, Broken::Nothing, Views::new).unwrap();
        assert!(states > 500, "{states} states are too few to be all");
    }
}

#[test]
fn a_claim_needs_no_order_of_the_accesses_to_an_owner() {
    // The barrier alone orders a claim and a look; the orders of the code are stronger than that.
    for size in [ONE_CLAIMS, ONE_LINKS, TWO_CLAIM, SIGNAL, HEIR] {
        search_records(size, Broken::RelaxedOwners, Views::new).unwrap();
    }
}

#[test]
fn a_claim_that_leaves_a_step_out_is_found_out() {
    // The search is worth something: it finds what each step of a claim and of a look is for.
    use Broken::*;
    for (broken, size, wrong) in [
        (NoBarrier, ONE_CLAIMS, "a reader is inside"),
        (LookBeforeBarrier, ONE_CLAIMS, "a reader is inside"),
        (BarrierBeforeRevoking, ONE_CLAIMS, "a reader is inside"),
        (FirstBlockOnly, ONE_LINKS, "a reader is inside"),
        (NoRecheck, ONE_CLAIMS, "a reader is inside"),
        (NotTheFirst, ONE_CLAIMS, "a reader is inside"),
        (PlainClaim, TWO_CLAIM, "two threads have one record"),
        (PlainLink, TWO_LINK, "a reader is inside"),
        (GivesBack, TWO_CLAIM, "a reader is inside"),
        (NoLookAfterClaim, SIGNAL, "a handler had another record"),
    ] {
        let found = search_records(size, broken, Buffers::in_order);
        assert!(is_found(found, wrong), "{broken:?} was not found");
    }
    let found = search_records(HEIR, RelaxedEnd, Buffers::out_of_order);
    assert!(
        is_found(found, "a reader is inside"),
        "RelaxedEnd was not found"
    );
    for (broken, size) in [
        (RelaxedNext, ONE_LINKS),
        (RelaxedLink, ONE_LINKS),
        (RelaxedFindNext, TWO_LINK),
    ] {
        let found = search_records(size, broken, Views::new);
        assert!(
            is_found(found, "a block was read"),
            "{broken:?} was not found"
        );
    }
}

#[test]
#[ignore = "millions of states: cargo test --release -p iommap_core --test thread_data_model -- --ignored"]
fn no_reader_with_a_new_record_is_with_a_writer_among_more_threads() {
    // Two that link a block each, and signals to two, in every memory.
    let signals = Size {
        signals: true,
        ..TWO_CLAIM
    };
    for size in [ONE_OF_TWO_LINKS, TWO_LINK, signals] {
        println!("{size:?}");
        search_records(size, Broken::Nothing, Buffers::in_order).unwrap();
        search_records(size, Broken::Nothing, Buffers::out_of_order).unwrap();
        search_records(size, Broken::Nothing, Views::new).unwrap();
    }
}
