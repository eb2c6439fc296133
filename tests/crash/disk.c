/* Loaded before the C library (LD_PRELOAD) into a server that will be killed.

   RISKD_TEST_SYNCS names a file for notes on what each completed sync made durable, so that the
   rest can be thrown away as the loss of power would. One line for each, written after the sync and
   before its caller goes on:
       F <inode> <size>             a file: its bytes up to the size that it had before the sync
       D <name>=<inode> ...         a directory: the entries that it had before the sync

   RISKD_TEST_WRITE_US makes each write to a file wait so long before it begins: else what was
   answered too early would be written a moment later, and no kill would ever come between. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1 << 16 };

/* What a sync of the file would make durable now; returns the line's length. */
static int describe(int file, char *line) {
    struct stat status;
    int length = 0;
    if (fstat(file, &status) != 0) {
        return 0;
    }
    if (S_ISREG(status.st_mode)) {
        return snprintf(line, LINE_MAX_BYTES, "F %lu %ld\n", status.st_ino, status.st_size);
    }
    if (!S_ISDIR(status.st_mode)) {
        return 0;
    }
    int own = openat(file, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = own < 0 ? NULL : fdopendir(own);
    if (entries == NULL) {
        abort();
    }
    length = snprintf(line, LINE_MAX_BYTES, "D");
    for (struct dirent *each = readdir(entries); each != NULL; each = readdir(entries)) {
        length += snprintf(
            line + length, LINE_MAX_BYTES - (size_t)length, " %s=%lu", each->d_name, each->d_ino);
        if (length >= LINE_MAX_BYTES - 1) {
            abort();
        }
    }
    closedir(entries);
    line[length] = '\n';
    return length + 1;
}

static int sync_and_note(const char *name, int file) {
    static __thread char line[LINE_MAX_BYTES];
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *path = getenv("RISKD_TEST_SYNCS");
    int length = path == NULL ? 0 : describe(file, line);
    int result = real(file);
    int reason = errno;
    if (result == 0 && length > 0) {
        int notes = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        /* Appends, whatever the offset says (open(2), BUGS), and is not the write below. */
        if (notes < 0 || pwrite(notes, line, (size_t)length, 0) != length) {
            abort();
        }
        close(notes);
    }
    errno = reason;
    return result;
}

int fsync(int file) { return sync_and_note("fsync", file); }

int fdatasync(int file) { return sync_and_note("fdatasync", file); }

ssize_t write(int file, const void *start, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    const char *wait_us = getenv("RISKD_TEST_WRITE_US");
    struct stat status;
    if (real == NULL) {
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    }
    if (wait_us != NULL && fstat(file, &status) == 0 && S_ISREG(status.st_mode)) {
        usleep((useconds_t)atoi(wait_us));
    }
    return real(file, start, size);
}
