/* The library for bare metal, with a table over one static region that is handed out by a bump and a list of what came
 * back. Nothing of a C library but printing is used. */
#include <stdint.h>
#include <stdio.h>

#include "temporal_slab_bare.h"

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("bare.c:%d: %s (last error %u)\n", __LINE__, #what,                             \
                   (unsigned)slab_bare_last_error(heap));                                          \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#define CHUNK ((size_t)256 << 10)
#define REGION ((size_t)32 << 20)

static unsigned char region[REGION] __attribute__((aligned(256 << 10)));
static struct {
    unsigned char used[REGION / CHUNK];
    size_t acquired, released, decommitted;
    /* Instead of what it should: 1 nothing, 2 what is not aligned, 3 what is the heap's already. Counted back. */
    int wrong;
    size_t handed_back;
} table;

static void *acquire(void *context, size_t size, size_t align) {
    size_t count = (size + CHUNK - 1) / CHUNK, first, n;
    if (context != &table || align > CHUNK || table.wrong == 1)
        return NULL;
    if (table.wrong == 2)
        return region + REGION - CHUNK + 64;
    for (first = 0; table.wrong == 3; first++)
        if (table.used[first])
            return region + first * CHUNK;
    for (first = 0; first + count <= REGION / CHUNK; first++) {
        for (n = 0; n < count && !table.used[first + n]; n++)
            ;
        if (n == count) {
            for (n = 0; n < count; n++)
                table.used[first + n] = 1;
            table.acquired += count;
            return region + first * CHUNK;
        }
    }
    return NULL;
}

static void release(void *context, void *base, size_t size) {
    size_t count = (size + CHUNK - 1) / CHUNK, first = (size_t)((unsigned char *)base - region) / CHUNK;
    (void)context;
    if (table.wrong) {
        table.handed_back++;
        return;
    }
    table.released += count;
    while (count--)
        table.used[first + count] = 0;
}

static bool decommit(void *context, void *base, size_t size) {
    (void)context;
    (void)base;
    table.decommitted += size;
    return true;
}

static unsigned char memory[64 << 10] __attribute__((aligned(256)));
static void *objects[2000];

int main(void) {
    SlabPages pages = {&table, 4096, acquire, release, decommit}, broken = pages;
    SlabBare *heap = NULL;
    SlabBareHandle handle;
    size_t held, n, i;
    uint32_t epoch, turn;

    CHECK(slab_bare_size() <= sizeof memory && 256 % slab_bare_align() == 0);
    CHECK(!slab_bare_create(NULL, sizeof memory, &pages));
    CHECK(!slab_bare_create(memory, sizeof memory, NULL));
    CHECK(!slab_bare_create(memory, 8, &pages));
    CHECK(!slab_bare_create(memory + 1, sizeof memory - 1, &pages));
    broken.acquire = NULL;
    CHECK(!slab_bare_create(memory, sizeof memory, &broken));
    broken = pages;
    broken.page = 3000;
    CHECK(!slab_bare_create(memory, sizeof memory, &broken));
    CHECK(!slab_bare_alloc(NULL, 1, 1, 0) && !slab_bare_free(NULL, memory));
    slab_bare_destroy(NULL);
    slab_bare_reclaim(NULL);

    heap = slab_bare_create(memory, sizeof memory, &pages);
    CHECK(heap && slab_bare_epoch_current(heap) == 0);
    /* Phases: after each its memory is back. */
    for (turn = 0; turn < 100; turn++) {
        epoch = turn % 2 ? slab_bare_epoch_open(heap) : slab_bare_epoch_advance(heap);
        CHECK(epoch != 0 && epoch < 32);
        for (n = 0; n < 2000; n++) {
            size_t size = n * 37 % 3000;
            unsigned char *object = slab_bare_alloc(heap, size, (size_t)1 << n % 8, epoch);
            CHECK(object && (uintptr_t)object % ((size_t)1 << n % 8) == 0);
            CHECK(slab_bare_usable_size(heap, object) >= size);
            for (i = 0; i < size; i += 64)
                object[i] = (unsigned char)n;
            objects[n] = object;
        }
        held = slab_bare_held_bytes(heap);
        CHECK(held <= REGION);
        for (n = 0; n < 2000; n++) {
            CHECK(n * 37 % 3000 == 0 || *(unsigned char *)objects[n] == (unsigned char)n);
            CHECK(slab_bare_free(heap, objects[n]));
        }
        CHECK(!slab_bare_free(heap, objects[7]) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_DOUBLE_FREE);
        CHECK(slab_bare_epoch_close(heap, epoch));
        CHECK(!slab_bare_alloc(heap, 10, 1, epoch));
        CHECK(slab_bare_last_error(heap) == SLAB_BARE_ERROR_CLOSED_EPOCH);
    }
    CHECK(table.decommitted > 0);
    /* What is wrong is said. */
    CHECK(!slab_bare_alloc(heap, 10, 3, 0) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_ARGUMENT);
    CHECK(!slab_bare_alloc(heap, SIZE_MAX, 1, 0) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_SIZE);
    CHECK(!slab_bare_alloc(heap, 10, 1, 40) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_BAD_EPOCH);
    CHECK(!slab_bare_alloc(heap, 64 << 20, 1, 0));
    CHECK(slab_bare_last_error(heap) == SLAB_BARE_ERROR_OUT_OF_MEMORY);
    CHECK(!slab_bare_free(heap, &pages) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_BAD_POINTER);
    CHECK(!slab_bare_epoch_close(heap, 0) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_BAD_EPOCH);
    CHECK(slab_bare_free(heap, NULL));
    /* Handles. */
    handle = slab_bare_alloc_obj(heap, 100, 0);
    CHECK(handle && slab_bare_get_obj(heap, handle) && !slab_bare_get_obj(heap, handle + 1));
    CHECK(slab_bare_free_obj(heap, handle) && !slab_bare_free_obj(heap, handle));
    CHECK(slab_bare_last_error(heap) == SLAB_BARE_ERROR_BAD_HANDLE && !slab_bare_get_obj(heap, handle));
    CHECK(!slab_bare_alloc_obj(heap, 1 << 20, 0) && slab_bare_last_error(heap) == SLAB_BARE_ERROR_SIZE);
    /* A table that gives what it should not: an error, what it gave is handed back, and it goes on when it is mended. */
    for (n = 1; n <= 3; n++) {
        slab_bare_reclaim(heap);
        table.wrong = (int)n;
        table.handed_back = 0;
        held = slab_bare_held_bytes(heap);
        CHECK(!slab_bare_alloc(heap, 3 << 20, 1, 0));
        CHECK(slab_bare_last_error(heap) == SLAB_BARE_ERROR_OUT_OF_MEMORY);
        CHECK(slab_bare_held_bytes(heap) == held && (n == 1) == (table.handed_back == 0));
        table.wrong = 0;
        objects[0] = slab_bare_alloc(heap, 3 << 20, 1, 0);
        CHECK(objects[0] && slab_bare_free(heap, objects[0]));
    }
    /* A region of its own, more than once in a row. */
    for (n = 0; n < 50; n++) {
        void *large = slab_bare_alloc(heap, 20 << 20, 1, 0);
        CHECK(large && slab_bare_free(heap, large));
    }
    slab_bare_reclaim(heap);
    slab_bare_destroy(heap);
    heap = NULL;
    CHECK(table.acquired > 0 && table.acquired == table.released);
    puts("the heap works on bare metal");
    return 0;
}
