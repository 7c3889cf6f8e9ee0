/* The floor: what a call costs when nothing is checked, locked or guarded.
 *
 * Every function answers in the form of the one it is compared with ({ok, Bin}, ok), so that a ratio to the
 * floor is the price of the library's promises and of nothing else. It dies with the VM if the file is truncated. */

#define _GNU_SOURCE
#include <erl_nif.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    unsigned char *bytes;
    size_t size;
    size_t reserved; /* address space, all of it */
    int descriptor;  /* of a file that grows, or -1 */
} Mapping;

static ErlNifResourceType *mapping_type;
static ERL_NIF_TERM atom_ok;

static Mapping *mapping_of(ErlNifEnv *env, ERL_NIF_TERM term) {
    void *mapping = NULL;
    enif_get_resource(env, term, mapping_type, &mapping);
    return mapping;
}

static ERL_NIF_TERM nothing(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    return atom_ok;
}

static ERL_NIF_TERM read_copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ErlNifUInt64 offset, length;
    ERL_NIF_TERM result;
    enif_get_uint64(env, argv[1], &offset);
    enif_get_uint64(env, argv[2], &length);
    memcpy(enif_make_new_binary(env, length, &result), mapping->bytes + offset, length);
    return enif_make_tuple2(env, atom_ok, result);
}

/* The ranges of a list, as a list. */
static ERL_NIF_TERM read_copies(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ERL_NIF_TERM range, list = argv[1], results[1024];
    const ERL_NIF_TERM *pair;
    ErlNifUInt64 offset, length;
    int arity;
    unsigned count = 0;
    for (; count < 1024 && enif_get_list_cell(env, list, &range, &list); count++) {
        enif_get_tuple(env, range, &arity, &pair);
        enif_get_uint64(env, pair[0], &offset);
        enif_get_uint64(env, pair[1], &length);
        memcpy(enif_make_new_binary(env, length, &results[count]), mapping->bytes + offset, length);
    }
    return enif_make_tuple2(env, atom_ok, enif_make_list_from_array(env, results, count));
}

static ERL_NIF_TERM write_copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ErlNifUInt64 offset;
    ErlNifBinary data;
    enif_get_uint64(env, argv[1], &offset);
    enif_inspect_iolist_as_binary(env, argv[2], &data);
    memcpy(mapping->bytes + offset, data.data, data.size);
    return atom_ok;
}

/* Iodata as a NIF can take it without flattening it first: a list of binaries, or a binary. */
static ERL_NIF_TERM write_segments(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ErlNifUInt64 offset;
    ErlNifBinary data;
    ERL_NIF_TERM segment, list = argv[2];
    enif_get_uint64(env, argv[1], &offset);
    if (enif_inspect_binary(env, list, &data)) memcpy(mapping->bytes + offset, data.data, data.size);
    for (; enif_get_list_cell(env, list, &segment, &list); offset += data.size) {
        enif_inspect_binary(env, segment, &data);
        memcpy(mapping->bytes + offset, data.data, data.size);
    }
    return atom_ok;
}

static ERL_NIF_TERM view(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ErlNifUInt64 offset, length;
    enif_get_uint64(env, argv[1], &offset);
    enif_get_uint64(env, argv[2], &length);
    return enif_make_tuple2(
        env, atom_ok, enif_make_resource_binary(env, mapping, mapping->bytes + offset, length));
}

/* Keeps the scheduler for a time, as no NIF should. */
static ERL_NIF_TERM occupy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifTime start = enif_monotonic_time(ERL_NIF_MSEC);
    ErlNifUInt64 milliseconds = 0;
    enif_get_uint64(env, argv[0], &milliseconds);
    while (enif_monotonic_time(ERL_NIF_MSEC) - start <= (ErlNifTime)milliseconds)
        ;
    return atom_ok;
}

/* For how many nanoseconds this thread was ready to run and had no core, as the system counts it; 0 where it does not. */
static ErlNifUInt64 queued(void) {
    static __thread int descriptor;
    char text[64] = {0};
    unsigned long long run, wait = 0;
    if (!descriptor) descriptor = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (pread(descriptor, text, sizeof text - 1, 0) > 0) sscanf(text, "%llu %llu", &run, &wait);
    return wait;
}

/* {Time, Queued}: both of one moment, so the thread had its core from the one reading to the other. */
static ERL_NIF_TERM moment(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifUInt64 wait = queued(), before;
    ErlNifTime time;
    do {
        before = wait;
        time = enif_monotonic_time(ERL_NIF_NSEC);
        wait = queued();
    } while (wait != before);
    return enif_make_tuple2(env, enif_make_int64(env, time), enif_make_uint64(env, wait));
}

static ERL_NIF_TERM open_shared(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    char path[4096] = {0};
    char option[16] = {0};
    ErlNifBinary name;
    struct stat status;
    if (!enif_inspect_iolist_as_binary(env, argv[0], &name) || name.size >= sizeof path ||
        !enif_get_atom(env, argv[1], option, sizeof option, ERL_NIF_LATIN1))
        return enif_make_badarg(env);
    memcpy(path, name.data, name.size);
    int writable = !strcmp(option, "write"), populate = !strcmp(option, "populate");
    int descriptor = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &status) < 0) return enif_make_badarg(env);
    void *bytes = mmap(NULL, status.st_size, PROT_READ | (writable ? PROT_WRITE : 0),
                       MAP_SHARED | (populate ? MAP_POPULATE : 0), descriptor, 0);
    close(descriptor);
    if (bytes == MAP_FAILED) return enif_make_badarg(env);
    Mapping *mapping = enif_alloc_resource(mapping_type, sizeof *mapping);
    *mapping = (Mapping){bytes, status.st_size, status.st_size, -1};
    ERL_NIF_TERM handle = enif_make_resource(env, mapping);
    enif_release_resource(mapping);
    return enif_make_tuple2(env, atom_ok, handle);
}

/* Maps a file with as much address space behind it, to grow into. */
static ERL_NIF_TERM open_to_grow(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifBinary name;
    struct stat status;
    char path[4096] = {0};
    if (!enif_inspect_iolist_as_binary(env, argv[0], &name) || name.size >= sizeof path) return enif_make_badarg(env);
    memcpy(path, name.data, name.size);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &status) < 0) return enif_make_badarg(env);
    size_t size = status.st_size;
    void *bytes = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED ||
        mmap(bytes, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED)
        return enif_make_badarg(env);
    Mapping *mapping = enif_alloc_resource(mapping_type, sizeof *mapping);
    *mapping = (Mapping){bytes, size, 2 * size, descriptor};
    ERL_NIF_TERM handle = enif_make_resource(env, mapping);
    enif_release_resource(mapping);
    return enif_make_tuple2(env, atom_ok, handle);
}

/* Grows the file and the mapping by so many bytes, pages that lie in the address space kept. */
static ERL_NIF_TERM grow(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    ErlNifUInt64 by;
    enif_get_uint64(env, argv[1], &by);
    size_t size = mapping->size;
    if (fallocate(mapping->descriptor, 0, size, by) < 0 ||
        mmap(mapping->bytes + size, by, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mapping->descriptor, size) ==
            MAP_FAILED)
        return enif_make_badarg(env);
    mapping->size += by;
    return atom_ok;
}

static void unmap(ErlNifEnv *env, void *object) {
    Mapping *mapping = object;
    if (mapping->bytes) munmap(mapping->bytes, mapping->reserved);
    if (mapping->descriptor >= 0) close(mapping->descriptor);
}

/* Unmaps at once: nobody may use the mapping any more, and nobody may have a view of it. */
static ERL_NIF_TERM close_now(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    Mapping *mapping = mapping_of(env, argv[0]);
    unmap(env, mapping);
    *mapping = (Mapping){NULL, 0, 0, -1};
    return atom_ok;
}

static int load(ErlNifEnv *env, void **state, ERL_NIF_TERM info) {
    atom_ok = enif_make_atom(env, "ok");
    mapping_type = enif_open_resource_type(env, NULL, "floor", unmap, ERL_NIF_RT_CREATE, NULL);
    return mapping_type == NULL;
}

static ErlNifFunc functions[] = {
    {"nothing", 3, nothing, 0},
    {"occupy", 1, occupy, 0},
    {"moment", 0, moment, 0},
    {"open", 2, open_shared, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"open_to_grow", 1, open_to_grow, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"close", 1, close_now, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"grow", 2, grow, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"pread", 3, read_copy, 0},
    {"pread", 2, read_copies, 0},
    {"pwrite", 3, write_copy, 0},
    {"pwrite_segments", 3, write_segments, 0},
    {"pwrite_dirty", 3, write_copy, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"region_binary", 3, view, 0},
};

ERL_NIF_INIT(floor, functions, load, NULL, NULL, NULL)
