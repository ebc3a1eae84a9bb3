/* Allocates, says so, and does a round of work for each line that it reads. What it does first is its argument. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *kept[64];

static void work(void) {
    static void *blocks[4000];
    for (int i = 0; i < 4000; i++)
        blocks[i] = malloc(3000);
    for (int i = 0; i < 4000; i++)
        free(blocks[i]);
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
        work();
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
