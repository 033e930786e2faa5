#include "guests.h"

struct t_world world;
const uint64_t t_quanta[QUANTA] = {0, 50000, CALM};

/* ---- what guests import from the host ---- */

#define HOST_FUNCTION(name)                                                                                \
  static wasm_trap_t *name(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs, \
                           wasmtime_val_t *results, size_t nresults)
#define UNUSED() ((void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults)

HOST_FUNCTION(is) {
  UNUSED();
  if (args[1].of.i32 != args[2].of.i32)
    t_fail(world.file, args[0].of.i32, "the guest has %d, not %d", (int)args[1].of.i32, (int)args[2].of.i32);
  return NULL;
}

HOST_FUNCTION(live) {
  UNUSED();
  results[0] = t_i32((int32_t)t_stats(world.runtime).live);
  return NULL;
}

HOST_FUNCTION(waits_at_gate) {
  UNUSED();
  bop_status_t status = bop_channel_receive(world.gate, NULL);
  CHECK(status == BOP_OK || status == BOP_CANCELLED); /* then the guest traps at its next check */
  return NULL;
}

HOST_FUNCTION(cancels_itself) {
  UNUSED();
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  return NULL;
}

HOST_FUNCTION(tells) {
  UNUSED();
  world.told += args[0].of.i32;
  return NULL;
}

wasmtime_linker_t *t_world_linker(void) {
  static const t_import host[] = {
      {"is", "iii", "", is, NULL},           {"live", "", "i", live, NULL},
      {"gate", "", "", waits_at_gate, NULL}, {"cancel", "", "", cancels_itself, NULL},
      {"tell", "i", "", tells, NULL},        {NULL, NULL, NULL, NULL, NULL}};
  wasmtime_linker_t *linker = t_linker(bop_runtime_engine(world.runtime), host);
  OK(bop_linker_define(linker));
  return linker;
}

/* ---- the runtime ---- */

void t_world_begin(const char *file, size_t workers, uint64_t quantum_ns, size_t max_fibers) {
  world.file = file;
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, workers);
  bop_config_quantum(config, quantum_ns);
  if (max_fibers)
    bop_config_max_fibers(config, max_fibers);
  OK(bop_runtime_new(config, &world.runtime));
  OK(bop_runtime_start(world.runtime));
}

void t_world_end(uint64_t live) {
  EVENTUALLY(t_stats(world.runtime).live == live);
  uint64_t start = t_now();
  OK(bop_runtime_delete(world.runtime));
  CHECK(t_now() - start < 4 * SECOND);
}

/* ---- stores and instances ---- */

void t_world_frees(void *count) { ++*(atomic_int *)count; }

wasmtime_store_t *t_world_store(void) {
  return wasmtime_store_new(bop_runtime_engine(world.runtime), &world.freed, t_world_frees);
}

const char *t_instantiate(wasmtime_context_t *context, const char *wat, wasmtime_instance_t *instance) {
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), wat);
  wasmtime_linker_t *linker = t_world_linker();
  wasm_trap_t *trap = NULL;
  wasmtime_error_t *error = wasmtime_linker_instantiate(linker, context, module, instance, &trap);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  return error ? t_error_text(error) : trap ? t_trap_text(trap) : NULL;
}

void t_add_instance(t_guest *guest, wasmtime_context_t *context, const char *wat) {
  const char *error = t_instantiate(context, wat, &guest->instance);
  if (error)
    t_fail(__FILE__, __LINE__, "%s", error);
  t_find_exports(guest, context);
}

void t_world_guest(t_guest *guest, const char *wat) {
  wasmtime_store_t *store = t_world_store();
  t_add_instance(guest, wasmtime_store_context(store), wat);
  OK(bop_store_new(world.runtime, store, &guest->store));
}

void t_world_guests(t_guest guests[2], const char *first_wat, const char *second_wat) {
  wasmtime_store_t *store = t_world_store();
  t_add_instance(&guests[0], wasmtime_store_context(store), first_wat);
  t_add_instance(&guests[1], wasmtime_store_context(store), second_wat);
  OK(bop_store_new(world.runtime, store, &guests[0].store));
  guests[1].store = guests[0].store;
}

/* ---- fibers ---- */

int64_t t_result_of(const char *wat, const char *name, const int32_t *args, size_t nargs) {
  t_guest guest;
  t_world_guest(&guest, wat);
  int64_t result = t_result(t_spawn(&guest, name, args, nargs));
  int before = world.freed;
  t_guest_delete(&guest);
  EVENTUALLY(world.freed == before + 1);
  return result;
}

const char *t_trap_of(bop_fiber_t *own) {
  JOINS(own, BOP_OUTCOME_TRAPPED);
  const char *text = t_trap_text(bop_fiber_take_trap(own));
  bop_fiber_detach(own);
  return text;
}

/* A function of the host's that goes with the store, and tells. */
static wasmtime_error_t *sets_up(void *env, wasmtime_context_t *context) {
  wasm_functype_t *type = t_functype("i", "");
  wasmtime_func_t func;
  wasmtime_func_new(context, type, tells, env, t_world_frees, &func);
  wasm_functype_delete(type);
  return NULL;
}

bop_fiber_t *t_spawn_run(const char *wat, wasmtime_val_t *args, size_t nargs) {
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), wat);
  wasmtime_linker_t *linker = t_world_linker();
  wasmtime_instance_pre_t *pre = NULL;
  bop_fiber_t *fiber = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  OK(bop_spawn_instance(world.runtime, pre, "run", 3, args, nargs, sets_up, &world.freed, NULL, NULL, &fiber));
  wasmtime_instance_pre_delete(pre);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  return fiber;
}
