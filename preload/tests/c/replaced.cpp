// A program that replaces some operators: where C++ says that other operators call these, they must call
// the program's own. Every block of a replaced new has a mark in front, which the replaced delete checks.
#include "check.h"
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

static const std::uint64_t MARK = 0x5ca1ab1e0ddba11;
static long live, made;

[[maybe_unused]] static void *mark(std::size_t size, std::size_t align) {
    // The mark lies below the block; the block's start is one of a larger block of the heap.
    char *start = static_cast<char *>(aligned_alloc(align, (size + 2 * align - 1) & ~(align - 1)));
    CHECK(start);
    memcpy(start, &MARK, sizeof MARK);
    live++;
    made++;
    return start + align;
}

[[maybe_unused]] static void unmark(void *block, std::size_t align) {
    if (!block)
        return;
    char *start = static_cast<char *>(block) - align;
    CHECK(memcmp(start, &MARK, sizeof MARK) == 0);
    memset(start, 0, sizeof MARK);
    free(start);
    live--;
}

static bool plain, array, aligned;

#ifdef PLAIN
void *operator new(std::size_t size) {
    if (size > PTRDIFF_MAX)
        throw std::bad_alloc();
    return mark(size, 16);
}
void operator delete(void *block) noexcept { unmark(block, 16); }
#endif
#ifdef ARRAY
void *operator new[](std::size_t size) { return mark(size, 16); }
void operator delete[](void *block) noexcept { unmark(block, 16); }
#endif
#ifdef ALIGNED
void *operator new(std::size_t size, std::align_val_t a) { return mark(size, static_cast<std::size_t>(a)); }
void operator delete(void *block, std::align_val_t a) noexcept { unmark(block, static_cast<std::size_t>(a)); }
#endif
#ifdef LARGER
// The deletes are not replaced: no block has the size that the program asked for.
void *operator new(std::size_t size) { return malloc(size + 5000); }
#endif

template <class New, class Delete> static void pair(bool marked, New make, Delete end) {
    for (std::size_t size : {1, 40, 1000, 5000, 70000, 3 << 20}) {
        void *block = make(size);
        CHECK(block && live == marked);
        memset(block, 0xa5, size);
        end(block, size);
        CHECK(live == 0);
        // The heap would hand out a block on a wrong list for another size.
        void *other = malloc(size);
        memset(other, 0x5a, size);
        free(other);
    }
}

using std::nothrow;
using std::size_t;
static const std::align_val_t A{64};

int main() {
#ifdef PLAIN
    plain = array = true;
#endif
#ifdef ARRAY
    array = true;
#endif
#ifdef ALIGNED
    aligned = true;
#endif
    auto end = [](void *p, size_t) { ::operator delete(p); };
    auto sized = [](void *p, size_t n) { ::operator delete(p, n); };
    auto silent = [](void *p, size_t) { ::operator delete(p, nothrow); };
    auto end_array = [](void *p, size_t) { ::operator delete[](p); };
    auto sized_array = [](void *p, size_t n) { ::operator delete[](p, n); };
    auto silent_array = [](void *p, size_t) { ::operator delete[](p, nothrow); };
    for (int round = 0; round < 50; round++) {
        pair(plain, [](size_t n) { return ::operator new(n); }, end);
        pair(plain, [](size_t n) { return ::operator new(n); }, sized);
        pair(plain, [](size_t n) { return ::operator new(n, nothrow); }, sized);
        pair(plain, [](size_t n) { return ::operator new(n, nothrow); }, silent);
        pair(array, [](size_t n) { return ::operator new[](n); }, end_array);
        pair(array, [](size_t n) { return ::operator new[](n); }, sized_array);
        pair(array, [](size_t n) { return ::operator new[](n, nothrow); }, sized_array);
        pair(array, [](size_t n) { return ::operator new[](n, nothrow); }, silent_array);
        auto make = [](size_t n) { return ::operator new(n, A); };
        auto make_array = [](size_t n) { return ::operator new[](n, A); };
        pair(aligned, make, [](void *p, size_t) { ::operator delete(p, A); });
        pair(aligned, make, [](void *p, size_t n) { ::operator delete(p, n, A); });
        pair(aligned, make, [](void *p, size_t) { ::operator delete(p, A, nothrow); });
        pair(aligned, make_array, [](void *p, size_t) { ::operator delete[](p, A); });
        pair(aligned, make_array, [](void *p, size_t n) { ::operator delete[](p, n, A); });
        pair(aligned, make_array, [](void *p, size_t) { ::operator delete[](p, A, nothrow); });
        pair(aligned, [](size_t n) { return ::operator new(n, A, nothrow); },
             [](void *p, size_t) { ::operator delete(p, A); });
        delete new std::string(1000, 'x');
        delete[] new std::string[7];
        CHECK(live == 0);
    }
    CHECK((plain || array || aligned) == (made > 0));
#if defined PLAIN && !defined STATIC
    CHECK(::operator new(SIZE_MAX, nothrow) == nullptr && ::operator new[](SIZE_MAX, nothrow) == nullptr);
#endif
    return 0;
}
