/* What the guest of real/c_libs.c does. Its source is compiled to Wasm, and natively for what it has
 * to return. */
#ifndef BOP_TEST_GUESTS_C_LIBS_H
#define BOP_TEST_GUESTS_C_LIBS_H

#include <stdint.h>

/* How many jobs there may be at a time: each has an arena, number `id`, for itself. */
uint32_t c_libs_arenas(void);

/* Makes `rounds` documents from the seed `id`, and takes each through all libraries. Returns a hash of
 * all that came out, or, if a library's output is wrong in itself, the line that found it. */
uint64_t c_libs_job(uint32_t id, uint32_t rounds);
enum { C_LIBS_LINES = 1000 }; /* what is below is a line */

#endif
