/* Starts many short-lived processes one after the other, in two chains at a time: each does 1, 2 or 3 ms of work, in
 * turn. Prints the CPU time that its children used, all included.
 *
 * usage: short_driver COUNT PROGRAM */
#include <sys/resource.h>
#include <sys/wait.h>

#include "burn.h"

extern char **environ;

static void start(int number, char *program)
{
    static char *const microseconds[3] = {"1000", "2000", "3000"};
    char *const argv[] = {program, microseconds[number % 3], NULL};
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
        start(started++, argv[2]);
    while (wait(&status) > 0) {
        failed += status != 0;
        if (started < count)
            start(started++, argv[2]);
    }
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    unsigned long long ns = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000ull +
                            (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000ull;
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"started\":%d,\"failed\":%d,\"children_cpu_ns\":%llu}\n", (int)getpid(),
           (unsigned long long)cpu_ns(), started, failed, ns);
    return failed != 0;
}
