/* Forks while other threads allocate: no child hangs, and each can allocate, free and begin threads. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int over;

static void *busy(void *seed) {
    unsigned draw = (unsigned)(size_t)seed;
    void *objects[256] = {0};
    while (!over) {
        draw = draw * 1103515245 + 12345;
        unsigned place = draw >> 8 & 255;
        free(objects[place]);
        objects[place] = malloc(draw >> 16 & 4095);
    }
    for (int i = 0; i < 256; i++)
        free(objects[i]);
    return NULL;
}

int main(int count, char **arguments) {
    int forks = count > 1 ? atoi(arguments[1]) : 1000;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, busy, (void *)(i + 1));
    for (int i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20); /* One that hangs is ended by this. */
            for (int n = 0; n < 200; n++) {
                char *object = malloc(n * 37 + 1);
                memset(object, n, n * 37 + 1);
                free(object);
            }
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "child %d: status %d\n", i, status);
            return 1;
        }
    }
    over = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    puts("no child hung");
    return 0;
}
