/* Comes to markers (USDT) that begin and end spans, and says how long the spans took by its own clock, which it reads right
 * around each marker: what is between the inner two readings is inside of a span, what is between the outer two is around it.
 * Waits for the tables of unwinders before, for so much CPU time.
 *
 * usage: spans WARM_MILLISECONDS ROUNDS WAIT_MILLISECONDS [wait]
 *     Says `ready` and waits for input. In each of two threads, on CPUs of their own, so many rounds of three spans `app:begin` .. `app:end`: around
 *     nothing (`short_span`), around a wait, with an end in another function (`wait_span`), and around another span and a wait
 *     (`nested_span`); and calls of `timed`, first one that is left by longjmp and one that calls itself 80 times, then one
 *     each round that waits and calls itself twice. Then an end without a beginning; a thread that ends inside of a span
 *     (`exit_span`); and the program executes itself inside of one (`exec_span`) and comes to its end afterwards. Says its id,
 *     and of each kind {"NAME": [number, ns inside, ns around]}; `wait`: waits for input before that.
 * usage: spans WARM_MILLISECONDS open
 *     Comes to a beginning, says `ready`, waits for input, comes to the end, and to a beginning in `open_span` that has no end.
 *     Says {"pid": id, "since": [ns before, ns behind]} of that one (CLOCK_MONOTONIC) and waits for input. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <string.h>

#include "burn.h"
#include "marker.h"

MARKER_BASE;

enum kind { SHORT, WAIT, NESTED, TIMED, EXIT, EXEC, KINDS };
static const char *const names[KINDS] = {"short", "wait", "nested", "timed", "exit", "exec"};

struct sum {
    long number;
    uint64_t inside, around;
};

static long rounds;
static uint64_t wait_ns;

/* Behind a call, so that it is none that replaces its caller. */
#define AFTER() __asm__ volatile("" ::: "memory")

static inline __attribute__((always_inline)) uint64_t now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static inline __attribute__((always_inline)) void rest(void)
{
    struct timespec left = {wait_ns / 1000000000u, wait_ns % 1000000000u};
    while (system_call(SYS_nanosleep, (long)&left, (long)&left, 0) == -EINTR)
        ;
}

static inline __attribute__((always_inline)) void add(struct sum *sum, uint64_t t0, uint64_t t1, uint64_t t2, uint64_t t3)
{
    sum->number++;
    sum->inside += t2 - t1;
    sum->around += t3 - t0;
}

NOINLINE void short_span(struct sum *sums)
{
    uint64_t t0 = now();
    MARK("app", "begin", "0", t0);
    uint64_t t1 = now(), t2 = now();
    MARK("app", "end", "0", t2);
    add(&sums[SHORT], t0, t1, t2, now());
}

/* Gives when it came to the marker, before and behind. */
NOINLINE void end_elsewhere(uint64_t times[2])
{
    times[0] = now();
    MARK("app", "end", "0", times[0]);
    times[1] = now();
}

NOINLINE void wait_span(struct sum *sums)
{
    uint64_t t0 = now();
    MARK("app", "begin", "0", t0);
    uint64_t t1 = now(), times[2];
    rest();
    end_elsewhere(times);
    add(&sums[WAIT], t0, t1, times[0], times[1]);
}

NOINLINE void nested_span(struct sum *sums)
{
    struct sum ignored[KINDS] = {0};
    uint64_t t0 = now();
    MARK("app", "begin", "0", t0);
    uint64_t t1 = now();
    short_span(ignored);
    wait_span(ignored);
    uint64_t t2 = now();
    MARK("app", "end", "0", t2);
    add(&sums[NESTED], t0, t1, t2, now());
}

/* Gives when it began and when it will return. `out`: where it goes instead. */
NOINLINE void timed(int depth, jmp_buf *out, uint64_t times[2])
{
    uint64_t begun = now(), ignored[2];
    if (depth > 0)
        timed(depth - 1, NULL, ignored);
    if (depth == 2) {
        rest();
        timed(0, NULL, ignored);
    }
    if (out)
        longjmp(*out, 1);
    times[0] = begun;
    times[1] = now();
}

NOINLINE void call_timed(struct sum *sums, int depth)
{
    uint64_t t0 = now(), times[2];
    timed(depth, NULL, times);
    add(&sums[TIMED], t0, times[0], times[1], now());
}

NOINLINE void leave_timed(void)
{
    jmp_buf here;
    uint64_t times[2];
    if (setjmp(here) == 0)
        timed(0, &here, times);
    AFTER();
}

/* Keeps a thread on a CPU of its own, if there are several. */
static void keep_apart(int number)
{
    cpu_set_t allowed, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && number-- == 0)
            CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static struct sum all_sums[3][KINDS];

static void *work(void *argument)
{
    struct sum *sums = argument;
    keep_apart(sums == all_sums[1]);
    leave_timed();
    call_timed(sums, 80);
    for (long i = 0; i < rounds; i++) {
        short_span(sums);
        wait_span(sums);
        nested_span(sums);
        call_timed(sums, 2);
    }
    AFTER();
    return NULL;
}

NOINLINE void exit_span(struct sum *sum)
{
    sum->number = 1;
    /* The one that waits for its end adds the rest. */
    sum->around = now();
    MARK("app", "begin", "0", sum);
    uint64_t t1 = now();
    rest();
    sum->inside = now() - t1;
    AFTER();
}

static void *ends_inside(void *argument)
{
    exit_span(argument);
    AFTER();
    return NULL;
}

/* Goes on in `executed`, with what was said until now. */
NOINLINE void exec_span(char *program, const char *said)
{
    char t0[32], inside[32];
    uint64_t before = now();
    MARK("app", "begin", "0", before);
    uint64_t begun = now();
    rest();
    snprintf(t0, sizeof t0, "%llu", (unsigned long long)before);
    snprintf(inside, sizeof inside, "%llu", (unsigned long long)(now() - begun));
    execl(program, program, "executed", said, t0, inside, (char *)NULL);
    abort();
}

static int executed(char **argv)
{
    unsigned long long around = now() - strtoull(argv[3], NULL, 10);
    MARK("app", "end", "0", around);
    printf("%s,\"%s\":[1,%s,%llu]}\n", argv[2], names[EXEC], argv[4], around);
    return 0;
}

NOINLINE void end_without_beginning(void)
{
    MARK("app", "end", "0", 0l);
    AFTER();
}

NOINLINE void open_span(uint64_t since[2])
{
    since[0] = now();
    MARK("app", "begin", "0", since);
    since[1] = now();
}

BURNER(warm)

static int open_one(uint64_t warm_ns)
{
    uint64_t since[2];
    open_span(since);
    say("ready"), wait_for_go();
    warm(warm_ns);
    end_without_beginning();
    open_span(since);
    printf("{\"pid\":%d,\"since\":[%llu,%llu]}\n", (int)getpid(), (unsigned long long)since[0],
           (unsigned long long)since[1]);
    fflush(stdout);
    wait_for_go();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 4 && strcmp(argv[1], "executed") == 0)
        return executed(argv);
    uint64_t warm_ns = ms_argument(argc, argv, 1);
    if (argc == 3 && strcmp(argv[2], "open") == 0)
        return open_one(warm_ns);
    wait_ns = ms_argument(argc, argv, 3);
    rounds = strtol(argv[2], NULL, 10);
    pthread_t threads[2], ends;
    say("ready"), wait_for_go();
    warm(warm_ns);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, work, all_sums[i]))
            abort();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    end_without_beginning();
    if (pthread_create(&ends, NULL, ends_inside, &all_sums[2][EXIT]))
        abort();
    pthread_join(ends, NULL);
    all_sums[2][EXIT].around = now() - all_sums[2][EXIT].around;
    if (argc > 4)
        say("done"), wait_for_go();
    char said[1024];
    int length = snprintf(said, sizeof said, "{\"pid\":%d", (int)getpid());
    for (int kind = 0; kind < EXEC; kind++) {
        struct sum all = {0};
        for (int i = 0; i < 3; i++) {
            all.number += all_sums[i][kind].number;
            all.inside += all_sums[i][kind].inside;
            all.around += all_sums[i][kind].around;
        }
        length += snprintf(said + length, sizeof said - length, ",\"%s\":[%ld,%llu,%llu]", names[kind], all.number,
                           (unsigned long long)all.inside, (unsigned long long)all.around);
    }
    exec_span(argv[0], said);
}
