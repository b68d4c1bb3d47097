/* A pointer that may not be freed, by the number of its kind. It is freed in the last step: if the library does not find
 * that out, this ends as if nothing was wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void cfree(void *);

static char in_data[256] = "data";
static char in_bss[256];
static __thread char in_tls[64];

static void *volatile p, *volatile q;

static void *frees(void *object) {
    free(object);
    return NULL;
}
static void *gives_stack(void *unused) {
    char here[64];
    (void)unused;
    p = here + 16;
    free(p);
    return NULL;
}
static void in_thread(void *(*work)(void *), void *argument) {
    pthread_t id;
    pthread_create(&id, NULL, work, argument);
    pthread_join(id, NULL);
}

#define TWICE(how)                                                                                 \
    p = (how);                                                                                     \
    free(p);                                                                                       \
    free(p);                                                                                       \
    break

int main(int count, char **arguments) {
    int kind = count > 1 ? atoi(arguments[1]) : 0;
    char here[64];
    /* Neighbours, so that slabs stay. */
    void *volatile keep[64];
    for (int i = 0; i < 64; i++)
        keep[i] = malloc(i * 20 + 1);
    switch (kind) {
    /* Freed twice. */
    case 1: TWICE(malloc(1));
    case 2: TWICE(malloc(64));
    case 3: TWICE(malloc(1000));
    case 4: TWICE(malloc(8192));
    case 5: TWICE(malloc(20000));
    case 6: TWICE(malloc(100000));
    case 7: TWICE(malloc(1000000));
    case 8: TWICE(malloc(20000000));
    case 9: TWICE(calloc(10, 10));
    case 10: TWICE(aligned_alloc(4096, 100));
    case 11: TWICE(aligned_alloc(1 << 20, 100));
    case 12: TWICE(strdup("text"));
    case 13: /* Moved, and the old one freed. */
        p = malloc(100);
        q = realloc(p, 100000);
        free(p);
        break;
    case 14: /* By another thread first. */
        p = malloc(64);
        in_thread(frees, p);
        free(p);
        break;
    case 15: /* By another thread second. */
        p = malloc(64);
        free(p);
        in_thread(frees, p);
        break;
    case 16: /* After others were freed. */
        p = malloc(64);
        free(p);
        for (int i = 0; i < 1000; i++)
            free(malloc(300));
        free(p);
        break;
    case 17: /* After a trim. */
        p = malloc(3000);
        free(p);
        malloc_trim(0);
        free(p);
        break;
    case 18:
        p = malloc(64);
        cfree(p);
        free(p);
        break;
    case 19: /* Resized after it was freed. */
        p = malloc(64);
        free(p);
        q = realloc(p, 1000);
        break;
    case 20: /* Freed by a resize to nothing. */
        p = malloc(64);
        q = realloc(p, 0);
        free(p);
        break;
    case 21: /* Measured after it was freed. */
        p = malloc(64);
        free(p);
        q = (void *)malloc_usable_size(p);
        break;
    case 22: /* Of many, freed in a batch. */
        for (int i = 0; i < 64; i++)
            free(keep[i]);
        free(keep[17]);
        break;

    /* Never allocated. */
    case 101: free(p = here + 16); break;
    case 102: free(p = in_data); break;
    case 103: free(p = in_bss); break;
    case 104: free(p = in_tls); break;
    case 105: free(p = (void *)(uintptr_t)main); break;
    case 106: free(p = (void *)"literal"); break;
    case 107: free(p = (void *)16); break;
    case 108: free(p = (void *)0x123456789000); break;
    case 109: free(p = (void *)0xffff800000000000); break;
    case 110: free(p = (char *)malloc(64) + 8); break;
    case 111: free(p = (char *)malloc(64) + 16); break;
    case 112: free(p = (char *)malloc(64) + 1); break;
    case 113: free(p = (char *)malloc(1000) - 8); break;
    case 114: free(p = (char *)malloc(20000) + 8); break;
    case 115: free(p = (char *)malloc(20000) + 8192); break;
    case 116: free(p = (char *)malloc(100000) + 65536); break;
    case 117: free(p = (char *)malloc(8000000) + 4096); break;
    case 118: free(p = (char *)malloc(8000000) + 4194304); break;
    case 119:
        p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        free(p);
        break;
    case 120: in_thread(gives_stack, NULL); break;
    case 121: q = realloc(p = here + 16, 100); break;
    case 122: q = (void *)malloc_usable_size(p = (char *)malloc(64) + 32); break;
    case 123: free(p = arguments[0]); break;
    case 124: /* A variable of the thread's own. */
        p = malloc(64);
        free(q = (char *)&errno - (uintptr_t)&errno % 16);
        break;
    case 125: free(p = (void *)((uintptr_t)malloc(64) ^ 0x400000000)); break;
    default: return 2;
    }
    puts("nothing was found");
    return 0;
}
