// Every form of operator new and delete, and failures of new.
#include "check.h"
#include <cstddef>
#include <cstdint>
#include <dlfcn.h>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

static bool (*owns)(const void *);
static int calls;
static const std::size_t HUGE = PTRDIFF_MAX;
static const std::size_t sizes[] = {0, 1, 16, 100, 1024, 1025, 5000, 70000, 300000, 3 << 20};

struct alignas(4096) Page {
    char bytes[4096];
    ~Page() {}
};
struct alignas(4 << 20) Giant {
    char byte;
};

static void gives_up() {
    if (++calls == 3)
        std::set_new_handler(nullptr);
}
static void throws() {
    ++calls;
    throw 42;
}

// The answer of `make`: 0 for a block, 1 for null, 2 for bad_alloc, 3 for the handler's own exception.
template <class Make> static int outcome(void (*handler)(), Make make) {
    struct Frame { // unwinding runs destructors on its way
        ~Frame() { std::set_new_handler(nullptr); }
    } frame;
    calls = 0;
    std::set_new_handler(handler);
    try {
        void *volatile block = make();
        return block ? 0 : 1;
    } catch (const std::bad_alloc &) {
        return 2;
    } catch (int what) {
        return what == 42 ? 3 : 4;
    }
}

static void *proper(void *block, std::size_t size, std::size_t align) {
    CHECK(block && reinterpret_cast<std::uintptr_t>(block) % align == 0 && owns(block));
    memset(block, 0x5a, size);
    return block;
}

static void all_forms() {
    using std::align_val_t;
    using std::nothrow;
    for (std::size_t n : sizes) {
        ::operator delete(proper(::operator new(n), n, 16));
        ::operator delete(proper(::operator new(n), n, 16), n);
        ::operator delete(proper(::operator new(n, nothrow), n, 16), nothrow);
        ::operator delete[](proper(::operator new[](n), n, 16));
        ::operator delete[](proper(::operator new[](n), n, 16), n);
        ::operator delete[](proper(::operator new[](n, nothrow), n, 16), nothrow);
        for (std::size_t align = 1; align <= 8 << 20; align *= 4) {
            align_val_t a{align};
            ::operator delete(proper(::operator new(n, a), n, align), a);
            ::operator delete(proper(::operator new(n, a), n, align), n, a);
            ::operator delete(proper(::operator new(n, a, nothrow), n, align), a, nothrow);
            ::operator delete[](proper(::operator new[](n, a), n, align), a);
            ::operator delete[](proper(::operator new[](n, a), n, align), n, a);
            ::operator delete[](proper(::operator new[](n, a, nothrow), n, align), a, nothrow);
        }
    }
    void *null = nullptr;
    ::operator delete(null);
    ::operator delete(null, 16);
    ::operator delete(null, 1 << 20);
    ::operator delete(null, nothrow);
    ::operator delete(null, align_val_t{64});
    ::operator delete(null, 16, align_val_t{64});
    ::operator delete(null, align_val_t{64}, nothrow);
    ::operator delete[](null);
    ::operator delete[](null, 16);
    ::operator delete[](null, nothrow);
    ::operator delete[](null, align_val_t{64});
    ::operator delete[](null, 16, align_val_t{64});
    ::operator delete[](null, align_val_t{64}, nothrow);
}

static void failures() {
    using std::align_val_t;
    using std::nothrow;
    const align_val_t a{64};
    void *(*const throwing[])() = {
        [] { return ::operator new(HUGE); },
        [] { return ::operator new[](HUGE); },
        [] { return ::operator new(HUGE, align_val_t{64}); },
        [] { return ::operator new[](HUGE, align_val_t{64}); },
    };
    void *(*const silent[])() = {
        [] { return ::operator new(HUGE, nothrow); },
        [] { return ::operator new[](HUGE, nothrow); },
        [] { return ::operator new(HUGE, align_val_t{64}, nothrow); },
        [] { return ::operator new[](HUGE, align_val_t{64}, nothrow); },
    };
    (void)a;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 4; i++) {
            CHECK(outcome(nullptr, throwing[i]) == 2 && calls == 0);
            CHECK(outcome(gives_up, throwing[i]) == 2 && calls == 3);
            CHECK(outcome(throws, throwing[i]) == 3 && calls == 1);
            CHECK(outcome(nullptr, silent[i]) == 1 && calls == 0);
            CHECK(outcome(gives_up, silent[i]) == 1 && calls == 3);
            CHECK(outcome(throws, silent[i]) == 1 && calls == 1);
        }
}

static void in_use() {
    std::vector<Page> pages(33);
    CHECK(reinterpret_cast<std::uintptr_t>(pages.data()) % 4096 == 0);
    delete new Giant;
    delete[] new Page[3];
    std::vector<std::string> words;
    for (int i = 0; i < 100000; i++)
        words.push_back(std::to_string(i) + std::string(i % 200, 'x'));
    for (int i = 0; i < 100000; i++)
        CHECK(words[i].size() == std::to_string(i).size() + i % 200);
    try {
        words.reserve(words.max_size());
        CHECK(false);
    } catch (const std::bad_alloc &) {
    }
}

int main() {
    owns = reinterpret_cast<bool (*)(const void *)>(dlsym(RTLD_DEFAULT, "theap_owns"));
    CHECK(owns);
    all_forms();
    failures();
    in_use();
    return 0;
}
