/* Threads, forks, dlopen and dlclose, and signals at once: stress MODULE SECONDS. Ends with 0 if nothing
 * crashed, hung or grew. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define SHARED 1024
#define LIVE 400

static _Atomic(unsigned char *) shared[SHARED];
static atomic_int stop;
static atomic_long signals, forks, loads, threads, steps;
static const char *module;

static size_t pick(unsigned random) {
    switch (random % 64) {
    case 0:
        return random / 64 % 3000000;
    case 1 ... 8:
        return random / 64 % 40000;
    default:
        return random / 64 % 1024;
    }
}

/* A block has its size at its start, and its owner at its end. */
static unsigned char *make(size_t size) {
    size += sizeof size;
    unsigned char *block = size % 5 ? malloc(size) : size % 2 ? aligned_alloc(64, size) : calloc(1, size);
    CHECK(block);
    memcpy(block, &size, sizeof size);
    if (size > sizeof size)
        block[size - 1] = (unsigned char)size ^ 0xa5;
    return block;
}

static void check(const unsigned char *block) {
    size_t size;
    memcpy(&size, block, sizeof size);
    CHECK(size <= malloc_usable_size((void *)block));
    CHECK(size == sizeof size || block[size - 1] == ((unsigned char)size ^ 0xa5));
}

static void drop(unsigned char *block) {
    if (block)
        check(block);
    free(block);
}

static void work(unsigned seed, int count) {
    unsigned char *live[LIVE] = {0};
    for (int i = 0; i < count; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned random = seed >> 4;
        int at = (seed >> 20) % LIVE;
        if (random % 3 == 0)
            drop(atomic_exchange(&shared[random % SHARED], make(pick(random))));
        else if (random % 7 == 0 && live[at]) {
            check(live[at]);
            size_t size = sizeof size + pick(random);
            CHECK(live[at] = realloc(live[at], size));
            memcpy(live[at], &size, sizeof size);
            if (size > sizeof size)
                live[at][size - 1] = (unsigned char)size ^ 0xa5;
        } else {
            drop(live[at]);
            live[at] = make(pick(random));
        }
    }
    for (int i = 0; i < LIVE; i++)
        drop(live[i]);
    steps += count;
}

static void *short_lived(void *seed) {
    work((unsigned)(size_t)seed, 500);
    return NULL;
}

static void *worker(void *seed) {
    for (unsigned i = (unsigned)(size_t)seed; !stop; i += WORKERS) {
        work(i, 5000);
        pthread_t id;
        CHECK(pthread_create(&id, NULL, short_lived, (void *)(size_t)i) == 0 && pthread_join(id, NULL) == 0);
        threads++;
    }
    return NULL;
}

static void *forker(void *unused) {
    while (!stop) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            work(forks, 1000);
            for (int i = 0; i < SHARED; i++)
                drop(atomic_exchange(&shared[i], NULL));
            _exit(0);
        }
        int status;
        pid_t ended;
        while ((ended = waitpid(child, &status, 0)) == -1 && errno == EINTR)
            ;
        CHECK(child > 0 && ended == child);
        if (status)
            fprintf(stderr, "a child ended with status %#x\n", status);
        CHECK(status == 0);
        forks++;
    }
    return unused;
}

static void *loader(void *unused) {
    while (!stop) {
        void *library = dlopen(module, RTLD_NOW);
        int (*call)(int) = library ? (int (*)(int))dlsym(library, "module") : NULL;
        CHECK(call && call(3) > 0 && dlclose(library) == 0);
        loads++;
    }
    return unused;
}

static void on_signal(int number) {
    (void)number;
    signals++;
}

static void *signaller(void *targets) {
    struct timespec pause = {0, 200000};
    while (!stop) {
        for (int i = 0; i < WORKERS; i++)
            pthread_kill(((pthread_t *)targets)[i], SIGUSR1);
        kill(getpid(), SIGUSR2);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static long resident_kib(void) {
    long total, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%ld %ld", &total, &resident) == 2);
    fclose(file);
    return resident * 4;
}

/* The most resident memory in this time. */
static long watch(double seconds) {
    struct timespec pause = {0, 20000000};
    long most = 0;
    for (int i = 0; i < seconds * 50; i++) {
        while (nanosleep(&pause, &pause))
            ;
        pause.tv_nsec = 20000000;
        long now = resident_kib();
        most = now > most ? now : most;
    }
    return most;
}

int main(int argc, char **argv) {
    pthread_t ids[WORKERS + 3];
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(argc == 3);
    module = argv[1];
    double seconds = atof(argv[2]);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    for (size_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&ids[i], NULL, worker, (void *)i) == 0);
    CHECK(pthread_create(&ids[WORKERS], NULL, forker, NULL) == 0);
    CHECK(pthread_create(&ids[WORKERS + 1], NULL, loader, NULL) == 0);
    CHECK(pthread_create(&ids[WORKERS + 2], NULL, signaller, ids) == 0);
    long early = watch(seconds / 2), late = watch(seconds / 2);
    stop = 1;
    for (int i = 0; i < WORKERS + 3; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    printf("%ld steps, %ld threads, %ld forks, %ld loads, %ld signals; at most %ld, then %ld KiB\n", steps, threads,
           forks, loads, signals, early, late);
    CHECK(steps && threads && forks && loads && signals);
    CHECK(late <= early + early / 4 + (8 << 10));
    return 0;
}
