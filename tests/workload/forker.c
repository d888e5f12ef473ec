/* Works in `fork_parent_work` while a child works in `fork_child_work`, and the child's child in
 * `fork_grandchild_work`, each for the same CPU time.
 *
 * usage: forker MILLISECONDS [wait] */
#include <sys/wait.h>

#include "burn.h"

BURNER(fork_parent_work)
BURNER(fork_child_work)
BURNER(fork_grandchild_work)

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    if (argc > 2)
        say("ready"), wait_for_go();
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            fork_grandchild_work(ns);
            _exit(0);
        }
        fork_child_work(ns);
        waitpid(grandchild, NULL, 0);
        _exit(0);
    }
    fork_parent_work(ns);
    waitpid(child, NULL, 0);
    say_used();
    return 0;
}
