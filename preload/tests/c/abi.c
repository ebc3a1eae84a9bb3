/* Every entry of the malloc family, edges included. LINKED: also what theap.h declares. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#ifdef LINKED
#include <theap.h>
#else
#include <stdbool.h>
static bool (*theap_owns)(const void *);
static size_t (*theap_stats_json)(char *, size_t);
#endif

void *reallocarray(void *, size_t, size_t); /* glibc has it, under some macros only */

static const size_t sizes[] = {0,     1,      15,     16,      17,      100,     128,     129,     1024,    1025,
                               4096,  32768,  65536,  65537,   262144,  262145,  2 << 20, 3 << 20, 5000000, 64 << 20};
#define SIZES (sizeof sizes / sizeof *sizes)

static void fill(void *block, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i += i < 4096 ? 1 : 509)
        ((unsigned char *)block)[i] = (unsigned char)(seed + i);
}

static void holds(const void *block, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i += i < 4096 ? 1 : 509)
        CHECK(((const unsigned char *)block)[i] == (unsigned char)(seed + i));
}

static void blocks(void) {
    void *all[SIZES];
    for (size_t i = 0; i < SIZES; i++) {
        all[i] = KEEPS(malloc(sizes[i]));
        CHECK(all[i] && (uintptr_t)all[i] % 16 == 0 && theap_owns(all[i]));
        CHECK(malloc_usable_size(all[i]) >= sizes[i]);
        fill(all[i], malloc_usable_size(all[i]), i);
        for (size_t j = 0; j < i; j++)
            CHECK(all[j] != all[i]);
    }
    for (size_t i = 0; i < SIZES; i++) {
        holds(all[i], malloc_usable_size(all[i]), i);
        errno = 1234;
        free(all[i]);
        CHECK(errno == 1234);
    }
    errno = 1234;
    free(NULL);
    CHECK(errno == 1234);
    CHECK(malloc_usable_size(NULL) == 0);
    FAILS(malloc(PTRDIFF_MAX), ENOMEM);
    FAILS(malloc((size_t)PTRDIFF_MAX + 1), ENOMEM);
    FAILS(malloc(SIZE_MAX), ENOMEM);
    FAILS(malloc(SIZE_MAX - 15), ENOMEM);
    void (*cfree)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "cfree");
    CHECK(cfree);
    cfree(malloc(10));
    cfree(NULL);
}

static void zeroed(void) {
    for (size_t i = 0; i < SIZES; i++) {
        char *dirty = malloc(sizes[i]);
        memset(dirty, 0xff, sizes[i]);
        free(dirty);
        char *clean = KEEPS(calloc(sizes[i] / 4 + 1, 4));
        for (size_t at = 0; at < sizes[i]; at++)
            CHECK(clean[at] == 0);
        free(clean);
    }
    void *none[] = {calloc(0, 0), calloc(0, 8), calloc(8, 0)};
    for (int i = 0; i < 3; i++) {
        CHECK(none[i]);
        free(none[i]);
    }
    FAILS(calloc(SIZE_MAX, 2), ENOMEM);
    FAILS(calloc(SIZE_MAX / 2 + 2, 2), ENOMEM); /* the product is 2 */
    FAILS(calloc((size_t)1 << 32, (size_t)1 << 32), ENOMEM);
    FAILS(calloc(1, PTRDIFF_MAX), ENOMEM);
}

static void resized(void) {
    for (size_t i = 0; i < SIZES; i++)
        for (size_t j = 0; j < SIZES; j++) {
            size_t both = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
            void *block = malloc(sizes[i]);
            fill(block, sizes[i], i + j);
            void *other = KEEPS(realloc(block, sizes[j]));
            if (sizes[j] == 0) {
                CHECK(other == NULL);
                continue;
            }
            CHECK(other && malloc_usable_size(other) >= sizes[j]);
            holds(other, both, i + j);
            free(other);
        }
    void *block = KEEPS(realloc(NULL, 0));
    CHECK(block);
    free(block);
    block = realloc(NULL, 100);
    fill(block, 100, 7);
    FAILS(realloc(block, PTRDIFF_MAX), ENOMEM);
    FAILS(realloc(block, SIZE_MAX), ENOMEM);
    FAILS(reallocarray(block, SIZE_MAX / 2 + 2, 2), ENOMEM);
    holds(block, 100, 7);
    block = KEEPS(reallocarray(block, 1000, 3));
    holds(block, 100, 7);
    CHECK(malloc_usable_size(block) >= 3000);
    CHECK(KEEPS(reallocarray(block, 0, 3)) == NULL);
    block = reallocarray(NULL, 3, 5);
    CHECK(block);
    free(block);
    /* An aligned block, and a large one whose growth fails. */
    block = aligned_alloc(4096, 100);
    fill(block, 100, 9);
    block = realloc(block, 200000);
    holds(block, 100, 9);
    block = realloc(block, 32 << 20);
    holds(block, 100, 9);
    FAILS(realloc(block, PTRDIFF_MAX), ENOMEM);
    holds(block, 100, 9);
    free(block);
}

static void aligned(void) {
    static const size_t wrong[] = {0, 3, 24, 4097, SIZE_MAX, ((size_t)1 << 63) + 1};
    void *place;
    for (int shift = 0; shift <= 25; shift++)
        for (size_t i = 0; i < SIZES; i++) {
            size_t align = (size_t)1 << shift;
            void *got[3] = {KEEPS(aligned_alloc(align, sizes[i])), KEEPS(memalign(align, sizes[i])), NULL};
            CHECK(KEEPS(posix_memalign(&got[2], align, sizes[i])) == (align < sizeof(void *) ? EINVAL : 0));
            for (int k = 0; k < (align < sizeof(void *) ? 2 : 3); k++) {
                CHECK(got[k] && (uintptr_t)got[k] % align == 0 && malloc_usable_size(got[k]) >= sizes[i]);
                fill(got[k], sizes[i], k);
            }
            for (int k = 0; k < (align < sizeof(void *) ? 2 : 3); k++) {
                holds(got[k], sizes[i], k);
                free(got[k]);
            }
        }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        FAILS(aligned_alloc(wrong[i], 64), EINVAL);
        place = &place;
        CHECK(KEEPS(posix_memalign(&place, wrong[i], 64)) == EINVAL && place == &place);
    }
    CHECK(KEEPS(posix_memalign(&place, 4, 64)) == EINVAL);
    CHECK(KEEPS(posix_memalign(&place, 64, PTRDIFF_MAX)) == ENOMEM && place == &place);
    for (int shift = 4; shift <= 63; shift++) {
        FAILS(aligned_alloc((size_t)1 << shift, PTRDIFF_MAX), ENOMEM);
        FAILS(aligned_alloc((size_t)1 << shift, SIZE_MAX), ENOMEM);
    }
    for (int shift = 48; shift <= 63; shift++)
        FAILS(aligned_alloc((size_t)1 << shift, 1), ENOMEM);
    place = memalign(24, 100); /* rounded up */
    CHECK(place && (uintptr_t)place % 32 == 0);
    free(place);
    place = memalign(0, 100);
    CHECK(place);
    free(place);
    FAILS(memalign(SIZE_MAX, 100), EINVAL);
    place = KEEPS(valloc(1));
    CHECK(place && (uintptr_t)place % 4096 == 0);
    free(place);
    place = KEEPS(pvalloc(4097));
    CHECK(place && (uintptr_t)place % 4096 == 0 && malloc_usable_size(place) >= 8192);
    free(place);
    FAILS(valloc(SIZE_MAX), ENOMEM);
    FAILS(pvalloc(SIZE_MAX), ENOMEM);
    FAILS(pvalloc(SIZE_MAX - 4095), ENOMEM);
}

static void windows(void) {
    struct mallinfo2 before = mallinfo2();
    char *large = malloc(64 << 20);
    memset(large, 1, 64 << 20);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + (64 << 20));
    CHECK(after.arena >= after.uordblks);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    CHECK((size_t)mallinfo().uordblks == after.uordblks);
    CHECK(after.arena == after.uordblks + after.fordblks);
    CHECK(after.fsmblks <= after.fordblks && after.keepcost <= after.fordblks);
    free(large);
    CHECK(mallinfo2().uordblks == before.uordblks);
    char *small = malloc(100);
    size_t used = mallinfo2().uordblks - before.uordblks;
    CHECK(used >= 100 && used <= 128);
    free(small);
    after = mallinfo2();
    CHECK(after.uordblks == before.uordblks && after.smblks > 0 && after.fsmblks >= 100);
    CHECK(malloc_trim(0) == 1);
    CHECK(mallinfo2().uordblks == before.uordblks);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    CHECK(KEEPS(malloc_info(1, stdout)) == EINVAL);
    char text[8192] = "";
    FILE *file = fmemopen(text, sizeof text, "w");
    CHECK(malloc_info(0, file) == 0 && fclose(file) == 0);
    CHECK(strncmp(text, "<malloc version=", 16) == 0 && strstr(text, "</malloc>\n"));
    CHECK(strstr(text, "<size name=\"allocated\"") && strstr(text, "<class size=") && strstr(text, "<heap nr="));
    errno = 1234;
    malloc_stats();
    CHECK(errno == 1234);
    char json[16384];
    size_t length = theap_stats_json(json, sizeof json);
    CHECK(length < sizeof json && strlen(json) == length && json[0] == '{' && json[length - 1] == '}');
    CHECK(theap_stats_json(NULL, 0) > 100);
    CHECK(theap_stats_json(json, 5) > 100 && strlen(json) == 4);
    puts(text);
    theap_stats_json(json, sizeof json);
    puts(json);
}

#ifdef LINKED
/* What is touched is resident, and no longer so after a purge. */
static void resident(void) {
    struct theap_resident before, full, after;
    CHECK(theap_resident(&before) == 0 && before.resident > 0 && before.metadata > 0);
    CHECK(before.metadata + before.thp <= 2 * before.resident && before.swapped < before.resident + 1);
    /* More than what was warmed up above. */
    char *large = malloc(100 << 20);
    CHECK(large);
    memset(large, 1, 100 << 20);
    CHECK(theap_resident(&full) == 0 && full.resident >= 100 << 20 && full.resident > before.resident);
    free(large);
    theap_purge();
    CHECK(theap_resident(&after) == 0 && after.resident <= full.resident - (90 << 20));
    size_t told = full.resident;
    theap_seal();
    CHECK(theap_resident(&full) == ENOMEM && full.resident == told);
    theap_unseal();
}

static void hot(void) {
    free(malloc(100));
    size_t outer = theap_hot_begin(THEAP_NO_ALLOCATION, THEAP_COUNT);
    CHECK(outer);
    void *volatile block = malloc(100);
    free(block);
    free(NULL);
    size_t inner = theap_hot_excuse();
    block = calloc(1, 100);
    free(block);
    CHECK(theap_hot_end(inner) == 0);
    block = malloc(3 << 20);
    CHECK(theap_hot_end(outer) == 3);
    free(block);
    outer = theap_hot_begin(THEAP_NO_SLOW_PATH, THEAP_REPORT);
    for (int i = 0; i < 1000; i++) {
        block = malloc(100);
        free(block);
    }
    CHECK(theap_hot_end(outer) == 0);
    CHECK(theap_hot_begin(7, THEAP_COUNT) == 0 && theap_hot_begin(THEAP_NO_SLOW_PATH, 7) == 0);
    CHECK(theap_hot_end(0) == 0);
}

static void own(void) {
    hot();
    CHECK(theap_version()[0] >= '0' && strchr(theap_version(), '.'));
    CHECK(theap_warm_up(8 << 20) == 0);
    CHECK(theap_warm_up(SIZE_MAX) == ENOMEM);
    CHECK(theap_warm_up_class(100, 1000) == 0);
    CHECK(theap_warm_up_class(100, SIZE_MAX) == ENOMEM);
    CHECK(!theap_owns(&theap_owns) && !theap_owns(NULL));
    char *large = malloc(16 << 20);
    memset(large, 1, 16 << 20);
    free(large);
    theap_collect();
    CHECK(theap_purge() >= 16 << 20);
    resident();
    for (int i = 0; i < 4; i++) {
        theap_set_front(i % 2 ? THEAP_FRONT_THEAP : THEAP_FRONT_CLASSIC);
        blocks();
    }
    theap_seal();
    errno = 0;
    void *volatile refused = malloc((size_t)4 << 30);
    CHECK(refused == NULL && errno == ENOMEM);
    char *small = malloc(100);
    CHECK(small);
    free(small);
    theap_unseal();
    large = malloc(64 << 20);
    CHECK(large);
    free(large);
}
#endif

int main(void) {
#ifndef LINKED
    *(void **)&theap_owns = dlsym(RTLD_DEFAULT, "theap_owns");
    *(void **)&theap_stats_json = dlsym(RTLD_DEFAULT, "theap_stats_json");
    CHECK(theap_owns && theap_stats_json);
#endif
    blocks();
    zeroed();
    resized();
    aligned();
    windows();
#ifdef LINKED
    own();
#endif
    return 0;
}
