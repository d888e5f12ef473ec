/* MARK(PROVIDER, NAME, SEMAPHORE, ARGUMENT): a marker of USDT, that is an instruction that does nothing and a note that says
 * where it is. SEMAPHORE is the symbol of one, or 0, as text. For files with addresses of 8 bytes.
 *
 * A file that has markers has MARKER_BASE once, the section that tells whether it was moved after its notes were made. */
#ifndef MARKER_H
#define MARKER_H

#define MARKER_BASE                                          \
    __asm__(".pushsection .stapsdt.base, \"a\", %progbits\n" \
            ".hidden marker_base\n"                          \
            ".globl marker_base\n"                           \
            "marker_base: .byte 0\n"                         \
            ".popsection\n")

#define MARK(provider, name, semaphore, argument)        \
    __asm__ volatile("770: nop\n"                        \
                     ".pushsection .note.stapsdt, \"\", %%note\n" \
                     ".balign 4\n"                       \
                     ".4byte 772f - 771f\n"              \
                     ".4byte 774f - 773f\n"              \
                     ".4byte 3\n"                        \
                     "771: .asciz \"stapsdt\"\n"         \
                     "772: .balign 4\n"                  \
                     "773: .8byte 770b\n"                \
                     ".8byte marker_base\n"              \
                     ".8byte " semaphore "\n"            \
                     ".asciz \"" provider "\"\n"         \
                     ".asciz \"" name "\"\n"             \
                     ".asciz \"-8@%0\"\n"                \
                     "774: .balign 4\n"                  \
                     ".popsection\n" ::"r"(argument))

#endif
