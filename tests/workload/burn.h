/* What the C and C++ workloads share: the process's CPU clock, and work that is counted in iterations.
 *
 * Nothing here sleeps or reads the wall clock: a workload's length is CPU time, so that its known answer does not
 * depend on what else the machine does. */
#ifndef BURN_H
#define BURN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

/* Gives the function a frame: GCC leaves it out of leaf functions that use no stack, whatever its options say. With
 * NO_FRAMES, functions are to have none. */
#ifdef NO_FRAMES
#define KEEP_FRAME() ((void)0)
#else
#define KEEP_FRAME() __asm__ volatile("" ::"r"(__builtin_frame_address(0)))
#endif

/* A system call without the C library, whose functions have no frame pointers: the caller stays in the stack. */
static inline __attribute__((always_inline)) long system_call(long number, long a, long b, long c)
{
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    result = x0;
#else
#error "no system call for this architecture"
#endif
    return result;
}

static inline __attribute__((always_inline)) uint64_t clock_ns(long clock)
{
    struct timespec t;
    system_call(SYS_clock_gettime, clock, (long)&t, 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU time of this process until now, ns. */
#define cpu_ns() clock_ns(CLOCK_PROCESS_CPUTIME_ID)

/* CPU time of this thread until now, ns. */
#define thread_cpu_ns() clock_ns(CLOCK_THREAD_CPUTIME_ID)

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
        KEEP_FRAME();                                           \
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
