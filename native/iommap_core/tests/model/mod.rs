//! Tries every interleaving of a few threads over a memory as weak as processors and compilers are.
//!
//! A protocol is a state machine for each thread: one step, one access to memory. The search visits every state that
//! can be reached, and asks of each whether it is allowed; a state from which no thread can go on must be one where all
//! have finished. Threads do a bounded number of things, so every path ends, and "all have finished" at every end
//! means that nothing deadlocks and nothing waits for ever.
//!
//! Why not loom: what is checked here rests on a barrier that one thread makes all others pass (`membarrier(2)`),
//! which loom does not have, and on statics that a signal handler may read, whose constructors must be `const`, which
//! loom's are not.

#![allow(dead_code)] // each test uses a part of it

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A word of memory, by its number.
pub type Location = usize;
/// What a word holds.
pub type Value = u8;
/// How many words there are.
pub const WORDS: usize = 17;

/// What an access says about those around it, as in `std::sync::atomic`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Relaxed,
    /// Later accesses come after it.
    Acquire,
    /// Earlier accesses come before it.
    Release,
    /// Both, of an atomic instruction.
    AcqRel,
}
pub use Order::{AcqRel, Acquire, Relaxed, Release};

impl Order {
    fn acquires(self) -> bool {
        matches!(self, Acquire | AcqRel)
    }

    fn releases(self) -> bool {
        matches!(self, Release | AcqRel)
    }
}

/// A memory that several threads share.
pub trait Memory: Clone + Eq + Hash {
    /// Every value that the thread may see there, each with the memory as it is when it has seen it.
    fn load(&self, thread: usize, at: Location, order: Order) -> Vec<(Value, Self)>;

    /// The memory after a store.
    fn store(&self, thread: usize, at: Location, value: Value, order: Order) -> Self;

    /// What was there, and the memory after an atomic instruction replaced it by what `change` made of it, if anything.
    fn change(
        &self,
        thread: usize,
        at: Location,
        order: Order,
        change: impl Fn(Value) -> Option<Value>,
    ) -> Option<(Value, Self)>;

    /// `fence(AcqRel)`.
    fn fence(&self, thread: usize) -> Self;

    /// Every thread passes a full barrier.
    fn barrier(&self) -> Self;

    /// What the memory may do while no thread does anything.
    fn by_itself(&self) -> Vec<Self>;
}

/// Processors whose stores wait in a buffer: a thread sees its own at once, others when they reach memory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Buffers {
    memory: [Value; WORDS],
    /// Thread by thread, the oldest of each first.
    waiting: Vec<Waiting>,
    in_order: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Waiting {
    thread: usize,
    at: Location,
    value: Value,
    release: bool,
}

impl Buffers {
    /// Stores reach memory in order, and an atomic instruction waits for all of them: x86 (TSO).
    pub fn in_order(_threads: usize, memory: [Value; WORDS]) -> Buffers {
        Buffers {
            memory,
            waiting: Vec::new(),
            in_order: true,
        }
    }

    /// Stores to different words overtake each other unless they release (PSO and weaker).
    pub fn out_of_order(_threads: usize, memory: [Value; WORDS]) -> Buffers {
        Buffers {
            memory,
            waiting: Vec::new(),
            in_order: false,
        }
    }

    fn may_leave(&self, index: usize) -> bool {
        let store = self.waiting[index];
        let mut earlier = self.waiting[..index]
            .iter()
            .filter(|one| one.thread == store.thread);
        if self.in_order || store.release {
            earlier.next().is_none()
        } else {
            earlier.all(|one| one.at != store.at)
        }
    }

    fn drained(mut self, of: impl Fn(usize) -> bool) -> Buffers {
        for store in self.waiting.iter().filter(|store| of(store.thread)) {
            self.memory[store.at] = store.value;
        }
        self.waiting.retain(|store| !of(store.thread));
        self
    }
}

impl Memory for Buffers {
    fn load(&self, thread: usize, at: Location, _: Order) -> Vec<(Value, Self)> {
        let own = self
            .waiting
            .iter()
            .rev()
            .find(|store| store.thread == thread && store.at == at);
        let value = own.map_or(self.memory[at], |store| store.value);
        vec![(value, self.clone())]
    }

    fn store(&self, thread: usize, at: Location, value: Value, order: Order) -> Self {
        let mut after = self.clone();
        let index = after
            .waiting
            .partition_point(|store| store.thread <= thread);
        after.waiting.insert(
            index,
            Waiting {
                thread,
                at,
                value,
                release: order.releases(),
            },
        );
        after
    }

    fn change(
        &self,
        thread: usize,
        at: Location,
        order: Order,
        change: impl Fn(Value) -> Option<Value>,
    ) -> Option<(Value, Self)> {
        let mut after = self.clone();
        let waits = self
            .waiting
            .iter()
            .any(|store| store.thread == thread && store.at == at);
        if self.in_order || order.releases() || waits {
            after = after.drained(|of| of == thread);
        }
        let before = after.memory[at];
        after.memory[at] = change(before)?;
        Some((before, after))
    }

    fn fence(&self, thread: usize) -> Self {
        self.clone().drained(|of| of == thread)
    }

    fn barrier(&self) -> Self {
        self.clone().drained(|_| true)
    }

    fn by_itself(&self) -> Vec<Self> {
        let leaving = (0..self.waiting.len()).filter(|index| self.may_leave(*index));
        leaving
            .map(|index| {
                let mut after = self.clone();
                let store = after.waiting.remove(index);
                after.memory[store.at] = store.value;
                after
            })
            .collect()
    }
}

/// The memory of the language: a load may see any store that the thread does not know to be overwritten. It allows
/// all that `Buffers` does, and loads that overtake each other besides.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Views {
    /// Word by word, the oldest of each first.
    stores: Vec<Store>,
    threads: Vec<Knowledge>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Store {
    at: Location,
    value: Value,
    /// What its reader learns by acquiring it.
    passed_on: View,
}

/// For each word the oldest store that may still be seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct View([u8; WORDS]);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Knowledge {
    now: View,
    /// What an acquire fence would make of it.
    read: View,
    /// What it was at the last release fence: a relaxed store passes that on.
    fenced: View,
}

impl View {
    #[must_use]
    fn and(mut self, other: View) -> View {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(others);
        }
        self
    }
}

impl Views {
    /// A memory that all threads know.
    pub fn new(threads: usize, memory: [Value; WORDS]) -> Views {
        let store = |(at, value)| Store {
            at,
            value,
            passed_on: View::default(),
        };
        Views {
            stores: memory.into_iter().enumerate().map(store).collect(),
            threads: vec![Knowledge::default(); threads],
        }
    }

    fn stores_to(&self, at: Location) -> &[Store] {
        let first = self.stores.partition_point(|store| store.at < at);
        let end = self.stores.partition_point(|store| store.at <= at);
        &self.stores[first..end]
    }

    fn append(&mut self, thread: usize, at: Location, value: Value, mut passed_on: View) {
        let index = self.stores_to(at).len() as u8;
        let end = self.stores.partition_point(|store| store.at <= at);
        passed_on.0[at] = index;
        self.stores.insert(
            end,
            Store {
                at,
                value,
                passed_on,
            },
        );
        let knowledge = &mut self.threads[thread];
        knowledge.now.0[at] = index;
        knowledge.read.0[at] = index;
    }
}

impl Memory for Views {
    fn load(&self, thread: usize, at: Location, order: Order) -> Vec<(Value, Self)> {
        let oldest = self.threads[thread].now.0[at] as usize;
        let stores = self.stores_to(at).iter().enumerate().skip(oldest);
        stores
            .map(|(index, store)| {
                let mut after = self.clone();
                let knowledge = &mut after.threads[thread];
                knowledge.now.0[at] = index as u8;
                knowledge.read = knowledge.read.and(knowledge.now).and(store.passed_on);
                if order.acquires() {
                    knowledge.now = knowledge.now.and(store.passed_on);
                }
                (store.value, after)
            })
            .collect()
    }

    fn store(&self, thread: usize, at: Location, value: Value, order: Order) -> Self {
        let mut after = self.clone();
        let knowledge = self.threads[thread];
        let passed_on = if order.releases() {
            knowledge.now
        } else {
            knowledge.fenced
        };
        after.append(thread, at, value, passed_on);
        after
    }

    fn change(
        &self,
        thread: usize,
        at: Location,
        order: Order,
        change: impl Fn(Value) -> Option<Value>,
    ) -> Option<(Value, Self)> {
        let before = self.stores_to(at).last()?;
        let value = change(before.value)?;
        let mut after = self.clone();
        let knowledge = &mut after.threads[thread];
        knowledge.read = knowledge.read.and(before.passed_on);
        if order.acquires() {
            knowledge.now = knowledge.now.and(before.passed_on);
        }
        // It carries on what the store before it passed on.
        let own = if order.releases() {
            knowledge.now
        } else {
            knowledge.fenced
        };
        after.append(thread, at, value, own.and(before.passed_on));
        Some((before.value, after))
    }

    fn fence(&self, thread: usize) -> Self {
        let mut after = self.clone();
        let knowledge = &mut after.threads[thread];
        knowledge.now = knowledge.read;
        knowledge.fenced = knowledge.now;
        after
    }

    fn barrier(&self) -> Self {
        let mut after = self.clone();
        let all = self
            .threads
            .iter()
            .fold(View::default(), |all, one| all.and(one.read));
        after.threads.fill(Knowledge {
            now: all,
            read: all,
            fenced: all,
        });
        after
    }

    fn by_itself(&self) -> Vec<Self> {
        Vec::new()
    }
}

/// What the threads do, over any memory.
pub trait Protocol {
    /// Where a thread is, and what it keeps in registers.
    type Thread: Copy + Eq + Hash + Debug;

    /// Every step the thread can take now. None: it has finished, or waits for another.
    fn steps<M: Memory>(
        &self,
        number: usize,
        thread: Self::Thread,
        memory: &M,
    ) -> Vec<(Self::Thread, M)>;

    /// Whether it has nothing left to do.
    fn finished(&self, thread: &Self::Thread) -> bool;

    /// What is wrong with the threads being where they are, if anything.
    fn wrong(&self, threads: &[Self::Thread]) -> Option<&'static str>;
}

/// Visits every state. How many there are, or what is wrong with one of them.
pub fn search<P: Protocol, M: Memory>(
    protocol: &P,
    threads: Vec<P::Thread>,
    memory: M,
) -> Result<usize, String> {
    let mut seen = HashSet::<_, BuildHasherDefault<Quick>>::default();
    let mut ahead = vec![(threads, memory)];
    seen.insert(ahead[0].clone());
    while let Some((threads, memory)) = ahead.pop() {
        if let Some(wrong) = protocol.wrong(&threads) {
            return Err(format!("{wrong}: {threads:?}"));
        }
        let mut next = Vec::new();
        for (number, thread) in threads.iter().enumerate() {
            for (thread, memory) in protocol.steps(number, *thread, &memory) {
                let mut threads = threads.clone();
                threads[number] = thread;
                next.push((threads, memory));
            }
        }
        next.extend(
            memory
                .by_itself()
                .into_iter()
                .map(|memory| (threads.clone(), memory)),
        );
        if next.is_empty() && !threads.iter().all(|thread| protocol.finished(thread)) {
            return Err(format!("nobody can go on: {threads:?}"));
        }
        for state in next {
            if !seen.contains(&state) {
                seen.insert(state.clone());
                ahead.push(state);
            }
        }
    }
    Ok(seen.len())
}

/// A hash that is quick rather than strong.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let word = part
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
