/* Fibers that end with mutexes: the next one is told, once. Between plain threads and fibers of two runtimes, of C
 * and of guests, however they end. */
#include "support/things.h"

#define HOST_FUNCTION(name)                                                                                \
  static wasm_trap_t *name(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs, \
                           wasmtime_val_t *results, size_t nresults)
#define UNUSED() ((void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults)

enum { HELD = 4 };
static bop_mutex_t *held[HELD];
static atomic_bool has, may_end;

static int64_t locks(void *arg) {
  (void)arg;
  for (int i = 0; i < HELD; i++)
    CHECK_EQ(bop_mutex_lock(held[i]), BOP_OK);
  has = true;
  while (!may_end)
    bop_sleep(MS / 10);
  return 0;
}

static int64_t nothing(void *arg) { return (void)arg, 0; }
static void locks_at_last(void *arg) { locks(arg); }

static wasmtime_error_t *locks_and_fails(void *arg, wasmtime_context_t *context) {
  (void)context;
  locks(arg);
  return wasmtime_error_new("it was to fail");
}

HOST_FUNCTION(guest_locks) {
  UNUSED();
  locks(NULL);
  return NULL;
}

HOST_FUNCTION(guest_fails) {
  UNUSED();
  return wasmtime_trap_new("it was to fail", 14);
}

HOST_FUNCTION(guest_parks) {
  UNUSED();
  CHECK_EQ(bop_park(), BOP_CANCELLED);
  return NULL;
}

static const t_import IMPORTS[] = {{"lock", "", "", guest_locks, NULL},
                                   {"fail", "", "", guest_fails, NULL},
                                   {"park", "", "", guest_parks, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};
static const char *const GUEST =
    "(module (import \"host\" \"lock\" (func $lock)) (import \"host\" \"fail\" (func $fail))"
    "  (import \"host\" \"park\" (func $park))"
    "  (func (export \"returns\") (call $lock))"
    "  (func (export \"traps\") (call $lock) unreachable)"
    "  (func (export \"fails\") (call $lock) (call $fail))"
    "  (func (export \"spins\") (call $lock) (loop (br 0)))"
    "  (func (export \"parks\") (call $lock) (call $park) (loop (br 0))))";

static const struct {
  const char *export_; /* else not of a guest */
  bop_outcome_t outcome;
} WAYS[] = {{NULL, BOP_OUTCOME_RETURNED},      {NULL, BOP_OUTCOME_RETURNED},     {NULL, BOP_OUTCOME_FAILED},
            {"returns", BOP_OUTCOME_RETURNED}, {"traps", BOP_OUTCOME_TRAPPED},   {"fails", BOP_OUTCOME_TRAPPED},
            {"spins", BOP_OUTCOME_CANCELLED},  {"parks", BOP_OUTCOME_CANCELLED}, {NULL, BOP_OUTCOME_CANCELLED}};
enum { RETURNS, FINALIZES, SETS_UP, OTHERS = 8 };

static void ends(int way, bool awaited) {
  CASE("the next one is told that a fiber has ended with it, and only that one");
  bop_runtime_t *runtime = t_runtimes[0];
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  wasmtime_instance_pre_t *pre = t_pre(bop_runtime_engine(runtime), GUEST, IMPORTS);
  for (int i = 0; i < HELD; i++)
    held[i] = bop_mutex_new();
  has = may_end = false;
  bop_fiber_t *fiber = NULL;
  if (way == SETS_UP || way == OTHERS)
    OK(bop_spawn_instance(runtime, pre, way == OTHERS ? "spins" : "traps", 5, NULL, 0,
                          way == OTHERS ? NULL : locks_and_fails, NULL, NULL, NULL, &fiber));
  else if (way == FINALIZES || way == RETURNS)
    OK(bop_spawn_host(runtime, way == RETURNS ? locks : nothing, NULL, way == RETURNS ? NULL : locks_at_last, NULL,
                      &fiber));
  else
    fiber = t_spawn0(&guest, WAYS[way].export_);
  EVENTUALLY(has);
  t_taker it[HELD][2] = {{{.keeps = true}}};
  for (int i = 0; awaited && i < HELD; i++)
    for (int second = 0; second < 2; second++) {
      it[i][second].keeps = true;
      t_taker_waits(&it[i][second], (way + i + second) % KINDS, (t_thing){MUTEX, held[i]}, NEVER);
    }
  may_end = true;
  if (WAYS[way].outcome == BOP_OUTCOME_CANCELLED)
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
  ENDS(fiber, WAYS[way].outcome);
  for (int i = 0; i < HELD; i++) {
    if (awaited) {
      EVENTUALLY(it[i][0].actor.status != -1);
      CHECK_EQ(it[i][1].actor.status, -1);
      it[i][0].keeps = it[i][1].keeps = false;
      t_taker_ends(&it[i][0], BOP_ABANDONED);
      t_taker_ends(&it[i][1], BOP_OK);
    } else { /* who has joined it finds them free */
      CHECK_EQ(bop_mutex_lock_until(held[i], 0), BOP_ABANDONED);
      CHECK_EQ(bop_mutex_lock_until(held[i], 0), BOP_NOT_ALLOWED);
      CHECK_EQ(bop_mutex_unlock(held[i]), BOP_OK);
    }
    CHECK_EQ(bop_mutex_lock_until(held[i], 0), BOP_OK);
    CHECK_EQ(bop_mutex_unlock(held[i]), BOP_OK);
    bop_mutex_delete(held[i]);
  }
  wasmtime_instance_pre_delete(pre);
  t_guest_delete(&guest);
}

static int64_t dies_with(void *mutex) { return bop_mutex_lock_until(mutex, 0); }

static int64_t dies_waiting(void *mutex) {
  bop_status_t status = bop_mutex_lock(mutex);
  while (!may_end)
    bop_sleep(MS / 10);
  return status;
}

static void heirs(void) {
  CASE("who is told and ends with it passes that on");
  bop_mutex_t *mutex = bop_mutex_new();
  for (int i = 0; i < 300; i++)
    CHECK_EQ(t_result(t_spawn_host(t_runtimes[i % 2], dies_with, mutex, NULL)), i ? BOP_ABANDONED : BOP_OK);
  /* They stand in a queue now, and all of them end with it. */
  bop_fiber_t *fibers[8];
  CHECK_EQ(bop_mutex_lock(mutex), BOP_ABANDONED);
  may_end = true;
  for (int i = 0; i < 8; i++) {
    fibers[i] = t_spawn_host(t_runtimes[i % 2], dies_waiting, mutex, NULL);
    EVENTUALLY(bop_fiber_state(fibers[i]) == BOP_STATE_PARKED);
  }
  CHECK_EQ(bop_mutex_unlock(mutex), BOP_OK);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(t_result(fibers[i]), i ? BOP_ABANDONED : BOP_OK);
  CHECK_EQ(bop_mutex_lock_until(mutex, 0), BOP_ABANDONED);
  CHECK_EQ(bop_mutex_unlock(mutex), BOP_OK);
  bop_mutex_delete(mutex);
}

static int64_t is_cancelled(void *mutex) {
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  return bop_mutex_lock(mutex);
}

static void told_once(void) {
  CASE("only who gets it is told");
  bop_mutex_t *mutex = bop_mutex_new();
  t_thing thing = {MUTEX, mutex};
  may_end = false;
  bop_fiber_t *dies = t_spawn_host(t_runtimes[0], dies_waiting, mutex, NULL);
  EVENTUALLY(bop_mutex_lock_until(mutex, 0) == BOP_TIMEOUT || bop_mutex_unlock(mutex) != BOP_OK);
  t_taker it[4] = {{.keeps = false}, {.keeps = false}, {.keeps = true}, {.keeps = false}};
  for (int i = 0; i < 4; i++)
    t_taker_waits(&it[i], (i + 1) % KINDS, thing, i == 1 ? bop_now() + 20 * MS : NEVER);
  t_taker_ends(&it[1], BOP_TIMEOUT);
  CHECK_EQ(it[0].actor.status, -1);
  CHECK_EQ(bop_fiber_cancel(it[0].actor.fiber), BOP_OK);
  t_taker_ends(&it[0], BOP_CANCELLED);
  may_end = true;
  CHECK_EQ(t_result(dies), BOP_OK);
  EVENTUALLY(it[2].actor.status == BOP_ABANDONED);
  CHECK_EQ(bop_mutex_lock_until(mutex, 0), BOP_TIMEOUT);
  it[2].keeps = false;
  t_taker_ends(&it[2], BOP_ABANDONED);
  t_taker_ends(&it[3], BOP_OK);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[1], dies_with, mutex, NULL)), BOP_OK);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], is_cancelled, mutex, NULL)), BOP_CANCELLED);
  CHECK_EQ(bop_mutex_lock_until(mutex, 0), BOP_ABANDONED);
  CHECK_EQ(bop_mutex_unlock(mutex), BOP_OK);
  bop_mutex_delete(mutex);
}

enum { MANY = 300 };
static bop_mutex_t *many[MANY];

/* Unlocks two of three, in no order. */
static int64_t holds_some(void *arg) {
  (void)arg;
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(bop_mutex_lock(many[i]), BOP_OK);
  for (int i = 0; i < MANY; i++)
    if (i * 7 % MANY % 3)
      CHECK_EQ(bop_mutex_unlock(many[i * 7 % MANY]), BOP_OK);
  return 1;
}

static void some_of_many(void) {
  CASE("what was unlocked in time was not left");
  for (int i = 0; i < MANY; i++)
    many[i] = bop_mutex_new();
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], holds_some, NULL, NULL)), 1);
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(bop_mutex_lock_until(many[i], 0), i % 3 ? BOP_OK : BOP_ABANDONED);
    CHECK_EQ(bop_mutex_unlock(many[i]), BOP_OK);
  }
}

/* Each has one and waits for the next one's: nothing but the end of one of them gets them out of that. */
static atomic_int ring;
HOST_FUNCTION(locks_two) {
  UNUSED();
  int32_t i = args[0].of.i32;
  CHECK_EQ(bop_mutex_lock(many[i]), BOP_OK);
  for (ring++; ring < MANY;)
    CHECK_EQ(bop_yield(), BOP_OK);
  bop_status_t status = bop_mutex_lock(many[(i + 1) % MANY]);
  CHECK(status == BOP_CANCELLED || status == BOP_ABANDONED); /* that one may have ended before it was its turn */
  return NULL;
}

static void a_ring(void) {
  CASE("who waits for each other in a ring is cancelled with the store");
  const t_import imports[] = {{"lock", "i", "", locks_two, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, t_runtimes[1],
              "(module (import \"host\" \"lock\" (func $lock (param i32)))"
              "  (func (export \"run\") (param i32) (call $lock (local.get 0)) (loop (br 0))))",
              imports);
  bop_fiber_t *fibers[MANY];
  for (int i = 0; i < MANY; i++)
    fibers[i] = t_spawn1(&guest, "run", i);
  for (int i = 0; i < MANY; i++)
    EVENTUALLY(ring == MANY && bop_fiber_state(fibers[i]) == BOP_STATE_PARKED);
  CHECK_EQ(bop_store_cancel(guest.store), BOP_OK);
  for (int i = 0; i < MANY; i++)
    ENDS(fibers[i], BOP_OUTCOME_CANCELLED);
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(bop_mutex_lock_until(many[i], 0), BOP_ABANDONED);
    CHECK_EQ(bop_mutex_unlock(many[i]), BOP_OK);
    bop_mutex_delete(many[i]);
  }
  t_guest_delete(&guest);
}

static void of_a_runtime(void) {
  CASE("what the fibers of a runtime leave goes to those of another one, and to those without a handle");
  bop_runtime_t *runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  bop_mutex_t *mutex = bop_mutex_new();
  may_end = false;
  OK(bop_spawn_host(runtime, dies_waiting, mutex, NULL, NULL, NULL));
  EVENTUALLY(bop_mutex_lock_until(mutex, 0) == BOP_TIMEOUT || bop_mutex_unlock(mutex) != BOP_OK);
  bop_fiber_t *heir = t_spawn_host(t_runtimes[1], dies_waiting, mutex, NULL);
  EVENTUALLY(bop_fiber_state(heir) == BOP_STATE_PARKED);
  bop_mutex_delete(mutex);
  may_end = true;
  OK(bop_runtime_delete(runtime));
  CHECK_EQ(t_result(heir), BOP_ABANDONED);
}

int main(void) {
  t_start("abandoned");
  t_runtimes_start(2, 0);
  for (int way = 0; way <= OTHERS; way++)
    for (int awaited = 0; awaited < 2; awaited++)
      ends(way, awaited);
  heirs();
  told_once();
  some_of_many();
  a_ring();
  of_a_runtime();
  t_runtimes_delete();
  return 0;
}
