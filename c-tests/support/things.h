/* Mutexes, semaphores and wait groups, by what they have in common: one takes, and waits until another one gives. */
#ifndef BOP_TEST_THINGS_H
#define BOP_TEST_THINGS_H

#include "actors.h"

/* To take is to lock, to acquire, to wait; to give is to unlock, to release one permit, to have one thing done. */
enum { MUTEX, SEMAPHORE, GROUP, SORTS };

typedef struct t_thing {
  int sort;
  void *it;
} t_thing;

/* A new one that can't be taken before it was given. The mutex is held by who calls this. */
t_thing t_taken(int sort);
/* One that can be taken. */
t_thing t_free(int sort);
t_thing t_thing_clone(t_thing thing);
void t_thing_delete(t_thing thing);
bop_status_t t_take(t_thing thing, uint64_t deadline);
bop_status_t t_give(t_thing thing);

/* Takes once. A mutex that it got it keeps as long as it is told to, and then gives it back. */
typedef struct t_taker {
  t_actor actor; /* the status is that of taking */
  t_thing thing, back; /* by which handle it gives it back, if not by the same */
  atomic_bool keeps;
} t_taker;

/* `*it` is zero but for the handle, and whether it keeps it. */
void t_taker_begin(t_taker *it, int kind, t_thing thing, uint64_t deadline);
/* The same, and it waits now, or has waited in vain. */
void t_taker_waits(t_taker *it, int kind, t_thing thing, uint64_t deadline);
void t_taker_ends(t_taker *it, bop_status_t status);

/* Waits in a call of BOP, and does nothing else. */
bool t_actor_waits(const t_actor *it);

/* A deadline that does not come. */
uint64_t t_far(void);

/* For storms: the next random number below n. */
uint64_t t_below(uint64_t *random, uint64_t n);

#endif
