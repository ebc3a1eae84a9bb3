/* A library that stands before the C library's functions for memory. In each it takes a lock, uses
   thread-local memory, and allocates. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local char own[64];
static _Thread_local int depth;

static void note(void) {
    if (depth++ == 0) {
        pthread_mutex_lock(&lock);
        char *block = malloc(3000);
        if (block)
            memcpy(block, own, sizeof own);
        free(block);
        pthread_mutex_unlock(&lock);
    }
    depth--;
}

int madvise(void *address, size_t length, int advice) {
    note();
    return (int)syscall(SYS_madvise, address, length, advice);
}

int munmap(void *address, size_t length) {
    note();
    return (int)syscall(SYS_munmap, address, length);
}

int mprotect(void *address, size_t length, int access) {
    note();
    return (int)syscall(SYS_mprotect, address, length, access);
}

void *mremap(void *address, size_t old, size_t length, int flags, void *to) {
    note();
    return (void *)syscall(SYS_mremap, address, old, length, flags, to);
}

void *mmap(void *address, size_t length, int access, int flags, int file, off_t offset) {
    note();
    return (void *)syscall(SYS_mmap, address, length, access, flags, file, offset);
}
