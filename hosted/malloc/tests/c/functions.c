/* Each function of the library, by what POSIX, C and the GNU library say that it does. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cfree(void *);
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "functions.c:%d: %s\n", __LINE__, #what);                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static int aligned(void *object, size_t to) { return object && (uintptr_t)object % to == 0; }

static int full_of(const unsigned char *object, size_t size, int byte) {
    for (size_t i = 0; i < size; i++)
        if (object[i] != byte)
            return 0;
    return 1;
}

/* Before main, and after it. */
static char *early;
__attribute__((constructor)) static void begin(void) {
    early = malloc(100);
    memset(early, 7, 100);
}
__attribute__((destructor)) static void end(void) { free(early); }

static const size_t sizes[] = {0,    1,    8,     15,    16,     17,      100,     1000,
                               4096, 8192, 10000, 40000, 100000, 1000000, 5000000, 50000000};
#define SIZES (sizeof sizes / sizeof *sizes)

static void plain(void) {
    for (size_t i = 0; i < SIZES; i++) {
        unsigned char *object = malloc(sizes[i]), *other = malloc(sizes[i]);
        CHECK(aligned(object, 16) && object != other);
        CHECK(malloc_usable_size(object) >= sizes[i]);
        memset(object, 1, malloc_usable_size(object));
        memset(other, 2, sizes[i]);
        CHECK(full_of(object, sizes[i], 1));
        free(object);
        free_sized(other, sizes[i]);
        unsigned char *zero = calloc(sizes[i] / 4 + 1, 4);
        CHECK(aligned(zero, 16) && full_of(zero, sizes[i] / 4 * 4, 0));
        cfree(zero);
    }
    CHECK(malloc_usable_size(NULL) == 0);
    free(NULL);
}

static void no_memory(void) {
    volatile size_t most = SIZE_MAX, half = SIZE_MAX / 2;
    errno = 0;
    CHECK(!malloc(most) && errno == ENOMEM);
    errno = 0;
    CHECK(!malloc(half) && errno == ENOMEM);
    errno = 0;
    CHECK(!calloc(half, 4) && errno == ENOMEM);
    errno = 0;
    CHECK(!reallocarray(NULL, half, 4) && errno == ENOMEM);
    char *kept = malloc(50);
    strcpy(kept, "kept");
    errno = 0;
    CHECK(!realloc(kept, most) && errno == ENOMEM && !strcmp(kept, "kept"));
    errno = 0;
    CHECK(!aligned_alloc(64, most - 63) && errno == ENOMEM);
    errno = EDOM;
    free(kept);
    CHECK(errno == EDOM);
    void *result = &errno;
    CHECK(posix_memalign(&result, 64, most - 63) == ENOMEM && result == &errno && errno == EDOM);
    CHECK(!pvalloc(most));
}

/* More than any machine has: addresses are reserved and not counted, so there is something to be had, where the system
 * does not count itself, and it costs what is touched of it. */
static void more_than_there_is(void) {
    size_t much = (size_t)1 << 42;
    errno = 0;
    char *object = malloc(much);
    CHECK(object ? malloc_usable_size(object) >= much : errno == ENOMEM);
    if (object) {
        object[0] = object[much / 2] = object[much - 1] = 9;
        CHECK(object[0] + object[much / 2] + object[much - 1] == 27);
    }
    free(object);
    errno = 0;
    CHECK(!malloc((size_t)1 << 60) && errno == ENOMEM);
}

static void resized(void) {
    for (size_t i = 0; i < SIZES; i++)
        for (size_t j = 1; j < SIZES; j++) {
            unsigned char *object = realloc(NULL, sizes[i]);
            memset(object, 3, sizes[i]);
            object = realloc(object, sizes[j]);
            CHECK(aligned(object, 16));
            size_t kept = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
            CHECK(full_of(object, kept, 3));
            memset(object, 4, sizes[j]);
            /* What was made much shorter does not keep what it had. */
            object = reallocarray(object, 5, 3);
            CHECK(full_of(object, sizes[j] < 15 ? sizes[j] : 15, 4));
            CHECK(malloc_usable_size(object) < 200000);
            CHECK(realloc(object, 0) == NULL);
        }
}

static void aligned_ones(void) {
    for (size_t align = 1; align <= 1 << 23; align *= 2)
        for (size_t size = 0; size < 20000; size = size * 3 + 1) {
            unsigned char *object = memalign(align, size), *other = NULL;
            CHECK(aligned(object, align));
            memset(object, 5, size);
            free_aligned_sized(object, align, size);
            if (align >= sizeof(void *)) {
                CHECK(posix_memalign((void **)&other, align, size) == 0 && aligned(other, align));
                memset(other, 6, size);
                other = realloc(other, size + 100);
                CHECK(full_of(other, size, 6));
                free(other);
            }
            CHECK(aligned(other = aligned_alloc(align, size), align));
            free(other);
        }
    void *result = NULL;
    CHECK(posix_memalign(&result, 3, 10) == EINVAL && posix_memalign(&result, 4, 10) == EINVAL);
    CHECK(posix_memalign(&result, 24, 10) == EINVAL && posix_memalign(&result, 0, 10) == EINVAL);
    errno = 0;
    CHECK(!aligned_alloc(3, 10) && errno == EINVAL);
    CHECK(aligned(result = memalign(0, 10), 16));
    free(result);
    CHECK(aligned(result = memalign(24, 10), 32));
    free(result);
    CHECK(aligned(result = valloc(10), 4096));
    free(result);
    CHECK(aligned(result = pvalloc(5000), 4096) && malloc_usable_size(result) >= 8192);
    free(result);
}

static pthread_key_t key;
static void at_end(void *object) {
    /* Others' destructors ran; memory is still there. */
    free(object);
    free(malloc(1000));
}
static void *thread(void *argument) {
    pthread_setspecific(key, malloc(500));
    void *object = malloc((size_t)argument);
    memset(object, 8, (size_t)argument);
    return object;
}
static void threads(void) {
    CHECK(pthread_key_create(&key, at_end) == 0);
    for (size_t round = 0; round < 200; round++) {
        pthread_t ids[4];
        for (size_t i = 0; i < 4; i++)
            CHECK(pthread_create(&ids[i], NULL, thread, (void *)(i * 3000 + 10)) == 0);
        for (size_t i = 0; i < 4; i++) {
            void *object;
            CHECK(pthread_join(ids[i], &object) == 0 && full_of(object, i * 3000 + 10, 8));
            free(object);
        }
    }
}

int main(void) {
    CHECK(full_of((unsigned char *)early, 100, 7));
    plain();
    no_memory();
    more_than_there_is();
    resized();
    aligned_ones();
    threads();
    malloc_trim(0);
    puts("every function does what it should");
    return 0;
}
