/* Mutexes: whose they are, and what they guard in guests that lose their turn in between, as a semaphore with one
 * permit does. Between plain threads and fibers of two runtimes. (What becomes of them when a fiber ends:
 * abandoned.c.) */
#include "support/things.h"

#include <sched.h>

#define HOST_FUNCTION(name)                                                                                \
  static wasm_trap_t *name(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs, \
                           wasmtime_val_t *results, size_t nresults)
#define UNUSED() ((void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults)

/* ---- whose mutex it is ---- */

typedef struct {
  t_actor actor;
  t_thing mutex;
  atomic_bool has, go;
} user;

static int64_t owns(void *data) {
  user *me = data;
  CHECK_EQ(t_take(me->mutex, NEVER), BOP_OK);
  for (int i = 0; !me->go; i++) {
    for (int again = 0; again < 3; again++)
      CHECK_EQ(t_take(me->mutex, again == 0 ? 0 : again == 1 ? t_far() : NEVER), BOP_NOT_ALLOWED);
    me->has = i > 3;
    CHECK_EQ(i % 2 ? bop_yield() : bop_sleep(MS / 10), BOP_OK); /* it is still its own, on whichever worker */
  }
  CHECK_EQ(t_give(me->mutex), BOP_OK);
  return t_give(me->mutex);
}

static int64_t meddles(void *data) {
  user *me = data;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(t_give(me->mutex), BOP_NOT_ALLOWED);
    CHECK_EQ(t_take(me->mutex, i ? bop_now() + MS : 0), BOP_TIMEOUT);
  }
  return 1;
}

static void owners(void) {
  CASE("only the holder unlocks, once, and nobody locks twice");
  t_thing mutex = t_free(MUTEX);
  CHECK_EQ(t_give(mutex), BOP_NOT_ALLOWED);
  for (int kind = 0; kind < KINDS; kind++) {
    user owner = {.mutex = mutex}, other = {.mutex = mutex};
    t_actor_begin(&owner.actor, kind, owns);
    EVENTUALLY(owner.has);
    meddles(&other);
    for (int of = 0; of < KINDS; of++) {
      other = (user){.mutex = mutex};
      t_actor_begin(&other.actor, of, meddles);
      CHECK_EQ(t_actor_end(&other.actor), 1);
    }
    owner.go = true;
    CHECK_EQ(t_actor_end(&owner.actor), BOP_NOT_ALLOWED);
  }
  t_thing_delete(mutex);
}

HOST_FUNCTION(unlocks) {
  UNUSED();
  results[0] = t_i32((int32_t)bop_mutex_unlock(env));
  return NULL;
}

/* Neither a fiber nor a guest is the thread that it runs on, unless the thread itself has called the guest. */
static void one_thread(void) {
  CASE("a thread is not the fibers that it runs");
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_thing mutex = t_taken(MUTEX);
  user other = {.mutex = mutex};
  const t_import imports[] = {{"unlock", "", "i", unlocks, mutex.it}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (import \"host\" \"unlock\" (func $unlock (result i32)))"
              "  (func (export \"run\") (result i32) (call $unlock)))",
              imports);
  bop_fiber_t *fibers[] = {t_spawn_host(runtime, meddles, &other, NULL), t_spawn0(&guest, "run")};
  OK(bop_run(runtime));
  CHECK_EQ(t_result(fibers[0]), 1);
  CHECK_EQ(t_result(fibers[1]), BOP_NOT_ALLOWED);
  wasmtime_context_t *context;
  wasmtime_val_t result;
  wasm_trap_t *trap = NULL;
  OK(bop_store_enter(guest.store, &context));
  OK(wasmtime_func_call(context, t_export(&guest, "run"), NULL, 0, &result, 1, &trap));
  OK(bop_store_exit(guest.store));
  CHECK(trap == NULL && result.of.i32 == BOP_OK);
  t_thing_delete(mutex);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static int64_t leaves(void *data) { return t_take(((user *)data)->mutex, NEVER); }

static void threads(void) {
  CASE("what a thread leaves stays locked");
  user it = {.mutex = t_free(MUTEX)};
  t_actor_begin(&it.actor, THREAD, leaves);
  CHECK_EQ(t_actor_end(&it.actor), BOP_OK);
  meddles(&it);
  t_thing_delete(it.mutex);
}

/* ---- guests that lose their turn in between ---- */

static struct {
  t_thing thing; /* guards the number */
  uint64_t number, entered;
} guarded;

HOST_FUNCTION(takes) {
  UNUSED();
  CHECK_EQ(t_take(guarded.thing, NEVER), BOP_OK);
  results[0] = t_i64((int64_t)guarded.number);
  return NULL;
}

HOST_FUNCTION(gives) {
  UNUSED();
  guarded.number = (uint64_t)args[0].of.i64;
  guarded.entered++;
  CHECK_EQ(t_give(guarded.thing), BOP_OK);
  return NULL;
}

static const char *const COUNTS =
    "(module (import \"host\" \"take\" (func $take (result i64))) (import \"host\" \"give\" (func $give (param i64)))"
    "  (func $next (param i64) (param $laps i32) (result i64)"
    "    (loop (br_if 0 (local.tee $laps (i32.sub (local.get $laps) (i32.const 1)))))"
    "    (i64.add (local.get 0) (i64.const 1)))"
    "  (func (export \"count\") (param $n i32) (param $laps i32) (result i32)"
    "    (loop (drop (call $next (i64.const 0) (local.get $laps)))"
    "      (call $give (call $next (call $take) (local.get $laps)))"
    "      (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    (i32.const 1)))";

static int64_t counts(void *data) {
  for (uint64_t i = 0; i < ((t_actor *)data)->n; i++) {
    CHECK_EQ(t_take(guarded.thing, NEVER), BOP_OK);
    uint64_t number = guarded.number;
    CHECK_EQ(bop_yield(), BOP_OK);
    sched_yield();
    guarded.number = number + 1;
    guarded.entered++;
    CHECK_EQ(t_give(guarded.thing), BOP_OK);
  }
  return 1;
}

static void guests(int sort, bool at_every_check) {
  CASE("one at a time, in guests that are preempted");
  enum { STORES = 4, FIBERS = 12, ACTORS = 6, N = 60 };
  const t_import imports[] = {
      {"take", "", "I", takes, NULL}, {"give", "I", "", gives, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_quantum(config, at_every_check ? 0 : 50000);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  guarded.thing = t_free(sort);
  guarded.number = guarded.entered = 0;
  t_guest guest[STORES];
  bop_fiber_t *fibers[FIBERS];
  t_actor actors[ACTORS];
  for (int i = 0; i < STORES; i++) /* those of the other runtime are not preempted so often */
    t_guest_new(&guest[i], i ? runtime : t_runtimes[0], COUNTS, imports);
  for (int i = 0; i < FIBERS; i++)
    fibers[i] = t_spawn(&guest[i % STORES], "count", (int32_t[]){N, at_every_check ? 50 : 60000}, 2);
  for (int i = 0; i < ACTORS; i++) {
    actors[i] = (t_actor){.n = N};
    t_actor_begin(&actors[i], i % KINDS, counts);
  }
  OK(bop_run(runtime)); /* this thread is the worker */
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < FIBERS; i++)
    CHECK_EQ(t_result(fibers[i]), 1);
  for (int i = 0; i < ACTORS; i++)
    CHECK_EQ(t_actor_end(&actors[i]), 1);
  CHECK_EQ(guarded.entered, (FIBERS + ACTORS) * N);
  CHECK_EQ(guarded.number, (FIBERS + ACTORS) * N);
  CHECK(t_stats(runtime).preemptions > 0);
  for (int i = 0; i < STORES; i++)
    t_guest_delete(&guest[i]);
  t_thing_delete(guarded.thing);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("mutex");
  t_runtimes_start(2, 0);
  owners();
  one_thread();
  threads();
  for (int sort = MUTEX; sort <= SEMAPHORE; sort++)
    for (int at_every_check = 0; at_every_check < 2; at_every_check++)
      guests(sort, at_every_check);
  t_runtimes_delete();
  return 0;
}
