/* What the C and C++ workloads share: the process's CPU clock, and work that is counted in iterations.
 *
 * Nothing here sleeps or reads the wall clock: a workload's length is CPU time, so that its known answer does not
 * depend on what else the machine does. */
#ifndef BURN_H
#define BURN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

/* CPU time of this process until now, ns. */
static inline uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU time of this thread until now, ns. */
static inline uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The loop itself: one addition and one jump an iteration, which no compiler can remove or merge. */
static inline __attribute__((always_inline)) void spin(uint64_t iterations)
{
    for (uint64_t i = 0; i < iterations; i++)
        __asm__ volatile("" ::: "memory");
}

/* Iterations between two looks at the clock: 50 to 200 us, so that the clock's system call (about 0.5 us) stays below
 * 1 % of the samples. */
#define SLICE 100000u

/* Defines NAME(ns), which works until this thread has used `ns` more CPU time; the loop is in NAME itself. */
#define BURNER(name)                                            \
    NOINLINE void name(uint64_t ns)                             \
    {                                                           \
        uint64_t end = thread_cpu_ns() + ns;                    \
        do                                                      \
            spin(SLICE);                                        \
        while (thread_cpu_ns() < end);                          \
        __asm__ volatile("");                                   \
    }

/* argv[i] as milliseconds, in ns. */
static inline uint64_t ms_argument(int argc, char **argv, int i)
{
    if (i >= argc) {
        fprintf(stderr, "%s: argument %d, milliseconds of CPU time, is missing\n", argv[0], i);
        exit(64);
    }
    return strtoull(argv[i], NULL, 10) * 1000000u;
}

/* Waits until one byte or the end of file comes on standard input: how a test says "go on". */
static inline void wait_for_go(void)
{
    char byte;
    ssize_t n;
    do
        n = read(STDIN_FILENO, &byte, 1);
    while (n < 0);
}

/* Says on standard output that a point of the program is reached. */
static inline void say(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
}

/* The last line of a workload: who it was and the CPU time it used, as JSON. */
static inline void say_used(void)
{
    printf("{\"pid\":%d,\"cpu_ns\":%llu}\n", (int)getpid(), (unsigned long long)cpu_ns());
    fflush(stdout);
}

#endif
