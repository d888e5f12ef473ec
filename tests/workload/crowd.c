/* Many processes alive at once: each waits for its turn, works in `crowd_work` below `crowd_turn`, and waits until all
 * have worked. Two of them work at a time.
 *
 * usage: crowd COUNT MICROSECONDS */
#include <sys/resource.h>
#include <sys/wait.h>

#include "burn.h"

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

static int turns[2], done[2], end[2];

BURNER(crowd_work)

NOINLINE void crowd_turn(uint64_t ns)
{
    crowd_work(ns);
    AFTER_CALL();
}

/* Takes one turn, and waits for the end. Those that wait for theirs are woken in the order in which they began to. */
static void member(uint64_t ns)
{
    char byte;
    if (read(turns[0], &byte, 1) != 1)
        _exit(1);
    crowd_turn(ns);
    if (write(done[1], &byte, 1) != 1 || read(end[0], &byte, 1) != 0)
        _exit(1);
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 3 || pipe(turns) || pipe(done) || pipe(end))
        return 64;
    long count = strtol(argv[1], NULL, 10);
    uint64_t ns = strtoull(argv[2], NULL, 10) * 1000u;
    char byte = 't';
    long begun = 0, ended = 0;
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return perror("fork"), 71;
        if (pid == 0) {
            close(end[1]);
            member(ns);
        }
    }
    while (ended < count) {
        while (begun < count && begun < ended + 2 && write(turns[1], &byte, 1) == 1)
            begun++;
        if (read(done[0], &byte, 1) == 1)
            ended++;
    }
    close(end[1]);
    while (wait(NULL) > 0)
        ;
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    unsigned long long all = used.ru_utime.tv_sec * 1000000000ull + used.ru_utime.tv_usec * 1000ull;
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"work_ns\":%llu,\"children_user_ns\":%llu}\n", (int)getpid(),
           (unsigned long long)cpu_ns(), (unsigned long long)(count * ns), all);
    return 0;
}
