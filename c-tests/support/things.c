#include "things.h"

t_thing t_taken(int sort) {
  t_thing thing = {sort, NULL};
  switch (sort) {
  case MUTEX:
    thing.it = bop_mutex_new();
    CHECK_EQ(bop_mutex_lock(thing.it), BOP_OK);
    break;
  case SEMAPHORE:
    thing.it = bop_semaphore_new(0);
    break;
  default:
    thing.it = bop_wait_group_new();
    CHECK_EQ(bop_wait_group_add(thing.it, 1), BOP_OK);
  }
  return thing;
}

t_thing t_free(int sort) {
  t_thing thing = t_taken(sort);
  CHECK_EQ(t_give(thing), BOP_OK);
  return thing;
}

t_thing t_thing_clone(t_thing thing) {
  switch (thing.sort) {
  case MUTEX: return (t_thing){MUTEX, bop_mutex_clone(thing.it)};
  case SEMAPHORE: return (t_thing){SEMAPHORE, bop_semaphore_clone(thing.it)};
  default: return (t_thing){GROUP, bop_wait_group_clone(thing.it)};
  }
}

void t_thing_delete(t_thing thing) {
  switch (thing.sort) {
  case MUTEX: bop_mutex_delete(thing.it); break;
  case SEMAPHORE: bop_semaphore_delete(thing.it); break;
  default: bop_wait_group_delete(thing.it);
  }
}

bop_status_t t_take(t_thing thing, uint64_t deadline) {
  bool never = deadline == NEVER;
  switch (thing.sort) {
  case MUTEX: return never ? bop_mutex_lock(thing.it) : bop_mutex_lock_until(thing.it, deadline);
  case SEMAPHORE: return never ? bop_semaphore_acquire(thing.it) : bop_semaphore_acquire_until(thing.it, deadline);
  default: return never ? bop_wait_group_wait(thing.it) : bop_wait_group_wait_until(thing.it, deadline);
  }
}

bop_status_t t_give(t_thing thing) {
  switch (thing.sort) {
  case MUTEX: return bop_mutex_unlock(thing.it);
  case SEMAPHORE: return bop_semaphore_release(thing.it, 1);
  default: return bop_wait_group_done(thing.it);
  }
}

static int64_t takes_once(void *data) {
  t_taker *me = data;
  t_thing back = me->back; /* nobody says what becomes of `thing` meanwhile */
  bop_status_t status = t_take(me->thing, me->actor.deadline);
  me->actor.returned_at = bop_now();
  me->actor.status = (int)status;
  if (back.sort == MUTEX && (status == BOP_OK || status == BOP_ABANDONED)) {
    while (me->keeps)
      bop_sleep(MS / 10);
    CHECK_EQ(t_give(back), BOP_OK);
  }
  return status;
}

void t_taker_begin(t_taker *it, int kind, t_thing thing, uint64_t deadline) {
  it->actor.deadline = deadline;
  it->actor.status = -1;
  it->thing = thing;
  if (it->back.it == NULL)
    it->back = thing;
  t_actor_begin(&it->actor, kind, takes_once);
}

void t_taker_waits(t_taker *it, int kind, t_thing thing, uint64_t deadline) {
  t_taker_begin(it, kind, thing, deadline);
  EVENTUALLY(it->actor.status != -1 || t_actor_waits(&it->actor));
  CHECK(it->actor.status == -1 || bop_now() >= deadline);
}

void t_taker_ends(t_taker *it, bop_status_t status) {
  CHECK_EQ(t_actor_end(&it->actor), status);
  CHECK(status != BOP_TIMEOUT || it->actor.returned_at >= it->actor.deadline);
}

bool t_actor_waits(const t_actor *it) {
  if (it->fiber)
    return bop_fiber_state(it->fiber) == BOP_STATE_PARKED;
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)it->tid);
  FILE *file = it->tid ? fopen(path, "r") : NULL;
  size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
  if (file)
    fclose(file);
  text[n] = '\0';
  const char *name_end = strrchr(text, ')');
  return name_end != NULL && name_end[2] == 'S'; /* it sleeps */
}

uint64_t t_far(void) { return bop_now() + 3600 * SECOND; }

uint64_t t_below(uint64_t *random, uint64_t n) {
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random % n;
}
