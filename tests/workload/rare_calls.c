/* Makes a system call that nothing makes by itself, getpriority, so often from `call_often` and half as often from
 * `call_rarely`; both are called by `main`. Waits for the tables of unwinders before, for so much CPU time.
 *
 * usage: rare_calls MILLISECONDS TIMES [wait]
 *
 * Says its id and how many calls it has made. */
#include "burn.h"

static unsigned long made;

NOINLINE void ask_priority(void)
{
    system_call(SYS_getpriority, 0, 0, 0);
    made++;
}

NOINLINE void call_often(long times)
{
    for (long i = 0; i < times; i++)
        ask_priority();
    __asm__ volatile("" ::: "memory");
}

NOINLINE void call_rarely(long times)
{
    for (long i = 0; i < times; i += 2)
        ask_priority();
    __asm__ volatile("" ::: "memory");
}

BURNER(warm)

int main(int argc, char **argv)
{
    uint64_t warm_ns = ms_argument(argc, argv, 1);
    if (argc < 3)
        exit(64);
    long times = strtol(argv[2], NULL, 10);
    if (argc > 3)
        say("ready"), wait_for_go();
    warm(warm_ns);
    call_often(times);
    call_rarely(times);
    printf("{\"pid\":%d,\"made\":%lu}\n", (int)getpid(), made);
    return 0;
}
