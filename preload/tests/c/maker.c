/* A plugin: what it allocates is its first library's, by RTLD_DEEPBIND the C library's. Linked with
   libtheap it is the other way round. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void *make(size_t size) { return malloc(size); }
void *make_aligned(size_t align, size_t size) { return memalign(align, size); }
void *remake(void *block, size_t size) { return realloc(block, size); }
size_t size_of(void *block) { return malloc_usable_size(block); }
void unmake(void *block) { free(block); }
