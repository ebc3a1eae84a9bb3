// A C++ library for a C program: it answers 0 if a failing new throws, and it can catch that here.
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

extern "C" int plugin() {
    std::vector<int> work(1000, 1);
    volatile std::size_t size = PTRDIFF_MAX;
    if (::operator new(size, std::nothrow))
        return 1;
    try {
        ::operator delete(::operator new(size));
    } catch (const std::bad_alloc &) {
        return 0;
    }
    return 2;
}
