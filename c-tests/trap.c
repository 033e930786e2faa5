/* A trap ends its own fiber, with the message and the backtrace of that fiber, and nothing else. */
#include "support/support.h"

static wasm_trap_t *yields(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  bop_status_t status = bop_yield();
  CHECK_EQ(status, bop_cancelled() ? BOP_CANCELLED : BOP_OK);
  return NULL;
}

static wasm_trap_t *fails(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                          size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_sleep(MS), BOP_OK);
  char text[32];
  int n = snprintf(text, sizeof text, "disk %d on fire", args[0].of.i32);
  return wasmtime_trap_new(text, (size_t)n);
}

/* Calls the guest's export "unreachable", which traps, and tells the trap's trace apart. */
static wasm_trap_t *calls_back(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                               size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)nresults;
  wasmtime_extern_t item;
  CHECK(wasmtime_caller_export_get(caller, "unreachable", 11, &item));
  wasm_trap_t *trap = NULL;
  wasmtime_val_t turns = t_i32(2);
  OK(wasmtime_func_call(wasmtime_caller_context(caller), &item.of.func, &turns, 1, NULL, 0, &trap));
  CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED);
  CHECK_HAS(t_trap_trace(trap), "wall a_unreachable");
  if (args[0].of.i32)
    return trap; /* passed on */
  wasm_trap_delete(trap);
  results[0] = t_i32(17); /* caught: the caller goes on */
  return NULL;
}

static const t_import IMPORTS[] = {{"yield", "", "", yields, NULL},
                                   {"fail", "i", "", fails, NULL},
                                   {"call_back", "i", "i", calls_back, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

/* Each kind of trap is reached through a chain of its own, after some turns of others. */
static const char *const GUEST =
    "(module (import \"host\" \"yield\" (func $yield))"
    "  (import \"host\" \"fail\" (func $fail (param i32)))"
    "  (import \"host\" \"call_back\" (func $call_back (param i32) (result i32)))"
    "  (memory 1) (table 4 funcref) (type $v (func))"
    "  (func $turns (param i32) (loop (if (local.get 0) (then"
    "    (call $yield) (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br 1)))))"
    "  (func $wall (param i32) (call $turns (local.get 0)) unreachable)"
    "  (func $a_unreachable (export \"unreachable\") (param i32) (call $wall (local.get 0)))"
    "  (func $reader (param i32) (call $turns (local.get 0)) (drop (i32.load (i32.const 65536))))"
    "  (func $b_oob (export \"oob\") (param i32) (call $reader (local.get 0)))"
    "  (func $divider (param i32) (call $turns (local.get 0))"
    "    (drop (i32.div_s (i32.const 1) (i32.const 0))))"
    "  (func $c_div (export \"div\") (param i32) (call $divider (local.get 0)))"
    "  (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))"
    "  (func $d_deep (export \"deep\") (param i32) (call $turns (local.get 0))"
    "    (drop (call $deep (local.get 0))))"
    "  (func $messenger (param i32) (call $turns (local.get 0)) (call $fail (local.get 0)))"
    "  (func $e_fail (export \"fail\") (param i32) (call $messenger (local.get 0)))"
    "  (func $f_null (export \"null\") (param i32) (call $turns (local.get 0))"
    "    (call_indirect (type $v) (i32.const 3)))"
    "  (func $g_pass (export \"pass\") (result i32) (call $call_back (i32.const 1)))"
    "  (func $h_catch (export \"catch\") (result i32)"
    "    (i32.add (call $call_back (i32.const 0)) (i32.const 1)))"
    "  (func (export \"good\") (param i32) (result i32)"
    "    (call $turns (local.get 0)) (i32.mul (local.get 0) (local.get 0))))";

static const struct kind {
  const char *export_, *trace, *message;
  int code;
} KINDS[] = {
    {"unreachable", "wall a_unreachable", "unreachable", WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED},
    {"oob", "reader b_oob", "out of bounds", WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS},
    {"div", "divider c_div", "divide by zero", WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO},
    {"deep", "deep deep deep deep", "stack", WASMTIME_TRAP_CODE_STACK_OVERFLOW},
    {"fail", "messenger e_fail", "disk", -1},
    {"null", "f_null", "", WASMTIME_TRAP_CODE_INDIRECT_CALL_TO_NULL},
};
enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

static void check(bop_fiber_t *own, const struct kind *kind, int number) {
  JOINS(own, BOP_OUTCOME_TRAPPED);
  wasm_trap_t *trap = bop_fiber_take_trap(own);
  CHECK(trap != NULL);
  CHECK(bop_fiber_take_trap(own) == NULL); /* it was taken */
  const char *trace = t_trap_trace(trap);
  /* The whole trace, except for the deep one, which Wasmtime cuts. */
  if (strncmp(trace, kind->trace, strlen(kind->trace)) != 0 ||
      (kind->code != WASMTIME_TRAP_CODE_STACK_OVERFLOW && strcmp(trace, kind->trace) != 0))
    t_fail(__FILE__, __LINE__, "%s: trace is \"%s\", not \"%s\"", kind->export_, trace, kind->trace);
  CHECK_HAS(t_trap_message(trap), kind->message);
  CHECK_EQ(t_trap_code(trap), kind->code);
  if (kind->code == -1) { /* the host's own words */
    char want[32];
    snprintf(want, sizeof want, "disk %d on fire", number);
    CHECK_HAS(t_trap_message(trap), want);
  }
  wasm_trap_delete(trap);
  CHECK_EQ(bop_fiber_state(own), BOP_STATE_FINISHED);
  bop_fiber_detach(own);
}

static void each_kind(bop_runtime_t *runtime) {
  for (int k = 0; k < KIND_COUNT; k++) {
    CASE(KINDS[k].export_);
    t_guest guest;
    t_guest_new(&guest, runtime, GUEST, IMPORTS);
    bop_fiber_t *sibling = t_spawn1(&guest, "good", 20);
    for (int turns = 0; turns < 3; turns++)
      check(t_spawn1(&guest, KINDS[k].export_, turns), &KINDS[k], turns);
    CHECK_EQ(t_result(sibling), 400);
    t_guest_delete(&guest);
  }
}

/* All kinds interleaved in one store, so that each trap happens beside suspended siblings. */
static void together(bop_runtime_t *runtime) {
  CASE("all kinds in one store");
  enum { ROUNDS = 25 };
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *fibers[ROUNDS][KIND_COUNT + 1];
  for (int i = 0; i < ROUNDS; i++)
    for (int k = 0; k <= KIND_COUNT; k++)
      fibers[i][k] = t_spawn1(&guest, k == KIND_COUNT ? "good" : KINDS[k].export_, (i * 7 + k) % 13);
  for (int i = 0; i < ROUNDS; i++)
    for (int k = 0; k <= KIND_COUNT; k++) {
      int turns = (i * 7 + k) % 13;
      if (k == KIND_COUNT)
        CHECK_EQ(t_result(fibers[i][k]), turns * turns);
      else
        check(fibers[i][k], &KINDS[k], turns);
    }
  t_guest_delete(&guest);
}

static void nested(bop_runtime_t *runtime) {
  CASE("a trap in Wasm that a host function called");
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *siblings[4];
  for (int i = 0; i < 4; i++)
    siblings[i] = t_spawn1(&guest, "good", 10 + i);
  for (int i = 0; i < 8; i++) {
    CHECK_EQ(t_result(t_spawn0(&guest, "catch")), 18);
    bop_fiber_t *fiber = t_spawn0(&guest, "pass");
    JOINS(fiber, BOP_OUTCOME_TRAPPED);
    wasm_trap_t *trap = bop_fiber_take_trap(fiber);
    CHECK_HAS(t_trap_trace(trap), "wall a_unreachable");
    CHECK_HAS(t_trap_text(trap), "unreachable");
    bop_fiber_detach(fiber);
  }
  for (int i = 0; i < 4; i++)
    CHECK_EQ(t_result(siblings[i]), (10 + i) * (10 + i));
  t_guest_delete(&guest);
}

/* In a poisoned store all end with the first trap, and none comes in. */
static void poison(bop_runtime_t *runtime) {
  CASE("poison");
  t_guest guest, other;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  t_guest_new(&other, runtime, GUEST, IMPORTS);
  FAILS(bop_store_trap_policy(NULL, BOP_TRAP_POISON), "NULL");
  FAILS(bop_store_trap_policy(guest.store, (bop_trap_policy_t)9), "policy");
  OK(bop_store_trap_policy(guest.store, BOP_TRAP_POISON));
  CHECK_EQ(t_result(t_spawn1(&guest, "good", 5)), 25); /* nothing has happened yet */
  bop_fiber_t *siblings[6], *bystander;
  wasmtime_context_t *context = NULL;
  OK(bop_store_enter(guest.store, &context)); /* none runs before all are there */
  bystander = t_spawn1(&other, "good", 2000);
  for (int i = 0; i < 6; i++)
    siblings[i] = t_spawn1(&guest, "good", 1 << 30);
  bop_fiber_t *trapper = t_spawn1(&guest, "div", 3);
  OK(bop_store_exit(guest.store));
  check(trapper, &KINDS[2], 3);
  for (int i = 0; i < 6; i++)
    ENDS(siblings[i], BOP_OUTCOME_CANCELLED);
  CHECK_EQ(t_result(bystander), 2000 * 2000);
  bop_fiber_t *late = NULL;
  wasmtime_val_t argument = t_i32(1);
  for (int i = 0; i < 2; i++)
    FAILS(bop_spawn(guest.store, t_export(&guest, "good"), &argument, 1, NULL, &late), "divide by zero");
  CHECK(late == NULL);
  OK(bop_store_enter(guest.store, &context)); /* what is in it can still be looked at */
  OK(bop_store_exit(guest.store));
  OK(bop_store_trap_policy(guest.store, BOP_TRAP_ISOLATE));
  CHECK_EQ(t_result(t_spawn1(&guest, "good", 6)), 36);
  OK(bop_store_trap_policy(guest.store, BOP_TRAP_POISON)); /* what was is forgotten */
  CHECK_EQ(t_result(t_spawn1(&guest, "good", 7)), 49);
  t_guest_delete(&guest);
  t_guest_delete(&other);
}

/* ---- WASI's proc_exit is an outcome, not a trap ---- */

static wasmtime_error_t *sets_wasi(void *env, wasmtime_context_t *context) {
  (void)env;
  return wasmtime_context_set_wasi(context, wasi_config_new());
}

static void exits(bop_runtime_t *runtime) {
  CASE("proc_exit");
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  OK(bop_linker_define_wasi(linker));
  wasmtime_module_t *module = t_module(
      engine,
      "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))"
      "  (memory (export \"memory\") 1)"
      "  (func $leave (param i32) (call $exit (local.get 0)))"
      "  (func (export \"exit\") (param i32) (call $leave (local.get 0)) unreachable)"
      "  (func (export \"stay\") (result i32) (i32.const 3)))");
  wasmtime_instance_pre_t *pre = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  const int codes[] = {0, 1, 7, 125};
  for (int i = 0; i < 4; i++) {
    wasmtime_val_t code = t_i32(codes[i]);
    bop_fiber_t *fiber = NULL;
    OK(bop_spawn_instance(runtime, pre, "exit", 4, &code, 1, sets_wasi, NULL, NULL, NULL, &fiber));
    JOINS(fiber, BOP_OUTCOME_EXITED);
    CHECK_EQ(bop_fiber_exit_code(fiber), codes[i]);
    CHECK(bop_fiber_take_trap(fiber) == NULL);
    FAILS(bop_fiber_results(fiber, NULL, 0), "exit");
    bop_fiber_detach(fiber);
  }

  /* The same in a store of the host's, where a sibling goes on. */
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  OK(wasmtime_context_set_wasi(context, wasi_config_new()));
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_linker_instantiate(linker, context, module, &instance, &trap));
  CHECK(trap == NULL);
  wasmtime_func_t leave = t_func(context, &instance, "exit"), stay = t_func(context, &instance, "stay");
  bop_store_t *handle = NULL;
  OK(bop_store_new(runtime, store, &handle));
  bop_fiber_t *leaver = NULL, *stayer = NULL;
  wasmtime_val_t code = t_i32(9);
  OK(bop_spawn(handle, &leave, &code, 1, NULL, &leaver));
  OK(bop_spawn(handle, &stay, NULL, 0, NULL, &stayer));
  JOINS(leaver, BOP_OUTCOME_EXITED);
  CHECK_EQ(bop_fiber_exit_code(leaver), 9);
  bop_fiber_detach(leaver);
  CHECK_EQ(t_result(stayer), 3);
  bop_store_delete(handle);
  wasmtime_instance_pre_delete(pre);
  wasmtime_module_delete(module);
  wasmtime_linker_delete(linker);
}

int main(void) {
  t_start("trap");
  bop_runtime_t *runtime = t_runtime(2, 50000);
  OK(bop_runtime_start(runtime));
  each_kind(runtime);
  together(runtime);
  nested(runtime);
  poison(runtime);
  exits(runtime);
  OK(bop_runtime_delete(runtime));
  return 0;
}
