/* Other threads beside a host's own loop: one that waits for room, the runtime's own workers, and more of those that
 * come to run fibers than there are places. */
#include "support/limits.h"
#include "support/loop.h"

#include <pthread.h>

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

/* Another thread waits for room, while nobody runs anything: the loop will, when there is something to run. */
static int64_t spawns_when_there_is_room(void *data) {
  t_actor *me = data;
  bop_spawn_options_t *options = t_options(LIMITS(.wait = UINT64_MAX));
  OK(bop_spawn_host((bop_runtime_t *)(uintptr_t)me->value, seven, NULL, NULL, options, &me->fiber));
  bop_spawn_options_delete(options);
  return me->status = 0;
}

static void room_is_waited_for(void) {
  CASE("room is waited for");
  bop_config_t *config = bop_config_new();
  bop_config_max_fibers(config, 1);
  bop_runtime_t *runtime;
  OK(bop_runtime_new(config, &runtime));
  t_loop loop;
  t_loop_begin(&loop, runtime, MS, 0);
  bop_fiber_t *only = t_spawn_host(runtime, parks, NULL, NULL);
  LOOP_UNTIL(&loop, bop_fiber_state(only) == BOP_STATE_PARKED);
  t_actor spawner = {.value = (uint64_t)(uintptr_t)runtime, .status = -1};
  t_actor_begin(&spawner, THREAD, spawns_when_there_is_room);
  EVENTUALLY(spawner.status != -1 || t_actor_waits(&spawner));
  CHECK_EQ(bop_unpark(only), BOP_OK);
  LOOP_UNTIL(&loop, bop_fiber_state(only) == BOP_STATE_FINISHED);
  CHECK_EQ(t_result(only), BOP_OK);
  CHECK_EQ(pthread_join(spawner.thread, NULL), 0); /* it needs nothing more to be run */
  LOOP_UNTIL(&loop, bop_fiber_state(spawner.fiber) == BOP_STATE_FINISHED);
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  CHECK_EQ(t_result(spawner.fiber), 7);
  t_loop_end(&loop);
  OK(bop_runtime_delete(runtime));
}

static const char *const GUEST =
    "(module (func (export \"lap\") (param $n i32) (result i32)"
    "  (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 8)))";

/* Beside the runtime's own workers it is one more worker, for a while. */
static void beside_workers(void) {
  CASE("beside workers");
  bop_runtime_t *runtime = t_runtime(1, 50000);
  OK(bop_runtime_start(runtime));
  t_guest guests[4];
  bop_fiber_t *laps_of[4];
  for (int i = 0; i < 4; i++) {
    t_guest_new(&guests[i], runtime, GUEST, NULL);
    laps_of[i] = t_spawn1(&guests[i], "lap", 3000000);
  }
  while (t_stats(runtime).live > 0)
    OK(bop_run_for(runtime, MS, NULL));
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(t_result(laps_of[i]), 8);
    t_guest_delete(&guests[i]);
  }
  OK(bop_runtime_delete(runtime));
}

/* Threads that come to run fibers do not take the places of the runtime's own workers. */
enum { CROWD = 40 };
static atomic_bool held;
static atomic_int holding, turned_away;
static int64_t holds_its_thread(void *env) {
  (void)env;
  holding++;
  while (held)
    t_pause(MS / 2);
  return 1;
}

static void *comes_to_run(void *runtime) {
  wasmtime_error_t *error = bop_run_for(runtime, 0, NULL);
  if (error != NULL) {
    CHECK_HAS(t_error_text(error), "as many");
    turned_away++;
  }
  return NULL;
}

static void more_threads_than_places(void) {
  CASE("more threads than places");
  bop_runtime_t *runtime = t_runtime(1, 0);
  pthread_t threads[CROWD];
  bop_fiber_t *fibers[CROWD];
  held = true;
  for (int i = 0; i < CROWD; i++)
    fibers[i] = t_spawn_host(runtime, holds_its_thread, NULL, NULL);
  for (int i = 0; i < CROWD; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, comes_to_run, runtime), 0);
  EVENTUALLY(holding + turned_away == CROWD);
  int before = holding;
  CHECK(before >= 16 && turned_away > 0);
  OK(bop_runtime_start(runtime));
  EVENTUALLY(holding == before + 1);
  held = false;
  for (int i = 0; i < CROWD; i++) {
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(t_result(fibers[i]), 1);
  }
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("own_loop_threads");
  room_is_waited_for();
  beside_workers();
  more_threads_than_places();
  return 0;
}
