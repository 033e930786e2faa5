/* A job: one run of a guest program on a fiber of its own, with what must come out of it. */
#ifndef BOP_RUN_JOB_H
#define BOP_RUN_JOB_H

#include "guest.h"

#include <bop.h>

enum kind {
  KIND_FIB,
  KIND_SORT,
  KIND_TEXT,
  KIND_FACTORIAL,
  KIND_EXIT,
  KIND_OVERFLOW,
  KIND_PICTURE,
  KIND_SPIN,
  KINDS
};

struct job {
  enum kind kind;
  char name[48]; /* of the fiber */
  /* The program. The arguments are borrowed, but for the last one of a script, which is `seed`. */
  const struct guest *guest;
  const char *argv[6];
  size_t argc;
  char seed[16];
  char *folder;
  struct bytes out, err;

  /* What must come of it. */
  bop_outcome_t expected;
  int32_t expected_code;
  struct bytes expected_out;     /* all that it writes to stdout */
  struct bytes expected_picture; /* the content of the file it makes, for KIND_PICTURE */
  uint64_t limit_ns;             /* cancelled when it has lived so long */

  /* What came of it. */
  bop_fiber_t *fiber;
  bop_outcome_t outcome;
  int32_t code;
  bop_times_t times;
  bool right;
  char *problem; /* why not right */
};

extern const char *const KIND_NAMES[KINDS];

/* Starts the job on a fiber. Ends the program with a message when there can be no such fiber. */
void job_spawn(struct job *job, bop_runtime_t *runtime);
/* The time after which the job is to be cancelled. */
uint64_t job_deadline(const struct job *job);
/* Takes over what has become of a finished fiber, and judges it. */
void job_finish(struct job *job, bop_outcome_t outcome);
void job_delete(struct job *job);

#endif
