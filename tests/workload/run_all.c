/* Runs many programs, PREFIX0 to PREFIX(COUNT-1), some at once.
 *
 * usage: run_all PREFIX COUNT AT_ONCE ARGUMENT */
#include <sys/wait.h>

#include "burn.h"

extern char **environ;

static void start(const char *prefix, long number, char *argument)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%ld", prefix, number);
    char *const argv[] = {path, argument, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        /* What they say is nobody's business. */
        close(STDOUT_FILENO);
        execve(path, argv, environ);
        _exit(127);
    }
    if (pid < 0)
        perror("fork"), exit(71);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    long count = strtol(argv[2], NULL, 10), at_once = strtol(argv[3], NULL, 10), started = 0, failed = 0;
    int status;
    while (started < count && started < at_once)
        start(argv[1], started++, argv[4]);
    while (wait(&status) > 0) {
        failed += status != 0;
        if (started < count)
            start(argv[1], started++, argv[4]);
    }
    printf("{\"pid\":%d,\"started\":%ld,\"failed\":%ld}\n", (int)getpid(), started, failed);
    return failed != 0;
}
