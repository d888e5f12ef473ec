/* Ground truth: one function, `split_work`, called 50/30/20 by three callers, each through a chain of its own so that
 * `split_work` is 20 calls below `main`.
 *
 * The split holds by construction: every call does the same number of iterations, and every round of ten calls has
 * five, three and two of them. The order within a round is shuffled, so that no period of the rounds can beat with
 * the period of the sampling timer, and a round is about a millisecond long, so that a change of the CPU's speed or a
 * stolen slice meets the three alike.
 *
 * usage: split MILLISECONDS
 *
 * With LIBRARY it is a library whose `split_main` another program calls. */
#include "burn.h"

static uint64_t calls[3];

/* The first byte of this program's or library's file, where the linker maps it. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
#define IN_FILE(function) ((unsigned long long)((const char *)(function) - __ehdr_start))

NOINLINE void split_work(uint64_t iterations)
{
    KEEP_FRAME();
    spin(iterations);
}

/* A function that only calls the next one. The empty statement behind the call keeps it from being a jump. */
#define LINK(name, next)                          \
    NOINLINE void name(uint64_t iterations)       \
    {                                             \
        next(iterations);                         \
        __asm__ volatile("");                     \
    }

/* caller -> caller_01 -> ... -> caller_18 -> split_work: 20 calls below main. */
#define CHAIN(caller)                                                                        \
    LINK(caller##_18, split_work)                                                            \
    LINK(caller##_17, caller##_18) LINK(caller##_16, caller##_17)                            \
    LINK(caller##_15, caller##_16) LINK(caller##_14, caller##_15)                            \
    LINK(caller##_13, caller##_14) LINK(caller##_12, caller##_13)                            \
    LINK(caller##_11, caller##_12) LINK(caller##_10, caller##_11)                            \
    LINK(caller##_09, caller##_10) LINK(caller##_08, caller##_09)                            \
    LINK(caller##_07, caller##_08) LINK(caller##_06, caller##_07)                            \
    LINK(caller##_05, caller##_06) LINK(caller##_04, caller##_05)                            \
    LINK(caller##_03, caller##_04) LINK(caller##_02, caller##_03)                            \
    LINK(caller##_01, caller##_02) LINK(caller, caller##_01)

CHAIN(split_half)
CHAIN(split_third)
CHAIN(split_fifth)

#ifdef LIBRARY
#define main split_main
#endif

int main(int argc, char **argv)
{
    static const int share[10] = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2};
    uint64_t end = ms_argument(argc, argv, 1);
    uint64_t random = 0x9e3779b97f4a7c15u;

    while (cpu_ns() < end) {
        int order[10];
        for (int i = 0; i < 10; i++) {
            /* Inside-out shuffle with a xorshift generator. */
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            int j = (int)((random >> 33) % (uint64_t)(i + 1));
            order[i] = order[j];
            order[j] = share[i];
        }
        for (int i = 0; i < 10; i++) {
            calls[order[i]]++;
            if (order[i] == 0)
                split_half(SLICE);
            else if (order[i] == 1)
                split_third(SLICE);
            else
                split_fifth(SLICE);
        }
    }
    /* Where the callers are, for a reader who has no names: first and last function of each chain. (The innermost
     * ones, which call `split_work`, stand together elsewhere.) */
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"calls\":[%llu,%llu,%llu],\"chains\":[[%llu,%llu],[%llu,%llu],[%llu,%llu]]}\n",
           (int)getpid(), (unsigned long long)cpu_ns(), (unsigned long long)calls[0], (unsigned long long)calls[1],
           (unsigned long long)calls[2], IN_FILE(split_half_17), IN_FILE(split_half), IN_FILE(split_third_17),
           IN_FILE(split_third), IN_FILE(split_fifth_17), IN_FILE(split_fifth));
    return 0;
}
