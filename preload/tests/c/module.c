/* A library that a program loads and unloads. It allocates in its constructor and destructor. Its
 * thread-local storage is too large for the C library's reserve, so each thread's part comes from
 * malloc. */
#include <stdlib.h>
#include <string.h>

static __thread char large[64 << 10];
static __thread int touched;
static void *kept[100];

__attribute__((constructor)) static void load(void) {
    for (int i = 0; i < 100; i++)
        kept[i] = malloc(i * 40);
}

__attribute__((destructor)) static void unload(void) {
    for (int i = 0; i < 100; i++)
        free(kept[i]);
}

int module(int value) {
    memset(large, value, sizeof large);
    touched += value;
    void *block = malloc(1000);
    free(block);
    return large[sizeof large - 1] == (char)value ? touched : -1;
}
