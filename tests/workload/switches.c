/* Leaves the CPU a number of times that the kernel counts too. Two processes on one CPU pass a byte back and forth over
 * pipes, at first in functions of one name until they have used some CPU time, then ROUNDS times in functions of
 * another, three calls deep; then two others that never wait share the CPU and are made to leave it.
 *
 * usage: switches WARM_MILLISECONDS ROUNDS SPIN_MILLISECONDS [wait]
 *
 * Says for each of the four, in the order ping, pong, spin, spin, its process id and what /proc/self/status counted
 * while it was in its function: [pid, voluntary, involuntary]. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "burn.h"

struct count {
    long pid, voluntary, involuntary;
};

/* Written by the processes that they are of. */
static struct count *counts;

static long status_field(const char *status, const char *name)
{
    const char *found = strstr(status, name);
    if (!found)
        abort();
    return strtol(found + strlen(name), NULL, 10);
}

static struct count count_now(void)
{
    char status[8192];
    int file = open("/proc/self/status", O_RDONLY);
    ssize_t length = read(file, status, sizeof status - 1);
    if (length <= 0)
        abort();
    status[length] = '\0';
    close(file);
    struct count now = {getpid(), status_field(status, "\nvoluntary_ctxt_switches:"),
                        status_field(status, "\nnonvoluntary_ctxt_switches:")};
    return now;
}

static void count_since(struct count before, struct count *result)
{
    struct count now = count_now();
    result->pid = now.pid;
    result->voluntary = now.voluntary - before.voluntary;
    result->involuntary = now.involuntary - before.involuntary;
}

static int ping_out, ping_in, pong_out, pong_in;

static inline __attribute__((always_inline)) void put(int file, char byte)
{
    if (write(file, &byte, 1) != 1)
        abort();
}

static inline __attribute__((always_inline)) char get(int file)
{
    char byte;
    if (read(file, &byte, 1) != 1)
        abort();
    return byte;
}

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

NOINLINE void ping_warm(uint64_t ns)
{
    while (thread_cpu_ns() < ns)
        put(ping_out, 'w'), get(ping_in);
    put(ping_out, 'n');
}

NOINLINE void pong_warm(void)
{
    while (get(pong_in) == 'w')
        put(pong_out, 'w');
}

NOINLINE void ping(long rounds)
{
    for (long i = 0; i < rounds; i++)
        put(ping_out, 'p'), get(ping_in);
}

NOINLINE void pong(long rounds)
{
    for (long i = 0; i < rounds; i++)
        get(pong_in), put(pong_out, 'p');
}

NOINLINE void ping_inner(long rounds)
{
    ping(rounds);
    AFTER_CALL();
}

NOINLINE void ping_outer(long rounds)
{
    ping_inner(rounds);
    AFTER_CALL();
}

NOINLINE void pong_inner(long rounds)
{
    pong(rounds);
    AFTER_CALL();
}

NOINLINE void pong_outer(long rounds)
{
    pong_inner(rounds);
    AFTER_CALL();
}

BURNER(spin_here)

static void play(uint64_t warm_ns, long rounds)
{
    int there[2], back[2];
    if (pipe(there) || pipe(back))
        abort();
    ping_out = there[1], pong_in = there[0], pong_out = back[1], ping_in = back[0];
    pid_t child = fork();
    if (child == 0) {
        pong_warm();
        struct count before = count_now();
        pong_outer(rounds);
        count_since(before, &counts[1]);
        _exit(0);
    }
    ping_warm(warm_ns);
    struct count before = count_now();
    ping_outer(rounds);
    count_since(before, &counts[0]);
    waitpid(child, NULL, 0);
}

static void spin_twice(uint64_t ns)
{
    for (int i = 2; i < 4; i++) {
        if (fork() == 0) {
            struct count before = count_now();
            spin_here(ns);
            count_since(before, &counts[i]);
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
}

int main(int argc, char **argv)
{
    uint64_t warm_ns = ms_argument(argc, argv, 1), spin_ns = ms_argument(argc, argv, 3);
    long rounds = strtol(argv[2], NULL, 10);
    counts = mmap(NULL, 4 * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (counts == MAP_FAILED || sched_setaffinity(0, sizeof one, &one))
        abort();
    if (argc > 4)
        say("ready"), wait_for_go();
    play(warm_ns, rounds);
    spin_twice(spin_ns);
    printf("{\"counts\":[");
    for (int i = 0; i < 4; i++)
        printf("%s[%ld,%ld,%ld]", i ? "," : "", counts[i].pid, counts[i].voluntary, counts[i].involuntary);
    struct count life = count_now();
    printf("],\"life\":[%ld,%ld,%ld]}\n", life.pid, life.voluntary, life.involuntary);
    return 0;
}
