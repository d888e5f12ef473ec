/* A library for `reload`. Its variants (NAME) are of one size, so that they are loaded to the same addresses, but their
 * functions begin SHIFT pages (0 to 3) further behind and have other frames (of FRAME bytes): a variant's code that was
 * walked by another variant's table would have a wrong caller. */
#include "burn.h"

#define PASTE(name, part) name##_##part
#define FUNCTION(name, part) PASTE(name, part)

/* Memory of the stack that the compiler cannot leave out. */
#define FILL() char fill[FRAME]
#define USE_FILL() __asm__ volatile("" ::"r"(fill) : "memory")

/* Pages of code that nobody calls. */
#define PAGES(count) __asm__ volatile(".skip %c0, 0x90" ::"i"((count) * 4096 + 16))

__attribute__((aligned(4096))) void FUNCTION(NAME, before)(void)
{
    PAGES(SHIFT);
}

__attribute__((aligned(4096))) NOINLINE void FUNCTION(NAME, work)(uint64_t ns)
{
    FILL();
    USE_FILL();
    uint64_t end = thread_cpu_ns() + ns;
    do
        spin(SLICE / 10);
    while (thread_cpu_ns() < end);
    USE_FILL();
}

__attribute__((aligned(4096))) NOINLINE void FUNCTION(NAME, inner)(uint64_t ns)
{
    FILL();
    USE_FILL();
    FUNCTION(NAME, work)(ns);
    USE_FILL();
}

__attribute__((aligned(4096))) void library_entry(uint64_t ns)
{
    FILL();
    USE_FILL();
    FUNCTION(NAME, inner)(ns);
    USE_FILL();
}

__attribute__((aligned(4096))) void FUNCTION(NAME, behind)(void)
{
    PAGES(3 - SHIFT);
}
