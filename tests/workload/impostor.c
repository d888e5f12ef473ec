/* The file that replaces `burner` at its path while it runs: every address of it has another name. A profile of the
 * running `burner` must never show one of these. */
#include "burn.h"

#define WRONG(n) NOINLINE void impostor_##n(void) { spin(n); __asm__ volatile(""); }
WRONG(1) WRONG(2) WRONG(3) WRONG(4) WRONG(5) WRONG(6) WRONG(7) WRONG(8) WRONG(9) WRONG(10) WRONG(11) WRONG(12)
WRONG(13) WRONG(14) WRONG(15) WRONG(16) WRONG(17) WRONG(18) WRONG(19) WRONG(20) WRONG(21) WRONG(22) WRONG(23)
WRONG(24) WRONG(25) WRONG(26) WRONG(27) WRONG(28) WRONG(29) WRONG(30) WRONG(31) WRONG(32)

int main(void)
{
    impostor_1();
    return 0;
}
