/* A program without a C library whose very first instruction is the start of its work: what a profiler sees of it
 * shows whether sampling began before the program did.
 *
 * usage: first (50 ms of CPU time) */
#include <stdint.h>
#include <sys/syscall.h>

static long call(long number, long a, long b, long c)
{
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    result = x0;
#endif
    return result;
}

static uint64_t used_ns(void)
{
    struct { int64_t seconds, nanoseconds; } t;
    call(SYS_clock_gettime, 2 /* CLOCK_PROCESS_CPUTIME_ID */, (long)&t, 0);
    return (uint64_t)t.seconds * 1000000000u + (uint64_t)t.nanoseconds;
}

__attribute__((noinline)) void first_work(void)
{
    do
        for (int i = 0; i < 100000; i++)
            __asm__ volatile("" ::: "memory");
    while (used_ns() < 50000000u);
    __asm__ volatile("");
}

/* The CPU time that it used, in decimal, and the end. */
__attribute__((noreturn)) void _start(void)
{
    char text[24];
    int at = sizeof text;
    first_work();
    text[--at] = '\n';
    for (uint64_t ns = used_ns(); ns; ns /= 10)
        text[--at] = (char)('0' + ns % 10);
    call(SYS_write, 1, (long)(text + at), (long)sizeof text - at);
    for (;;)
        call(SYS_exit_group, 0, 0, 0);
}
