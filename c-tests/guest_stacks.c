/* Fibers that a compiled guest spawns get stacks of their own in its memory, without a word from the host. Each finds
 * its frames as it left them: whatever becomes of who spawned it; in each of two instances of a store, whether or
 * not the other one is shared; and however deep on its own native stack the first spawn happens. Where it is too
 * late for stacks, the spawn traps. */
#include "support/guests.h"

/* ---- a compiled guest that spawns ---- */

#define SP "(global.get $sp)"
#define SET_SP(value) "(global.set $sp " value ")"
#define FRAME(bytes) SET_SP("(local.tee $f (i32.sub " SP bytes "))")
#define WORD(i) ADD(GET(f), "(i32.shl " GET(i) N(2) ")")
#define WIDE(i) ADD(GET(f), AT8(i))
#define OWN_STACK SO("(i32.gt_u " SP N(65536) ")")
#define STACK_POINTER "(global $sp (export \"__stack_pointer\") (mut i32) (i32.const 65536))"
static const char *const STACKS = GUEST(
    "(elem (i32.const 1) $child $gated)" STACK_POINTER
    /* frames with numbers of their own on n + 1 levels, over suspensions; the sum of what is left of them */
    FUNC("sum", "(param $seed i32) (param $n i32) (result i32) (local $f i32) (local $i i32) (local $s i32)",
         FRAME(N(256)) EACH(i, N(64), STORE(WORD(i), "(i32.mul " GET(seed) ADD(GET(i), N(1)) ")"))
         IS(YIELD, 0) IF(GET(n), SET(s, "(call $sum " ADD(GET(seed), N(1)) "(i32.sub " GET(n) N(1) "))"))
         AGAIN(i) EACH(i, N(64), SET(s, ADD(GET(s), LOAD(WORD(i))))) SET_SP(ADD(GET(f), N(256))) GET(s))
    FUNC("child", "(param $seed i32) (result i32)", OWN_STACK "(call $sum " GET(seed) N(5) ")")
    /* handles and results are in its frame, which lies on the instance's own stack if it is the first */
    FUNC("parent", "(param $first i32) (result i32) (local $f i32) (local $i i32) (local $s i32)",
         FRAME(N(512)) SO("(i32.eq (i32.eq " GET(f) N(65024) ") " GET(first) ")")
         STORE("offset=500 " GET(f), N(12345))
         EACH(i, N(20), STORE64(WIDE(i), SPAWN(N(1), GET(i)))) IS("(call $sum " N(7) N(0) ")", 14560)
         AGAIN(i) EACH(i, N(20), IS(JOIN(LOAD64(WIDE(i)), ADD(GET(f), N(400))), 0)
                                 SET(s, ADD(GET(s), LOAD("offset=400 " GET(f)))))
         IS(LOAD("offset=500 " GET(f)), 12345) SO("(i32.eq " SP GET(f) ")") SET_SP(ADD(GET(f), N(512))) GET(s))
    /* `run` spawns these, and ends before they do: it returns, exits, or traps */
    FUNC("gated", "(param $seed i32) (local $f i32)",
         OWN_STACK FRAME(N(16)) STORE(GET(f), GET(seed)) "(call $gate)"
         "(call $tell " ADD(LOAD(GET(f)), "(call $sum " GET(seed) N(5) ")") ")" SET_SP(ADD(GET(f), N(16))))
    FUNC("run", "(param $end i32) (local $i i32)", EACH(i, N(20), IS(GO(N(2), GET(i)), 0))
         IF("(i32.eq " GET(end) N(1) ")", EXIT(N(3))) IF("(i32.eq " GET(end) N(2) ")", "unreachable"))
    FUNC("waits", "", "(call $gate)")
    FUNC("pointer", "(result i32)", SP));

enum { CHILDREN = 20, ALL = (6 * 190 + 15 * CHILDREN) * 2080 }; /* sum(seed, 5) is 2,080 * (6 seed + 15) */

/* Lets so many go on that wait in the gate, or soon do. */
static void open_gate(int fibers) {
  for (int i = 0; i < fibers; i++)
    CHECK_EQ(bop_channel_send(world.gate, 0), BOP_OK);
}

/* Between fibers, the instance's own stack is in use, and empty. */
static void host_has_its_stack(const t_guest *guest) {
  wasmtime_context_t *context;
  wasmtime_val_t pointer;
  wasm_trap_t *trap = NULL;
  OK(bop_store_enter(guest->store, &context));
  OK(wasmtime_func_call(context, t_export(guest, "pointer"), NULL, 0, &pointer, 1, &trap));
  CHECK_EQ(pointer.of.i32, 65536);
  OK(bop_store_exit(guest->store));
}

static void one_instance(void) {
  CASE("one instance");
  t_guest guest;
  t_world_guest(&guest, STACKS);
  /* With two fibers that the host spawned it is too late: either may be anywhere on the one stack. */
  bop_fiber_t *fiber = t_spawn0(&guest, "waits");
  CHECK_HAS(t_trap_of(t_spawn1(&guest, "run", 0)), "several fibers");
  open_gate(1);
  ENDS(fiber, BOP_OUTCOME_RETURNED);
  t_guest_delete(&guest);
  t_world_guest(&guest, STACKS);
  for (int i = 0; i < 4; i++) /* once there are stacks, the host's fibers get them too */
    CHECK_EQ(t_result(t_spawn1(&guest, "parent", i == 0)), ALL);
  host_has_its_stack(&guest);
  t_guest_delete(&guest);
}

/* A start function, on a fiber, may be the first that spawns. */
static const char *const STARTS = GUEST(
    "(elem (i32.const 1) $child)" STACK_POINTER
    FUNC("child", "(param i32) (result i32)", OWN_STACK N(7))
    "(func $s " GIVES(SPAWN(N(1), N(0)), 7) ") (start $s)"
    FUNC("run", "", GIVES(SPAWN(N(1), N(0)), 7)));

/* Who spawned them has ended: as a program (bop_spawn_instance), whose end is theirs; or as any fiber of a store,
 * and then bop_store_cancel ends them, or nothing does, not even that the host lets go of the store. */
static void orphans(int32_t end, bop_outcome_t outcome, bool is_program, bool cancels) {
  int before = world.freed;
  bool live_on = !is_program && !cancels;
  world.told = 0;
  if (is_program) {
    ENDS(t_spawn_run(STACKS, (wasmtime_val_t[]){t_i32(end)}, 1), outcome);
  } else {
    t_guest guest;
    t_world_guest(&guest, STACKS);
    ENDS(t_spawn1(&guest, "run", end), outcome);
    CHECK_EQ(t_stats(world.runtime).live, CHILDREN);
    if (cancels)
      CHECK_EQ(bop_store_cancel(guest.store), BOP_OK);
    t_guest_delete(&guest);
  }
  if (live_on) {
    CHECK_EQ(world.freed, before); /* the store is still theirs */
    open_gate(CHILDREN);
  }
  EVENTUALLY(world.freed == before + 1);
  CHECK_EQ(world.told, live_on ? ALL + 190 : 0);
}

static void left_behind(void) {
  CASE("left behind");
  static const bop_outcome_t OUTCOMES[] = {BOP_OUTCOME_RETURNED, BOP_OUTCOME_EXITED, BOP_OUTCOME_TRAPPED};
  for (int32_t end = 0; end < 3; end++) {
    orphans(end, OUTCOMES[end], true, false);
    orphans(end, OUTCOMES[end], false, true);
    orphans(end, OUTCOMES[end], false, false);
  }
  ENDS(t_spawn_run(STARTS, NULL, 0), BOP_OUTCOME_RETURNED);
}

/* ---- two instances in one store: each is shared by a spawn of its own ---- */

/* Keeps no stack in its memory. */
static const char *const BARE = GUEST(
    "(elem (i32.const 1) $child)" FUNC("child", "(param i32) (result i32)", N(7))
    FUNC("parent", "(param i32) (result i32)", GIVES(SPAWN(N(1), N(0)), 7) N(7)));

/* What the first instance is, and does, before the second one spawns. All its fibers have ended by then. */
static void one_by_one(const char *name, const char *first, bool is_shared, bool spawns, int32_t gives) {
  CASE(name);
  t_guest guest[2];
  t_world_guests(guest, first, STACKS);
  if (is_shared)
    OK(bop_store_share(guest[0].store, &guest[0].instance, NULL));
  if (spawns)
    CHECK_EQ(t_result(t_spawn1(&guest[0], "parent", !is_shared)), gives);
  CHECK_EQ(t_result(t_spawn1(&guest[1], "parent", 1)), ALL);
  bop_fiber_t *parents[8];
  for (int i = 0; i < 8; i++)
    parents[i] = t_spawn1(&guest[i % 2], "parent", 0);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(t_result(parents[i]), i % 2 ? ALL : gives);
  for (int i = first == STACKS ? 0 : 1; i < 2; i++)
    host_has_its_stack(&guest[i]);
  t_guest_delete(&guest[0]);
}

/* The second one spawns while the children of the first live. */
static void several(void) {
  CASE("two instances, too late");
  t_guest guest[2];
  t_world_guests(guest, STACKS, STACKS);
  world.told = 0;
  ENDS(t_spawn1(&guest[0], "run", 0), BOP_OUTCOME_RETURNED);
  CHECK_EQ(t_stats(world.runtime).live, CHILDREN);
  CHECK_HAS(t_trap_of(t_spawn1(&guest[1], "run", 0)), "several fibers");
  CHECK_EQ(t_result(t_spawn1(&guest[0], "parent", 0)), ALL);
  open_gate(CHILDREN);
  EVENTUALLY(t_stats(world.runtime).live == 0);
  CHECK_EQ(world.told, ALL + 190);
  CHECK_EQ(t_result(t_spawn1(&guest[1], "parent", 1)), ALL); /* it is no worse for it */
  t_guest_delete(&guest[0]);
}

/* ---- two instances in one store: each call means the memory of the instance that makes it ---- */

static const char *const TWO = GUEST(
    FUNC("new", "(result i32)", CHANNEL(N(4)))
    FUNC("send", "(param $to i32) (result i32)", SEND(GET(to), L(5)))
    FUNC("take", "(param $from i32) (result i32)", RECEIVE(GET(from), N(8)))
    FUNC("peek", "(result i32)", LOAD(N(8)))
    FUNC("waits", "(result i32)", WAIT(N(64), N(0), L(-1)))
    FUNC("wakes", "(result i32)", NOTIFY(N(64), N(9))));

static void whose_memory(void) {
  CASE("whose memory");
  BEGIN(1, 50000, 0);
  t_guest guest[2], *a = &guest[0], *b = &guest[1];
  t_world_guests(guest, TWO, TWO);
  int32_t channel = (int32_t)t_result(t_spawn0(a, "new"));
  for (int i = 0; i < 2; i++) {
    const t_guest *taker = i ? a : b;
    CHECK_EQ(t_result(t_spawn1(i ? b : a, "send", channel)), 0);
    CHECK_EQ(t_result(t_spawn1(taker, "take", channel)), 0);
    CHECK_EQ(t_result(t_spawn0(taker, "peek")), 5);
    CHECK_EQ(t_result(t_spawn0(a, "peek")), i ? 5 : 0);
  }
  bop_fiber_t *fiber = t_spawn0(a, "waits");
  EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
  CHECK_EQ(t_result(t_spawn0(b, "wakes")), 0);
  CHECK_EQ(t_result(t_spawn0(a, "wakes")), 1);
  CHECK_EQ(t_result(fiber), 0);
  t_guest_delete(a);
  t_world_end(0);
}

/* ---- the first spawn, on whatever is left of the fiber's native stack ---- */

static const char *const DEEP = GUEST(
    "(elem (i32.const 1) $child)" STACK_POINTER FUNC("child", "(param i32) (result i32)", N(7))
    FUNC("down", "(param $n i32) (result i32)",
         IF("(i32.eqz " GET(n) ")", "(drop " SPAWN(N(1), N(0)) ") (return " N(0) ")")
         ADD("(call $down (i32.sub " GET(n) N(1) "))", N(1))));

/* Does it get there? Nothing else can happen than that the stack overflows. In a new runtime, where nothing that
 * is done but once has been done. */
static bool reaches(int32_t depth, uint64_t quantum) {
  BEGIN(1, quantum, 0);
  t_guest guest;
  t_world_guest(&guest, DEEP);
  bop_fiber_t *fiber = t_spawn1(&guest, "down", depth);
  bop_outcome_t outcome;
  CHECK_EQ(bop_fiber_join(fiber, &outcome), BOP_OK);
  if (outcome == BOP_OUTCOME_RETURNED) {
    CHECK_EQ(t_result(fiber), depth);
  } else {
    CHECK_EQ(outcome, BOP_OUTCOME_TRAPPED);
    wasm_trap_t *trap = bop_fiber_take_trap(fiber);
    CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_STACK_OVERFLOW);
    wasm_trap_delete(trap);
    bop_fiber_detach(fiber);
  }
  t_guest_delete(&guest);
  t_world_end(0);
  return outcome == BOP_OUTCOME_RETURNED;
}

static void deep(uint64_t quantum) {
  CASE("deep");
  int32_t most = 0, too_many = 1 << 16; /* of 1 MiB; no frame has less than 16 bytes */
  while (too_many - most > 1) {
    int32_t depth = most + (too_many - most) / 2;
    *(reaches(depth, quantum) ? &most : &too_many) = depth;
  }
  CHECK(most > 1000 && most < (1 << 16) - 1);
  for (int32_t depth = most - 4; depth < most + 4; depth++) /* nowhere is it closer */
    CHECK_EQ(reaches(depth, quantum), depth <= most);
}

int main(void) {
  t_start("guest_stacks");
  for (int i = 0; i < QUANTA; i++) {
    BEGIN(2, t_quanta[i], 0);
    OK(bop_channel_new(CHILDREN, &world.gate));
    one_instance();
    left_behind();
    one_by_one("two instances", STACKS, false, true, ALL);
    one_by_one("two instances, one shared", STACKS, true, true, ALL);
    one_by_one("two instances, one shared and idle", STACKS, true, false, ALL);
    one_by_one("two instances, one bare", BARE, false, true, 7);
    several();
    bop_channel_delete(world.gate);
    t_world_end(0);
  }
  whose_memory();
  deep(0);
  deep(CALM);
  return 0;
}
