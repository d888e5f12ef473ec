/* Threads that wait for known times in known ways, threads that share a CPU, and threads that come and go.
 *
 * usage: sched waits PERCENT ROUNDS SPIN_MILLISECONDS
 *   Says `ready` and waits for a line. Then, each in a thread that has the name of what it does: waits of 200 ms (sleep),
 *   300 ms (futex), 150 ms (pipe), 100 ms (poll), 120 ms (socket), 100 ms (a child), and behind a lock that another thread
 *   holds for 80 ms (mutex), PERCENT of that long; work without any wait (spin); two threads of one CPU that pass a byte
 *   ROUNDS times (ping, pong); three that share that CPU (load). Says {"threads":[[name, tid, ns], ...]}: the time around
 *   the wait, or 0; then `done`, when all of them have done what they have to and wait for a signal; ends with its input.
 * usage: sched short COUNT
 *   Forks COUNT processes that end at once, four at a time.
 * usage: sched crowd COUNT
 *   Says `ready` and waits for a line; makes COUNT threads that wait, wakes each once, says `done`; ends with its input.
 * usage: sched exec
 *   A thread that is not the first renames itself and executes `sched executed`, which works for 50 ms of CPU time. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "burn.h"

/* NAMES that have a time of their own, then those that have none. */
enum what { SLEEP, FUTEX, PIPE, POLL, SOCKET, CHILD, MUTEX, HOLDER, SPIN, PING, PONG, LOAD1, LOAD2, LOAD3, HELPER1, HELPER2, COUNT };
static const char *const names[COUNT] = {"sleep", "futex", "pipe", "poll", "socket", "child", "mutex", "holder", "spin",
                                         "ping", "pong", "load", "load", "load", "helper", "helper"};

static struct {
    int tid;
    uint64_t ns;
} results[COUNT];

static _Atomic int finished, holding;
static uint64_t percent, spin_ns;
static long rounds;
static int pipe_ends[2], sockets[2], there[2], back[2], cpu;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void check(int ok)
{
    if (!ok) {
        perror("sched");
        abort();
    }
}

static uint64_t now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static void rest(uint64_t ms)
{
    uint64_t ns = ms * percent * 10000;
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

BURNER(work)

static void use_one_cpu(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    check(sched_setaffinity(0, sizeof one, &one) == 0);
}

static void wait_on_futex(void)
{
    int word = 0;
    uint64_t ns = 300 * percent * 10000;
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
}

static void wait_for_child(void)
{
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        rest(100);
        _exit(0);
    }
    check(waitpid(child, NULL, 0) == child);
}

static void play(int out, int in, int begins)
{
    char byte = 'b';
    use_one_cpu();
    for (long i = 0; i < rounds; i++) {
        if (begins)
            check(write(out, &byte, 1) == 1);
        check(read(in, &byte, 1) == 1);
        if (!begins)
            check(write(out, &byte, 1) == 1);
    }
}

static void do_it(enum what what)
{
    char byte = 'b';
    switch (what) {
    case SLEEP: rest(200); break;
    case FUTEX: wait_on_futex(); break;
    case PIPE: check(read(pipe_ends[0], &byte, 1) == 1); break;
    case POLL: poll(NULL, 0, (int)percent); break;
    case SOCKET: check(recv(sockets[0], &byte, 1, 0) == 1); break;
    case CHILD: wait_for_child(); break;
    case MUTEX: pthread_mutex_lock(&mutex); pthread_mutex_unlock(&mutex); break;
    case HOLDER:
        pthread_mutex_lock(&mutex);
        holding = 1;
        rest(80);
        pthread_mutex_unlock(&mutex);
        break;
    case SPIN: work(spin_ns); break;
    case PING: play(there[1], back[0], 1); break;
    case PONG: play(back[1], there[0], 0); break;
    case LOAD1: case LOAD2: case LOAD3: use_one_cpu(); work(spin_ns); break;
    case HELPER1: rest(150); check(write(pipe_ends[1], &byte, 1) == 1); break;
    case HELPER2: rest(120); check(write(sockets[1], &byte, 1) == 1); break;
    case COUNT: break;
    }
}

static void *run(void *argument)
{
    enum what what = (enum what)(long)argument;
    prctl(PR_SET_NAME, names[what]);
    results[what].tid = (int)syscall(SYS_gettid);
    uint64_t begin = now();
    do_it(what);
    results[what].ns = now() - begin;
    finished++;
    for (;;)
        pause();
    return NULL;
}

static void start(void *(*function)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    check((errno = pthread_create(&thread, &attributes, function, argument)) == 0);
}

static int waits(char **argv)
{
    percent = strtoull(argv[2], NULL, 10);
    rounds = strtol(argv[3], NULL, 10);
    spin_ns = strtoull(argv[4], NULL, 10) * 1000000u;
    cpu = sched_getcpu();
    check(pipe(pipe_ends) == 0 && pipe(there) == 0 && pipe(back) == 0);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    say("ready");
    wait_for_go();
    start(run, (void *)(long)HOLDER);
    while (!holding)
        sched_yield();
    for (long what = 0; what < COUNT; what++)
        if (what != HOLDER)
            start(run, (void *)what);
    while (finished < COUNT)
        poll(NULL, 0, 10);
    /* The last of them may be on its way to pause(). */
    poll(NULL, 0, 100);
    printf("{\"threads\":[");
    for (int i = 0; i < COUNT; i++)
        printf("%s[\"%s\",%d,%llu]", i ? "," : "", names[i], results[i].tid, (unsigned long long)results[i].ns);
    printf("]}\n");
    say("done");
    wait_for_go();
    return 0;
}

static int shorts(long count)
{
    for (long i = 0; i < count; i++) {
        pid_t child = fork();
        check(child >= 0);
        if (child == 0)
            _exit(0);
        if (i >= 3)
            check(wait(NULL) > 0);
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}

static _Atomic int woken;
static int gate;

static void *member(void *argument)
{
    (void)argument;
    while (__atomic_load_n(&gate, __ATOMIC_SEQ_CST) == 0)
        syscall(SYS_futex, &gate, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    woken++;
    for (;;)
        pause();
    return NULL;
}

static int crowd(long count)
{
    say("ready");
    wait_for_go();
    for (long i = 0; i < count; i++)
        start(member, NULL);
    __atomic_store_n(&gate, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &gate, FUTEX_WAKE_PRIVATE, (int)count, NULL, NULL, 0);
    while (woken < count)
        poll(NULL, 0, 10);
    say("done");
    wait_for_go();
    return 0;
}

static char *program;

static void *executes(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "renamed");
    rest(50);
    execl(program, program, "executed", (char *)NULL);
    abort();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    program = argv[0];
    percent = 100;
    if (strcmp(mode, "waits") == 0 && argc > 4)
        return waits(argv);
    if (strcmp(mode, "short") == 0 && argc > 2)
        return shorts(strtol(argv[2], NULL, 10));
    if (strcmp(mode, "crowd") == 0 && argc > 2)
        return crowd(strtol(argv[2], NULL, 10));
    if (strcmp(mode, "executed") == 0) {
        work(50000000u);
        say_used();
        return 0;
    }
    if (strcmp(mode, "exec") == 0) {
        start(executes, NULL);
        for (;;)
            pause();
    }
    fprintf(stderr, "usage: see the head of the source\n");
    return 64;
}
