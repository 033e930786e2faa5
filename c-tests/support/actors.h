/* Who uses channels: fibers of two runtimes, and threads. */
#ifndef BOP_TEST_ACTORS_H
#define BOP_TEST_ACTORS_H

#include "support.h"

#include <pthread.h>

/* Both run from one call to the next. Deleting them waits for their fibers first. */
extern bop_runtime_t *t_runtimes[2];
void t_runtimes_start(size_t workers, uint64_t quantum_ns);
void t_runtimes_delete(void);

/* With so many values in it: 0, 1, 2... */
bop_channel_t *t_channel(size_t capacity, size_t values);

/* One of the runtimes by its index: a fiber of it. */
enum { THREAD = 2, KINDS = 3 };

typedef struct t_actor {
  int64_t (*run)(void *actor);
  int64_t result;
  bop_channel_t *channel;
  bool sends;
  uint64_t value, deadline, returned_at; /* of one call */
  uint64_t n, random;                    /* of many */
  atomic_int status, tid;                /* the status is -1 until the call has returned */
  bop_fiber_t *fiber;
  pthread_t thread;
} t_actor;

/* `*it` is filled in already, but for who it is. */
void t_actor_begin(t_actor *it, int kind, int64_t (*run)(void *actor));
/* What its function returned. */
int64_t t_actor_end(t_actor *it);

/* For a deadline: none, so the function that takes none. */
#define NEVER UINT64_MAX
bop_status_t t_call(bop_channel_t *channel, bool sends, uint64_t *value, uint64_t deadline);

#endif
