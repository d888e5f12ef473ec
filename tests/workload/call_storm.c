/* The cheapest system call, by the C library as programs make it, as fast as it can be made, in batches of 20,000. Prints
 * the time of one call in the batch that is slower than a tenth of all: what else the machine does at times is not in it.
 *
 * usage: call_storm BATCHES */
#include "burn.h"

enum { CALLS = 20000 };

static int ascending(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    long batches = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    uint64_t *times = batches > 0 ? calloc((size_t)batches, sizeof *times) : NULL;
    if (times == NULL) {
        fprintf(stderr, "usage: see the head of the source\n");
        return 64;
    }
    for (long i = 0; i < batches; i++) {
        uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        for (int j = 0; j < CALLS; j++)
            getppid();
        times[i] = clock_ns(CLOCK_MONOTONIC) - begin;
    }
    qsort(times, (size_t)batches, sizeof *times, ascending);
    printf("{\"call_ns\":%.1f}\n", (double)times[batches / 10] / CALLS);
    return 0;
}
