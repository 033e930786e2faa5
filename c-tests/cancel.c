/* Cancellation reaches a fiber wherever it is, and no other fiber. */
#include "support/support.h"

static atomic_int host_status = -1;
static atomic_int keeps_going;

/* Sleeps for ever; returns normally when cancelled, so that the Wasm above goes on. */
static wasm_trap_t *sleeps(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  host_status = bop_sleep(3600 * SECOND);
  CHECK(bop_cancelled());
  CHECK_EQ(bop_yield(), BOP_CANCELLED); /* it stays cancelled */
  CHECK_EQ(bop_sleep(MS), BOP_CANCELLED);
  CHECK_EQ(bop_park(), BOP_CANCELLED);
  return NULL;
}

static wasm_trap_t *gives_up(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                             size_t nargs, wasmtime_val_t *results, size_t nresults) {
  sleeps(env, caller, args, nargs, results, nresults);
  return wasmtime_trap_new("gave up", 7);
}

static wasm_trap_t *parks_once(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                               size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_park(), BOP_CANCELLED);
  return NULL;
}

static const t_import IMPORTS[] = {{"park", "", "", parks_once, NULL},
                                   {"sleep", "", "", sleeps, NULL},
                                   {"give_up", "", "", gives_up, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

static const char *const GUEST =
    "(module (import \"host\" \"sleep\" (func $sleep)) (import \"host\" \"give_up\" (func $give_up))"
    "  (import \"host\" \"park\" (func $park))"
    "  (func $entry) (func (export \"park_then_enter\") (call $park) (call $entry))"
    "  (global $n (mut i64) (i64.const 0))"
    "  (func $spin (export \"spin\") (loop (br 0)))"
    "  (func (export \"count\") (loop (global.set $n (i64.add (global.get $n) (i64.const 1))) (br 0)))"
    "  (func (export \"counted\") (result i64) global.get $n)"
    "  (func (export \"sleep_then_return\") (result i32) (call $sleep) (i32.const 31))"
    "  (func (export \"sleep_then_spin\") (call $sleep) (call $spin))"
    "  (func (export \"give_up\") (call $give_up)))";

static int64_t parks(void *env) {
  (void)env;
  bop_status_t status = bop_park();
  CHECK_EQ(bop_park_until(bop_now() + 60 * SECOND), BOP_CANCELLED);
  return status;
}

static int64_t sleeps_once(void *env) {
  (void)env;
  CHECK(!bop_cancelled());
  bop_status_t status = bop_sleep(3600 * SECOND);
  CHECK(bop_cancelled());
  return status;
}

static int64_t never_runs(void *env) {
  (void)env;
  t_fail(__FILE__, __LINE__, "a fiber that was cancelled before its start has run");
}

static atomic_int finalized;
static void finalizes(void *env) {
  (void)env;
  finalized++;
}

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static int64_t goes_on(void *env) {
  (void)env;
  while (keeps_going)
    if (bop_yield() != BOP_OK)
      return -1;
  return 55;
}

static int64_t cancels_itself(void *env) {
  (void)env;
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_yield(), BOP_OK);
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  CHECK(bop_cancelled());
  CHECK_EQ(bop_yield(), BOP_CANCELLED);
  bop_fiber_detach(self);
  return 66;
}

/* CANCELLED, and the trap, if there is one, says why. */
static void is_cancelled(bop_fiber_t *own) {
  JOINS(own, BOP_OUTCOME_CANCELLED);
  wasm_trap_t *trap = bop_fiber_take_trap(own);
  if (trap != NULL)
    CHECK_HAS(t_trap_text(trap), "cancel");
  CHECK(bop_fiber_take_trap(own) == NULL);
  bop_fiber_detach(own);
}

static void not_started(bop_runtime_t *runtime, const t_guest *guest) {
  CASE("not started");
  bop_fiber_t *host = NULL;
  OK(bop_spawn_host(runtime, never_runs, NULL, finalizes, NULL, &host));
  bop_fiber_t *wasm = t_spawn0(guest, "spin");
  CHECK_EQ(bop_fiber_state(host), BOP_STATE_READY);
  CHECK_EQ(bop_fiber_cancel(host), BOP_OK);
  CHECK_EQ(bop_fiber_cancel(host), BOP_OK); /* twice is once */
  CHECK_EQ(bop_fiber_cancel(wasm), BOP_OK);
  OK(bop_runtime_start(runtime));
  is_cancelled(host);
  is_cancelled(wasm);
  EVENTUALLY(finalized == 1);
}

static void spinning(const t_guest *guest) {
  CASE("spinning");
  bop_fiber_t *fiber = t_spawn0(guest, "spin");
  EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_RUNNING);
  CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
  is_cancelled(fiber);
}

static void waiting(bop_runtime_t *runtime) {
  CASE("sleeping and parked");
  bop_fiber_t *sleeper = t_spawn_host(runtime, sleeps_once, NULL, NULL);
  bop_fiber_t *parker = t_spawn_host(runtime, parks, NULL, NULL);
  EVENTUALLY(bop_fiber_state(sleeper) == BOP_STATE_PARKED);
  EVENTUALLY(bop_fiber_state(parker) == BOP_STATE_PARKED);
  CHECK_EQ(bop_fiber_cancel(sleeper), BOP_OK);
  CHECK_EQ(bop_fiber_cancel(parker), BOP_OK);
  CHECK_EQ(t_result(sleeper), BOP_CANCELLED);
  CHECK_EQ(t_result(parker), BOP_CANCELLED);
  CHECK_EQ(t_result(t_spawn_host(runtime, cancels_itself, NULL, NULL)), 66);
}

/* One worker, many spinners: at any moment all but one of them are queued. */
static void queued(bop_runtime_t *runtime, const t_guest *guest) {
  CASE("queued");
  bop_fiber_t *fibers[8];
  uint64_t before = t_stats(runtime).preemptions;
  for (int i = 0; i < 8; i++)
    fibers[i] = t_spawn0(guest, i % 2 ? "spin" : "count");
  EVENTUALLY(t_stats(runtime).preemptions > before + 16);
  for (int i = 7; i >= 0; i--) {
    CHECK_EQ(bop_fiber_cancel(fibers[i]), BOP_OK);
    is_cancelled(fibers[i]);
  }
}

static void finished(bop_runtime_t *runtime) {
  CASE("finished");
  bop_fiber_t *fiber = t_spawn_host(runtime, seven, NULL, NULL);
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  for (int twice = 0; twice < 2; twice++)
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_FINISHED);
  CHECK_EQ(t_result(fiber), 7); /* the outcome stands */
}

static void siblings(bop_runtime_t *runtime, const t_guest *guest) {
  CASE("siblings");
  keeps_going = 1;
  bop_fiber_t *fibers[4], *host = t_spawn_host(runtime, goes_on, NULL, NULL);
  for (int i = 0; i < 4; i++)
    fibers[i] = t_spawn0(guest, i == 3 ? "count" : "spin");
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(bop_fiber_cancel(fibers[i]), BOP_OK);
    is_cancelled(fibers[i]);
    int64_t before = t_result(t_spawn0(guest, "counted"));
    EVENTUALLY(t_result(t_spawn0(guest, "counted")) > before); /* the last one still counts */
    for (int j = i + 1; j < 4; j++)
      CHECK(bop_fiber_state(fibers[j]) != BOP_STATE_FINISHED);
  }
  CHECK(bop_fiber_state(host) != BOP_STATE_FINISHED);
  t_cancel_all(&fibers[3], 1);
  keeps_going = 0;
  CHECK_EQ(t_result(host), 55);
}

static void in_host_functions(const t_guest *guest) {
  CASE("in a host function");
  const char *const names[] = {"sleep_then_return", "sleep_then_spin", "give_up"};
  for (int i = 0; i < 3; i++) {
    host_status = -1;
    bop_fiber_t *fiber = t_spawn0(guest, names[i]);
    EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
    bop_outcome_t outcome = BOP_OUTCOME_FAILED;
    CHECK_EQ(bop_fiber_join(fiber, &outcome), BOP_OK);
    CHECK_EQ(host_status, BOP_CANCELLED);
    if (i == 0) { /* Wasm that gets to its end has returned; a check on the way may stop it */
      CHECK(outcome == BOP_OUTCOME_RETURNED || outcome == BOP_OUTCOME_CANCELLED);
    } else if (i == 1) {
      CHECK_EQ(outcome, BOP_OUTCOME_CANCELLED);
    } else { /* its own trap is kept */
      CHECK(outcome == BOP_OUTCOME_TRAPPED || outcome == BOP_OUTCOME_CANCELLED);
      CHECK_HAS(t_trap_text(bop_fiber_take_trap(fiber)), "gave up");
    }
    bop_fiber_detach(fiber);
  }
}

/* Who waited, was cancelled, and goes on in Wasm traps at its very next check, however soon that comes: the
 * canceller may still be in its call. */
static void at_the_next_check(const t_guest *guest) {
  CASE("at the next check");
  for (int i = 0; i < 500; i++) {
    bop_fiber_t *fiber = t_spawn0(guest, "park_then_enter");
    EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
    ENDS(fiber, BOP_OUTCOME_CANCELLED);
  }
}

int main(void) {
  t_start("cancel");
  bop_runtime_t *runtime = t_runtime(1, 50000);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  not_started(runtime, &guest); /* starts it */
  spinning(&guest);
  waiting(runtime);
  queued(runtime, &guest);
  finished(runtime);
  siblings(runtime, &guest);
  in_host_functions(&guest);
  at_the_next_check(&guest);
  bop_stats_t stats = t_stats(runtime);
  CHECK_EQ(stats.spawned, stats.finished);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
  return 0;
}
