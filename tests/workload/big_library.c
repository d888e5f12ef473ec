/* A library for `reload` with a large unwind table: 65,536 functions that nobody calls, of four rows each, before the
 * ones that work. Its text is 1 MiB, its table 1 MiB of rows in the profiler's form. */
#include "burn.h"

/* Keeps a call from being the function's last instruction. */
#define AFTER_CALL() __asm__ volatile("")

#if defined(__x86_64__)
#define PUSH "push %rbx\n"
#define POP "pop %rbx\n"
#define WORD "8"
#define SAVED "3"
#else
#define PUSH "str x19, [sp, #-16]!\n"
#define POP "ldr x19, [sp], #16\n"
#define WORD "16"
#define SAVED "19"
#endif

/* A function of 16 bytes: begin, behind the push, behind the pop, padding. The distance to the caller's frame differs on
 * each row, so that none can be left out. */
__asm__(".text\n"
        ".balign 65536\n"
        "big_unused:\n"
        ".rept 65536\n"
        ".balign 16\n"
        ".cfi_startproc\n" PUSH ".cfi_adjust_cfa_offset " WORD "\n"
        ".cfi_rel_offset " SAVED ", 0\n"
        "nop\n" POP ".cfi_adjust_cfa_offset -" WORD "\n"
        ".cfi_restore " SAVED "\n"
        "ret\n"
        ".cfi_endproc\n"
        ".endr\n");

BURNER(big_work)

NOINLINE void big_inner(uint64_t ns)
{
    big_work(ns);
    AFTER_CALL();
}

void library_entry(uint64_t ns)
{
    big_inner(ns);
    AFTER_CALL();
}
