/* Loaded before libc (LD_PRELOAD): counts what a process does to the files below one folder, lets
 * the n-th of these calls fail, tears it, or ends the process there, and can write down each call
 * with its bytes, so that a power cut at any of them can be played afterwards.
 *
 * A file is known by /proc/self/fd, so a descriptor that was duplicated or inherited counts too.
 * What a program writes through mmap is not seen: the test of the trace compares with the files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, TEAR, NOSPACE_ONCE, NOSPACE, EIO_ALWAYS };
enum { PASS, FAIL, TORN };

static char root[PATH_MAX];
static size_t root_length;
static int mode = OFF;
static long calls, target, fired, room;
static int trace = -1;
static pthread_mutex_t guard = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* ------------------------------------------------------------------ what the test calls */

void shim_arm(const char *folder, int new_mode, long n)
{
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    calls = fired = room = 0;
    target = n;
    mode = new_mode;
}

void shim_disarm(void) { mode = OFF; }
long shim_calls(void) { return calls; }
long shim_fired(void) { return fired; }
void shim_trace(int descriptor) { trace = descriptor; }

/* ------------------------------------------------------------------ names */

static int below(const char *path)
{
    return root_length && !strncmp(path, root, root_length)
        && (path[root_length] == '/' || path[root_length] == 0);
}

static int name_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && below(path);
}

static int full_name(int folder, const char *name, char *path)
{
    char start[PATH_MAX];
    if (!name) return 0;
    if (name[0] == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else {
        if (folder == AT_FDCWD) {
            if (!getcwd(start, sizeof start)) return 0;
        } else {
            name_of(folder, start);
        }
        if (snprintf(path, PATH_MAX, "%s/%s", start, name) >= PATH_MAX) return 0;
    }
    return below(path);
}

/* ------------------------------------------------------------------ the trace */

struct record {
    char kind;
    char pad[7];
    int64_t inode, offset, length;
    int32_t path, other, data, unused;
};

static void raw_write(const void *bytes, size_t length)
{
    while (length) {
        ssize_t done = syscall(SYS_write, trace, bytes, length);
        if (done <= 0) return;
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

static void note(char kind, int64_t inode, int64_t offset, int64_t length, const char *path,
                 const char *other, const void *data, size_t size)
{
    if (trace < 0) return;
    int error = errno;
    struct record record = { .kind = kind, .inode = inode, .offset = offset, .length = length,
        .path = path ? (int32_t)strlen(path) : 0, .other = other ? (int32_t)strlen(other) : 0,
        .data = (int32_t)size };
    raw_write(&record, sizeof record);
    raw_write(path, (size_t)record.path);
    raw_write(other, (size_t)record.other);
    raw_write(data, size);
    errno = error;
}

void shim_mark(const char *text) { note('M', 0, 0, 0, NULL, NULL, text, strlen(text)); }

static int64_t inode_of(int descriptor)
{
    struct stat status;
    return fstat(descriptor, &status) ? -1 : (int64_t)status.st_ino;
}

static off_t size_of(int descriptor)
{
    struct stat status;
    return fstat(descriptor, &status) ? 0 : status.st_size;
}

static void note_content(int descriptor, const char *path, off_t offset, size_t length)
{
    if (trace < 0 || !length) return;
    char link[64], *bytes = malloc(length);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int copy = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    ssize_t got = copy < 0 ? -1 : (ssize_t)syscall(SYS_pread64, copy, bytes, length, offset);
    if (got > 0)
        note('W', inode_of(descriptor), offset, got, path, NULL, bytes, (size_t)got);
    if (copy >= 0) syscall(SYS_close, copy);
    free(bytes);
}

/* ------------------------------------------------------------------ the faults */

static __attribute__((noreturn)) void die(void)
{
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static int refuse(int error)
{
    errno = error;
    return FAIL;
}

/* `growth`: bytes that the call adds to the disk, below 0 what it gives back. */
static int decide(long growth, int gives_back)
{
    calls++;
    int here = calls == target, from_here = calls >= target;
    if (here) fired = 1;
    switch (mode) {
    case KILL:
        if (here) die();
        return PASS;
    case TEAR:
        return here ? TORN : PASS;
    case NOSPACE_ONCE:
        return here && !gives_back ? refuse(ENOSPC) : PASS;
    case NOSPACE:
        if (!from_here) return PASS;
        if (growth > room) return refuse(ENOSPC);
        room -= growth;
        return PASS;
    case EIO_ALWAYS:
        return from_here ? refuse(EIO) : PASS;
    }
    return PASS;
}

#define ENTER int active = mode != OFF; if (active) pthread_mutex_lock(&guard)
#define LEAVE if (active) pthread_mutex_unlock(&guard)

static off_t place_of(int descriptor, off_t offset)
{
    if (offset >= 0) return offset;
    if (fcntl(descriptor, F_GETFL) & O_APPEND) return size_of(descriptor);
    return lseek(descriptor, 0, SEEK_CUR);
}

static long growth_of(int descriptor, off_t offset, size_t length)
{
    long more = (long)(offset + (off_t)length - size_of(descriptor));
    return more > 0 ? more : 0;
}

/* ------------------------------------------------------------------ writes */

static ssize_t write_at(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return offset < 0 ? syscall(SYS_write, descriptor, bytes, length)
                      : syscall(SYS_pwrite64, descriptor, bytes, length, offset);
}

static ssize_t do_write(int descriptor, const void *bytes, size_t length, off_t offset)
{
    char path[PATH_MAX];
    if (mode == OFF || !name_of(descriptor, path)) return write_at(descriptor, bytes, length, offset);
    ENTER;
    off_t place = place_of(descriptor, offset);
    ssize_t done = -1;
    switch (decide(growth_of(descriptor, place, length), 0)) {
    case TORN:
        write_at(descriptor, bytes, length / 2, offset);
        die();
    case PASS:
        done = write_at(descriptor, bytes, length, offset);
        if (done > 0)
            note('W', inode_of(descriptor), place, done, path, NULL, bytes, (size_t)done);
    }
    LEAVE;
    return done;
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    return do_write(descriptor, bytes, length, -1);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return do_write(descriptor, bytes, length, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset)
{
    return do_write(descriptor, bytes, length, offset);
}

static ssize_t do_writev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    size_t length = 0;
    for (int at = 0; at < count; at++) length += parts[at].iov_len;
    char *bytes = malloc(length + 1), *end = bytes;
    for (int at = 0; at < count; at++) end = mempcpy(end, parts[at].iov_base, parts[at].iov_len);
    ssize_t done = do_write(descriptor, bytes, length, offset);
    free(bytes);
    return done;
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    return do_writev(descriptor, parts, count, -1);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    return do_writev(descriptor, parts, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset)
{
    return do_writev(descriptor, parts, count, offset);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t length)
{
    char path[PATH_MAX];
    if (mode == OFF || !name_of(out, path)) return syscall(SYS_sendfile, out, in, offset, length);
    ENTER;
    off_t place = place_of(out, -1);
    ssize_t done = -1;
    off_t left = size_of(in) - (offset ? *offset : lseek(in, 0, SEEK_CUR));
    if ((off_t)length > left) length = left > 0 ? (size_t)left : 0;
    int action = length ? decide(growth_of(out, place, length), 0) : PASS;
    if (action != FAIL) done = syscall(SYS_sendfile, out, in, offset, action == TORN ? length / 2 : length);
    if (action == TORN) die();
    if (done > 0) note_content(out, path, place, (size_t)done);
    LEAVE;
    return done;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t length)
{
    return sendfile(out, in, offset, length);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags)
{
    char path[PATH_MAX];
    if (mode != OFF && name_of(out, path)) { /* the caller then copies by write */
        errno = EXDEV;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file)
{
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    char path[PATH_MAX];
    if (mode == OFF || !name_of(fileno(file), path)) return real(bytes, size, count, file);
    ENTER;
    off_t place = ftello(file);
    size_t done = 0;
    int action = decide(growth_of(fileno(file), place, size * count), 0);
    if (action != FAIL) {
        done = real(bytes, size, action == TORN ? count / 2 : count, file);
        fflush(file);
    }
    if (action == TORN) die();
    note_content(fileno(file), path, place, done * size);
    LEAVE;
    return done;
}

/* ------------------------------------------------------------------ sizes and syncs */

static int do_sync(int descriptor, long number)
{
    char path[PATH_MAX];
    if (mode == OFF || !name_of(descriptor, path)) return (int)syscall(number, descriptor);
    ENTER;
    int done = -1, action = decide(0, 0);
    if (action != FAIL) done = (int)syscall(number, descriptor);
    if (action == TORN) die();
    if (!done) note('S', inode_of(descriptor), 0, 0, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

int fsync(int descriptor) { return do_sync(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return do_sync(descriptor, SYS_fdatasync); }

int ftruncate(int descriptor, off_t length)
{
    char path[PATH_MAX];
    if (mode == OFF || !name_of(descriptor, path)) return (int)syscall(SYS_ftruncate, descriptor, length);
    ENTER;
    long growth = (long)(length - size_of(descriptor));
    int done = -1, action = decide(growth, growth <= 0);
    if (action != FAIL) done = (int)syscall(SYS_ftruncate, descriptor, length);
    if (action == TORN) die();
    if (!done) note('T', inode_of(descriptor), 0, length, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

int ftruncate64(int descriptor, off64_t length) { return ftruncate(descriptor, length); }

static int do_allocate(int descriptor, int how, off_t offset, off_t length)
{
    char path[PATH_MAX];
    if (mode == OFF || !name_of(descriptor, path))
        return (int)syscall(SYS_fallocate, descriptor, how, offset, length);
    ENTER;
    off_t before = size_of(descriptor);
    int done = -1, action = decide(growth_of(descriptor, offset, (size_t)length), 0);
    if (action != FAIL) done = (int)syscall(SYS_fallocate, descriptor, how, offset, length);
    if (action == TORN) die();
    off_t after = size_of(descriptor);
    if (!done && after != before) note('T', inode_of(descriptor), 0, after, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

int fallocate(int d, int how, off_t offset, off_t length) { return do_allocate(d, how, offset, length); }
int fallocate64(int d, int how, off64_t offset, off64_t length) { return do_allocate(d, how, offset, length); }
int posix_fallocate(int d, off_t offset, off_t length) { return do_allocate(d, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int d, off64_t offset, off64_t length) { return do_allocate(d, 0, offset, length) ? errno : 0; }

/* ------------------------------------------------------------------ names that come and go */

static int do_open(int folder, const char *name, int flags, mode_t permissions)
{
    char path[PATH_MAX];
    struct stat status;
    if (mode == OFF || !(flags & (O_CREAT | O_TRUNC)) || !full_name(folder, name, path))
        return (int)syscall(SYS_openat, folder, name, flags, permissions);
    int new = lstat(path, &status) != 0;
    if ((new && !(flags & O_CREAT)) || (!new && !(flags & O_TRUNC)))
        return (int)syscall(SYS_openat, folder, name, flags, permissions);
    ENTER;
    long growth = new ? 1 : -(long)status.st_size;
    int done = -1, action = decide(growth, !new);
    if (action != FAIL) done = (int)syscall(SYS_openat, folder, name, flags, permissions);
    if (action == TORN) die();
    if (done >= 0 && new) note('C', inode_of(done), 0, 0, path, NULL, NULL, 0);
    if (done >= 0 && !new) note('T', inode_of(done), 0, 0, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

#define PERMISSIONS \
    mode_t permissions = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        permissions = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) { PERMISSIONS return do_open(AT_FDCWD, name, flags, permissions); }
int open64(const char *name, int flags, ...) { PERMISSIONS return do_open(AT_FDCWD, name, flags, permissions); }
int openat(int folder, const char *name, int flags, ...) { PERMISSIONS return do_open(folder, name, flags, permissions); }
int openat64(int folder, const char *name, int flags, ...) { PERMISSIONS return do_open(folder, name, flags, permissions); }
int creat(const char *name, mode_t m) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, m); }

/* fopen opens behind our back: the descriptor comes from here instead */
static FILE *do_fopen(const char *name, const char *how)
{
    REAL(FILE *, "fopen", const char *, const char *);
    char path[PATH_MAX];
    if (mode == OFF || how[0] == 'r' || !full_name(AT_FDCWD, name, path)) return real(name, how);
    int both = strchr(how, '+') != NULL;
    int flags = (both ? O_RDWR : O_WRONLY) | O_CREAT | (how[0] == 'a' ? O_APPEND : O_TRUNC);
    int descriptor = do_open(AT_FDCWD, name, flags, 0666);
    return descriptor < 0 ? NULL : fdopen(descriptor, how);
}

FILE *fopen(const char *name, const char *how) { return do_fopen(name, how); }
FILE *fopen64(const char *name, const char *how) { return do_fopen(name, how); }

static int do_rename(int from, const char *name, int to, const char *other, unsigned flags)
{
    char path[PATH_MAX], target_path[PATH_MAX];
    int inside = mode != OFF && full_name(from, name, path);
    inside = mode != OFF && (full_name(to, other, target_path) || inside);
    if (!inside) return (int)syscall(SYS_renameat2, from, name, to, other, flags);
    ENTER;
    full_name(from, name, path);
    int done = -1, action = decide(0, 0);
    if (action != FAIL) done = (int)syscall(SYS_renameat2, from, name, to, other, flags);
    if (action == TORN) die();
    if (!done) note('R', 0, 0, 0, path, target_path, NULL, 0);
    LEAVE;
    return done;
}

int rename(const char *name, const char *other) { return do_rename(AT_FDCWD, name, AT_FDCWD, other, 0); }
int renameat(int a, const char *name, int b, const char *other) { return do_rename(a, name, b, other, 0); }
int renameat2(int a, const char *name, int b, const char *other, unsigned flags) { return do_rename(a, name, b, other, flags); }

static int do_unlink(int folder, const char *name, int flags)
{
    char path[PATH_MAX];
    struct stat status;
    if (mode == OFF || !full_name(folder, name, path) || lstat(path, &status))
        return (int)syscall(SYS_unlinkat, folder, name, flags);
    ENTER;
    int done = -1, action = decide(-(long)status.st_size, 1);
    if (action != FAIL) done = (int)syscall(SYS_unlinkat, folder, name, flags);
    if (action == TORN) die();
    if (!done) note('U', (int64_t)status.st_ino, 0, 0, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

int unlink(const char *name) { return do_unlink(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return do_unlink(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int folder, const char *name, int flags) { return do_unlink(folder, name, flags); }

static int do_mkdir(int folder, const char *name, mode_t permissions)
{
    char path[PATH_MAX];
    struct stat status;
    if (mode == OFF || !full_name(folder, name, path) || !lstat(path, &status))
        return (int)syscall(SYS_mkdirat, folder, name, permissions);
    ENTER;
    int done = -1, action = decide(1, 0);
    if (action != FAIL) done = (int)syscall(SYS_mkdirat, folder, name, permissions);
    if (action == TORN) die();
    if (!done) note('D', 0, 0, 0, path, NULL, NULL, 0);
    LEAVE;
    return done;
}

int mkdir(const char *name, mode_t permissions) { return do_mkdir(AT_FDCWD, name, permissions); }
int mkdirat(int folder, const char *name, mode_t permissions) { return do_mkdir(folder, name, permissions); }
