/* How an instance is shared among the fibers of its store: how large their stacks may be and where they come
 * from, what is refused, and what bop_module_prepare makes of a module that exports nothing of it. */
#include "support/compiled.h"

static void sizes(bop_runtime_t *runtime) {
  CASE("sizes");
  t_guest guest;
  t_compiled_new(&guest, runtime, "40");
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  bop_spawn_options_t *options = bop_spawn_options_new();
  wasmtime_val_t args[2] = {t_i32(3), t_i32(100)};
  bop_fiber_t *fiber;
  /* 101 KiB of frames do not fit into 64. */
  OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, NULL, &fiber));
  t_overflows(fiber, "65536 bytes");
  bop_spawn_options_shadow_stack(options, 128 << 10);
  OK(bop_spawn(guest.store, t_export(&guest, "sum"), args, 2, options, &fiber));
  CHECK_EQ((int32_t)t_result(fiber), t_sum(3, 100));
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
  CHECK_EQ((int32_t)t_result(t_spawn(&guest, "sum", (int32_t[]){9, 5}, 2)), t_sum(9, 5));
  bop_spawn_options_delete(options);
  t_guest_delete(&guest);
}

static void allocator(bop_runtime_t *runtime) {
  CASE("allocator");
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
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
  CHECK_EQ(t_sums(&guest, MANY, 5, NULL), 0);
  /* Those may have come one after another. These are there at once, and more than there are stacks in reserve. */
  bop_fiber_t *waits[8];
  OK(bop_channel_new(8, &t_compiled_gate));
  for (int i = 0; i < 8; i++)
    waits[i] = t_spawn0(&guest, "waits");
  for (int i = 0; i < 8; i++)
    EVENTUALLY(bop_fiber_state(waits[i]) == BOP_STATE_PARKED);
  CHECK(t_result(t_spawn0(&guest, "calls")) > 1);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(bop_channel_send(t_compiled_gate, 0), BOP_OK);
  for (int i = 0; i < 8; i++)
    ENDS(waits[i], BOP_OUTCOME_RETURNED);
  bop_channel_delete(t_compiled_gate);
  t_guest_delete(&guest);
}

static void refusals(bop_runtime_t *runtime) {
  CASE("refusals");
  t_guest guest, other;
  t_compiled_new(&guest, runtime, "");
  t_compiled_new(&other, runtime, "");
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
  CHECK_EQ(t_sums(&guest, 20, 5, NULL), 0);
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
  char *text = t_compiled_text("", false);
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
  wasmtime_linker_t *linker = t_linker(engine, t_compiled_imports);
  wasmtime_store_t *own = wasmtime_store_new(engine, NULL, NULL);
  wasm_trap_t *trap = NULL;
  t_guest guest;
  OK(wasmtime_linker_instantiate(linker, wasmtime_store_context(own), module, &guest.instance, &trap));
  t_find_exports(&guest, wasmtime_store_context(own));
  OK(bop_store_new(runtime, own, &guest.store));
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  CHECK_EQ(t_sums(&guest, MANY, 5, NULL), 0);
  t_guest_delete(&guest);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
}

int main(void) {
  t_start("share_limits");
  bop_runtime_t *runtime = t_compiled_runtime(NULL, BOP_GUARD_AUTO, 0);
  sizes(runtime);
  allocator(runtime);
  refusals(runtime);
  prepared(runtime);
  OK(bop_runtime_delete(runtime));
  return 0;
}
