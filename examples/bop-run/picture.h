/* Pictures: resvg renders each SVG of a folder to a PNG, first alone on plain Wasmtime, then all of
 * them as fibers. The same module must make the same bytes. */
#ifndef BOP_RUN_PICTURE_H
#define BOP_RUN_PICTURE_H

#include "job.h"

struct pictures {
  size_t count;
  struct job *jobs;
};

/* A job for each SVG of the folder. Each gets a folder of its own under OUT/pictures, which is all
 * it can see. Renders each alone, on an engine without BOP, to know what must come out. */
void pictures_prepare(struct pictures *pictures, wasm_engine_t *plain, const struct guest *alone,
                      const char *svg, const char *out);
/* The problem with the picture that a job has made, or NULL. The caller frees it. */
char *picture_compare(struct job *job);

#endif
