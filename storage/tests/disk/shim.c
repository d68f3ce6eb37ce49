/*
 * A disk that fails on demand, and one whose power can be cut. Put below a program with LD_PRELOAD; it acts on
 * regular files and folders under DISK_FOLDER only, and only on what goes through the C library.
 *
 * DISK_CONTROL names a file of five little-endian u32, read at every call, so that a test can turn things while the
 * program runs: errno of writes, errno of syncs, milliseconds before each write, milliseconds before each sync (0:
 * none), and whether such a failure counts down: n > 0 lets n - 1 calls pass, fails one, and then turns itself off.
 *
 * DISK_SHADOW, if set, names an empty folder outside DISK_FOLDER for the power-cut model: a picture of what a disk
 * would hold that keeps nothing it was not told to sync. `objects/N` is what was synced of file N, `folders/N` lists
 * the names that were in folder N when it was last synced ("f 7 name", "d 3 name"); folder 0 is DISK_FOLDER, `ready`
 * is there once the picture is complete. After a SIGKILL the test makes the folder anew from it. A sync that fails
 * forgets what it should have written, as Linux does: the next sync succeeds without it.
 *
 * One mutex guards everything. Numbers are never used twice, although inode numbers are.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))
#define PLACES (1 << 16)
#define PATH_LEN 4400

struct control {
    volatile uint32_t write_errno, sync_errno, write_ms, sync_ms, countdown;
};

struct range {
    uint64_t from, to;
};

/* A file or folder under DISK_FOLDER. */
struct object {
    ino_t ino; /* 0: the place is free */
    uint64_t number;
    struct range *dirty;
    size_t dirty_len, dirty_room;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct object objects[PLACES]; /* open addressing by inode number */
static uint64_t next_number;
static const char *folder, *shadow;
static size_t folder_len;
static dev_t device;
static struct control *control;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static int is_ours(const char *path) {
    return folder && strncmp(path, folder, folder_len) == 0 && (path[folder_len] == '/' || !path[folder_len]);
}

static struct object *place(ino_t ino) {
    size_t at = (ino * 0x9e3779b97f4a7c15ull) >> 48;
    while (objects[at].ino && objects[at].ino != ino) at = (at + 1) % PLACES;
    return &objects[at];
}

/* A new object: also where an older one had the same inode number. */
static struct object *begin(ino_t ino) {
    struct object *object = place(ino);
    if (!object->ino && next_number > PLACES / 2) abort();
    object->ino = ino;
    object->number = next_number++;
    object->dirty_len = 0;
    return object;
}

/* The object behind a descriptor; null if it is none of ours. Under the mutex. */
static struct object *of(int fd, struct stat *stat) {
    if (!folder || fstat(fd, stat) || stat->st_dev != device) return NULL;
    if (!S_ISREG(stat->st_mode) && !S_ISDIR(stat->st_mode)) return NULL;
    struct object *object = place(stat->st_ino);
    return object->ino ? object : NULL;
}

static void soil(struct object *object, uint64_t from, uint64_t to) {
    if (from >= to) return;
    for (size_t i = object->dirty_len; i-- > 0;) {
        struct range *range = &object->dirty[i];
        if (from <= range->to && to >= range->from) {
            if (from < range->from) range->from = from;
            if (to > range->to) range->to = to;
            return;
        }
    }
    if (object->dirty_len == object->dirty_room) {
        object->dirty_room = object->dirty_room ? 2 * object->dirty_room : 8;
        object->dirty = realloc(object->dirty, object->dirty_room * sizeof(struct range));
        if (!object->dirty) abort();
    }
    object->dirty[object->dirty_len++] = (struct range){from, to};
}

static int shadow_file(const char *kind, uint64_t number, int flags) {
    char path[PATH_LEN];
    snprintf(path, sizeof path, "%s/%s/%llu", shadow, kind, (unsigned long long)number);
    int fd = REAL(open)(path, flags | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    return fd;
}

static void copy_range(int from_fd, int to_fd, uint64_t from, uint64_t to) {
    static char chunk[1 << 20]; /* under the mutex */
    while (from < to) {
        size_t len = to - from < sizeof chunk ? to - from : sizeof chunk;
        ssize_t got = REAL(pread)(from_fd, chunk, len, from);
        if (got <= 0) return;
        if (REAL(pwrite)(to_fd, chunk, got, from) != got) abort();
        from += got;
    }
}

/* What was written since the last sync is on the disk now. */
static void keep_file(struct object *object, int fd, const struct stat *stat) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fd may be open for writing only */
    int from_fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (from_fd < 0) abort();
    int to_fd = shadow_file("objects", object->number, O_WRONLY);
    for (size_t i = 0; i < object->dirty_len; i++) copy_range(from_fd, to_fd, object->dirty[i].from, object->dirty[i].to);
    if (REAL(ftruncate)(to_fd, stat->st_size)) abort();
    object->dirty_len = 0;
    REAL(close)(to_fd);
    REAL(close)(from_fd);
}

/* The names in a folder are on the disk now. */
static void keep_folder(const struct object *object, int fd) {
    char path[PATH_LEN], list[PATH_LEN];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    DIR *entries = opendir(path);
    if (!entries) abort();
    int list_fd = shadow_file("folders", next_number, O_WRONLY | O_TRUNC); /* a number nobody has yet */
    FILE *out = fdopen(list_fd, "w");
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct stat stat;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (fstatat(fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW)) continue;
        struct object *known = place(stat.st_ino);
        /* Made in a way that was not seen: from now on it is. */
        if (!known->ino) known = begin(stat.st_ino), soil(known, 0, stat.st_size);
        fprintf(out, "%c %llu %s\n", S_ISDIR(stat.st_mode) ? 'd' : 'f', (unsigned long long)known->number, entry->d_name);
    }
    closedir(entries);
    if (fclose(out)) abort();
    snprintf(path, sizeof path, "%s/folders/%llu", shadow, (unsigned long long)next_number++);
    snprintf(list, sizeof list, "%s/folders/%llu", shadow, (unsigned long long)object->number);
    if (REAL(rename)(path, list)) abort();
}

/* Takes the picture of what is there at the start: all of it is on the disk. */
static void walk(const char *path) {
    int fd = REAL(open)(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat)) abort();
    struct object *object = begin(stat.st_ino);
    device = stat.st_dev;
    DIR *entries = opendir(path);
    if (!entries) abort();
    for (struct dirent *entry; (entry = readdir(entries));) {
        char below[PATH_LEN];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (lstat(below, &stat)) abort();
        if (S_ISDIR(stat.st_mode)) {
            walk(below);
        } else {
            struct object *file = begin(stat.st_ino);
            int file_fd = REAL(open)(below, O_RDONLY | O_CLOEXEC);
            if (file_fd < 0) abort();
            for (off_t at = 0; shadow && (at = lseek(file_fd, at, SEEK_DATA)) >= 0;) {
                off_t hole = lseek(file_fd, at, SEEK_HOLE);
                soil(file, at, hole);
                at = hole;
            }
            if (shadow) keep_file(file, file_fd, &stat);
            REAL(close)(file_fd);
        }
    }
    closedir(entries);
    if (shadow) keep_folder(object, fd);
    REAL(close)(fd);
}

__attribute__((constructor)) static void start(void) {
    char path[PATH_LEN];
    const char *control_path = getenv("DISK_CONTROL");
    int fd = control_path ? REAL(open)(control_path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) abort();
    control = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) abort();
    shadow = getenv("DISK_SHADOW");
    const char *wanted = getenv("DISK_FOLDER");
    if (!wanted) abort();
    folder = wanted;
    folder_len = strlen(wanted);
    if (shadow) {
        snprintf(path, sizeof path, "%s/objects", shadow);
        REAL(mkdir)(path, 0700);
        snprintf(path, sizeof path, "%s/folders", shadow);
        REAL(mkdir)(path, 0700);
    }
    pthread_mutex_lock(&mutex);
    walk(folder);
    pthread_mutex_unlock(&mutex);
    if (shadow) {
        snprintf(path, sizeof path, "%s/ready", shadow);
        REAL(close)(REAL(open)(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
}

/* Waits, and says whether the call fails: its errno, or 0. */
static int trouble(uint32_t wait_ms, uint32_t wanted_errno) {
    static uint32_t seen, left;
    if (wait_ms) {
        struct timespec time = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000};
        nanosleep(&time, NULL);
    }
    if (!wanted_errno) return 0;
    uint32_t countdown = control->countdown;
    if (!countdown) return wanted_errno;
    pthread_mutex_lock(&mutex);
    /* Each new number starts counting anew. */
    if (countdown != seen) seen = left = countdown;
    int fails = left > 0 && --left == 0;
    pthread_mutex_unlock(&mutex);
    return fails ? (int)wanted_errno : 0;
}

static int is_known(int fd) {
    struct stat stat;
    pthread_mutex_lock(&mutex);
    int known = of(fd, &stat) != NULL;
    pthread_mutex_unlock(&mutex);
    return known;
}

#define FAILS_WRITE(fd, failure)                                          \
    do {                                                                  \
        if (control && is_known(fd)) {                                    \
            int error = trouble(control->write_ms, control->write_errno); \
            if (error) {                                                  \
                errno = error;                                            \
                return failure;                                           \
            }                                                             \
        }                                                                 \
    } while (0)

static void wrote(int fd, off_t from, ssize_t len) {
    struct stat stat;
    int kept = errno;
    if (len <= 0 || !shadow) return;
    pthread_mutex_lock(&mutex);
    struct object *object = of(fd, &stat);
    if (object) {
        if (from < 0) from = lseek(fd, 0, SEEK_CUR) - len;
        soil(object, from, from + len);
    }
    pthread_mutex_unlock(&mutex);
    errno = kept;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    FAILS_WRITE(fd, -1);
    ssize_t written = REAL(write)(fd, bytes, len);
    wrote(fd, -1, written);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    FAILS_WRITE(fd, -1);
    ssize_t written = REAL(writev)(fd, parts, count);
    wrote(fd, -1, written);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    FAILS_WRITE(fd, -1);
    ssize_t written = REAL(pwrite)(fd, bytes, len, at);
    wrote(fd, at, written);
    return written;
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) { return pwrite(fd, bytes, len, at); }

int ftruncate(int fd, off_t len) {
    struct stat stat;
    FAILS_WRITE(fd, -1);
    pthread_mutex_lock(&mutex);
    struct object *object = of(fd, &stat);
    int done = REAL(ftruncate)(fd, len);
    if (object && !done && len < stat.st_size) soil(object, len, stat.st_size);
    pthread_mutex_unlock(&mutex);
    return done;
}
int ftruncate64(int fd, off_t len) { return ftruncate(fd, len); }

static int sync_fd(int fd, int (*really)(int)) {
    struct stat stat;
    if (!control || !is_known(fd)) return really(fd);
    int error = trouble(control->sync_ms, control->sync_errno);
    pthread_mutex_lock(&mutex);
    struct object *object = of(fd, &stat);
    if (error) {
        if (object) object->dirty_len = 0;
        pthread_mutex_unlock(&mutex);
        errno = error;
        return -1;
    }
    if (object && shadow) {
        if (S_ISDIR(stat.st_mode)) keep_folder(object, fd);
        else keep_file(object, fd, &stat);
    }
    pthread_mutex_unlock(&mutex);
    return really(fd);
}
int fsync(int fd) { return sync_fd(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_fd(fd, REAL(fdatasync)); }

/* Copies inside the kernel would not be seen: whoever asks for one falls back to reading and writing. */
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t len, unsigned flags) {
    (void)from, (void)from_at, (void)to, (void)to_at, (void)len, (void)flags;
    errno = ENOSYS;
    return -1;
}
ssize_t copy_file_range64(int, off_t *, int, off_t *, size_t, unsigned) __attribute__((alias("copy_file_range")));
ssize_t sendfile(int to, int from, off_t *at, size_t len) {
    (void)to, (void)from, (void)at, (void)len;
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int, int, off_t *, size_t) __attribute__((alias("sendfile")));

static int opened(int fd, const char *path, int flags, int existed) {
    struct stat stat;
    int kept = errno;
    if (fd >= 0 && folder && !existed && (flags & O_CREAT) && !fstat(fd, &stat)) {
        pthread_mutex_lock(&mutex);
        if (is_ours(path)) begin(stat.st_ino);
        pthread_mutex_unlock(&mutex);
    } else if (fd >= 0 && existed && (flags & O_TRUNC) && is_ours(path)) {
        pthread_mutex_lock(&mutex);
        struct object *object = of(fd, &stat);
        if (object) object->dirty_len = 0;
        pthread_mutex_unlock(&mutex);
    }
    errno = kept;
    return fd;
}

#define MODE(flags, last)                       \
    mode_t mode = 0;                            \
    if (((flags) & O_CREAT) ||                  \
        ((flags) & O_TMPFILE) == O_TMPFILE) {   \
        va_list rest;                           \
        va_start(rest, last);                   \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

static int open_at(int at, const char *path, int flags, mode_t mode) {
    int creates = control && (flags & O_CREAT) && is_ours(path);
    if (creates && control->write_errno == ENOSPC && access(path, F_OK)) {
        errno = ENOSPC;
        return -1;
    }
    int existed = !creates || access(path, F_OK) == 0;
    return opened(REAL(openat)(at, path, flags, mode), path, flags, existed);
}
int open(const char *path, int flags, ...) {
    MODE(flags, flags);
    return open_at(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, flags);
    return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags, flags);
    return open_at(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, flags);
    return open_at(at, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    struct stat stat;
    int done = REAL(mkdir)(path, mode);
    if (!done && is_ours(path) && !lstat(path, &stat)) {
        pthread_mutex_lock(&mutex);
        begin(stat.st_ino);
        pthread_mutex_unlock(&mutex);
    }
    return done;
}
