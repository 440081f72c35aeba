/* Loaded before libc: every write to the broker's database takes a while, and every fsync a longer one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void wait_for_disk(int fd, long ms) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (!strstr(path, "/broker.sqlite")) return;
    const char *seen = getenv("SLOW_DISK_SEEN");
    if (seen) close(open(seen, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

#define WRITE(name)                                                                    \
    ssize_t name(int fd, const void *from, size_t count, off64_t at) {                 \
        ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, #name); \
        wait_for_disk(fd, 10);                                                         \
        return real(fd, from, count, at);                                              \
    }
#define SYNC(name)                                   \
    int name(int fd) {                               \
        int (*real)(int) = dlsym(RTLD_NEXT, #name);  \
        wait_for_disk(fd, 100);                      \
        return real(fd);                             \
    }

WRITE(pwrite)
WRITE(pwrite64)
SYNC(fsync)
SYNC(fdatasync)
