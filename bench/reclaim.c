/* Makes the kernel take back the memory in which another process has a file mapped, the way it does when memory is
 * short, until there is something to read:  reclaim PID FILE
 *
 * Every 5 ms another 64 KB of the mapping, chosen at random, is reclaimed. Prints how many pages that made. */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define STEP (1ul << 16)

static unsigned long start, end;

static void find(const char *pid, const char *file) {
    char name[64], line[8192];
    snprintf(name, sizeof name, "/proc/%s/maps", pid);
    FILE *maps = fopen(name, "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, file) && sscanf(line, "%lx-%lx", &start, &end) == 2) return;
    fprintf(stderr, "reclaim: %s is not mapped by %s\n", file, pid);
    exit(1);
}

int main(int argc, char **argv) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    long reclaimed = 0;
    if (argc != 3) return 2;
    find(argv[1], argv[2]);
    int process = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
    while (poll(&input, 1, 5) == 0) {
        struct iovec part = {(void *)(start + random() % ((end - start) / STEP) * STEP), STEP};
        if (syscall(SYS_process_madvise, process, &part, 1, MADV_PAGEOUT, 0) < 0) {
            fprintf(stderr, "reclaim: process_madvise: %s\n", strerror(errno));
            return 1;
        }
        reclaimed++;
    }
    printf("%ld\n", reclaimed * (long)STEP / sysconf(_SC_PAGESIZE));
    return 0;
}
