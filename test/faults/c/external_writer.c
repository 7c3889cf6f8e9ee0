/*
 * external_writer: the other OS process that changes files while the VM has them mapped.
 *
 * Reads one command a line from its standard input, answers "ok" or "error ERRNO":
 *
 *     write PATH SIZE       make the file, SIZE bytes of the pattern
 *     truncate PATH SIZE    shrink or grow it; what is new is zero
 *     unlink PATH           take its name away
 *     repeat PATH OFFSET LENGTH BYTE   write the byte so many times; at the end this appends
 *     punch PATH OFFSET LENGTH      make a hole (FALLOC_FL_PUNCH_HOLE)
 *     collapse PATH OFFSET LENGTH   take a range out (FALLOC_FL_COLLAPSE_RANGE)
 *     hold PATH OFFSET LENGTH   keep these pages in a pipe (splice(2)), and no others
 *     reflink PATH SOURCE   share all of SOURCE's blocks (FICLONE), if PATH is not the longer one
 *     add PATH OFFSET TIMES   add 1 to the word there, atomically, in a mapping
 *     append PATH SIZE      grow it to SIZE with the pattern, whole pages at a time
 *     replace PATH SIZE     rename a new file of SIZE bytes of the pattern over it
 *     race PATH SIZE SEED   until the next line: shrink to random lengths and append again
 *     rewrite PATH SIZE SEED  until the next line: replace the bytes, in place, by other text and other terms
 *
 * The pattern is never zero, so that a zero in a reader's hands is either a hole or
 * made up; test_pattern.erl knows the same pattern. `race` shrinks to a whole page,
 * so that every byte it takes away is taken by a page fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static long page;

static unsigned char pattern(uint64_t offset)
{
    return (offset ^ offset >> 8 ^ offset >> 16) % 255 + 1;
}

/* Grows `fd` to `size`. Each write ends on a page, so no page is ever half there. */
static int append(int fd, off_t size)
{
    static unsigned char data[1 << 16];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -1;
    for (off_t at = st.st_size; at < size;) {
        size_t length = sizeof data - at % page;
        if ((off_t)length > size - at)
            length = size - at;
        for (size_t i = 0; i < length; i++)
            data[i] = pattern(at + i);
        ssize_t written = pwrite(fd, data, length, at);
        if (written < 0)
            return -1;
        at += written;
    }
    return 0;
}

static int write_new(const char *path, off_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int result = fd < 0 ? -1 : append(fd, size);
    if (fd >= 0)
        close(fd);
    return result;
}

static int replace(const char *path, off_t size)
{
    char new[5000];
    snprintf(new, sizeof new, "%s.new", path);
    return write_new(new, size) < 0 ? -1 : rename(new, path);
}

static int race(const char *path, off_t size, unsigned seed)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    while (poll(&input, 1, 0) == 0) {
        off_t pages = rand_r(&seed) % (size / page + 1);
        if (ftruncate(fd, pages * page) < 0)
            break;
        if (rand_r(&seed) % 2)
            usleep(rand_r(&seed) % 200);
        if (append(fd, size) < 0)
            break;
    }
    return close(fd);
}

static int repeat(int fd, off_t offset, off_t length, int byte)
{
    static unsigned char data[1 << 16];

    memset(data, byte, sizeof data);
    while (length > 0) {
        size_t part = length < (off_t)sizeof data ? (size_t)length : sizeof data;
        ssize_t written = pwrite(fd, data, part, offset);
        if (written < 0)
            return -1;
        offset += written;
        length -= written;
    }
    return 0;
}

static int hold(int fd, off_t offset, off_t length)
{
    static int held[2] = {-1, -1};

    if (held[0] >= 0) {
        close(held[0]);
        close(held[1]);
    }
    if (pipe2(held, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
    return splice(fd, &offset, held[1], NULL, length, SPLICE_F_NONBLOCK) < 0 ? -1 : 0;
}

static int reflink(int fd, const char *source)
{
    struct stat from_st, to_st;
    int result = -1, from = open(source, O_RDONLY | O_CLOEXEC);

    if (from < 0)
        return -1;
    if (fstat(from, &from_st) == 0 && fstat(fd, &to_st) == 0) {
        if (to_st.st_size <= from_st.st_size)
            result = ioctl(fd, FICLONE, from);
        else
            errno = EINVAL;
    }
    int error = errno;
    close(from);
    errno = error;
    return result;
}

static int add(int fd, off_t offset, long long times)
{
    char *map = mmap(NULL, offset + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        return -1;
    while (times-- > 0)
        __atomic_fetch_add((uint64_t *)(map + offset), 1, __ATOMIC_SEQ_CST);
    return munmap(map, offset + 8);
}

/* What is done to a file that is there. `found`: whether the verb is one of these. */
static int change(const char *line, bool *found)
{
    char verb[16], path[4096], source[4096] = "";
    long long offset = 0, length = 0;
    int byte = 0, result = -1;

    if (sscanf(line, "%15s %4095s %lld %lld %d", verb, path, &offset, &length, &byte) < 3)
        sscanf(line, "%15s %4095s %4095s", verb, path, source);
    bool repeats = strcmp(verb, "repeat") == 0, punches = strcmp(verb, "punch") == 0;
    bool collapses = strcmp(verb, "collapse") == 0, holds = strcmp(verb, "hold") == 0, reflinks = strcmp(verb, "reflink") == 0;
    bool adds = strcmp(verb, "add") == 0;
    *found = repeats || punches || collapses || holds || reflinks || adds;
    if (!*found)
        return -1;

    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (repeats)
        result = repeat(fd, offset, length, byte);
    else if (punches)
        result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    else if (collapses)
        result = fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, offset, length);
    else if (holds)
        result = hold(fd, offset, length);
    else if (adds)
        result = add(fd, offset, length);
    else
        result = reflink(fd, source);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* A list of as many equal elements as fit, in the external term format, from the beginning; then text. */
static void fill(unsigned char *data, size_t size, unsigned *seed)
{
    static const char *const elements[] = {"\x61\x07", "\x68\x03\x61\x01\x61\x02\x61\x03", "\x6d\0\0\0\x04" "data", "\x6a"};
    static const size_t lengths[] = {2, 8, 9, 1};
    static const char *const texts[] = {",", ",,", "a", "\u00e9", "\u20ac", "\U0001f600"};
    unsigned kind = rand_r(seed) % 4;
    size_t count = kind == 3 || size < 7 ? 0 : (size - 7) / lengths[kind], at = 0, i;

    if (count > 0) {
        memcpy(data, "\x83\x6c", 2);
        for (i = 0; i < 4; i++)
            data[2 + i] = count >> (24 - 8 * i);
        for (at = 6, i = 0; i < count; i++, at += lengths[kind])
            memcpy(data + at, elements[kind], lengths[kind]);
        data[at++] = 0x6a;
    }
    while (at < size) {
        const char *text = texts[rand_r(seed) % (sizeof texts / sizeof *texts)];
        for (; *text != 0 && at < size; text++)
            data[at++] = *text;
    }
}

static int rewrite(const char *path, off_t size, unsigned seed)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    unsigned char *data = malloc(size);

    if (fd < 0 || data == NULL)
        return -1;
    while (poll(&input, 1, 0) == 0) {
        fill(data, size, &seed);
        if (pwrite(fd, data, size, 0) != size)
            break;
    }
    free(data);
    return close(fd);
}

static int obey(const char *line)
{
    char verb[16], path[4096];
    long long size = 0;
    unsigned seed = 0;
    bool found;
    int fd, words, result = change(line, &found);

    if (found)
        return result;
    words = sscanf(line, "%15s %4095s %lld %u", verb, path, &size, &seed);
    if (words == 2 && strcmp(verb, "unlink") == 0)
        return unlink(path);
    if (words < 3) {
        errno = EINVAL;
        return -1;
    }
    if (strcmp(verb, "write") == 0)
        return write_new(path, size);
    if (strcmp(verb, "truncate") == 0)
        return truncate(path, size);
    if (strcmp(verb, "replace") == 0)
        return replace(path, size);
    if (strcmp(verb, "race") == 0)
        return race(path, size, seed);
    if (strcmp(verb, "rewrite") == 0)
        return rewrite(path, size, seed);
    if (strcmp(verb, "append") == 0) {
        if ((fd = open(path, O_WRONLY | O_CLOEXEC)) < 0)
            return -1;
        result = append(fd, size);
        close(fd);
        return result;
    }
    errno = EINVAL;
    return -1;
}

int main(void)
{
    char line[8192];

    page = sysconf(_SC_PAGESIZE);
    setvbuf(stdin, NULL, _IONBF, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (obey(line) == 0)
            puts("ok");
        else
            printf("error %d\n", errno);
    }
    return 0;
}
