/* What guests import from the module "bop" (bop_guest.h): fibers of their own instance, thousands of them;
 * channels; words to wait for, and the lock that bop_guest.h makes of one. And whoever waits in any of these can be
 * cancelled, or left alone by the host. (What is told or traps: guest_mistakes.c; stacks: guest_stacks.c.) */
#include "support/guests.h"

/* ---- fibers ---- */

#define AT16(i) ADD(GET(at), "(i32.shl " GET(i) N(4) ")")

static const char *const FIBERS = GUEST(
    "(elem (i32.const 1) $tree $takes $counts $own $naps $exits $nothing)"
    "(global $heap (mut i32) (i32.const 64)) (global $n (mut i32) (i32.const 0))"
    "(func $new (param $bytes i32) (result i32)"
    "  (global.get $heap) (global.set $heap " ADD("(global.get $heap)", GET(bytes)) "))"
    /* as many as there are nodes in a tree of this depth */
    FUNC("tree", "(param $d i32) (result i32) (local $a i64) (local $b i64) (local $at i32)",
         IF("(i32.eqz " GET(d) ")", "(return " N(1) ")")
         SET(at, "(call $new " N(8) ")") SET(d, "(i32.sub " GET(d) N(1) ")")
         SET(a, SPAWN(N(1), GET(d))) SET(b, SPAWN(N(1), GET(d)))
         IS(JOIN(GET(b), GET(at)), 0) IS(JOIN(GET(a), ADD(GET(at), N(4))), 0)
         ADD(N(1), ADD(LOAD(GET(at)), LOAD("offset=4 " GET(at)))))
    /* n fibers that all wait at once for a square; the sum of the squares and 1 */
    FUNC("takes", "(param $at i32) (result i32)", IS(RECEIVE(C, GET(at)), 0) ADD(LOAD(GET(at)), N(1)))
    FUNC("thousands", "(param $n i32) (result i32) (local $i i32) (local $at i32) (local $sum i32)",
         SET_C(CHANNEL(N(0))) SET(at, "(call $new (i32.shl " GET(n) N(4) "))")
         EACH(i, GET(n), STORE64(AT16(i), SPAWN(N(2), ADD(AT16(i), N(8)))))
         SO("(i32.gt_u (call $live) " GET(n) ")")
         AGAIN(i) EACH(i, GET(n), IS(SEND(C, "(i64.extend_i32_u (i32.mul " GET(i) GET(i) "))"), 0))
         AGAIN(i) EACH(i, GET(n), IS(JOIN(LOAD64(AT16(i)), ADD(AT16(i), N(8))), 0)
                                  SET(sum, ADD(GET(sum), LOAD("offset=8 " AT16(i)))))
         GET(sum))
    FUNC("counts", "(param $by i32) (result i32)",
         "(global.set $n " ADD("(global.get $n)", GET(by)) ")" SEND(C, L(0)))
    FUNC("own", "(param i32) (result i32)", "(i32.wrap_i64 " SELF ")")
    FUNC("naps", "(param $ms i32) (result i32) (local $ns i64) (local $began i64)",
         SET(ns, "(i64.mul (i64.extend_i32_u " GET(ms) ") " L(1000000) ")") SET(began, NOW)
         IS(SLEEP(GET(ns)), 0) "(i64.ge_u (i64.sub " NOW GET(began) ") " GET(ns) ")")
    FUNC("inner", "(param i32)", EXIT("(local.get 0)") "unreachable")
    FUNC("exits", "(param i32) (result i32)", "(call $inner (local.get 0)) " N(1))
    FUNC("nothing", "(param i32)", "")
    /* each import, calmly */
    FUNC("each", "(result i64) (local $a i64) (local $i i32)",
         SET_C(CHANNEL(N(100)))
         EACH(i, N(50), IS(GO(N(3), GET(i)), 0)) IS("(global.get $n)", 0)
         AGAIN(i) EACH(i, N(50), IS(RECEIVE(C, N(0)), 0)) IS("(global.get $n)", 1225)
         /* who is detached goes on without anybody who could join it */
         SET(a, SPAWN(N(3), N(7))) IS(DETACH(GET(a)), 0) IS(DETACH(GET(a)), 6) IS(JOIN(GET(a), N(0)), 6)
         IS("(global.get $n)", 1225) IS(YIELD, 0) IS("(global.get $n)", 1232)
         SET(a, SPAWN(N(4), N(0))) NOT("(i64.eq " GET(a) SELF ")")
         IS(JOIN(GET(a), N(8)), 0) SO("(i32.eq (i32.wrap_i64 " GET(a) ") " LOAD(N(8)) ")")
         AGAIN(i) EACH(i, N(20), STORE64("offset=64 " AT8(i),
                                         SPAWN(N(5), "(i32.rem_u (i32.mul " GET(i) N(7) ")" N(20) ")")))
         AGAIN(i) EACH(i, N(20), GIVES(LOAD64("offset=64 " AT8(i)), 1))
         GIVES(SPAWN(N(6), N(42)), 42) GIVES(SPAWN(N(6), N(-5)), -5) GIVES(SPAWN(N(7), N(1)), 0)
         SELF)
    FUNC("now_", "(result i64)", NOW));

static void fibers(void) {
  CASE("fibers, each import");
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_world_guest(&guest, FIBERS);
  bop_fiber_t *fiber = t_spawn0(&guest, "each");
  uint64_t id = bop_fiber_id(fiber);
  CHECK_EQ(t_result(fiber), id);
  uint64_t before = t_now(), now = (uint64_t)t_result(t_spawn0(&guest, "now_"));
  CHECK(before <= now && now <= t_now());
  for (int32_t code = -1; code < 300; code += 300) {
    fiber = t_spawn1(&guest, "exits", code);
    JOINS(fiber, BOP_OUTCOME_EXITED);
    CHECK_EQ(bop_fiber_exit_code(fiber), code);
    bop_fiber_detach(fiber);
  }
  t_guest_delete(&guest);
  t_world_end(0);
  CASE("fibers, thousands");
  const uint32_t n = 3000;
  uint32_t sum = 0;
  for (uint32_t k = 0; k < n; k++)
    sum += k * k + 1;
  for (int i = 0; i < QUANTA; i++) {
    BEGIN(2, t_quanta[i], 0);
    CHECK_EQ(t_result_of(FIBERS, "tree", (int32_t[]){10}, 1), 2047);
    CHECK_EQ(t_result_of(FIBERS, "thousands", (int32_t[]){(int32_t)n}, 1), (int32_t)sum);
    CHECK_EQ(t_stats(world.runtime).spawned, 2047 + 1 + n);
    t_world_end(0);
  }
}

/* ---- channels, words, locks ---- */

/* Six fibers send 100 values each, six receive until it is closed; the sum of all. */
static const char *const CHANNELS = GUEST(
    "(elem (i32.const 1) $sends $takes)"
    FUNC("sends", "(param $k i32) (local $i i32)", EACH(i, N(100),
         IS(SEND(C, "(i64.extend_i32_u " ADD("(i32.mul " GET(k) N(100) ")", GET(i)) ")"), 0)))
    FUNC("takes", "(param $at i32) (result i32) (local $status i32) (local $sum i32)",
         "(loop (if (i32.eqz (local.tee $status " RECEIVE(C, GET(at)) ")) (then"
         SET(sum, ADD(GET(sum), LOAD(GET(at)))) "(br 1)))) " IS(GET(status), 8) GET(sum))
    FUNC("sum", "(param $capacity i32) (result i32) (local $i i32) (local $sum i32)",
         SET_C(CHANNEL(GET(capacity)))
         EACH(i, N(6), STORE64("offset=64 " AT8(i), SPAWN(N(2), ADD(N(512), AT8(i))))
                       STORE64("offset=128 " AT8(i), SPAWN(N(1), GET(i))))
         AGAIN(i) EACH(i, N(6), IS(JOIN(LOAD64("offset=128 " AT8(i)), N(0)), 0))
         IS(CLOSE(C), 0)
         AGAIN(i) EACH(i, N(6), IS(JOIN(LOAD64("offset=64 " AT8(i)), N(8)), 0) SET(sum, ADD(GET(sum), LOAD(N(8)))))
         IS(DELETE(C), 0) GET(sum)));

/* The lock of bop_guest.h is the word at 64; what it guards is that at 68. */
static const char *const LOCKS = GUEST(
    "(elem (i32.const 1) $adds) (global $times (mut i32) (i32.const 0)) (global $locks (mut i32) (i32.const 0))"
    FUNC("lock", "(local $was i32)",
         SET(was, LOAD(N(64))) STORE(N(64), "(select " N(1) N(2) "(i32.eqz " GET(was) "))")
         "(block (loop (br_if 1 (i32.eqz " GET(was) "))" SO("(i32.lt_u " WAIT(N(64), N(2), L(-1)) N(2) ")")
         SET(was, LOAD(N(64))) STORE(N(64), N(2)) "(br 0)))")
    FUNC("unlock", "(local $was i32)",
         SET(was, LOAD(N(64))) STORE(N(64), N(0)) IF("(i32.eq " GET(was) N(2) ")", "(drop " NOTIFY(N(64), N(1)) ")"))
    FUNC("adds", "(param i32) (local $i i32) (local $x i32)", EACH(i, "(global.get $times)",
         IF("(global.get $locks)", "(call $lock)")
         SET(x, LOAD(N(68))) IS(YIELD, 0) STORE(N(68), ADD(GET(x), N(1)))
         IF("(global.get $locks)", "(call $unlock)")))
    FUNC("count", "(param $fibers i32) (param $times i32) (param $locks i32) (result i32) (local $i i32)",
         "(global.set $times " GET(times) ") (global.set $locks " GET(locks) ")"
         EACH(i, GET(fibers), STORE64("offset=128 " AT8(i), SPAWN(N(1), N(0))))
         AGAIN(i) EACH(i, GET(fibers), IS(JOIN(LOAD64("offset=128 " AT8(i)), N(0)), 0))
         IS(LOAD(N(64)), 0) LOAD(N(68))));

static const char *const WORDS = GUEST(
    "(elem (i32.const 1) $waits)"
    FUNC("waits", "(param $at i32) (result i32)", WAIT(GET(at), N(0), L(-1)))
    FUNC("words", "(result i32) (local $i i32) (local $began i64)",
         IS(WAIT(N(64), N(1), L(-1)), 1) IS(WAIT(N(64), N(0), L(0)), 2) SET(began, NOW)
         IS(WAIT(N(64), N(0), L(3000000)), 2) SO("(i64.ge_u (i64.sub " NOW GET(began) ") " L(3000000) ")")
         IS(NOTIFY(N(64), N(9)), 0)
         /* three wait for 64, two for 68 */
         EACH(i, N(5), STORE64(AT8(i), SPAWN(N(1), ADD(N(64), "(i32.and " N(4) "(i32.shl " GET(i) N(2) "))"))))
         IS(YIELD, 0) IS("(call $live)", 6)
         IS(NOTIFY(N(64), N(0)), 0) IS(NOTIFY(N(72), N(9)), 0) IS(NOTIFY(N(64), N(2)), 2)
         IS(NOTIFY(N(64), N(9)), 1) IS(NOTIFY(N(64), N(9)), 0) IS(NOTIFY(N(68), N(-1)), 2)
         AGAIN(i) EACH(i, N(5), IS(JOIN(LOAD64(AT8(i)), N(128)), 0) IS(LOAD(N(128)), 0)) N(1)));

static void channels_and_words(void) {
  for (int i = 0; i < QUANTA; i++) {
    CASE("channels");
    BEGIN(2, t_quanta[i], 0);
    for (int32_t capacity = 0; capacity < 8; capacity = 3 * capacity + 1)
      CHECK_EQ(t_result_of(CHANNELS, "sum", &capacity, 1), 600 * 599 / 2);
    CASE("locks");
    CHECK_EQ(t_result_of(LOCKS, "count", (int32_t[]){100, 50, 1}, 3), 5000);
    CHECK(t_result_of(LOCKS, "count", (int32_t[]){100, 50, 0}, 3) < 5000); /* without, it goes wrong */
    t_world_end(0);
  }
  CASE("words");
  BEGIN(1, CALM, 0);
  CHECK_EQ(t_result_of(WORDS, "words", NULL, 0), 1);
  t_world_end(0);
}

/* ---- cancelled, or left alone, in every call that waits ---- */

/* Each gives the status of being cancelled, 2. */
static const char *const WAITS = GUEST(
    "(elem (i32.const 1) $in_sleep $seven $traps $exits)"
    FUNC("in_sleep", "(param i32) (result i32)", SLEEP(HOUR))
    FUNC("in_join", "(result i32)", JOIN(SPAWN(N(1), N(0)), N(0)))
    FUNC("in_send", "(result i32)", SEND(CHANNEL(N(0)), L(1)))
    FUNC("in_receive", "(result i32)", RECEIVE(CHANNEL(N(3)), N(8)))
    FUNC("in_wait", "(result i32)", ADD(WAIT(N(64), N(0), L(-1)), N(-1)))
    FUNC("in_wait_until", "(result i32)", ADD(WAIT(N(64), N(0), HOUR), N(-1)))
    FUNC("stubborn", "(result i32)", "(loop (drop " SLEEP(HOUR) ") (br 0)) unreachable")
    FUNC("wakes", "(result i32)", NOTIFY(N(64), N(9)))
    /* what nobody ever joins, closes or deletes */
    FUNC("seven", "(param i32) (result i32)", N(7))
    FUNC("traps", "(param i32)", "unreachable")
    FUNC("exits", "(param i32)", EXIT(N(1)))
    FUNC("leaves", "(result i32) (local $i i32)",
         EACH(i, N(30), "(drop " SPAWN(ADD(N(2), "(i32.rem_u " GET(i) N(3) ")"), N(0)) ")")
         SEND(CHANNEL(N(5)), L(1))));

static void waiting(void) {
  CASE("cancel");
  static const char *const NAMES[] = {"in_join", "in_send",  "in_receive", "in_wait", "in_wait_until",
                                      "stubborn", "in_sleep"};
  enum { HOW_MANY = sizeof NAMES / sizeof NAMES[0], STUBBORN = HOW_MANY - 2 };
  BEGIN(2, 50000, 0);
  t_guest guest;
  t_world_guest(&guest, WAITS);
  bop_fiber_t *fiber[HOW_MANY];
  for (int i = 0; i < HOW_MANY; i++) {
    fiber[i] = t_spawn(&guest, NAMES[i], (int32_t[]){0}, i == HOW_MANY - 1);
    EVENTUALLY(bop_fiber_state(fiber[i]) == BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(fiber[i]), BOP_OK);
    /* Who gets to its end has returned what it was told; a check on the way may stop it. */
    bop_outcome_t outcome = BOP_OUTCOME_FAILED;
    wasmtime_val_t status = t_i32(0);
    CHECK_EQ(bop_fiber_join(fiber[i], &outcome), BOP_OK);
    if (outcome == BOP_OUTCOME_RETURNED) {
      OK(bop_fiber_results(fiber[i], &status, 1));
      CHECK_EQ(status.of.i32, 2);
      CHECK(i != STUBBORN);
    } else {
      CHECK_EQ(outcome, BOP_OUTCOME_CANCELLED);
    }
    bop_fiber_detach(fiber[i]);
  }
  CHECK_EQ(t_result(t_spawn0(&guest, "wakes")), 0); /* they have left the queue */
  CASE("left behind");
  int before = world.freed;
  t_guest leaver;
  t_world_guest(&leaver, WAITS);
  bop_fiber_t *leaves = t_spawn0(&leaver, "leaves");
  JOINS(leaves, BOP_OUTCOME_RETURNED);
  t_guest_delete(&leaver);
  EVENTUALLY(world.freed == before + 1); /* neither the guest's handles nor the host's hold the store */
  bop_fiber_detach(leaves);
  CASE("deletion ends whoever waits");
  for (int i = 0; i < HOW_MANY; i++) {
    fiber[i] = t_spawn(&guest, NAMES[i], (int32_t[]){0}, i == HOW_MANY - 1);
    EVENTUALLY(bop_fiber_state(fiber[i]) == BOP_STATE_PARKED);
  }
  t_guest_delete(&guest);
  CHECK_EQ(world.freed, before + 1);
  t_world_end(HOW_MANY + 2); /* and the two that were to be joined */
  CHECK_EQ(world.freed, before + 2);
  for (int i = 0; i < HOW_MANY; i++) {
    CHECK_EQ(bop_fiber_state(fiber[i]), BOP_STATE_FINISHED);
    bop_fiber_detach(fiber[i]);
  }
}

int main(void) {
  t_start("guest");
  fibers();
  channels_and_words();
  waiting();
  return 0;
}
