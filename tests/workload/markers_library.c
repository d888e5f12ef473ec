/* A library with a marker, for `markers.c`. */
#include "burn.h"
#include "marker.h"

MARKER_BASE;

NOINLINE void library_inside(long number)
{
    MARK("library", "inside", "0", number);
    __asm__ volatile("" ::: "memory");
}
