/* JavaScript jobs: the scripts of js/, and what each must print, computed here in C. */
#ifndef BOP_RUN_SCRIPT_H
#define BOP_RUN_SCRIPT_H

#include "job.h"

/* The texts of the scripts, by kind; none for pictures. */
struct scripts {
  char *text[KINDS];
};

void scripts_read(struct scripts *scripts, const char *folder);
void scripts_free(struct scripts *scripts);

/* The n-th script that comes to an end. Most compute something, a few end in other ways. */
void script_job(struct job *job, const struct guest *quickjs, const struct scripts *scripts,
                size_t n);
/* A script that never ends. */
void spin_job(struct job *job, const struct guest *quickjs, const struct scripts *scripts,
              size_t n);

#endif
