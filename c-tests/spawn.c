/* Spawning: arguments and results of every type, fresh instances, and all that can be wrong. */
#include "support/support.h"

static atomic_int finalized;
static void finalizes(void *env) {
  (void)env;
  finalized++;
}

static int64_t twelve(void *env) { return env != NULL ? *(int *)env : 12; }

static const char *const TYPES =
    "(module"
    "  (func (export \"all\") (param i32 i64 f32 f64 v128) (result v128 f64 f32 i64 i32)"
    "    local.get 4 (f64.add (local.get 3) (f64.const 0.25)) (f32.neg (local.get 2))"
    "    (i64.add (local.get 1) (i64.const 1)) (i32.sub (local.get 0) (i32.const 1)))"
    "  (func (export \"nothing\"))"
    "  (func (export \"double\") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))"
    "  (func (export \"bad\") unreachable)"
    "  (memory (export \"memory\") 1))";

static void types(bop_runtime_t *runtime) {
  CASE("types");
  t_guest guest;
  t_guest_new(&guest, runtime, TYPES, NULL);
  wasmtime_val_t args[5] = {t_i32(INT32_MIN), t_i64(INT64_MAX)};
  args[2].kind = WASMTIME_F32;
  args[2].of.f32 = 1.5f;
  args[3].kind = WASMTIME_F64;
  args[3].of.f64 = 1e300;
  args[4].kind = WASMTIME_V128;
  for (int i = 0; i < 16; i++)
    args[4].of.v128[i] = (uint8_t)(17 * i);
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn(guest.store, t_export(&guest, "all"), args, 5, NULL, &fiber));
  memset(args, 0xff, sizeof args); /* they were copied */
  wasmtime_val_t results[5];
  FAILS(bop_fiber_results(fiber, results, 5), "not"); /* nobody runs it yet */
  OK(bop_runtime_start(runtime));
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  FAILS(bop_fiber_results(fiber, results, 4), "5");
  FAILS(bop_fiber_results(fiber, results, 6), "5");
  FAILS(bop_fiber_results(fiber, NULL, 5), "NULL");
  for (int twice = 0; twice < 2; twice++) {
    memset(results, 0, sizeof results);
    OK(bop_fiber_results(fiber, results, 5));
    CHECK_EQ(results[0].kind, WASMTIME_V128);
    for (int i = 0; i < 16; i++)
      CHECK_EQ(results[0].of.v128[i], 17 * i);
    CHECK(results[1].kind == WASMTIME_F64 && results[1].of.f64 == 1e300);
    CHECK(results[2].kind == WASMTIME_F32 && results[2].of.f32 == -1.5f);
    CHECK(results[3].kind == WASMTIME_I64 && results[3].of.i64 == INT64_MIN);
    CHECK(results[4].kind == WASMTIME_I32 && results[4].of.i32 == INT32_MAX);
  }
  CHECK(bop_fiber_take_trap(fiber) == NULL);
  bop_fiber_detach(fiber);

  fiber = t_spawn0(&guest, "nothing");
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  OK(bop_fiber_results(fiber, NULL, 0));
  FAILS(bop_fiber_results(fiber, results, 1), "0");
  bop_fiber_detach(fiber);

  fiber = t_spawn0(&guest, "bad");
  JOINS(fiber, BOP_OUTCOME_TRAPPED);
  FAILS(bop_fiber_results(fiber, results, 0), "trap");
  bop_fiber_detach(fiber);
  t_guest_delete(&guest);
}

static void wrong_arguments(bop_runtime_t *runtime) {
  CASE("wrong arguments");
  t_guest guest, other;
  t_guest_new(&guest, runtime, TYPES, NULL);
  t_guest_new(&other, runtime, TYPES, NULL);
  const wasmtime_func_t *twice = t_export(&guest, "double");
  wasmtime_val_t two[2] = {t_i32(1), t_i32(2)}, wide = t_i64(3), odd = t_i32(4);
  odd.kind = 99; /* no such kind */
  bop_fiber_t *fiber = NULL;
  FAILS(bop_spawn(guest.store, twice, two, 2, NULL, &fiber), "argument");
  FAILS(bop_spawn(guest.store, twice, NULL, 0, NULL, &fiber), "argument");
  FAILS(bop_spawn(guest.store, twice, NULL, 1, NULL, &fiber), "NULL");
  FAILS(bop_spawn(guest.store, twice, &wide, 1, NULL, &fiber), "i32");
  FAILS(bop_spawn(guest.store, twice, &odd, 1, NULL, &fiber), "kind");
  FAILS(bop_spawn(guest.store, NULL, two, 1, NULL, &fiber), "NULL");
  FAILS(bop_spawn(NULL, twice, two, 1, NULL, &fiber), "NULL");
  FAILS(bop_spawn(other.store, twice, two, 1, NULL, &fiber), "store");
  wasmtime_func_t null_func;
  memset(&null_func, 0, sizeof null_func);
  FAILS(bop_spawn(guest.store, &null_func, two, 1, NULL, &fiber), "func");
  CHECK(fiber == NULL);
  CHECK_EQ(t_result(t_spawn1(&guest, "double", 21)), 42);
  t_guest_delete(&other);
  t_guest_delete(&guest);
}

static void options(bop_runtime_t *runtime) {
  CASE("options");
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, "a rather long name, but cut here", 18);
  bop_spawn_options_stack_size(options, 4 << 20);
  for (int i = 0; i < 2; i++) { /* they can be used again */
    bop_fiber_t *fiber = NULL;
    OK(bop_spawn_host(runtime, twelve, NULL, NULL, options, &fiber));
    char name[8];
    CHECK_EQ(bop_fiber_name(fiber, name, sizeof name), 18);
    CHECK(strcmp(name, "a rathe") == 0);
    CHECK_EQ(bop_fiber_name(fiber, NULL, 0), 18);
    CHECK(bop_fiber_id(fiber) != 0);
    CHECK_EQ(t_result(fiber), 12);
  }
  finalized = 0;
  const size_t bad[] = {1, SIZE_MAX};
  for (size_t i = 0; i < 2; i++) {
    bop_spawn_options_stack_size(options, bad[i]);
    bop_fiber_t *fiber = NULL;
    FAILS(bop_spawn_host(runtime, twelve, NULL, finalizes, options, &fiber), "stack");
    CHECK(fiber == NULL);
    CHECK_EQ(finalized, i + 1);
  }
  bop_spawn_options_delete(options);
  FAILS(bop_spawn_host(runtime, NULL, NULL, finalizes, NULL, NULL), "NULL");
  FAILS(bop_spawn_host(NULL, twelve, NULL, finalizes, NULL, NULL), "NULL");
  CHECK_EQ(finalized, 4);

  int value = 99;
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn_host(runtime, twelve, &value, finalizes, NULL, &fiber));
  CHECK_EQ(t_result(fiber), 99);
  EVENTUALLY(finalized == 5);
  OK(bop_spawn_host(runtime, twelve, &value, finalizes, NULL, NULL)); /* detached from the start */
  EVENTUALLY(finalized == 6);
}

/* ---- fibers that spawn fibers ---- */

static bop_runtime_t *the_runtime;

static int64_t tree(void *depth) {
  int64_t d = (int64_t)(intptr_t)depth;
  if (d == 0)
    return 1;
  bop_fiber_t *children[3], *self = bop_current();
  CHECK(self != NULL);
  bop_fiber_detach(self);
  for (int i = 0; i < 3; i++)
    children[i] = t_spawn_host(the_runtime, tree, (void *)(intptr_t)(d - 1), NULL);
  int64_t sum = 1;
  for (int i = 0; i < 3; i++)
    sum += t_result(children[i]);
  return sum;
}

static t_guest family;
static wasm_trap_t *spawns_sibling(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                   size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  bop_fiber_t *sibling = t_spawn1(&family, "sum", args[0].of.i32); /* in the caller's own store */
  results[0] = t_i32((int32_t)t_result(sibling));
  return NULL;
}

static void from_fibers(bop_runtime_t *runtime) {
  CASE("from fibers");
  the_runtime = runtime;
  CHECK_EQ(t_result(t_spawn_host(runtime, tree, (void *)4, NULL)), 1 + 3 + 9 + 27 + 81);
  const t_import imports[] = {{"fork", "i", "i", spawns_sibling, NULL},
                              {NULL, NULL, NULL, NULL, NULL}};
  t_guest_new(&family, runtime,
              "(module (import \"host\" \"fork\" (func $fork (param i32) (result i32)))"
              "  (func (export \"sum\") (param i32) (result i32)"
              "    (if (result i32) (local.get 0)"
              "      (then (i32.add (local.get 0) (call $fork (i32.sub (local.get 0) (i32.const 1)))))"
              "      (else (i32.const 0)))))",
              imports);
  CHECK_EQ(t_result(t_spawn1(&family, "sum", 30)), 465);
  t_guest_delete(&family);
}

/* ---- instances ---- */

static wasmtime_error_t *sets_up(void *env, wasmtime_context_t *context) {
  CHECK(context != NULL);
  CHECK_EQ(bop_yield(), BOP_OK); /* it runs on the new fiber */
  ++*(atomic_int *)env;
  return NULL;
}

static wasmtime_error_t *fails_to(void *env, wasmtime_context_t *context) {
  (void)env, (void)context;
  return wasmtime_error_new("no luck today");
}

static const char *const SQUARE =
    "(module (global $n (mut i32) (i32.const 0)) (memory (export \"memory\") 1)"
    "  (func (export \"square\") (param i32) (result i32)"
    "    (global.set $n (i32.add (global.get $n) (local.get 0)))"
    "    (i32.mul (global.get $n) (global.get $n)))"
    "  (func (export \"_start\")))";

/* What can't run: either the spawn says so, or the fiber ends FAILED and its trap does. */
static void cannot(bop_runtime_t *runtime, const wasmtime_instance_pre_t *pre, const char *name,
                   wasmtime_val_t *args, size_t nargs, bop_setup_fn_t setup, const char *word) {
  int before = finalized;
  bop_fiber_t *fiber = NULL;
  wasmtime_error_t *error = bop_spawn_instance(runtime, pre, name, strlen(name), args, nargs, setup,
                                               NULL, finalizes, NULL, &fiber);
  if (error != NULL) {
    FAILS(error, word);
    CHECK(fiber == NULL);
  } else {
    JOINS(fiber, BOP_OUTCOME_FAILED);
    CHECK_HAS(t_trap_text(bop_fiber_take_trap(fiber)), word);
    bop_fiber_detach(fiber);
  }
  EVENTUALLY(finalized == before + 1);
}

static void instances(bop_runtime_t *runtime) {
  CASE("instances");
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_instance_pre_t *pre = t_pre(engine, SQUARE, NULL);
  atomic_int set_up = 0;
  finalized = 0;
  bop_fiber_t *fibers[40];
  for (int i = 0; i < 40; i++) {
    wasmtime_val_t arg = t_i32(i);
    OK(bop_spawn_instance(runtime, pre, "square", 6, &arg, 1, i % 2 ? sets_up : NULL, &set_up,
                          finalizes, NULL, &fibers[i]));
  }
  for (int i = 0; i < 40; i++)
    CHECK_EQ(t_result(fibers[i]), i * i); /* each has a global of its own */
  CHECK_EQ(set_up, 20);
  EVENTUALLY(finalized == 40);

  CASE("instances that can't run");
  wasmtime_val_t one = t_i32(1), wide = t_i64(1);
  cannot(runtime, pre, "cube", NULL, 0, NULL, "cube");
  cannot(runtime, pre, "memory", NULL, 0, NULL, "memory");
  cannot(runtime, pre, "square", NULL, 0, NULL, "argument");
  cannot(runtime, pre, "square", &wide, 1, NULL, "i32");
  cannot(runtime, pre, "square", &one, 1, fails_to, "no luck today");
  int before = finalized;
  FAILS(bop_spawn_instance(runtime, NULL, "x", 1, NULL, 0, NULL, NULL, finalizes, NULL, NULL), "NULL");
  FAILS(bop_spawn_instance(runtime, pre, NULL, 1, NULL, 0, NULL, NULL, finalizes, NULL, NULL), "NULL");
  FAILS(bop_spawn_instance(NULL, pre, "x", 1, NULL, 0, NULL, NULL, finalizes, NULL, NULL), "NULL");
  FAILS(bop_spawn_instance(runtime, pre, "square", 6, NULL, 1, NULL, NULL, finalizes, NULL, NULL),
        "NULL");
  CHECK_EQ(finalized, before + 4);
  wasmtime_instance_pre_delete(pre);

  CASE("instance of another engine");
  wasm_engine_t *alien = wasm_engine_new();
  pre = t_pre(alien, SQUARE, NULL);
  cannot(runtime, pre, "square", &one, 1, NULL, "engine");
  wasmtime_instance_pre_delete(pre);
  wasm_engine_delete(alien);

  CASE("start functions");
  pre = t_pre(engine,
              "(module (func $s (loop (br 0))) (start $s) (func (export \"run\")))", NULL);
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn_instance(runtime, pre, "run", 3, NULL, 0, NULL, NULL, NULL, NULL, &fiber));
  EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_RUNNING);
  bop_outcome_t outcome;
  CHECK_EQ(bop_fiber_join_until(fiber, bop_now() + 5 * MS, &outcome), BOP_TIMEOUT);
  t_cancel_all(&fiber, 1);
  wasmtime_instance_pre_delete(pre);
  pre = t_pre(engine, "(module (func $s unreachable) (start $s) (func (export \"run\")))", NULL);
  OK(bop_spawn_instance(runtime, pre, "run", 3, NULL, 0, NULL, NULL, NULL, NULL, &fiber));
  JOINS(fiber, BOP_OUTCOME_TRAPPED);
  CHECK_HAS(t_trap_text(bop_fiber_take_trap(fiber)), "unreachable");
  bop_fiber_detach(fiber);
  wasmtime_instance_pre_delete(pre);
}

/* A reference into one store means nothing in another, least of all in one that is yet to be made. */
static void foreign_references(bop_runtime_t *runtime) {
  CASE("references into another store");
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_val_t ref = {.kind = WASMTIME_EXTERNREF};
  CHECK(wasmtime_externref_new(context, NULL, NULL, &ref.of.externref));
  const char *const takes =
      "(module (func (export \"take\") (param externref) (result i32) (ref.is_null (local.get 0))))";
  wasmtime_instance_pre_t *pre = t_pre(engine, takes, NULL);
  bop_fiber_t *fiber = NULL;
  FAILS(bop_spawn_instance(runtime, pre, "take", 4, &ref, 1, NULL, NULL, NULL, NULL, &fiber), "store");
  t_guest guest;
  t_guest_new(&guest, runtime, takes, NULL);
  FAILS(bop_spawn(guest.store, t_export(&guest, "take"), &ref, 1, NULL, &fiber), "store");
  CHECK(fiber == NULL);
  wasmtime_val_unroot(&ref);
  wasmtime_val_t null = {.kind = WASMTIME_EXTERNREF};
  wasmtime_externref_set_null(&null.of.externref);
  OK(bop_spawn_instance(runtime, pre, "take", 4, &null, 1, NULL, NULL, NULL, NULL, &fiber));
  CHECK_EQ(t_result(fiber), 1);
  OK(bop_spawn(guest.store, t_export(&guest, "take"), &null, 1, NULL, &fiber));
  CHECK_EQ(t_result(fiber), 1);
  t_guest_delete(&guest);
  wasmtime_instance_pre_delete(pre);
  wasmtime_store_delete(store);
}

static void bad_modules(bop_runtime_t *runtime) {
  CASE("bad modules");
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_module_t *module = NULL;
  FAILS(wasmtime_module_new(engine, (const uint8_t *)"no wasm at all", 14, &module), "");
  FAILS(wasmtime_module_new(engine, NULL, 0, &module), "");
  wasm_byte_vec_t bytes;
  OK(wasmtime_wat2wasm(SQUARE, strlen(SQUARE), &bytes));
  size_t refused = 0; /* a cut between two sections may leave a smaller, valid module */
  for (size_t n = 0; n < bytes.size; n++) {
    wasmtime_error_t *error = wasmtime_module_validate(engine, (const uint8_t *)bytes.data, n);
    refused += error != NULL;
    if (error != NULL)
      wasmtime_error_delete(error);
  }
  CHECK(refused + 8 > bytes.size);
  FAILS(wasmtime_module_new(engine, (const uint8_t *)bytes.data, bytes.size / 2, &module), "");
  CHECK(module == NULL);
  wasm_byte_vec_delete(&bytes);

  CASE("wrong imports");
  module = t_module(engine, "(module (import \"host\" \"missing\" (func (param i32))))");
  wasmtime_instance_pre_t *pre = NULL;
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  FAILS(wasmtime_linker_instantiate_pre(linker, module, &pre), "missing");
  wasm_functype_t *type = t_functype("I", "");
  OK(wasmtime_linker_define_func(linker, "host", 4, "missing", 7, type, spawns_sibling, NULL, NULL));
  FAILS(wasmtime_linker_instantiate_pre(linker, module, &pre), "missing");
  CHECK(pre == NULL);
  wasm_functype_delete(type);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  CHECK_EQ(t_result(t_spawn_host(runtime, twelve, NULL, NULL)), 12); /* all is well */
}

int main(void) {
  t_start("spawn");
  bop_runtime_t *runtime = t_runtime(2, 0);
  types(runtime); /* starts it */
  wrong_arguments(runtime);
  options(runtime);
  from_fibers(runtime);
  instances(runtime);
  foreign_references(runtime);
  bad_modules(runtime);
  OK(bop_runtime_delete(runtime));
  return 0;
}
