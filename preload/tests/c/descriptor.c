/* Descriptor 2 gets another file after the start. The first argument says when and which, the
   second is a path for a data file. Whoever asks for too much then may not find a message in it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Status 1: null is not the answer; 2: a call for the files failed. */
static void must(int ok, int status) {
    if (!ok)
        _exit(status);
}

/* Asks for more than the heap has: a message, where there is one. */
static void use_up(void) {
    for (int i = 0; i < 1000; i++)
        if (!malloc(1 << 20))
            return;
    _exit(1);
}

/* Asks for what no process can have. */
static void ask_for_too_much(void) {
    static const size_t sizes[] = {(size_t)1 << 60,  (size_t)1 << 50, PTRDIFF_MAX, SIZE_MAX,
                                   SIZE_MAX - 4096, ((size_t)1 << 47) + 1};
    void *block = malloc(1 << 20), *small = malloc(10), *place = NULL;
    for (int i = 0; i < 6; i++) {
        must(!malloc(sizes[i]) && !calloc(1, sizes[i]) && !realloc(block, sizes[i]) && !realloc(small, sizes[i]), 1);
        must(!aligned_alloc(64, sizes[i]) && posix_memalign(&place, 1 << 20, sizes[i]) && !valloc(sizes[i]), 1);
    }
    must(!aligned_alloc((size_t)1 << 62, 1) && !aligned_alloc((size_t)1 << 48, 100), 1);
}

int main(int count, char **arguments) {
    must(count == 3, 2);
    int data = open(arguments[2], O_RDWR | O_CREAT | O_TRUNC, 0600), kept = dup(2);
    if (strcmp(arguments[1], "absurd") == 0) {
        ask_for_too_much();
        return 0;
    }
    if (strcmp(arguments[1], "same") == 0) { /* away and back again */
        must(dup2(data, 2) == 2 && dup2(kept, 2) == 2, 2);
        use_up();
        return 0;
    }
    if (strcmp(arguments[1], "closed") == 0) {
        close(2);
        use_up();
        return 0;
    }
    /* The data file, also where descriptor 2 was closed at the start. */
    must(data == 2 || dup2(data, 2) == 2, 2);
    must(write(2, "DATA", 4) == 4, 2);
    use_up();
    ask_for_too_much();
    return 0;
}
