/* An ordinary user, who may lock 8 MiB, locks all memory and then allocates, also in a thread:
   locked current|future|both|onfault */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static void *touched(size_t size) {
    void *block = malloc(size);
    CHECK(block);
    return memset(block, 1, size);
}

static void *body(void *unused) {
    (void)unused;
    free(touched(100000));
    return NULL;
}

int main(int count, char **names) {
    CHECK(count == 2);
    int flags = MCL_CURRENT | MCL_FUTURE;
    if (!strcmp(names[1], "current")) flags = MCL_CURRENT;
    if (!strcmp(names[1], "future")) flags = MCL_FUTURE;
    if (!strcmp(names[1], "onfault")) flags |= MCL_ONFAULT;
    struct rlimit limit = {8 << 20, 8 << 20};
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(geteuid() != 0 || setuid(65534) == 0);
    CHECK(mlockall(flags) == 0);
    void *blocks[] = {touched(1000), touched(256 << 10), touched(3 << 20)};
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 128 << 10) == 0);
    CHECK(pthread_create(&thread, &attributes, body, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < 3; i++) free(blocks[i]);
    return 0;
}
