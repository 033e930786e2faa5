/* What a guest has spawned is never beyond the host's reach: it ends with its program or by the host's word, and there
 * is a bound to it. And what set-up was given outlives all that could use it. */
#include "support/guests.h"

static int order[2], ended; /* 1: a function of the store, 2: the env of the spawn */

static void function_goes(void *env) {
  (void)env;
  order[ended++] = 1;
}

static void env_goes(void *env) {
  CHECK(env == order);
  order[ended++] = 2;
}

static wasm_trap_t *nothing(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                            size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  return NULL;
}

/* Gives the store something with a finalizer. */
static wasmtime_error_t *sets_up(void *env, wasmtime_context_t *context) {
  CHECK(env == order);
  wasm_functype_t *type = t_functype("", "");
  wasmtime_func_t func;
  wasmtime_func_new(context, type, nothing, NULL, function_goes, &func);
  wasm_functype_delete(type);
  return NULL;
}

/* Children that never end by themselves: they spin, wait, and spawn more of their kind. */
#define CHILDREN                                                                                   \
  FUNC("spins", "(param i32) (result i32)", "(loop (br 0)) (unreachable)")                         \
  FUNC("waits", "(param i32) (result i32)", "(drop (call $sleep " HOUR "))" N(0))                  \
  FUNC("breeds", "(param i32) (result i32)", "(drop " GO(N(2), N(0)) ") (loop (br 0)) (unreachable)") \
  "(elem (i32.const 0) $spins $waits $breeds)"
#define RUN(end)                                                                                   \
  GUEST(CHILDREN FUNC("run", "(local $i i32)",                                                     \
                      EACH(i, N(30), "(drop " GO("(i32.rem_u " GET(i) N(3) ")", N(0)) ")")         \
                          "(drop " YIELD ")" end))

/* As when main returns, exits, or crashes: the program is over. */
static void with_the_program(const char *wat, bop_outcome_t outcome) {
  CASE("with the program");
  for (int i = 0; i < 2; i++) { /* calm, the first child that spins would keep the program from ending */
    BEGIN(2, t_quanta[i], 0);
    wasmtime_linker_t *linker = t_world_linker();
    wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), wat);
    wasmtime_instance_pre_t *pre;
    OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
    bop_fiber_t *fiber;
    ended = 0;
    OK(bop_spawn_instance(world.runtime, pre, "run", 3, NULL, 0, sets_up, order, env_goes, NULL, &fiber));
    ENDS(fiber, outcome);
    EVENTUALLY(t_stats(world.runtime).live == 0);
    wasmtime_instance_pre_delete(pre);
    wasmtime_module_delete(module);
    wasmtime_linker_delete(linker);
    t_world_end(0);
    CHECK_EQ(ended, 2);
    CHECK(order[0] == 1 && order[1] == 2); /* the store's, before that of the env */
  }
}

static void by_the_host(void) {
  CASE("by the host");
  BEGIN(2, 50000, 0);
  t_guest guest;
  t_world_guest(&guest, RUN(""));
  for (int round = 0; round < 3; round++) {
    ENDS(t_spawn0(&guest, "run"), BOP_OUTCOME_RETURNED);
    CHECK(t_stats(world.runtime).live >= 30); /* in a store of the host's they go on */
    /* Those that are being spawned may be missed: `breeds` has none left to spawn once. */
    EVENTUALLY(bop_store_cancel(guest.store) == BOP_OK && t_stats(world.runtime).live == 0);
  }
  t_guest_delete(&guest);
  t_world_end(0);
}

static void limits(void) {
  CASE("limits");
  BEGIN(1, 50000, 0);
  t_guest guest;
  t_world_guest(&guest, GUEST(CHILDREN FUNC("fill", "(result i32) (local $n i32)",
                                            "(loop " SET(n, ADD(GET(n), N(1)))
                                            "(br_if 0 (i64.ne " SPAWN(N(1), N(0)) L(0) ")))" GET(n))));
  FAILS(bop_store_max_fibers(guest.store, 0), "0 fibers");
  OK(bop_store_max_fibers(guest.store, 50));
  CHECK_EQ(t_result(t_spawn0(&guest, "fill")), 50); /* with itself; the last try finds no place */
  bop_fiber_t *fiber;
  OK(bop_spawn(guest.store, t_export(&guest, "fill"), NULL, 0, NULL, &fiber)); /* whose place is free now */
  CHECK_EQ(t_result(fiber), 1);
  OK(bop_store_max_fibers(guest.store, 49));
  FAILS(bop_spawn(guest.store, t_export(&guest, "fill"), NULL, 0, NULL, &fiber), "limit of 49");
  CHECK_EQ(t_stats(world.runtime).live, 49);
  CHECK_EQ(bop_store_cancel(guest.store), BOP_OK);
  EVENTUALLY(t_stats(world.runtime).live == 0);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* An allocator that does not return holds neither its worker nor the one who cancels. */
static void allocator_that_loops(void) {
  CASE("allocator that loops");
  BEGIN(1, 50000, 0);
  t_guest guest, neighbour;
  t_world_guest(&guest, "(module (memory (export \"memory\") 2)"
                        "(global (export \"__stack_pointer\") (mut i32) (i32.const 65536))"
                        "(func (export \"malloc\") (param i32) (result i32) (loop (br 0)) (unreachable))"
                        "(func (export \"free\") (param i32)) (func (export \"run\")))");
  t_world_guest(&neighbour, GUEST(FUNC("seven", "(result i32)", N(7))));
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_allocator(options, "malloc", 6, "free", 4);
  OK(bop_store_share(guest.store, &guest.instance, options));
  bop_share_options_delete(options);
  bop_fiber_t *stuck = t_spawn0(&guest, "run");
  CHECK_EQ(t_result(t_spawn0(&neighbour, "seven")), 7);
  JOINS(stuck, BOP_OUTCOME_FAILED);
  wasm_trap_t *trap = bop_fiber_take_trap(stuck);
  CHECK_HAS(t_trap_message(trap), "allocator");
  wasm_trap_delete(trap);
  bop_fiber_detach(stuck);
  stuck = t_spawn0(&guest, "run");
  CHECK_EQ(bop_fiber_cancel(stuck), BOP_OK);
  ENDS(stuck, BOP_OUTCOME_CANCELLED);
  t_guest_delete(&guest);
  t_guest_delete(&neighbour);
  t_world_end(0);
}

/* Cancelling a store looks at all fibers of the runtime, and so at those of another store that end just then. Two stores
 * spawn and join as fast as they can, while a third is cancelled again and again. */
static void looked_at_while_they_end(void) {
  CASE("looked at while they end");
  const int32_t laps = 60000;
  BEGIN(2, 50000, 0);
  t_guest guests[2], other;
  const char *wat = GUEST(
      FUNC("next", "(param i32) (result i32)", "(i32.add (local.get 0) " N(1) ")") "(elem (i32.const 0) $next)"
      FUNC("run", "(param $laps i32) (result i32) (local $i i32) (local $sum i32)",
           EACH(i, GET(laps), "(drop (call $join (call $spawn " N(0) GET(i) ") " N(16) "))"
                              "(local.set $sum (i32.add " GET(sum) "(i32.load " N(16) ")))") GET(sum)));
  t_world_guest(&guests[0], wat);
  t_world_guest(&guests[1], wat);
  t_world_guest(&other, GUEST(FUNC("spins", "", "(loop (br 0))")));
  bop_fiber_t *fibers[2];
  for (int i = 0; i < 2; i++)
    fibers[i] = t_spawn1(&guests[i], "run", laps);
  uint64_t looks = 0;
  for (int i = 0; i < 2; i++) {
    while (bop_fiber_state(fibers[i]) != BOP_STATE_FINISHED) {
      bop_fiber_t *spins = t_spawn0(&other, "spins");
      CHECK_EQ(bop_store_cancel(other.store), BOP_OK);
      ENDS(spins, BOP_OUTCOME_CANCELLED);
      looks++;
    }
    CHECK_EQ(t_result(fibers[i]), (int64_t)laps * (laps + 1) / 2);
  }
  CHECK(looks > 10);
  for (int i = 0; i < 2; i++)
    t_guest_delete(&guests[i]);
  t_guest_delete(&other);
  t_world_end(0);
}

int main(void) {
  t_start("guest_ends");
  with_the_program(RUN(""), BOP_OUTCOME_RETURNED);
  with_the_program(RUN(EXIT(N(3))), BOP_OUTCOME_EXITED);
  with_the_program(RUN("(unreachable)"), BOP_OUTCOME_TRAPPED);
  by_the_host();
  limits();
  allocator_that_loops();
  looked_at_while_they_end();
  return 0;
}
