/*
 * faultfs: a directory shown again, with trouble on request.
 *
 *     faultfs [--direct-io] DIRECTORY MOUNTPOINT [FUSE options]
 *
 * With --direct-io no file is cached, and none can be mapped to be shared.
 * Every file of DIRECTORY appears under MOUNTPOINT. One command at a time is
 * written to MOUNTPOINT/.control, and has taken effect when the write returns:
 *
 *     delay NAME MILLISECONDS    every read of the file takes this much longer
 *     eio NAME OFFSET LENGTH     reads that meet this range fail with EIO
 *     eio_write NAME OFFSET LENGTH   so do writes
 *     hang NAME                  reads, writes, resizes and syncs of the file, and questions about it, wait ...
 *     hang_close NAME            so do closes, the last ones of a process that ends among them ...
 *     release NAME               ... until this
 *     clear NAME                 no trouble any more
 *
 * A name is a path from the mount point, as in "delay /data 50". The trouble is
 * in what reaches the file system: what the page cache holds, it serves and takes.
 * It serves 64 reads of files at once. Reading .control gives "NAME reads R waiting W closing C" for every file ever named: W calls
 * that hang, and C closes, which the system may send late.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define CONTROL "/.control"
#define READS_AT_ONCE 64

struct trouble {
    struct trouble *next;
    char name[256];
    long delay_ms;
    off_t eio_start, eio_end;
    off_t eio_write_start, eio_write_end;
    bool hang, hang_close;
    long reads, waiting, closing;
};

static int root;
static bool direct_io;
static struct trouble *troubles;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;

/* Paths are below `root`; FUSE's begin with a slash. */
static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

/* ---- Trouble ---------------------------------------------------------- */

static struct trouble *find(const char *name)
{
    struct trouble *t = troubles;
    while (t && strcmp(t->name, name) != 0)
        t = t->next;
    return t;
}

static struct trouble *find_or_add(const char *name)
{
    struct trouble *t = find(name);
    if (!t && (t = calloc(1, sizeof *t))) {
        snprintf(t->name, sizeof t->name, "%s", name);
        t->next = troubles;
        troubles = t;
    }
    return t;
}

static int obey(const char *command)
{
    char verb[16], name[256];
    long long first = 0, second = 0;
    int words = sscanf(command, "%15s %255s %lld %lld", verb, name, &first, &second);
    int error = 0;
    struct trouble *t;

    if (words < 2 || name[0] != '/')
        return -EINVAL;
    pthread_mutex_lock(&lock);
    if (!(t = find_or_add(name))) {
        error = -ENOMEM;
    } else if (strcmp(verb, "delay") == 0 && words == 3) {
        t->delay_ms = first;
    } else if (strcmp(verb, "eio") == 0 && words == 4) {
        t->eio_start = first;
        t->eio_end = first + second;
    } else if (strcmp(verb, "eio_write") == 0 && words == 4) {
        t->eio_write_start = first;
        t->eio_write_end = first + second;
    } else if (strcmp(verb, "hang") == 0) {
        t->hang = true;
    } else if (strcmp(verb, "hang_close") == 0) {
        t->hang_close = true;
    } else if (strcmp(verb, "release") == 0) {
        t->hang = t->hang_close = false;
        pthread_cond_broadcast(&released);
    } else if (strcmp(verb, "clear") == 0) {
        t->delay_ms = t->eio_start = t->eio_end = t->eio_write_start = t->eio_write_end = 0;
        t->hang = t->hang_close = false;
        pthread_cond_broadcast(&released);
    } else {
        error = -EINVAL;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* Counts the caller among `waiting` meanwhile. */
static void wait_while(const bool *hanging, long *waiting)
{
    ++*waiting;
    while (*hanging)
        pthread_cond_wait(&released, &lock);
    --*waiting;
}

/* What a read of [start, end) has to suffer first. */
static int suffer_read(const char *path, off_t start, off_t end)
{
    struct trouble *t;
    long delay_ms = 0;
    int error = 0;

    pthread_mutex_lock(&lock);
    if ((t = find(path))) {
        t->reads++;
        wait_while(&t->hang, &t->waiting);
        delay_ms = t->delay_ms;
        if (start < t->eio_end && end > t->eio_start)
            error = -EIO;
    }
    pthread_mutex_unlock(&lock);
    if (delay_ms) {
        struct timespec pause = {delay_ms / 1000, delay_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return error;
}

/* What a write of [start, end) has to suffer first; what else changes the file or syncs it writes nothing. */
static int suffer_write(const char *path, off_t start, off_t end)
{
    struct trouble *t;
    int error = 0;

    pthread_mutex_lock(&lock);
    if ((t = find(path))) {
        wait_while(&t->hang, &t->waiting);
        if (start < t->eio_write_end && end > t->eio_write_start)
            error = -EIO;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* What a question about the file, or a close of it, has to suffer first. */
static void suffer_wait(const char *path, bool closes)
{
    struct trouble *t;

    pthread_mutex_lock(&lock);
    if ((t = find(path))) {
        if (closes)
            wait_while(&t->hang_close, &t->closing);
        else
            wait_while(&t->hang, &t->waiting);
    }
    pthread_mutex_unlock(&lock);
}

static int report(char *text, size_t size, off_t offset)
{
    char whole[65536];
    size_t length = 0;

    pthread_mutex_lock(&lock);
    for (struct trouble *t = troubles; t && length < sizeof whole - 512; t = t->next)
        length += snprintf(whole + length, sizeof whole - length, "%s reads %ld waiting %ld closing %ld\n",
                           t->name, t->reads, t->waiting, t->closing);
    pthread_mutex_unlock(&lock);
    if ((size_t)offset >= length)
        return 0;
    if (size > length - offset)
        size = length - offset;
    memcpy(text, whole + offset, size);
    return size;
}

/* ---- The file system -------------------------------------------------- */

static bool is_control(const char *path)
{
    return strcmp(path, CONTROL) == 0;
}

static int answer(int result)
{
    return result < 0 ? -errno : 0;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    if (is_control(path)) {
        memset(st, 0, sizeof *st);
        st->st_mode = S_IFREG | 0600;
        st->st_nlink = 1;
        return 0;
    }
    suffer_wait(path, false);
    if (fi)
        return answer(fstat(fi->fh, st));
    return answer(fstatat(root, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int fs_readdir(const char *path, void *entries, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    (void)offset, (void)fi, (void)flags;
    if (!dir)
        return -errno;
    while ((entry = readdir(dir)))
        fill(entries, entry->d_name, NULL, 0, 0);
    closedir(dir);
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
    int fd;

    if (is_control(path)) {
        fi->direct_io = 1;
        return 0;
    }
    /* Writing back a page may read the rest of it, and appending is the kernel's. */
    fd = openat(root, below(path), (fi->flags & ~(O_ACCMODE | O_APPEND)) | O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    fi->fh = fd;
    fi->direct_io = direct_io;
    return 0;
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    int fd = openat(root, below(path), O_CREAT | O_RDWR | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    fi->fh = fd;
    fi->direct_io = direct_io;
    return 0;
}

static int fs_read(const char *path, char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ssize_t length;
    int error;

    if (is_control(path))
        return report(data, size, offset);
    if ((error = suffer_read(path, offset, offset + size)) < 0)
        return error;
    length = pread(fi->fh, data, size, offset);
    return length < 0 ? -errno : length;
}

static int fs_write(const char *path, const char *data, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    ssize_t length;
    int error;

    if (is_control(path)) {
        char command[512];
        snprintf(command, sizeof command, "%.*s", (int)size, data);
        error = obey(command);
        return error ? error : (int)size;
    }
    if ((error = suffer_write(path, offset, offset + size)) < 0)
        return error;
    length = pwrite(fi->fh, data, size, offset);
    return length < 0 ? -errno : length;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    int fd, result;

    if (is_control(path))
        return 0;
    suffer_write(path, 0, 0);
    if (fi)
        return answer(ftruncate(fi->fh, size));
    if ((fd = openat(root, below(path), O_WRONLY | O_CLOEXEC)) < 0)
        return -errno;
    result = answer(ftruncate(fd, size));
    close(fd);
    return result;
}

static int fs_fallocate(const char *path, int mode, off_t offset, off_t length,
                        struct fuse_file_info *fi)
{
    suffer_write(path, 0, 0);
    return answer(fallocate(fi->fh, mode, offset, length));
}

static int fs_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    if (is_control(path))
        return 0;
    suffer_write(path, 0, 0);
    return answer(data_only ? fdatasync(fi->fh) : fsync(fi->fh));
}

static int fs_flush(const char *path, struct fuse_file_info *fi)
{
    (void)fi;
    if (!is_control(path))
        suffer_wait(path, true);
    return 0;
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
    return is_control(path) ? 0 : answer(close(fi->fh));
}

static int fs_unlink(const char *path)
{
    return answer(unlinkat(root, below(path), 0));
}

static int fs_readlink(const char *path, char *target, size_t size)
{
    ssize_t length = readlinkat(root, below(path), target, size - 1);
    if (length < 0)
        return -errno;
    target[length] = 0;
    return 0;
}

static int fs_rename(const char *from, const char *to, unsigned int flags)
{
    return answer(renameat2(root, below(from), root, below(to), flags));
}

static int fs_mkdir(const char *path, mode_t mode)
{
    return answer(mkdirat(root, below(path), mode));
}

static int fs_rmdir(const char *path)
{
    return answer(unlinkat(root, below(path), AT_REMOVEDIR));
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    (void)fi;
    return answer(fchmodat(root, below(path), mode, 0));
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
    (void)fi;
    return answer(utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int fs_statfs(const char *path, struct statvfs *st)
{
    (void)path;
    return answer(fstatvfs(root, st));
}

/* As many reads at once as a batch may ask for: the defaults are 12, and 10 threads to serve them. */
static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)config;
    connection->max_background = 2 * READS_AT_ONCE;
    connection->congestion_threshold = 2 * READS_AT_ONCE;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = fs_init,
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .create = fs_create,
    .read = fs_read,
    .write = fs_write,
    .truncate = fs_truncate,
    .fallocate = fs_fallocate,
    .fsync = fs_fsync,
    .flush = fs_flush,
    .release = fs_release,
    .unlink = fs_unlink,
    .readlink = fs_readlink,
    .rename = fs_rename,
    .mkdir = fs_mkdir,
    .rmdir = fs_rmdir,
    .chmod = fs_chmod,
    .utimens = fs_utimens,
    .statfs = fs_statfs,
};

static int serve(int argc, char **argv, const char *name)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

    fuse_opt_add_arg(&args, name);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 12) /* before, their number has no limit */
    fuse_opt_add_arg(&args, "-omax_threads=80"); /* READS_AT_ONCE, and what else is asked meanwhile */
#endif
    while (argc-- > 0)
        fuse_opt_add_arg(&args, *argv++);
    return fuse_main(args.argc, args.argv, &operations, NULL);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--direct-io") == 0) {
        direct_io = true;
        argv[1] = argv[0];
        argv++, argc--;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: %s [--direct-io] DIRECTORY MOUNTPOINT [FUSE options]\n", argv[0]);
        return 2;
    }
    if ((root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        perror(argv[1]);
        return 1;
    }
    umask(0);
    return serve(argc - 2, argv + 2, argv[0]);
}
