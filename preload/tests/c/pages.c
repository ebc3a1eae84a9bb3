/* Protects, drops and marks single pages of page-aligned blocks of at least 64 KiB. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static void must(int ok, int status) {
    if (!ok)
        _exit(status);
}

static void use(char *block, size_t size) {
    must(block && (uintptr_t)block % PAGE == 0 && malloc_usable_size(block) >= size, 1);
    memset(block, 7, size);
    char *page = block + PAGE;
    must(!mprotect(page, PAGE, PROT_NONE) && !mprotect(page, PAGE, PROT_READ | PROT_WRITE), 2);
    must(page[0] == 7 && page[PAGE - 1] == 7, 3);
    must(!madvise(page, PAGE, MADV_DONTDUMP) && !madvise(page, PAGE, MADV_DODUMP), 4);
    must(!madvise(page, PAGE, MADV_DONTFORK) && !madvise(page, PAGE, MADV_DOFORK), 5);
    must(!madvise(page, PAGE, MADV_DONTNEED), 6);
    must(page[0] == 0 && page[-1] == 7 && page[PAGE] == 7, 7);
    must(!madvise(page, PAGE, MADV_WIPEONFORK), 8);
    page[0] = 9;
    pid_t child = fork();
    if (child == 0)
        _exit(page[0] != 0 || page[-1] != 7);
    int status = 1;
    must(child > 0 && waitpid(child, &status, 0) == child && status == 0, 9);
    must(!madvise(page, PAGE, MADV_KEEPONFORK), 10);
    block = realloc(block, 3 * size);
    must(block && block[0] == 7 && block[size - 1] == 7, 11);
    memset(block, 1, 3 * size);
    free(block);
}

int main(void) {
    void *place = NULL;
    for (size_t size = 64 << 10; size <= 8 << 20; size = size * 3 / 2 / PAGE * PAGE) {
        use(memalign(PAGE, size), size);
        must(posix_memalign(&place, PAGE, size) == 0, 12);
        use(place, size);
        use(aligned_alloc(2 * PAGE, size), size);
        use(valloc(size), size);
        use(pvalloc(size), size);
    }
    return 0;
}
