/* Does known things one after the other and measures each itself, for what tells where the time of a command went.
 *
 * usage: stat USER_MILLISECONDS KERNEL_MILLISECONDS FILE READS
 *   Burns CPU in user mode; reads zeros, so that CPU is burned in a system call; calls read seven times with a bad
 *   descriptor; sleeps 200 ms; waits 300 ms for a futex; for a byte in a pipe, and for one of a socket, which two threads
 *   send that sleep 150 ms and 120 ms before; for a child that sleeps 100 ms; for READS direct reads of FILE, which it makes.
 *   Says {"user": CPU ns, "kernel": CPU ns of the calls, "cpu": CPU ns of all that it did until then, "sleep", "futex", "pipe", "socket", "wait", "disk": ns off the CPU and
 *   not waiting for one, "reads": calls, "read", "written", "received", "sent": bytes, without this line}. "disk" is 0 where
 *   the file system has no direct I/O.
 *
 * Statically linked: the dynamic linker would read and write too. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "burn.h"

#define BLOCK 65536l
#define BLOCKS 128l
#define ZEROS (8l << 20)
#define MESSAGE 1000l

enum what { SLEEP, FUTEX, PIPE, SOCKET, CHILD, DISK, COUNT };
static const char *const names[COUNT] = {"sleep", "futex", "pipe", "socket", "wait", "disk"};

/* Of both processes. */
struct sums {
    _Atomic uint64_t waited[COUNT], kernel_ns, reads, read_bytes, written_bytes, received_bytes, sent_bytes;
};
static struct sums *sums;
static int pipe_ends[2], sockets[2];
static uint64_t child_cpu_ns;

static void check(int ok)
{
    if (!ok) {
        perror("stat");
        abort();
    }
}

/* A call of four arguments, without a function of the C library. */
static inline __attribute__((always_inline)) long futex_wait(int *word, int value, struct timespec *timeout)
{
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = (long)timeout;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_futex), "D"(word), "S"((long)FUTEX_WAIT_PRIVATE), "d"((long)value), "r"(r10)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_futex, x0 __asm__("x0") = (long)word, x1 __asm__("x1") = FUTEX_WAIT_PRIVATE;
    register long x2 __asm__("x2") = value, x3 __asm__("x3") = (long)timeout;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    result = x0;
#else
#error "no system call for this architecture"
#endif
    return result;
}

static inline __attribute__((always_inline)) long counted_read(int file, void *to, long size)
{
    long n = system_call(SYS_read, file, (long)to, size);
    sums->reads++;
    if (n > 0)
        sums->read_bytes += (uint64_t)n;
    return n;
}

static inline __attribute__((always_inline)) long counted_write(int file, const void *from, long size)
{
    long n = system_call(SYS_write, file, (long)from, size);
    if (n > 0)
        sums->written_bytes += (uint64_t)n;
    return n;
}

BURNER(known_user)

NOINLINE void known_zeros(int file, char *to, uint64_t ns)
{
    uint64_t end = thread_cpu_ns() + ns;
    do
        check(counted_read(file, to, ZEROS) == ZEROS);
    while (thread_cpu_ns() < end);
    __asm__ volatile("");
}

NOINLINE void known_sleep(long ms)
{
    struct timespec time = {0, ms * 1000000};
    while (system_call(SYS_nanosleep, (long)&time, (long)&time, 0) == -EINTR)
        ;
    __asm__ volatile("");
}

NOINLINE void known_futex(long ms)
{
    int word = 0;
    struct timespec time = {0, ms * 1000000};
    check(futex_wait(&word, 0, &time) == -ETIMEDOUT);
    __asm__ volatile("");
}

NOINLINE void known_pipe(void)
{
    char byte;
    check(counted_read(pipe_ends[0], &byte, 1) == 1);
    __asm__ volatile("");
}

NOINLINE void known_socket(void)
{
    char message[MESSAGE];
    struct iovec to = {message, sizeof message};
    struct msghdr header = {.msg_iov = &to, .msg_iovlen = 1};
    long n = system_call(SYS_recvmsg, sockets[0], (long)&header, 0);
    check(n == MESSAGE);
    sums->received_bytes += (uint64_t)n;
}

NOINLINE void known_disk(int file, char *block, long count)
{
    for (long i = 0; i < count; i++) {
        if (i % BLOCKS == 0)
            system_call(SYS_lseek, file, 0, SEEK_SET);
        check(counted_read(file, block, BLOCK) == BLOCK);
    }
    __asm__ volatile("");
}

static uint64_t run_delay(void)
{
    char text[256] = {0};
    int file = open("/proc/thread-self/schedstat", O_RDONLY);
    check(file >= 0 && counted_read(file, text, sizeof text - 1) > 0);
    close(file);
    char *second = strchr(text, ' ');
    check(second != NULL);
    return strtoull(second, NULL, 10);
}

struct moment {
    uint64_t wall, cpu, delay;
};

static struct moment begin(void)
{
    uint64_t delay = run_delay();
    return (struct moment){.delay = delay, .cpu = thread_cpu_ns(), .wall = clock_ns(CLOCK_MONOTONIC)};
}

/* What it did since then was a wait. */
static void ended(enum what what, struct moment since)
{
    uint64_t wall = clock_ns(CLOCK_MONOTONIC) - since.wall, cpu = thread_cpu_ns() - since.cpu;
    uint64_t elsewhere = cpu + run_delay() - since.delay;
    sums->kernel_ns += cpu;
    if (wall > elsewhere)
        sums->waited[what] += wall - elsewhere;
}

static void sleeps(long ms)
{
    struct moment since = begin();
    known_sleep(ms);
    ended(SLEEP, since);
}

static void *pipe_writer(void *argument)
{
    sleeps(150);
    check(counted_write(pipe_ends[1], "b", 1) == 1);
    return argument;
}

static void *socket_writer(void *argument)
{
    char message[MESSAGE] = {0};
    struct iovec from = {message, sizeof message};
    struct msghdr header = {.msg_iov = &from, .msg_iovlen = 1};
    sleeps(120);
    long n = system_call(SYS_sendmsg, sockets[1], (long)&header, 0);
    check(n == MESSAGE);
    sums->sent_bytes += (uint64_t)n;
    return argument;
}

static void from_a_thread(void *(*sender)(void *), void (*receive)(void), enum what what)
{
    pthread_t thread;
    check((errno = pthread_create(&thread, NULL, sender, NULL)) == 0);
    struct moment since = begin();
    receive();
    ended(what, since);
    since = begin();
    pthread_join(thread, NULL);
    ended(FUTEX, since);
}

static void child(void)
{
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        sleeps(100);
        _exit(0);
    }
    struct moment since = begin();
    struct rusage used;
    check(wait4(pid, NULL, 0, &used) == pid);
    ended(CHILD, since);
    child_cpu_ns = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u +
                   (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000u;
}

/* Reads are not measured where the file system cannot do them so. */
static void disk(const char *path, long count)
{
    char *block;
    check(posix_memalign((void **)&block, BLOCK, BLOCK) == 0);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0);
    for (long i = 0; i < BLOCKS; i++)
        check(counted_write(file, block, BLOCK) == BLOCK);
    check(fsync(file) == 0);
    close(file);
    file = open(path, O_RDONLY | O_DIRECT);
    if (file < 0 || counted_read(file, block, BLOCK) != BLOCK) {
        return;
    }
    struct moment since = begin();
    known_disk(file, block, count);
    ended(DISK, since);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    uint64_t user_ns = ms_argument(argc, argv, 1), zeros_ns = ms_argument(argc, argv, 2);
    long count = strtol(argv[4], NULL, 10);
    sums = mmap(NULL, sizeof *sums, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(sums != MAP_FAILED);
    char *zeros = malloc(ZEROS);
    int zero = open("/dev/zero", O_RDONLY);
    check(zeros && zero >= 0 && pipe(pipe_ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    /* The first read finds no memory behind the buffer. */
    memset(zeros, 1, ZEROS);
    uint64_t cpu = thread_cpu_ns();
    known_user(user_ns);
    user_ns = thread_cpu_ns() - cpu;
    cpu = thread_cpu_ns();
    known_zeros(zero, zeros, zeros_ns);
    sums->kernel_ns += thread_cpu_ns() - cpu;
    for (int i = 0; i < 7; i++)
        check(counted_read(-1, zeros, 1) == -EBADF);
    sleeps(200);
    struct moment since = begin();
    known_futex(300);
    ended(FUTEX, since);
    from_a_thread(pipe_writer, known_pipe, PIPE);
    from_a_thread(socket_writer, known_socket, SOCKET);
    child();
    disk(argv[3], count);
    printf("{\"user\":%llu,\"kernel\":%llu,\"cpu\":%llu", (unsigned long long)user_ns, (unsigned long long)sums->kernel_ns,
           (unsigned long long)(cpu_ns() + child_cpu_ns));
    for (int i = 0; i < COUNT; i++)
        printf(",\"%s\":%llu", names[i], (unsigned long long)sums->waited[i]);
    printf(",\"reads\":%llu,\"read\":%llu,\"written\":%llu,\"received\":%llu,\"sent\":%llu}\n",
           (unsigned long long)sums->reads, (unsigned long long)sums->read_bytes, (unsigned long long)sums->written_bytes,
           (unsigned long long)sums->received_bytes, (unsigned long long)sums->sent_bytes);
    return 0;
}
