/* The fault guard.
 *
 * A page of a mapped file can vanish (the file was truncated) or fail (the device did); the kernel then sends
 * SIGBUS to the thread that touched it. The handler asks three questions, in this order:
 *
 *   1. Is this thread inside a guarded copy, and is the address in its source or destination? Jump back into it.
 *   2. Is the address in a live mapping of ours? Then a view was read: the resolver puts zero pages there, go on.
 *   3. Otherwise it is not ours: pass it to whoever handled SIGBUS before.
 *
 * This is C because Rust cannot call sigsetjmp: a function that returns twice needs a compiler that knows.
 * The jump starts and ends in the same C function, so that no Rust frame is ever jumped over.
 *
 * Only SIGBUS is handled, because only SIGBUS comes of a lost page, both behind the end of its file and after an error of
 * its device:
 *
 *   Linux     BUS_ADRERR (mm/memory.c: VM_FAULT_SIGBUS); BUS_MCEERR_AR for broken memory
 *   macOS     KERN_MEMORY_ERROR becomes SIGBUS (xnu, bsd/uxkern/ux_exception.c); SIGSEGV is for what is not mapped
 *   FreeBSD   BUS_OBJERR (sys/vm/vm_fault.c: KERN_OUT_OF_BOUNDS), since 13; a file system that is unmounted by force, and
 *             an error of the device up to FreeBSD 12, are SIGSEGV, and end the VM
 *   OpenBSD   BUS_OBJERR (sys/uvm/uvm_fault.c: EIO)
 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What the handler must know of a guarded copy. It lives on the stack of the copying thread. The handler reads the
 * bounds at moments the compiler does not see: signal fences keep them in place before the copy they are of. */
struct iommap_frame {
    uintptr_t to, to_end;
    uintptr_t from, from_end;
    sigjmp_buf back;
};

/* Whoever had SIGBUS before us, newest first. Nodes are never freed, and only `spent` changes once they are published: the
 * handler may be reading them on any thread. */
struct iommap_previous {
    struct sigaction action;
    atomic_int spent; /* an action with SA_RESETHAND was called, so that from then on it is the default */
    struct iommap_previous *older;
};

/* Rust's `ThreadData` relies on it. */
_Static_assert(offsetof(struct iommap_thread, fast_lock) == 3 * sizeof(void *), "the layout that Rust knows");
_Static_assert(sizeof(struct iommap_thread) == 128, "the size that Rust knows");

struct iommap_threads iommap_guard_threads;

static _Atomic(struct iommap_previous *) newest;
/* Images of this library that were loaded after this one, whose handler is ours: handlers that called each other would
 * go deeper with every image, on an alternate stack that has no room for that. */
struct follower {
    iommap_leave leave;
    iommap_resolve resolve;
    const struct follower *next;
};

static _Atomic(const struct follower *) followers;
static _Atomic(iommap_resolve) resolver;
static size_t page; /* bytes; set before anything is guarded or handled */

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

/* The record of this thread, the first without an owner, which becomes it, or NULL if all are taken. Should a signal come
 * between and take one too, both find the first of the two ever after. */
static struct iommap_thread *own_record(void)
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
    while ((mine = own_record()) == NULL) {
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

#ifdef __APPLE__
/* macOS gives every SIGBUS the same code, also one that was sent: BUS_ADRALN on arm64, BUS_ADRERR on x86-64 (xnu,
 * bsd/dev/arm/unix_signal.c and bsd/dev/i386/unix_signal.c). What the processor said of its last exception stands beside it. */
static int is_access(const siginfo_t *info, const void *context)
{
    if (info == NULL || context == NULL)
        return 0;
#ifdef __aarch64__
    /* A data abort from user code, and not one of alignment. */
    uint64_t syndrome = ((const ucontext_t *)context)->uc_mcontext->__es.__esr;
    return syndrome >> 26 == 0x24 && (syndrome & 0x3f) != 0x21;
#else
    /* A page fault. */
    return ((const ucontext_t *)context)->uc_mcontext->__es.__trapno == 14;
#endif
}
#else
/* Whether the kernel says that this thread accessed si_addr. A SIGBUS that was sent has no positive code; the notice of a
 * memory failure that nobody has run into yet goes to any thread, which need not keep that memory mapped. */
static int is_access(const siginfo_t *info, const void *context)
{
    (void)context;
#ifdef BUS_MCEERR_AO
    if (info != NULL && info->si_code == BUS_MCEERR_AO)
        return 0;
#endif
#ifdef BUS_ADRALN
    /* A misaligned access is a mistake of its own: no page would resolve it, and it would come again for ever. */
    if (info != NULL && info->si_code == BUS_ADRALN)
        return 0;
#endif
    return info != NULL && info->si_code > 0;
}
#endif

/* End as the VM would have ended without us. */
static void end_by_default(const siginfo_t *info, const void *context)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    /* A fault happens again on return and makes a core of the right place; other signals do not. */
    if (!is_access(info, context))
        raise(SIGBUS);
}

static void call(const struct iommap_previous *to, int signal, siginfo_t *info, void *context)
{
    sigset_t mask = to->action.sa_mask, saved;
    if (!(to->action.sa_flags & SA_NODEFER))
        sigaddset(&mask, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &mask, &saved);
    if (to->action.sa_flags & SA_SIGINFO)
        to->action.sa_sigaction(signal, info, context);
    else
        to->action.sa_handler(signal);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

/* Whether the action is the default: by itself, or because it was to be called once and was. The kernel takes an action with
 * SA_RESETHAND away before it calls it, so of several threads that fault at once one calls it. */
static int is_default(struct iommap_previous *to)
{
    if (!(to->action.sa_flags & SA_SIGINFO)
        && (to->action.sa_handler == SIG_DFL || to->action.sa_handler == SIG_IGN))
        return to->action.sa_handler == SIG_DFL;
    return (to->action.sa_flags & SA_RESETHAND) && atomic_exchange(&to->spent, 1);
}

/* Put into si_errno, which the kernel leaves 0, while a signal is passed on: the mark goes with the signal, and a handler
 * that recovers by a jump takes it away with the signal's frame. */
#define PASSED_ON 0x1088

/* The fault is not ours. A handler installed after us may chain to us while we chain to it: when we are called with a
 * signal that we are passing on already, we go on with an older one. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
    static struct iommap_thread stray; /* for threads beyond all records: they share it, and only the loop guard suffers */
    struct iommap_thread *mine = own_record();
    struct iommap_previous *to = atomic_load_explicit(&newest, memory_order_acquire), *outer;

    if (mine == NULL)
        mine = &stray;
    outer = mine->passing_to;
    if (info != NULL && info->si_errno == PASSED_ON && outer != NULL)
        to = outer->older;
    if (to == NULL || is_default(to)) {
        end_by_default(info, context);
    } else if (!(to->action.sa_flags & SA_SIGINFO) && to->action.sa_handler == SIG_IGN) {
        /* The kernel does not let a fault be ignored. */
        if (is_access(info, context))
            end_by_default(info, context);
    } else {
        int saved = info != NULL ? info->si_errno : 0;
        if (info != NULL)
            info->si_errno = PASSED_ON;
        mine->passing_to = to;
        call(to, signal, info, context);
        mine->passing_to = outer;
        if (info != NULL)
            info->si_errno = saved;
    }
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

/* Cases 1 and 2, each of all images before the next: one image's copy may read a view of another's mapping. */
static int try_resolve(uintptr_t address, void *context)
{
    const struct follower *first = atomic_load_explicit(&followers, memory_order_acquire), *follower;
    iommap_resolve resolve = atomic_load_explicit(&resolver, memory_order_acquire);

    iommap_guard_leave(address, context);
    for (follower = first; follower != NULL; follower = follower->next)
        follower->leave(address, context);
    if (resolve != NULL && resolve(address))
        return 1;
    for (follower = first; follower != NULL; follower = follower->next)
        if (follower->resolve(address))
            return 1;
    return 0;
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    if (!is_access(info, context) || !try_resolve((uintptr_t)info->si_addr, context))
        pass_on(signal, info, context);
    errno = saved_errno;
}

static int same_action(const struct sigaction *a, const struct sigaction *b)
{
    const int promises = SA_SIGINFO | SA_NODEFER | SA_RESETHAND;
    if ((a->sa_flags & promises) != (b->sa_flags & promises))
        return 0;
    return (a->sa_flags & SA_SIGINFO) ? a->sa_sigaction == b->sa_sigaction : a->sa_handler == b->sa_handler;
}

static int is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_sigbus;
}

/* Makes the action the first to pass faults on to. One that we know already means that whoever came after it
 * has taken itself away and put it back: what lies above it is forgotten. The kernel had it, so it can be called (again). */
static int save_previous(const struct sigaction *action)
{
    struct iommap_previous *top = atomic_load_explicit(&newest, memory_order_relaxed), *known;
    for (known = top; known != NULL; known = known->older)
        if (same_action(&known->action, action))
            break;
    if (known == NULL) {
        struct iommap_previous *added = malloc(sizeof *added);
        if (added == NULL)
            return ENOMEM;
        added->action = *action;
        added->older = top;
        known = added;
    }
    atomic_store(&known->spent, 0);
    atomic_store_explicit(&newest, known, memory_order_release);
    return 0;
}

void iommap_guard_prepare(iommap_resolve resolve, size_t page_size)
{
    page = page_size;
    atomic_store_explicit(&resolver, resolve, memory_order_release);
}

int iommap_guard_follow(iommap_leave leave, iommap_resolve resolve)
{
    struct follower *added = malloc(sizeof *added);
    if (added == NULL)
        return ENOMEM;
    added->leave = leave;
    added->resolve = resolve;
    added->next = atomic_load_explicit(&followers, memory_order_relaxed);
    atomic_store_explicit(&followers, added, memory_order_release);
    return 0;
}

int iommap_guard_install(void)
{
    struct sigaction ours, now;
    int error;

    if (sigaction(SIGBUS, NULL, &now) != 0)
        return errno;
    if (is_ours(&now))
        return 0;

    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_sigbus;
    sigemptyset(&ours.sa_mask);
    /* SA_SIGINFO: the address and the code decide.
     * SA_ONSTACK: JIT code runs on the Erlang stack; without it the kernel writes the signal frame over a heap.
     * SA_NODEFER: we leave by a jump that does not restore the mask, so SIGBUS must not be in it. */
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;

    /* Somebody may install between our look and our change: what we replaced is what counts. */
    if ((error = save_previous(&now)) != 0)
        return error;
    if (sigaction(SIGBUS, &ours, &now) != 0)
        return errno;
    return is_ours(&now) ? 0 : save_previous(&now);
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
