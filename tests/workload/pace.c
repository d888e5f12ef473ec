/* Does something so many times in a second, until it is ended or its standard input is.
 *
 * usage: pace calls RATE         getppid
 *        pace round_trips RATE   a byte there and back over pipes, between two threads
 *        pace processes COUNT    so many processes, each of which wakes up ten times in a second and does nothing
 *
 * In turns of 2 ms: what is late is made up for. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "burn.h"

#define TURN_NS 2000000ull

static int there[2], back[2];

static void sleep_until(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static int is_over(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}

static void call(void)
{
    syscall(SYS_getppid);
}

static void *answer(void *unused)
{
    char byte;
    while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
        ;
    return unused;
}

static void round_trip(void)
{
    char byte = 0;
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
        abort();
}

static void pace(void (*what)(void), uint64_t rate)
{
    uint64_t begun = clock_ns(CLOCK_MONOTONIC), done = 0;
    for (uint64_t turn = 1;; turn++) {
        for (uint64_t due = rate * turn * TURN_NS / 1000000000u; done < due; done++)
            what();
        if (turn % 64 == 0 && is_over())
            return;
        sleep_until(begun + turn * TURN_NS);
    }
}

static void processes(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            abort();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            /* Not all at the same time. */
            usleep((useconds_t)(i * 100000 / count));
            for (;;)
                usleep(100000);
        }
    }
    wait_for_go();
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 64;
    uint64_t number = strtoull(argv[2], NULL, 10);
    pthread_t thread;
    if (strcmp(argv[1], "calls") == 0) {
        pace(call, number);
    } else if (strcmp(argv[1], "round_trips") == 0) {
        if (pipe(there) || pipe(back) || pthread_create(&thread, NULL, answer, NULL))
            abort();
        pace(round_trip, number);
    } else {
        processes(number);
    }
    return 0;
}
