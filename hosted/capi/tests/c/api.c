/* Every function of the header, in C and in C++: what it does, and what it says of what it cannot do. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temporal_slab.h"

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "api.c:%d: %s (last error: %s)\n", __LINE__, #what,                    \
                    slab_error_text((uint32_t)slab_last_error()));                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* It fails, and this is why. */
#define FAILS(why, what)                                                                           \
    do {                                                                                           \
        slab_clear_error();                                                                        \
        CHECK(!(what));                                                                            \
        CHECK(slab_last_error() == SLAB_ERROR_##why);                                              \
    } while (0)

static void nulls(void) {
    SlabHandle handle = 5;
    PerfCounters counters;
    SlabGlobalStats global;
    SlabClassStats of_class;
    SlabEpochStats of_epoch;
    int object = 0;
    slab_allocator_free(NULL);
    slab_reclaim(NULL);
    slab_set_limit(NULL, 5);
    slab_free(NULL, NULL);
    slab_free(NULL, &object);
    FAILS(ARGUMENT, epoch_current(NULL) != UINT32_MAX);
    FAILS(ARGUMENT, epoch_advance(NULL) != UINT32_MAX);
    FAILS(ARGUMENT, epoch_close(NULL, 0));
    FAILS(ARGUMENT, slab_malloc_epoch(NULL, 10, 0));
    FAILS(ARGUMENT, slab_usable_size(NULL, &object));
    FAILS(ARGUMENT, alloc_obj_epoch(NULL, 10, 0, &handle));
    CHECK(handle == 0);
    FAILS(ARGUMENT, alloc_obj_epoch(NULL, 10, 0, NULL));
    FAILS(ARGUMENT, get_obj(NULL, 1));
    FAILS(ARGUMENT, free_obj(NULL, 1));
    FAILS(ARGUMENT, slab_epoch_set_label(NULL, 0, "x"));
    FAILS(ARGUMENT, slab_epoch_inc_refcount(NULL, 0));
    FAILS(ARGUMENT, slab_epoch_dec_refcount(NULL, 0));
    FAILS(ARGUMENT, slab_epoch_get_refcount(NULL, 0));
    FAILS(ARGUMENT, epoch_domain_create(NULL));
    FAILS(ARGUMENT, epoch_domain_wrap(NULL, 0, false));
    FAILS(ARGUMENT, epoch_domain_enter(NULL));
    FAILS(ARGUMENT, epoch_domain_exit(NULL));
    FAILS(ARGUMENT, epoch_domain_force_close(NULL));
    CHECK(epoch_domain_destroy(NULL) && epoch_domain_current() == NULL);
    FAILS(ARGUMENT, get_perf_counters(NULL, 0, &counters));
    FAILS(ARGUMENT, slab_stats_global(NULL, &global));
    FAILS(ARGUMENT, slab_stats_class(NULL, 0, &of_class));
    FAILS(ARGUMENT, slab_stats_epoch(NULL, 0, &of_epoch));
}

static void epochs(SlabAllocator *alloc) {
    EpochId first, second, turn;
    SlabEpochStats stats;
    CHECK(epoch_current(alloc) == 0);
    FAILS(BAD_EPOCH, epoch_close(alloc, 0));
    FAILS(BAD_EPOCH, epoch_close(alloc, 1000000));
    FAILS(BAD_EPOCH, epoch_close(alloc, UINT32_MAX));
    FAILS(BAD_EPOCH, slab_malloc_epoch(alloc, 10, 77));
    CHECK(slab_epoch_open(NULL) == UINT32_MAX && slab_last_error() == SLAB_ERROR_ARGUMENT);
    first = epoch_advance(alloc);
    CHECK(first == 1 && epoch_current(alloc) == first);
    CHECK(slab_epoch_set_label(alloc, first, "a label that is longer than there is room for it"));
    FAILS(ARGUMENT, slab_epoch_set_label(alloc, first, NULL));
    CHECK(slab_stats_epoch(alloc, first, &stats) && stats.version == 1 && stats.is_open);
    CHECK(!strcmp(stats.label, "a label that is longer than the"));
    CHECK(slab_epoch_inc_refcount(alloc, first) && slab_epoch_inc_refcount(alloc, first));
    CHECK(slab_epoch_get_refcount(alloc, first) == 2);
    CHECK(slab_epoch_dec_refcount(alloc, first) && slab_epoch_dec_refcount(alloc, first));
    FAILS(MISUSE, slab_epoch_dec_refcount(alloc, first));
    second = epoch_advance(alloc);
    CHECK(second == 2);
    FAILS(CLOSED_EPOCH, slab_malloc_epoch(alloc, 10, first));
    FAILS(CLOSED_EPOCH, epoch_close(alloc, first));
    CHECK(epoch_close(alloc, second) && epoch_current(alloc) == 0);
    FAILS(CLOSED_EPOCH, slab_epoch_inc_refcount(alloc, second));
    /* The ring goes round: there is always a next one. */
    for (turn = 0; turn < 1000; turn++) {
        EpochId next = epoch_advance(alloc);
        void *object = slab_malloc_epoch(alloc, turn, next);
        CHECK(next != 0 && next < 1000 && object);
        slab_free(alloc, object);
    }
    CHECK(epoch_close(alloc, epoch_current(alloc)));
}

/* An epoch for each request, each of which leaves something: none is refused, and memory is not a block for each. */
static void requests(SlabAllocator *alloc) {
    enum { KEPT = 1000 };
    static void *kept[KEPT];
    SlabGlobalStats before, now;
    int turn, n;
    slab_reclaim(alloc);
    CHECK(slab_stats_global(alloc, &before));
    for (turn = 0; turn < 20 * KEPT; turn++) {
        EpochId request = slab_epoch_open(alloc);
        void *objects[20];
        CHECK(request != UINT32_MAX && request != epoch_current(alloc));
        for (n = 0; n < 20; n++) {
            CHECK((objects[n] = slab_malloc_epoch(alloc, 10 + 40 * n, request)));
            memset(objects[n], turn, 10 + 40 * n);
        }
        slab_free(alloc, kept[turn % KEPT]);
        CHECK((kept[turn % KEPT] = slab_malloc_epoch(alloc, 100, request)));
        for (n = 0; n < 20; n++)
            slab_free(alloc, objects[n]);
        CHECK(epoch_close(alloc, request));
    }
    CHECK(slab_stats_global(alloc, &now) && now.closing_epochs == KEPT);
    CHECK(now.resident_bytes < before.resident_bytes + (2 << 20));
    for (n = 0; n < KEPT; n++) {
        slab_free(alloc, kept[n]);
        kept[n] = NULL;
    }
    CHECK(slab_stats_global(alloc, &now) && now.closing_epochs == before.closing_epochs);
}

static void objects(SlabAllocator *alloc) {
    static const size_t sizes[] = {0, 1, 16, 100, 768, 8192, 30000, 200000, 9000000};
    unsigned char *objects[9];
    int on_stack = 0;
    size_t i, n;
    EpochId epoch = epoch_advance(alloc);
    for (i = 0; i < 9; i++) {
        objects[i] = (unsigned char *)slab_malloc_epoch(alloc, sizes[i], i % 2 ? epoch : 0);
        CHECK(objects[i] && (uintptr_t)objects[i] % 16 == 0);
        CHECK(slab_usable_size(alloc, objects[i]) >= sizes[i]);
        memset(objects[i], (int)i, sizes[i]);
    }
    FAILS(SIZE, slab_malloc_epoch(alloc, SIZE_MAX, epoch));
    FAILS(SIZE, slab_malloc_epoch(alloc, SIZE_MAX / 2 + 1, epoch));
    FAILS(BAD_POINTER, slab_usable_size(alloc, &on_stack));
    FAILS(ARGUMENT, slab_usable_size(alloc, NULL));
    for (i = 0; i < 9; i++) {
        for (n = 0; n < sizes[i]; n += 97)
            CHECK(objects[i][n] == i);
        if (sizes[i] > 8) {
            slab_clear_error();
            slab_free(alloc, objects[i] + 8);
            CHECK(slab_last_error() == SLAB_ERROR_BAD_POINTER);
        }
        slab_clear_error();
        slab_free(alloc, objects[i]);
        CHECK(slab_last_error() == SLAB_ERROR_NONE);
        slab_free(alloc, objects[i]);
        CHECK(slab_last_error() == SLAB_ERROR_DOUBLE_FREE ||
              slab_last_error() == SLAB_ERROR_BAD_POINTER);
    }
    slab_clear_error();
    slab_free(alloc, NULL);
    CHECK(slab_last_error() == SLAB_ERROR_NONE);
    slab_free(alloc, &on_stack);
    CHECK(slab_last_error() == SLAB_ERROR_BAD_POINTER);
    CHECK(epoch_close(alloc, epoch));
}

static void handles(SlabAllocator *alloc) {
    SlabHandle handle, other, wild = 1;
    int i;
    EpochId epoch = epoch_advance(alloc);
    char *object = (char *)alloc_obj_epoch(alloc, 100, epoch, &handle);
    CHECK(object && handle && get_obj(alloc, handle) == object);
    strcpy(object, "an object");
    CHECK(alloc_obj_epoch(alloc, 0, 0, &other) && other != handle);
    CHECK(free_obj(alloc, other));
    FAILS(BAD_HANDLE, free_obj(alloc, other));
    FAILS(BAD_HANDLE, get_obj(alloc, other));
    FAILS(BAD_HANDLE, get_obj(alloc, 0));
    FAILS(ARGUMENT, alloc_obj_epoch(alloc, 10, epoch, NULL));
    FAILS(SIZE, alloc_obj_epoch(alloc, 100000, epoch, &other));
    CHECK(other == 0);
    FAILS(BAD_EPOCH, alloc_obj_epoch(alloc, 10, 5000000, &other));
    /* Known by its handle, and not to be freed by its address. */
    slab_clear_error();
    slab_free(alloc, object);
    CHECK(slab_last_error() == SLAB_ERROR_BAD_POINTER);
    for (i = 0; i < 100000; i++) {
        wild = wild * 6364136223846793005u + 1442695040888963407u;
        CHECK(wild == handle || !get_obj(alloc, wild));
    }
    CHECK(!strcmp((char *)get_obj(alloc, handle), "an object"));
    CHECK(epoch_close(alloc, epoch));
    CHECK(get_obj(alloc, handle) == object && free_obj(alloc, handle));
    FAILS(BAD_HANDLE, free_obj(alloc, handle));
}

static void domains(SlabAllocator *alloc) {
    epoch_domain_t *nested[40], *domain, *over_first;
    int i;
    EpochId epoch = epoch_advance(alloc);
    domain = epoch_domain_create(alloc);
    CHECK(domain && domain->epoch_id == epoch && !domain->auto_close && domain->alloc == alloc);
    CHECK(epoch_domain_enter(domain) && epoch_domain_current() == domain);
    CHECK(slab_epoch_get_refcount(alloc, epoch) == 1);
    FAILS(MISUSE, epoch_domain_destroy(domain));
    FAILS(MISUSE, epoch_domain_force_close(domain));
    for (i = 0; i < 40; i++) {
        nested[i] = epoch_domain_wrap(alloc, epoch, false);
        CHECK(epoch_domain_enter(nested[i]) && epoch_domain_current() == nested[i]);
    }
    FAILS(MISUSE, epoch_domain_exit(domain));
    CHECK(slab_epoch_get_refcount(alloc, epoch) == 41);
    for (i = 39; i >= 0; i--)
        CHECK(epoch_domain_exit(nested[i]) && epoch_domain_destroy(nested[i]));
    CHECK(epoch_domain_exit(domain) && epoch_domain_current() == NULL);
    FAILS(MISUSE, epoch_domain_exit(domain));
    /* Of its own it closes nothing. */
    slab_free(alloc, slab_malloc_epoch(alloc, 10, epoch));
    CHECK(epoch_domain_enter(domain) && epoch_domain_enter(domain) && domain->entered == 2);
    CHECK(epoch_domain_exit(domain) && epoch_domain_exit(domain));
    CHECK(epoch_domain_force_close(domain));
    FAILS(CLOSED_EPOCH, epoch_domain_force_close(domain));
    FAILS(CLOSED_EPOCH, epoch_domain_enter(domain));
    FAILS(CLOSED_EPOCH, epoch_domain_wrap(alloc, epoch, true));
    FAILS(BAD_EPOCH, epoch_domain_wrap(alloc, 5000000, true));
    CHECK(epoch_domain_destroy(domain));
    /* One that closes when the last one leaves. */
    epoch = epoch_advance(alloc);
    domain = epoch_domain_wrap(alloc, epoch, true);
    CHECK(epoch_domain_enter(domain) && epoch_domain_enter(domain));
    CHECK(epoch_domain_exit(domain));
    slab_free(alloc, slab_malloc_epoch(alloc, 10, epoch));
    CHECK(slab_last_error() != SLAB_ERROR_NONE || epoch_domain_exit(domain));
    if (domain->entered)
        CHECK(epoch_domain_exit(domain));
    FAILS(CLOSED_EPOCH, slab_malloc_epoch(alloc, 10, epoch));
    CHECK(epoch_domain_destroy(domain));
    /* Over the first epoch, which nobody closes. */
    over_first = epoch_domain_wrap(alloc, 0, true);
    CHECK(epoch_domain_enter(over_first) && epoch_domain_exit(over_first));
    FAILS(BAD_EPOCH, epoch_domain_force_close(over_first));
    CHECK(epoch_domain_destroy(over_first));
}

static void figures(SlabAllocator *alloc) {
    static const unsigned sizes[] = {64, 96, 128, 192, 256, 384, 512, 768};
    PerfCounters counters;
    SlabGlobalStats before, now;
    SlabClassStats of_class;
    SlabEpochStats of_epoch;
    void *objects[1000];
    uint32_t i;
    int n;
    CHECK(slab_stats_global(alloc, &before) && before.version == 1 && before.ring == UINT32_MAX);
    for (i = 0; i < 8; i++) {
        uint64_t slabs;
        CHECK(get_perf_counters(alloc, i, &counters));
        slabs = counters.new_slab_count;
        for (n = 0; n < 1000; n++)
            CHECK((objects[n] = slab_malloc_epoch(alloc, sizes[i], 0)));
        CHECK(get_perf_counters(alloc, i, &counters));
        CHECK(counters.new_slab_count >= slabs + 1000 / 64 && counters.slow_path_hits > 0);
        CHECK(counters.current_partial_null + counters.current_partial_full ==
              counters.slow_path_hits);
        for (n = 0; n < 1000; n++)
            slab_free(alloc, objects[n]);
    }
    FAILS(ARGUMENT, get_perf_counters(alloc, 8, &counters));
    FAILS(ARGUMENT, get_perf_counters(alloc, 0, NULL));
    slab_reclaim(alloc);
    CHECK(get_perf_counters(alloc, 0, &counters) && counters.empty_slab_recycled > 0);
    for (i = 0; slab_stats_class(alloc, i, &of_class); i++)
        CHECK(of_class.version == 1 && of_class.object_bytes >= 16);
    CHECK(i > 16 && slab_last_error() == SLAB_ERROR_ARGUMENT);
    CHECK(slab_stats_epoch(alloc, 0, &of_epoch) && !strcmp(of_epoch.label, "root"));
    FAILS(ARGUMENT, slab_stats_epoch(alloc, 0, NULL));
    FAILS(ARGUMENT, slab_stats_global(alloc, NULL));
    CHECK(slab_stats_global(alloc, &now) && now.live_objects == before.live_objects);
    CHECK(now.committed_bytes >= now.resident_bytes && read_rss_bytes_linux() > now.resident_bytes / 2);
}

static SlabAllocator *shared;
static epoch_domain_t *left_inside;
static pthread_key_t key;
static volatile int over, wrong;

static void at_end(void *unused) {
    (void)unused;
    /* The thread has left all domains by now, or says so: it does not end the process. */
    if (epoch_domain_current())
        wrong++;
}

static void *ends_inside(void *unused) {
    (void)unused;
    pthread_setspecific(key, shared);
    if (!epoch_domain_enter(left_inside))
        wrong++;
    return NULL;
}

static void *advances(void *unused) {
    int i;
    (void)unused;
    for (i = 0; i < 20000; i++)
        if (epoch_advance(shared) == UINT32_MAX)
            wrong++;
    over = 1;
    return NULL;
}

static void *busy(void *unused) {
    (void)unused;
    while (!over)
        slab_free(shared, slab_malloc_epoch(shared, 20000, 0));
    return NULL;
}

/* What threads do to each other: one that ends inside a domain leaves it, what is current is known at once, and a child
 * of a busy program can allocate. */
static void threads(void) {
    pthread_t id, other;
    int i;
    shared = slab_allocator_create();
    CHECK(shared && !pthread_key_create(&key, at_end));
    left_inside = epoch_domain_create(shared);
    CHECK(!pthread_create(&id, NULL, ends_inside, NULL) && !pthread_join(id, NULL) && !wrong);
    CHECK(left_inside->entered == 0 && slab_epoch_get_refcount(shared, 0) == 0);
    CHECK(epoch_domain_destroy(left_inside));
    over = 0;
    CHECK(!pthread_create(&id, NULL, advances, NULL));
    while (!over) {
        EpochId now = epoch_current(shared);
        void *object;
        slab_clear_error();
        object = slab_malloc_epoch(shared, 64, now);
        /* It may be closed meanwhile; but there is one. */
        CHECK(object || slab_last_error() == SLAB_ERROR_CLOSED_EPOCH);
        slab_free(shared, object);
    }
    CHECK(!pthread_join(id, NULL) && !wrong);
    over = 0;
    CHECK(!pthread_create(&id, NULL, busy, NULL) && !pthread_create(&other, NULL, busy, NULL));
    /* Valgrind takes what a child does not inherit for lost: it is told that there are none. */
    for (i = 0; i < (getenv("WITHOUT_FORKS") ? 0 : 200); i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            for (i = 0; i < 50; i++)
                slab_free(shared, slab_malloc_epoch(shared, (size_t)i * 1000, 0));
            _exit(0);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    over = 1;
    CHECK(!pthread_join(id, NULL) && !pthread_join(other, NULL));
    slab_allocator_free(shared);
}

/* An allocator that is freed and made again, mostly where it was: handles of the one before are refused. */
static void remade(void) {
    SlabHandle before = 0;
    int i;
    for (i = 0; i < 50; i++) {
        SlabAllocator *alloc = slab_allocator_create();
        SlabHandle handle;
        void *object;
        CHECK(alloc);
        object = alloc_obj_epoch(alloc, 100, epoch_advance(alloc), &handle);
        CHECK(object && get_obj(alloc, handle) == object);
        if (i) {
            FAILS(BAD_HANDLE, get_obj(alloc, before));
            FAILS(BAD_HANDLE, free_obj(alloc, before));
        }
        before = handle;
        slab_allocator_free(alloc);
    }
}

/* Sizes at the end of the numbers, and a thread that goes inside too often. */
static void extremes(SlabAllocator *alloc) {
    epoch_domain_t *domain = epoch_domain_create(alloc);
    SlabHandle handle;
    size_t less;
    int i;
    for (less = 0; less < 100000; less += 7)
        CHECK(!slab_malloc_epoch(alloc, SIZE_MAX / 2 + 20 - less, 0) &&
              !slab_malloc_epoch(alloc, SIZE_MAX - less, 0));
    FAILS(SIZE, alloc_obj_epoch(alloc, UINT32_MAX, 0, &handle));
    FAILS(SIZE, alloc_obj_epoch(alloc, 8193, 0, &handle));
    for (i = 0; i < 1024; i++)
        CHECK(epoch_domain_enter(domain));
    FAILS(MISUSE, epoch_domain_enter(domain));
    CHECK(domain->entered == 1024 && slab_epoch_get_refcount(alloc, domain->epoch_id) == 1024);
    for (i = 0; i < 1024; i++)
        CHECK(epoch_domain_exit(domain));
    CHECK(epoch_domain_destroy(domain));
}

static void limits(void) {
    SlabAllocator *alloc = slab_allocator_create();
    void *objects[64];
    int count = 0;
    CHECK(alloc);
    slab_set_limit(alloc, 16 << 20);
    while (count < 64 && (objects[count] = slab_malloc_epoch(alloc, 1 << 20, 0)))
        count++;
    CHECK(count > 4 && count < 17 && slab_last_error() == SLAB_ERROR_LIMIT);
    while (count)
        slab_free(alloc, objects[--count]);
    CHECK(slab_malloc_epoch(alloc, 1 << 20, 0));
    slab_allocator_free(alloc);
}

int main(void) {
    SlabAllocator *alloc = slab_allocator_create(), *other = slab_allocator_create();
    void *theirs;
    uint32_t i;
    CHECK(alloc && other && slab_last_error() == SLAB_ERROR_NONE);
    for (i = 0; i < 20; i++)
        CHECK(strlen(slab_error_text(i)) > 5);
    nulls();
    epochs(alloc);
    requests(alloc);
    objects(alloc);
    handles(alloc);
    domains(alloc);
    figures(alloc);
    extremes(alloc);
    limits();
    remade();
    threads();
    /* Of another allocator. */
    theirs = slab_malloc_epoch(other, 50, 0);
    slab_clear_error();
    slab_free(alloc, theirs);
    CHECK(slab_last_error() == SLAB_ERROR_BAD_POINTER);
    slab_free(other, theirs);
    slab_allocator_free(other);
    slab_allocator_free(alloc);
    puts("every function does what it should");
    return 0;
}
