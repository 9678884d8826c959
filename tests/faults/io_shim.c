/* The system's I/O calls on the files of one folder: counted, logged, and made to fail; for LD_PRELOAD.

   What to do stands in a file of STATE_BYTES that IO_SHIM_STATE names; every process that inherits the
   variable maps it, so that one counter numbers the calls of a command and of all its children.
   `io_shim.py` writes the file and must know this layout. The calls go to the kernel directly: what the
   C library does for itself (reads of a FILE, its own allocations) passes by uncounted. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { TEXT = 1024, KINDS = 16, STATE_BYTES = 4096 };
enum kind { OPEN, CREATE, READ, WRITE, FSYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, MMAP, CLOSE, TRUNCATE, STAT, LIST, LOCK };
enum action { NONE, FAIL, SHORT, KILL, TEAR, STOP };

struct state {
    uint64_t calls;     /* on watched paths, of the kinds in `mask` */
    int64_t nth;        /* the call that meets `action`, from 0 */
    int32_t action, error;
    uint32_t mask;      /* a bit for each kind */
    int32_t sticky;     /* the calls after it meet it as well */
    int64_t fired;      /* calls that met it */
    int32_t fired_kind, armed;
    char folder[TEXT], fired_path[TEXT], log_path[TEXT - 48];
    uint64_t per_kind[KINDS];
};
_Static_assert(sizeof(struct state) <= STATE_BYTES, "io_shim.py maps STATE_BYTES");

struct record {         /* of the log: this, then path, other path and data */
    uint32_t kind, path_bytes, other_bytes, data_bytes;
    uint64_t inode;
    int64_t offset, result;
};

static struct state *state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("IO_SHIM_STATE");
    if (!path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *at = (void *)syscall(SYS_mmap, 0, STATE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at != MAP_FAILED) state = at;
}

/* Whether a path is the folder or lies below it. */
static int watched(const char *path) {
    size_t length = strlen(state->folder);
    return !strncmp(path, state->folder, length) && (path[length] == '/' || !path[length]);
}

static int fd_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && path[0] == '/';
}

static int watched_fd(int fd, char *path) {
    return state && state->armed && fd >= 0 && fd_path(fd, path) && watched(path);
}

static int watched_at(int folder, const char *name, char *path) {
    path[0] = 0;
    if (!state || !state->armed || !name) return 0;
    if (name[0] != '/') {
        if (folder == AT_FDCWD ? syscall(SYS_getcwd, path, PATH_MAX - 1) < 0 : !fd_path(folder, path)) return 0;
        strncat(path, "/", PATH_MAX - strlen(path) - 1);
    }
    strncat(path, name, PATH_MAX - strlen(path) - 1);
    return watched(path);
}

/* Count a call; the result is what it must meet. KILL and STOP have been met when this returns. */
static enum action strike(enum kind kind, const char *path) {
    if (!(state->mask >> kind & 1)) return NONE;
    int64_t number = __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&state->per_kind[kind], 1, __ATOMIC_SEQ_CST);
    if (state->nth < 0 || number < state->nth || (number > state->nth && !state->sticky)) return NONE;
    if (!__atomic_fetch_add(&state->fired, 1, __ATOMIC_SEQ_CST)) {
        state->fired_kind = kind;
        strncpy(state->fired_path, path, TEXT - 1);
    }
    if (state->action == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    if (state->action == STOP) syscall(SYS_kill, getpid(), SIGSTOP);
    if (state->action == FAIL) errno = state->error;
    return state->action;
}

static void log_call(enum kind kind, const char *path, const char *other, uint64_t inode, int64_t offset, int64_t result,
                     const void *data, size_t bytes) {
    if (!state->log_path[0] || !(state->mask >> kind & 1)) return;
    int kept = errno, fd = syscall(SYS_openat, AT_FDCWD, state->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct record record = {kind, strlen(path), other ? strlen(other) : 0, bytes, inode, offset, result};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path_bytes}, {(void *)other, record.other_bytes},
                            {(void *)data, bytes}};
    syscall(SYS_writev, fd, parts, 4);
    syscall(SYS_close, fd);
    errno = kept;
}

static uint64_t inode_of(int fd) {
    struct stat about;
    return fd >= 0 && !fstat(fd, &about) ? about.st_ino : 0;
}

/* Opening. ------------------------------------------------------------------------------------------- */

static int open_at(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!watched_at(folder, name, path)) return syscall(SYS_openat, folder, name, flags, mode);
    enum kind kind = flags & O_CREAT || flags & O_TRUNC ? CREATE : OPEN;
    if (strike(kind, path) == FAIL) return -1;
    int fd = syscall(SYS_openat, folder, name, flags, mode);
    log_call(kind, path, NULL, inode_of(fd), flags & O_TRUNC ? 0 : -1, fd, NULL, 0);
    return fd;
}

#define MODE(last) ({ va_list rest; va_start(rest, last); mode_t m = last & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); m; })
int open(const char *name, int flags, ...) { return open_at(AT_FDCWD, name, flags, MODE(flags)); }
int open64(const char *name, int flags, ...) { return open_at(AT_FDCWD, name, flags, MODE(flags)); }
int openat(int folder, const char *name, int flags, ...) { return open_at(folder, name, flags, MODE(flags)); }
int openat64(int folder, const char *name, int flags, ...) { return open_at(folder, name, flags, MODE(flags)); }
int __open_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __openat_2(int folder, const char *name, int flags) { return open_at(folder, name, flags, 0); }
int __openat64_2(int folder, const char *name, int flags) { return open_at(folder, name, flags, 0); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static FILE *stream(const char *name, const char *mode) {
    char path[PATH_MAX];
    if (watched_at(AT_FDCWD, name, path) && strike(mode[0] == 'r' ? OPEN : CREATE, path) == FAIL) return NULL;
    return REAL(fopen64)(name, mode);
}
FILE *fopen(const char *name, const char *mode) { return stream(name, mode); }
FILE *fopen64(const char *name, const char *mode) { return stream(name, mode); }

DIR *opendir(const char *name) {
    char path[PATH_MAX];
    if (watched_at(AT_FDCWD, name, path) && strike(LIST, path) == FAIL) return NULL;
    return REAL(opendir)(name);
}
DIR *fdopendir(int fd) {
    char path[PATH_MAX];
    if (watched_fd(fd, path) && strike(LIST, path) == FAIL) return NULL;
    return REAL(fdopendir)(fd);
}

int close(int fd) {
    char path[PATH_MAX];
    int failed = watched_fd(fd, path) && strike(CLOSE, path) == FAIL, error = errno;
    int result = syscall(SYS_close, fd); /* a close that fails has closed all the same */
    if (!failed) return result;
    errno = error;
    return -1;
}

/* Reading and writing. ------------------------------------------------------------------------------- */

static size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

static ssize_t read_some(int fd, void *data, size_t bytes, off_t offset) {
    char path[PATH_MAX];
    if (watched_fd(fd, path)) {
        enum action met = strike(READ, path);
        if (met == FAIL) return -1;
        if (met == SHORT) bytes = half(bytes);
    }
    return offset < 0 ? syscall(SYS_read, fd, data, bytes) : syscall(SYS_pread64, fd, data, bytes, offset);
}

ssize_t read(int fd, void *data, size_t bytes) { return read_some(fd, data, bytes, -1); }
ssize_t pread(int fd, void *data, size_t bytes, off_t offset) { return read_some(fd, data, bytes, offset); }
ssize_t pread64(int fd, void *data, size_t bytes, off_t offset) { return read_some(fd, data, bytes, offset); }
ssize_t __read_chk(int fd, void *data, size_t bytes, size_t room) { (void)room; return read_some(fd, data, bytes, -1); }
ssize_t __pread_chk(int fd, void *data, size_t bytes, off_t offset, size_t room) { (void)room; return read_some(fd, data, bytes, offset); }
ssize_t __pread64_chk(int fd, void *data, size_t bytes, off_t offset, size_t room) { (void)room; return read_some(fd, data, bytes, offset); }
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset) {
    return count == 1 ? read_some(fd, parts->iov_base, parts->iov_len, offset) : syscall(SYS_preadv, fd, parts, count, offset, 0);
}
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset) { return preadv(fd, parts, count, offset); }
ssize_t readv(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (watched_fd(fd, path)) {
        enum action met = strike(READ, path);
        if (met == FAIL) return -1;
        if (met == SHORT) return syscall(SYS_read, fd, parts->iov_base, half(parts->iov_len));
    }
    return syscall(SYS_readv, fd, parts, count);
}

static ssize_t write_some(int fd, const void *data, size_t bytes, off_t offset) {
    char path[PATH_MAX];
    if (!watched_fd(fd, path))
        return offset < 0 ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, offset);
    enum action met = strike(WRITE, path);
    if (met == FAIL) return -1;
    if (met == SHORT || met == TEAR) bytes = half(bytes);
    int64_t at = offset;
    if (offset < 0 && (at = lseek(fd, 0, SEEK_CUR), fcntl(fd, F_GETFL) & O_APPEND)) {
        struct stat about;
        at = fstat(fd, &about) ? -1 : about.st_size;
    }
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, offset);
    log_call(WRITE, path, NULL, inode_of(fd), at, done, data, done > 0 ? done : 0);
    if (met == TEAR) syscall(SYS_kill, getpid(), SIGKILL);
    return done;
}

ssize_t write(int fd, const void *data, size_t bytes) { return write_some(fd, data, bytes, -1); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return write_some(fd, data, bytes, offset); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return write_some(fd, data, bytes, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { /* one part at a time: a short write is legal */
    char path[PATH_MAX];
    if (!watched_fd(fd, path)) return syscall(SYS_writev, fd, parts, count);
    while (count > 1 && !parts->iov_len) parts++, count--;
    return count ? write_some(fd, parts->iov_base, parts->iov_len, -1) : 0;
}
static ssize_t copy_some(int to, int from, size_t *bytes) { /* -1: failed; else go on with so many bytes */
    char path[PATH_MAX];
    enum action met = watched_fd(to, path) ? strike(WRITE, path) : watched_fd(from, path) ? strike(READ, path) : NONE;
    if (met == SHORT || met == TEAR) *bytes = half(*bytes);
    return met == FAIL ? -1 : 0;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t bytes) {
    return copy_some(to, from, &bytes) ? -1 : syscall(SYS_sendfile, to, from, offset, bytes);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t bytes) { return sendfile(to, from, offset, bytes); }
ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t bytes, unsigned flags) {
    return copy_some(to, from, &bytes) ? -1 : syscall(SYS_copy_file_range, from, in, to, out, bytes, flags);
}

#define ON_FD(kind, call, logged) \
    char path[PATH_MAX]; \
    if (!watched_fd(fd, path)) return call; \
    if (strike(kind, path) == FAIL) return -1; \
    int result = call; \
    log_call(kind, path, NULL, inode_of(fd), logged, result, NULL, 0); \
    return result;

int fsync(int fd) { ON_FD(FSYNC, syscall(SYS_fsync, fd), 0) }
int fdatasync(int fd) { ON_FD(FSYNC, syscall(SYS_fdatasync, fd), 0) }
int ftruncate(int fd, off_t bytes) { ON_FD(TRUNCATE, syscall(SYS_ftruncate, fd, bytes), bytes) }
int ftruncate64(int fd, off64_t bytes) { return ftruncate(fd, bytes); }
int fallocate(int fd, int mode, off_t offset, off_t bytes) { ON_FD(TRUNCATE, syscall(SYS_fallocate, fd, mode, offset, bytes), -1) }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return fallocate(fd, 0, offset, bytes) ? errno : 0; }
int flock(int fd, int operation) { ON_FD(LOCK, syscall(SYS_flock, fd, operation), 0) }

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    char path[PATH_MAX];
    if (!(flags & MAP_ANONYMOUS) && watched_fd(fd, path) && strike(MMAP, path) == FAIL) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return mmap(address, bytes, protection, flags, fd, offset);
}

/* Names. --------------------------------------------------------------------------------------------- */

static int name_pair(enum kind kind, int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char path[PATH_MAX], other[PATH_MAX];
    int seen = watched_at(from_folder, from, path) | watched_at(to_folder, to, other);
    if (seen && strike(kind, other) == FAIL) return -1;
    int result = kind == LINK ? syscall(SYS_linkat, from_folder, from, to_folder, to, flags)
                              : syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    struct stat about;
    if (seen) log_call(kind, path, other, fstatat(to_folder, to, &about, AT_SYMLINK_NOFOLLOW) ? 0 : about.st_ino, 0, result, NULL, 0);
    return result;
}

int rename(const char *from, const char *to) { return name_pair(RENAME, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_folder, const char *from, int to_folder, const char *to) { return name_pair(RENAME, from_folder, from, to_folder, to, 0); }
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    return name_pair(RENAME, from_folder, from, to_folder, to, flags);
}
int link(const char *from, const char *to) { return name_pair(LINK, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    return name_pair(LINK, from_folder, from, to_folder, to, flags);
}

static int name_one(enum kind kind, int folder, const char *name, int argument) {
    char path[PATH_MAX];
    int seen = watched_at(folder, name, path);
    if (seen && strike(kind, path) == FAIL) return -1;
    struct stat about = {0};
    if (seen && kind != MKDIR) fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW);
    int result = kind == MKDIR ? syscall(SYS_mkdirat, folder, name, argument) : syscall(SYS_unlinkat, folder, name, argument);
    if (seen && kind == MKDIR) fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW);
    if (seen) log_call(kind, path, NULL, about.st_ino, 0, result, NULL, 0);
    return result;
}

int unlink(const char *name) { return name_one(UNLINK, AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return name_one(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, name, flags); }
int rmdir(const char *name) { return name_one(RMDIR, AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    struct stat about;
    return !lstat(name, &about) && S_ISDIR(about.st_mode) ? rmdir(name) : unlink(name);
}
int mkdir(const char *name, mode_t mode) { return name_one(MKDIR, AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return name_one(MKDIR, folder, name, mode); }

static int about_at(int folder, const char *name, struct stat *about, int flags) {
    char path[PATH_MAX];
    if (name && *name && watched_at(folder, name, path) && strike(STAT, path) == FAIL) return -1;
    return REAL(fstatat64)(folder, name, (struct stat64 *)about, flags);
}
int stat(const char *name, struct stat *about) { return about_at(AT_FDCWD, name, about, 0); }
int stat64(const char *name, struct stat64 *about) { return about_at(AT_FDCWD, name, (struct stat *)about, 0); }
int lstat(const char *name, struct stat *about) { return about_at(AT_FDCWD, name, about, AT_SYMLINK_NOFOLLOW); }
int lstat64(const char *name, struct stat64 *about) { return about_at(AT_FDCWD, name, (struct stat *)about, AT_SYMLINK_NOFOLLOW); }
int statx(int folder, const char *restrict name, int flags, unsigned mask, struct statx *restrict about) {
    char path[PATH_MAX];
    if (*name && watched_at(folder, name, path) && strike(STAT, path) == FAIL) return -1;
    return syscall(SYS_statx, folder, name, flags, mask, about);
}
