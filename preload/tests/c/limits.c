/* A C program at THEAP_LIMIT and THEAP_SOFT_LIMIT, on the preloaded library. */
#include "check.h"
#include "../../theap.h"
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
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

static bool (*serves)(bool (*)(size_t, void *), void *);
static int served;

static bool serve(size_t mapped, void *data) {
    CHECK(data == &served && mapped > 0);
    free(malloc(100000));
    __atomic_add_fetch(&served, 1, __ATOMIC_RELAXED);
    return false;
}

static void *server(void *data) {
    return serves(serve, data) ? data : NULL;
}

/* Crosses the limit until a thread of the program's has been told. */
static void be_served(void) {
    pthread_t thread;
    CHECK(!serves(NULL, NULL) && pthread_create(&thread, NULL, server, &served) == 0);
    void *answer, *held[6] = {malloc(50 * MIB)};
    /* Until the thread serves the limit, this one is told; so it crosses the limit again. */
    for (int i = 1; !__atomic_load_n(&served, __ATOMIC_RELAXED); i++) {
        usleep(500000);
        if (__atomic_load_n(&served, __ATOMIC_RELAXED))
            break;
        CHECK(i < 6);
        held[i] = malloc(15 * MIB);
        CHECK(held[i]);
    }
    CHECK(pthread_join(thread, &answer) == 0 && answer == &served);
    for (int i = 0; i < 6; i++)
        free(held[i]);
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
    *(void **)&serves = dlsym(RTLD_DEFAULT, "theap_serve_soft_limit");
    CHECK(registers && serves);
    be_served();
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
