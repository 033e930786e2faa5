/* All jobs at once: spawned, watched, cancelled at their deadlines, joined. */
#ifndef BOP_RUN_RUN_H
#define BOP_RUN_RUN_H

#include "job.h"
#include "progress.h"

#include <stdatomic.h>

struct run {
  struct job **jobs; /* in the order of their deadlines: the spinners come first */
  size_t count, spinners;
  atomic_size_t spawned; /* of the jobs, so many from the front; the launcher counts them */
  size_t due;            /* the first job whose deadline has not come */
  size_t paced;          /* the others that had ended when the first spinner was cancelled */
  uint64_t elapsed_ns;   /* from the first spawn to the last join */
};

/* The runtime must have been started. */
void run_jobs(struct run *run, bop_runtime_t *runtime, struct progress *progress);

#endif
