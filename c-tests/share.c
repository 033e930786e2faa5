/* Many fibers in one instance of a compiled guest: each has a stack of its own in the guest's memory, and the
 * stack pointer goes with it. Overflow, sizes, reuse, and every way to get it wrong. */
#include "support/support.h"

#include <unistd.h>

#define STRESS_FIBERS 200

/* The threads that fibers had their turns on: for each fiber the first one, and how many had several. */
static _Atomic int first_thread[1 << 12];
static _Atomic int wanderers;

static wasm_trap_t *yields(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  bop_fiber_t *self = bop_current();
  _Atomic int *first = &first_thread[bop_fiber_id(self) % (1 << 12)];
  bop_fiber_detach(self);
  int none = 0;
  atomic_compare_exchange_strong(first, &none, gettid());
  bop_yield();
  if (atomic_load(first) != gettid())
    atomic_fetch_add(&wanderers, 1);
  return NULL;
}

static _Atomic int highest; /* the largest frame pointer that a fiber told */

static wasm_trap_t *tells(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                          size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)results, (void)nresults;
  if (args[0].of.i32 > atomic_load(&highest))
    atomic_store(&highest, args[0].of.i32);
  return NULL;
}

/* A host function that writes where the guest says, as reads of files and sockets do. */
static wasm_trap_t *fills(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                          size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)results, (void)nresults;
  wasmtime_extern_t memory;
  CHECK(wasmtime_caller_export_get(caller, "memory", 6, &memory));
  uint8_t *data = wasmtime_memory_data(wasmtime_caller_context(caller), &memory.of.memory);
  memset(data + (uint32_t)args[0].of.i32, 0x5a, (size_t)args[1].of.i32);
  return NULL;
}

static const t_import IMPORTS[] = {{"yield", "", "", yields, NULL},
                                   {"tell", "i", "", tells, NULL},
                                   {"fill", "ii", "", fills, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

/* What compilers make of functions with arrays: a frame taken off the stack pointer, kept across calls.
 * `sum` fills a frame with its own numbers, lets others run, and adds them up again; `dive` does so at
 * each of `n` levels. The allocator only ever goes up, and counts its calls. */
#define BODY                                                                                       \
  "(import \"host\" \"yield\" (func $yield))"                                                      \
  "(import \"host\" \"tell\" (func $tell (param i32)))"                                            \
  "(import \"host\" \"fill\" (func $fill (param i32 i32)))"                                        \
  "(memory (export \"memory\") 2 %s)"                                                              \
  "(global $__stack_pointer %s (mut i32) (i32.const 65536))"                                       \
  "(global $heap (mut i32) (i32.const 65536)) (global $calls (mut i32) (i32.const 0))"             \
  "(func (export \"malloc\") (param i32) (result i32) (local $f i32) (local $i i32)"               \
  "  (local.set $f (i32.sub (global.get $__stack_pointer) (i32.const 64)))"                        \
  "  (global.set $__stack_pointer (local.get $f))"                                                 \
  "  (loop (i32.store (i32.add (local.get $f) (i32.const 32)) (local.get 0))"                      \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                   \
  "                       (i32.const 1000))))"                                                     \
  "  (local.set $i (global.get $heap))"                                                            \
  "  (global.set $heap (i32.add (local.get $i) (local.get 0)))"                                    \
  "  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))"                              \
  "  (loop (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))"               \
  "    (then (drop (memory.grow (i32.const 64))) (br 1))))"                                        \
  "  (global.set $__stack_pointer (i32.add (local.get $f) (i32.const 64)))"                        \
  "  (local.get $i))"                                                                              \
  "(func (export \"free\") (param i32))"                                                           \
  "(func (export \"calls\") (result i32) (global.get $calls))"                                     \
  "(func (export \"pointer\") (result i32) (global.get $__stack_pointer))"                         \
  "(func (export \"pages\") (result i32) (memory.size))"                                           \
  "(func $sum (export \"sum\") (param $seed i32) (param $n i32) (result i32)"                      \
  "  (local $f i32) (local $i i32) (local $s i32)"                                                 \
  "  (global.set $__stack_pointer (local.tee $f"                                                   \
  "    (i32.sub (global.get $__stack_pointer) (i32.const 1024))))"                                 \
  "  (call $tell (local.get $f))"                                                                  \
  "  (loop (i32.store (i32.add (local.get $f) (i32.shl (local.get $i) (i32.const 2)))"             \
  "      (i32.mul (local.get $seed) (i32.add (local.get $i) (i32.const 1))))"                      \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                   \
  "                       (i32.const 256))))"                                                      \
  "  (call $yield)"                                                                                \
  "  (if (local.get $n) (then (local.set $s"                                                       \
  "    (call $sum (i32.add (local.get $seed) (i32.const 7)) (i32.sub (local.get $n)"               \
  "                                                           (i32.const 1))))))"                  \
  "  (local.set $i (i32.const 0))"                                                                 \
  "  (loop (local.set $s (i32.add (local.get $s)"                                                  \
  "      (i32.load (i32.add (local.get $f) (i32.shl (local.get $i) (i32.const 2))))))"             \
  "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"                   \
  "                       (i32.const 256))))"                                                      \
  "  (global.set $__stack_pointer (i32.add (local.get $f) (i32.const 1024)))"                      \
  "  (local.get $s))"                                                                              \
  "(func $dive (export \"dive\") (param $frame i32) (result i32) (local $f i32)"                   \
  "  (global.set $__stack_pointer (local.tee $f"                                                   \
  "    (i32.sub (global.get $__stack_pointer) (local.get $frame))))"                               \
  "  (i32.store (local.get $f) (i32.const -1))"                                                    \
  "  (i32.add (call $dive (local.get $frame)) (i32.const 1)))"                                     \
  "(func (export \"fill_below\") (param $bytes i32)"                                               \
  "  (call $fill (i32.sub (global.get $__stack_pointer) (local.get $bytes)) (local.get $bytes))"   \
  "  (call $nothing))"                                                                             \
  "(func (export \"grow\") (param $pages i32) (result i32)"                                         \
  "  (drop (memory.grow (local.get $pages))) (memory.size))"                                        \
  "(func $nothing)"                                                                                \
  "(func (export \"spin\") (loop (br 0)))"

static char *wat(const char *limit, const char *export_) {
  char *text = malloc(8192);
  int n = snprintf(text, 8192, "(module " BODY ")", limit, export_);
  CHECK(n > 0 && n < 8192);
  return text;
}

/* A runtime with a quantum; 0: it switches at every check. Takes the options. */
static bop_runtime_t *start(wasm_config_t *wasm, bop_guard_t guard, uint64_t quantum) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 3);
  bop_config_quantum(config, quantum);
  bop_config_guard(config, guard);
  if (wasm)
    bop_config_wasm(config, wasm);
  bop_runtime_t *runtime;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  return runtime;
}

static char *plain(void) { return wat("", "(export \"__stack_pointer\")"); }

/* What `sum` returns. */
static int32_t expected(int32_t seed, int32_t n) {
  int32_t own = (int32_t)((uint32_t)seed * (256 * 257 / 2));
  return n ? (int32_t)((uint32_t)own + (uint32_t)expected(seed + 7, n - 1)) : own;
}

static void new_guest(t_guest *guest, bop_runtime_t *runtime, char *own_wat) {
  t_guest_new(guest, runtime, own_wat, IMPORTS);
  free(own_wat);
}

/* Runs `sum` in many fibers, and starts the runtime with them if told to; the number of those that end
 * otherwise than they should. */
static int sums(const t_guest *guest, int fibers, int32_t depth, bop_runtime_t *start) {
  bop_fiber_t *fiber[STRESS_FIBERS];
  int wrong = 0;
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
    wrong += outcome != BOP_OUTCOME_RETURNED || result.of.i32 != expected(i, depth);
    bop_fiber_detach(fiber[i]);
  }
  return wrong;
}

/* With another store to take turns with, a strand moves between workers, and its fibers with it. */
static void wander(bop_runtime_t *runtime, const t_guest *guest) {
  t_guest other;
  new_guest(&other, runtime, plain());
  bop_fiber_t *spin[4];
  for (int i = 0; i < 4; i++)
    spin[i] = t_spawn0(&other, "spin");
  atomic_store(&wanderers, 0);
  while (atomic_load(&wanderers) < 100) {
    memset((void *)first_thread, 0, sizeof first_thread);
    CHECK_EQ(sums(guest, STRESS_FIBERS, 5, NULL), 0);
  }
  t_cancel_all(spin, 4);
  t_guest_delete(&other);
}

static void shared_and_not(uint64_t quantum, const char *name) {
  CASE(name);
  bop_runtime_t *runtime = t_runtime(3, quantum);
  t_guest guest;
  new_guest(&guest, runtime, plain());
  /* The control: without a stack each, they overwrite each other's frames. All are there before the first runs. */
  CHECK(sums(&guest, STRESS_FIBERS, 5, runtime) > STRESS_FIBERS / 2);
  t_guest_delete(&guest);
  new_guest(&guest, runtime, plain());
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  for (int round = 0; round < 3; round++)
    CHECK_EQ(sums(&guest, STRESS_FIBERS, 5, NULL), 0);
  wander(runtime, &guest);
  /* The host finds its own stack pointer as it was. */
  wasmtime_context_t *context;
  OK(bop_store_enter(guest.store, &context));
  wasmtime_val_t value;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_func_call(context, t_export(&guest, "pointer"), NULL, 0, &value, 1, &trap));
  CHECK_EQ(value.of.i32, 65536);
  OK(bop_store_exit(guest.store));
  t_guest_delete(&guest);
  bop_runtime_delete(runtime);
}

/* Regions are used again: a thousand fibers one after another need one. */
static void reuse(bop_runtime_t *runtime) {
  CASE("reuse");
  t_guest guest;
  new_guest(&guest, runtime, plain());
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  for (int i = 0; i < 1000; i++)
    CHECK_EQ((int32_t)t_result(t_spawn(&guest, "sum", (int32_t[]){i, 2}, 2)), expected(i, 2));
  CHECK(t_result(t_spawn0(&guest, "pages")) <= 2 + 6); /* 4 of 64 + 16 KiB */
  t_guest_delete(&guest);
}

static void overflows(bop_fiber_t *own, const char *word) {
  JOINS(own, BOP_OUTCOME_TRAPPED);
  wasm_trap_t *trap = bop_fiber_take_trap(own);
  CHECK(trap != NULL);
  CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_STACK_OVERFLOW);
  CHECK_HAS(t_trap_message(trap), word);
  wasm_trap_delete(trap);
  bop_fiber_detach(own);
}

/* A fiber that recurses without end dies alone, while the others keep their frames. */
static void overflow(bop_runtime_t *runtime, bool guards) {
  CASE(guards ? "overflow" : "overflow without guards");
  t_guest guest;
  new_guest(&guest, runtime, plain());
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 16 << 10);
  if (!guards)
    bop_share_options_guard_size(options, 0);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  enum { GOOD = 40 };
  bop_fiber_t *good[GOOD], *bad[GOOD];
  for (int i = 0; i < GOOD; i++) {
    good[i] = t_spawn(&guest, "sum", (int32_t[]){i, 8}, 2);
    /* Without guards only who is seen below its end is caught: these look up at once, on entry. */
    bad[i] = t_spawn1(&guest, "dive", guards ? 16 << (i % 9) : 16384 + 16);
  }
  for (int i = 0; i < GOOD; i++) {
    if (guards) {
      overflows(bad[i], "16384 bytes of stack");
      CHECK_EQ((int32_t)t_result(good[i]), expected(i, 8));
    } else {
      JOINS(bad[i], BOP_OUTCOME_TRAPPED);
      bop_fiber_detach(bad[i]);
      JOINS(good[i], BOP_OUTCOME_RETURNED);
      bop_fiber_detach(good[i]);
    }
  }
  /* Their regions are as good as new, guards included. */
  if (guards) {
    CHECK_EQ(sums(&guest, GOOD * 2, 8, NULL), 0);
    /* One after another they have the same one; each opens a page of its guard. */
    for (int i = 0; i < 20; i++)
      overflows(t_spawn1(&guest, "dive", 512), "16384 bytes of stack");
  }
  t_guest_delete(&guest);
}

/* A host function that a guest makes write over the end of its stack does not crash the host, nor hit
 * another fiber; the guest pays. */
static void host_writes(bop_runtime_t *runtime) {
  CASE("host writes");
  t_guest guest;
  new_guest(&guest, runtime, plain());
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 16 << 10);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  bop_fiber_t *good[8];
  for (int i = 0; i < 8; i++)
    good[i] = t_spawn(&guest, "sum", (int32_t[]){i, 8}, 2);
  ENDS(t_spawn1(&guest, "fill_below", 16 << 10), BOP_OUTCOME_RETURNED);
  overflows(t_spawn1(&guest, "fill_below", (16 << 10) + 1), "16384 bytes of stack");
  overflows(t_spawn1(&guest, "fill_below", (32 << 10)), "16384 bytes of stack");
  for (int i = 0; i < 8; i++)
    CHECK_EQ((int32_t)t_result(good[i]), expected(i, 8));
  t_guest_delete(&guest);
}

static void sizes(bop_runtime_t *runtime) {
  CASE("sizes");
  t_guest guest;
  new_guest(&guest, runtime, wat("40", "(export \"__stack_pointer\")"));
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  bop_spawn_options_t *options = bop_spawn_options_new();
  wasmtime_val_t args[2] = {t_i32(3), t_i32(100)};
  bop_fiber_t *fiber;
  /* 101 KiB of frames do not fit into 64. */
  OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, NULL, &fiber));
  overflows(fiber, "65536 bytes");
  bop_spawn_options_shadow_stack(options, 128 << 10);
  OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, options, &fiber));
  CHECK_EQ((int32_t)t_result(fiber), expected(3, 100));
  /* More than the memory may ever have, and more than it has left. */
  bop_spawn_options_shadow_stack(options, 40 << 16);
  FAILS(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, options, &fiber), "too large");
  bop_spawn_options_shadow_stack(options, 38 << 16);
  OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, options, &fiber));
  JOINS(fiber, BOP_OUTCOME_FAILED);
  wasm_trap_t *trap = bop_fiber_take_trap(fiber);
  CHECK_HAS(t_trap_message(trap), "no shadow stack of 2490368 bytes");
  wasm_trap_delete(trap);
  bop_fiber_detach(fiber);
  /* The last one that fits is found, also when many at a time would not. */
  int fitted = 0;
  bop_fiber_t *spinning[64];
  for (; fitted < 64; fitted++) {
    OK(bop_spawn(guest.store, t_export(&guest, "spin"), NULL, 0, NULL, &spinning[fitted]));
    bop_fiber_t *probe = t_spawn0(&guest, "pages");
    bop_outcome_t outcome;
    CHECK_EQ(bop_fiber_join(probe, &outcome), BOP_OK);
    bop_fiber_detach(probe);
    if (outcome == BOP_OUTCOME_FAILED)
      break;
  }
  CHECK(fitted > 10 && fitted < 40);
  t_cancel_all(spinning, (size_t)fitted + 1);
  CHECK_EQ((int32_t)t_result(t_spawn(&guest, "sum", (int32_t[]){9, 5}, 2)), expected(9, 5));
  bop_spawn_options_delete(options);
  t_guest_delete(&guest);
}

static void allocator(bop_runtime_t *runtime) {
  CASE("allocator");
  t_guest guest;
  new_guest(&guest, runtime, plain());
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_allocator(options, "malloc", 6, "nothing", 7);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "exports no function \"nothing\"");
  bop_share_options_allocator(options, "malloc", 6, "calls", 5);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "can't be called");
  bop_share_options_allocator(options, "malloc", 6, "free", 4);
  bop_share_options_reserve(options, 3);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  CHECK_EQ(t_result(t_spawn0(&guest, "calls")), 1);
  CHECK_EQ(sums(&guest, STRESS_FIBERS, 5, NULL), 0);
  CHECK(t_result(t_spawn0(&guest, "calls")) > 1);
  t_guest_delete(&guest);
}

static void refusals(bop_runtime_t *runtime) {
  CASE("refusals");
  t_guest guest, other;
  new_guest(&guest, runtime, plain());
  new_guest(&other, runtime, plain());
  FAILS(bop_store_share(NULL, &guest.instance, NULL), "store is NULL");
  FAILS(bop_store_share(guest.store, NULL, NULL), "instance is NULL");
  FAILS(bop_store_share(guest.store, &other.instance, NULL), "another store");
  bop_fiber_t *spins = t_spawn0(&guest, "spin");
  FAILS(bop_store_share(guest.store, &guest.instance, NULL), "has fibers");
  t_cancel_all(&spins, 1);
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 0);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "do not fit");
  bop_share_options_stack_size(options, UINT32_MAX);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "do not fit");
  bop_share_options_stack_size(options, 1 << 20);
  bop_share_options_reserve(options, 1 << 20);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "shadow stacks");
  bop_share_options_reserve(options, 0);
  bop_share_options_exports(options, "nowhere", 7, NULL, 0);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "no global nowhere");
  bop_share_options_exports(options, "__stack_pointer", 15, "nowhere", 7);
  FAILS(bop_store_share(guest.store, &guest.instance, options), "no memory nowhere");
  bop_share_options_delete(options);
  /* None of that did any harm. A thread that has entered may share too. */
  wasmtime_context_t *context;
  OK(bop_store_enter(guest.store, &context));
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  OK(bop_store_exit(guest.store));
  FAILS(bop_store_share(guest.store, &guest.instance, NULL), "shared already");
  CHECK_EQ(sums(&guest, 20, 5, NULL), 0);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  static const struct {
    const char *wat, *word;
  } BAD[] = {
      {"(module (memory (export \"memory\") 1))", "no global __bop_stack_pointer or __stack_pointer"},
      {"(module (global (export \"__stack_pointer\") (mut i32) (i32.const 0)))", "no memory"},
      {"(module (memory (export \"memory\") 1)"
       " (global (export \"__stack_pointer\") i32 (i32.const 0)))", "no mutable i32"},
      {"(module (memory (export \"memory\") 1)"
       " (global (export \"__stack_pointer\") (mut i64) (i64.const 0)))", "no mutable i32"},
      {"(module (memory (export \"memory\") i64 1)"
       " (global (export \"__stack_pointer\") (mut i32) (i32.const 0)))", "32-bit"},
  };
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    t_guest_new(&guest, runtime, BAD[i].wat, NULL);
    FAILS(bop_store_share(guest.store, &guest.instance, NULL), BAD[i].word);
    t_guest_delete(&guest);
  }
}

/* From bytes that export nothing of it to fibers that share the instance. */
static void prepared(bop_runtime_t *runtime) {
  CASE("prepared");
  char *text = wat("", "");
  wasm_byte_vec_t wasm, out = {0, NULL};
  OK(wasmtime_wat2wasm(text, strlen(text), &wasm));
  free(text);
  const uint8_t *bytes = (const uint8_t *)wasm.data;
  FAILS(bop_module_prepare(NULL, 5, NULL, &out, NULL), "wasm is NULL");
  FAILS(bop_module_prepare(bytes, wasm.size, NULL, NULL, NULL), "out is NULL");
  FAILS(bop_module_prepare(bytes, wasm.size - 9, NULL, &out, NULL), "not a module");
  bop_prepare_options_t *options = bop_prepare_options_new();
  bop_prepare_options_stack_pointer_index(options, 17);
  FAILS(bop_module_prepare(bytes, wasm.size, options, &out, NULL), "no global 17");
  bop_prepare_options_stack_pointer_name(options, "where", 5);
  FAILS(bop_module_prepare(bytes, wasm.size, options, &out, NULL), "\"where\"");
  bop_prepare_options_stack_pointer_name(options, "__stack_pointer", 15);
  bop_prepared_t found = {.size = sizeof found};
  OK(bop_module_prepare(bytes, wasm.size, options, &out, &found));
  CHECK_EQ(found.stack_pointer, BOP_STACK_POINTER_CHOSEN);
  wasm_byte_vec_delete(&out);
  bop_prepare_options_delete(options);
  OK(bop_module_prepare(bytes, wasm.size, NULL, &out, &found));
  wasm_byte_vec_delete(&wasm);
  CHECK_EQ(found.stack_pointer, BOP_STACK_POINTER_NAME);
  CHECK_EQ(found.index, 0);
  CHECK_EQ(found.exports_added, 1);
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_module_t *module;
  OK(wasmtime_module_new(engine, (const uint8_t *)out.data, out.size, &module));
  wasm_byte_vec_delete(&out);
  wasmtime_linker_t *linker = t_linker(engine, IMPORTS);
  wasmtime_store_t *own = wasmtime_store_new(engine, NULL, NULL);
  wasm_trap_t *trap = NULL;
  t_guest guest = {0};
  OK(wasmtime_linker_instantiate(linker, wasmtime_store_context(own), module, &guest.instance, &trap));
  guest.exports = 1;
  snprintf(guest.export_[0].name, sizeof guest.export_[0].name, "sum");
  guest.export_[0].func = t_func(wasmtime_store_context(own), &guest.instance, "sum");
  OK(bop_store_new(runtime, own, &guest.store));
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  CHECK_EQ(sums(&guest, STRESS_FIBERS, 5, NULL), 0);
  t_guest_delete(&guest);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
}

/* Memory that is used again for the next instance has no guards left in it. */
static void pooled(bop_guard_t guard) {
  CASE("pooled");
  wasmtime_pooling_allocation_config_t *pool = wasmtime_pooling_allocation_config_new();
  wasmtime_pooling_allocation_config_total_memories_set(pool, 1);
  wasm_config_t *wasm = wasm_config_new();
  wasmtime_pooling_allocation_strategy_set(wasm, pool);
  wasmtime_pooling_allocation_config_delete(pool);
  bop_runtime_t *runtime = start(wasm, guard, 0);
  for (int i = 0; i < 3; i++) {
    t_guest guest;
    new_guest(&guest, runtime, plain());
    CHECK_EQ(t_result(t_spawn0(&guest, "pages")), 2);
    /* Without sharing first: all of what the last one had. The kernel, which opens no guard, can read it. */
    CHECK_EQ(t_result(t_spawn1(&guest, "grow", 20)), 22);
    wasmtime_context_t *context;
    wasmtime_extern_t memory;
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    OK(bop_store_enter(guest.store, &context));
    CHECK(wasmtime_instance_export_get(context, &guest.instance, "memory", 6, &memory));
    const uint8_t *data = wasmtime_memory_data(context, &memory.of.memory);
    for (size_t at = 0; at < wasmtime_memory_data_size(context, &memory.of.memory); at += 4096)
      CHECK_EQ(write(ends[1], data + at, 1), 1);
    OK(bop_store_exit(guest.store));
    close(ends[0]);
    close(ends[1]);
    OK(bop_store_share(guest.store, &guest.instance, NULL));
    CHECK_EQ(sums(&guest, 20, 5, NULL), 0);
    overflows(t_spawn1(&guest, "dive", 512), "65536 bytes of stack");
    t_guest_delete(&guest);
  }
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("share");
  shared_and_not(50000, "shared, preempted");
  bop_runtime_t *runtime;
  /* With a quantum that never ends, nothing but a guard makes a fiber look up. */
  for (int i = 0; i < 4; i++) {
    runtime = start(NULL, i & 1 ? BOP_GUARD_MPROTECT : BOP_GUARD_AUTO, i & 2 ? 3600 * SECOND : 0);
    overflow(runtime, true);
    host_writes(runtime);
    OK(bop_runtime_delete(runtime));
  }
  pooled(BOP_GUARD_AUTO);
  pooled(BOP_GUARD_MPROTECT);
  runtime = start(NULL, BOP_GUARD_AUTO, 0);
  reuse(runtime);
  overflow(runtime, false);
  sizes(runtime);
  allocator(runtime);
  refusals(runtime);
  prepared(runtime);
  bop_runtime_delete(runtime);
  return 0;
}
