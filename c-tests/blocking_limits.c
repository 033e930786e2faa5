/* Blocking calls at their limits: as many helpers as there may be, a queue whose calls are taken back, no thread to be
 * had, who may not wait; and guests whose host functions make them, in a store whose other fibers go on. */
#include "support/blockers.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void as_many_as_there_may_be(void) {
  CASE("as many helpers as there may be");
  enum { MOST = 3, N = 20 };
  static t_blocker all[N];
  bop_config_t *config = bop_config_new();
  bop_config_helpers(config, 0);
  FAILS(bop_runtime_new(config, &t_runtimes[0]), "helper");
  bop_config_helpers(NULL, 7);
  t_helpers_begin(MOST, MS, 5 * SECOND);
  t_most_inside = 0;
  for (int i = 0; i < N; i++) {
    t_blocker_begins(&all[i], 0, i % 2 ? NEVER : t_far());
    EVENTUALLY(t_blocker_waits(&all[i]) && t_inside == (i < MOST ? i + 1 : MOST));
  }
  for (int i = 0; i < N; i++) { /* who waits longest is next */
    EVENTUALLY(all[i].begun == 1);
    CHECK(i + MOST >= N || all[i + MOST].begun == 0);
    t_let_go(&all[i]);
    CALL_ENDS(&all[i], BOP_OK);
  }
  CHECK_EQ(t_most_inside, MOST);
  EVENTUALLY(t_helpers() <= MOST);
  t_helpers_end();
}

/* What has not begun can be taken back, and never begins; what is behind it in the queue does. */
static void taken_back(void) {
  CASE("taken back");
  t_helpers_begin(1, MS, 5 * SECOND);
  for (int round = 0; round < 5; round++) {
    t_blocker holder, cancelled, left, late, last;
    t_blocker_begins(&holder, 0, NEVER);
    EVENTUALLY(holder.begun == 1);
    t_blocker_begins(&cancelled, 0, NEVER);
    t_blocker_begins(&left, 0, t_far());
    EVENTUALLY(t_blocker_waits(&cancelled) && t_blocker_waits(&left));
    t_blocker_begins(&late, 0, bop_now() + 5 * MS);
    t_blocker_begins(&last, 0, round % 2 ? NEVER : t_far());
    CHECK_EQ(bop_fiber_cancel(cancelled.actor.fiber), BOP_OK);
    CHECK_EQ(bop_fiber_cancel(left.actor.fiber), BOP_OK);
    CALL_ENDS(&cancelled, BOP_CANCELLED);
    CALL_ENDS(&left, BOP_CANCELLED);
    CALL_ENDS(&late, BOP_TIMEOUT);
    CHECK_EQ(left.freed, 1);
    CHECK_EQ(late.freed, 1);
    CHECK_EQ(last.begun, 0);
    t_let_go(&holder);
    t_let_go(&last);
    CALL_ENDS(&holder, BOP_OK);
    CALL_ENDS(&last, BOP_OK);
    CHECK_EQ(cancelled.begun + left.begun + late.begun, 0);
    CHECK_EQ(left.freed + late.freed, 2);
  }
  t_helpers_end();
}

/* Who gets no function called still has its finalizer called; on a plain thread no deadline counts. */
static void finalizers(void) {
  CASE("finalizers");
  t_helpers_begin(2, MS, 5 * SECOND);
  t_blocker it = {.freed = 0};
  int64_t result = 77;
  CHECK_EQ(bop_blocking_until(NULL, &it, t_frees, &result, t_far()), BOP_INVALID);
  CHECK_EQ(it.freed, 1);
  CHECK_EQ(result, 77);
  for (int i = 0; i < 3; i++) {
    t_blocker_begins(&it, THREAD, i == 0 ? 0 : i == 1 ? t_far() : NEVER);
    EVENTUALLY(it.begun == 1 && t_helpers() == 0);
    t_let_go(&it);
    CALL_ENDS(&it, BOP_OK);
    CHECK_EQ(it.freed, i < 2);
  }
  t_helpers_end();
}

/* On a worker between two fibers nothing may be waited for. */
static void on_worker(void *data) {
  t_blocker *it = data;
  int64_t result = 77;
  CHECK_EQ(bop_blocking(t_blocks, it, &result), BOP_NOT_ALLOWED);
  CHECK_EQ(bop_blocking_until(t_blocks, it, t_frees, &result, t_far()), BOP_NOT_ALLOWED);
  CHECK_EQ(it->freed, 1);
  CHECK_EQ(bop_blocking_until(t_blocks, it, t_frees, &result, 0), BOP_NOT_ALLOWED);
  CHECK_EQ(result, 77);
  it->may_return = true;
}

static const char *const SPINS = "(module (func (export \"spin\") (loop (br 0))))";

static void on_a_worker(void) {
  CASE("on a worker");
  t_helpers_begin(2, MS, 5 * SECOND);
  t_blocker it = {.freed = 0};
  wasm_engine_t *engine = bop_runtime_engine(t_runtimes[0]);
  wasmtime_store_t *raw = wasmtime_store_new(engine, &it, on_worker);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  wasmtime_instance_t instance = t_instance(engine, context, SPINS, NULL);
  wasmtime_func_t spin = t_func(context, &instance, "spin");
  bop_store_t *store = NULL;
  bop_fiber_t *fiber = NULL;
  OK(bop_store_new(t_runtimes[0], raw, &store));
  OK(bop_spawn(store, &spin, NULL, 0, NULL, &fiber));
  bop_store_delete(store); /* now the fiber is its last user */
  t_cancel_all(&fiber, 1);
  EVENTUALLY(it.may_return && it.freed == 2);
  CHECK_EQ(it.begun, 0);
  t_helpers_end();
}

/* ---- no thread can be made ---- */

static void may_have(size_t bytes_more) {
  unsigned long pages = 0;
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
  fclose(file);
  if (bytes_more)
    limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + bytes_more;
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

static int64_t sleeps(void *env) {
  (void)env;
  return bop_sleep(MS);
}

/* In a process whose memory leaves no room for a thread's stack. (A limit of threads would not hold for root.) */
static void without_threads(void) {
  t_start("blocking_limits, child");
  CASE("no thread");
  t_helpers_begin(8, MS, 5 * SECOND);
  static t_blocker it[4];
  for (int i = 0; i < 4; i++) /* what needs memory once has it; there is no thread whose stack could be used again */
    CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], sleeps, NULL, NULL)), BOP_OK);
  may_have(1 << 20);
  for (int i = 0; i < 10; i++) {
    t_blocker_begins(&it[0], 0, i % 2 ? NEVER : t_far());
    CALL_ENDS(&it[0], BOP_LIMIT);
    CHECK_EQ(it[0].begun, 0);
    CHECK_EQ(it[0].freed, it[0].until);
  }
  may_have(0); /* it passes */
  t_blocker_begins(&it[0], 0, NEVER);
  EVENTUALLY(it[0].begun == 1);
  may_have(1 << 20); /* with one helper there, others wait for that */
  for (int i = 1; i < 4; i++)
    t_blocker_begins(&it[i], 0, i % 2 ? NEVER : t_far());
  EVENTUALLY(t_blocker_waits(&it[1]) && t_blocker_waits(&it[2]) && t_blocker_waits(&it[3]));
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(t_inside, 1);
    t_let_go(&it[i]);
    CALL_ENDS(&it[i], BOP_OK);
    if (i < 3)
      EVENTUALLY(it[i + 1].begun == 1);
  }
  may_have(0);
  t_helpers_end();
}

static void no_thread(void) {
  CASE("no thread");
  if (T_ASAN) {
    puts("skipped: no thread can be made (the sanitizer's shadow memory leaves no room for such a limit)");
    return;
  }
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    without_threads();
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- guests ---- */

static t_blocker gate;

static int64_t doubles(void *data) {
  int64_t value = *(int64_t *)data;
  if (value % 16 == 0)
    t_pause(MS / 10);
  return 2 * value;
}

static wasm_trap_t *doubled(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                            wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  int64_t value = args[0].of.i32, result = 0;
  CHECK_EQ(value % 3 ? bop_blocking(doubles, &value, &result)
                     : bop_blocking_until(doubles, &value, NULL, &result, t_far()), BOP_OK);
  results[0] = t_i32((int32_t)result);
  return NULL;
}

static wasm_trap_t *gated(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_blocking(t_blocks, &gate, NULL), BOP_OK);
  return NULL;
}

static const t_import IMPORTS[] = {
    {"double", "i", "i", doubled, NULL}, {"gate", "", "", gated, NULL}, {NULL, NULL, NULL, NULL, NULL}};

static const char *const GUEST =
    "(module (import \"host\" \"double\" (func $double (param i32) (result i32)))"
    "  (import \"host\" \"gate\" (func $gate))"
    "  (global $count (mut i64) (i64.const 0))"
    "  (func (export \"count\") (loop (global.set $count (i64.add (global.get $count) (i64.const 1))) (br 0)))"
    "  (func (export \"counted\") (result i64) global.get $count)"
    "  (func (export \"gate\") (result i32) (call $gate) (i32.const 5))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $sum i32)"
    "    (loop (local.set $sum (i32.add (local.get $sum) (call $double (local.get $n))))"
    "      (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $sum))";

/* Fibers of one store block at the same time, while a sibling never gives way but by preemption, and further siblings
 * make one call after the other. */
static void guests(uint64_t quantum_ns) {
  CASE("guests");
  enum { GATED = 6, SUMS = 8, N = 60 };
  t_helpers_begin(64, quantum_ns, 5 * SECOND);
  t_guest guest;
  t_guest_new(&guest, t_runtimes[0], GUEST, IMPORTS);
  bop_fiber_t *counter = t_spawn0(&guest, "count"), *gates[GATED], *sums[SUMS];
  gate = (t_blocker){.until = false};
  for (int i = 0; i < GATED; i++)
    gates[i] = t_spawn0(&guest, "gate");
  EVENTUALLY(t_inside == GATED);
  int64_t before = t_result(t_spawn0(&guest, "counted"));
  for (int i = 0; i < SUMS; i++)
    sums[i] = t_spawn1(&guest, "sum", N + i);
  for (int i = 0; i < SUMS; i++)
    CHECK_EQ(t_result(sums[i]), (N + i) * (N + i + 1));
  EVENTUALLY(t_result(t_spawn0(&guest, "counted")) > before);
  CHECK_EQ(t_inside, GATED);
  t_let_go(&gate);
  for (int i = 0; i < GATED; i++)
    CHECK_EQ(t_result(gates[i]), 5);
  t_cancel_all(&counter, 1);
  t_guest_delete(&guest);
  t_helpers_end();
}

int main(void) {
  t_start("blocking_limits");
  no_thread(); /* first: a process with threads must not be forked */
  as_many_as_there_may_be();
  taken_back();
  finalizers();
  on_a_worker();
  guests(0);
  guests(50000);
  return 0;
}
