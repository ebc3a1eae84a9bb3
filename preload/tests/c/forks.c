/* fork in a process whose threads allocate: forks ROUNDS. Parent and children must be able to
 * allocate, to free each other's blocks, and to end. Fork handlers that the process registered before
 * the first allocation may allocate. Then the program calls vfork, posix_spawn, and system, and a thread
 * that ends forks. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define SHARED 256

static _Atomic(void *) shared[SHARED]; /* blocks on their way from one thread to another */
static atomic_int stop;

static void work(unsigned seed, int steps) {
    for (int i = 0; i < steps; i++) {
        seed = seed * 1103515245 + 12345;
        size_t size = (seed >> 16) % 100 ? (seed >> 8) % 2000 : (seed >> 8) % 600000;
        char *block = malloc(size + 1);
        CHECK(block);
        block[0] = block[size] = 1;
        free(atomic_exchange(&shared[(seed >> 4) % SHARED], block));
    }
}

/* Around every fork: more than any cache holds, of small blocks and of large ones. */
static void handler(void) {
    static void *kept[40];
    for (int i = 0; i < 40; i++) {
        free(kept[i]);
        CHECK(kept[i] = malloc(i % 2 ? 300000 + i * 7000 : i * 1000));
    }
    for (int i = 1; i < 40000; i += 97)
        free(malloc(i));
}

/* Before all constructors, and before the first allocation. */
static void preinit(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    pthread_atfork(handler, handler, handler);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(int, char **, char **) = preinit;

static void *worker(void *seed) {
    for (unsigned i = 0; !stop; i++)
        work(i * 77 + (unsigned)(size_t)seed, 1000);
    return NULL;
}

static void *once(void *seed) {
    work((unsigned)(size_t)seed, 2000);
    return NULL;
}

static void ends_well(pid_t child) {
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (status)
        fprintf(stderr, "a child ended with status %#x\n", status);
    CHECK(status == 0);
}

static void in_child(int round) {
    alarm(20); /* a deadlock ends here */
    work(round, 3000);
    for (int i = 0; i < SHARED; i++)
        free(atomic_exchange(&shared[i], NULL));
    if (round % 8 == 0) {
        pthread_t id;
        CHECK(pthread_create(&id, NULL, once, NULL) == 0 && pthread_join(id, NULL) == 0);
        ends_well(fork() ?: (work(1, 100), _exit(0), 0));
    }
    round % 2 ? exit(0) : _exit(0);
}

static void *forker(void *unused) {
    (void)unused;
    pid_t child = fork();
    if (child == 0) {
        work(3, 1000);
        pthread_exit(NULL); /* the child's last thread: the process ends with 0 */
    }
    ends_well(child);
    return NULL;
}

int main(int argc, char **argv) {
    extern char **environ;
    pthread_t ids[THREADS], id;
    char *arguments[] = {"/bin/true", NULL};
    pid_t child;
    CHECK(argc == 2);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&ids[i], NULL, worker, (void *)i) == 0);
    for (int round = 0; round < atoi(argv[1]); round++) {
        child = fork();
        if (child == 0)
            in_child(round);
        ends_well(child);
        work(round, 10);
        if (round % 16 == 0) {
            child = vfork();
            if (child == 0) {
                execve(arguments[0], arguments, environ);
                _exit(1);
            }
            ends_well(child);
            CHECK(posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) == 0);
            ends_well(child);
            CHECK(system("exit 7") == 7 << 8);
            CHECK(pthread_create(&id, NULL, forker, NULL) == 0 && pthread_join(id, NULL) == 0);
        }
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    return 0;
}
