/* Calls of bop_blocking, by fibers and threads, whose function blocks its thread until it is let go. */
#ifndef BOP_TEST_BLOCKERS_H
#define BOP_TEST_BLOCKERS_H

#include "descriptors.h"

typedef struct t_blocker {
  t_actor actor;                 /* who calls; the status is -1 until the call has returned */
  atomic_int begun, over, freed; /* how often: the function, and its finalizer */
  atomic_bool may_return;
  bool until; /* by bop_blocking_until, with the finalizer */
  int64_t result;
} t_blocker;

/* The function and the finalizer. Each checks when it is called; the function returns T_BLOCKED. */
#define T_BLOCKED (INT64_MIN + 5)
int64_t t_blocks(void *blocker);
void t_frees(void *blocker);
/* In how many calls helpers are, and ever were. */
extern atomic_int t_inside, t_most_inside;

/* By bop_blocking if the deadline is NEVER. */
void t_blocker_begins(t_blocker *it, int kind, uint64_t deadline);
bool t_blocker_waits(const t_blocker *it);
void t_let_go(t_blocker *it);
/* What it returned. Only with BOP_OK is there a result. */
#define CALL_ENDS(blocker, status) t_blocker_ends(__FILE__, __LINE__, blocker, status)
void t_blocker_ends(const char *file, int line, t_blocker *it, bop_status_t status);

/* How many threads there are for such calls. */
int t_helpers(void);

/* A started runtime with one worker and so many of them, which is t_runtimes[0]; and its end. */
void t_helpers_begin(size_t helpers, uint64_t quantum_ns, uint64_t shutdown_timeout);
void t_helpers_end(void);

#endif
