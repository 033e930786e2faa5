/* Many fibers in one instance of a compiled guest: each has a stack of its own in the guest's memory, and the
 * stack pointer goes with it, on whatever thread. Who overflows that stack dies alone; and the stacks, and memory
 * that had them, are used again. (Sizes, allocators, what is refused: share_limits.c.) */
#include "support/compiled.h"

#include <unistd.h>

/* With another store to take turns with, a strand moves between workers, and its fibers with it. */
static void wander(bop_runtime_t *runtime, const t_guest *guest) {
  t_guest other;
  t_compiled_new(&other, runtime, "");
  bop_fiber_t *spin[4];
  for (int i = 0; i < 4; i++)
    spin[i] = t_spawn0(&other, "spin");
  t_wanderers = 0;
  while (t_wanderers < 100) {
    t_forget_threads();
    CHECK_EQ(t_sums(guest, MANY, 5, NULL), 0);
  }
  t_cancel_all(spin, 4);
  t_guest_delete(&other);
}

static void shared_and_not(uint64_t quantum, const char *name) {
  CASE(name);
  bop_runtime_t *runtime = t_runtime(3, quantum);
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
  /* The control: without a stack each, they overwrite each other's frames. All are there before the first runs. */
  CHECK(t_sums(&guest, MANY, 5, runtime) > MANY / 2);
  t_guest_delete(&guest);
  t_compiled_new(&guest, runtime, "");
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  for (int round = 0; round < 3; round++)
    CHECK_EQ(t_sums(&guest, MANY, 5, NULL), 0);
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
  OK(bop_runtime_delete(runtime));
}

/* Regions are used again: a thousand fibers one after another need one. */
static void reuse(bop_runtime_t *runtime) {
  CASE("reuse");
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  for (int i = 0; i < 1000; i++)
    CHECK_EQ((int32_t)t_result(t_spawn(&guest, "sum", (int32_t[]){i, 2}, 2)), t_sum(i, 2));
  CHECK(t_result(t_spawn0(&guest, "pages")) <= 2 + 6); /* 4 of 64 + 16 KiB */
  t_guest_delete(&guest);
}

/* A fiber that recurses without end dies alone, while the others keep their frames. */
static void overflow(bop_runtime_t *runtime, bool guards) {
  CASE(guards ? "overflow" : "overflow without guards");
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
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
      t_overflows(bad[i], "16384 bytes of stack");
      CHECK_EQ((int32_t)t_result(good[i]), t_sum(i, 8));
    } else {
      JOINS(bad[i], BOP_OUTCOME_TRAPPED);
      bop_fiber_detach(bad[i]);
      JOINS(good[i], BOP_OUTCOME_RETURNED);
      bop_fiber_detach(good[i]);
    }
  }
  /* Their regions are as good as new, guards included. */
  if (guards) {
    CHECK_EQ(t_sums(&guest, GOOD * 2, 8, NULL), 0);
    /* One after another they have the same one; each opens a page of its guard. */
    for (int i = 0; i < 20; i++)
      t_overflows(t_spawn1(&guest, "dive", 512), "16384 bytes of stack");
  }
  t_guest_delete(&guest);
}

/* A host function that a guest makes write over the end of its stack does not crash the host, nor hit
 * another fiber; the guest pays. */
static void host_writes(bop_runtime_t *runtime) {
  CASE("host writes");
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 16 << 10);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  bop_fiber_t *good[8];
  for (int i = 0; i < 8; i++)
    good[i] = t_spawn(&guest, "sum", (int32_t[]){i, 8}, 2);
  ENDS(t_spawn1(&guest, "fill_below", 16 << 10), BOP_OUTCOME_RETURNED);
  t_overflows(t_spawn1(&guest, "fill_below", (16 << 10) + 1), "16384 bytes of stack");
  t_overflows(t_spawn1(&guest, "fill_below", (32 << 10)), "16384 bytes of stack");
  for (int i = 0; i < 8; i++)
    CHECK_EQ((int32_t)t_result(good[i]), t_sum(i, 8));
  t_guest_delete(&guest);
}

/* Somebody who reads all of the memory opens every guard in it, and nobody is the worse for it: they are closed again
 * before the next fiber runs. */
static void read_by_others(bop_runtime_t *runtime) {
  CASE("read by others");
  t_guest guest;
  t_compiled_new(&guest, runtime, "");
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 16 << 10);
  bop_share_options_reserve(options, 8);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  for (int i = 0; i < 4; i++) {
    wasmtime_context_t *context;
    wasmtime_extern_t memory;
    OK(bop_store_enter(guest.store, &context));
    CHECK(wasmtime_instance_export_get(context, &guest.instance, "memory", 6, &memory));
    const volatile uint8_t *data = wasmtime_memory_data(context, &memory.of.memory);
    uint64_t sum = 0;
    for (size_t at = 0; at < wasmtime_memory_data_size(context, &memory.of.memory); at += 4096)
      sum += data[at];
    OK(bop_store_exit(guest.store));
    CHECK(i == 0 || sum != 0); /* of what former fibers have left in their stacks */
    t_overflows(t_spawn1(&guest, "dive", 512), "16384 bytes of stack");
    CHECK_EQ(t_sums(&guest, 8, 8, NULL), 0);
  }
  t_guest_delete(&guest);
}

/* Memory that is used again for the next instance has no guards left in it. */
static void pooled(bop_guard_t guard) {
  CASE("pooled");
  wasmtime_pooling_allocation_config_t *pool = wasmtime_pooling_allocation_config_new();
  wasmtime_pooling_allocation_config_total_memories_set(pool, 1);
  wasm_config_t *wasm = wasm_config_new();
  wasmtime_pooling_allocation_strategy_set(wasm, pool);
  wasmtime_pooling_allocation_config_delete(pool);
  bop_runtime_t *runtime = t_compiled_runtime(wasm, guard, 0);
  for (int i = 0; i < 3; i++) {
    t_guest guest;
    t_compiled_new(&guest, runtime, "");
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
    CHECK_EQ(t_sums(&guest, 20, 5, NULL), 0);
    t_overflows(t_spawn1(&guest, "dive", 512), "65536 bytes of stack");
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
    runtime = t_compiled_runtime(NULL, i & 1 ? BOP_GUARD_MPROTECT : BOP_GUARD_AUTO, i & 2 ? 3600 * SECOND : 0);
    overflow(runtime, true);
    host_writes(runtime);
    read_by_others(runtime);
    OK(bop_runtime_delete(runtime));
  }
  pooled(BOP_GUARD_AUTO);
  pooled(BOP_GUARD_MPROTECT);
  runtime = t_compiled_runtime(NULL, BOP_GUARD_AUTO, 0);
  reuse(runtime);
  overflow(runtime, false);
  OK(bop_runtime_delete(runtime));
  return 0;
}
