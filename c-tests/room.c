/* Spawns that wait for room, in a runtime or a store that has as many fibers as it may: one gets in for each fiber that
 * ends, in order; and who does not get in is told why. */
#include "support/room.h"

/* ---- served ---- */

static void one_by_one(int place) {
  CASE(place == IN_RUNTIME ? "one by one, in a runtime" : "one by one, in a store");
  enum { WAITERS = 7 };
  bop_fiber_t *full[MOST + WAITERS];
  t_spawner waiters[WAITERS];
  t_room_begin(place, full);
  for (int i = 0; i < WAITERS; i++)
    t_spawner_waits(&waiters[i], i % KINDS, i % 2 ? UINT64_MAX : t_far());
  for (int i = 0; i < WAITERS; i++) {
    CHECK_EQ(t_stats(t_room.runtime).live, MOST);
    t_release(full[i]);
    EVENTUALLY(t_spawner_done(&waiters[i]));
    full[MOST + i] = t_spawner_gets(&waiters[i]);
    for (int j = i + 1; j < WAITERS; j++)
      CHECK(!t_spawner_done(&waiters[j]));
  }
  for (int i = WAITERS; i < WAITERS + MOST; i++)
    t_release(full[i]);
  /* With room, nobody waits. */
  OK(t_room_spawn(UINT64_MAX, &full[0]));
  OK(t_room_spawn(1, &full[1]));
  for (int i = 0; i < MOST; i++)
    t_release(full[i]);
  t_room_end();
}

/* Who waits costs nothing, and leaves the worker to others. */
static void quietly(int place) {
  CASE(place == IN_RUNTIME ? "quietly, in a runtime" : "quietly, in a store");
  bop_fiber_t *full[MOST];
  t_spawner waiters[KINDS];
  t_room_begin(place, full);
  for (int i = 0; i < KINDS; i++)
    t_spawner_waits(&waiters[i], i, UINT64_MAX);
  uint64_t cpu = t_process_cpu(), switches = t_stats(t_runtimes[0]).switches;
  t_pause(200 * MS);
  CHECK(t_stats(t_runtimes[0]).switches - switches < 100);
  CHECK(t_process_cpu() - cpu < 100 * MS);
  for (int i = 0; i < KINDS; i++) {
    t_release(full[i % MOST]);
    full[i % MOST] = t_spawner_gets(&waiters[i]);
  }
  for (int i = 0; i < MOST; i++)
    t_release(full[i]);
  t_room_end();
}

/* ---- not served ---- */

static void too_late(int place) {
  CASE(place == IN_RUNTIME ? "too late, in a runtime" : "too late, in a store");
  bop_fiber_t *full[MOST];
  t_spawner waiters[2 * KINDS];
  t_room_begin(place, full);
  for (int i = 0; i < KINDS; i++) {
    t_spawner_waits(&waiters[i], i, bop_now() + 20 * MS);
    t_spawner_waits(&waiters[KINDS + i], i, UINT64_MAX);
  }
  for (int i = 0; i < KINDS; i++) {
    t_spawner_fails(&waiters[i], i == 0 ? "limit of 2 fibers" : "room");
    CHECK_HAS(waiters[i].error, "deadline");
    CHECK(waiters[i].actor.returned_at >= waiters[i].actor.deadline);
  }
  for (int i = 0; i < KINDS; i++) { /* its deadline has passed before it comes */
    t_spawner_begin(&waiters[i], i, 1);
    t_spawner_fails(&waiters[i], "room");
  }
  CHECK_EQ(t_room.finalized, place == IN_RUNTIME ? 2 * KINDS : 0); /* what was to be run is given back */
  /* Those who are cancelled do not take the place of those who are not. */
  for (int i = 0; i < THREAD; i++)
    CHECK_EQ(bop_fiber_cancel(waiters[KINDS + i].actor.fiber), BOP_OK);
  t_release(full[0]);
  for (int i = 0; i < THREAD; i++)
    if (t_actor_end(&waiters[KINDS + i].actor) == 1)
      CHECK_HAS(waiters[KINDS + i].error, "cancel");
    else
      t_release(waiters[KINDS + i].child); /* it came first */
  t_release(t_spawner_gets(&waiters[KINDS + THREAD]));
  t_release(full[1]);
  t_room_end();
}

/* What a store's end, or a larger store, means to those who wait. */
static void the_store_changes(void) {
  enum { GROWS, IS_CANCELLED, IS_POISONED, IS_LATE, CHANGES };
  static const char *const names[] = {"it grows", "it is cancelled", "it is poisoned", "its deadline"};
  static const char *const words[] = {NULL, NULL, "poisoned", "deadline"};
  for (int change = 0; change < CHANGES; change++) {
    CASE(names[change]);
    bop_fiber_t *full[MOST];
    t_spawner waiters[KINDS];
    t_room_begin(IN_STORE, NULL);
    bop_store_t *store = t_room.guest.store;
    for (int i = 0; i < MOST; i++)
      full[i] = t_spawn1(&t_room.guest, i == 0 && change == IS_POISONED ? "fall" : "park", 0);
    OK(bop_store_trap_policy(store, BOP_TRAP_POISON));
    for (int i = 0; i < MOST; i++)
      EVENTUALLY(bop_fiber_state(full[i]) == BOP_STATE_PARKED);
    for (int i = 0; i < KINDS; i++)
      t_spawner_waits(&waiters[i], i, UINT64_MAX);
    switch (change) {
    case GROWS: OK(bop_store_max_fibers(store, MOST + KINDS)); break;
    case IS_CANCELLED: CHECK_EQ(bop_store_cancel(store), BOP_OK); break;
    case IS_POISONED: CHECK_EQ(bop_unpark(full[0]), BOP_OK); break;
    default: CHECK_EQ(bop_store_deadline(store, bop_now() + MS), BOP_OK);
    }
    if (change != GROWS)
      for (int i = 0; i < MOST; i++)
        CHECK_EQ(bop_fiber_join(full[i], NULL), BOP_OK);
    for (int i = 0; i < KINDS && words[change] != NULL; i++)
      t_spawner_fails(&waiters[i], words[change]);
    if (words[change] == NULL)
      t_serve(waiters, KINDS);
    for (int i = 0; i < MOST; i++) {
      if (change == GROWS)
        CHECK_EQ(bop_unpark(full[i]), BOP_OK);
      CHECK_EQ(bop_fiber_join(full[i], NULL), BOP_OK);
      bop_fiber_detach(full[i]);
    }
    OK(bop_store_trap_policy(store, BOP_TRAP_ISOLATE)); /* it takes fibers again */
    OK(bop_store_max_fibers(store, MOST));
    if (change == IS_LATE) /* that one does not */
      t_room_store();
    t_room_end();
  }
}

static int64_t spawns_within(void *env) {
  bop_fiber_t *more = NULL;
  const char *error = t_error_text(t_room_spawn(UINT64_MAX, &more));
  if (error == NULL || strstr(error, "cancelled") == NULL)
    CHECK_HAS(error, "shut down"); /* both are true */
  CHECK(more == NULL);
  *(atomic_bool *)env = true;
  return 1;
}

static void shutdown(int place) {
  CASE(place == IN_RUNTIME ? "shutdown, in a runtime" : "shutdown, in a store");
  bop_fiber_t *full[MOST];
  t_spawner waiters[2 * KINDS];
  atomic_bool refused = place == IN_STORE;
  t_room_begin(place, NULL);
  for (int i = 0; i < MOST; i++)
    if (i == MOST - 1 && place == IN_RUNTIME) /* one of its own fibers waits, too, and is cancelled */
      full[i] = t_spawn_host(t_room.runtime, spawns_within, &refused, NULL);
    else
      OK(t_room_spawn(0, &full[i]));
  for (int i = 0; i < 2 * KINDS; i++)
    t_spawner_waits(&waiters[i], i % KINDS, UINT64_MAX);
  for (int i = 0; i < MOST; i++)
    EVENTUALLY(bop_fiber_state(full[i]) == BOP_STATE_PARKED);
  OK(bop_runtime_shutdown(t_room.runtime, 60 * SECOND));
  for (int i = 0; i < 2 * KINDS; i++)
    t_spawner_fails(&waiters[i], "shut down");
  CHECK(refused);
  for (int i = 0; i < MOST; i++)
    bop_fiber_detach(full[i]);
  t_room_delete();
}

int main(void) {
  t_start("room");
  bop_spawn_options_wait(NULL, 5);
  for (int place = 0; place < PLACES; place++) {
    one_by_one(place);
    quietly(place);
    too_late(place);
    shutdown(place);
  }
  the_store_changes();
  return 0;
}
