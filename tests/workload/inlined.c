/* Work in a function that is inlined twice over: the stack of every sample is
 * `inline_leaf` in `inline_middle` in `inline_outer`, of which only `inline_outer` is a real call.
 *
 * usage: inlined MILLISECONDS */
#include "burn.h"

static inline __attribute__((always_inline)) void inline_leaf(void)
{
    for (uint64_t i = 0; i < SLICE; i++)
        __asm__ volatile("" ::: "memory");
}

static inline __attribute__((always_inline)) void inline_middle(void)
{
    inline_leaf();
}

NOINLINE void inline_outer(uint64_t ns)
{
    KEEP_FRAME();
    uint64_t end = thread_cpu_ns() + ns;
    do
        inline_middle();
    while (thread_cpu_ns() < end);
}

int main(int argc, char **argv)
{
    inline_outer(ms_argument(argc, argv, 1));
    say_used();
    return 0;
}
