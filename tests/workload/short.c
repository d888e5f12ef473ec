/* A short-lived process: argv[1] microseconds of CPU time in `short_work`, then the end.
 *
 * usage: short MICROSECONDS */
#include "burn.h"

NOINLINE void short_work(uint64_t ns)
{
    KEEP_FRAME();
    uint64_t end = thread_cpu_ns() + ns;
    do
        spin(SLICE / 10);
    while (thread_cpu_ns() < end);
    __asm__ volatile("");
}

int main(int argc, char **argv)
{
    short_work(ms_argument(argc, argv, 1) / 1000);
    return 0;
}
