/* Writes a mark into blocks of several sizes, and rests or aborts. The mark is not in the binary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    (void)arguments;
    static const size_t sizes[] = {40, 1000, 30000, 1 << 20, 5 << 20};
    char mark[] = "qu|hqkugehq|wpwru"; /* each letter is moved by 2 below */
    for (size_t i = 0; i < sizeof mark - 1; i++)
        mark[i] -= 2;
    for (int i = 0; i < 5; i++) {
        char *block = malloc(sizes[i]);
        if (!block)
            return 1;
        sprintf(block, "%s%d", mark, i);
    }
    if (count > 1)
        abort();
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
