/* The handler of SIGBUS.
 *
 * A page of a mapped file can vanish (the file was truncated) or fail (the device did); the kernel then sends
 * SIGBUS to the thread that touched it. The handler asks three questions, in this order:
 *
 *   1. Is this thread inside a guarded copy, and is the address in its source or destination? Jump back into it.
 *   2. Is the address in a live mapping of ours? Then a view was read: the resolver puts zero pages there, go on.
 *   3. Otherwise it is not ours: pass it to the action that SIGBUS had before.
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
#include <stdlib.h>
#include <string.h>

/* The actions that SIGBUS had before ours, newest first. Nodes are never freed, and only `spent` changes once they are published: the
 * handler may be reading them on any thread. */
struct iommap_previous {
    struct sigaction action;
    atomic_int spent; /* an action with SA_RESETHAND was called, so that from then on it is the default */
    struct iommap_previous *older;
};

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
    struct iommap_thread *mine = iommap_guard_own_record();
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

/* Makes the action the first to pass faults on to. One that we know already means that the one that came after it
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

int iommap_guard_install(iommap_resolve resolve)
{
    struct sigaction ours, now;
    int error;

    atomic_store_explicit(&resolver, resolve, memory_order_release);
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
