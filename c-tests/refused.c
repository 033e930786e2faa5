/* Spawns that are refused. The finalizer of such a one runs on the spot, may take its time, and may end on another
 * worker than it began on; and none of them is a fiber, so nobody who waits until no fiber is left is kept
 * waiting, or forgotten. */
#include "support/things.h"

#include <unistd.h>

static bop_runtime_t *runtime;
static atomic_int ready, refusals;
static atomic_bool closed, gives_in, enough;

static int64_t never_runs(void *env) {
  (void)env;
  t_fail(__FILE__, __LINE__, "a fiber that was refused runs");
}

/* The text of `t_error_text` lives too short a time where many threads ask for one. */
static void check_refusal(wasmtime_error_t *own, const char *why) {
  CHECK(own != NULL);
  wasm_name_t text;
  wasmtime_error_message(own, &text);
  if (memmem(text.data, text.size, why, strlen(why)) == NULL)
    t_fail(__FILE__, __LINE__, "refused, and not because of \"%s\": %.*s", why, (int)text.size, text.data);
  wasm_byte_vec_delete(&text);
  wasmtime_error_delete(own);
  refusals++;
}

static void is_refused(bop_finalizer_t finalizer, void *env) {
  bop_fiber_t *fiber = NULL;
  check_refusal(bop_spawn_host(runtime, never_runs, env, finalizer, NULL, &fiber), "shut down");
  CHECK(fiber == NULL);
}

static void begin(size_t workers) {
  runtime = t_runtime(workers, 0);
  OK(bop_runtime_start(runtime));
  ready = refusals = 0;
  closed = gives_in = enough = false;
}

/* From now on all spawns are refused, but there are fibers. */
static void close_in_vain(int fibers) {
  EVENTUALLY(ready == fibers);
  FAILS(bop_runtime_shutdown(runtime, 20 * MS), "did not end in time");
  closed = true;
}

/* ---- after a shutdown in vain ---- */

static int64_t is_stubborn(void *env) {
  (void)env;
  for (ready++; !gives_in;)
    bop_yield();
  return 1;
}

enum { FIBERS = 1500, EACH = 100, AT_ONCE = 20 };
static _Atomic pid_t home; /* a worker */
static atomic_int arrived, finalized, wandered;

static void comes_back_elsewhere(void *count) {
  pid_t thread = gettid();
  for (int i = 0; i < 100 && gettid() == thread; i++)
    CHECK_EQ(bop_yield(), BOP_CANCELLED);
  wandered += gettid() != thread;
  finalized++;
  ++*(int *)count;
}

/* Who is not at home ends. So the other workers soon have nothing to do, and take fibers from there, finalizers that
 * are under way and all. */
static int64_t spawns_in_vain(void *env) {
  (void)env;
  for (ready++; !closed;)
    bop_yield();
  if (++arrived == FIBERS) /* where most of them are */
    home = gettid();
  while (home == 0)
    bop_yield();
  int n = 0, count = 0;
  do {
    for (int i = 0; i < AT_ONCE; i++)
      is_refused(NULL, NULL);
    is_refused(comes_back_elsewhere, &count);
    CHECK_EQ(count, ++n);
  } while (n < EACH && gettid() == home);
  return 1;
}

static int64_t keeps_its_worker(void *env) {
  (void)env;
  for (ready++; !gives_in;)
    t_pause(MS / 5);
  return 1;
}

static void by_fibers(void) {
  CASE("a refused spawn whose finalizer came back on another worker counts nowhere");
  begin(3);
  home = arrived = finalized = wandered = 0;
  bop_fiber_t *fibers[FIBERS], *stubborn = t_spawn_host(runtime, keeps_its_worker, NULL, "stubborn");
  EVENTUALLY(ready == 1); /* no other one waits for that worker */
  for (int i = 0; i < FIBERS; i++)
    fibers[i] = t_spawn_host(runtime, spawns_in_vain, NULL, NULL);
  close_in_vain(1 + FIBERS);
  for (int i = 0; i < FIBERS; i++)
    CHECK_EQ(t_result(fibers[i]), 1);
  FAILS(bop_runtime_shutdown(runtime, MS), "1 fibers did not end in time: fiber 1 \"stubborn\"");
  gives_in = true;
  OK(bop_runtime_shutdown(runtime, SECOND));
  CHECK_EQ(t_result(stubborn), 1);
  CHECK_EQ(finalized * (AT_ONCE + 1), refusals);
  CHECK(wandered > 10);
  bop_stats_t stats = t_stats(runtime);
  CHECK_EQ(stats.live, 0);
  CHECK_EQ(stats.spawned, 1 + FIBERS);
  CHECK_EQ(stats.finished, 1 + FIBERS);
  OK(bop_runtime_delete(runtime));
}

static t_thing gate;
static atomic_int inside;

static void waits_for_the_gate(void *env) {
  (void)env;
  inside++;
  CHECK_EQ(t_take(gate, NEVER), BOP_OK);
  inside++;
}

static int64_t asks_once(void *actor) {
  (void)actor;
  return is_refused(waits_for_the_gate, NULL), 1;
}

static int64_t asks_again(void *actor) {
  (void)actor;
  while (!enough)
    is_refused(NULL, NULL);
  return 1;
}

static void by_threads(void) {
  CASE("nobody waits for the finalizer of a refused spawn, or for who asks again and again");
  begin(2);
  inside = 0;
  gate = t_taken(SEMAPHORE);
  bop_fiber_t *stubborn = t_spawn_host(runtime, is_stubborn, NULL, "stubborn");
  close_in_vain(1);
  t_actor threads[3] = {{.status = 0}};
  for (int i = 0; i < 3; i++)
    t_actor_begin(&threads[i], THREAD, i ? asks_again : asks_once);
  EVENTUALLY(inside == 1 && t_actor_waits(&threads[0]) && refusals > 100);
  FAILS(bop_runtime_shutdown(runtime, MS), "1 fibers did not end in time: fiber 1 \"stubborn\"");
  gives_in = true;
  OK(bop_runtime_shutdown(runtime, SECOND));
  CHECK_EQ(inside, 1);
  CHECK_EQ(t_give(gate), BOP_OK);
  enough = true;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(t_actor_end(&threads[i]), 1);
  CHECK_EQ(inside, 2);
  CHECK_EQ(t_result(stubborn), 1);
  OK(bop_runtime_delete(runtime));
  t_thing_delete(gate);
}

/* ---- while bop_run waits for the end ---- */

static t_guest guest;

static wasm_trap_t *stays(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  for (ready++; !bop_cancelled();)
    bop_yield();
  keeps_its_worker(env);
  return NULL;
}

static wasm_trap_t *yields(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                           wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_yield(), BOP_OK);
  return NULL;
}

/* So long a reason that to refuse a spawn takes a while. */
static wasm_trap_t *fails(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  static char reason[1 << 21];
  memset(reason, 'x', sizeof reason);
  return wasmtime_trap_new(reason, sizeof reason);
}

static const t_import IMPORTS[] = {{"stay", "", "", stays, NULL},
                                   {"yield", "", "", yields, NULL},
                                   {"fail", "", "", fails, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};
static const char *const GUEST =
    "(module (import \"host\" \"stay\" (func $stay)) (import \"host\" \"yield\" (func $yield))"
    "  (import \"host\" \"fail\" (func $fail))"
    "  (func (export \"stays\") (call $stay))"
    "  (func (export \"yields\") (call $yield) (call $yield) (call $yield))"
    "  (func (export \"fails\") (call $fail)))";

static int64_t ends_soon(void *env) {
  (void)env;
  return bop_yield();
}

static wasmtime_error_t *spawn(bool of_c) {
  return of_c ? bop_spawn_host(runtime, ends_soon, NULL, NULL, NULL, NULL)
              : bop_spawn(guest.store, t_export(&guest, "yields"), NULL, 0, NULL, NULL);
}

static int64_t tries(void *actor) {
  while (!enough) {
    wasmtime_error_t *error = spawn(((t_actor *)actor)->n);
    if (error != NULL)
      check_refusal(error, ((t_actor *)actor)->sends ? "poisoned" : "limit");
  }
  return 1;
}

enum { TRYING = 8 };

static void begin_trying(t_actor *actors, bool of_c, bool poisoned) {
  enough = false;
  for (int i = 0; i < TRYING; i++) {
    actors[i] = (t_actor){.n = of_c, .sends = poisoned};
    t_actor_begin(&actors[i], THREAD, tries);
  }
}

static void end_trying(t_actor *actors) {
  enough = true;
  for (int i = 0; i < TRYING; i++)
    CHECK_EQ(t_actor_end(&actors[i]), 1);
}

static void beyond_limits(bool of_c) {
  CASE(of_c ? "bop_run returns beside spawns beyond the runtime's limit" : "... beyond the store's");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  if (of_c)
    bop_config_max_fibers(config, 1);
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  OK(bop_store_max_fibers(guest.store, 1));
  t_actor actors[TRYING];
  refusals = 0;
  begin_trying(actors, of_c, false);
  for (int i = 0; i < 500 || refusals < 100; i++) {
    wasmtime_error_t *error = spawn(of_c);
    if (error)
      wasmtime_error_delete(error);
    OK(bop_run(runtime));
  }
  end_trying(actors);
  OK(bop_run(runtime));
  CHECK_EQ(t_stats(runtime).live, 0);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static int64_t runs(void *actor) {
  OK(bop_run(runtime));
  return ((t_actor *)actor)->status = 1;
}

/* Some spawn is always just being refused: in this store that takes its time. */
static void into_a_poisoned_store(void) {
  CASE("bop_run returns although spawns are refused just when the last fiber ends");
  enum { SOON = 2000 };
  begin(1);
  for (int i = 0; i < 8; i++) {
    t_guest_new(&guest, runtime, GUEST, IMPORTS);
    OK(bop_store_trap_policy(guest.store, BOP_TRAP_POISON));
    ready = refusals = 0;
    gives_in = false;
    bop_fiber_t *last = t_spawn0(&guest, "stays");
    EVENTUALLY(ready == 1);
    ENDS(t_spawn0(&guest, "fails"), BOP_OUTCOME_TRAPPED); /* cancels the other one, which does not care */
    t_actor actors[TRYING], runner = {.status = 0};
    begin_trying(actors, false, true);
    t_actor_begin(&runner, THREAD, runs);
    EVENTUALLY(refusals > 10 && t_actor_waits(&runner));
    gives_in = true;
    ENDS(last, BOP_OUTCOME_RETURNED);
    int before = refusals;
    EVENTUALLY(runner.status == 1 || refusals > before + SOON);
    CHECK_EQ(runner.status, 1);
    end_trying(actors);
    CHECK_EQ(t_actor_end(&runner), 1);
    t_guest_delete(&guest);
  }
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("refused");
  for (int i = 0; i < 8; i++) /* each time there is a chance */
    by_fibers();
  by_threads();
  beyond_limits(true);
  beyond_limits(false);
  into_a_poisoned_store();
  return 0;
}
