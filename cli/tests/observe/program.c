/* Allocates, says so, and does a round of work for each line that it reads. What it does first is its argument. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *kept[64];

static void work(void) {
    static void *blocks[4000];
    for (int i = 0; i < 4000; i++)
        blocks[i] = malloc(3000);
    for (int i = 0; i < 4000; i++)
        free(blocks[i]);
}

/* Leaves theap, and publishes what looks like another build's. */
static void publish_otherwise(void) {
    if (getenv("LD_PRELOAD")) {
        unsetenv("LD_PRELOAD");
        execl("/proc/self/exe", "observed-program", "other", (char *)0);
    }
    int fd = memfd_create("theap-stats", MFD_ALLOW_SEALING);
    write(fd, "theap\0\0\1other", 13);
    ftruncate(fd, 1 << 20);
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
    mmap(0, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    /* Output allocates nothing. */
    static char buffer[256];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    for (int i = 0; i < 64; i++)
        kept[i] = malloc(100 << 10);
    if (!strcmp(what, "close"))
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    if (!strcmp(what, "other"))
        publish_otherwise();
    if (!strcmp(what, "fork")) {
        pid_t child = fork();
        if (child != 0) {
            printf("%d\n", child);
            fflush(stdout);
            /* Only the child works. */
            for (char c; read(0, &c, 1) == 1 && c != 'x';)
                ;
            return 0;
        }
    } else {
        printf("%d\n", getpid());
        fflush(stdout);
    }
    for (char c; read(0, &c, 1) == 1;) {
        if (c == 'e')
            execl("/proc/self/exe", argv[0], (char *)0);
        work();
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
