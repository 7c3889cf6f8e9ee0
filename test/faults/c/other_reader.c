/*
 * Another NIF library that reads binaries: on the scheduler, on both kinds of dirty
 * scheduler, and on a thread of its own with an alternate signal stack of any size.
 * It knows nothing of iommap. See other_reader.erl.
 */
#define _GNU_SOURCE
#include <erl_nif.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void copy_bytes(unsigned char *to, const unsigned char *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        to[i] = ((const volatile unsigned char *)from)[i];
}

/* copy(Binary): what this thread reads in it, byte by byte. */
static ERL_NIF_TERM copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    ErlNifBinary from;
    ERL_NIF_TERM result;

    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &from))
        return enif_make_badarg(env);
    copy_bytes(enif_make_new_binary(env, from.size, &result), from.data, from.size);
    return result;
}

struct task {
    const unsigned char *from;
    unsigned char *to;
    size_t length;
    size_t stack_size;
    int error;
};

/* The alternate stack ends at a page that may not be touched: a handler that needs more dies. */
static void *copy_in_thread(void *argument)
{
    struct task *task = argument;
    size_t page = sysconf(_SC_PAGESIZE);
    size_t reserved = (task->stack_size + page - 1) / page * page + page;
    char *area = NULL;
    stack_t stack = {.ss_flags = SS_DISABLE};

    if (task->stack_size) {
        area = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(area, page, PROT_NONE);
        stack.ss_flags = 0;
        stack.ss_sp = area + page;
        stack.ss_size = task->stack_size;
    }
    task->error = sigaltstack(&stack, NULL);
    if (!task->error)
        copy_bytes(task->to, task->from, task->length);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    if (area)
        munmap(area, reserved);
    return NULL;
}

/* copy_in_thread(Binary, StackSize): 0 for a thread without an alternate stack. */
static ERL_NIF_TERM copy_in_thread_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    ErlNifBinary from;
    ERL_NIF_TERM result;
    unsigned long stack_size;
    struct task task;
    pthread_t thread;

    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &from) || !enif_get_ulong(env, argv[1], &stack_size))
        return enif_make_badarg(env);
    task = (struct task){.from = from.data, .length = from.size, .stack_size = stack_size};
    task.to = enif_make_new_binary(env, from.size, &result);
    if (pthread_create(&thread, NULL, copy_in_thread, &task) != 0)
        return enif_make_badarg(env);
    pthread_join(thread, NULL);
    return task.error ? enif_make_badarg(env) : result;
}

/* smallest_stack(): the least that the kernel needs to deliver a signal here. */
static ERL_NIF_TERM smallest_stack(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc, (void)argv;
    return enif_make_long(env, sysconf(_SC_MINSIGSTKSZ));
}

/* scribble(Binary): what no NIF may do: writes into it. */
static ERL_NIF_TERM scribble(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    ErlNifBinary binary;

    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &binary) || binary.size == 0)
        return enif_make_badarg(env);
    *(volatile unsigned char *)binary.data = 'X';
    return enif_make_atom(env, "written");
}

/* The name to look for in a core. */
__attribute__((noinline)) static int touch_nobodys_page(const volatile char *page)
{
    return *page;
}

/* touch_nobodys(): reads a page that has lost its file and that nobody guards. */
static ERL_NIF_TERM touch_nobodys(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    size_t page = sysconf(_SC_PAGESIZE);
    int fd = memfd_create("nobodys", MFD_CLOEXEC);
    char *map = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);

    (void)argc, (void)argv;
    close(fd);
    if (map == MAP_FAILED)
        return enif_make_badarg(env);
    return enif_make_int(env, touch_nobodys_page(map));
}

static ErlNifFunc functions[] = {
    {"copy", 1, copy, 0},
    {"copy_dirty_cpu", 1, copy, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"copy_dirty_io", 1, copy, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"copy_in_thread", 2, copy_in_thread_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"smallest_stack", 0, smallest_stack, 0},
    {"scribble", 1, scribble, 0},
    {"touch_nobodys", 0, touch_nobodys, 0},
    {"touch_nobodys_dirty", 0, touch_nobodys, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

ERL_NIF_INIT(other_reader, functions, NULL, NULL, NULL, NULL)
