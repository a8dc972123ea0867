/* Preloaded into a controller: its syncs fail, or take their time, while a file says so.
 * In $HIVE_LEVERS: "sync-fails" makes each sync fail with EIO; "sync-takes-ms" holds the time that
 * each takes longer. One byte is added to "sync-failed" or "sync-slowed" for each that did. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int lever(const char *name, int flags) {
    const char *directory = getenv("HIVE_LEVERS");
    char path[4096];
    if (!directory) return -1;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return open(path, flags | O_CLOEXEC, 0600);
}

static void count(const char *name) {
    int fd = lever(name, O_WRONLY | O_CREAT | O_APPEND);
    if (fd < 0) return;
    if (write(fd, "x", 1) < 0) { /* the count is only a proof */ }
    close(fd);
}

/* 0: go on; -1: fail. */
static int before_sync(void) {
    int fd = lever("sync-fails", O_RDONLY);
    if (fd >= 0) {
        close(fd);
        count("sync-failed");
        errno = EIO;
        return -1;
    }
    fd = lever("sync-takes-ms", O_RDONLY);
    if (fd >= 0) {
        char text[16] = {0};
        ssize_t length = read(fd, text, sizeof text - 1);
        close(fd);
        long ms = length > 0 ? atol(text) : 0;
        struct timespec time = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&time, NULL);
        count("sync-slowed");
    }
    return 0;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return before_sync() ? -1 : real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return before_sync() ? -1 : real(fd);
}
