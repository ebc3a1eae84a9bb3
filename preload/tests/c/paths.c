/* Calls malloc and free, or C++'s operators by their names, in the patterns whose instructions
 * tests/instructions.rs counts: paths PATTERN ALLOCATOR TURNS. The program reads the pointers again for each call, so that with the
 * ALLOCATOR "nothing" the same loop runs around nothing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 256

static char block[1024];

__attribute__((noinline)) static void *take_nothing(size_t size) { (void)size; return block; }
__attribute__((noinline)) static void give_nothing(void *start) { (void)start; }

__attribute__((noinline)) static void give_none(void *start, size_t size) { (void)start; (void)size; }

static void *(*volatile take)(size_t) = take_nothing;
static void (*volatile give)(void *) = give_nothing;
static void (*volatile give_sized)(void *, size_t) = give_none;

/* new(size), new[](size), delete(block), delete(block, size), delete[](block). */
void *_Znwm(size_t size) __attribute__((weak));
void *_Znam(size_t size) __attribute__((weak));
void _ZdlPv(void *start) __attribute__((weak));
void _ZdlPvm(void *start, size_t size) __attribute__((weak));
void _ZdaPv(void *start) __attribute__((weak));

/* One block at a time: every call hits. */
static void hit(long turns) {
    for (long turn = 0; turn < turns; turn++) {
        void *start = take(64);
        give(start);
    }
}

/* The same with a free that is told the size. */
static void sized(long turns) {
    for (long turn = 0; turn < turns; turn++) {
        void *start = take(64);
        give_sized(start, 64);
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
    } else if (strcmp(words[2], "new") == 0) {
        take = _Znwm;
        give = _ZdlPv;
        give_sized = _ZdlPvm;
    } else if (strcmp(words[2], "array") == 0) {
        take = _Znam;
        give = _ZdaPv;
    }
    if (!take || !give || !give_sized)
        return 3;
    void (*pattern)(long) = strcmp(words[1], "hit") == 0     ? hit
                            : strcmp(words[1], "sized") == 0 ? sized
                                                             : mixed;
    pattern(atol(words[3]));
    return 0;
}
