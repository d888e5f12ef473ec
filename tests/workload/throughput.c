/* A workload whose speed shows what a profiler costs it: deep calls, system calls and page faults, counted.
 *
 * usage: throughput MILLISECONDS (of wall-clock time: it runs beside a profiler) */
#include "burn.h"

static uint64_t wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

NOINLINE void deep(int depth)
{
    KEEP_FRAME();
    if (depth)
        deep(depth - 1);
    else
        spin(2000);
    __asm__ volatile("");
}

int main(int argc, char **argv)
{
    uint64_t start = wall_ns(), end = start + ms_argument(argc, argv, 1), rounds = 0, now;
    do {
        for (int i = 0; i < 50; i++) {
            deep(40);
            system_call(SYS_getppid, 0, 0, 0);
        }
        rounds++;
    } while ((now = wall_ns()) < end);
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"rounds\":%llu,\"wall_ns\":%llu}\n", (int)getpid(),
           (unsigned long long)cpu_ns(), (unsigned long long)rounds, (unsigned long long)(now - start));
    return 0;
}
