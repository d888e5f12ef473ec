/* Two processes on one CPU that pass a byte back and forth over pipes as fast as they can: nothing but switches and
 * wake-ups. Prints the rounds and the CPU time that both used for them.
 *
 * usage: storm ROUNDS */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "burn.h"

static void pass(int in, int out, int begins, long rounds)
{
    char byte = 'b';
    for (long i = 0; i < rounds; i++) {
        if (begins && write(out, &byte, 1) != 1)
            abort();
        if (read(in, &byte, 1) != 1)
            abort();
        if (!begins && write(out, &byte, 1) != 1)
            abort();
    }
}

static uint64_t used_ns(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    uint64_t seconds = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
    return seconds * 1000000000u + (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    int there[2], back[2];
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (rounds <= 0 || sched_setaffinity(0, sizeof one, &one) || pipe(there) || pipe(back))
        abort();
    pid_t child = fork();
    if (child == 0) {
        pass(there[0], back[1], 0, rounds);
        _exit(0);
    }
    pass(back[0], there[1], 1, rounds);
    if (child < 0 || waitpid(child, NULL, 0) != child)
        abort();
    uint64_t ns = used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN);
    printf("{\"rounds\":%ld,\"cpu_ns\":%llu}\n", rounds, (unsigned long long)ns);
    return 0;
}
