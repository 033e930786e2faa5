/* What a store may use with all its fibers: time on the clock, and on processors; and what the memories and tables of
 * a fresh one may have. */
#include "support/guests.h"
#include "support/limits.h"

static const char *const STORE = GUEST(
    "(func $spin (export \"spin\") (param i32) (loop (br 0)))"
    FUNC("gates", "(param i32)", "(call $gate) (call $spin (i32.const 0))")
    FUNC("sleeps", "(param i32)", "(drop " SLEEP(HOUR) ") (call $spin (i32.const 0))")
    FUNC("tells", "(param i32) (result i32)", "(call $tell (local.get 0)) (i32.const 7)")
    FUNC("lap", "(param $n i32) (result i32)",
         "(loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 8)")
    FUNC("yields", "(param i32)", "(loop (drop " YIELD ") (br 0))"));

static wasmtime_error_t *spawn(const t_guest *guest, const char *name, bop_fiber_t **out) {
  wasmtime_val_t one = t_i32(1);
  return bop_spawn(guest->store, t_export(guest, name), &one, 1, NULL, out);
}

static void begin(size_t workers, uint64_t quantum) {
  BEGIN(workers, quantum, 0);
  OK(bop_channel_new(1, &world.gate));
  world.told = world.freed = 0;
}

static void end(int stores) {
  EVENTUALLY(world.freed == stores);
  EVENTUALLY(t_stats(world.runtime).live == 0);
  CHECK_EQ(t_next(world.runtime), UINT64_MAX); /* no timer is left */
  bop_channel_delete(world.gate);
  t_world_end(0);
}

/* ---- deadlines ---- */

static void all_of_them_time_out(size_t workers) {
  CASE("the deadline of a store");
  begin(workers, 50000);
  t_guest guest, other;
  t_world_guest(&guest, STORE);
  t_world_guest(&other, STORE);
  const char *const names[] = {"spin", "gates", "sleeps", "yields", "spin", "gates"};
  enum { FIBERS = sizeof names / sizeof names[0] };
  bop_fiber_t *fibers[FIBERS], *beside = t_spawn1(&other, "spin", 0), *none = NULL;
  for (int i = 0; i < FIBERS; i++) /* the last two have a later one of their own */
    fibers[i] = t_limited(&guest, names[i], 0, LIMITS(.deadline = i < 4 ? 0 : bop_now() + 3600 * SECOND));
  uint64_t deadline = bop_now() + 20 * MS;
  CHECK_EQ(bop_store_deadline(guest.store, bop_now() + 3600 * SECOND), BOP_OK);
  CHECK_EQ(bop_store_deadline(guest.store, deadline), BOP_OK); /* in place of the other one */
  for (int i = 0; i < FIBERS; i++)
    STOPPED(fibers[i], BOP_OUTCOME_TIMED_OUT);
  CHECK(bop_now() >= deadline);
  FAILS(spawn(&guest, "tells", &none), "deadline");
  CHECK_EQ(bop_store_deadline(guest.store, 0), BOP_OK); /* too late */
  FAILS(spawn(&guest, "tells", &none), "deadline");
  CHECK(none == NULL && world.told == 0);
  CHECK_EQ(t_result(t_spawn1(&other, "tells", 1)), 7);
  t_cancel_all(&beside, 1);
  /* It can be looked at, and its own thread may still use it. */
  wasmtime_context_t *context;
  OK(bop_store_enter(guest.store, &context));
  OK(bop_store_exit(guest.store));
  t_guest_delete(&guest);
  t_guest_delete(&other);
  end(2);
}

static void in_time(void) {
  CASE("taken back in time, and deleted before");
  begin(2, 50000);
  t_guest guest;
  t_world_guest(&guest, STORE);
  CHECK_EQ(bop_store_deadline(guest.store, bop_now() + 3600 * SECOND), BOP_OK);
  CHECK_EQ(bop_store_deadline(guest.store, 0), BOP_OK);
  CHECK_EQ(t_next(world.runtime), UINT64_MAX);
  CHECK_EQ(bop_store_deadline(guest.store, UINT64_MAX), BOP_OK);
  CHECK_EQ(t_result(t_spawn1(&guest, "tells", 1)), 7);
  /* Its fibers have no handle on it, but its deadline. */
  bop_fiber_t *spins = t_spawn1(&guest, "spin", 0);
  CHECK_EQ(bop_store_deadline(guest.store, bop_now() + 20 * MS), BOP_OK);
  t_guest_delete(&guest);
  STOPPED(spins, BOP_OUTCOME_TIMED_OUT);
  for (int i = 0; i < 500; i++) {
    t_world_guest(&guest, STORE);
    CHECK_EQ(bop_store_deadline(guest.store, bop_now() + (uint64_t)(i % 3) * 3600 * SECOND / 2 + 1), BOP_OK);
    t_guest_delete(&guest);
  }
  end(501);
}

/* Whatever is spawned when it has passed never begins: it is refused, or ends so. */
static void late_from_the_beginning(void) {
  CASE("a deadline that has passed already");
  begin(1, 0);
  enum { STORES = 200 };
  for (int i = 0; i < STORES; i++) {
    t_guest guest;
    t_world_guest(&guest, STORE);
    CHECK_EQ(bop_store_deadline(guest.store, i % 2 ? 1 : bop_now()), BOP_OK);
    bop_fiber_t *late = NULL;
    wasmtime_error_t *error = spawn(&guest, "tells", &late);
    if (error != NULL)
      FAILS(error, "deadline");
    else
      STOPPED(late, BOP_OUTCOME_TIMED_OUT);
    CHECK_EQ(world.told, 0);
    t_guest_delete(&guest);
  }
  end(STORES);
}

/* What a guest has spawned goes with its program, also when that is stopped. */
static void programs(void) {
  CASE("a program with fibers of its own");
  begin(2, 50000);
  static const char *const PROGRAM = GUEST(
      FUNC("child", "(param i32) (result i32)", "(call $gate) (loop (br 0)) (i32.const 0)")
      "(elem (i32.const 1) $child)"
      FUNC("run", "(param i32)", "(loop (drop " SPAWN(N(1), N(0)) ") (br_if 0 (i32.lt_u (call $live) (i32.const 5))))"
           "(call $tell (i32.const 1)) (loop (br 0))"));
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), PROGRAM);
  wasmtime_linker_t *linker = t_world_linker();
  wasmtime_instance_pre_t *pre = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  const t_limits limits[] = {{.deadline = bop_now() + 50 * MS}, {.budget = 20 * MS}};
  for (int i = 0; i < 2; i++) {
    bop_spawn_options_t *options = t_options(limits[i]);
    wasmtime_val_t zero = t_i32(0);
    bop_fiber_t *program = NULL;
    OK(bop_spawn_instance(world.runtime, pre, "run", 3, &zero, 1, NULL, &world.freed, t_world_frees, options,
                          &program));
    bop_spawn_options_delete(options);
    STOPPED(program, i == 0 ? BOP_OUTCOME_TIMED_OUT : BOP_OUTCOME_OUT_OF_BUDGET);
    EVENTUALLY(t_stats(world.runtime).live == 0 && world.freed == i + 1);
  }
  wasmtime_instance_pre_delete(pre);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  end(2);
}

/* ---- time on processors ---- */

static void they_share(void) {
  CASE("the budget of a store");
  begin(2, 50000);
  t_guest guest, other;
  t_world_guest(&guest, STORE);
  t_world_guest(&other, STORE);
  CHECK_EQ(bop_store_cpu(guest.store), 0);
  uint64_t since = bop_now();
  CHECK_EQ(bop_store_cpu_budget(guest.store, 30 * MS), BOP_OK);
  bop_fiber_t *beside = t_spawn1(&other, "spin", 0), *waits = t_spawn1(&guest, "gates", 0), *fibers[3], *late;
  for (int i = 0; i < 3; i++)
    fibers[i] = t_limited(&guest, i == 1 ? "yields" : "spin", 0, LIMITS(.budget = 600 * SECOND));
  uint64_t sum = 0;
  for (int i = 0; i < 3; i++) {
    JOINS(fibers[i], BOP_OUTCOME_OUT_OF_BUDGET);
    sum += bop_fiber_cpu(fibers[i]);
    STOPPED(fibers[i], BOP_OUTCOME_OUT_OF_BUDGET);
  }
  /* One that waits is stopped when it runs, and so is one that comes. */
  CHECK(bop_fiber_state(waits) != BOP_STATE_FINISHED);
  CHECK_EQ(bop_channel_send(world.gate, 0), BOP_OK);
  STOPPED(waits, BOP_OUTCOME_OUT_OF_BUDGET);
  OK(spawn(&guest, "spin", &late));
  STOPPED(late, BOP_OUTCOME_OUT_OF_BUDGET);
  uint64_t used = bop_store_cpu(guest.store);
  CHECK(used >= 30 * MS && used >= sum);
  CHECK(used <= bop_now() - since); /* one fiber of a store runs at a time */
  CHECK_EQ(bop_store_cpu(guest.store), used);
  /* There is more. */
  CHECK_EQ(bop_store_cpu_budget(guest.store, 600 * SECOND), BOP_OK);
  CHECK_EQ(t_result(t_spawn1(&guest, "lap", 100000)), 8);
  CHECK(bop_store_cpu(guest.store) > used);
  CHECK_EQ(bop_store_cpu_budget(guest.store, MS), BOP_OK); /* and less: from now on */
  OK(spawn(&guest, "spin", &late));
  STOPPED(late, BOP_OUTCOME_OUT_OF_BUDGET);
  CHECK_EQ(bop_store_cpu_budget(guest.store, UINT64_MAX), BOP_OK);
  CHECK_EQ(t_result(t_spawn1(&guest, "lap", 100000)), 8);
  CHECK_EQ(t_result(t_spawn1(&other, "tells", 1)), 7);
  CHECK_EQ(bop_store_cpu(other.store), 0);
  t_cancel_all(&beside, 1);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  end(2);
}

/* From the first call on: what a fiber with a budget of its own has used before is its own affair. */
static void counted_from_the_first_call(void) {
  CASE("counted from the first call on");
  begin(1, 50000);
  t_guest guest;
  t_world_guest(&guest, STORE);
  bop_fiber_t *spins = t_limited(&guest, "spin", 0, LIMITS(.budget = 5 * MS));
  STOPPED(spins, BOP_OUTCOME_OUT_OF_BUDGET);
  CHECK_EQ(bop_store_cpu(guest.store), 0);
  uint64_t since = bop_now();
  CHECK_EQ(bop_store_cpu_budget(guest.store, UINT64_MAX), BOP_OK);
  CHECK_EQ(t_result(t_spawn1(&guest, "lap", 1000)), 8);
  CHECK(bop_store_cpu(guest.store) <= bop_now() - since);
  t_guest_delete(&guest);
  end(1);
}

/* The fiber that runs just then, alone, with nobody who makes it look up. */
static void set_while_one_runs(void) {
  CASE("set while a fiber runs");
  begin(1, 50000);
  for (int i = 0; i < 3; i++) {
    t_guest guest;
    t_world_guest(&guest, STORE);
    if (i > 0)
      CHECK_EQ(bop_store_cpu_budget(guest.store, i == 1 ? UINT64_MAX : 600 * SECOND), BOP_OK);
    bop_fiber_t *spins = t_spawn1(&guest, "spin", 0);
    EVENTUALLY(bop_fiber_state(spins) == BOP_STATE_RUNNING);
    CHECK_EQ(bop_store_cpu_budget(guest.store, 5 * MS), BOP_OK);
    if (bop_fiber_join_until(spins, bop_now() + 30 * SECOND, NULL) != BOP_OK)
      t_fail(__FILE__, __LINE__, "a fiber runs on beyond the budget that its store has got (%d)", i);
    STOPPED(spins, BOP_OUTCOME_OUT_OF_BUDGET);
    t_guest_delete(&guest);
  }
  end(3);
}

/* ---- memories and tables ---- */

static const char *const GROWS =
    "(module (memory 1) (memory $other 2) (table $t 10 funcref)"
    "  (func (export \"memory\") (param i32) (result i32) (memory.grow (local.get 0)))"
    "  (func (export \"other\") (param i32) (result i32) (memory.grow $other (local.get 0)))"
    "  (func (export \"table\") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0))))";

static bop_fiber_t *grows(const char *wat, const char *name, int32_t by, t_limits limits) {
  wasmtime_instance_pre_t *pre = t_pre(bop_runtime_engine(world.runtime), wat, NULL);
  bop_spawn_options_t *options = t_options(limits);
  bop_fiber_t *fiber = NULL;
  wasmtime_val_t value = t_i32(by);
  OK(bop_spawn_instance(world.runtime, pre, name, strlen(name), &value, 1, NULL, NULL, NULL, options, &fiber));
  bop_spawn_options_delete(options);
  wasmtime_instance_pre_delete(pre);
  return fiber;
}

static void memory(void) {
  CASE("memories and tables");
  begin(2, 0);
  const uint64_t page = 65536;
  const t_limits limits = {.memory = 4 * page + 1, .table = 16};
  CHECK_EQ(t_result(grows(GROWS, "memory", 3, limits)), 1); /* the former size */
  CHECK_EQ(t_result(grows(GROWS, "memory", 4, limits)), -1);
  CHECK_EQ(t_result(grows(GROWS, "other", 2, limits)), 2); /* each has as much */
  CHECK_EQ(t_result(grows(GROWS, "other", 3, limits)), -1);
  CHECK_EQ(t_result(grows(GROWS, "table", 6, limits)), 10);
  CHECK_EQ(t_result(grows(GROWS, "table", 7, limits)), -1);
  CHECK_EQ(t_result(grows(GROWS, "memory", 100, LIMITS(.table = 16))), 1); /* 0 is none */
  CHECK_EQ(t_result(grows(GROWS, "table", 1000, LIMITS(.memory = 4 * page))), 10);
  CHECK_EQ(t_result(grows(GROWS, "memory", 100, LIMITS(.memory = UINT64_MAX, .table = UINT64_MAX))), 1);
  const t_limits too_small[] = {
      {.memory = 2 * page - 1}, {.memory = 1}, {.table = 9}, {.memory = 4 * page, .table = 1}};
  for (size_t i = 0; i < sizeof too_small / sizeof too_small[0]; i++) {
    bop_fiber_t *failed = grows(GROWS, "memory", 0, too_small[i]);
    JOINS(failed, BOP_OUTCOME_FAILED);
    CHECK_HAS(t_trap_text(bop_fiber_take_trap(failed)), too_small[i].table ? "table" : "memory");
    bop_fiber_detach(failed);
  }
  CHECK_EQ(t_result(grows(GROWS, "memory", 0, LIMITS(.memory = 2 * page, .table = 10))), 1);
  end(0);
}

int main(void) {
  t_start("store_limits");
  bop_spawn_options_memory(NULL, 1, 1);
  CHECK_EQ(bop_store_deadline(NULL, 5), BOP_INVALID);
  CHECK_EQ(bop_store_cpu_budget(NULL, 5), BOP_INVALID);
  CHECK_EQ(bop_store_cpu(NULL), 0);
  all_of_them_time_out(1);
  all_of_them_time_out(3);
  in_time();
  late_from_the_beginning();
  programs();
  they_share();
  counted_from_the_first_call();
  set_while_one_runs();
  memory();
  return 0;
}
