/* Functions whose names in the symbol table are hostile: markup, quotes, the separator of folded stacks, a space and a
 * number at the end (which folded stacks use for the count), 5,000 bytes, and `CONTROL` bytes that the test's build
 * step puts in place of the `@` signs, because an assembler would not take them.
 *
 * usage: hostile_symbols MILLISECONDS */
#include "burn.h"

#define TEN(x) x x x x x x x x x x
#define HOSTILE(name, label)                        \
    void name(uint64_t ns) __asm__("\"" label "\"");\
    BURNER(name)

HOSTILE(markup, "<script>alert(1)</script>&amp;<svg onload=x>")
HOSTILE(separators, "semi;colon;main 12345")
HOSTILE(quotes, "quote'single`back${x}%s%n")
HOSTILE(control, "control@@@@@@@@end")
HOSTILE(endless, "endless_" TEN(TEN(TEN("12345"))))

int main(int argc, char **argv)
{
    uint64_t ns = ms_argument(argc, argv, 1);
    markup(ns);
    separators(ns);
    quotes(ns);
    control(ns);
    endless(ns);
    say_used();
    return 0;
}
