/* Loads libraries one after the other and works in each; unloads each behind its work, or keeps all.
 *
 * usage: reload MILLISECONDS ROUNDS unload|keep LIBRARY... : in each round MILLISECONDS of CPU time in each library */
#include <dlfcn.h>
#include <string.h>

#include "burn.h"

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

NOINLINE void reload_call(void (*work)(uint64_t), uint64_t ns)
{
    work(ns);
    AFTER_CALL();
}

NOINLINE void reload_library(const char *path, uint64_t ns, int unload)
{
    void *library = dlopen(path, RTLD_NOW);
    void (*work)(uint64_t) = NULL;
    if (library)
        *(void **)&work = dlsym(library, "library_entry");
    if (!work)
        fprintf(stderr, "%s\n", dlerror()), exit(65);
    reload_call(work, ns);
    if (unload)
        dlclose(library);
    AFTER_CALL();
}

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    if (argc < 5)
        return 64;
    int unload = strcmp(argv[3], "unload") == 0;
    for (long round = strtol(argv[2], NULL, 10); round > 0; round--)
        for (int i = 4; i < argc; i++)
            reload_library(argv[i], ns, unload);
    say_used();
    return 0;
}
