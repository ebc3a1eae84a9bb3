/* Calls malloc at every odd moment in the life of a process and of a thread: life MODULE. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;

#define KEYS 40 /* glibc takes memory for a thread's values of keys from 32 on */
#define BATCH 50
#define BATCHES 40

static pthread_key_t keys[KEYS];
static void *early[4];
static int last_words;

static void use(int seed) {
    void *blocks[64];
    for (int i = 0; i < 64; i++) {
        blocks[i] = i % 2 ? malloc((seed + i) * 37 % 3000) : calloc(i, 11);
        CHECK(blocks[i]);
    }
    for (int i = 0; i < 64; i++)
        free(blocks[i]);
}

/* Before any library's constructor, and before ours. */
static void preinit(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    early[0] = malloc(100);
    early[1] = malloc(300000);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(int, char **, char **) = preinit;

__attribute__((constructor(101))) static void first(void) {
    early[2] = malloc(100);
    use(1);
}

__attribute__((destructor(101))) static void last(void) {
    use(2);
    for (int i = 0; i < 4; i++)
        free(early[i]);
    CHECK(last_words == 1);
    _exit(0); /* the only way to success */
}

static void at_exit(void) {
    use(3);
    last_words++;
}

static void late(void *block) {
    free(block);
    use(4);
}

/* Sets its value again as often as it is called, with a block that it may never get back. */
static void again(void *block) {
    size_t left = *(size_t *)block;
    free(block);
    use(5);
    if (left > 0) {
        size_t *next = malloc(sizeof *next);
        *next = left - 1;
        pthread_setspecific(keys[0], next);
    }
}

static void *thread(void *module) {
    CHECK(((int (*)(int))module)(5) == 5);
    __cxa_thread_atexit_impl(late, malloc(10), &__dso_handle);
    for (int i = 1; i < KEYS; i++)
        pthread_setspecific(keys[i], malloc(i * 10));
    size_t *left = malloc(sizeof *left);
    *left = 2;
    pthread_setspecific(keys[0], left);
    /* This leaves a message, which the C library frees after all destructors. */
    CHECK(dlsym(RTLD_DEFAULT, "no such symbol") == NULL);
    __cxa_thread_atexit_impl(late, malloc(10), &__dso_handle);
    return malloc(500);
}

/* Only frees, and so meets the end of its life without ever having allocated. */
static void *freer(void *block) {
    free(block);
    return NULL;
}

static void threads(void *module) {
    pthread_t ids[BATCH];
    for (int i = 0; i < BATCH; i++)
        CHECK(pthread_create(&ids[i], NULL, thread, module) == 0);
    for (int i = 0; i < BATCH; i++) {
        void *block;
        CHECK(pthread_join(ids[i], &block) == 0);
        CHECK(pthread_create(&ids[i], NULL, freer, block) == 0);
    }
    for (int i = 0; i < BATCH; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
}

static void *endless(void *unused) {
    for (int i = 0;; i++)
        use(i);
    return unused;
}

static long heaps(void) {
    size_t (*stats)(char *, size_t) = (size_t (*)(char *, size_t))dlsym(RTLD_DEFAULT, "theap_stats_json");
    char text[16384];
    CHECK(stats && stats(text, sizeof text) < sizeof text && strstr(text, "\"heaps\":"));
    return atol(strstr(text, "\"heaps\":") + 8);
}

int main(int argc, char **argv) {
    CHECK(argc == 2 && early[0] && early[1] && early[2]);
    early[3] = malloc(5);
    atexit(at_exit);
    CHECK(pthread_key_create(&keys[0], again) == 0);
    for (int i = 1; i < KEYS; i++)
        CHECK(pthread_key_create(&keys[i], late) == 0);
    for (int i = 0; i < BATCHES; i++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        CHECK(library);
        threads(dlsym(library, "module"));
        CHECK(dlclose(library) == 0);
    }
    /* A heap serves one thread after the other, whatever the threads do when they end. */
    printf("heaps: %ld for %d threads, %d at a time\n", heaps(), 2 * BATCH * BATCHES, BATCH);
    fflush(stdout);
    CHECK(heaps() <= 3 * BATCH);
    pthread_t id;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&id, NULL, endless, NULL) == 0);
    return 0; /* with four threads at work */
}
