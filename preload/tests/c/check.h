/* Checks that end the program with the place of the first that fails. */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                      \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                 \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

/* The answer of a call that must leave errno alone, or set it. */
#define KEEPS(call) (errno = 1234, CHECK_ERRNO((call), 1234))
#define CHECK_ERRNO(answer, wanted)                                                                           \
    __extension__({                                                                                           \
        __typeof__(answer) answered = (answer);                                                               \
        CHECK(errno == (wanted));                                                                             \
        answered;                                                                                             \
    })
#define FAILS(call, error)                                                                                    \
    do {                                                                                                      \
        errno = 1234;                                                                                         \
        CHECK((call) == NULL && errno == (error));                                                            \
    } while (0)
#endif
