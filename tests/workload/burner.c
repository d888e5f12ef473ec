/* Burns CPU in one function, `burner_work`: the plain target of tests about processes and files.
 *
 * usage: burner MILLISECONDS [FLAG...]
 *   wait    say "ready" and wait for a byte on standard input first
 *   forever no end: until a signal
 *   unlink  delete its own file before it works
 *   static  (ignored; lets a command line tell copies apart)
 *   exit=N  exit with status N
 *   kill=N  end by sending itself signal N */
#include <signal.h>
#include <string.h>

#include "burn.h"

BURNER(burner_work)

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    int status = 0, signal_number = 0;

    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "wait"))
            say("ready"), wait_for_go();
        else if (!strcmp(argv[i], "forever"))
            ns = UINT64_MAX / 2;
        else if (!strcmp(argv[i], "unlink")) {
            char path[4096] = {0};
            if (readlink("/proc/self/exe", path, sizeof path - 1) < 0 || unlink(path) < 0)
                return perror("unlink"), 65;
        } else if (!strncmp(argv[i], "exit=", 5))
            status = atoi(argv[i] + 5);
        else if (!strncmp(argv[i], "kill=", 5))
            signal_number = atoi(argv[i] + 5);
    }
    burner_work(ns);
    say_used();
    if (signal_number)
        raise(signal_number);
    return status;
}
