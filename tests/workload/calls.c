/* System calls whose numbers, errors and times are known.
 *
 * usage: calls mixed COUNT
 *   Says `ready` and waits for a line. Then four threads make COUNT calls together: getppid, read of a byte and write of a
 *   byte by turns, of these reads every tenth from no file (EBADF) or from an empty pipe (EAGAIN), and a tenth as many
 *   openat of what is not there (ENOENT). Says {"threads":[[tid, getppid, read, write, openat, EBADF, EAGAIN], ...]} and
 *   `done`; ends with its input.
 * usage: calls times ROUNDS
 *   Says `ready` and waits for a line. Then ROUNDS times: nanosleep of 20 ms, pselect6 of 10 ms, read of 32 MiB from
 *   /dev/zero. Says, for each, the time around the calls and the longest, the thread's CPU time and the time that it could
 *   run and did not (schedstat), ns: {"nanosleep":[wall, longest, cpu, delay], ...}; and `done`; ends with its input.
 * usage: calls odd
 *   Calls that do not return, return twice or elsewhere: ten children that exit; five that execute a program; three programs
 *   that are not there; seven signals handled; three threads that end; a child whose sleep of a second is stopped.
 * usage: calls many COUNT
 *   Says `ready` and waits for a line. COUNT children: each makes getppid three times, close(-1) once, one of eight other
 *   calls, and waits. When all do, says `done`; with its input they end.
 * usage: calls compat COUNT
 *   x86-64: COUNT getppid by the entry of 32-bit programs (int 0x80), and COUNT + 1 by the usual one. Says
 *   {"compat":1}, or 0 if the kernel has no such entry. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "burn.h"

static void check(int ok)
{
    if (!ok) {
        perror("calls");
        abort();
    }
}

static int zero, null, empty[2];

static void open_files(void)
{
    zero = open("/dev/zero", O_RDONLY);
    null = open("/dev/null", O_WRONLY);
    check(zero >= 0 && null >= 0 && pipe2(empty, O_NONBLOCK) == 0);
}

/* mixed */

enum { THREADS = 4 };
static struct {
    long tid, getppid, read, write, openat, ebadf, eagain;
} made[THREADS];
static long each;

static void *mix(void *argument)
{
    long number = (long)argument;
    made[number].tid = syscall(SYS_gettid);
    char byte = 0;
    for (long i = 0; i < each; i++) {
        switch (i % 3) {
        case 0:
            syscall(SYS_getppid);
            made[number].getppid++;
            break;
        case 1:
            made[number].read++;
            if (i % 10 == 0) {
                check(syscall(SYS_read, -1, &byte, 1) < 0 && errno == EBADF);
                made[number].ebadf++;
            } else if (i % 10 == 1) {
                check(syscall(SYS_read, empty[0], &byte, 1) < 0 && errno == EAGAIN);
                made[number].eagain++;
            } else {
                check(syscall(SYS_read, zero, &byte, 1) == 1);
            }
            break;
        default:
            check(syscall(SYS_write, null, &byte, 1) == 1);
            made[number].write++;
        }
        if (i % 30 == 0) {
            check(syscall(SYS_openat, AT_FDCWD, "/nothing/is/here", O_RDONLY) < 0 && errno == ENOENT);
            made[number].openat++;
        }
    }
    return NULL;
}

static int mixed(long count)
{
    pthread_t threads[THREADS];
    each = count / THREADS;
    open_files();
    say("ready");
    wait_for_go();
    for (long i = 0; i < THREADS; i++)
        check((errno = pthread_create(&threads[i], NULL, mix, (void *)i)) == 0);
    for (long i = 0; i < THREADS; i++)
        check((errno = pthread_join(threads[i], NULL)) == 0);
    printf("{\"threads\":[");
    for (int i = 0; i < THREADS; i++)
        printf("%s[%ld,%ld,%ld,%ld,%ld,%ld,%ld]", i ? "," : "", made[i].tid, made[i].getppid, made[i].read, made[i].write,
               made[i].openat, made[i].ebadf, made[i].eagain);
    printf("]}\n");
    say("done");
    wait_for_go();
    return 0;
}

/* times */

struct timing {
    uint64_t wall, longest, cpu, delay;
};

static uint64_t delay_ns(void)
{
    char text[128] = "";
    int file = open("/proc/thread-self/schedstat", O_RDONLY);
    check(file >= 0 && pread(file, text, sizeof text - 1, 0) > 0);
    close(file);
    unsigned long long cpu, delay;
    check(sscanf(text, "%llu %llu", &cpu, &delay) == 2);
    return delay;
}

static void do_call(int what, char *memory)
{
    struct timespec time = {0, what == 0 ? 20000000 : 10000000};
    if (what == 0)
        check(syscall(SYS_nanosleep, &time, NULL) == 0);
    else if (what == 1)
        check(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &time, NULL) == 0);
    else
        check(syscall(SYS_read, zero, memory, 32 << 20) == 32 << 20);
}

static int times(long rounds)
{
    static const char *const names[] = {"nanosleep", "pselect6", "read"};
    struct timing timings[3] = {{0}};
    open_files();
    char *memory = mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(memory != MAP_FAILED);
    say("ready");
    wait_for_go();
    for (int what = 0; what < 3; what++) {
        struct timing *timing = &timings[what];
        uint64_t delay = delay_ns(), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        for (long i = 0; i < rounds; i++) {
            uint64_t begin = clock_ns(CLOCK_MONOTONIC);
            do_call(what, memory);
            uint64_t took = clock_ns(CLOCK_MONOTONIC) - begin;
            timing->wall += took;
            if (took > timing->longest)
                timing->longest = took;
        }
        timing->cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
        timing->delay = delay_ns() - delay;
    }
    for (int what = 0; what < 3; what++)
        printf("%s\"%s\":[%llu,%llu,%llu,%llu]", what ? "," : "{", names[what], (unsigned long long)timings[what].wall,
               (unsigned long long)timings[what].longest, (unsigned long long)timings[what].cpu,
               (unsigned long long)timings[what].delay);
    printf("}\n");
    say("done");
    wait_for_go();
    return 0;
}

/* odd */

static void handler(int signal)
{
    (void)signal;
}

static void *end(void *argument)
{
    return argument;
}

static void stop_a_sleep(void)
{
    int ends[2];
    char byte;
    check(pipe(ends) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        struct timespec second = {1, 0};
        check(write(ends[1], "s", 1) == 1);
        check(syscall(SYS_nanosleep, &second, NULL) == 0);
        _exit(0);
    }
    check(read(ends[0], &byte, 1) == 1);
    poll(NULL, 0, 100);
    int status;
    check(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    check(kill(child, SIGCONT) == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
}

static int odd(char *program)
{
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        check(child >= 0);
        if (child == 0)
            _exit(0);
        check(waitpid(child, NULL, 0) == child);
    }
    char *arguments[] = {program, "nothing", NULL}, *environment[] = {NULL};
    for (int i = 0; i < 5; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execve(program, arguments, environment);
            _exit(1);
        }
        check(child > 0 && waitpid(child, NULL, 0) == child);
    }
    for (int i = 0; i < 3; i++)
        check(execve("/nothing/is/here", arguments, environment) < 0 && errno == ENOENT);
    signal(SIGUSR1, handler);
    for (int i = 0; i < 7; i++)
        check(kill(getpid(), SIGUSR1) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        check((errno = pthread_create(&thread, NULL, end, NULL)) == 0 && (errno = pthread_join(thread, NULL)) == 0);
    }
    stop_a_sleep();
    return 0;
}

/* many */

static void call_one(int which)
{
    struct rlimit limit;
    struct stat stat;
    switch (which) {
    case 0: syscall(SYS_getuid); break;
    case 1: syscall(SYS_getgid); break;
    case 2: syscall(SYS_gettid); break;
    case 3: syscall(SYS_getsid, 0); break;
    case 4: syscall(SYS_umask, 077); break;
    case 5: getrlimit(RLIMIT_NOFILE, &limit); break;
    case 6: fstat(0, &stat); break;
    default: syscall(SYS_sched_yield);
    }
}

static int many(long count)
{
    int go[2], there[2];
    char byte = 0;
    check(pipe(go) == 0 && pipe(there) == 0);
    say("ready");
    wait_for_go();
    for (long i = 0; i < count; i++) {
        pid_t child = fork();
        check(child >= 0);
        if (child)
            continue;
        close(go[1]);
        for (int j = 0; j < 3; j++)
            syscall(SYS_getppid);
        check(syscall(SYS_close, -1) < 0 && errno == EBADF);
        call_one(i % 8);
        check(write(there[1], &byte, 1) == 1);
        _exit(read(go[0], &byte, 1) != 0);
    }
    for (long i = 0; i < count; i++)
        check(read(there[0], &byte, 1) == 1);
    say("done");
    wait_for_go();
    close(go[1]);
    for (long i = 0; i < count; i++)
        check(wait(NULL) > 0);
    return 0;
}

/* compat */

static int compat(long count)
{
    int has = 0;
#ifdef __x86_64__
    /* Without the entry it is a fault. */
    pid_t child = fork();
    check(child >= 0);
    long result = 20;
    if (child == 0) {
        __asm__ volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
        _exit(result > 0 ? 0 : 1);
    }
    int status;
    check(waitpid(child, &status, 0) == child);
    has = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    for (long i = 0; has && i < count; i++) {
        result = 64;
        __asm__ volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
        check(result > 0);
    }
#endif
    for (long i = 0; i < count + 1; i++)
        syscall(SYS_getppid);
    printf("{\"compat\":%d}\n", has);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    if (strcmp(mode, "mixed") == 0 && count > 0)
        return mixed(count);
    if (strcmp(mode, "times") == 0 && count > 0)
        return times(count);
    if (strcmp(mode, "odd") == 0)
        return odd(argv[0]);
    if (strcmp(mode, "nothing") == 0)
        return 0;
    if (strcmp(mode, "many") == 0 && count > 0)
        return many(count);
    if (strcmp(mode, "compat") == 0 && count > 0)
        return compat(count);
    fprintf(stderr, "usage: see the head of the source\n");
    return 64;
}
