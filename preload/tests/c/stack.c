/* The stack that theap takes: the deepest path of its functions, on a stack that is painted before, and calls
 * on the smallest stacks that programs have. The first argument names what is tried first in the process. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM (256 << 10)
#define PAINT 0x5a
#define BLOCKS 4096
#define SMALLEST 16384 /* PTHREAD_STACK_MIN of this machine */
#define SIGNAL_STACK 8192

static _Alignas(64) unsigned char stack[ROOM];
static void *blocks[BLOCKS];
static void *one;
static size_t size;

/* Calls `work` on the painted stack; the answer is how many bytes of it were written to. */
static size_t depth(void (*work)(void)) {
    memset(stack, PAINT, ROOM);
    void *top = stack + ROOM;
    __asm__ volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tcall *%1\n\tmov %%rbx, %%rsp"
                     : "+a"(top), "+d"(work)
                     :
                     : "rbx", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
                       "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    size_t at = 0;
    while (at < ROOM && stack[at] == PAINT)
        at++;
    return ROOM - at;
}

static void do_malloc(void) { one = malloc(size); }
static void do_calloc(void) { one = calloc(1, size); }
static void do_realloc(void) { one = realloc(one, size); }
static void do_memalign(void) { one = memalign(4096, size); }
static void do_free(void) { free(one); }
static void do_nothing(void) {}

static void take_all(void) {
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = malloc(size);
}

static void free_all(void) {
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static void tell(const char *name, void (*work)(void)) {
    size_t bytes = depth(work);
    char text[96];
    int len = snprintf(text, sizeof text, "%s %zu\n", name, bytes);
    CHECK(write(1, text, len) == len);
}

static void *in_thread(void *work) {
    tell("thread", work);
    CHECK(one);
    tell("again", do_free);
    return NULL;
}

static void *frees_first(void *nothing) {
    (void)nothing;
    tell("remote", free_all);
    return NULL;
}

static void start(void *(*what)(void *), void *argument, pthread_attr_t *attributes) {
    pthread_t thread;
    CHECK(pthread_create(&thread, attributes, what, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Blocks of one size: the heap grows, and all of it goes back, from this thread and from another. */
static void both_ways(size_t bytes) {
    size = bytes;
    tell("grow", take_all);
    for (int i = 0; i < BLOCKS; i++)
        CHECK(blocks[i]);
    tell("shrink", free_all);
    tell("grow-again", take_all);
    start(frees_first, NULL, NULL);
}

static void paths(const char *first) {
    size = strcmp(first, "large") == 0 ? 5 << 20 : 100;
    void (*work)(void) = do_malloc;
    if (strcmp(first, "calloc") == 0)
        work = do_calloc;
    else if (strcmp(first, "realloc") == 0)
        work = do_realloc;
    else if (strcmp(first, "memalign") == 0)
        work = do_memalign;
    tell("nothing", do_nothing);
    tell(first, work);
    CHECK(one);
    memset(one, 1, size);
    tell("free", do_free);
    start(in_thread, do_malloc, NULL);
    size = 100;
    tell("warm-malloc", do_malloc);
    tell("warm-free", do_free);
    static const size_t sizes[] = {16, 1000, 20000, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        both_ways(sizes[i]);
    one = NULL;
    static const size_t resized[] = {10, 1000, 300000, 3 << 20, 40 << 20, 100, 50 << 20, 1 << 20};
    for (size_t i = 0; i < sizeof resized / sizeof *resized; i++) {
        size = resized[i];
        tell("resize", do_realloc);
        CHECK(one);
    }
    tell("free-run", do_free);
    size = 7 << 20;
    tell("calloc-run", do_calloc);
    tell("free-run", do_free);
    tell("memalign-run", do_memalign);
    tell("free-run", do_free);
    size = SIZE_MAX / 4;
    tell("impossible", do_malloc);
    CHECK(!one);
}

static FILE *report;

static void do_mallinfo(void) {
    struct mallinfo2 (*volatile info2)(void) = mallinfo2;
    CHECK(info2().arena > 0);
}

static void do_mallinfo_1(void) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    CHECK(mallinfo().arena > 0);
#pragma GCC diagnostic pop
}

static void do_stats(void) { malloc_stats(); }
static void do_info(void) { CHECK(malloc_info(0, report) == 0); }
static void do_trim(void) { malloc_trim(0); }

static void use_and_report(void) {
    for (size = 16; size < 200000; size *= 2) {
        take_all();
        free_all();
    }
    do_mallinfo();
    do_mallinfo_1();
    do_stats();
    do_info();
    do_trim();
    size = 100;
    do_malloc();
    do_free();
    pid_t child = fork();
    if (child == 0) {
        take_all();
        _exit(blocks[BLOCKS - 1] ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void *small_thread(void *nothing) {
    use_and_report();
    return nothing;
}

/* The smallest stack that a thread can have; a page that cannot be touched lies below it. */
static void on_small_thread(void) {
    report = fopen("/dev/null", "w");
    CHECK(report && setvbuf(report, NULL, _IONBF, 0) == 0);
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, SMALLEST) == 0);
    start(small_thread, NULL, &attributes);
}

static void reports(void) {
    report = fopen("/dev/null", "w");
    CHECK(report && setvbuf(report, NULL, _IONBF, 0) == 0);
    size = 100;
    take_all();
    tell("mallinfo2", do_mallinfo);
    tell("mallinfo", do_mallinfo_1);
    tell("malloc_stats", do_stats);
    tell("malloc_info", do_info);
    tell("malloc_trim", do_trim);
}

static volatile sig_atomic_t handled;

static void handler(int signal) {
    (void)signal;
    for (size = 16; size < 200000; size *= 2) {
        take_all();
        for (int i = 0; i < BLOCKS; i++)
            if (!blocks[i])
                _exit(3);
        free_all();
    }
    handled = 1;
}

/* The first call of the process is made by a handler on a stack of 8 KiB, below which nothing can be touched. */
static void on_signal_stack(void) {
    char *room = mmap(NULL, 4096 + SIGNAL_STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED);
    CHECK(mprotect(room + 4096, SIGNAL_STACK, PROT_READ | PROT_WRITE) == 0);
    stack_t alternate = {.ss_sp = room + 4096, .ss_size = SIGNAL_STACK};
    CHECK(sigaltstack(&alternate, NULL) == 0);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(raise(SIGUSR1) == 0 && handled);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    if (strcmp(arguments[1], "small-thread") == 0)
        on_small_thread();
    else if (strcmp(arguments[1], "signal-stack") == 0)
        on_signal_stack();
    else if (strcmp(arguments[1], "reports") == 0)
        reports();
    else
        paths(arguments[1]);
    return 0;
}
