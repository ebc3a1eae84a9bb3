/* A program that makes one mistake in each run, or none: misuse WHAT. tests/valgrind.rs and
 * tests/sanitizers.rs have the messages of the tools about each mistake. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static volatile char sink;
static char *volatile held;

/* Fills its blocks, and gives every other one back. */
static void *work(void *shared) {
    char *blocks[300];
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < 300; i++) {
            size_t size = 1 + (size_t)(i * 37 + turn) % 3000;
            blocks[i] = i % 3 == 0 ? calloc(1, size) : i % 3 == 1 ? memalign(64, size) : malloc(size);
            CHECK(blocks[i] && malloc_usable_size(blocks[i]) == size);
            CHECK(i % 3 || blocks[i][size - 1] == 0);
            memset(blocks[i], turn, size);
        }
        for (int i = 0; i < 300; i += 7) {
            size_t size = malloc_usable_size(blocks[i]);
            char *block = realloc(blocks[i], size * (1 + i % 3) / 2 + 1);
            CHECK(block && (size == 1 || block[size / 2 - 1] == turn));
            blocks[i] = block;
        }
        /* Makes a block for the other thread, and frees one of that thread. */
        free(__atomic_exchange_n((char **)shared, blocks[0], __ATOMIC_ACQ_REL));
        for (int i = 1; i < 300; i++)
            free(blocks[i]);
    }
    return NULL;
}

static void clean(void) {
    static char *shared;
    pthread_t other;
    CHECK(pthread_create(&other, NULL, work, &shared) == 0);
    work(&shared);
    CHECK(pthread_join(other, NULL) == 0);
    free(shared);
    char *run = malloc(300 << 10);
    for (size_t size = 300 << 10; size < 20 << 20; size *= 2) {
        run = realloc(run, size);
        run[size - 1] = 1;
    }
    run = realloc(run, 280 << 10);
    free(run);
    run = calloc(1, 3 << 20);
    CHECK(run[0] == 0 && run[(3 << 20) - 1] == 0);
    free(run);
    held = malloc(100); /* in use to the end: no leak */
}

static void *count(void *number) {
    for (int i = 0; i < 100; i++)
        ++*(volatile int *)number;
    return NULL;
}

static void race(void) {
    pthread_t other;
    int *number = calloc(1, sizeof *number);
    CHECK(pthread_create(&other, NULL, count, number) == 0);
    count(number);
    CHECK(pthread_join(other, NULL) == 0);
    free(number);
}

static void overflow(size_t size) {
    char *block = malloc(size), *next = malloc(size);
    block[size] = 1;
    free(block);
    free(next);
}

static void leak(void) {
    /* Allocates more than a magazine holds, twice: also blocks that were live before. */
    static char *all[600];
    for (int turn = 0; turn < 2; turn++)
        for (int i = 0; i < 600; i++) {
            free(all[i]);
            all[i] = malloc(24);
        }
    memset(all, 0, sizeof all);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *what = argv[1];
    char *block = malloc(40);
    if (!strcmp(what, "clean"))
        clean();
    else if (!strcmp(what, "race"))
        race();
    else if (!strcmp(what, "read-after-free")) {
        block[3] = 1;
        free(block);
        free(malloc(40));
        sink = block[3];
        return 0;
    } else if (!strcmp(what, "write-after-free")) {
        free(block);
        block[8] = 1;
        return 0;
    } else if (!strcmp(what, "double-free")) {
        free(block);
        free(block);
        return 0;
    } else if (!strcmp(what, "uninitialised")) {
        memset(block, 1, 40);
        free(block);
        block = malloc(40);
        if (block[7])
            sink = 1;
    } else if (!strcmp(what, "overflow"))
        overflow(40);
    else if (!strcmp(what, "overflow-of-class"))
        overflow(64);
    else if (!strcmp(what, "overflow-of-run"))
        overflow(1 << 20);
    else if (!strcmp(what, "overflow-of-shrunk")) {
        block = realloc(block, 38);
        block[38] = 1;
    } else if (!strcmp(what, "leak"))
        leak();
    else if (!strcmp(what, "leak-of-first"))
        block = NULL;
    else
        CHECK(!"known");
    free(block);
    return 0;
}
