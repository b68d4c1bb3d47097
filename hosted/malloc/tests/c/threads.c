/* Many short threads: what is resident does not grow with them. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *work(void *seed) {
    void *objects[100];
    for (size_t i = 0; i < 100; i++)
        memset(objects[i] = malloc((i * 53 + (size_t)seed) % 3000 + 1), 1, (i * 53 + (size_t)seed) % 3000 + 1);
    for (size_t i = 0; i < 100; i += 2)
        free(objects[i]);
    /* The others are freed by who waits. */
    void **left = malloc(50 * sizeof *left);
    for (size_t i = 0; i < 50; i++)
        left[i] = objects[i * 2 + 1];
    return left;
}

static long resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1)
        exit(2);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

int main(int count, char **arguments) {
    int rounds = (count > 1 ? atoi(arguments[1]) : 10000) / 8;
    long after_some = 0;
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[8];
        for (size_t i = 0; i < 8; i++)
            if (pthread_create(&threads[i], NULL, work, (void *)(i + (size_t)round * 8)))
                return 2;
        for (size_t i = 0; i < 8; i++) {
            void **left;
            pthread_join(threads[i], (void **)&left);
            for (int n = 0; n < 50; n++)
                free(left[n]);
            free(left);
        }
        if (round == rounds / 10)
            after_some = resident();
    }
    long end = resident();
    printf("%ld KiB after a tenth, %ld KiB at the end\n", after_some, end);
    /* What thread stacks leave behind is the system's; a leak of a kilobyte for each thread is more than this. */
    return end > after_some + 8192;
}
