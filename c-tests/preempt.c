/* Guests in endless loops can't keep others from running: in other stores, in the same store, and
 * in Wasm that a host function called. No result changes by being preempted. */
#include "support/support.h"

static const char *const GUEST =
    "(module (import \"host\" \"call_spin\" (func $call_spin))"
    "  (global $n (mut i64) (i64.const 0))"
    "  (func $spin (export \"spin\") (loop (br 0)))"
    "  (func (export \"nested\") (call $call_spin))"
    "  (func (export \"count\") (loop (global.set $n (i64.add (global.get $n) (i64.const 1))) (br 0)))"
    "  (func (export \"counted\") (result i64) global.get $n)"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $s i32)"
    "    (loop $l (local.set $s (i32.add (local.get $s) (local.get $n)))"
    "      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $s)"
    "  (func $fib (export \"fib\") (param i32) (result i32)"
    "    (if (result i32) (i32.lt_s (local.get 0) (i32.const 2)) (then (local.get 0))"
    "      (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))"
    "                     (call $fib (i32.sub (local.get 0) (i32.const 2))))))))";

static atomic_int called_back;

static wasm_trap_t *calls_spin(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                               size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)args, (void)nargs, (void)results, (void)nresults;
  wasmtime_extern_t item;
  CHECK(wasmtime_caller_export_get(caller, "spin", 4, &item));
  called_back++;
  wasm_trap_t *trap = NULL;
  wasmtime_error_t *error = wasmtime_func_call(wasmtime_caller_context(caller), &item.of.func, NULL,
                                               0, NULL, 0, &trap);
  /* It can only end by cancellation, as an error or a trap: pass it on. */
  CHECK((error != NULL) != (trap != NULL));
  if (error != NULL) {
    const char *text = t_error_text(error);
    trap = wasmtime_trap_new(text, strlen(text));
  }
  return trap;
}

static const t_import IMPORTS[] = {{"call_spin", "", "", calls_spin, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

static int64_t yields(void *times) {
  for (intptr_t i = 0; i < (intptr_t)times; i++)
    CHECK_EQ(bop_yield(), BOP_OK);
  return 1;
}

/* All bystanders end although every worker has spinners enough for all its time. */
static void bystanders(bop_runtime_t *runtime, const t_guest *guest) {
  bop_fiber_t *fibers[4];
  for (int i = 0; i < 4; i++)
    fibers[i] = i % 2 ? t_spawn1(guest, "sum", 100000)
                      : t_spawn_host(runtime, yields, (void *)20, NULL);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(t_result(fibers[i]), i % 2 ? (int32_t)(UINT32_C(100001) * 50000) : 1);
}

static void every_worker(size_t workers, uint64_t quantum) {
  CASE(quantum == 0 ? "spinners on every worker" : "spinners on every worker, 50 us");
  bop_runtime_t *runtime = t_runtime(workers, quantum);
  OK(bop_runtime_start(runtime));
  enum { MOST = 8 };
  size_t n = 2 * workers;
  CHECK(n <= MOST);
  t_guest guests[MOST], guest;
  bop_fiber_t *spinners[MOST];
  for (size_t i = 0; i < n; i++) {
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
    spinners[i] = t_spawn0(&guests[i], "spin");
  }
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  for (int round = 0; round < 3; round++)
    bystanders(runtime, &guest);
  bop_stats_t stats = t_stats(runtime);
  CHECK(stats.preemptions > 0);
  CHECK(stats.ticks > 0);
  CHECK(stats.switches >= stats.preemptions);
  CHECK_EQ(stats.live, n);
  t_cancel_all(spinners, n);
  for (size_t i = 0; i < n; i++)
    t_guest_delete(&guests[i]);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void called_back_wasm(void) {
  CASE("Wasm that a host function called");
  bop_runtime_t *runtime = t_runtime(1, 50000);
  OK(bop_runtime_start(runtime));
  t_guest guest, other;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  t_guest_new(&other, runtime, GUEST, IMPORTS);
  bop_fiber_t *spinners[3];
  for (int i = 0; i < 3; i++) /* two of them suspended on top of each other's store */
    spinners[i] = t_spawn0(i < 2 ? &guest : &other, "nested");
  EVENTUALLY(called_back == 3);
  uint64_t before = t_stats(runtime).preemptions;
  bystanders(runtime, &other); /* in the store of a spinner */
  CHECK(t_stats(runtime).preemptions > before);
  t_cancel_all(spinners, 3);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  OK(bop_runtime_delete(runtime));
}

static void one_store(void) {
  CASE("one store");
  bop_runtime_t *runtime = t_runtime(2, 50000);
  OK(bop_runtime_start(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *fibers[3] = {t_spawn0(&guest, "spin"), t_spawn0(&guest, "count"),
                            t_spawn0(&guest, "spin")};
  int64_t last = 0;
  for (int i = 0; i < 5; i++) {
    int64_t now = 0;
    EVENTUALLY((now = t_result(t_spawn0(&guest, "counted"))) > last);
    last = now;
  }
  t_cancel_all(fibers, 3);
  CHECK_EQ(t_result(t_spawn1(&guest, "fib", 15)), 610);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* A yield at every epoch check, thousands of them in each result. */
static void every_check(void) {
  CASE("a yield at every check");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_quantum(config, 0);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  enum { N = 12 };
  t_guest guests[3];
  for (int i = 0; i < 3; i++)
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
  uint64_t before = t_stats(runtime).switches;
  bop_fiber_t *fibers[N];
  for (int i = 0; i < N; i++)
    fibers[i] = t_spawn1(&guests[i % 3], i % 2 ? "fib" : "sum", i % 2 ? 14 : 1000 + i);
  for (int i = 0; i < N; i++)
    CHECK_EQ(t_result(fibers[i]), i % 2 ? 377 : (1000 + i) * (1001 + i) / 2);
  CHECK(t_stats(runtime).switches - before > 5000);
  for (int i = 0; i < 3; i++)
    t_guest_delete(&guests[i]);
  OK(bop_runtime_delete(runtime));
}

/* With nobody waiting for a turn there is nothing to preempt for. */
static void alone(void) {
  CASE("alone");
  bop_runtime_t *runtime = t_runtime(1, 50000);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *fiber = t_spawn1(&guest, "sum", 30000000);
  OK(bop_run(runtime)); /* the host's own thread is the worker */
  CHECK_EQ(t_result(fiber), (int32_t)(UINT32_C(30000001) * UINT32_C(15000000)));
  CHECK_EQ(t_stats(runtime).preemptions, 0);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* A host thread that runs Wasm in the store between turns changes nothing for the fibers after it. */
static void after_a_host_thread(void) {
  CASE("after a host thread");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_quantum(config, 0);
  bop_runtime_t *runtime;
  OK(bop_runtime_new(config, &runtime));
  uint64_t before[2];
  for (int entered = 0; entered < 2; entered++) {
    t_guest guest;
    t_guest_new(&guest, runtime,
                "(module (func (export \"laps\") (param i32)"
                "  (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))", NULL);
    if (entered) {
      wasmtime_context_t *context;
      wasmtime_val_t laps = t_i32(3);
      wasm_trap_t *trap = NULL;
      OK(bop_store_enter(guest.store, &context));
      OK(wasmtime_func_call(context, t_export(&guest, "laps"), &laps, 1, NULL, 0, &trap));
      CHECK(trap == NULL);
      OK(bop_store_exit(guest.store));
    }
    before[entered] = t_stats(runtime).preemptions;
    bop_fiber_t *fibers[2] = {t_spawn1(&guest, "laps", 1000), t_spawn1(&guest, "laps", 1000)};
    OK(bop_run(runtime));
    before[entered] = t_stats(runtime).preemptions - before[entered];
    ENDS(fibers[0], BOP_OUTCOME_RETURNED);
    ENDS(fibers[1], BOP_OUTCOME_RETURNED);
    t_guest_delete(&guest);
  }
  CHECK(before[0] >= 2000);
  CHECK_EQ(before[1], before[0]);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("preempt");
  every_worker(2, 0);
  every_worker(4, 50000);
  called_back_wasm();
  one_store();
  every_check();
  alone();
  after_a_host_thread();
  return 0;
}
