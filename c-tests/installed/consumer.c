/* A host in C99: a guest that never ends and one that adds, on one worker. */
#include <bop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char GUEST[] =
    "(module"
    "  (func (export \"spin\") (loop (br 0)))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $s i32)"
    "    (loop $l (local.set $s (i32.add (local.get $s) (local.get $n)))"
    "      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $s))";

static void check(bool condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "consumer: %s\n", what);
    exit(1);
  }
}

static void ok(wasmtime_error_t *error, const char *what) {
  if (error != NULL) {
    wasm_name_t message;
    wasmtime_error_message(error, &message);
    fprintf(stderr, "consumer: %s: %.*s\n", what, (int)message.size, message.data);
    exit(1);
  }
}

/* A store with an instance of the guest, handed to the runtime, and one function of it. */
static bop_store_t *instantiate(bop_runtime_t *runtime, const char *name, wasmtime_func_t *out) {
  wasm_byte_vec_t wasm;
  ok(wasmtime_wat2wasm(GUEST, strlen(GUEST), &wasm), "wat2wasm");
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_module_t *module = NULL;
  ok(wasmtime_module_new(engine, (const uint8_t *)wasm.data, wasm.size, &module), "compile");
  wasm_byte_vec_delete(&wasm);

  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  ok(wasmtime_instance_new(context, module, NULL, 0, &instance, &trap), "instantiate");
  check(trap == NULL, "the instance trapped");
  wasmtime_extern_t item;
  check(wasmtime_instance_export_get(context, &instance, name, strlen(name), &item), "no export");
  check(item.kind == WASMTIME_EXTERN_FUNC, "the export is no function");
  *out = item.of.func;
  wasmtime_module_delete(module);

  bop_store_t *handle = NULL;
  ok(bop_store_new(runtime, store, &handle), "bop_store_new");
  return handle;
}

int main(void) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_runtime_t *runtime = NULL;
  ok(bop_runtime_new(config, &runtime), "bop_runtime_new");
  ok(bop_runtime_start(runtime), "bop_runtime_start");

  wasmtime_func_t spin, sum;
  bop_store_t *spinning = instantiate(runtime, "spin", &spin);
  bop_store_t *adding = instantiate(runtime, "sum", &sum);

  bop_fiber_t *spinner = NULL, *adder = NULL;
  ok(bop_spawn(spinning, &spin, NULL, 0, NULL, &spinner), "spawn spin");
  while (bop_fiber_state(spinner) != BOP_STATE_RUNNING)
    check(bop_sleep(1000000) == BOP_OK, "bop_sleep");

  wasmtime_val_t argument, result;
  argument.kind = WASMTIME_I32;
  argument.of.i32 = 100;
  ok(bop_spawn(adding, &sum, &argument, 1, NULL, &adder), "spawn sum");
  bop_outcome_t outcome;
  check(bop_fiber_join(adder, &outcome) == BOP_OK, "join sum");
  check(outcome == BOP_OUTCOME_RETURNED, "sum did not return");
  ok(bop_fiber_results(adder, &result, 1), "bop_fiber_results");
  check(result.kind == WASMTIME_I32 && result.of.i32 == 5050, "sum returned something else");

  /* The one worker can only have come to the second by taking it from the first. */
  bop_stats_t stats;
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  bop_runtime_stats(runtime, &stats);
  check(stats.workers == 1 && stats.preemptions > 0, "the spinner was not preempted");

  check(bop_fiber_cancel(spinner) == BOP_OK, "cancel spin");
  check(bop_fiber_join(spinner, &outcome) == BOP_OK, "join spin");
  check(outcome == BOP_OUTCOME_CANCELLED, "spin was not cancelled");

  bop_fiber_detach(adder);
  bop_fiber_detach(spinner);
  bop_store_delete(adding);
  bop_store_delete(spinning);
  ok(bop_runtime_delete(runtime), "bop_runtime_delete");
  printf("sum %d, beside a loop without end\n", (int)result.of.i32);
  return 0;
}
