/* The builder of runtimes: defaults, each option's effect, and values that can't be right. */
#include "support/support.h"

static const char *const DEPTH =
    "(module (global $depth (mut i32) (i32.const 0))"
    "  (func (export \"depth\") (result i32) global.get $depth)"
    "  (func $deeper (export \"deeper\") (result i32)"
    "    (global.set $depth (i32.add (global.get $depth) (i32.const 1)))"
    "    (i32.add (call $deeper) (i32.const 1)))"
    "  (func $count (export \"count\") (param i32) (result i32)"
    "    (if (result i32) (local.get 0)"
    "      (then (i32.add (i32.const 1) (call $count (i32.sub (local.get 0) (i32.const 1)))))"
    "      (else (i32.const 0))))"
    "  (func (export \"spin\") (loop (br 0))))";

/* How deep a fiber of this runtime gets before its stack ends, which must be a trap. */
static int64_t depth(bop_config_t *own) {
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(own, &runtime));
  OK(bop_runtime_start(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, DEPTH, NULL);
  bop_fiber_t *fiber = t_spawn0(&guest, "deeper");
  JOINS(fiber, BOP_OUTCOME_TRAPPED);
  wasm_trap_t *trap = bop_fiber_take_trap(fiber);
  CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_STACK_OVERFLOW);
  wasm_trap_delete(trap);
  bop_fiber_detach(fiber);
  int64_t reached = t_result(t_spawn0(&guest, "depth"));
  /* The stack is whole again: the same guest still recurses as far as it needs. */
  CHECK_EQ(t_result(t_spawn1(&guest, "count", 50)), 50);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
  CHECK(reached > 50);
  return reached;
}

static bop_config_t *with_stack(size_t size, size_t host) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_stack_size(config, size);
  bop_config_host_stack(config, host);
  return config;
}

static void refused(bop_config_t *own, const char *word) {
  bop_runtime_t *const untouched = (bop_runtime_t *)&refused;
  bop_runtime_t *runtime = untouched;
  FAILS(bop_runtime_new(own, &runtime), word);
  CHECK(runtime == untouched);
}

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

/* The runtime can be made and runs something. */
static void works(bop_config_t *own) {
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(own, &runtime));
  OK(bop_runtime_start(runtime));
  CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);
  OK(bop_runtime_delete(runtime));
}

static void defaults(void) {
  CASE("defaults");
  works(NULL);
  works(bop_config_new());
  bop_config_delete(bop_config_new());
  bop_config_delete(NULL);
  CHECK_HAS(bop_version(), ".");

  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(NULL, &runtime));
  OK(bop_runtime_start(runtime));
  CHECK(t_stats(runtime).workers >= 1);
  bop_fiber_t *fiber = t_spawn_host(runtime, seven, NULL, NULL);
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  bop_times_t times = {.size = sizeof times};
  CHECK(!bop_fiber_times(fiber, &times));
  bop_fiber_detach(fiber);
  OK(bop_runtime_delete(runtime));
}

static void names(void) {
  CASE("names");
  for (int a = 0; a <= BOP_ABANDONED; a++)
    for (int b = 0; b < a; b++)
      CHECK(strcmp(bop_status_name((bop_status_t)a), bop_status_name((bop_status_t)b)) != 0);
  for (int a = 0; a <= BOP_OUTCOME_FAILED; a++)
    for (int b = 0; b < a; b++)
      CHECK(strcmp(bop_outcome_name((bop_outcome_t)a), bop_outcome_name((bop_outcome_t)b)) != 0);
  for (int a = 0; a <= BOP_STATE_FINISHED; a++)
    for (int b = 0; b < a; b++)
      CHECK(strcmp(bop_state_name((bop_state_t)a), bop_state_name((bop_state_t)b)) != 0);
  const int wrong[] = {-1, BOP_ABANDONED + 1, 99, 1 << 20};
  for (size_t i = 0; i < 4; i++) {
    CHECK_HAS(bop_status_name((bop_status_t)wrong[i]), "unknown");
    CHECK_HAS(bop_outcome_name((bop_outcome_t)wrong[i]), "unknown");
    CHECK_HAS(bop_state_name((bop_state_t)wrong[i]), "unknown");
  }
  CHECK_HAS(bop_status_name(BOP_CANCELLED), "cancel");
  CHECK_HAS(bop_outcome_name(BOP_OUTCOME_TRAPPED), "trap");
  CHECK_HAS(bop_state_name(BOP_STATE_PARKED), "park");
}

static void workers(void) {
  CASE("workers");
  for (size_t n = 1; n <= 5; n += 2) {
    bop_runtime_t *runtime = t_runtime(n, 0);
    OK(bop_runtime_start(runtime));
    CHECK_EQ(t_stats(runtime).workers, n);
    OK(bop_runtime_delete(runtime));
  }
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, SIZE_MAX);
  refused(config, "worker");
}

static void quanta(void) {
  CASE("quantum");
  const uint64_t bad[] = {1, 49999};
  for (size_t i = 0; i < 2; i++) {
    bop_config_t *config = bop_config_new();
    bop_config_quantum(config, bad[i]);
    refused(config, "quantum");
  }
  const uint64_t good[] = {0, 50000, 3600 * SECOND, UINT64_MAX};
  for (size_t i = 0; i < 4; i++) {
    bop_config_t *config = bop_config_new();
    bop_config_quantum(config, good[i]);
    works(config);
  }
}

/* With the longest quantum nobody is preempted. */
static void longest_quantum(void) {
  CASE("longest quantum");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_quantum(config, UINT64_MAX);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, DEPTH, NULL);
  bop_fiber_t *fibers[2] = {t_spawn1(&guest, "count", 3000), t_spawn1(&guest, "count", 3000)};
  OK(bop_run(runtime));
  for (int i = 0; i < 2; i++)
    CHECK_EQ(t_result(fibers[i]), 3000);
  CHECK_EQ(t_stats(runtime).ticks, 0);
  CHECK_EQ(t_stats(runtime).preemptions, 0);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void stacks(void) {
  CASE("stack sizes");
  int64_t small = depth(with_stack(256 << 10, 64 << 10));
  int64_t large = depth(with_stack(4 << 20, 64 << 10));
  /* Wasm's part of the large one is 20 times that of the small one. */
  CHECK(large > 8 * small);
  int64_t reserved = depth(with_stack(4 << 20, 3 << 20));
  CHECK(reserved > small && large > 2 * reserved);

  refused(with_stack(1, 64 << 10), "stack");
  refused(with_stack(256 << 10, 256 << 10), "stack");
  refused(with_stack(SIZE_MAX, 64 << 10), "stack");
}

static void guards(void) {
  CASE("guards");
  bop_config_t *wrong = bop_config_new();
  bop_config_guard(wrong, (bop_guard_t)77);
  refused(wrong, "guard");
  for (int guard = BOP_GUARD_AUTO; guard <= BOP_GUARD_MPROTECT; guard++) {
    bop_config_t *config = with_stack(256 << 10, 64 << 10);
    bop_config_guard(config, (bop_guard_t)guard);
    bop_runtime_t *runtime = NULL;
    wasmtime_error_t *error = bop_runtime_new(config, &runtime);
    if (error != NULL && guard == BOP_GUARD_INSTALL) {
      FAILS(error, "guard"); /* a kernel before 6.13 */
      continue;
    }
    OK(error);
    OK(bop_runtime_delete(runtime));
    config = with_stack(256 << 10, 64 << 10);
    bop_config_guard(config, (bop_guard_t)guard);
    CHECK(depth(config) > 50);
  }
}

/* What the host set in Wasmtime's own configuration holds, and what BOP needs is set anyway. */
static void wasm_config(void) {
  CASE("wasm config");
  const char *two = "(module (memory 1) (memory 1))";
  for (int allowed = 0; allowed < 2; allowed++) {
    wasm_config_t *wasm = wasm_config_new();
    wasmtime_config_wasm_multi_memory_set(wasm, allowed);
    wasmtime_config_epoch_interruption_set(wasm, false);
    bop_config_t *config = bop_config_new();
    bop_config_wasm(config, wasm_config_new()); /* the second one replaces it */
    bop_config_wasm(config, wasm);
    bop_runtime_t *runtime = NULL;
    OK(bop_runtime_new(config, &runtime));

    wasm_byte_vec_t bytes;
    OK(wasmtime_wat2wasm(two, strlen(two), &bytes));
    wasmtime_error_t *error = wasmtime_module_validate(
        bop_runtime_engine(runtime), (const uint8_t *)bytes.data, bytes.size);
    if (allowed)
      OK(error);
    else
      FAILS(error, "memor");
    wasm_byte_vec_delete(&bytes);

    OK(bop_runtime_start(runtime));
    t_guest guest;
    t_guest_new(&guest, runtime, DEPTH, NULL);
    bop_fiber_t *spinner = t_spawn0(&guest, "spin");
    CHECK_EQ(t_result(t_spawn1(&guest, "count", 9)), 9); /* only if the spinner is preempted */
    t_cancel_all(&spinner, 1);
    t_guest_delete(&guest);
    OK(bop_runtime_delete(runtime));
  }

  /* Wasmtime's C API panics on this one. */
  wasm_config_t *wasm = wasm_config_new();
  wasmtime_config_max_wasm_stack_set(wasm, 64 << 20);
  wasmtime_config_async_stack_size_set(wasm, 1 << 20);
  bop_config_t *config = bop_config_new();
  bop_config_wasm(config, wasm);
  refused(config, "stack");
}

static void timing(void) {
  CASE("timing");
  bop_config_t *config = bop_config_new();
  bop_config_timing(config, true);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  uint64_t before = bop_now();
  bop_fiber_t *fiber = t_spawn_host(runtime, seven, NULL, NULL);
  bop_times_t times = {.size = sizeof times};
  CHECK(bop_fiber_times(fiber, &times));
  CHECK(times.spawned_ns >= before && times.started_ns == 0 && times.finished_ns == 0);
  OK(bop_runtime_start(runtime));
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  CHECK(bop_fiber_times(fiber, &times));
  CHECK(times.started_ns >= times.spawned_ns && times.finished_ns >= times.started_ns);
  CHECK(times.finished_ns <= bop_now());
  bop_fiber_detach(fiber);
  OK(bop_runtime_delete(runtime));
}

static void no_pointers(void) {
  CASE("NULL");
  bop_config_wasm(NULL, wasm_config_new()); /* taken all the same */
  bop_config_workers(NULL, 1);
  bop_config_quantum(NULL, MS);
  bop_config_stack_size(NULL, 1 << 20);
  bop_config_host_stack(NULL, 1 << 16);
  bop_config_max_fibers(NULL, 1);
  bop_config_shutdown_timeout(NULL, MS);
  bop_config_guard(NULL, BOP_GUARD_AUTO);
  bop_config_timing(NULL, true);
  bop_config_t *config = bop_config_new();
  bop_config_wasm(config, NULL); /* back to the default */
  works(config);
  FAILS(bop_runtime_new(bop_config_new(), NULL), "NULL");
  FAILS(bop_runtime_new(NULL, NULL), "NULL");
}

int main(void) {
  t_start("config");
  defaults();
  names();
  workers();
  quanta();
  longest_quantum();
  stacks();
  guards();
  wasm_config();
  timing();
  no_pointers();
  return 0;
}
