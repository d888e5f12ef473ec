/* Works in the kernel, by reading zeros, and then in user mode, for the same CPU time.
 *
 * usage: kernel MILLISECONDS */
#include <fcntl.h>

#include "burn.h"

static char buffer[1 << 20];

NOINLINE void kernel_caller(uint64_t ns)
{
    KEEP_FRAME();
    int zero = open("/dev/zero", O_RDONLY);
    uint64_t end = thread_cpu_ns() + ns;
    if (zero < 0)
        perror("/dev/zero"), exit(71);
    do
        for (int i = 0; i < 4; i++)
            if (system_call(SYS_read, zero, (long)buffer, sizeof buffer) < 0)
                exit(71);
    while (thread_cpu_ns() < end);
    close(zero);
}

BURNER(user_work)

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    kernel_caller(ns);
    user_work(ns);
    say_used();
    return 0;
}
