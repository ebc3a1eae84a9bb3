/* Calls malloc and free in the patterns whose instructions tests/instructions.rs counts:
 * paths PATTERN ALLOCATOR TURNS. The program reads the pointers again for each call, so that with the
 * ALLOCATOR "nothing" the same loop runs around nothing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 256

static char block[1024];

__attribute__((noinline)) static void *take_nothing(size_t size) { (void)size; return block; }
__attribute__((noinline)) static void give_nothing(void *start) { (void)start; }

static void *(*volatile take)(size_t) = take_nothing;
static void (*volatile give)(void *) = give_nothing;

/* One block at a time: every call hits. */
static void hit(long turns) {
    for (long turn = 0; turn < turns; turn++) {
        void *start = take(64);
        give(start);
    }
}

/* A random slot is emptied, or filled with 16 to 1024 bytes. */
static void mixed(long turns) {
    static void *slots[SLOTS];
    uint32_t state = 1;
    for (long turn = 0; turn < turns; turn++) {
        state = state * 1664525 + 1013904223;
        void **slot = &slots[state >> 24];
        if (*slot) {
            give(*slot);
            *slot = NULL;
        } else {
            *slot = take(16 + (state >> 8 & 1023) * 1009 / 1024);
        }
    }
}

int main(int count, char **words) {
    if (count != 4)
        return 2;
    if (strcmp(words[2], "malloc") == 0) {
        take = malloc;
        give = free;
    }
    (strcmp(words[1], "hit") == 0 ? hit : mixed)(atol(words[3]));
    return 0;
}
