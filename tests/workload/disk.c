/* Reads READS blocks of 64 KiB from FILE, which it makes, past the page cache: each read waits for the disk. Says {"disk":
 * [wall ns, CPU ns, voluntary switches], "pid": N} of the reads; or {"unsupported": errno} where the file system has no direct I/O.
 *
 * usage: disk WARM_MILLISECONDS FILE READS */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>

#include <sys/resource.h>

#include "burn.h"

#define BLOCK 65536l
#define BLOCKS 128l

static int file;
static char *block;

static void check(int ok)
{
    if (!ok) {
        perror("disk");
        abort();
    }
}

static long voluntary_switches(void)
{
    struct rusage usage;
    check(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_nvcsw;
}

NOINLINE void known_disk(long reads)
{
    for (long i = 0; i < reads; i++)
        check(pread(file, block, BLOCK, i % BLOCKS * BLOCK) == BLOCK);
    __asm__ volatile("");
}

/* Until the profiler knows the program's unwind tables. */
NOINLINE void warm_up(uint64_t ms)
{
    uint64_t until = clock_ns(CLOCK_MONOTONIC) + ms * 1000000u;
    struct timespec one = {0, 1000000};
    while (clock_ns(CLOCK_MONOTONIC) < until)
        nanosleep(&one, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 64;
    long reads = strtol(argv[3], NULL, 10);
    check(posix_memalign((void **)&block, BLOCK, BLOCK) == 0);
    file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0);
    for (long i = 0; i < BLOCKS; i++)
        check(write(file, block, BLOCK) == BLOCK);
    check(fsync(file) == 0);
    close(file);
    file = open(argv[2], O_RDONLY | O_DIRECT);
    if (file < 0 || pread(file, block, BLOCK, 0) != BLOCK) {
        printf("{\"unsupported\":%d}\n", errno);
        return 0;
    }
    warm_up(strtoull(argv[1], NULL, 10));
    long switches = voluntary_switches();
    uint64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = thread_cpu_ns();
    known_disk(reads);
    cpu = thread_cpu_ns() - cpu;
    wall = clock_ns(CLOCK_MONOTONIC) - wall;
    switches = voluntary_switches() - switches;
    printf("{\"disk\":[%llu,%llu,%ld],\"pid\":%d}\n", (unsigned long long)wall, (unsigned long long)cpu, switches,
           getpid());
    return 0;
}
