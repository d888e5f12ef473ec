/* Works in `dl_main_work`, then in a library that it loads only then.
 *
 * usage: dl_main MILLISECONDS LIBRARY [wait]: `wait` waits for a byte on standard input between the two. */
#include <dlfcn.h>

#include "burn.h"

BURNER(dl_main_work)

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    if (argc < 3)
        return 64;
    dl_main_work(ns);
    if (argc > 3)
        say("ready"), wait_for_go();
    void *library = dlopen(argv[2], RTLD_NOW);
    if (!library)
        return fprintf(stderr, "%s\n", dlerror()), 65;
    void (*work)(uint64_t);
    *(void **)&work = dlsym(library, "dl_library_work");
    if (!work)
        return fprintf(stderr, "%s\n", dlerror()), 66;
    work(ns);
    /* Unloaded before the end: its names must not depend on it still being there. */
    dlclose(library);
    say_used();
    return 0;
}
