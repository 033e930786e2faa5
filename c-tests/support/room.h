/* A runtime, or a store, with room for a few fibers, and those who wait for some of it: fibers of two other runtimes,
 * and threads. */
#ifndef BOP_TEST_ROOM_H
#define BOP_TEST_ROOM_H

#include "limits.h"
#include "things.h"

enum { MOST = 2 };
enum { IN_RUNTIME, IN_STORE, PLACES };

extern struct t_room {
  int place;              /* which of the two has MOST fibers at the most */
  bop_runtime_t *runtime; /* with one worker; started */
  t_guest guest;          /* "park" waits for a permit, "fall" traps then */
  atomic_int finalized;   /* of those that were spawned in the runtime */
} t_room;

/* With as many fibers as there may be, which wait for their permits, unless `full` is NULL. */
void t_room_begin(int place, bop_fiber_t *full[MOST]);
/* Another store in place of the present one. */
void t_room_store(void);
/* There is as much room as before, which is to be shown. */
void t_room_end(void);
void t_room_delete(void);
wasmtime_error_t *t_room_spawn(uint64_t patience, bop_fiber_t **out);
/* Gives it its permit, and waits for its end. */
void t_release(bop_fiber_t *own);

typedef struct t_spawner {
  t_actor actor; /* the deadline is how long it waits for room; the status is 0 or 1 */
  bop_fiber_t *child;
  const char *error;
} t_spawner;

void t_spawner_begin(t_spawner *it, int kind, uint64_t patience);
/* The same, and it waits now, or has waited in vain. */
void t_spawner_waits(t_spawner *it, int kind, uint64_t patience);
bool t_spawner_done(const t_spawner *it);
/* What it got. */
bop_fiber_t *t_spawner_gets(t_spawner *it);
void t_spawner_fails(t_spawner *it, const char *word);
/* All of them get in, in whatever order: each frees the place of another one. */
void t_serve(t_spawner *spawners, int n);

#endif
