/* The fault guard: copies that survive SIGBUS (guard.c), and the handler behind them (handler.c). */
#ifndef IOMMAP_GUARD_H
#define IOMMAP_GUARD_H

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Called in the signal handler: nonzero if the fault at `address` was one of ours and has been resolved. */
typedef int (*iommap_resolve)(uintptr_t address);

/* Tells the guard the page size, before anything else. */
void iommap_guard_prepare(size_t page_size);

/* Puts our handler on top of the one that SIGBUS has now, and keeps that to pass foreign faults on to. `resolve` is the same
 * at every call. Returns 0 or an errno. Callers serialize. */
int iommap_guard_install(iommap_resolve resolve);

/* Called in the signal handler, for a fault of this thread at `address`: jumps back into a guarded copy, if there is one
 * and the address is of it; else returns. `context` is what the kernel gave the handler. */
typedef void (*iommap_leave)(uintptr_t address, void *context);
void iommap_guard_leave(uintptr_t address, void *context);

/* Lets this image's handler ask another image too. Returns 0 or an errno. Callers serialize. */
int iommap_guard_follow(iommap_leave leave, iommap_resolve resolve);

/* The record of one thread: what the handler must know of it, and which lock it holds by the fast path. Not a thread-local
 * variable: the first use of one may allocate, those that never do (initial-exec) are of a supply that images which stay
 * loaded for ever use up, and others must find every record. The thread itself has a pointer to it.
 *
 * Rust reads it too: `ThreadData` in native/iommap_core/src/thread_data.rs is the same struct. */
struct iommap_thread {
    _Alignas(128) /* cache lines of its own */
    _Atomic uintptr_t owner; /* pthread_self() of the thread, or 0; a later thread may get the same, and the record */
    struct iommap_frame *volatile armed; /* the guarded copy that it is in */
    struct iommap_previous *passing_to; /* while it passes a signal on */
    _Atomic(void *) fast_lock; /* Rust's: the lock that it holds by the fast path, or NULL */
};

/* All records, in blocks. Records are claimed in order and never freed: those that have an owner come first. */
struct iommap_threads {
    struct iommap_thread threads[64];
    _Atomic(struct iommap_threads *) next; /* blocks are never freed either, and the handler adds none */
};

/* The first block. */
extern struct iommap_threads iommap_guard_threads;

/* The record of the calling thread; NULL if there is no memory for one. */
struct iommap_thread *iommap_guard_thread(void);

/* The same, for the handler: NULL if all records are taken. */
struct iommap_thread *iommap_guard_own_record(void);

/* Copies. Returns 0, or -1 if a page under either side is gone; some bytes may have been copied then. */
int iommap_guard_copy(struct iommap_thread *thread, void *to, const void *from, size_t length);

/* Copies the segments one after another to `to`. Returns as `iommap_guard_copy`. */
int iommap_guard_gather(struct iommap_thread *thread, void *to, const struct iovec *from, size_t count);

/* Reads one byte of every page of the range, so that later accesses find it in memory. Returns 0 or -1. */
int iommap_guard_fault_in_readable(struct iommap_thread *thread, const void *from, size_t length);

/* Writes one byte of every page of the range, so that later writes need not wait; no byte changes. Returns 0 or -1. */
int iommap_guard_fault_in_writeable(struct iommap_thread *thread, void *to, size_t length);

/* What an operation found. */
struct iommap_found {
    uint64_t value; /* that the word held before */
    int status; /* 0, or -1 if the page is gone: nothing was done then, and there is no value */
};

/* Operations on an aligned word, atomic and sequentially consistent for all processes that map it. */
struct iommap_found iommap_guard_load(struct iommap_thread *thread, uint64_t *word);
struct iommap_found iommap_guard_exchange(struct iommap_thread *thread, uint64_t *word, uint64_t value);
struct iommap_found iommap_guard_add(struct iommap_thread *thread, uint64_t *word, uint64_t value);
struct iommap_found iommap_guard_and(struct iommap_thread *thread, uint64_t *word, uint64_t value);
struct iommap_found iommap_guard_or(struct iommap_thread *thread, uint64_t *word, uint64_t value);
struct iommap_found iommap_guard_xor(struct iommap_thread *thread, uint64_t *word, uint64_t value);
struct iommap_found iommap_guard_compare_exchange(struct iommap_thread *thread, uint64_t *word, uint64_t value, uint64_t expected);

#endif
