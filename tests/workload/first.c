/* A program without a C library whose very first instruction is the start of its work: what a profiler sees of it
 * shows whether sampling began before the program did.
 *
 * usage: first (50 ms of CPU time) */
#include "burn.h"

NOINLINE void first_work(void)
{
    KEEP_FRAME();
    do
        spin(SLICE);
    while (cpu_ns() < 50000000u);
}

/* The CPU time that it used, in decimal, and the end. */
__attribute__((noreturn)) void _start(void)
{
    char text[24];
    int at = sizeof text;
    first_work();
    text[--at] = '\n';
    for (uint64_t ns = cpu_ns(); ns; ns /= 10)
        text[--at] = (char)('0' + ns % 10);
    system_call(SYS_write, 1, (long)(text + at), (long)sizeof text - at);
    for (;;)
        system_call(SYS_exit_group, 0, 0, 0);
}
