/* The library that `dl_main` loads. */
#include "burn.h"

BURNER(dl_library_work)
