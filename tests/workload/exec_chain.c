/* Works in `exec_before`, then becomes another program.
 *
 * usage: exec_chain MILLISECONDS PROGRAM ARGUMENT... */
#include "burn.h"

BURNER(exec_before)

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    if (argc < 3)
        return 64;
    exec_before(ns);
    say_used();
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
