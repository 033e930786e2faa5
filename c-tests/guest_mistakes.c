/* What a guest can get wrong with its imports from "bop", or have too much of: each is a status, or a trap
 * that says what it was, and harms nobody else. And what a start function may call, on a thread of the host, when
 * there is no fiber yet, and on a fiber. */
#include "support/guests.h"

/* ---- limits and mistakes ---- */

#define CALLS(want) IS(SEND(C, L(5)), want) IS(RECEIVE(C, N(65528)), want) IS(CLOSE(C), want)
static const char *const MISTAKES = GUEST(
    "(elem (i32.const 1) $waits $traps $receives $sends $seven $dies $stays)"
    FUNC("waits", "(param $at i32) (result i32)", WAIT(GET(at), N(0), L(-1)))
    FUNC("traps", "(param i32)", "unreachable")
    FUNC("receives", "(param i32) (result i32)", RECEIVE(C, N(0)))
    FUNC("sends", "(param i32) (result i32)", SEND(C, L(1)))
    FUNC("seven", "(param i32) (result i32)", N(7))
    FUNC("dies", "(param i32)", "(call $cancel) (loop (br 0))")
    FUNC("stays", "(param i32) (result i32)", "(call $cancel)" YIELD)
    /* four more are all that may be */
    FUNC("fibers", "(result i32) (local $a i64) (local $b i64)",
         SET(a, SPAWN(N(1), N(64))) SET(b, SPAWN(N(1), N(68))) IS(GO(N(1), N(64)), 0) IS(GO(N(1), N(64)), 0)
         SO("(i64.eqz " SPAWN(N(1), N(64)) ")") IS(GO(N(1), N(64)), 9) IS(YIELD, 0)
         IS(NOTIFY(N(68), N(1)), 1) IS(JOIN(GET(b), N(0)), 0) GIVES(SPAWN(N(5), N(0)), 7)
         IS(NOTIFY(N(64), N(9)), 3) IS(JOIN(GET(a), N(0)), 0) N(1))
    /* what channels may hold, together; then the number of handles (the last try, in vain, stands for $c) */
    FUNC("handles", "(result i32) (local $i i32)",
         SET_C(CHANNEL(N(1048576))) EACH(i, N(15), NOT("(i32.eqz " CHANNEL(N(1048576)) ")"))
         IS(CHANNEL(N(1)), 0) IS(DELETE(C), 0) IS(CHANNEL(N(1048577)), 0) NOT("(i32.eqz " CHANNEL(N(1048576)) ")")
         "(loop " SET_C(CHANNEL(N(0))) SET(i, ADD(GET(i), N(1))) "(br_if 0 " C "))"
         SO("(i64.eqz " SPAWN(N(5), N(0)) ")") IS(GO(N(5), N(0)), 0) GET(i))
    FUNC("statuses", "(result i32) (local $a i64) (local $b i64) (local $i i32)",
         SET(a, SPAWN(N(5), N(0))) IS(JOIN(GET(a), N(0)), 0) IS(JOIN(GET(a), N(0)), 6) IS(DETACH(GET(a)), 6)
         IS(JOIN(SELF, N(0)), 5) IS(DETACH(SELF), 6)
         SET(a, SPAWN(N(2), N(0))) STORE(N(8), N(77))
         IS(JOIN(GET(a), N(8)), 10) IS(LOAD(N(8)), 77) IS(JOIN(GET(a), N(8)), 6)
         IS(JOIN(SPAWN(N(6), N(0)), N(8)), 10) GIVES(SPAWN(N(7), N(0)), 2)
         IS(JOIN(L(0), N(65532)), 6) IS(JOIN(L(-1), N(0)), 6) IS(DETACH(L(123456789)), 6)
         CALLS(6) IS(DELETE(C), 6) IS(CHANNEL(N(1048577)), 0) IS(CHANNEL(N(-1)), 0)
         SET_C(CHANNEL(N(1))) IS(SEND(C, L(9)), 0) IS(CLOSE(C), 0)
         IS(RECEIVE(C, N(8)), 0) IS(LOAD(N(8)), 9) CALLS(8) IS(DELETE(C), 0) CALLS(6) IS(DELETE(C), 6)
         /* while others wait, receivers or senders: it is closed or deleted */
         EACH(i, N(4), SET_C(CHANNEL(N(0)))
              SET(a, SPAWN(ADD(N(3), "(i32.and " GET(i) N(1) ")"), N(0)))
              SET(b, SPAWN(ADD(N(3), "(i32.and " GET(i) N(1) ")"), N(0))) IS(YIELD, 0)
              "(if (i32.and " GET(i) N(2) ") (then " IS(DELETE(C), 0) CALLS(6) ") (else " IS(CLOSE(C), 0) "))"
              GIVES(GET(b), 8) GIVES(GET(a), 8)) N(1))
    /* who can't be given a value must not take it */
    FUNC("fill", "(result i32)", SET_C(CHANNEL(N(1))) SEND(C, L(9)))
    FUNC("no_room", "", "(drop " RECEIVE(C, N(65529)) ")")
    FUNC("room", "(result i32)", IS(RECEIVE(C, N(8)), 0) LOAD(N(8))));

/* What no program could have meant, called with 1 to 5 in the table. */
static const char *const TABLE = "(elem (i32.const 1) $one $wide $two $gives $channel_new) (func $one (param i32))"
                                 "(func $wide (param i64)) (func $two (param i32 i32))"
                                 "(func $gives (param i32) (result i64) (i64.const 0))";
static const struct {
  const char *call, *word;
} TRAPS[] = {
    {SPAWN(N(16), N(0)), "spawn: index 16 is beyond the table's 16"},
    {SPAWN(N(-1), N(0)), "spawn: index 4294967295 is beyond the table's 16"},
    {SPAWN(N(0), N(0)), "spawn: there is no function at index 0"},
    {SPAWN(N(2), N(0)), "function at index 2 is the host's, or does not take one i32"},
    {SPAWN(N(3), N(0)), "function at index 3 is the host's, or does not take one i32"},
    {GO(N(16), N(0)), "index 16 is beyond the table's 16"},
    {GO(N(0), N(0)), "there is no function at index 0"},
    {GO(N(4), N(0)), "function at index 4 is the host's, or does not take one i32 and return an i32 or nothing"},
    {SPAWN(N(5), N(1)), "function at index 5"}, /* the host's, which would have no instance */
    {JOIN(SELF, N(65533)), "a pointer beyond the memory: 0xfffd"},
    {JOIN(L(0), N(-4)), "a pointer beyond the memory: 0xfffffffc"},
    {RECEIVE(N(0), N(65529)), "a pointer beyond the memory: 0xfff9"},
    {WAIT(N(65536), N(0), L(-1)), "a pointer beyond the memory: 0x10000"},
    {WAIT(N(66), N(0), L(-1)), "not the address of a word: 0x42"},
    {NOTIFY(N(-4), N(1)), "a pointer beyond the memory: 0xfffffffc"},
    {NOTIFY(N(1), N(1)), "not the address of a word: 0x1"},
};
static const char *const NO_FIBER = "not called by a fiber of this store";

static void mistakes(void) {
  CASE("limits");
  t_guest guest;
  BEGIN(1, CALM, 5);
  CHECK_EQ(t_result_of(MISTAKES, "fibers", NULL, 0), 1);
  CHECK_EQ(t_result_of(MISTAKES, "handles", NULL, 0), 1 << 17);
  t_world_end(0);
  BEGIN(1, CALM, 0);
  t_world_guest(&guest, MISTAKES);
  OK(bop_store_max_fibers(guest.store, 5)); /* of the store's, as of the runtime's */
  CHECK_EQ(t_result(t_spawn0(&guest, "fibers")), 1);
  t_guest_delete(&guest);
  t_world_end(0);
  CASE("statuses");
  BEGIN(1, CALM, 0);
  CHECK_EQ(t_result_of(MISTAKES, "statuses", NULL, 0), 1);
  CASE("traps");
  t_world_guest(&guest, MISTAKES);
  CHECK_EQ(t_result(t_spawn0(&guest, "fill")), 0);
  CHECK_HAS(t_trap_of(t_spawn0(&guest, "no_room")), "beyond the memory");
  CHECK_EQ(t_result(t_spawn0(&guest, "room")), 9);
  t_guest_delete(&guest);
  static char text[8192];
  for (size_t i = 0; i < sizeof TRAPS / sizeof TRAPS[0]; i++) {
    snprintf(text, sizeof text, GUEST("%s (func (export \"run\") (drop %s))"), TABLE, TRAPS[i].call);
    t_world_guest(&guest, text);
    CHECK_HAS(t_trap_of(t_spawn0(&guest, "run")), TRAPS[i].word);
    t_guest_delete(&guest);
  }
  t_world_guest(&guest, "(module " IMPORTS FUNC("spawn_", "(result i64)", SPAWN(N(0), N(0)))
                    FUNC("join_", "(result i32)", JOIN(L(0), N(8))) FUNC("join_0", "(result i32)", JOIN(L(0), N(0)))
                    FUNC("notify_", "(result i32)", NOTIFY(N(0), N(1))) ")");
  CHECK_HAS(t_trap_of(t_spawn0(&guest, "spawn_")), "exports no table __indirect_function_table");
  CHECK_HAS(t_trap_of(t_spawn0(&guest, "join_")), "exports no memory");
  CHECK_HAS(t_trap_of(t_spawn0(&guest, "notify_")), "exports no memory");
  CHECK_EQ(t_result(t_spawn0(&guest, "join_0")), 6); /* writes nothing, and needs none */
  /* A thread that has entered the store is no fiber. */
  wasmtime_context_t *context;
  wasmtime_val_t result;
  wasm_trap_t *trap = NULL;
  OK(bop_store_enter(guest.store, &context));
  wasmtime_error_t *error = wasmtime_func_call(context, t_export(&guest, "join_"), NULL, 0, &result, 1, &trap);
  CHECK_HAS(error ? t_error_text(error) : t_trap_text(trap), NO_FIBER);
  OK(bop_store_exit(guest.store));
  t_guest_delete(&guest);
  CASE("linker");
  FAILS(bop_linker_define(NULL), "linker is NULL");
  wasmtime_linker_t *linker = t_world_linker();
  FAILS(bop_linker_define(linker), "defined twice");
  wasmtime_linker_delete(linker);
  t_world_end(0);
}

/* ---- start functions: run by the host, when there is no fiber yet, and by bop_spawn_instance, on one ---- */

static const struct {
  bool needs_fiber;
  const char *call;
} STARTS[] = {
    {false, ""},
    {false, "(drop " SELF ")"},
    {false, "(drop " NOW ")"},
    {false, IS(YIELD, 0)},
    {false, IS(SLEEP(L(1000000)), 0)},
    {true, NOT("(i64.eqz " SPAWN(N(1), N(5)) ")")},
    {true, IS(GO(N(1), N(5)), 0)},
    {true, IS(JOIN(L(0), N(0)), 6)},
    {true, GIVES(SPAWN(N(1), N(5)), 6)},
    {true, IS(DETACH(L(0)), 6)},
    {true, NOT("(i32.eqz " CHANNEL(N(1)) ")")},
    {true, IS(SEND(N(1), L(1)), 6)},
    {true, IS(RECEIVE(N(1), N(0)), 6)},
    {true, IS(CLOSE(N(1)), 6)},
    {true, IS(DELETE(N(1)), 6)},
    {true, IS(WAIT(N(0), N(0), L(1000)), 2)},
    {true, IS(NOTIFY(N(0), N(1)), 0)},
};
#define STARTING(call)                                                                                     \
  GUEST("(elem (i32.const 1) $next)" FUNC("next", "(param $x i32) (result i32)", ADD(GET(x), N(1)))        \
        "(func $s " call ") (start $s) (func (export \"run\"))")

/* Instantiates in a store that is not BOP's yet, so Wasm traps at its first epoch check unless told not to. */
static const char *start_on_thread(const char *wat) {
  wasmtime_store_t *raw = t_world_store();
  wasmtime_context_set_epoch_deadline(wasmtime_store_context(raw), UINT64_MAX / 2);
  wasmtime_instance_t instance;
  const char *error = t_instantiate(wasmtime_store_context(raw), wat, &instance);
  bop_store_t *store = NULL;
  OK(bop_store_new(world.runtime, raw, &store)); /* it is no worse for it */
  bop_store_delete(store);
  return error;
}

static void starts(void) {
  CASE("start functions");
  BEGIN(2, 50000, 0);
  static char text[8192];
  int before = world.freed, n = sizeof STARTS / sizeof STARTS[0];
  for (int i = 0; i < n; i++) {
    snprintf(text, sizeof text, STARTING("%s"), STARTS[i].call);
    const char *error = start_on_thread(text);
    if (STARTS[i].needs_fiber)
      CHECK_HAS(error, NO_FIBER);
    else
      CHECK(error == NULL);
    ENDS(t_spawn_run(text, NULL, 0), BOP_OUTCOME_RETURNED);
  }
  CHECK_HAS(start_on_thread(STARTING(EXIT(N(3)))), "exit status 3");
  bop_fiber_t *fiber = t_spawn_run(STARTING(EXIT(N(3))), NULL, 0);
  JOINS(fiber, BOP_OUTCOME_EXITED);
  CHECK_EQ(bop_fiber_exit_code(fiber), 3);
  bop_fiber_detach(fiber);
  EVENTUALLY(world.freed == before + 2 * (n + 1));
  t_world_end(0);
}

int main(void) {
  t_start("guest_mistakes");
  mistakes();
  starts();
  return 0;
}
