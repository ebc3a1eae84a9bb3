/* A C program that loads a C++ library for that library's own use: host PLUGIN. Without a plugin it
 * calls operator new itself, which cannot throw here and must say so. */
#include "check.h"
#include <dlfcn.h>
#include <stdint.h>

int main(int argc, char **argv) {
    if (argc == 2) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        int (*plugin)(void) = library ? (int (*)(void))dlsym(library, "plugin") : NULL;
        CHECK(plugin);
        CHECK(plugin() == 0);
        CHECK(plugin() == 0);
        CHECK(dlclose(library) == 0);
        return 0;
    }
    void *(*new)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "_Znwm");
    void *(*new_nothrow)(size_t, void *) = (void *(*)(size_t, void *))dlsym(RTLD_DEFAULT, "_ZnwmRKSt9nothrow_t");
    CHECK(new && new_nothrow);
    free(new(100));
    CHECK(new_nothrow(PTRDIFF_MAX, NULL) == NULL);
    new (PTRDIFF_MAX);
    return 0;
}
