/* Starts many short-lived processes one after the other, in two chains at a time: each does 1 to 3 ms of work, as if by
 * chance, so that none begins and ends in step with a timer. Prints how much work that is, and the CPU time that its children
 * used, all included.
 *
 * usage: short_driver COUNT PROGRAM */
#include <sys/resource.h>
#include <sys/wait.h>

#include "burn.h"

extern char **environ;

static uint64_t work_us, chance = 0x9e3779b97f4a7c15;

static void start(char *program)
{
    char microseconds[16];
    chance = chance * 6364136223846793005 + 1442695040888963407;
    unsigned us = 1000 + (chance >> 33) % 2001;
    snprintf(microseconds, sizeof microseconds, "%u", us);
    work_us += us;
    char *const argv[] = {program, microseconds, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        execve(program, argv, environ);
        _exit(127);
    }
    if (pid < 0)
        perror("fork"), exit(71);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    int count = atoi(argv[1]), started = 0, failed = 0, status;
    while (started < count && started < 2)
        started++, start(argv[2]);
    while (wait(&status) > 0) {
        failed += status != 0;
        if (started < count)
            started++, start(argv[2]);
    }
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    unsigned long long ns = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000ull +
                            (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000ull;
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"started\":%d,\"failed\":%d,\"work_ns\":%llu,\"children_cpu_ns\":%llu}\n",
           (int)getpid(), (unsigned long long)cpu_ns(), started, failed, 1000ull * work_us, ns);
    return failed != 0;
}
