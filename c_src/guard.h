/* The fault guard: copies that survive SIGBUS, and the handler behind them. See guard.c. */
#ifndef IOMMAP_GUARD_H
#define IOMMAP_GUARD_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Called in the signal handler: nonzero if the fault at `address` was one of ours and has been resolved. */
typedef int (*iommap_resolve)(uintptr_t address);

/* What the guard needs to know, before anything else. */
void iommap_guard_prepare(iommap_resolve resolve, size_t page_size);

/* Puts our handler on top of whatever handles SIGBUS now, and keeps that to pass foreign faults on to.
 * Returns 0 or an errno. Callers serialize. */
int iommap_guard_install(void);

/* Called in the signal handler, for a fault of this thread at `address`: jumps back into a guarded copy, if there is one
 * and the address is of it; else returns. `context` is what the kernel gave the handler. */
typedef void (*iommap_leave)(uintptr_t address, void *context);
void iommap_guard_leave(uintptr_t address, void *context);

/* Lets this image's handler ask another image too. Returns 0 or an errno. Callers serialize. */
int iommap_guard_follow(iommap_leave leave, iommap_resolve resolve);

/* The record of the calling thread, by which the handler finds what it guards; NULL if there is no memory for one. */
struct iommap_thread *iommap_guard_thread(void);

/* Copies. Returns 0, or -1 if a page under either side is gone; some bytes may have been copied then. */
int iommap_guard_copy(struct iommap_thread *thread, void *to, const void *from, size_t length);

/* Copies the segments one after another to `to`. Returns as `iommap_guard_copy`. */
int iommap_guard_gather(struct iommap_thread *thread, void *to, const struct iovec *from, size_t count);

/* Reads one byte of every page of the range, so that later accesses find it in memory. Returns 0 or -1. */
int iommap_guard_fault_in_readable(struct iommap_thread *thread, const void *from, size_t length);

/* Writes one byte of every page of the range, so that later writes need not wait; no byte changes. Returns 0 or -1. */
int iommap_guard_fault_in_writeable(struct iommap_thread *thread, void *to, size_t length);

#endif
