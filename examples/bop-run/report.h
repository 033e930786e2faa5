/* What is printed when all jobs have ended. */
#ifndef BOP_RUN_REPORT_H
#define BOP_RUN_REPORT_H

#include "options.h"
#include "run.h"

/* Prints the tables. Returns whether everything was as it must be. */
bool report(const struct run *run, const struct options *options, const bop_runtime_t *runtime);

#endif
