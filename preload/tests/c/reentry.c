/* C library functions that the allocator calls while it sets up itself or a thread; here they allocate. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

static int calls;

static void use(void) {
    void *blocks[20];
    calls++;
    for (int i = 0; i < 20; i++)
        CHECK(blocks[i] = malloc(i * i * 1000));
    for (int i = 0; i < 20; i++)
        free(blocks[i]);
}

int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    use();
    int (*real)(pthread_key_t *, void (*)(void *)) =
        (int (*)(pthread_key_t *, void (*)(void *)))dlsym(RTLD_NEXT, "pthread_key_create");
    int answer = real(key, destructor);
    use();
    return answer;
}

int pthread_setspecific(pthread_key_t key, const void *value) {
    use();
    int (*real)(pthread_key_t, const void *) =
        (int (*)(pthread_key_t, const void *))dlsym(RTLD_NEXT, "pthread_setspecific");
    int answer = real(key, value);
    use();
    return answer;
}

int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library) {
    use();
    int (*real)(void (*)(void), void (*)(void), void (*)(void), void *) =
        (int (*)(void (*)(void), void (*)(void), void (*)(void), void *))dlsym(RTLD_NEXT, "__register_atfork");
    int answer = real(prepare, parent, child, library);
    use();
    return answer;
}

static void *thread(void *unused) {
    use();
    return unused;
}

int main(void) {
    pthread_t id;
    use();
    CHECK(calls > 6); /* two calls in each of the three */
    for (int i = 0; i < 10; i++)
        CHECK(pthread_create(&id, NULL, thread, NULL) == 0 && pthread_join(id, NULL) == 0);
    return 0;
}
