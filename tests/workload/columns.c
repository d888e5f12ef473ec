/* What the columns of `profiler sched` say, made on purpose, each by a thread of that name:
 *   mover    moves between two CPUs MOVES times
 *   queued   sleeps 10 ms WAITS times while a real-time thread holds its CPU for 30 ms: it waits for it, woken, for the rest
 *   vforker  waits for 100 ms, uninterruptibly, for the child that it has lent its memory to
 *   waker    wakes the thread `woken` WAKES times
 * Says ready, waits for a line, then says {"NAME": [tid, number]}: moves that were made, the longest wait for the CPU (ns),
 * the time waited for the child (ns), wake-ups; then done, and ends with its input.
 *
 * usage: columns MOVES WAITS WAKES */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "burn.h"

enum { MOVER, VFORKER, QUEUED, HOLDER, WAKER, WOKEN, COUNT };
static const char *const names[COUNT] = {"mover", "vforker", "queued", "holder", "waker", "woken"};

static struct {
    int tid;
    uint64_t number;
} results[COUNT];

static long moves, waits, wakes;
static sem_t hold, finished;
static int word;

static void check(int ok)
{
    if (!ok) {
        perror("columns");
        abort();
    }
}

static void sleep_until(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

static void use(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    check(sched_setaffinity(0, sizeof one, &one) == 0);
}

/* The first CPU that may be used, and the last one. */
static int first_cpu, last_cpu;

static void find_cpus(void)
{
    cpu_set_t all;
    check(sched_getaffinity(0, sizeof all, &all) == 0);
    first_cpu = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            first_cpu = first_cpu < 0 ? cpu : first_cpu;
            last_cpu = cpu;
        }
}

static uint64_t move(void)
{
    use(first_cpu);
    uint64_t moved = 0;
    for (long i = 0; i < moves && first_cpu != last_cpu; i++, moved++)
        use(i % 2 ? first_cpu : last_cpu);
    return moved;
}

static uint64_t queue(void)
{
    uint64_t longest = 0;
    use(first_cpu);
    for (long i = 0; i < waits; i++) {
        uint64_t until = clock_ns(CLOCK_MONOTONIC) + 10000000u;
        sem_post(&hold);
        sleep_until(until);
        uint64_t late = clock_ns(CLOCK_MONOTONIC) - until;
        longest = late > longest ? late : longest;
    }
    return longest;
}

static uint64_t hold_cpu(void)
{
    struct sched_param priority = {10};
    use(first_cpu);
    check(sched_setscheduler(0, SCHED_FIFO, &priority) == 0);
    for (long i = 0; i < waits; i++) {
        sem_wait(&hold);
        uint64_t until = clock_ns(CLOCK_MONOTONIC) + 30000000u;
        while (clock_ns(CLOCK_MONOTONIC) < until)
            ;
    }
    return 0;
}

static uint64_t wait_for_child(void)
{
    uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    pid_t child = vfork();
    if (child == 0) {
        sleep_until(clock_ns(CLOCK_MONOTONIC) + 100000000u);
        _exit(0);
    }
    uint64_t took = clock_ns(CLOCK_MONOTONIC) - begin;
    check(child > 0 && waitpid(child, NULL, 0) == child);
    return took;
}

/* Passes the word between two threads: each of the first one's wake-ups finds the other one waiting. */
static uint64_t wake(void)
{
    for (long i = 0; i < wakes; i++) {
        /* The other one is about to wait, or does. */
        while (syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) != 1)
            sched_yield();
    }
    return wakes;
}

static uint64_t be_woken(void)
{
    for (long i = 0; i < wakes; i++)
        while (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) != 0)
            check(errno == EINTR || errno == EAGAIN);
    return wakes;
}

static uint64_t (*const work[COUNT])(void) = {move, wait_for_child, queue, hold_cpu, wake, be_woken};

static void *run(void *argument)
{
    long what = (long)argument;
    results[what].tid = (int)syscall(SYS_gettid);
    prctl(PR_SET_NAME, names[what]);
    prctl(PR_SET_TIMERSLACK, 1);
    results[what].number = work[what]();
    sem_post(&finished);
    sigset_t none;
    sigemptyset(&none);
    for (;;)
        sigsuspend(&none);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 64;
    moves = strtol(argv[1], NULL, 10);
    waits = strtol(argv[2], NULL, 10);
    wakes = strtol(argv[3], NULL, 10);
    find_cpus();
    sem_init(&hold, 0, 0);
    sem_init(&finished, 0, 0);
    say("ready");
    wait_for_go();
    for (long what = 0; what < COUNT; what++) {
        pthread_t thread;
        check((errno = pthread_create(&thread, NULL, run, (void *)what)) == 0);
        /* The first two are alone. */
        if (what < QUEUED)
            while (sem_wait(&finished))
                ;
    }
    for (int i = QUEUED; i < COUNT; i++)
        while (sem_wait(&finished))
            ;
    printf("{");
    for (int i = 0; i < COUNT; i++)
        printf("%s\"%s\":[%d,%llu]", i ? "," : "", names[i], results[i].tid, (unsigned long long)results[i].number);
    printf("}\n");
    say("done");
    wait_for_go();
    return 0;
}
