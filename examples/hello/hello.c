/* Two guests share one OS thread. The first never ends, yet the second is served. Prints:
 *
 *   sum: returned 1800030000
 *   spin: cancelled
 */
#include <bop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char GUEST[] =
    "(module (func (export \"spin\") (loop (br 0)))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $sum i32)"
    "    (loop $next (local.set $sum (i32.add (local.get $sum) (local.get $n)))"
    "      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $sum))";

static void ok(wasmtime_error_t *error) { /* NULL is success */
  if (error == NULL)
    return;
  wasm_name_t text;
  wasmtime_error_message(error, &text);
  fprintf(stderr, "%.*s\n", (int)text.size, text.data);
  exit(1);
}

int main(void) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1); /* one OS thread for all guests */
  bop_runtime_t *runtime;
  ok(bop_runtime_new(config, &runtime));
  ok(bop_runtime_start(runtime)); /* the worker runs in the background */

  /* Modules and linkers are Wasmtime's own. */
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  wasm_byte_vec_t wasm;
  wasmtime_module_t *module;
  wasmtime_instance_pre_t *pre;
  ok(wasmtime_wat2wasm(GUEST, strlen(GUEST), &wasm));
  ok(wasmtime_module_new(engine, (const uint8_t *)wasm.data, wasm.size, &module));
  ok(wasmtime_linker_instantiate_pre(linker, module, &pre));

  /* Two fibers, each in a fresh instance; the spinner has the first turn. */
  wasmtime_val_t n = {.kind = WASMTIME_I32, .of = {.i32 = 60000}}, sum;
  bop_fiber_t *spinner, *adder;
  ok(bop_spawn_instance(runtime, pre, "spin", 4, NULL, 0, NULL, NULL, NULL, NULL, &spinner));
  ok(bop_spawn_instance(runtime, pre, "sum", 3, &n, 1, NULL, NULL, NULL, NULL, &adder));

  bop_outcome_t outcome;
  bop_fiber_join(adder, &outcome);
  ok(bop_fiber_results(adder, &sum, 1));
  printf("sum: %s %d\n", bop_outcome_name(outcome), (int)sum.of.i32);
  bop_fiber_cancel(spinner); /* its next epoch check traps */
  bop_fiber_join(spinner, &outcome);
  printf("spin: %s\n", bop_outcome_name(outcome));

  bop_fiber_detach(adder); /* drops the handle */
  bop_fiber_detach(spinner);
  wasmtime_instance_pre_delete(pre);
  wasmtime_module_delete(module);
  wasm_byte_vec_delete(&wasm);
  wasmtime_linker_delete(linker);
  ok(bop_runtime_delete(runtime));
  return 0;
}
