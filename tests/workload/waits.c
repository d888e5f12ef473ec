/* Waits for known times, each in a function of its own two calls below main, and says how long each took.
 *
 * usage: waits WARM_MILLISECONDS [wait]        the waits, one after the other
 *        waits WARM_MILLISECONDS forever       one wait that does not end; to be recorded by its process id
 *        waits WARM_MILLISECONDS spin MS       two processes that never wait share a CPU
 *        waits WARM_MILLISECONDS in_turn N     N short waits of each of several kinds, by turns
 *        waits WARM_MILLISECONDS mixed N       N times 200 short waits at one place and one of 10 ms at another one
 *
 * The waits: says {"NAME": [wall ns, CPU ns]} for each function known_NAME.
 * Forever: says the time (CLOCK_REALTIME, ns) at which it began to wait.
 * In turn: says its process id.
 * Mixed: says {"short_waits": [number, ns], "long_wait": [number, ns, CPU ns, ns that it waited for the CPU]}: with what is
 * needed to begin and end them.
 * Spin: says for each of the two [process id, ns that it waited for the CPU, by /proc/self/schedstat]. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "burn.h"

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline __attribute__((always_inline)) void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
        ;
}

static int futex_word, pipe_ends[2], poll_ends[2], socket_ends[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

/* Releases what the main thread waits for, each a known time after it has begun to. */
NOINLINE void release_futex(void)
{
    sleep_ms(300);
    __atomic_store_n(&futex_word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &futex_word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    AFTER_CALL();
}

NOINLINE void release_file(int file, long ms)
{
    sleep_ms(ms);
    if (write(file, "x", 1) != 1)
        abort();
    AFTER_CALL();
}

NOINLINE void hold_mutex(void)
{
    pthread_mutex_lock(&mutex);
    pthread_barrier_wait(&barrier);
    sleep_ms(120);
    pthread_mutex_unlock(&mutex);
    AFTER_CALL();
}

static void *helper(void *unused)
{
    pthread_barrier_wait(&barrier);
    release_futex();
    pthread_barrier_wait(&barrier);
    release_file(pipe_ends[1], 150);
    pthread_barrier_wait(&barrier);
    release_file(poll_ends[1], 110);
    pthread_barrier_wait(&barrier);
    release_file(socket_ends[1], 130);
    for (int i = 0; i < 3; i++)
        hold_mutex(), pthread_barrier_wait(&barrier);
    return unused;
}

NOINLINE void known_sleep(void)
{
    sleep_ms(200);
    AFTER_CALL();
}

NOINLINE void known_futex(void)
{
    while (__atomic_load_n(&futex_word, __ATOMIC_SEQ_CST) == 0)
        syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    AFTER_CALL();
}

NOINLINE void known_pipe(void)
{
    char byte;
    if (read(pipe_ends[0], &byte, 1) != 1)
        abort();
    AFTER_CALL();
}

NOINLINE void known_poll(void)
{
    struct pollfd file = {poll_ends[0], POLLIN, 0};
    if (poll(&file, 1, -1) != 1)
        abort();
    AFTER_CALL();
}

NOINLINE void known_socket(void)
{
    char byte;
    if (read(socket_ends[0], &byte, 1) != 1)
        abort();
    AFTER_CALL();
}

NOINLINE void known_mutex(void)
{
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    AFTER_CALL();
}

static pid_t child;

NOINLINE void known_child(void)
{
    while (waitpid(child, NULL, 0) != child)
        ;
    AFTER_CALL();
}

/* Runs a wait from a function of its own, and measures it. */
#define OUTER(name)                                                             \
    static uint64_t name##_wall, name##_cpu;                                    \
    NOINLINE void known_##name##_outer(void)                                    \
    {                                                                           \
        uint64_t wall = now_ns(CLOCK_MONOTONIC), cpu = thread_cpu_ns();         \
        known_##name();                                                         \
        name##_cpu += thread_cpu_ns() - cpu;                                    \
        name##_wall += now_ns(CLOCK_MONOTONIC) - wall;                          \
    }

OUTER(sleep)
OUTER(futex)
OUTER(pipe)
OUTER(poll)
OUTER(socket)
OUTER(mutex)
OUTER(child)

/* Until the profiler knows the program's unwind tables: it is asked for them at exec. */
NOINLINE void warm_up(long ms)
{
    uint64_t until = now_ns(CLOCK_MONOTONIC) + ms * 1000000ull;
    while (now_ns(CLOCK_MONOTONIC) < until)
        sleep_ms(1);
}

static void all_waits(void)
{
    pthread_t thread;
    if (pipe(pipe_ends) || pipe(poll_ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, socket_ends))
        abort();
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, helper, NULL))
        abort();
    known_sleep_outer();
    pthread_barrier_wait(&barrier);
    known_futex_outer();
    pthread_barrier_wait(&barrier);
    known_pipe_outer();
    pthread_barrier_wait(&barrier);
    known_poll_outer();
    pthread_barrier_wait(&barrier);
    known_socket_outer();
    for (int i = 0; i < 3; i++) {
        pthread_barrier_wait(&barrier);
        known_mutex_outer();
        pthread_barrier_wait(&barrier);
    }
    pthread_join(thread, NULL);
    child = fork();
    if (child == 0) {
        sleep_ms(140);
        _exit(0);
    }
    known_child_outer();
#define SAY(name) printf("%s\"" #name "\":[%llu,%llu]", #name[0] == 's' && #name[1] == 'l' ? "{" : ",", \
                         (unsigned long long)name##_wall, (unsigned long long)name##_cpu)
    SAY(sleep), SAY(futex), SAY(pipe), SAY(poll), SAY(socket), SAY(mutex), SAY(child);
    printf(",\"pid\":%d}\n", getpid());
}

NOINLINE void never_ends(void)
{
    syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    AFTER_CALL();
}

static uint64_t run_delay_ns(void)
{
    char text[128];
    int file = open("/proc/self/schedstat", O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    if (length <= 0)
        abort();
    text[length] = '\0';
    close(file);
    char *second;
    strtoull(text, &second, 10);
    return strtoull(second, NULL, 10);
}

BURNER(spin_here)

static void spin_twice(uint64_t ns)
{
    uint64_t *delays = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            uint64_t before = run_delay_ns();
            spin_here(ns);
            delays[i] = run_delay_ns() - before;
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    printf("{\"spin\":[[%d,%llu],[%d,%llu]]}\n", pids[0], (unsigned long long)delays[0], pids[1],
           (unsigned long long)delays[1]);
}

/* Each ends by its time-out: deep and shallow calls of the kernel, one after the other. */
NOINLINE void turn_sleep(void)
{
    struct timespec time = {0, 100000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    AFTER_CALL();
}

NOINLINE void turn_futex(void)
{
    struct timespec time = {0, 100000};
    syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
    AFTER_CALL();
}

NOINLINE void turn_poll(void)
{
    struct timespec time = {0, 100000};
    struct pollfd file = {pipe_ends[0], POLLIN, 0};
    if (ppoll(&file, 1, &time, NULL) != 0)
        abort();
    AFTER_CALL();
}

static void in_turn(long count)
{
    if (pipe(pipe_ends))
        abort();
    /* Twice the same, so that what was kept of it is used, and then another one. */
    for (long i = 0; i < count; i += 2) {
        turn_sleep(), turn_sleep();
        turn_futex(), turn_futex();
        turn_poll(), turn_poll();
    }
    printf("{\"pid\":%d}\n", getpid());
}

NOINLINE void short_waits(int count)
{
    for (int i = 0; i < count; i++) {
        struct timespec time = {0, 20000};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    }
    AFTER_CALL();
}

NOINLINE void long_wait(void)
{
    sleep_ms(10);
    AFTER_CALL();
}

static void mixed(long count)
{
    const int each = 200;
    uint64_t short_ns = 0, long_ns = 0, long_cpu_ns = 0, long_delay_ns = 0;
    for (long i = 0; i < count; i++) {
        uint64_t begun = now_ns(CLOCK_MONOTONIC);
        short_waits(each);
        short_ns += now_ns(CLOCK_MONOTONIC) - begun;
        uint64_t delay = run_delay_ns(), wall = now_ns(CLOCK_MONOTONIC), cpu = thread_cpu_ns();
        long_wait();
        long_cpu_ns += thread_cpu_ns() - cpu;
        long_ns += now_ns(CLOCK_MONOTONIC) - wall;
        long_delay_ns += run_delay_ns() - delay;
    }
    printf("{\"short_waits\":[%ld,%llu],\"long_wait\":[%ld,%llu,%llu,%llu]}\n", count * each,
           (unsigned long long)short_ns, count, (unsigned long long)long_ns, (unsigned long long)long_cpu_ns,
           (unsigned long long)long_delay_ns);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    long warm_ms = strtol(argv[1], NULL, 10);
    const char *what = argc > 2 ? argv[2] : "";
    if (strcmp(what, "wait") == 0 || strcmp(what, "forever") == 0 || strcmp(what, "mixed") == 0)
        say("ready"), wait_for_go();
    warm_up(warm_ms);
    if (strcmp(what, "forever") == 0) {
        printf("{\"pid\":%d,\"began\":%llu}\n", getpid(), (unsigned long long)now_ns(CLOCK_REALTIME));
        fflush(stdout);
        never_ends();
    } else if (strcmp(what, "spin") == 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        if (sched_setaffinity(0, sizeof one, &one))
            abort();
        spin_twice(ms_argument(argc, argv, 3));
    } else if (strcmp(what, "in_turn") == 0) {
        in_turn(strtol(argv[3], NULL, 10));
    } else if (strcmp(what, "mixed") == 0) {
        mixed(strtol(argv[3], NULL, 10));
        wait_for_go();
    } else {
        all_waits();
    }
    return 0;
}
