/* The life of a runtime: start, run, shut down, delete, in every order, with live fibers too. */
#include "support/support.h"

#include <pthread.h>
#include <time.h>

static atomic_int done;

static int64_t step(void *env) {
  (void)env;
  for (int i = 0; i < 10; i++)
    CHECK_EQ(bop_yield(), BOP_OK);
  return ++done;
}

static void *runs(void *runtime) {
  OK(bop_run(runtime));
  return NULL;
}

static void orders(void) {
  CASE("order");
  bop_runtime_t *runtime = t_runtime(1, 0);
  OK(bop_runtime_delete(runtime)); /* never started */

  runtime = t_runtime(1, 0);
  OK(bop_runtime_start(runtime));
  FAILS(bop_runtime_start(runtime), "start");
  OK(bop_runtime_shutdown(runtime, SECOND));
  OK(bop_runtime_shutdown(runtime, SECOND)); /* nothing is left to do */
  FAILS(bop_runtime_start(runtime), "shut");
  FAILS(bop_run(runtime), "shut");
  bop_fiber_t *fiber = NULL;
  FAILS(bop_spawn_host(runtime, step, NULL, NULL, NULL, &fiber), "shut");
  CHECK(fiber == NULL);
  CHECK(bop_runtime_engine(runtime) != NULL);
  OK(bop_runtime_delete(runtime));

  runtime = t_runtime(1, 0);
  OK(bop_runtime_shutdown(runtime, SECOND)); /* never started */
  FAILS(bop_runtime_start(runtime), "shut");
  OK(bop_runtime_delete(runtime));
}

static void run_here(void) {
  CASE("bop_run");
  bop_runtime_t *runtime = t_runtime(1, 0);
  OK(bop_run(runtime)); /* no fibers: returns at once */
  done = 0;
  for (int i = 0; i < 100; i++)
    OK(bop_spawn_host(runtime, step, NULL, NULL, NULL, NULL));
  CHECK_EQ(done, 0);
  CHECK_EQ(t_stats(runtime).live, 100);
  OK(bop_run(runtime)); /* the only worker */
  CHECK_EQ(done, 100);
  bop_stats_t stats = t_stats(runtime);
  CHECK_EQ(stats.live, 0);
  CHECK_EQ(stats.spawned, 100);
  CHECK_EQ(stats.finished, 100);
  CHECK(stats.switches >= 1000);

  CASE("several threads in bop_run");
  done = 0;
  for (int i = 0; i < 400; i++)
    OK(bop_spawn_host(runtime, step, NULL, NULL, NULL, NULL));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, runs, runtime), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(done, 400);

  CASE("bop_run while started");
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < 100; i++)
    OK(bop_spawn_host(runtime, step, NULL, NULL, NULL, NULL));
  OK(bop_run(runtime));
  CHECK_EQ(done, 500);
  OK(bop_runtime_delete(runtime));
}

/* Calls that would wait for the very fiber that makes them. */
static int64_t misuses(void *runtime) {
  FAILS(bop_run(runtime), "fiber");
  FAILS(bop_runtime_shutdown(runtime, MS), "fiber");
  FAILS(bop_runtime_delete(runtime), "fiber");
  return 1;
}

static void from_a_fiber(void) {
  CASE("from a fiber");
  bop_runtime_t *runtime = t_runtime(1, 0);
  OK(bop_runtime_start(runtime));
  CHECK_EQ(t_result(t_spawn_host(runtime, misuses, runtime, NULL)), 1);
  OK(bop_runtime_delete(runtime));
}

static int64_t sleeps(void *env) {
  (void)env;
  return bop_sleep(3600 * SECOND);
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

static const char *const SPIN = "(module (func (export \"spin\") (loop (br 0))))";

static void live_at_delete(bool started) {
  CASE(started ? "delete with live fibers" : "delete with queued fibers");
  bop_runtime_t *runtime = t_runtime(2, 0);
  wasm_engine_t *engine = wasmtime_engine_clone(bop_runtime_engine(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, SPIN, NULL);
  if (started)
    OK(bop_runtime_start(runtime));
  bop_fiber_t *spinners[3], *sleeper, *parker;
  for (int i = 0; i < 3; i++)
    spinners[i] = t_spawn0(&guest, "spin");
  sleeper = t_spawn_host(runtime, sleeps, NULL, NULL);
  parker = t_spawn_host(runtime, parks, NULL, "the parker");
  if (started) {
    EVENTUALLY(bop_fiber_state(sleeper) == BOP_STATE_PARKED);
    EVENTUALLY(bop_fiber_state(parker) == BOP_STATE_PARKED);
  }
  uint64_t id = bop_fiber_id(parker);
  OK(bop_runtime_delete(runtime));

  /* The handles outlive the runtime. */
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(bop_fiber_state(spinners[i]), BOP_STATE_FINISHED);
    CHECK_EQ(bop_fiber_cancel(spinners[i]), BOP_FINISHED);
    ENDS(spinners[i], BOP_OUTCOME_CANCELLED);
  }
  char name[32];
  CHECK_EQ(bop_fiber_name(parker, name, sizeof name), strlen("the parker"));
  CHECK(strcmp(name, "the parker") == 0);
  CHECK_EQ(bop_fiber_id(parker), id);
  CHECK_EQ(bop_unpark(parker), BOP_FINISHED);
  bop_fiber_t *clone = bop_fiber_clone(parker);
  if (started) {
    /* A function that returns although it was cancelled has returned. */
    CHECK_EQ(t_result(sleeper), BOP_CANCELLED);
    CHECK_EQ(t_result(parker), BOP_CANCELLED);
    CHECK_EQ(t_result(clone), BOP_CANCELLED);
  } else {
    ENDS(sleeper, BOP_OUTCOME_CANCELLED);
    ENDS(parker, BOP_OUTCOME_CANCELLED);
    ENDS(clone, BOP_OUTCOME_CANCELLED);
  }
  t_guest_delete(&guest); /* and so does the store's handle */
  wasmtime_module_delete(t_module(engine, SPIN)); /* and a clone of the engine */
  wasm_engine_delete(engine);
}

static atomic_bool give_in;

static int64_t refuses(void *env) {
  (void)env;
  while (!give_in) {
    bop_yield();
    t_pause(MS);
  }
  return 42;
}

static void refusal(void) {
  CASE("a fiber that will not end");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_shutdown_timeout(config, 50 * MS);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  bop_fiber_t *tame = t_spawn_host(runtime, parks, NULL, "tame");
  bop_fiber_t *stubborn = t_spawn_host(runtime, refuses, NULL, "stubborn");
  EVENTUALLY(bop_fiber_state(tame) == BOP_STATE_PARKED);
  EVENTUALLY(bop_fiber_state(stubborn) == BOP_STATE_RUNNING);
  FAILS(bop_runtime_delete(runtime), "stubborn");
  CHECK_EQ(t_result(tame), BOP_CANCELLED);
  FAILS(bop_runtime_shutdown(runtime, MS), "stubborn");
  give_in = true;
  CHECK_EQ(t_result(stubborn), 42);
  OK(bop_runtime_delete(runtime)); /* the error did not take the runtime */
}

static uint64_t cpu(void) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return (uint64_t)used.tv_sec * SECOND + (uint64_t)used.tv_nsec;
}

static void idle(void) {
  CASE("idle");
  bop_runtime_t *runtime = t_runtime(4, 50000);
  OK(bop_runtime_start(runtime));
  done = 0;
  for (int i = 0; i < 100; i++)
    OK(bop_spawn_host(runtime, step, NULL, NULL, NULL, NULL));
  bop_fiber_t *sleeper = t_spawn_host(runtime, sleeps, NULL, NULL);
  bop_fiber_t *parker = t_spawn_host(runtime, parks, NULL, NULL);
  EVENTUALLY(done == 100 && t_stats(runtime).live == 2);
  EVENTUALLY(bop_fiber_state(sleeper) == BOP_STATE_PARKED);
  EVENTUALLY(bop_fiber_state(parker) == BOP_STATE_PARKED);
  t_pause(100 * MS); /* time to fall asleep */
  uint64_t before = cpu();
  t_pause(2 * SECOND);
  uint64_t used = cpu() - before;
  if (used >= 20 * MS)
    t_fail(__FILE__, __LINE__, "idle for 2 s, yet used %.1f ms of CPU", (double)used / 1e6);
  CHECK_EQ(bop_unpark(parker), BOP_OK); /* and it still wakes */
  CHECK_EQ(t_result(parker), BOP_OK);
  bop_fiber_detach(sleeper);
  OK(bop_runtime_delete(runtime));
}

/* When bop_run returns all is over: the fibers have finished, what they held is finalized. */
static atomic_int finalized;
static void finalizes(void *env) {
  (void)env;
  t_pause(MS / 20);
  finalized++;
}

static void the_end_is_complete(void) {
  CASE("the end is complete");
  bop_runtime_t *runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < 100; i++) {
    wasmtime_store_t *store = wasmtime_store_new(bop_runtime_engine(runtime), NULL, finalizes);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_instance_t instance =
        t_instance(bop_runtime_engine(runtime), context, "(module (func (export \"run\")))", NULL);
    wasmtime_func_t run = t_func(context, &instance, "run");
    bop_store_t *handle = NULL;
    bop_fiber_t *fiber = NULL;
    OK(bop_store_new(runtime, store, &handle));
    finalized = 0;
    OK(bop_spawn(handle, &run, NULL, 0, NULL, &fiber));
    bop_store_delete(handle);
    OK(bop_run(runtime));
    CHECK_EQ(bop_fiber_state(fiber), BOP_STATE_FINISHED);
    OK(bop_fiber_results(fiber, NULL, 0));
    CHECK_EQ(finalized, 1);
    bop_fiber_detach(fiber);
  }
  OK(bop_runtime_delete(runtime));
}

static atomic_bool no_more;

static void *runs_again_and_again(void *runtime) {
  while (!no_more)
    OK(bop_run(runtime));
  return NULL;
}

/* A thread that leaves bop_run just as a fiber comes in must not wait for it in vain. */
static void comes_as_the_runner_leaves(void) {
  CASE("a fiber that comes as the only worker leaves");
  bop_runtime_t *runtime = t_runtime(1, 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, runs_again_and_again, runtime), 0);
  done = 0;
  for (int i = 1; i <= 5000; i++)
    CHECK_EQ(t_result(t_spawn_host(runtime, step, NULL, NULL)), i);
  no_more = true;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  OK(bop_runtime_delete(runtime));
}

/* However many threads run, the background workers have their places. */
static void more_runners_than_places(void) {
  CASE("more threads in bop_run than places");
  bop_runtime_t *runtime = t_runtime(1, 0);
  bop_fiber_t *parker = t_spawn_host(runtime, parks, NULL, NULL);
  pthread_t threads[24];
  for (int i = 0; i < 24; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, runs, runtime), 0);
  EVENTUALLY(bop_fiber_state(parker) == BOP_STATE_PARKED);
  t_pause(20 * MS); /* most of them are in by now */
  OK(bop_runtime_start(runtime));
  CHECK_EQ(bop_unpark(parker), BOP_OK);
  CHECK_EQ(t_result(parker), BOP_OK);
  for (int i = 0; i < 24; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  done = 0;
  CHECK_EQ(t_result(t_spawn_host(runtime, step, NULL, NULL)), 1); /* only they are left to run it */
  OK(bop_runtime_delete(runtime));
}

static int64_t starts_when_cancelled(void *runtime) {
  CHECK_EQ(bop_park(), BOP_CANCELLED);
  FAILS(bop_runtime_start(runtime), "shut"); /* must not wait for the shutdown that waits for us */
  return 3;
}

static void start_during_shutdown(void) {
  CASE("start from a fiber that is being shut down");
  bop_runtime_t *runtime = t_runtime(1, 0);
  OK(bop_runtime_start(runtime));
  bop_fiber_t *fiber = t_spawn_host(runtime, starts_when_cancelled, runtime, NULL);
  EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
  OK(bop_runtime_delete(runtime));
  CHECK_EQ(t_result(fiber), 3);
}

static atomic_bool child_ran;
static int64_t child(void *env) {
  (void)env;
  child_ran = true;
  return 1;
}

/* A fiber that holds on to its worker until its child has run: only a thief can run that one. */
static int64_t blocks_for_its_child(void *runtime) {
  bop_fiber_t *fiber = t_spawn_host(runtime, child, NULL, NULL);
  EVENTUALLY(child_ran);
  return t_result(fiber);
}

static void stealing(void) {
  CASE("stealing");
  bop_runtime_t *runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < 20; i++) {
    child_ran = false;
    CHECK_EQ(t_result(t_spawn_host(runtime, blocks_for_its_child, runtime, NULL)), 1);
  }
  CHECK_EQ(t_stats(runtime).steals, 20);
  OK(bop_runtime_delete(runtime));
}

static void statistics(void) {
  CASE("statistics");
  bop_runtime_t *runtime = t_runtime(3, 0);
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < 50; i++)
    CHECK(t_result(t_spawn_host(runtime, step, NULL, NULL)) > 0);
  uint64_t switches = 0;
  for (size_t w = 0; w < 3; w++) {
    bop_worker_stats_t worker = {.size = sizeof worker};
    CHECK(bop_runtime_worker_stats(runtime, w, &worker));
    switches += worker.switches;
  }
  CHECK(switches >= 500);
  bop_worker_stats_t none = {.size = sizeof none, .switches = 99};
  CHECK(!bop_runtime_worker_stats(runtime, 1000, &none));
  CHECK_EQ(none.switches, 99);

  /* A program built against an older, shorter structure: nothing after its end is written. */
  bop_stats_t stats;
  memset(&stats, 0x5a, sizeof stats);
  stats.size = offsetof(bop_stats_t, live);
  bop_runtime_stats(runtime, &stats);
  CHECK_EQ(stats.spawned, 50);
  CHECK_EQ(stats.live, 0x5a5a5a5a5a5a5a5a);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("runtime");
  orders();
  run_here();
  from_a_fiber();
  live_at_delete(true);
  live_at_delete(false);
  refusal();
  idle();
  the_end_is_complete();
  comes_as_the_runner_leaves();
  more_runners_than_places();
  start_during_shutdown();
  stealing();
  statistics();
  return 0;
}
