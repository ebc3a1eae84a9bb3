/* Blocks of another allocator, and addresses of none. The first argument is the plugin (maker.c),
   the second what to do. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

static void *(*make)(size_t), *(*make_aligned)(size_t, size_t), *(*remake)(void *, size_t);
static size_t (*size_of)(void *);
static void (*unmake)(void *), (*cfree)(void *);
static void (*free_sized)(void *, size_t), (*free_aligned_sized)(void *, size_t, size_t);

static void load(const char *plugin) {
    void *library = dlopen(plugin, RTLD_NOW | RTLD_DEEPBIND);
    CHECK(library);
    *(void **)&make = dlsym(library, "make");
    *(void **)&make_aligned = dlsym(library, "make_aligned");
    *(void **)&remake = dlsym(library, "remake");
    *(void **)&size_of = dlsym(library, "size_of");
    *(void **)&unmake = dlsym(library, "unmake");
    CHECK(make && make_aligned && remake && size_of && unmake);
}

static const size_t sizes[] = {1, 24, 25, 100, 1000, 5000, 70000, 131000, 140000, 1 << 20, 9 << 20};
#define SIZES (sizeof sizes / sizeof *sizes)
#define ROUNDS 40
#define BLOCKS (SIZES * ROUNDS * 3)

static void fill(void *block, size_t size) {
    memset(block, (int)(size % 251), size < 4096 ? size : 4096);
    ((char *)block)[size - 1] = (char)(size % 251);
}

static void holds(const void *block, size_t size, size_t written) {
    const char *bytes = block;
    for (size_t at = 0; at < size && at < written && at < 4096; at++)
        CHECK(bytes[at] == (char)(written % 251));
}

/* Blocks of all kinds, in the arena of the calling thread. */
static void *blocks(void *to) {
    void **all = to;
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < SIZES; i++) {
            *all++ = make(sizes[i]);
            *all++ = make_aligned((size_t)16 << round % 18, sizes[i]);
            *all++ = remake(make(sizes[i] / 2 + 1), sizes[i]);
        }
    for (size_t i = 0; i < BLOCKS; i++) {
        all = to;
        CHECK(all[i]);
        fill(all[i], sizes[i / 3 % SIZES]);
    }
    return NULL;
}

/* Takes the blocks back by every function that takes one. */
static void take_back(void **all) {
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = sizes[i / 3 % SIZES];
        CHECK(KEEPS(malloc_usable_size(all[i])) == size_of(all[i]));
        holds(all[i], size, size);
        switch (i % 7) {
        case 0:
        case 1:
            errno = 1234;
            free(all[i]);
            CHECK(errno == 1234);
            break;
        case 2:
            all[i] = KEEPS(realloc(all[i], size * 2));
            holds(all[i], size, size);
            free(all[i]);
            break;
        case 3:
            all[i] = KEEPS(realloc(all[i], size / 2 + 1));
            holds(all[i], size / 2 + 1, size);
            CHECK(realloc(all[i], 0) == NULL);
            break;
        case 4:
            cfree ? cfree(all[i]) : free(all[i]);
            break;
        case 5:
            free_sized ? free_sized(all[i], size) : free(all[i]);
            break;
        default:
            free_aligned_sized ? free_aligned_sized(all[i], 16, size) : free(all[i]);
        }
    }
}

static void every_kind(void) {
    static void *mine[BLOCKS], *theirs[4][BLOCKS];
    pthread_t threads[4];
    for (int round = 0; round < 2; round++) {
        blocks(mine);
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], NULL, blocks, theirs[i]) == 0);
        for (int i = 0; i < 4; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        take_back(mine);
        for (int i = 0; i < 4; i++)
            take_back(theirs[i]);
    }
}

/* More than a heap of the C library holds, in the arena of a thread. */
static void *many(void *unused) {
    enum { COUNT = 3000 };
    static char *all[COUNT];
    for (int i = 0; i < COUNT; i++)
        CHECK((all[i] = make(60000)));
    for (int i = 0; i < COUNT; i++)
        free(all[i]);
    return unused;
}

/* A header of the C library before a block, with these contents. */
static void *forge(void *place, size_t before, size_t size) {
    size_t *words = place;
    words[0] = before;
    words[1] = size;
    return words + 2;
}

static char in_binary[4 * 4096] __attribute__((aligned(4096))) = {1};
static void *wrong;

static void *on_stack(void *size) {
    char place[3 * 4096];
    char *page = (char *)(((uintptr_t)place + 4095) & ~(uintptr_t)4095);
    wrong = forge(page, 0, (size_t)size);
    printf("%p\n", wrong);
    fflush(stdout);
    free(wrong);
    return wrong;
}

static void *map(size_t bytes, int access) {
    void *mapping = mmap(NULL, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapping != MAP_FAILED);
    return mapping;
}

/* An address that is no block of anybody. */
static void *no_block(int number) {
    char *made = make(1000), *mapped = map(4 * 4096, PROT_READ | PROT_WRITE);
    pthread_t thread;
    memset(made, 0, 1000);
    switch (number) {
    case 0: return on_stack((void *)(4096 | 2));
    case 1: return on_stack((void *)(64 | 1));
    case 2: /* on the stack of a thread */
        CHECK(pthread_create(&thread, NULL, on_stack, (void *)(4096 | 2)) == 0);
        pthread_join(thread, NULL);
        return NULL;
    case 3: return forge(in_binary, 0, 4096 | 2);
    case 4: forge(in_binary + 64, 0, 64 | 1); return forge(in_binary, 0, 64 | 1);
    case 5: return (void *)((uintptr_t)&no_block & ~(uintptr_t)15);
    case 6: return getenv("PATH");
    case 7: return (void *)0x1000;
    case 8: return (void *)0x123456789010;
    case 9: return (void *)0x7ffffffff000;
    case 10: return (void *)0x8000000000000010;
    case 11: return (void *)-16;
    case 12: return made + 16; /* inside of a block */
    case 13: return made + 8;
    case 14: return mapped + 4096;
    case 15: return map(4096, PROT_NONE);
    case 16: return map(4096, PROT_NONE) + 16;
    case 17: return forge(mapped, 0, 4097 << 12 | 2); /* longer than the mapping may be */
    case 18: return forge(mapped + 64, 0, 4096 | 2);  /* not at a page's start */
    case 19: return forge(mapped, 0, 64 | 4);         /* of an arena that is not there */
    case 20: return forge(mapped, 0, 64 | 1);
    case 21: return forge(mapped, (size_t)1 << 46, ((size_t)1 << 46 | 4096 | 2)); /* begins in nothing */
    case 22: CHECK(munmap(mapped, 4096) == 0); return mapped + 16;
    case 23: return forge(made, 0, 48 | 1); /* the next header says free */
    case 24: return forge(made, 0, (size_t)1 << 40 | 1);
    case 25: return stdout;
    default: exit(77);
    }
}

int main(int count, char **arguments) {
    CHECK(count > 2);
    *(void **)&free_sized = dlsym(RTLD_DEFAULT, "free_sized");
    *(void **)&free_aligned_sized = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    *(void **)&cfree = dlsym(RTLD_DEFAULT, "cfree");
    load(arguments[1]);
    if (strcmp(arguments[2], "every") == 0) {
        pthread_t thread;
        every_kind();
        CHECK(pthread_create(&thread, NULL, many, NULL) == 0 && pthread_join(thread, NULL) == 0);
        return 0;
    }
    if (strcmp(arguments[2], "one") == 0) {
        free(make(100));
        return 0;
    }
    if (strcmp(arguments[2], "theirs") == 0) { /* the plugin is linked with libtheap, not the host */
        static const size_t few[] = {24, 1000, 200000, 9 << 20};
        for (int i = 0; i < 4; i++) {
            char *block = malloc(few[i]);
            fill(block, few[i]);
            CHECK(size_of(block) == malloc_usable_size(block));
            block = remake(block, few[i] * 2);
            holds(block, few[i], few[i]);
            unmake(block);
            unmake(make(few[i]));
        }
        return 0;
    }
    wrong = no_block(atoi(arguments[2]));
    if (count > 3)
        wrong = realloc(wrong, 4000);
    else
        free(wrong);
    puts("went on");
    return 0;
}
