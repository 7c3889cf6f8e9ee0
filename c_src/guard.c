/* The fault guard: copies that are left when a page under them is lost, and the record of each thread that the handler
 * (handler.c) finds them by.
 *
 * This is C because Rust cannot call sigsetjmp: a function that returns twice needs a compiler that knows.
 * The jump starts and ends in the same C function, so that no Rust frame is ever jumped over.
 */
#include "guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* One guarded copy, as the handler finds it. It lives on the stack of the copying thread. The handler reads the
 * bounds at moments the compiler does not see: signal fences keep them in place before the copy they are of. */
struct iommap_frame {
    uintptr_t to, to_end;
    uintptr_t from, from_end;
    sigjmp_buf back;
};

/* Rust's `ThreadData` relies on it. */
_Static_assert(offsetof(struct iommap_thread, fast_lock) == 3 * sizeof(void *), "the layout that Rust knows");
_Static_assert(sizeof(struct iommap_thread) == 128, "the size that Rust knows");

struct iommap_threads iommap_guard_threads;

static size_t page; /* bytes; set before anything is guarded or handled */

void iommap_guard_prepare(size_t page_size)
{
    page = page_size;
}

/* The pages of [from, end) hold the address. A wide load may be reported at any byte it covers. */
static int covers(uintptr_t from, uintptr_t end, uintptr_t address)
{
    return from < end && address >= (from & ~(page - 1)) && address < ((end + page - 1) & ~(page - 1));
}

static struct iommap_thread *owned_by(uintptr_t owner)
{
    struct iommap_threads *block = &iommap_guard_threads;
    size_t index;
    for (; block != NULL; block = atomic_load_explicit(&block->next, memory_order_acquire))
        for (index = 0; index < sizeof block->threads / sizeof *block->threads; index++)
            if (atomic_load_explicit(&block->threads[index].owner, memory_order_acquire) == owner)
                return &block->threads[index];
    return NULL;
}

/* Should a signal come between the look and the claim, and take a record too, both find the first of the two ever after. */
struct iommap_thread *iommap_guard_own_record(void)
{
    uintptr_t self = (uintptr_t)pthread_self(), nobody;
    struct iommap_thread *mine, *unowned;
    while ((mine = owned_by(self)) == NULL) {
        if ((unowned = owned_by(0)) == NULL)
            return NULL;
        nobody = 0;
        atomic_compare_exchange_strong(&unowned->owner, &nobody, self);
    }
    return mine;
}

struct iommap_thread *iommap_guard_thread(void)
{
    struct iommap_thread *mine;
    while ((mine = iommap_guard_own_record()) == NULL) {
        struct iommap_threads *last = &iommap_guard_threads, *next;
        struct iommap_threads *added = aligned_alloc(_Alignof(struct iommap_threads), sizeof *added);
        if (added == NULL)
            return NULL;
        memset(added, 0, sizeof *added);
        while ((next = atomic_load_explicit(&last->next, memory_order_acquire)) != NULL)
            last = next;
        next = NULL;
        if (!atomic_compare_exchange_strong(&last->next, &next, added))
            free(added);
    }
    return mine;
}

/* The kernel called us with SIGBUS open, but a handler that passed the signal on to us may have been called with it blocked.
 * The jump leaves the mask as it is; so it is put back to what it was before the fault. */
static void restore_mask(void *context)
{
#ifdef __OpenBSD__
    sigset_t bus;
    (void)context;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
#else
    pthread_sigmask(SIG_SETMASK, &((ucontext_t *)context)->uc_sigmask, NULL);
#endif
}

void iommap_guard_leave(uintptr_t address, void *context)
{
    struct iommap_thread *mine = owned_by((uintptr_t)pthread_self());
    struct iommap_frame *frame = mine != NULL ? mine->armed : NULL;

    if (frame != NULL
        && (covers(frame->from, frame->from_end, address) || covers(frame->to, frame->to_end, address))) {
        restore_mask(context);
        siglongjmp(frame->back, 1);
    }
}

/* A guarded stretch is `if (guarded(thread, &frame)) return -1; ...; disarm(thread);`. sigsetjmp does not save the mask:
 * with it every copy would cost a system call. It must be called in the function that does the work, hence a macro. */
#define guarded(thread, frame) \
    (sigsetjmp((frame)->back, 0) != 0 ? ((thread)->armed = NULL, 1) : arm((thread), (frame)))

static inline int arm(struct iommap_thread *thread, struct iommap_frame *frame)
{
    thread->armed = frame;
    atomic_signal_fence(memory_order_seq_cst);
    return 0;
}

/* From here on the handler sees these bounds, and the accesses that follow are within them. */
static inline void bound(struct iommap_frame *frame, const void *to, const void *from, size_t length)
{
    frame->to = (uintptr_t)to;
    frame->to_end = (uintptr_t)to + length;
    frame->from = (uintptr_t)from;
    frame->from_end = (uintptr_t)from + length;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void disarm(struct iommap_thread *thread)
{
    atomic_signal_fence(memory_order_seq_cst);
    thread->armed = NULL;
}

int iommap_guard_copy(struct iommap_thread *thread, void *to, const void *from, size_t length)
{
    struct iommap_frame frame;
    bound(&frame, to, from, length);
    if (guarded(thread, &frame))
        return -1;
    memcpy(to, from, length);
    disarm(thread);
    return 0;
}

int iommap_guard_gather(struct iommap_thread *thread, void *to, const struct iovec *from, size_t count)
{
    struct iommap_frame frame;
    char *next;
    size_t index;

    bound(&frame, to, to, 0);
    if (guarded(thread, &frame))
        return -1;
    for (index = 0, next = to; index < count; index++) {
        bound(&frame, next, from[index].iov_base, from[index].iov_len);
        memmove(next, from[index].iov_base, from[index].iov_len); /* data may be a view of the very range */
        next += from[index].iov_len;
    }
    disarm(thread);
    return 0;
}

/* One byte of every page; volatile, so that the reads happen. */
static void read_every_page(const volatile char *byte, const volatile char *end)
{
    while (byte < end) {
        (void)*byte;
        byte = (const volatile char *)(((uintptr_t)byte & ~(page - 1)) + page);
    }
}

int iommap_guard_fault_in_readable(struct iommap_thread *thread, const void *from, size_t length)
{
    struct iommap_frame frame;
    bound(&frame, from, from, length);
    if (guarded(thread, &frame))
        return -1;
    read_every_page(from, (const volatile char *)from + length);
    disarm(thread);
    return 0;
}

/* One byte of every page is replaced by itself, atomically, so that nobody's write is lost. */
static void rewrite_every_page(char *byte, const char *end)
{
    while (byte < end) {
        char value = __atomic_load_n(byte, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(byte, &value, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        byte = (char *)(((uintptr_t)byte & ~(page - 1)) + page);
    }
}

int iommap_guard_fault_in_writeable(struct iommap_thread *thread, void *to, size_t length)
{
    struct iommap_frame frame;
    bound(&frame, to, to, length);
    if (guarded(thread, &frame))
        return -1;
    rewrite_every_page(to, (const char *)to + length);
    disarm(thread);
    return 0;
}

/* C, as the copies are: the access that may fault is in the function that the jump comes back to. A compiler may make it a call or a
 * loop (aarch64); all of it is in the guarded stretch. */
#define GUARDED_OPERATION(thread, word, operation) \
    struct iommap_frame frame; \
    uint64_t found; \
    bound(&frame, (word), (word), sizeof *(word)); \
    if (guarded((thread), &frame)) \
        return (struct iommap_found){.status = -1}; \
    found = (operation); \
    disarm(thread); \
    return (struct iommap_found){.value = found}

struct iommap_found iommap_guard_load(struct iommap_thread *thread, uint64_t *word)
{
    GUARDED_OPERATION(thread, word, __atomic_load_n(word, __ATOMIC_SEQ_CST));
}

struct iommap_found iommap_guard_exchange(struct iommap_thread *thread, uint64_t *word, uint64_t value)
{
    GUARDED_OPERATION(thread, word, __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST));
}

struct iommap_found iommap_guard_add(struct iommap_thread *thread, uint64_t *word, uint64_t value)
{
    GUARDED_OPERATION(thread, word, __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST));
}

struct iommap_found iommap_guard_and(struct iommap_thread *thread, uint64_t *word, uint64_t value)
{
    GUARDED_OPERATION(thread, word, __atomic_fetch_and(word, value, __ATOMIC_SEQ_CST));
}

struct iommap_found iommap_guard_or(struct iommap_thread *thread, uint64_t *word, uint64_t value)
{
    GUARDED_OPERATION(thread, word, __atomic_fetch_or(word, value, __ATOMIC_SEQ_CST));
}

struct iommap_found iommap_guard_xor(struct iommap_thread *thread, uint64_t *word, uint64_t value)
{
    GUARDED_OPERATION(thread, word, __atomic_fetch_xor(word, value, __ATOMIC_SEQ_CST));
}

/* Gives what the word holds, whether that was expected or not. */
static inline uint64_t compare_exchange(uint64_t *word, uint64_t value, uint64_t expected)
{
    __atomic_compare_exchange_n(word, &expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}

struct iommap_found iommap_guard_compare_exchange(struct iommap_thread *thread, uint64_t *word, uint64_t value, uint64_t expected)
{
    GUARDED_OPERATION(thread, word, compare_exchange(word, value, expected));
}
