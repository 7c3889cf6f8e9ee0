/*
 * A library that handles SIGBUS itself, as other libraries in iommap's VM may: it maps a
 * file of its own, loses it, and recovers when it touches the lost page. Built twice,
 * as foreign_handler and other_foreign_handler, so that two of them can meet. See foreign_handler.erl.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <erl_nif.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct sigaction previous;
static atomic_long calls;
static __thread sigjmp_buf back;
static __thread const char *volatile touching;

static void recover_if_mine(const void *address)
{
    if (touching && (!address || address == touching))
        siglongjmp(back, 1);
}

static void die_by_default(void)
{
    signal(SIGBUS, SIG_DFL);
}

static void chaining(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    calls++;
    recover_if_mine(info->si_addr);
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, context);
    else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)
        die_by_default();
    else
        previous.sa_handler(number);
    errno = saved_errno;
}

static void not_chaining(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    calls++;
    recover_if_mine(info->si_addr);
    die_by_default();
}

/* The old kind of handler learns no address. */
static void plain(int number)
{
    (void)number;
    calls++;
    recover_if_mine(NULL);
    die_by_default();
}

/* A crash reporter, which is to be called once: it writes a line, and leaves the end to the default action. If it is
 * called for ever, a hundred lines tell. */
static int report_fd = -1;
static void reporting(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    (void)number, (void)info, (void)context;
    if (calls++ == 100 || write(report_fd, "crashed\n", 8) != 8)
        die_by_default();
    errno = saved_errno;
}

static int is(ErlNifEnv *env, ERL_NIF_TERM term, const char *name)
{
    return enif_is_identical(term, enif_make_atom(env, name));
}

/* install(chaining | without_onstack | not_chaining | plain | ignore | default) */
static ERL_NIF_TERM install(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    struct sigaction action = {.sa_flags = SA_ONSTACK | SA_SIGINFO};

    (void)argc;
    if (is(env, argv[0], "chaining"))
        action.sa_sigaction = chaining;
    else if (is(env, argv[0], "without_onstack"))
        action = (struct sigaction){.sa_sigaction = chaining, .sa_flags = SA_SIGINFO};
    else if (is(env, argv[0], "not_chaining"))
        action.sa_sigaction = not_chaining;
    else if (is(env, argv[0], "plain"))
        action = (struct sigaction){.sa_handler = plain, .sa_flags = SA_ONSTACK};
    else if (is(env, argv[0], "ignore"))
        action = (struct sigaction){.sa_handler = SIG_IGN};
    else if (is(env, argv[0], "default"))
        action = (struct sigaction){.sa_handler = SIG_DFL};
    else
        return enif_make_badarg(env);
    sigaction(SIGBUS, &action, &previous);
    return enif_make_atom(env, "ok");
}

/* install_reporter(Path): a handler that is called once (SA_RESETHAND) and reports to the file. */
static ERL_NIF_TERM install_reporter(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    struct sigaction action = {.sa_flags = SA_ONSTACK | SA_SIGINFO | SA_RESETHAND, .sa_sigaction = reporting};
    char path[4096];

    (void)argc;
    if (enif_get_string(env, argv[0], path, sizeof path, ERL_NIF_LATIN1) <= 0)
        return enif_make_badarg(env);
    calls = 0;
    if (report_fd < 0)
        report_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    sigaction(SIGBUS, &action, &previous);
    return enif_make_atom(env, "ok");
}

/* restore(): the handler that was there at install/1, whoever came since. */
static ERL_NIF_TERM restore(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc, (void)argv;
    sigaction(SIGBUS, &previous, NULL);
    return enif_make_atom(env, "ok");
}

/* recover(): touches a page of its own that has lost its file; `recovered` by its own handler. */
static ERL_NIF_TERM recover(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    size_t page = sysconf(_SC_PAGESIZE);
    int fd = memfd_create("foreign_handler", MFD_CLOEXEC);
    const char *map = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
    volatile int recovered = 0;

    (void)argc, (void)argv;
    close(fd);
    if (sigsetjmp(back, 1)) {
        recovered = 1;
    } else {
        touching = map;
        (void)*(const volatile char *)map;
    }
    touching = NULL;
    munmap((void *)map, page);
    return enif_make_atom(env, recovered ? "recovered" : "read");
}

/* calls(): how often the handler ran. */
static ERL_NIF_TERM count(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc, (void)argv;
    return enif_make_long(env, calls);
}

/* owner(): the file of the handler that the kernel calls now, or default or ignore. */
static ERL_NIF_TERM owner(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    struct sigaction now;
    Dl_info where;

    (void)argc, (void)argv;
    sigaction(SIGBUS, NULL, &now);
    if (now.sa_handler == SIG_DFL)
        return enif_make_atom(env, "default");
    if (now.sa_handler == SIG_IGN)
        return enif_make_atom(env, "ignore");
    if (!dladdr((void *)now.sa_sigaction, &where))
        return enif_make_atom(env, "unknown");
    return enif_make_string(env, where.dli_fname, ERL_NIF_LATIN1);
}

/* is_on_stack(): whether the kernel calls that handler on the alternate stack. */
static ERL_NIF_TERM is_on_stack(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    struct sigaction now;

    (void)argc, (void)argv;
    sigaction(SIGBUS, NULL, &now);
    return enif_make_atom(env, now.sa_flags & SA_ONSTACK ? "true" : "false");
}

static ErlNifFunc functions[] = {
    {"install", 1, install, 0},
    {"install_reporter", 1, install_reporter, 0},
    {"restore", 0, restore, 0},
    {"recover", 0, recover, 0},
    {"recover_dirty", 0, recover, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"calls", 0, count, 0},
    {"owner", 0, owner, 0},
    {"is_on_stack", 0, is_on_stack, 0},
};

/* One more step, for the macro to see the module's name and not MODULE. */
#define INIT(name) ERL_NIF_INIT(name, functions, NULL, NULL, NULL, NULL)
INIT(MODULE)
