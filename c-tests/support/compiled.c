#include "compiled.h"

#include <unistd.h>

/* ---- what they import ---- */

/* The threads that fibers had their first turns on. */
enum { REMEMBERED = 1 << 12 };
static atomic_int first_thread[REMEMBERED];
atomic_int t_wanderers;

void t_forget_threads(void) { memset((void *)first_thread, 0, sizeof first_thread); }

static wasm_trap_t *yields(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  bop_fiber_t *self = bop_current();
  atomic_int *first = &first_thread[bop_fiber_id(self) % REMEMBERED];
  bop_fiber_detach(self);
  int none = 0;
  atomic_compare_exchange_strong(first, &none, gettid());
  bop_yield();
  if (atomic_load(first) != gettid())
    atomic_fetch_add(&t_wanderers, 1);
  return NULL;
}

bop_channel_t *t_compiled_gate;

static wasm_trap_t *waits_at_gate(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                  size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_channel_receive(t_compiled_gate, NULL), BOP_OK);
  return NULL;
}

static wasm_trap_t *fills(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                          size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)results, (void)nresults;
  wasmtime_extern_t memory;
  CHECK(wasmtime_caller_export_get(caller, "memory", 6, &memory));
  uint8_t *data = wasmtime_memory_data(wasmtime_caller_context(caller), &memory.of.memory);
  memset(data + (uint32_t)args[0].of.i32, 0x5a, (size_t)args[1].of.i32);
  return NULL;
}

const t_import t_compiled_imports[] = {{"yield", "", "", yields, NULL},
                                       {"gate", "", "", waits_at_gate, NULL},
                                       {"fill", "ii", "", fills, NULL},
                                       {NULL, NULL, NULL, NULL, NULL}};

/* ---- guests ---- */

/* What compilers make of functions with arrays: a frame taken off the stack pointer, kept across calls.
 * `sum` fills a frame with its own numbers, lets others run, and adds them up again; `dive` does so at
 * each of `n` levels. The allocator only ever goes up, and counts its calls. */
#define BODY                                                                                      \
  "(import \"host\" \"yield\" (func $yield))"                                                     \
  "(import \"host\" \"gate\" (func $gate))"                                                       \
  "(import \"host\" \"fill\" (func $fill (param i32 i32)))"                                       \
  "(memory (export \"memory\") 2 %s)"                                                             \
  "(global $__stack_pointer %s (mut i32) (i32.const 65536))"                                      \
  "(global $heap (mut i32) (i32.const 65536)) (global $calls (mut i32) (i32.const 0))"            \
  "(func (export \"malloc\") (param i32) (result i32) (local $f i32) (local $i i32)"              \
  "  (local.set $f (i32.sub (global.get $__stack_pointer) (i32.const 64)))"                       \
  "  (global.set $__stack_pointer (local.get $f))"                                                \
  "  (loop (i32.store (i32.add (local.get $f) (i32.const 32)) (local.get 0))"                     \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                  \
  "                       (i32.const 1000))))"                                                    \
  "  (local.set $i (global.get $heap))"                                                           \
  "  (global.set $heap (i32.add (local.get $i) (local.get 0)))"                                   \
  "  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))"                             \
  "  (loop (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))"              \
  "    (then (drop (memory.grow (i32.const 64))) (br 1))))"                                       \
  "  (global.set $__stack_pointer (i32.add (local.get $f) (i32.const 64)))"                       \
  "  (local.get $i))"                                                                             \
  "(func (export \"free\") (param i32))"                                                          \
  "(func (export \"calls\") (result i32) (global.get $calls))"                                    \
  "(func (export \"pointer\") (result i32) (global.get $__stack_pointer))"                        \
  "(func (export \"pages\") (result i32) (memory.size))"                                          \
  "(func $sum (export \"sum\") (param $seed i32) (param $n i32) (result i32)"                     \
  "  (local $f i32) (local $i i32) (local $s i32)"                                                \
  "  (global.set $__stack_pointer (local.tee $f"                                                  \
  "    (i32.sub (global.get $__stack_pointer) (i32.const 1024))))"                                \
  "  (loop (i32.store (i32.add (local.get $f) (i32.shl (local.get $i) (i32.const 2)))"            \
  "      (i32.mul (local.get $seed) (i32.add (local.get $i) (i32.const 1))))"                     \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                  \
  "                       (i32.const 256))))"                                                     \
  "  (call $yield)"                                                                               \
  "  (if (local.get $n) (then (local.set $s"                                                      \
  "    (call $sum (i32.add (local.get $seed) (i32.const 7)) (i32.sub (local.get $n)"              \
  "                                                           (i32.const 1))))))"                 \
  "  (local.set $i (i32.const 0))"                                                                \
  "  (loop (local.set $s (i32.add (local.get $s)"                                                 \
  "      (i32.load (i32.add (local.get $f) (i32.shl (local.get $i) (i32.const 2))))))"            \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                  \
  "                       (i32.const 256))))"                                                     \
  "  (global.set $__stack_pointer (i32.add (local.get $f) (i32.const 1024)))"                     \
  "  (local.get $s))"                                                                             \
  "(func $dive (export \"dive\") (param $frame i32) (result i32) (local $f i32)"                  \
  "  (global.set $__stack_pointer (local.tee $f"                                                  \
  "    (i32.sub (global.get $__stack_pointer) (local.get $frame))))"                              \
  "  (i32.store (local.get $f) (i32.const -1))"                                                   \
  "  (i32.add (call $dive (local.get $frame)) (i32.const 1)))"                                    \
  "(func (export \"fill_below\") (param $bytes i32)"                                              \
  "  (call $fill (i32.sub (global.get $__stack_pointer) (local.get $bytes)) (local.get $bytes))"  \
  "  (call $nothing))"                                                                            \
  "(func (export \"waits\") (call $gate))"                                                        \
  "(func (export \"grow\") (param $pages i32) (result i32)"                                       \
  "  (drop (memory.grow (local.get $pages))) (memory.size))"                                      \
  "(func $nothing)"                                                                               \
  "(func (export \"spin\") (loop (br 0)))"

char *t_compiled_text(const char *limit, bool exports_stack_pointer) {
  char *text = malloc(8192);
  int n = snprintf(text, 8192, "(module " BODY ")", limit,
                   exports_stack_pointer ? "(export \"__stack_pointer\")" : "");
  CHECK(n > 0 && n < 8192);
  return text;
}

void t_compiled_new(t_guest *guest, bop_runtime_t *runtime, const char *limit) {
  char *text = t_compiled_text(limit, true);
  t_guest_new(guest, runtime, text, t_compiled_imports);
  free(text);
}

bop_runtime_t *t_compiled_runtime(wasm_config_t *own, bop_guard_t guard, uint64_t quantum_ns) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 3);
  bop_config_quantum(config, quantum_ns);
  bop_config_guard(config, guard);
  if (own)
    bop_config_wasm(config, own);
  bop_runtime_t *runtime;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  return runtime;
}

/* ---- fibers ---- */

int32_t t_sum(int32_t seed, int32_t depth) {
  int32_t own = (int32_t)((uint32_t)seed * (256 * 257 / 2));
  return depth ? (int32_t)((uint32_t)own + (uint32_t)t_sum(seed + 7, depth - 1)) : own;
}

int t_sums(const t_guest *guest, int fibers, int32_t depth, bop_runtime_t *start) {
  bop_fiber_t *fiber[MANY];
  int wrong = 0;
  CHECK(fibers <= MANY);
  for (int i = 0; i < fibers; i++)
    fiber[i] = t_spawn(guest, "sum", (int32_t[]){i, depth}, 2);
  if (start)
    OK(bop_runtime_start(start));
  for (int i = 0; i < fibers; i++) {
    bop_outcome_t outcome;
    wasmtime_val_t result = t_i32(0);
    CHECK_EQ(bop_fiber_join(fiber[i], &outcome), BOP_OK);
    if (outcome == BOP_OUTCOME_RETURNED)
      OK(bop_fiber_results(fiber[i], &result, 1));
    wrong += outcome != BOP_OUTCOME_RETURNED || result.of.i32 != t_sum(i, depth);
    bop_fiber_detach(fiber[i]);
  }
  return wrong;
}

void t_overflows(bop_fiber_t *own, const char *word) {
  JOINS(own, BOP_OUTCOME_TRAPPED);
  wasm_trap_t *trap = bop_fiber_take_trap(own);
  CHECK(trap != NULL);
  CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_STACK_OVERFLOW);
  CHECK_HAS(t_trap_message(trap), word);
  wasm_trap_delete(trap);
  bop_fiber_detach(own);
}
