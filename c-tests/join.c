/* Waiting for fibers: from threads and fibers, by many, twice, with a deadline, in vain. */
#include "support/support.h"

#include <pthread.h>

static bop_runtime_t *runtime;
static atomic_int gate; /* fibers below end when it opens */

static int64_t waits_at_gate(void *env) {
  while (!gate)
    if (bop_sleep(MS) != BOP_OK)
      return -1;
  return (int64_t)(intptr_t)env;
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

static void *joins_as_thread(void *fiber) {
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  wasmtime_val_t value;
  OK(bop_fiber_results(fiber, &value, 1));
  return (void *)(intptr_t)value.of.i64;
}

static int64_t joins_as_fiber(void *fiber) { return (intptr_t)joins_as_thread(fiber); }

static void many_joiners(void) {
  CASE("many joiners");
  enum { N = 8 };
  gate = 0;
  bop_fiber_t *target = t_spawn_host(runtime, waits_at_gate, (void *)4711, "target");
  bop_fiber_t *fibers[N], *clones[N];
  pthread_t threads[N];
  for (int i = 0; i < N; i++) {
    clones[i] = bop_fiber_clone(target);
    CHECK(clones[i] != NULL && bop_fiber_id(clones[i]) == bop_fiber_id(target));
    fibers[i] = t_spawn_host(runtime, joins_as_fiber, clones[i], NULL);
    CHECK_EQ(pthread_create(&threads[i], NULL, joins_as_thread, target), 0);
  }
  for (int i = 0; i < N; i++) /* all of them wait, without a worker each */
    EVENTUALLY(bop_fiber_state(fibers[i]) == BOP_STATE_PARKED);
  gate = 1;
  for (int i = 0; i < N; i++) {
    void *result;
    CHECK_EQ(pthread_join(threads[i], &result), 0);
    CHECK_EQ((intptr_t)result, 4711);
    CHECK_EQ(t_result(fibers[i]), 4711);
    bop_fiber_detach(clones[i]);
  }
  for (int twice = 0; twice < 2; twice++)
    JOINS(target, BOP_OUTCOME_RETURNED);
  CHECK_EQ(bop_fiber_state(target), BOP_STATE_FINISHED);
  bop_outcome_t outcome = BOP_OUTCOME_FAILED;
  CHECK_EQ(bop_fiber_join_until(target, 0, &outcome), BOP_OK); /* it has ended: no deadline matters */
  CHECK_EQ(outcome, BOP_OUTCOME_RETURNED);
  CHECK_EQ(t_result(target), 4711);
}

static void deadlines(void) {
  CASE("deadlines on a thread");
  bop_fiber_t *target = t_spawn_host(runtime, parks, NULL, NULL);
  bop_outcome_t outcome = (bop_outcome_t)77;
  uint64_t deadline = bop_now() + 20 * MS;
  CHECK_EQ(bop_fiber_join_until(target, deadline, &outcome), BOP_TIMEOUT);
  CHECK(t_now() >= deadline);
  CHECK_EQ(bop_fiber_join_until(target, 0, &outcome), BOP_TIMEOUT);
  CHECK_EQ(outcome, 77);
  CHECK_EQ(bop_unpark(target), BOP_OK);
  CHECK_EQ(bop_fiber_join_until(target, bop_now() + 60 * SECOND, &outcome), BOP_OK);
  CHECK_EQ(outcome, BOP_OUTCOME_RETURNED);
  CHECK_EQ(t_result(target), BOP_OK);
}

static int64_t joins_in_time(void *target) {
  bop_outcome_t outcome = (bop_outcome_t)77;
  for (int i = 0; i < 3; i++) {
    uint64_t deadline = bop_now() + 10 * MS;
    CHECK_EQ(bop_fiber_join_until(target, deadline, &outcome), BOP_TIMEOUT);
    CHECK(bop_now() >= deadline);
  }
  CHECK_EQ(outcome, 77);
  CHECK_EQ(bop_unpark(target), BOP_OK);
  CHECK_EQ(bop_fiber_join_until(target, bop_now() + 60 * SECOND, &outcome), BOP_OK);
  CHECK_EQ(outcome, BOP_OUTCOME_RETURNED);
  /* A wake-up left over from an earlier wait would end this one early. */
  uint64_t until = bop_now() + 10 * MS;
  CHECK_EQ(bop_sleep_until(until), BOP_OK);
  CHECK(bop_now() >= until);
  return 6;
}

static void deadlines_in_a_fiber(void) {
  CASE("deadlines in a fiber");
  bop_fiber_t *target = t_spawn_host(runtime, parks, NULL, NULL);
  CHECK_EQ(t_result(t_spawn_host(runtime, joins_in_time, target, NULL)), 6);
  bop_fiber_detach(target);
}

static int64_t joins_itself(void *env) {
  (void)env;
  bop_fiber_t *self = bop_current();
  bop_outcome_t outcome = (bop_outcome_t)77;
  CHECK_EQ(bop_fiber_join(self, &outcome), BOP_NOT_ALLOWED);
  CHECK_EQ(bop_fiber_join_until(self, bop_now() + SECOND, &outcome), BOP_NOT_ALLOWED);
  CHECK_EQ(outcome, 77);
  bop_fiber_detach(self);
  return 8;
}

static int64_t joins_abroad(void *foreigner) {
  bop_outcome_t outcome = (bop_outcome_t)77;
  CHECK_EQ(bop_fiber_join(foreigner, &outcome), BOP_NOT_ALLOWED);
  CHECK_EQ(outcome, 77);
  return 9;
}

static void not_allowed(void) {
  CASE("not allowed");
  CHECK_EQ(t_result(t_spawn_host(runtime, joins_itself, NULL, NULL)), 8);
  bop_runtime_t *other = t_runtime(1, 0);
  OK(bop_runtime_start(other));
  bop_fiber_t *foreigner = t_spawn_host(other, parks, NULL, NULL);
  CHECK_EQ(t_result(t_spawn_host(runtime, joins_abroad, foreigner, NULL)), 9);
  CHECK_EQ(bop_unpark(foreigner), BOP_OK);
  CHECK_EQ(t_result(foreigner), BOP_OK); /* a host thread may join fibers of any runtime */
  OK(bop_runtime_delete(other));
}

static int64_t joins_until_cancelled(void *target) {
  bop_outcome_t outcome = (bop_outcome_t)77;
  CHECK_EQ(bop_fiber_join(target, &outcome), BOP_CANCELLED);
  CHECK_EQ(outcome, 77);
  CHECK(bop_cancelled());
  return 10;
}

static void cancelled_joiner(void) {
  CASE("the joiner is cancelled");
  bop_fiber_t *target = t_spawn_host(runtime, parks, NULL, NULL);
  bop_fiber_t *joiner = t_spawn_host(runtime, joins_until_cancelled, target, NULL);
  EVENTUALLY(bop_fiber_state(joiner) == BOP_STATE_PARKED);
  CHECK_EQ(bop_fiber_cancel(joiner), BOP_OK);
  CHECK_EQ(t_result(joiner), 10);
  EVENTUALLY(bop_fiber_state(target) == BOP_STATE_PARKED); /* not touched by that */
  CHECK_EQ(bop_unpark(target), BOP_OK);
  CHECK_EQ(t_result(target), BOP_OK);
}

static atomic_int ends;
static int64_t counts(void *env) {
  (void)env;
  bop_yield();
  ends++;
  return 0;
}

static void detached(void) {
  CASE("detach");
  ends = 0;
  for (int i = 0; i < 100; i++) {
    bop_fiber_t *fiber = t_spawn_host(runtime, counts, NULL, NULL);
    bop_fiber_t *clone = bop_fiber_clone(fiber);
    bop_fiber_detach(fiber);
    if (i % 2)
      bop_fiber_detach(clone);
    else
      ENDS(clone, BOP_OUTCOME_RETURNED); /* the clone does not need the original */
  }
  EVENTUALLY(ends == 100);
}

/* ---- fibers of one store that wait for each other, from within Wasm ---- */

static t_guest guest;
static bop_fiber_t *_Atomic siblings[16];

static wasm_trap_t *joins_sibling(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                  size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  bop_fiber_t *sibling = siblings[args[0].of.i32];
  JOINS(sibling, BOP_OUTCOME_RETURNED);
  OK(bop_fiber_results(sibling, results, 1));
  return NULL;
}

static void within_a_store(void) {
  CASE("within a store");
  const t_import imports[] = {{"join", "i", "i", joins_sibling, NULL},
                              {NULL, NULL, NULL, NULL, NULL}};
  t_guest_new(&guest, runtime,
              "(module (import \"host\" \"join\" (func $join (param i32) (result i32)))"
              "  (func (export \"chain\") (param i32) (result i32)"
              "    (i32.add (local.get 0) (if (result i32) (local.get 0)"
              "      (then (call $join (i32.sub (local.get 0) (i32.const 1))))"
              "      (else (i32.const 100))))))",
              imports);
  wasmtime_context_t *context;
  OK(bop_store_enter(guest.store, &context)); /* none runs before all are known */
  for (int i = 0; i < 16; i++)
    siblings[i] = t_spawn1(&guest, "chain", i);
  OK(bop_store_exit(guest.store));
  JOINS(siblings[15], BOP_OUTCOME_RETURNED); /* only now does nobody use the handles */
  for (int i = 0; i < 16; i++)
    CHECK_EQ(t_result(siblings[i]), 100 + i * (i + 1) / 2);
  t_guest_delete(&guest);
}

int main(void) {
  t_start("join");
  runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  many_joiners();
  deadlines();
  deadlines_in_a_fiber();
  not_allowed();
  cancelled_joiner();
  detached();
  within_a_store();
  OK(bop_runtime_delete(runtime));
  return 0;
}
