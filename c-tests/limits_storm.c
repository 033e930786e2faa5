/* Limits under load. Stores come and go while their deadlines and budgets, those of their fibers, and cancellations
 * race; then fibers of two runtimes and threads want more room than there is. Nobody ends for a reason that there was
 * not, nobody gets in beyond the limit, nobody is lost, and nothing is left behind.
 *
 * BOP_SEED repeats the seed, which every run prints; BOP_STRESS is the seconds of all of it, 2 unless told. */
#include "support/descriptors.h"
#include "support/guests.h"
#include "support/limits.h"

static atomic_bool stop;
static _Atomic uint64_t outcomes[BOP_OUTCOME_OUT_OF_BUDGET + 1];

/* ---- stores come and go ---- */

HOST_FUNCTION(naps) {
  UNUSED();
  bop_status_t status = bop_sleep((uint64_t)args[0].of.i32 * 1000);
  CHECK(status == BOP_OK || status == BOP_CANCELLED);
  return NULL;
}

HOST_FUNCTION(yields) {
  UNUSED();
  bop_yield();
  return NULL;
}

static const t_import CALLS[] = {
    {"nap", "i", "", naps, NULL}, {"yield", "", "", yields, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static const char *const EXPORTS[] = {"lap", "nap", "yields", "spin"};
enum { KINDS_OF_GUESTS = sizeof EXPORTS / sizeof EXPORTS[0], SPINS = KINDS_OF_GUESTS - 1 };
static const char *const WAT =
    "(module (import \"host\" \"nap\" (func $nap (param i32))) (import \"host\" \"yield\" (func $yield))"
    FUNC("lap", "(param i32)", "(loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))")
    "(func (export \"nap\") (param i32) (call $nap (local.get 0)))"
    FUNC("yields", "(param i32)", "(loop (call $yield) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))")
    FUNC("spin", "(param i32)", "(loop (br 0))") ")";
static wasmtime_instance_pre_t *pre;

/* None, in the past, soon, not soon. */
static uint64_t some_deadline(uint64_t *random) {
  switch (t_below(random, 6)) {
  case 0: return bop_now() - 1;
  case 1:
  case 2: return bop_now() + t_below(random, 400000);
  case 3: return t_far();
  default: return 0;
  }
}

static uint64_t some_budget(uint64_t *random) {
  switch (t_below(random, 6)) {
  case 0: return UINT64_MAX;
  case 1: return 1 + t_below(random, 200000);
  default: return 0;
  }
}

/* Which ends there may be, as bits. */
static uint32_t ends_of(uint64_t deadline, uint64_t budget) {
  bool soon = deadline != 0 && deadline < bop_now() + 600 * SECOND;
  return UINT32_C(1) << BOP_OUTCOME_RETURNED | (uint32_t)soon << BOP_OUTCOME_TIMED_OUT |
         (uint32_t)(budget != 0 && budget != UINT64_MAX) << BOP_OUTCOME_OUT_OF_BUDGET;
}

static void one_store(uint64_t *random) {
  wasmtime_store_t *own = t_world_store();
  t_guest guest;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_instance_pre_instantiate(pre, wasmtime_store_context(own), &guest.instance, &trap));
  t_find_exports(&guest, wasmtime_store_context(own));
  OK(bop_store_new(world.runtime, own, &guest.store));
  uint64_t deadline = some_deadline(random), budget = some_budget(random);
  uint32_t ends = ends_of(deadline, budget);
  if (budget != 0)
    CHECK_EQ(bop_store_cpu_budget(guest.store, budget), BOP_OK);
  CHECK_EQ(bop_store_deadline(guest.store, deadline), BOP_OK);
  enum { FIBERS = 4 };
  bop_fiber_t *fibers[FIBERS];
  uint32_t may_end[FIBERS];
  size_t n = 0;
  for (uint64_t i = 0; i < 1 + t_below(random, FIBERS); i++) {
    uint64_t kind = t_below(random, KINDS_OF_GUESTS), own_deadline = some_deadline(random);
    uint64_t own_budget = some_budget(random);
    if (kind == SPINS) /* it must end some time */
      own_deadline = bop_now() + t_below(random, 400000);
    bop_spawn_options_t *options = t_options(LIMITS(.deadline = own_deadline, .budget = own_budget));
    wasmtime_val_t value = t_i32(1 + (int32_t)t_below(random, 1000));
    may_end[n] = ends | ends_of(own_deadline, own_budget);
    wasmtime_error_t *error = bop_spawn(guest.store, t_export(&guest, EXPORTS[kind]), &value, 1, options, &fibers[n]);
    bop_spawn_options_delete(options);
    if (error == NULL)
      n++;
    else
      FAILS(error, ends >> BOP_OUTCOME_TIMED_OUT & 1 ? "the store's deadline" : "no reason");
  }
  if (t_below(random, 3) == 0)
    CHECK_EQ(bop_store_deadline(guest.store, t_below(random, 2) ? 0 : t_far()), BOP_OK);
  if (t_below(random, 2))
    t_pause(t_below(random, 200000));
  bool first = t_below(random, 2); /* the handle goes */
  if (first)
    t_guest_delete(&guest);
  if (n > 0 && t_below(random, 4) == 0) {
    may_end[n - 1] |= UINT32_C(1) << BOP_OUTCOME_CANCELLED;
    CHECK(bop_fiber_cancel(fibers[n - 1]) != BOP_INVALID);
  }
  for (size_t i = 0; i < n; i++) {
    bop_outcome_t outcome;
    CHECK_EQ(bop_fiber_join(fibers[i], &outcome), BOP_OK);
    if ((may_end[i] >> outcome & 1) == 0)
      t_fail(__FILE__, __LINE__, "a fiber ended %s without a reason", bop_outcome_name(outcome));
    outcomes[outcome]++;
    bop_fiber_detach(fibers[i]);
  }
  if (!first)
    t_guest_delete(&guest);
}

static int64_t comes_and_goes(void *data) {
  t_actor *me = data;
  int64_t stores = 0;
  for (; !stop; stores++)
    one_store(&me->random);
  return stores;
}

static void stores_come_and_go(uint64_t *random, uint64_t nanoseconds) {
  CASE("stores come and go");
  BEGIN(2, 50000, 0);
  pre = t_pre(bop_runtime_engine(world.runtime), WAT, CALLS);
  world.freed = 0;
  stop = false;
  t_actor actors[3];
  for (int i = 0; i < 3; i++) {
    actors[i] = (t_actor){.random = t_below(random, UINT64_MAX) | 1};
    t_actor_begin(&actors[i], THREAD, comes_and_goes);
  }
  t_pause(nanoseconds);
  stop = true;
  int64_t stores = 0;
  for (int i = 0; i < 3; i++)
    stores += t_actor_end(&actors[i]);
  EVENTUALLY(t_stats(world.runtime).live == 0 && world.freed == stores);
  CHECK_EQ(t_next(world.runtime), UINT64_MAX);
  for (int outcome = 0; outcome <= BOP_OUTCOME_OUT_OF_BUDGET; outcome++)
    if (outcome != BOP_OUTCOME_TRAPPED && outcome != BOP_OUTCOME_EXITED && outcome != BOP_OUTCOME_FAILED)
      CHECK(outcomes[outcome] > 0);
  wasmtime_instance_pre_delete(pre);
  t_world_end(0);
}

/* ---- more than there is room for ---- */

enum { MOST = 6, MOST_IN_STORE = 3, SPAWNERS = 9 };
static t_guest crowded;
static atomic_int inside, inside_store;
static _Atomic uint64_t served, refused, in_vain, visits, finalized, tries;

static void finalizes(void *env) {
  (void)env;
  finalized++;
}

/* A child is there for a while. The number says for how long. */
static int64_t visits_for(uint64_t number) {
  CHECK(++inside <= MOST);
  visits++;
  for (uint64_t i = 0; i < number % 4; i++)
    bop_yield();
  if (number % 7 == 0)
    bop_sleep(number * 100);
  inside--;
  return 1;
}

static int64_t visits_runtime(void *number) { return visits_for((uint64_t)(uintptr_t)number); }

HOST_FUNCTION(visits_store) {
  UNUSED();
  CHECK(++inside_store <= MOST_IN_STORE);
  visits_for((uint64_t)args[0].of.i32);
  inside_store--;
  return NULL;
}

static const t_import VISITS[] = {{"visit", "i", "", visits_store, NULL}, {NULL, NULL, NULL, NULL, NULL}};

static int64_t wants_room(void *data) {
  t_actor *me = data;
  while (!stop && !bop_cancelled()) {
    uint64_t patience = t_below(&me->random, 4);
    uint64_t until = patience == 0 ? 0 : patience == 1 ? bop_now() + t_below(&me->random, 300000) : UINT64_MAX;
    bop_spawn_options_t *options = t_options(LIMITS(.wait = until));
    bop_fiber_t *child = NULL;
    bool in_store = t_below(&me->random, 2);
    wasmtime_val_t number = t_i32((int32_t)t_below(&me->random, 500));
    tries += !in_store;
    wasmtime_error_t *error =
        in_store ? bop_spawn(crowded.store, t_export(&crowded, "visit"), &number, 1, options, &child)
                 : bop_spawn_host(world.runtime, visits_runtime, (void *)(intptr_t)number.of.i32, finalizes, options,
                                  &child);
    bop_spawn_options_delete(options);
    CHECK((error == NULL) == (child != NULL));
    if (error == NULL)
      served++;
    else if (patience == 0)
      refused++;
    else
      in_vain++;
    CHECK(error == NULL || patience <= 1 || bop_cancelled()); /* who has all the time gets in */
    if (error != NULL)
      wasmtime_error_delete(error);
    if (child != NULL && t_below(&me->random, 2))
      bop_fiber_join(child, NULL);
    bop_fiber_detach(child);
  }
  return 1;
}

static void more_than_there_is_room_for(uint64_t *random, uint64_t nanoseconds) {
  CASE("more than there is room for");
  BEGIN(2, 50000, MOST);
  t_runtimes_start(1, 0);
  t_guest_new(&crowded, world.runtime, "(module (import \"host\" \"visit\" (func $visit (param i32)))"
                                       "  (func (export \"visit\") (param i32) (call $visit (local.get 0))))", VISITS);
  OK(bop_store_max_fibers(crowded.store, MOST_IN_STORE));
  stop = false;
  t_actor spawners[SPAWNERS];
  for (int i = 0; i < SPAWNERS; i++) {
    spawners[i] = (t_actor){.random = t_below(random, UINT64_MAX) | 1};
    t_actor_begin(&spawners[i], i % KINDS, wants_room);
  }
  for (uint64_t over = t_now() + nanoseconds; t_now() < over;) {
    t_pause(t_below(random, 300000));
    OK(bop_store_max_fibers(crowded.store, 1 + t_below(random, MOST_IN_STORE)));
    t_actor *it = &spawners[t_below(random, SPAWNERS)];
    if (it->fiber == NULL)
      continue;
    CHECK(bop_fiber_cancel(it->fiber) != BOP_INVALID);
    CHECK_EQ(bop_fiber_join(it->fiber, NULL), BOP_OK); /* it may never have begun */
    bop_fiber_detach(it->fiber);
    t_actor_begin(it, (int)t_below(random, 2), wants_room);
  }
  stop = true;
  OK(bop_store_max_fibers(crowded.store, MOST_IN_STORE));
  for (int i = 0; i < SPAWNERS; i++)
    CHECK_EQ(t_actor_end(&spawners[i]), 1);
  EVENTUALLY(t_stats(world.runtime).live == 0 && finalized == tries);
  CHECK_EQ(visits, served);
  CHECK(inside == 0 && inside_store == 0);
  printf("%llu got in, %llu were refused, %llu waited in vain\n", (unsigned long long)served,
         (unsigned long long)refused, (unsigned long long)in_vain);
  CHECK(served > 100 && refused > 10 && in_vain > 10);
  /* There is as much room as before. */
  bop_fiber_t *full[MOST], *more = NULL;
  for (int i = 0; i < MOST; i++)
    full[i] = t_spawn_host(world.runtime, visits_runtime, (void *)(uintptr_t)(7 * 1000000), NULL);
  FAILS(bop_spawn_host(world.runtime, visits_runtime, NULL, NULL, NULL, &more), "limit of 6 fibers");
  for (int i = 0; i < MOST; i++) {
    CHECK_EQ(bop_fiber_cancel(full[i]), BOP_OK);
    CHECK_EQ(bop_fiber_join(full[i], NULL), BOP_OK);
    bop_fiber_detach(full[i]);
  }
  t_guest_delete(&crowded);
  t_world_end(0);
  t_runtimes_delete();
}

int main(void) {
  t_start("limits_storm");
  uint64_t random = t_seed() | UINT64_C(1) << 40, half = t_stress() / 2;
  stores_come_and_go(&random, half);
  more_than_there_is_room_for(&random, half);
  return 0;
}
