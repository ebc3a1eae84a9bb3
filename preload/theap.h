/* theap: the functions that its shared library offers beyond malloc. Sizes are in bytes. Every thread
 * may call every function at any time. The environment's THEAP_* variables set the options. */
#ifndef THEAP_H
#define THEAP_H

#include <stddef.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Returns the library's version, for instance "0.1.0". */
const char *theap_version(void);

/* Prepares memory of the calling thread's node, so that threads can allocate `bytes` bytes without a
 * page fault. It takes 50 to 200 microseconds for each 2 MiB. Returns 0, or an error number of errno.h;
 * it does not set errno. After an error the memory prepared until then stays prepared. */
int theap_warm_up(size_t bytes);

/* Prepares the calling thread so that it can allocate `count` blocks of `size` bytes (up to 256 KiB)
 * without a page fault or a system call, whatever other threads take meanwhile. Returns 0, or an error
 * number of errno.h; it does not set errno. */
int theap_warm_up_class(size_t size, size_t count);

/* Gives all free memory back to the system, except the blocks that other threads cache. Returns the
 * number of bytes given back. */
size_t theap_purge(void);

/* Returns the blocks that the calling thread caches to the heap, so that other threads and theap_purge
 * can have their memory. */
void theap_collect(void);

/* From now on the allocator makes no system call. An allocation that needs one returns null, and
 * theap_stats_json counts it. Call this after theap_warm_up, when every thread has allocated once.
 * theap_unseal ends it. */
void theap_seal(void);
void theap_unseal(void);

/* Hot scopes: from theap_hot_begin to theap_hot_end the calling thread keeps a contract. A breach is
 * counted (figure hot_breaches), told on standard error with its stack (once for each stack), or fatal
 * (SIGABRT). THEAP_NO_SLOW_PATH allows malloc and free where they hit: no refill, no drain, nothing asked of
 * the kernel. THEAP_NO_ALLOCATION allows neither; a free of null is none. Scopes of a thread nest and end in
 * reverse order: within another scope the stricter contract and the graver consequence hold. theap_hot_excuse
 * begins a scope in which the thread has promised nothing. Both return the word that theap_hot_end takes, 0
 * for wrong arguments or a thread that can get no heap; theap_hot_end returns how often the thread has broken
 * a contract in the scope. */
enum theap_contract { THEAP_NO_SLOW_PATH = 1, THEAP_NO_ALLOCATION = 2 };
enum theap_breach { THEAP_COUNT = 0, THEAP_REPORT = 1, THEAP_ABORT = 2 };
size_t theap_hot_begin(enum theap_contract contract, enum theap_breach breach);
size_t theap_hot_excuse(void);
size_t theap_hot_end(size_t scope);

/* Sets the front that serves from now on: the magazines, or the classic front (as THEAP_FRONT does).
 * The heap of every thread switches when it next takes or returns a batch of blocks. */
enum theap_front { THEAP_FRONT_CLASSIC = 0, THEAP_FRONT_THEAP = 1 };
void theap_set_front(enum theap_front front);

/* Registers the function that is called when the heap, as it grows, has reached THEAP_SOFT_LIMIT, instead
 * of the one before; null is none. The heap gives back what is free first; `mapped` are the bytes that it
 * has mapped then. The function runs within an allocation, on that thread's stack and without any of the
 * heap's locks: it may allocate and free, and must return (no longjmp, no pthread_exit, no exception).
 * No thread calls it again while it runs. It is called again when another eighth of the limit was mapped,
 * or when the heap goes beyond the limit after it had fallen an eighth below. */
void theap_on_soft_limit(void (*function)(size_t mapped));

/* Acts on THEAP_SOFT_LIMIT in the calling thread, so that no other thread waits for that: until
 * `function` returns false, this thread looks every 10 ms whether the limit was reached, gives back what is
 * free, and calls `function`, which gets `data`, instead of the one registered above. Returns false at once
 * if there is no soft limit or no memory, or if another thread does this already; else true. */
bool theap_serve_soft_limit(bool (*function)(size_t mapped, void *data), void *data);

/* The kernel's figures for the heap's memory. */
struct theap_resident {
    size_t resident; /* bytes in RAM: blocks, free memory and metadata, on all pages */
    size_t metadata; /* bytes of these that are metadata */
    size_t thp;      /* bytes of these on transparent hugepages */
    size_t hugetlb;  /* bytes of these on hugetlb pages */
    size_t swapped;  /* bytes that were swapped out */
};

/* Asks the kernel what it has for the heap, by /proc/self/smaps: some microseconds for each mapping, and up
 * to a millisecond for each GiB on small pages. Returns 0, or an error number of errno.h (ENOMEM while the
 * heap is sealed, ENOSYS where the file cannot be read), with `*answer` as it was; it does not set errno. */
int theap_resident(struct theap_resident *answer);

/* Returns whether the address lies in the heap's range. */
bool theap_owns(const void *address);

/* Writes the statistics as one JSON object with a terminating zero to `buffer`, at most `size` bytes in
 * all. Returns the length of the whole text without the zero: the text is complete if that is below
 * `size`. `buffer` may be null if `size` is 0. 16384 bytes are enough for all but the threads, which
 * take 200 bytes each. */
size_t theap_stats_json(char *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
