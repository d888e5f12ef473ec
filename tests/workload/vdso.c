/* Asks for the time, again and again: most of the CPU time is in the vDSO where it reads the clock without a system
 * call.
 *
 * usage: vdso MILLISECONDS */
#include "burn.h"

NOINLINE void vdso_caller(uint64_t ns)
{
    KEEP_FRAME();
    uint64_t end = thread_cpu_ns() + ns;
    do {
        struct timespec now;
        for (int i = 0; i < 5000; i++)
            clock_gettime(CLOCK_MONOTONIC, &now);
    } while (thread_cpu_ns() < end);
}

int main(int argc, char **argv)
{
    vdso_caller(ms_argument(argc, argv, 1));
    say_used();
    return 0;
}
