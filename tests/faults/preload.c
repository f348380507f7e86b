/* Stands between one process and libc (LD_PRELOAD): its wall clock, and a disk that is slow, stuck or full.

   What is wrong now is read from a file that the tests map too (preload.py: `Control`, the same fields), so a change
   holds at once. Without that file nothing is changed. Monotonic clocks, standard output and sockets are never touched.

   Its own and not libfaketime: 0.9.10, with the monotonic clock left alone, makes Python 3.11's time.sleep fail
   (EINVAL from clock_nanosleep with an absolute time), and without that the monotonic clock jumps along. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t offset_ns;     /* the wall clock is ahead by that */
    volatile int64_t drift_ppm;     /* ... and gains so much */
    volatile int64_t anchor_ns;     /* ... since then, on the real wall clock */
    volatile int64_t sync_delay_us; /* each fsync takes that much longer */
    volatile int64_t is_stuck;      /* fsync does not return */
    volatile int64_t is_full;       /* nothing can be written to a file, and statvfs says so */
};

#define STEP_US 2000
#define BILLION 1000000000LL

static struct control nothing;
static struct control *control = &nothing;

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("FAULT_CONTROL");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

/* --- the clock --- */

static void shift(struct timespec *now) {
    int64_t ns = (int64_t)now->tv_sec * BILLION + now->tv_nsec;
    ns += control->offset_ns + (ns - control->anchor_ns) / 1000000 * control->drift_ppm;
    now->tv_sec = ns / BILLION;
    now->tv_nsec = ns % BILLION;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) shift(now);
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (found != NULL) *found = exact.tv_sec;
    return exact.tv_sec;
}

/* --- the disk --- */

static void before_sync(void) {
    int64_t waited_us = 0;
    while (control->is_stuck || waited_us < control->sync_delay_us) {
        struct timespec step = {0, STEP_US * 1000};
        syscall(SYS_nanosleep, &step, NULL);
        waited_us += STEP_US;
    }
}

int fsync(int file) {
    before_sync();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    before_sync();
    return (int)syscall(SYS_fdatasync, file);
}

static int is_refused(int file) {
    struct stat about;
    if (!control->is_full || file <= STDERR_FILENO || fstat(file, &about) || !S_ISREG(about.st_mode)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int file, const void *data, size_t count) {
    return is_refused(file) ? -1 : syscall(SYS_write, file, data, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return is_refused(file) ? -1 : syscall(SYS_writev, file, parts, count);
}

ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) {
    return is_refused(file) ? -1 : syscall(SYS_pwrite64, file, data, count, offset);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t offset) { return pwrite64(file, data, count, offset); }

int fallocate64(int file, int mode, off64_t offset, off64_t count) {
    return is_refused(file) ? -1 : (int)syscall(SYS_fallocate, file, mode, offset, count);
}

int fallocate(int file, int mode, off_t offset, off_t count) { return fallocate64(file, mode, offset, count); }

int statvfs64(const char *restrict path, struct statvfs64 *restrict about) {
    static int (*real)(const char *, struct statvfs64 *);
    if (real == NULL) real = (int (*)(const char *, struct statvfs64 *))dlsym(RTLD_NEXT, "statvfs64");
    int failed = real(path, about);
    if (!failed && control->is_full) about->f_bavail = about->f_bfree = 0;
    return failed;
}

int statvfs(const char *restrict path, struct statvfs *restrict about) {
    return statvfs64(path, (struct statvfs64 *)about); /* the same on 64-bit systems */
}
