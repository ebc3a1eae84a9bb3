/* spawn ROUNDS LIBRARY PROGRAM ARGUMENT...: runs the program without and with the library in LD_PRELOAD,
 * in turns, and prints "plain_ns preloaded_ns plain_kib preloaded_kib": medians of the wall time, maxima of the
 * resident memory. It is small itself, since a child's maximum counts its parent's memory until exec. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MOST 2000

static long ns[2][MOST], kib[2];

static int compare(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static long run(char **command, char **environment, long *most) {
    struct timespec from, to;
    struct rusage usage;
    pid_t child;
    int status;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (posix_spawn(&child, command[0], 0, 0, command, environment) || wait4(child, &status, 0, &usage) != child || status)
        exit(1);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (usage.ru_maxrss > *most)
        *most = usage.ru_maxrss;
    return (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec;
}

int main(int argc, char **argv) {
    int rounds = argc >= 4 ? atoi(argv[1]) : 0;
    char variable[4096];
    char *environments[2][2] = {{0, 0}, {variable, 0}};
    if (rounds < 1 || rounds > MOST)
        return 2;
    snprintf(variable, sizeof variable, "LD_PRELOAD=%s", argv[2]);
    for (int i = 0; i < rounds; i++)
        for (int with = 0; with < 2; with++)
            ns[with][i] = run(argv + 3, environments[with], &kib[with]);
    for (int with = 0; with < 2; with++)
        qsort(ns[with], rounds, sizeof(long), compare);
    printf("%ld %ld %ld %ld\n", ns[0][rounds / 2], ns[1][rounds / 2], kib[0], kib[1]);
    return 0;
}
