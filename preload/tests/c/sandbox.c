/* Shuts itself in before it allocates at all: it is killed for opening a file, and for any advice
   but MADV_DONTNEED and MADV_FREE. Then it uses the heap on several threads. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define IF(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define ANSWER(answer) BPF_STMT(BPF_RET | BPF_K, answer)

static void must(int ok) {
    if (!ok)
        _exit(1);
}

static void shut_in(void) {
    static struct sock_filter filter[] = {
        LOAD(nr),
        IF(__NR_openat, 1),
        ANSWER(SECCOMP_RET_KILL_PROCESS),
#ifdef __NR_open
        IF(__NR_open, 1),
        ANSWER(SECCOMP_RET_KILL_PROCESS),
#endif
        IF(__NR_madvise, 5),
        LOAD(args[2]),
        IF(MADV_DONTNEED, 1),
        ANSWER(SECCOMP_RET_ALLOW),
        IF(MADV_FREE, 2),
        ANSWER(SECCOMP_RET_ALLOW),
        ANSWER(SECCOMP_RET_ALLOW), /* other calls come here */
        ANSWER(SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void *use(void *unused) {
    enum { COUNT = 4000 };
    char *blocks[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            size_t size = 1 + (size_t)i * 7 % 9000;
            must((blocks[i] = malloc(size)) != NULL);
            memset(blocks[i], i, size);
        }
        char *large = calloc(1, 5 << 20);
        must(large && !large[4 << 20]);
        must((large = realloc(large, 40 << 20)) != NULL);
        free(large);
        for (int i = 0; i < COUNT; i++) {
            must(blocks[i][0] == (char)i);
            free(blocks[i]);
        }
        malloc_trim(0);
    }
    return unused;
}

/* With an argument it stays open, and rests, so that a warmer has time for its work. */
int main(int count, char **arguments) {
    (void)arguments;
    if (count == 1)
        shut_in();
    use(NULL);
    for (int i = 0; count > 1 && i < 3; i++) {
        usleep(100000);
        use(NULL);
    }
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        must(!pthread_create(&threads[i], NULL, use, NULL));
    for (int i = 0; i < 4; i++)
        must(!pthread_join(threads[i], NULL));
    return 0;
}
