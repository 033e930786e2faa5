/* Mutexes, semaphores and wait groups, case by case, between plain threads and fibers of two runtimes: who gets
 * what, in which order, how long others wait, and what becomes of counts and handles. (Whose a mutex is: mutex.c,
 * abandoned.c. What holds when everything happens at once: sync_storm.c.) */
#include "support/things.h"

/* A whole call of which it is known how it ends. */
static void says(int kind, t_thing thing, uint64_t deadline, bop_status_t status) {
  t_taker it = {.keeps = false};
  t_taker_begin(&it, kind, thing, deadline);
  t_taker_ends(&it, status);
}

static void wrong(void) {
  CASE("NULL is invalid");
  for (int sort = 0; sort < SORTS; sort++) {
    t_thing none = {sort, NULL};
    for (int kind = 0; kind < KINDS; kind++) {
      says(kind, none, 0, BOP_INVALID);
      says(kind, none, t_far(), BOP_INVALID);
      says(kind, none, NEVER, BOP_INVALID);
    }
    CHECK_EQ(t_give(none), BOP_INVALID);
    CHECK(t_thing_clone(none).it == NULL);
    t_thing_delete(none);
  }
  CHECK_EQ(bop_semaphore_release(NULL, 0), BOP_INVALID);
  CHECK_EQ(bop_semaphore_permits(NULL), 0);
  CHECK_EQ(bop_wait_group_add(NULL, 0), BOP_INVALID);
  CHECK_EQ(bop_wait_group_left(NULL), 0);
  CHECK_HAS(bop_status_name(BOP_ABANDONED), "ended");
}

/* ---- waiting ---- */

static void deadlines(int sort, int kind) {
  CASE("nobody waits longer than told, or for what is there");
  t_thing thing = t_taken(sort);
  t_taker it = {.keeps = false};
  says(kind, thing, 0, BOP_TIMEOUT);
  for (uint64_t i = 0; i < 6; i++) /* the first is over when the call begins */
    says(kind, thing, bop_now() + i * 3 * MS, BOP_TIMEOUT);
  t_taker_waits(&it, kind, thing, NEVER - 1); /* the end of time is not near */
  CHECK_EQ(t_give(thing), BOP_OK);
  t_taker_ends(&it, BOP_OK);
  if (sort == SEMAPHORE)
    CHECK_EQ(bop_semaphore_release(thing.it, 4), BOP_OK);
  const uint64_t all[] = {0, 1, t_far(), NEVER}; /* what is there wins over a deadline that is past */
  for (int i = 0; i < 4; i++)
    says(kind, thing, all[i], BOP_OK);
  if (sort == SEMAPHORE)
    says(kind, thing, 0, BOP_TIMEOUT);
  t_thing_delete(thing);
}

/* Cancels itself with a mutex, or as good as that: it gets nothing more, but what it has it can give. */
static int64_t calls_cancelled(void *data) {
  t_thing *things = data; /* one that it gives, and one that is free */
  bop_fiber_t *self = bop_current();
  if (things[0].sort == MUTEX)
    CHECK_EQ(t_take(things[0], NEVER), BOP_OK);
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(t_take(things[i], 0), BOP_CANCELLED);
    CHECK_EQ(t_take(things[i], t_far()), BOP_CANCELLED);
    CHECK_EQ(t_take(things[i], NEVER), BOP_CANCELLED);
  }
  return t_give(things[0]);
}

static void cancelling(int sort, int kind) {
  CASE("who is cancelled takes nothing");
  t_taker it[2] = {{.keeps = false}};
  t_thing things[2] = {t_taken(sort), t_free(sort)};
  for (int i = 0; i < 2; i++)
    t_taker_waits(&it[i], kind, things[0], i ? NEVER : t_far());
  CHECK_EQ(bop_fiber_cancel(it[0].actor.fiber), BOP_OK);
  t_taker_ends(&it[0], BOP_CANCELLED);
  CHECK_EQ(it[1].actor.status, -1);
  CHECK_EQ(t_give(things[0]), BOP_OK); /* the next one is served as if the other had never come */
  t_taker_ends(&it[1], BOP_OK);
  if (sort == GROUP)
    CHECK_EQ(bop_wait_group_add(things[0].it, 1), BOP_OK);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[kind], calls_cancelled, things, NULL)), BOP_OK);
  for (int i = 0; i < 2; i++) {
    says(1 - kind, things[i], 0, BOP_OK); /* what it gave, and what it did not take */
    if (sort == SEMAPHORE)
      CHECK_EQ(bop_semaphore_permits(things[i].it), 0);
    t_thing_delete(things[i]);
  }
}

/* Who leaves the queue leaves the order as it was. */
static void fairness(int sort) {
  CASE("who has waited longest is next, and nobody overtakes");
  enum { N = 24 };
  t_taker it[N] = {{.keeps = false}};
  t_thing thing = t_taken(sort);
  for (int i = 0; i < N; i++) {
    it[i].keeps = true;
    t_taker_waits(&it[i], i % 5 == 3 ? i % 2 : i % KINDS, thing,
                  i % 5 == 1 ? bop_now() + 20 * MS : NEVER);
  }
  for (int i = 3; i < N; i += 5) {
    CHECK_EQ(bop_fiber_cancel(it[i].actor.fiber), BOP_OK);
    t_taker_ends(&it[i], BOP_CANCELLED);
  }
  for (int i = 1; i < N; i += 5)
    t_taker_ends(&it[i], BOP_TIMEOUT);
  CHECK_EQ(t_give(thing), BOP_OK);
  for (int i = 0, next; i < N; i = next) {
    for (next = i + 1; next % 5 == 1 || next % 5 == 3;)
      next++;
    EVENTUALLY(it[i].actor.status != -1);
    CHECK(next >= N || it[next].actor.status == -1);
    CHECK_EQ(t_take(thing, 0), BOP_TIMEOUT);
    it[i].keeps = false;
    if (sort == SEMAPHORE && next < N)
      CHECK_EQ(t_give(thing), BOP_OK);
    t_taker_ends(&it[i], BOP_OK);
  }
  CHECK_EQ(t_take(thing, 0), sort == MUTEX ? BOP_OK : BOP_TIMEOUT);
  t_thing_delete(thing);
}

/* Who waits in a call keeps it, whatever becomes of the handle that it came with. */
static void handles(int sort, int kind) {
  CASE("who waits needs no handle");
  t_thing thing = t_taken(sort), other = t_thing_clone(thing);
  CHECK(t_take(other, 0) != BOP_OK); /* it is the same */
  t_taker it = {.back = other};
  t_taker_waits(&it, kind, thing, NEVER);
  t_thing_delete(thing);
  CHECK_EQ(t_give(other), BOP_OK);
  t_taker_ends(&it, BOP_OK);
  if (sort == GROUP)
    CHECK_EQ(bop_wait_group_add(other.it, 1), BOP_OK);
  if (sort == MUTEX)
    CHECK_EQ(t_take(other, 0), BOP_OK);
  t_taker_waits(&it, kind, other, bop_now() + 20 * MS);
  t_thing_delete(other); /* the last: nobody will ever come */
  t_taker_ends(&it, BOP_TIMEOUT);
}

/* ---- counts ---- */

static void permits(void) {
  CASE("permits are served in order, and neither lost nor made");
  t_thing thing = t_taken(SEMAPHORE);
  t_taker it[7] = {{.keeps = false}};
  for (int i = 0; i < 7; i++)
    t_taker_waits(&it[i], i % KINDS, thing, NEVER);
  CHECK_EQ(bop_semaphore_release(thing.it, 0), BOP_OK);
  CHECK_EQ(bop_semaphore_release(thing.it, 3), BOP_OK);
  for (int i = 0; i < 3; i++)
    t_taker_ends(&it[i], BOP_OK);
  for (int i = 3; i < 7; i++)
    CHECK(t_actor_waits(&it[i].actor) && it[i].actor.status == -1);
  CHECK_EQ(bop_semaphore_permits(thing.it), 0);
  CHECK_EQ(bop_semaphore_release(thing.it, UINT64_MAX), BOP_OK);
  for (int i = 3; i < 7; i++)
    t_taker_ends(&it[i], BOP_OK);
  CHECK_EQ(bop_semaphore_permits(thing.it), UINT64_MAX - 4);
  CHECK_EQ(bop_semaphore_release(thing.it, 5), BOP_INVALID);
  CHECK_EQ(bop_semaphore_release(thing.it, UINT64_MAX), BOP_INVALID);
  CHECK_EQ(bop_semaphore_permits(thing.it), UINT64_MAX - 4);
  CHECK_EQ(bop_semaphore_release(thing.it, 4), BOP_OK);
  CHECK_EQ(t_give(thing), BOP_INVALID);
  CHECK_EQ(t_take(thing, NEVER), BOP_OK);
  CHECK_EQ(bop_semaphore_permits(thing.it), UINT64_MAX - 1);
  t_thing_delete(thing);
  t_thing most = {SEMAPHORE, bop_semaphore_new(UINT64_MAX)};
  CHECK_EQ(t_give(most), BOP_INVALID);
  says(THREAD, most, 0, BOP_OK);
  CHECK_EQ(bop_semaphore_permits(most.it), UINT64_MAX - 1);
  t_thing_delete(most);
}

static void rounds(void) {
  CASE("all who wait go on with the last that is done, and not before; again and again");
  t_thing thing = t_free(GROUP);
  for (int round = 0; round < 3; round++) {
    t_taker it[2 * KINDS] = {{.keeps = false}};
    CHECK_EQ(t_give(thing), BOP_INVALID);
    CHECK_EQ(bop_wait_group_left(thing.it), 0);
    CHECK_EQ(bop_wait_group_add(thing.it, 2), BOP_OK);
    for (int i = 0; i < 2 * KINDS; i++)
      t_taker_waits(&it[i], i % KINDS, thing, i % 2 ? t_far() : NEVER);
    CHECK_EQ(t_give(thing), BOP_OK);
    CHECK_EQ(bop_wait_group_add(thing.it, 1), BOP_OK); /* also while they wait */
    CHECK_EQ(t_give(thing), BOP_OK);
    CHECK_EQ(bop_wait_group_left(thing.it), 1);
    CHECK_EQ(t_take(thing, bop_now() + 2 * MS), BOP_TIMEOUT);
    for (int i = 0; i < 2 * KINDS; i++)
      CHECK(t_actor_waits(&it[i].actor) && it[i].actor.status == -1);
    CHECK_EQ(t_give(thing), BOP_OK);
    if (round == 1) /* a moment was enough */
      CHECK_EQ(bop_wait_group_add(thing.it, 1), BOP_OK);
    for (int i = 0; i < 2 * KINDS; i++)
      t_taker_ends(&it[i], BOP_OK);
    if (round == 1)
      CHECK_EQ(t_give(thing), BOP_OK);
  }
  CHECK_EQ(bop_wait_group_add(thing.it, UINT64_MAX), BOP_OK);
  CHECK_EQ(bop_wait_group_add(thing.it, 1), BOP_INVALID);
  CHECK_EQ(bop_wait_group_add(thing.it, UINT64_MAX), BOP_INVALID);
  CHECK_EQ(bop_wait_group_add(thing.it, 0), BOP_OK);
  CHECK_EQ(bop_wait_group_left(thing.it), UINT64_MAX);
  CHECK_EQ(t_give(thing), BOP_OK);
  CHECK_EQ(bop_wait_group_left(thing.it), UINT64_MAX - 1);
  CHECK_EQ(t_take(thing, 0), BOP_TIMEOUT);
  t_thing_delete(thing);
}

/* ---- where nobody may wait ---- */

/* On a worker between two fibers what needs no waiting goes. */
static atomic_int finalized;
static void finalizes(void *data) {
  t_thing *things = data;
  for (int sort = 0; sort < SORTS; sort++) {
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(t_take(things[sort], 0), BOP_TIMEOUT);
      CHECK_EQ(t_take(things[sort], i ? t_far() : NEVER), BOP_NOT_ALLOWED);
    }
    CHECK_EQ(t_give(things[sort]), sort == MUTEX ? BOP_NOT_ALLOWED : BOP_OK); /* that is the thread's who waits */
    CHECK_EQ(t_take(things[SORTS + sort], NEVER), BOP_OK);
    CHECK_EQ(t_give(things[SORTS + sort]), sort == GROUP ? BOP_INVALID : BOP_OK);
  }
  finalized = 1;
}

static void on_a_worker(void) {
  CASE("a worker between two fibers does not wait");
  t_thing things[2 * SORTS];
  for (int i = 0; i < 2 * SORTS; i++)
    things[i] = i < SORTS ? t_taken(i) : t_free(i - SORTS);
  wasm_engine_t *engine = bop_runtime_engine(t_runtimes[0]);
  wasmtime_store_t *raw = wasmtime_store_new(engine, things, finalizes);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  wasmtime_instance_t instance = t_instance(engine, context, "(module (func (export \"spin\") (loop (br 0))))", NULL);
  wasmtime_func_t spin = t_func(context, &instance, "spin");
  bop_store_t *store = NULL;
  bop_fiber_t *fiber = NULL;
  OK(bop_store_new(t_runtimes[0], raw, &store));
  OK(bop_spawn(store, &spin, NULL, 0, NULL, &fiber));
  bop_store_delete(store); /* now the fiber is its last user */
  t_cancel_all(&fiber, 1);
  EVENTUALLY(finalized == 1);
  for (int i = 0; i < 2 * SORTS; i++) {
    if (i % SORTS != MUTEX) /* what was given there is here */
      CHECK_EQ(t_take(things[i], 0), BOP_OK);
    t_thing_delete(things[i]);
  }
}

/* A collection would not see what a fiber refers to that waits; so with others in its store it must not. */
static int refusals;
static wasm_trap_t *tries(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  t_thing *things = env;
  for (int sort = 0; sort < SORTS; sort++) {
    bop_status_t status = t_take(things[sort], bop_now() + MS);
    CHECK(status == BOP_STORE_HAS_GC || status == BOP_TIMEOUT);
    refusals += status == BOP_STORE_HAS_GC;
    CHECK_EQ(t_take(things[sort], 0), BOP_TIMEOUT);
    CHECK_EQ(t_take(things[SORTS + sort], NEVER), BOP_OK);
    CHECK_EQ(t_give(things[SORTS + sort]), sort == GROUP ? BOP_INVALID : BOP_OK);
  }
  return NULL;
}

static void gc_heap(void) {
  CASE("who refers to objects of a heap waits only where it is alone");
  wasm_config_t *wasm = wasm_config_new();
  wasmtime_config_wasm_function_references_set(wasm, true);
  wasmtime_config_wasm_gc_set(wasm, true);
  bop_config_t *config = bop_config_new();
  bop_config_wasm(config, wasm);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  t_thing things[2 * SORTS];
  for (int i = 0; i < 2 * SORTS; i++)
    things[i] = i < SORTS ? t_taken(i) : t_free(i - SORTS);
  const t_import imports[] = {{"try", "", "", tries, things}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (type $box (struct (field i32))) (import \"host\" \"try\" (func $try))"
              "  (func (export \"run\") (param i32) (result i32) (local $b (ref null $box))"
              "    (local.set $b (struct.new $box (local.get 0))) (call $try)"
              "    (struct.get $box 0 (local.get $b))))",
              imports);
  bop_fiber_t *fibers[] = {t_spawn1(&guest, "run", 5), t_spawn1(&guest, "run", 6)};
  OK(bop_run(runtime));
  for (int i = 0; i < 2; i++)
    CHECK_EQ(t_result(fibers[i]), 5 + i);
  CHECK_EQ(refusals, SORTS); /* of the first one: when the other one runs, it has ended */
  for (int i = 0; i < 2 * SORTS; i++)
    t_thing_delete(things[i]);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("sync");
  t_runtimes_start(2, 0);
  wrong();
  for (int sort = 0; sort < SORTS; sort++)
    for (int kind = 0; kind < KINDS; kind++) {
      deadlines(sort, kind);
      handles(sort, kind);
      if (kind != THREAD)
        cancelling(sort, kind);
    }
  fairness(MUTEX);
  fairness(SEMAPHORE);
  permits();
  rounds();
  on_a_worker();
  t_runtimes_delete();
  gc_heap();
  return 0;
}
