/* theap: what its shared library offers beyond malloc. Sizes are in bytes. All functions may be called from any
 * thread, at any time; the options are the environment's THEAP_* variables. */
#ifndef THEAP_H
#define THEAP_H

#include <stddef.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version, for instance "0.1.0". */
const char *theap_version(void);

/* Prepares the calling thread's node so that `bytes` can be allocated without a page fault. Takes 50 to 200
 * microseconds for each 2 MiB. 0, or an error number as in errno.h, which is not set; what was prepared until then
 * stays. */
int theap_warm_up(size_t bytes);

/* Prepares the calling thread so that it can allocate `count` blocks of `size` bytes (up to 256 KiB) without a page
 * fault or a system call, whatever other threads take meanwhile. Answers as theap_warm_up. */
int theap_warm_up_class(size_t size, size_t count);

/* Gives all free memory back to the system, but for what other threads cache. The bytes given back. */
size_t theap_purge(void);

/* Returns the blocks that the calling thread caches, so that other threads and theap_purge can have their memory. */
void theap_collect(void);

/* From now on the allocator makes no system call: what would need one is refused, which means null, and counted in
 * theap_stats_json. To be called after theap_warm_up, when every thread has allocated once. theap_unseal ends it. */
void theap_seal(void);
void theap_unseal(void);

/* The front that serves from now on: the magazines, or the classic one (the A/B of THEAP_FRONT). Every thread's heap
 * switches when it next takes or returns a batch of blocks. */
enum theap_front { THEAP_FRONT_CLASSIC = 0, THEAP_FRONT_THEAP = 1 };
void theap_set_front(enum theap_front front);

/* Whether the address lies in the heap's range. */
bool theap_owns(const void *address);

/* Writes the statistics as one JSON object to `buffer`, zero-terminated and cut off at `size` bytes. Returns the
 * length of the whole text without the terminator: it was complete if that is below `size`. `buffer` may be null if
 * `size` is 0. 16384 bytes are enough. */
size_t theap_stats_json(char *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
