/* What a JIT compiler with perf support does: writes a loop into executable memory, names it in /tmp/perf-PID.map, and
 * runs it. The loop keeps a frame pointer.
 *
 * usage: perf_map MILLISECONDS [HOW]
 *   named    the map is as it should be (the default)
 *   none     there is no map
 *   symlink  the map is a symbolic link to a valid map elsewhere: must not be followed
 *   garbage  the map has broken, overlapping, endless and hostile lines around the good one */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "burn.h"

#if defined(__x86_64__)
/* push rbp; mov rbp,rsp; 1: dec rdi; jnz 1b; pop rbp; ret */
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xff, 0xcf, 0x75, 0xfb, 0x5d, 0xc3};
#elif defined(__aarch64__)
/* stp x29,x30,[sp,#-16]!; mov x29,sp; 1: subs x0,x0,#1; b.ne 1b; ldp x29,x30,[sp],#16; ret */
static const uint32_t code[] = {0xa9bf7bfd, 0x910003fd, 0xf1000400, 0x54ffffe1, 0xa8c17bfd, 0xd65f03c0};
#else
#error "no machine code for this architecture"
#endif

typedef void loop(uint64_t iterations);

NOINLINE void jit_caller(loop *hot, uint64_t ns)
{
    KEEP_FRAME();
    uint64_t end = thread_cpu_ns() + ns;
    do
        hot(SLICE);
    while (thread_cpu_ns() < end);
    __asm__ volatile("");
}

static void write_map(const char *path, const void *start, int garbage)
{
    FILE *map = fopen(path, "w");
    if (!map)
        perror(path), exit(73);
    if (garbage) {
        fprintf(map, "\nnonsense\n0 0\nzzzz 10 not_hex\n%lx ffffffffffffffff\n", (unsigned long)start + 4096);
        fprintf(map, "ffffffffffffff00 ffff wraps_around\n");
        for (int i = 0; i < 100000; i++)
            fputc('x', map);
        fprintf(map, "\n%lx %zx overwritten_entry\n", (unsigned long)start, sizeof code);
    }
    fprintf(map, "%lx %zx %s\n", (unsigned long)start, sizeof code,
            garbage ? "jit_\x1b[31m<b>_loop" : "jit_hot_loop(int, char*) with spaces");
    fclose(map);
}

int main(int argc, char **argv)
{
    const char *how = argc > 2 ? argv[2] : "named";
    uint64_t ns = ms_argument(argc, argv, 1);
    char path[64], elsewhere[64];

    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 71;
    memcpy(memory, code, sizeof code);
    if (mprotect(memory, 4096, PROT_READ | PROT_EXEC))
        return 71;
    __builtin___clear_cache((char *)memory, (char *)memory + sizeof code);

    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    snprintf(elsewhere, sizeof elsewhere, "/tmp/not-perf-%d.map", (int)getpid());
    if (!strcmp(how, "symlink")) {
        write_map(elsewhere, memory, 0);
        if (symlink(elsewhere, path))
            return 73;
    } else if (strcmp(how, "none")) {
        write_map(path, memory, !strcmp(how, "garbage"));
    }
    loop *hot;
    *(void **)&hot = memory;
    jit_caller(hot, ns);
    say_used();
    return 0;
}
