/* Who waits for room and who does not, at the very moment when there is some: nobody is passed over, nobody is turned
 * away for nothing, and nobody runs in circles. */
#include "support/room.h"

/* Joins one fiber, whose place is free then, and wants that for another one. Then it waits to be let go. */
static struct {
  bop_fiber_t *before;
  uint64_t patience;
  bop_fiber_t *own;
  atomic_int got_it; /* -1: not yet known */
} late;

static atomic_int order[16], ordered; /* who has begun: the first, the second... */
static int64_t begins(void *number) {
  order[ordered++] = (int)(intptr_t)number;
  return 1;
}

static int64_t waits_on(void *env) {
  (void)env;
  return bop_park();
}

static int64_t comes_late(void *number) {
  CHECK_EQ(bop_fiber_join(late.before, NULL), BOP_OK);
  bop_spawn_options_t *options = t_options(LIMITS(.wait = late.patience));
  wasmtime_error_t *error =
      bop_spawn_host(t_room.runtime, late.patience ? begins : waits_on, number, NULL, options, &late.own);
  bop_spawn_options_delete(options);
  late.got_it = t_error_text(error) == NULL;
  return bop_park();
}

static int64_t spawns_to_begin(void *data) {
  t_spawner *me = data;
  bop_spawn_options_t *options = t_options(LIMITS(.wait = UINT64_MAX));
  OK(bop_spawn_host(t_room.runtime, begins, (void *)(intptr_t)me->actor.n, NULL, options, &me->child));
  bop_spawn_options_delete(options);
  return me->actor.status = 0;
}

/* Also who comes at the very moment when there is room is behind those who wait for it. */
static void in_order(void) {
  CASE("in order");
  enum { WAITERS = 3 };
  for (int round = 0; round < 50; round++) {
    bop_fiber_t *full[MOST];
    t_spawner waiters[WAITERS];
    t_room_begin(IN_RUNTIME, NULL);
    OK(t_room_spawn(0, &full[0]));
    late.before = full[0];
    late.patience = UINT64_MAX;
    late.got_it = -1;
    ordered = 0;
    full[1] = t_spawn_host(t_room.runtime, comes_late, (void *)WAITERS, NULL);
    EVENTUALLY(bop_fiber_state(full[0]) == BOP_STATE_PARKED && bop_fiber_state(full[1]) == BOP_STATE_PARKED);
    for (int i = 0; i < WAITERS; i++) {
      waiters[i] = (t_spawner){.actor = {.n = (uint64_t)i, .status = -1}};
      t_actor_begin(&waiters[i].actor, THREAD, spawns_to_begin);
      EVENTUALLY(t_actor_waits(&waiters[i].actor));
    }
    t_release(full[0]);
    EVENTUALLY(late.got_it == 1);
    CHECK_EQ(t_result(late.own), 1);
    for (int i = 0; i < WAITERS; i++) {
      t_actor_end(&waiters[i].actor);
      CHECK_EQ(t_result(waiters[i].child), 1);
    }
    for (int i = 0; i <= WAITERS; i++)
      CHECK_EQ(order[i], i);
    t_release(full[1]);
    t_room_end();
  }
}

/* A spawn that does not wait, and comes at the right moment, may have the place. The others go on waiting, in peace. */
static void overtaken(void) {
  CASE("overtaken");
  enum { WAITERS = 10 * KINDS };
  for (int round = 0; round < 10; round++) {
    bop_fiber_t *full[MOST];
    t_spawner waiters[WAITERS];
    t_room_begin(IN_RUNTIME, NULL);
    OK(t_room_spawn(0, &full[0]));
    late.before = full[0];
    late.patience = 0;
    late.got_it = -1;
    full[1] = t_spawn_host(t_room.runtime, comes_late, NULL, NULL);
    EVENTUALLY(bop_fiber_state(full[0]) == BOP_STATE_PARKED && bop_fiber_state(full[1]) == BOP_STATE_PARKED);
    for (int i = 0; i < WAITERS; i++)
      t_spawner_waits(&waiters[i], i % KINDS, UINT64_MAX);
    t_release(full[0]);
    EVENTUALLY(late.got_it != -1);
    EVENTUALLY(t_stats(t_room.runtime).live == MOST);
    uint64_t cpu = t_process_cpu();
    t_pause(100 * MS);
    CHECK(t_process_cpu() - cpu < 50 * MS);
    if (late.got_it)
      t_release(late.own);
    t_release(full[1]);
    t_serve(waiters, WAITERS);
    t_room_end();
  }
}

/* A spawn that its store refuses does not, while it finds that out, take a place that the runtime has for others. */
static atomic_bool refusing;
static int64_t is_refused(void *data) {
  t_actor *me = data;
  bop_spawn_options_t *options = t_options(LIMITS(.wait = 1));
  wasmtime_val_t zero = t_i32(0);
  for (; refusing; me->n++) {
    wasmtime_error_t *error = bop_spawn(t_room.guest.store, t_export(&t_room.guest, "park"), &zero, 1,
                                        me->sends ? options : NULL, NULL);
    CHECK(error != NULL);
    wasmtime_error_delete(error);
  }
  bop_spawn_options_delete(options);
  return (int64_t)me->n;
}

static void refused_by_the_store(void) {
  CASE("refused by the store");
  t_room_begin(IN_RUNTIME, NULL);
  OK(bop_store_max_fibers(t_room.guest.store, 1));
  bop_fiber_t *only = t_spawn1(&t_room.guest, "park", 0);
  refusing = true;
  t_actor refused[2] = {{.sends = false}, {.sends = true}};
  for (int i = 0; i < 2; i++)
    t_actor_begin(&refused[i], THREAD, is_refused);
  for (int i = 0; i < 3000; i++) { /* each of them is the second of two */
    bop_fiber_t *fiber = NULL;
    OK(t_room_spawn(0, &fiber));
    t_release(fiber);
  }
  refusing = false;
  for (int i = 0; i < 2; i++)
    CHECK(t_actor_end(&refused[i]) > 0);
  t_release(only);
  t_room_end();
}

int main(void) {
  t_start("room_order");
  in_order();
  overtaken();
  refused_by_the_store();
  return 0;
}
