/* A disk that fails or hangs on command, under a real process: LD_PRELOAD this, and write one word into the file
 * named by FAULTY_DISK:
 *
 *   fsync-eio   fsync and fdatasync fail with EIO
 *   write-eio   writes of files of the log fail with EIO
 *   hang        fsync and fdatasync do not return until the word is another
 *   (empty)     the disk is well
 *
 * Only files below the folder named by FAULTY_DISK_ROOT are touched. Everything else reaches the system unchanged.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* The word, read anew each time; by system calls, so that nothing here is caught by itself. */
static int commanded(const char *word) {
    const char *path = getenv("FAULTY_DISK");
    if (!path) return 0;
    char text[32] = {0};
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
    if (file < 0) return 0;
    ssize_t length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return length > 0 && strncmp(text, word, strlen(word)) == 0;
}

static int is_on_the_disk(int file) {
    const char *root = getenv("FAULTY_DISK_ROOT");
    char link[64], path[PATH_MAX];
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, root, strlen(root)) == 0;
}

static int sync_result(int file, int number) {
    if (is_on_the_disk(file)) {
        struct timespec pause = {0, 5 * 1000 * 1000};
        while (commanded("hang")) nanosleep(&pause, NULL);
        if (commanded("fsync-eio")) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(number, file);
}

int fsync(int file) { return sync_result(file, SYS_fsync); }
int fdatasync(int file) { return sync_result(file, SYS_fdatasync); }

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    if (commanded("write-eio") && is_on_the_disk(file)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) { return pwrite64(file, bytes, count, offset); }

ssize_t write(int file, const void *bytes, size_t count) {
    if (file > 2 && commanded("write-eio") && is_on_the_disk(file)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_write, file, bytes, count);
}
