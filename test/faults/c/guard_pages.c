/*
 * Preloaded into a VM: every mapping that iommap makes where the system likes gets a guard page (PROT_NONE) before and
 * behind it, and what iommap unmaps becomes guard pages. So an access beside a mapping is a SIGSEGV, always; without
 * this, it depends on what else the VM has mapped there.
 *
 * Mappings of anybody else, and those at a fixed address, which lie in one that is guarded, are made as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

/* Maps pages that nobody may touch; an address is taken as it is. */
static char *map_guard(void *address, size_t length)
{
    int fixed = address ? MAP_FIXED : 0;
    return map(address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
}

static int is_of_iommap(const void *code)
{
    Dl_info of;
    return dladdr(code, &of) && of.dli_fname && strstr(of.dli_fname, "iommap_nif");
}

static void *map_guarded(size_t length, int protection, int flags, int fd, off_t offset)
{
    size_t page = sysconf(_SC_PAGESIZE);
    size_t pages = (length + page - 1) & ~(page - 1);
    char *guards = map_guard(NULL, page + pages + page);
    void *mapped;

    if (guards == MAP_FAILED)
        return MAP_FAILED;
    mapped = map(guards + page, length, protection, flags | MAP_FIXED, fd, offset);
    if (mapped == MAP_FAILED) {
        int error = errno;
        syscall(SYS_munmap, guards, page + pages + page);
        errno = error;
    }
    return mapped;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && length && is_of_iommap(__builtin_return_address(0)))
        return map_guarded(length, protection, flags, fd, offset);
    return map(address, length, protection, flags, fd, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int munmap(void *address, size_t length)
{
    if (is_of_iommap(__builtin_return_address(0)))
        return map_guard(address, length) == MAP_FAILED ? -1 : 0;
    return syscall(SYS_munmap, address, length);
}
