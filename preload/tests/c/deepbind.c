/* A plugin that is loaded with RTLD_DEEPBIND (compiled with -DPLUGIN), a library that loads it by a
   name without a directory, from its own run path (-DLOADER), and their host. The host's arguments
   are the plugin, the loader, and whose blocks the plugin gets: theap or libc. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(PLUGIN)
static char *at_start;
__attribute__((constructor)) static void start(void) { at_start = strdup("made by the constructor"); }
char *started(void) { return at_start; }
const char *whose(void) { return "the plugin's"; }
const char *asked(void) { return whose(); }
void *make(int how, size_t size) {
    void *block = NULL;
    switch (how) {
    case 0: return malloc(size);
    case 1: return calloc(1, size);
    case 2: return realloc(malloc(1), size);
    case 3: return reallocarray(NULL, 1, size);
    case 4: return memalign(64, size);
    case 5: return aligned_alloc(64, size);
    case 6: return posix_memalign(&block, 64, size) ? NULL : block;
    case 7: return valloc(size);
    default: return pvalloc(size);
    }
}
size_t size_of(void *block) { return malloc_usable_size(block); }
void *remake(void *block, size_t size) { return realloc(block, size); }
void unmake(void *block) { free(block); }

#elif defined(LOADER)
void *load(const char *name, int mode) { return dlopen(name, mode); }

#else
const char *whose(void) { return "the host's"; }
#define KINDS 9
static bool (*owns)(const void *);
static void *(*make)(int, size_t), *(*remake)(void *, size_t);
static size_t (*size_of)(void *);
static void (*unmake)(void *);

static void *find(void *library, const char *name) {
    void *found = dlsym(library, name);
    CHECK(found);
    return found;
}

/* Blocks go to the plugin and come back, and are of the program's heap. */
static void *cross(void *unused) {
    for (size_t size = 1; size < 3 << 20; size += size / 2 + 1)
        for (int how = 0; how < KINDS; how++) {
            char *theirs = make(how, size), *ours = malloc(size);
            CHECK(theirs && ours && owns(theirs));
            memset(theirs, 1, size);
            memset(ours, 2, size);
            CHECK(size_of(ours) == malloc_usable_size(ours) && size_of(theirs) == malloc_usable_size(theirs));
            ours = remake(ours, size * 2);
            CHECK(owns(ours) && ours[0] == 2 && ours[size - 1] == 2);
            unmake(ours);
            free(theirs);
        }
    return unused;
}

int main(int count, char **arguments) {
    pthread_t threads[4];
    void *(*load)(const char *, int);
    CHECK(count == 4);
    void *loader = dlopen(arguments[2], RTLD_NOW);
    CHECK(loader);
    *(void **)&load = find(loader, "load");
    CHECK(dlopen("deepbind-plugin.so", RTLD_NOW) == NULL); /* the host has no run path */
    void *plugin = load("deepbind-plugin.so", RTLD_NOW | RTLD_DEEPBIND);
    CHECK(plugin && plugin == dlopen(arguments[1], RTLD_NOW | RTLD_DEEPBIND));
    CHECK(plugin == dlmopen(LM_ID_BASE, arguments[1], RTLD_NOW | RTLD_DEEPBIND));
    const char *(*asked)(void), *(*host)(void);
    char *(*started)(void);
    *(void **)&asked = find(plugin, "asked");
    *(void **)&host = find(RTLD_DEFAULT, "whose");
    CHECK(strcmp(asked(), "the plugin's") == 0 && strcmp(host(), "the host's") == 0);
    *(void **)&owns = find(RTLD_DEFAULT, "theap_owns");
    *(void **)&make = find(plugin, "make");
    bool is_ours = strcmp(arguments[3], "theap") == 0;
    CHECK(owns(make(0, 100)) == is_ours);
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    CHECK((find(libc, "free") == (void *)free) == is_ours);
    CHECK(find(libc, "puts") == (void *)puts);
    if (!is_ours)
        return 0;
    CHECK(find(libc, "__libc_free") == find(RTLD_DEFAULT, "__libc_free"));
    *(void **)&remake = find(plugin, "remake");
    *(void **)&size_of = find(plugin, "size_of");
    *(void **)&unmake = find(plugin, "unmake");
    *(void **)&started = find(plugin, "started");
    CHECK(owns(started()));
    free(started());
    cross(NULL);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, cross, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
#endif
