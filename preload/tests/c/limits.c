/* A C program at THEAP_LIMIT and THEAP_SOFT_LIMIT, on the preloaded library. */
#include "check.h"
#include "../../theap.h"
#include <dlfcn.h>
#include <stdint.h>

#define MIB ((size_t)1 << 20)
#define BLOCKS 256

static void *blocks[BLOCKS];
static int calls, inside;
static size_t told;

static void on_soft_limit(size_t mapped) {
    CHECK(!inside);
    inside = 1;
    told = mapped;
    calls++;
    /* The function may allocate and free; errno is the allocation's. */
    char *text = malloc(100000);
    CHECK(text);
    snprintf(text, 100000, "%zu", mapped);
    free(text);
    free(calloc(5, MIB));
    errno = 77;
    inside = 0;
}

/* Takes blocks until there is none. Their number. */
static int fill(void) {
    int count = 0;
    errno = 1234;
    while (count < BLOCKS && (blocks[count] = malloc(MIB)) != NULL) {
        CHECK(errno == 1234);
        memset(blocks[count++], 1, MIB);
    }
    CHECK(count < BLOCKS && errno == ENOMEM);
    return count;
}

int main(void) {
    void (*registers)(void (*)(size_t));
    *(void **)&registers = dlsym(RTLD_DEFAULT, "theap_on_soft_limit");
    CHECK(registers);
    registers(on_soft_limit);
    int count = fill();
    CHECK(calls > 0 && told > 0 && told < 128 * MIB);
    FAILS(calloc(1, 5 * MIB), ENOMEM);
    FAILS(aligned_alloc(4096, 5 * MIB), ENOMEM);
    FAILS(realloc(blocks[0], 60 * MIB), ENOMEM);
    CHECK(((char *)blocks[0])[MIB - 1] == 1);
    void *out = blocks;
    CHECK(posix_memalign(&out, 1 << 21, 5 * MIB) == ENOMEM);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    int before = calls;
    registers(NULL);
    count = fill();
    CHECK(calls == before);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    puts("done");
    return 0;
}
