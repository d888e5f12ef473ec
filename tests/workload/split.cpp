// Ground truth in C++: as split.c, but the callers are a template in a namespace, so that names are mangled and long.
//
// usage: split MILLISECONDS
#include <utility>

#include "burn.h"

namespace split {

// The caller's name is in the type.
struct half {};
struct third {};
struct fifth {};

NOINLINE void work(uint64_t iterations)
{
    KEEP_FRAME();
    spin(iterations);
}

// link<Caller, 19> is called by main, link<Caller, 1> calls work: work is 20 calls below main.
template <typename Caller, int Left>
struct chain {
    NOINLINE static void link(uint64_t iterations)
    {
        if constexpr (Left == 1)
            work(iterations);
        else
            chain<Caller, Left - 1>::link(iterations);
        __asm__ volatile("");
    }
};

} // namespace split

int main(int argc, char **argv)
{
    static const int share[10] = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2};
    uint64_t end = ms_argument(argc, argv, 1);
    uint64_t random = 0x9e3779b97f4a7c15u;
    uint64_t calls[3] = {};

    while (cpu_ns() < end) {
        int order[10];
        for (int i = 0; i < 10; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            order[i] = share[i];
            std::swap(order[i], order[(random >> 33) % uint64_t(i + 1)]);
        }
        for (int which : order) {
            calls[which]++;
            if (which == 0)
                split::chain<split::half, 19>::link(SLICE);
            else if (which == 1)
                split::chain<split::third, 19>::link(SLICE);
            else
                split::chain<split::fifth, 19>::link(SLICE);
        }
    }
    printf("{\"pid\":%d,\"cpu_ns\":%llu,\"calls\":[%llu,%llu,%llu]}\n", (int)getpid(), (unsigned long long)cpu_ns(),
           (unsigned long long)calls[0], (unsigned long long)calls[1], (unsigned long long)calls[2]);
    return 0;
}
