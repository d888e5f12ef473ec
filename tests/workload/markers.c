/* Comes to markers (USDT), so often each: `app:places`, which is in two functions, in `often` and, half as often, in `rarely`;
 * `app:asked`, in `when_asked`, as often as in `often`, but only if its semaphore says that somebody listens; and
 * `library:inside`, in a library that it loads (`markers_library.c`), by `call_library`, a third as often. Waits for the tables of
 * unwinders before, for so much CPU time.
 *
 * usage: markers LIBRARY MILLISECONDS TIMES [listened]
 *
 * Says `ready` and waits for input, with `listened` until somebody listens too; comes to the markers; says `done` and waits for
 * input again. At its end it says its id, what the semaphore was at first and at last, and how often it was raised. */
#include <dlfcn.h>

#include "burn.h"
#include "marker.h"

MARKER_BASE;

__attribute__((section(".probes"), visibility("hidden"))) volatile unsigned short asked_semaphore;

static unsigned long raised;

/* Behind a call, so that it is none that replaces its caller. */
#define AFTER() __asm__ volatile("" ::: "memory")

NOINLINE void often(long number)
{
    MARK("app", "places", "0", number);
    AFTER();
}

NOINLINE void rarely(long number)
{
    /* A frame of its own, which an instruction in the middle of a function has. */
    volatile long room[32];
    room[number & 31] = number;
    MARK("app", "places", "0", number + room[number & 31]);
    AFTER();
}

NOINLINE void call_both(long times)
{
    for (long i = 0; i < times; i++) {
        often(i);
        if (i % 2 == 0)
            rarely(i);
    }
    AFTER();
}

NOINLINE void when_asked(long number)
{
    if (asked_semaphore != 0) {
        raised++;
        MARK("app", "asked", "asked_semaphore", number);
    }
    AFTER();
}

NOINLINE void ask(long times)
{
    for (long i = 0; i < times; i++)
        when_asked(i);
    AFTER();
}

NOINLINE void call_library(void (*inside)(long), long times)
{
    for (long i = 0; i < times; i += 3)
        inside(i);
    AFTER();
}

BURNER(warm)

int main(int argc, char **argv)
{
    uint64_t warm_ns = ms_argument(argc, argv, 2);
    if (argc < 4)
        exit(64);
    long times = strtol(argv[3], NULL, 10);
    void *library = dlopen(argv[1], RTLD_NOW);
    void (*inside)(long) = library ? (void (*)(long))dlsym(library, "library_inside") : NULL;
    if (!inside) {
        fprintf(stderr, "%s: %s\n", argv[1], dlerror());
        exit(64);
    }
    unsigned first = asked_semaphore;
    say("ready"), wait_for_go();
    warm(warm_ns);
    while (argc > 4 && asked_semaphore == 0)
        usleep(1000);
    ask(times);
    call_both(times);
    call_library(inside, times);
    say("done"), wait_for_go();
    printf("{\"pid\":%d,\"first\":%u,\"raised\":%lu,\"last\":%u}\n", (int)getpid(), first, raised,
           (unsigned)asked_semaphore);
    return 0;
}
