/* Runs the ground truth in a library, built from `split.c`.
 *
 * usage: split_main MILLISECONDS LIBRARY */
#include <dlfcn.h>

#include "burn.h"

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    void *library = dlopen(argv[2], RTLD_NOW);
    if (!library)
        return fprintf(stderr, "%s\n", dlerror()), 65;
    int (*run)(int, char **);
    *(void **)&run = dlsym(library, "split_main");
    if (!run)
        return fprintf(stderr, "%s\n", dlerror()), 66;
    return run(argc, argv);
}
