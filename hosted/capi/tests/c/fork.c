/* A process forks while another of its threads makes the first allocator: the child can make one. Catches what is told
 * to the C library then, once in each process: a child in which a thread that is not there was telling waits for ever. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temporal_slab.h"

static int begins;

static void wait_for_other(void) {
    __atomic_add_fetch(&begins, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&begins, __ATOMIC_ACQUIRE) < 2)
        ;
}

/* Whether an allocator can be made and used. */
static int works(void) {
    SlabAllocator *alloc = slab_allocator_create();
    void *object = alloc ? slab_malloc_epoch(alloc, 100, 0) : NULL;
    if (object)
        slab_free(alloc, object);
    return object != NULL;
}

static void *makes(void *nothing) {
    wait_for_other();
    (void)nothing;
    (void)works();
    return NULL;
}

/* A process with no allocator so far; its status. */
static int process(int round) {
    pthread_t id;
    int status = 1;
    volatile int delay;
    pid_t child;
    if (pthread_create(&id, NULL, makes, NULL))
        return 2;
    wait_for_other();
    for (delay = 0; delay < round % 500 * 200; delay++)
        ;
    child = fork();
    if (child == 0) {
        alarm(10);
        _exit(works() ? 0 : 3);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 4;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 5;
}

int main(void) {
    int round;
    for (round = 0; round < 2000; round++) {
        int status = 1;
        pid_t child = fork();
        if (child == 0)
            _exit(process(round));
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "round %d: status %#x\n", round, (unsigned)status);
            return 1;
        }
    }
    puts("every child can make an allocator");
    return 0;
}
