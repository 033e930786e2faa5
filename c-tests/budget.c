/* Time on a processor: who has used up its own is stopped, whether it spins or has a thousand short turns, and only
 * that counts which it has really run. */
#include "support/compiled.h"
#include "support/limits.h"

#include <pthread.h>
#include <unistd.h>

HOST_FUNCTION(yields) {
  UNUSED();
  bop_status_t status = bop_yield();
  CHECK(status == BOP_OK || status == BOP_CANCELLED); /* then it traps at its next check */
  return NULL;
}

enum { NAP_MS = 100 };
HOST_FUNCTION(naps) {
  UNUSED();
  CHECK_EQ(bop_sleep(NAP_MS * MS), BOP_OK);
  return NULL;
}

static atomic_int burnt;
static void burn(uint64_t nanoseconds) {
  for (uint64_t end = bop_now() + nanoseconds; bop_now() < end;) {
  }
  burnt++;
}

HOST_FUNCTION(burns) {
  UNUSED();
  burn((uint64_t)args[0].of.i32 * MS);
  return NULL;
}

/* How often a fiber was on another thread than the last time. */
enum { PLACES = 8 };
static atomic_int thread_of[PLACES], moved;
HOST_FUNCTION(looks_where) {
  UNUSED();
  atomic_int *last = &thread_of[args[0].of.i32];
  if (*last != 0 && *last != gettid())
    moved++;
  *last = gettid();
  return NULL;
}

static const t_import IMPORTS[] = {{"yield", "", "", yields, NULL},
                                   {"nap", "", "", naps, NULL},
                                   {"burn", "i", "", burns, NULL},
                                   {"where", "i", "", looks_where, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

static const char *const GUEST =
    "(module (import \"host\" \"yield\" (func $yield)) (import \"host\" \"nap\" (func $nap))"
    "  (import \"host\" \"burn\" (func $burn (param i32))) (import \"host\" \"where\" (func $where (param i32)))"
    "  (func $spin (export \"spin\") (param i32) (loop (br 0)))"
    "  (func (export \"seven\") (param i32) (result i32) (i32.const 7))"
    "  (func (export \"lap\") (param $n i32) (result i32)"
    "    (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 8))"
    "  (func (export \"yield\") (param i32) (loop (call $yield) (br 0)))"
    "  (func (export \"yield_some\") (param $n i32) (result i32)"
    "    (loop (call $yield) (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 9))"
    "  (func (export \"nap\") (param $n i32) (result i32)"
    "    (loop (call $nap) (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 10))"
    "  (func (export \"burn\") (param i32) (call $burn (local.get 0)) (call $spin (i32.const 0)))"
    "  (func (export \"wander\") (param i32) (loop (call $where (local.get 0)) (br 0))))";

static bop_runtime_t *started(size_t workers) {
  bop_runtime_t *runtime = t_runtime(workers, 50000);
  OK(bop_runtime_start(runtime));
  return runtime;
}

/* It has had its budget, and no more than the time since then. Drops the handle; what it used. */
static uint64_t used_up(bop_fiber_t *own, uint64_t budget, uint64_t since) {
  JOINS(own, BOP_OUTCOME_OUT_OF_BUDGET);
  uint64_t used = bop_fiber_cpu(own);
  CHECK(used >= budget);
  CHECK(used <= bop_now() - since);
  CHECK_EQ(used, bop_fiber_cpu(own)); /* it stands still */
  STOPPED(own, BOP_OUTCOME_OUT_OF_BUDGET);
  return used;
}

static void spinning(void) {
  CASE("spinning");
  bop_runtime_t *runtime = started(1);
  t_guest guests[2];
  for (int i = 0; i < 2; i++)
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
  for (uint64_t i = 0; i < 6; i++) { /* 0: alone, when nobody ticks for anybody else */
    uint64_t since = bop_now(), budget = i * i * MS + 1;
    bop_fiber_t *others[2], *spins = t_limited(&guests[0], "spin", 0, LIMITS(.budget = budget));
    for (uint64_t j = 0; j < 2 && i > 0; j++) /* a sibling, and another store */
      others[j] = t_spawn1(&guests[j], i % 2 ? "spin" : "yield", 0);
    used_up(spins, budget, since);
    for (int j = 0; j < 2 && i > 0; j++)
      CHECK_EQ(t_result(t_spawn1(&guests[j], "seven", 0)), 7);
    if (i > 0)
      t_cancel_all(others, 2);
  }
  for (int i = 0; i < 2; i++)
    t_guest_delete(&guests[i]);
  OK(bop_runtime_delete(runtime));
}

/* Turns are summed up, on whatever worker they were; and workers give no more than there is. */
static void over_many_turns(void) {
  CASE("over many turns, on several workers");
  enum { WORKERS = 2, SPINNERS = 6 };
  bop_runtime_t *runtime = started(WORKERS);
  t_guest guests[SPINNERS];
  for (int i = 0; i < SPINNERS; i++)
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
  for (int round = 0; round < 50 && (moved == 0 || round == 0); round++) {
    memset((void *)thread_of, 0, sizeof thread_of);
    bop_fiber_t *fibers[SPINNERS];
    uint64_t since = bop_now(), sum = 0;
    for (int i = 0; i < SPINNERS; i++)
      fibers[i] = t_limited(&guests[i], "wander", i, LIMITS(.budget = 20 * MS));
    for (int i = 0; i < SPINNERS; i++)
      sum += used_up(fibers[i], 20 * MS, since);
    CHECK(sum <= WORKERS * (bop_now() - since));
  }
  CHECK(moved > 0 && t_stats(runtime).preemptions > SPINNERS);
  for (int i = 0; i < SPINNERS; i++)
    t_guest_delete(&guests[i]);
  OK(bop_runtime_delete(runtime));
}

/* Whose turns are all much shorter than anybody's look at the clock. */
static void short_turns(void) {
  CASE("many short turns");
  bop_runtime_t *runtime = started(1);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  uint64_t since = bop_now();
  bop_fiber_t *unlimited = t_spawn1(&guest, "yield", 0), *fibers[2];
  for (uint64_t i = 0; i < 2; i++)
    fibers[i] = t_limited(&guest, "yield", 0, LIMITS(.budget = (i + 1) * 10 * MS));
  for (uint64_t i = 0; i < 2; i++)
    used_up(fibers[i], (i + 1) * 10 * MS, since);
  CHECK_EQ(t_result(t_spawn1(&guest, "yield_some", 1000)), 9); /* the third goes on */
  t_cancel_all(&unlimited, 1);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void waiting_is_free(void) {
  CASE("waiting is free");
  bop_runtime_t *runtime = started(1);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  uint64_t since = bop_now();
  bop_fiber_t *naps = t_limited(&guest, "nap", 5, LIMITS(.budget = 4 * NAP_MS * MS));
  JOINS(naps, BOP_OUTCOME_RETURNED);
  uint64_t used = bop_fiber_cpu(naps);
  CHECK(used > 0 && used + 5 * NAP_MS * MS <= bop_now() - since);
  CHECK_EQ(t_result(naps), 10);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static int64_t burns_and_yields(void *statuses) {
  bop_status_t *status = statuses;
  burn(10 * MS);
  status[0] = bop_yield();
  status[1] = bop_sleep(MS);
  return bop_cancelled();
}

static void enough(void) {
  CASE("enough, and no end to it");
  bop_runtime_t *runtime = started(1);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  const uint64_t budgets[] = {0, UINT64_MAX, UINT64_MAX - 1, 600 * SECOND};
  for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
    bop_fiber_t *laps = t_limited(&guest, "lap", 300000, LIMITS(.budget = budgets[i]));
    JOINS(laps, BOP_OUTCOME_RETURNED);
    CHECK((bop_fiber_cpu(laps) > 0) == (budgets[i] != 0)); /* who has none is not metered */
    CHECK_EQ(t_result(laps), 8);
    bop_fiber_t *spins = t_limited(&guest, "spin", 0, LIMITS(.budget = budgets[i]));
    if (budgets[i] != 0)
      EVENTUALLY(bop_fiber_cpu(spins) > 5 * MS); /* also while it runs, and nobody makes it look up */
    CHECK(bop_fiber_state(spins) != BOP_STATE_FINISHED);
    t_cancel_all(&spins, 1);
  }
  bop_runtime_t *other = t_runtime(1, 0);
  bop_fiber_t *waits = t_limited_host(other, burns_and_yields, NULL, LIMITS(.budget = SECOND));
  CHECK_EQ(bop_fiber_cpu(waits), 0);
  OK(bop_runtime_delete(other));
  uint64_t used = bop_fiber_cpu(waits); /* the handle outlives its runtime */
  CHECK_EQ(bop_fiber_cpu(waits), used);
  bop_fiber_detach(waits);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void the_host_overruns(void) {
  CASE("a function of the host overruns");
  bop_runtime_t *runtime = started(1);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  uint64_t since = bop_now();
  burnt = 0;
  used_up(t_limited(&guest, "burn", 10, LIMITS(.budget = MS)), 10 * MS, since);
  CHECK_EQ(burnt, 1); /* to its end; and the Wasm behind it was stopped */
  bop_status_t statuses[2] = {BOP_OK, BOP_OK};
  CHECK_EQ(t_result(t_limited_host(runtime, burns_and_yields, statuses, LIMITS(.budget = MS))), true);
  CHECK(statuses[0] == BOP_CANCELLED && statuses[1] == BOP_CANCELLED);
  CHECK_EQ(t_result(t_limited_host(runtime, burns_and_yields, statuses, LIMITS(.budget = 600 * SECOND))), false);
  CHECK(statuses[0] == BOP_OK && statuses[1] == BOP_OK);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* ---- read by others ---- */

static struct {
  bop_fiber_t *fibers[3];
  bop_store_t *store;
  atomic_bool stop;
  _Atomic uint64_t reads;
} watched;

static void *never_falls(void *none) {
  uint64_t last[4] = {0, 0, 0, 0};
  while (!watched.stop) {
    for (int i = 0; i < 4; i++) {
      uint64_t now = i < 3 ? bop_fiber_cpu(watched.fibers[i]) : bop_store_cpu(watched.store);
      if (now < last[i])
        t_fail(__FILE__, __LINE__, "the time of %s fell by %llu ns", i < 3 ? "a fiber" : "a store",
               (unsigned long long)(last[i] - now));
      last[i] = now;
    }
    watched.reads++;
  }
  return none;
}

static void read_by_others(void) {
  CASE("read by others");
  bop_runtime_t *runtime = started(2);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  CHECK_EQ(bop_store_cpu_budget(guest.store, UINT64_MAX), BOP_OK);
  watched.store = guest.store;
  const char *const names[] = {"yield", "yield", "spin"};
  for (int i = 0; i < 3; i++)
    watched.fibers[i] = t_limited(&guest, names[i], 0, LIMITS(.budget = UINT64_MAX));
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, never_falls, NULL), 0);
  for (int round = 0; round < 3; round++)
    for (int i = 0; i < 4; i++) {
      uint64_t before = i < 3 ? bop_fiber_cpu(watched.fibers[i]) : bop_store_cpu(guest.store);
      EVENTUALLY((i < 3 ? bop_fiber_cpu(watched.fibers[i]) : bop_store_cpu(guest.store)) > before + MS);
    }
  uint64_t reads = watched.reads;
  EVENTUALLY(watched.reads > reads + 1000);
  t_cancel_all((bop_fiber_t *[]){bop_fiber_clone(watched.fibers[0]), bop_fiber_clone(watched.fibers[1]),
                                 bop_fiber_clone(watched.fibers[2])}, 3);
  watched.stop = true;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  uint64_t sum = 0;
  for (int i = 0; i < 3; i++) {
    sum += bop_fiber_cpu(watched.fibers[i]);
    bop_fiber_detach(watched.fibers[i]);
  }
  CHECK_EQ(bop_store_cpu(guest.store), sum);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* ---- in a shared instance ---- */

static int times(const char *text, const char *word) {
  int n = 0;
  for (; (text = strstr(text, word)) != NULL; text++)
    n++;
  return n;
}

/* Stopped deep in its stack in the guest's memory, a fiber leaves the others theirs, and its own to the next one. */
static void in_a_shared_instance(void) {
  CASE("in a shared instance");
  enum { STOPPED_ONES = 60, DEPTH = 50 };
  bop_runtime_t *runtime = t_compiled_runtime(NULL, BOP_GUARD_AUTO, 50000);
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  int deep = 0;
  for (int round = 0; round < 3; round++) {
    bop_fiber_t *fibers[2 * STOPPED_ONES];
    uint64_t budget = 1000; /* and a tenth more each time: deeper, on a machine of whatever speed */
    for (int i = 0; i < 2 * STOPPED_ONES; i++, budget += i % 2 ? 0 : budget / 10) {
      bop_spawn_options_t *options = t_options(LIMITS(.budget = i % 2 ? 0 : budget));
      wasmtime_val_t args[2] = {t_i32(i), t_i32(i % 2 ? 10 : DEPTH)};
      OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, options, &fibers[i]));
      bop_spawn_options_delete(options);
    }
    for (int i = 0; i < 2 * STOPPED_ONES; i++) {
      bop_outcome_t outcome;
      CHECK_EQ(bop_fiber_join(fibers[i], &outcome), BOP_OK);
      if (outcome == BOP_OUTCOME_OUT_OF_BUDGET && i % 2 == 0) {
        wasm_trap_t *trap = bop_fiber_take_trap(fibers[i]);
        deep += trap != NULL && times(t_trap_trace(trap), "sum") > 2;
        if (trap != NULL)
          wasm_trap_delete(trap);
        bop_fiber_detach(fibers[i]);
      } else {
        CHECK_EQ((int32_t)t_result(fibers[i]), t_sum(i, i % 2 ? 10 : DEPTH));
      }
    }
    CHECK_EQ(t_sums(&guest, MANY, 20, NULL), 0);
  }
  CHECK(deep > 3);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("budget");
  bop_spawn_options_cpu_budget(NULL, 5);
  CHECK_EQ(bop_fiber_cpu(NULL), 0);
  spinning();
  over_many_turns();
  short_turns();
  waiting_is_free();
  enough();
  the_host_overruns();
  read_by_others();
  in_a_shared_instance();
  return 0;
}
