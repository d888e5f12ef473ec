/* Comes to places that can be hooked, so often each: makes children (`fork_here`), writes 7 bytes (`write_seven`) and 9
 * bytes (`write_nine`) to /dev/null, and calls `hooked` from `call_often` and, half as often, from `call_rarely`. Each is
 * called by a function of its own, which `main` calls. Waits for the tables of unwinders before, for so much CPU time.
 *
 * usage: hooks MILLISECONDS FORKS WRITES CALLS [wait]
 *
 * Says its id, and how many bytes an instruction inside of `hooked` is from its beginning. Nine bytes are written a third as often as seven. `hooked` is told to return its argument, the number of the call. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/wait.h>

#include "burn.h"

static int null;
static volatile long sum;

/* Something behind a call, so that it is none that replaces its caller. */
#define AFTER() __asm__ volatile("" ::: "memory")

NOINLINE void fork_here(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child)
        abort();
}

NOINLINE void fork_outer(long times)
{
    for (long i = 0; i < times; i++)
        fork_here();
    AFTER();
}

NOINLINE void write_seven(void)
{
    if (write(null, "seven..", 7) != 7)
        abort();
}

NOINLINE void write_nine(void)
{
    if (write(null, "nine.....", 9) != 9)
        abort();
}

NOINLINE void write_outer(long times)
{
    for (long i = 0; i < times; i++) {
        write_seven();
        if (i % 3 == 0)
            write_nine();
    }
    AFTER();
}

/* An instruction inside of `hooked`, behind its first. */
extern const char hooked_inside[];

NOINLINE long hooked(long number)
{
    __asm__ volatile("nop\n.globl hooked_inside\nhooked_inside:\nnop" : "+r"(number));
    return number;
}

NOINLINE void call_often(long times)
{
    for (long i = 0; i < times; i++)
        sum += hooked(i);
    AFTER();
}

NOINLINE void call_rarely(long times)
{
    for (long i = 0; i < times; i += 2)
        sum += hooked(i);
    AFTER();
}

BURNER(warm)

int main(int argc, char **argv)
{
    uint64_t warm_ns = ms_argument(argc, argv, 1);
    if (argc < 5)
        exit(64);
    long forks = strtol(argv[2], NULL, 10), writes = strtol(argv[3], NULL, 10), calls = strtol(argv[4], NULL, 10);
    null = open("/dev/null", O_WRONLY);
    if (argc > 5)
        say("ready"), wait_for_go();
    warm(warm_ns);
    fork_outer(forks);
    write_outer(writes);
    call_often(calls);
    call_rarely(calls);
    printf("{\"pid\":%d,\"inside\":%ld}\n", (int)getpid(), (long)(hooked_inside - (const char *)hooked));
    return 0;
}
