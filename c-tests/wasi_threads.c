/* WASI where memory or the store's WASI may be somebody else's meanwhile: a host thread that has entered the store while a
 * fiber of it waits in a call, and memories that move when they grow. */
#include "support/limits.h"
#include "support/wasi.h"

static const char *const GUEST_TEXT = WASI_GUEST(
    "(data (i32.const 64) \"line\")"
    FUNC("reads", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) IS(READ(N(0), s, N(99)), 0) COUNT(s))
    FUNC("polls", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) FD_READ(s, 0, N(0)) IS(POLL(s, 1), 0)
         COUNT(s))
    FUNC("quick", "(param $i i32) (result i32)", IS("(call $random_get " AREA(i) N(9) ")", 0) N(0))
    FUNC("prints", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) IS(WRITE(N(1), s, N(64), N(4)), 0) N(0))
    FUNC("closes", "(param $i i32) (result i32)", "(call $fd_close " N(0) ")")
    FUNC("naps", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) NAP(s, L(20000000)) N(7))
    FUNC("yields", "(param $i i32) (result i32)", "(call $sched_yield)")
    FUNC("grows", "(param $pages i32) (result i32)", "(memory.grow " GET(pages) ")"));

/* What the call returned; -1 if it was refused, in words. */
static int32_t called(wasmtime_context_t *context, const t_guest *guest, const char *name) {
  wasmtime_val_t area = t_i32(3), result = t_i32(77);
  wasm_trap_t *trap = NULL;
  wasmtime_error_t *error = wasmtime_func_call(context, t_export(guest, name), &area, 1, &result, 1, &trap);
  if (error == NULL && trap == NULL)
    return result.of.i32;
  CHECK_HAS(error ? t_error_text(error) : t_trap_text(trap), "WASI");
  return -1;
}

/* The thread can't wait for the fiber, which can't run before it has left: whatever needs the store's WASI is refused. */
static void entered(const char *how) {
  CASE("a thread has entered, and calls WASI while a fiber waits in a call");
  static const char *const NAMES[] = {"quick", "prints", "closes", "polls", "reads"};
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi wasi = {.pipe = true};
  t_wasi_guest(&guest, GUEST_TEXT, &wasi);
  for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
    wasmtime_context_t *context;
    bop_fiber_t *fiber = t_spawn1(&guest, how, 0);
    t_waits(fiber);
    OK(bop_store_enter(guest.store, &context));
    CHECK_EQ(called(context, &guest, NAMES[i]), -1);
    CHECK_EQ(called(context, &guest, "yields"), 0);
    CHECK_EQ(called(context, &guest, "naps"), 7);
    OK(bop_store_exit(guest.store));
    t_wasi_feed(&wasi, "hello");
    CHECK_EQ(t_result(fiber), how[0] == 'r' ? 5 : 1);
    if (how[0] == 'p')
      CHECK_EQ(t_result(t_spawn1(&guest, "reads", 0)), 5);
    OK(bop_store_enter(guest.store, &context)); /* nobody waits now */
    CHECK_EQ(called(context, &guest, "quick"), 0);
    OK(bop_store_exit(guest.store));
  }
  t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_world_end(0);
}

static bop_runtime_t *with_memories_that_move(void) {
  bop_config_t *config = bop_config_new();
  wasm_config_t *own = wasm_config_new();
  wasmtime_config_memory_may_move_set(own, true);
  wasmtime_config_memory_reservation_set(own, 0);
  wasmtime_config_memory_reservation_for_growth_set(own, 0);
  bop_config_workers(config, 1);
  bop_config_quantum(config, CALM);
  bop_config_wasm(config, own);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  return runtime;
}

static void moved(void) {
  CASE("the memory moves during a call that waits");
  world.file = __FILE__;
  world.runtime = with_memories_that_move();
  t_guest guest;
  t_wasi wasi = {.pipe = true};
  t_wasi_guest(&guest, GUEST_TEXT, &wasi);
  bop_fiber_t *reader = t_spawn1(&guest, "reads", 0);
  t_waits(reader);
  bop_fiber_t *naps = t_spawn1(&guest, "naps", 1);
  t_waits(naps);
  CHECK_EQ(t_result(t_spawn1(&guest, "grows", 100)), 13);
  t_wasi_feed(&wasi, "hello");
  CHECK_HAS(t_trap_of(reader), "moved");
  CHECK_EQ(t_result(naps), 7); /* needs it only at its end */
  CHECK_EQ(t_result(t_spawn1(&guest, "quick", 0)), 0);
  t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_threads");
  entered("reads");
  entered("polls");
  moved();
  return 0;
}
