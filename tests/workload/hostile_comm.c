/* Gives itself each of several names that a tool must clean before it prints them, and works under each for the same
 * CPU time: terminal control, markup, a line break, invalid UTF-8, quotes and the separator of folded stacks, none.
 * A thread has one name in a recording, so each name gets a process of its own.
 *
 * usage: hostile_comm MILLISECONDS */
#include <sys/prctl.h>
#include <sys/wait.h>

#include "burn.h"

BURNER(hostile_comm_work)

int main(int argc, char **argv)
{
    static const char *const names[] = {
        "\x1b[31m\x1b]0;x\x07", "<script>x()</s>", "two\nlines\r\tx", "\xff\xfe\x80\xc3(", "\"quo';te\" 12 &", "",
    };
    uint64_t ns = ms_argument(argc, argv, 1);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_NAME, names[i]);
            hostile_comm_work(ns);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    say_used();
    return 0;
}
