/* A program that makes one mistake in each run, and ends: wrong_free WHAT. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static char *block;
static int in_destructor;

static void twice(void) {
    free(block);
    free(block);
}

static void *twice_in_thread(void *unused) {
    block = malloc(100);
    twice();
    return unused;
}

static void *once(void *unused) {
    free(block);
    return unused;
}

static void *allocate(void *unused) {
    /* More than the thread before it has left. */
    for (int i = 0; i < 100; i++)
        CHECK(malloc(100));
    return unused;
}

static void join(void *(*work)(void *)) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, work, NULL) == 0);
    CHECK(pthread_join(other, NULL) == 0);
}

__attribute__((destructor)) static void end(void) {
    if (in_destructor)
        twice();
}

static void quit(int unused) {
    (void)unused;
    exit(0);
}

/* Is ended by exit in a handler, while the heap works. */
static void work_until_signal(void) {
    signal(SIGALRM, quit);
    ualarm(50000, 0);
    static void *blocks[20000];
    for (;;)
        for (int i = 0; i < 20000; i++) {
            free(blocks[i]);
            blocks[i] = malloc(16 + i % 3000);
        }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *what = argv[1];
    block = malloc(100);
    /* Its span is in use to the end. */
    CHECK(malloc(100));
    if (!strcmp(what, "none"))
        free(block);
    else if (!strcmp(what, "ended-by-a-signal"))
        work_until_signal();
    else if (!strcmp(what, "stack"))
        free(&block);
    else if (!strcmp(what, "twice"))
        twice();
    else if (!strcmp(what, "twice-large")) {
        block = malloc(1 << 20);
        twice();
    } else if (!strcmp(what, "twice-huge")) {
        block = malloc(9 << 20);
        twice();
    } else if (!strcmp(what, "twice-others-between")) {
        char *other = malloc(100);
        free(block);
        free(other);
        free(block);
    } else if (!strcmp(what, "twice-and-trimmed")) {
        twice();
        malloc_trim(0);
    } else if (!strcmp(what, "inside"))
        free(block + 8);
    else if (!strcmp(what, "inside-and-trimmed")) {
        free(block + 8);
        malloc_trim(0);
    } else if (!strcmp(what, "twice-in-a-thread"))
        join(twice_in_thread);
    else if (!strcmp(what, "twice-in-a-thread-that-is-followed")) {
        join(twice_in_thread);
        join(allocate);
    } else if (!strcmp(what, "here-and-in-a-thread")) {
        join(once);
        free(block);
    } else if (!strcmp(what, "twice-in-a-handler"))
        CHECK(atexit(twice) == 0);
    else if (!strcmp(what, "twice-in-a-destructor"))
        in_destructor = 1;
    else
        CHECK(!"known");
    return 0;
}
