/* Two threads: `toucher` touches PAGES pages for the first time, `worker` works for 200 ms of CPU time and touches none. Says
 * {"NAME": [tid, page faults that the kernel counts for the thread]} of both, and ends.
 *
 * usage: faults PAGES */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "burn.h"

struct result {
    int tid;
    long faults;
};

static long pages;
static pthread_barrier_t both;

BURNER(work)

static void keep(struct result *result)
{
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage))
        abort();
    result->tid = (int)syscall(SYS_gettid);
    result->faults = usage.ru_minflt;
    /* Together: what one of them touches on its way out is not the other's. */
    pthread_barrier_wait(&both);
}

static void *touch(void *result)
{
    long size = sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, pages * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, pages * size, MADV_NOHUGEPAGE))
        abort();
    prctl(PR_SET_NAME, "toucher");
    for (long i = 0; i < pages; i++)
        memory[i * size] = 1;
    keep(result);
    return NULL;
}

static void *worker(void *result)
{
    prctl(PR_SET_NAME, "worker");
    work(200000000u);
    keep(result);
    return NULL;
}

int main(int argc, char **argv)
{
    struct result results[2];
    pthread_t threads[2];
    pages = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    pthread_barrier_init(&both, NULL, 2);
    if (pthread_create(&threads[0], NULL, touch, &results[0]) ||
        pthread_create(&threads[1], NULL, worker, &results[1]))
        abort();
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    printf("{\"toucher\":[%d,%ld],\"worker\":[%d,%ld]}\n", results[0].tid, results[0].faults, results[1].tid,
           results[1].faults);
    return 0;
}
