/* Two processes on one CPU pass a byte back and forth over pipes, each below so many calls of one function.
 *
 * usage: ping_pong ROUNDS DEPTH
 *
 * Says the rounds, and the CPU time of both together: {"rounds":N,"cpu_ns":N}. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "burn.h"

static int in, out;

static void pass(void)
{
    char byte = 'x';
    if (write(out, &byte, 1) != 1 || read(in, &byte, 1) != 1)
        abort();
}

NOINLINE void below(long depth, long rounds)
{
    if (depth > 0)
        below(depth - 1, rounds);
    else
        for (long i = 0; i < rounds; i++)
            pass();
    __asm__ volatile("");
}

static uint64_t used_ns(int who)
{
    struct rusage used;
    getrusage(who, &used);
    return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u
           + (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000u;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    long rounds = strtol(argv[1], NULL, 10), depth = strtol(argv[2], NULL, 10);
    int there[2], back[2];
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (pipe(there) || pipe(back) || sched_setaffinity(0, sizeof one, &one))
        return 71;
    pid_t child = fork();
    in = child ? back[0] : there[0], out = child ? there[1] : back[1];
    below(depth, rounds);
    if (child == 0)
        return 0;
    waitpid(child, NULL, 0);
    printf("{\"rounds\":%ld,\"cpu_ns\":%llu}\n", rounds,
           (unsigned long long)(used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN)));
    return 0;
}
