/* Many fibers of one store that call WASI: who sleeps or yields is in nobody's way; while one waits for input, others wait
 * for their turn, and get it, whatever becomes of that one. (Turns that change hands again and again: wasi_turns.c.) */
#include "support/limits.h"
#include "support/wasi.h"

static const char *const STORE_GUEST = WASI_GUEST_OF("(memory (export \"memory\") 13 400)",
    "(data (i32.const 64) \"line\")"
    FUNC("naps", "(param $i i32) (param $ms i32) (result i32) (local $s i32) (local $t i64)", SET(s, AREA(i))
         SET(t, "(call $now)") NAP(s, "(i64.mul " L(1000000) "(i64.extend_i32_u " GET(ms) "))") IS(USERDATA(s, E0), 100)
         SO("(i64.ge_u (i64.sub (call $now) " GET(t) ") (i64.mul " L(1000000) "(i64.extend_i32_u " GET(ms) ")))") GET(i))
    FUNC("naps_wall", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i))
         CLOCK(s, 0, 0, "(i64.add " REALTIME(s) HOUR ")", 1) POLL(s, 1))
    FUNC("naps_longer", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i))
         CLOCK(s, 0, 1, HOUR, 0) CLOCK(s, 1, 0, L(-1), 0) CLOCK(s, 2, 1, HOUR, 0) POLL(s, 3))
    FUNC("naps_an_hour", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) CLOCK(s, 0, 1, HOUR, 0) POLL(s, 1))
    FUNC("yields", "(param $i i32) (result i32)", "(loop (br_if 0 (i32.eqz (call $sched_yield)))) " GET(i))
    FUNC("prints", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) IS(WRITE(N(1), s, N(64), N(4)), 0) GET(i))
    FUNC("reads", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) IS(READ(N(0), s, N(99)), 0)
         ADD("(i32.mul " N(256) COUNT(s) ")", "(i32.load8_u offset=2048 " GET(s) ")"))
    FUNC("polls", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) FD_READ(s, 0, N(0)) CLOCK(s, 1, 1, HOUR, 0)
         IS(POLL(s, 2), 0) COUNT(s))
    /* calls that wait for nothing but their turn */
    FUNC("quick", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i))
         IS("(call $random_get " AT(s, 64) N(64) ")", 0) "(drop " MONOTONIC(s) ")"
         IS("(call $args_sizes_get " AT(s, 64) AT(s, 68) ")", 0) IS(LOAD("offset=64 " GET(s)), 2)
         IS("(call $args_get " AT(s, 64) AT(s, BUFFER) ")", 0) IS(LOAD(AT(s, BUFFER)), 1735357040) /* prog */ GET(i))
    FUNC("closes", "(param $fd i32) (result i32)", "(call $fd_close " GET(fd) ")")
    FUNC("exits", "(param $code i32)", "(call $proc_exit " GET(code) ")")
    FUNC("grows", "(param $pages i32) (result i32)", "(drop (memory.grow " GET(pages) ")) (memory.size)")
    FUNC("fills", "(param $byte i32)",
         "(memory.fill " N(851968) GET(byte) "(i32.sub (i32.shl (memory.size) " N(16) ") " N(851968) "))"));

#define SPAWN1(name, i) t_spawn1(&guest, name, i)
#define BYTES(n, first) (256 * (n) + (first))

static t_wasi wasi;
static t_guest guest;

static void begin(size_t workers, uint64_t quantum) {
  BEGIN(workers, quantum, 0);
  wasi = (t_wasi){.argv = {"prog", "x"}, .pipe = true};
  t_wasi_guest(&guest, STORE_GUEST, &wasi);
}

static void end(void) {
  t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* ---- who is in nobody's way ---- */

static void sleepers(void) {
  CASE("who sleeps or yields is in nobody's way");
  begin(1, CALM);
  static const char *const NAMES[] = {"naps_an_hour", "naps_wall", "naps_longer", "yields"};
  enum { KINDS_OF_THEM = sizeof NAMES / sizeof NAMES[0] };
  bop_fiber_t *fiber[3 * KINDS_OF_THEM];
  for (int i = 0; i < 3 * KINDS_OF_THEM; i++)
    fiber[i] = SPAWN1(NAMES[i % KINDS_OF_THEM], i);
  for (int i = 0; i < 3 * KINDS_OF_THEM; i++)
    if (i % KINDS_OF_THEM != 3)
      t_waits(fiber[i]);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(t_result(SPAWN1("quick", 20)), 20);
    CHECK_EQ(t_result(SPAWN1("prints", 20)), 20);
    t_wasi_feed(&wasi, "ab");
    CHECK_EQ(t_result(SPAWN1("reads", 21)), BYTES(2, 'a'));
  }
  CHECK_EQ(wasi.out_size, 80);
  t_cancel_all(fiber, 3 * KINDS_OF_THEM);
  end();
}

static void many_sleepers(uint64_t quantum) {
  CASE("many sleep at once");
  enum { SLEEPERS = 190 };
  begin(2, quantum);
  static bop_fiber_t *fiber[SLEEPERS];
  for (int i = 0; i < SLEEPERS; i++)
    fiber[i] = t_spawn(&guest, "naps", (int32_t[]){i, i * 7 % 30}, 2);
  for (int i = 0; i < SLEEPERS; i++)
    CHECK_EQ(t_result(fiber[i]), i);
  end();
}

/* ---- while one waits for input ---- */

enum { FED, CANCELLED, LATE, KILLED, WAYS };

static void one_waits(const char *how, int way) {
  enum { OTHERS = 12 };
  begin(1, CALM);
  for (int round = 0; round < 3; round++) {
    bop_fiber_t *other[OTHERS];
    bop_fiber_t *reader = t_limited(&guest, how, 0, LIMITS(.deadline = way == LATE ? bop_now() + 30 * MS : 0));
    if (way != LATE)
      t_waits(reader);
    for (int i = 0; i < OTHERS; i++)
      other[i] = SPAWN1("quick", i + 1);
    if (way != LATE)
      for (int i = 0; i < OTHERS; i++)
        t_waits(other[i]);
    CHECK_EQ(t_result(t_spawn(&guest, "naps", (int32_t[]){20, 1}, 2)), 20); /* that goes on all the same */
    switch (way) {
    case FED:
      t_wasi_feed(&wasi, "xyz");
      CHECK_EQ(t_result(reader), how[0] == 'p' ? 1 : BYTES(3, 'x'));
      break;
    case CANCELLED:
      CHECK_EQ(bop_fiber_cancel(reader), BOP_OK);
      STOPPED(reader, BOP_OUTCOME_CANCELLED);
      break;
    case LATE:
      STOPPED(reader, BOP_OUTCOME_TIMED_OUT);
      break;
    default: /* one of those that wait for their turn goes, and then the one that they wait for */
      CHECK_EQ(bop_fiber_cancel(other[OTHERS - 1]), BOP_OK);
      bop_fiber_join(other[OTHERS - 1], NULL);
      CHECK_EQ(bop_fiber_cancel(reader), BOP_OK);
      STOPPED(reader, BOP_OUTCOME_CANCELLED);
    }
    for (int i = 0; i < OTHERS - (way == KILLED); i++)
      CHECK_EQ(t_result(other[i]), i + 1);
    if (way == KILLED)
      bop_fiber_detach(other[OTHERS - 1]);
    if (way != FED)
      t_wasi_feed(&wasi, "xyz");
    if (way != FED || how[0] == 'p') /* nothing is lost */
      CHECK_EQ(t_result(SPAWN1("reads", 2)), BYTES(3, 'x'));
  }
  end();
}

static void others_wait(void) {
  CASE("while one waits for input, others wait for their turn, and get it");
  for (int way = 0; way < WAYS; way++) {
    one_waits("reads", way);
    one_waits("polls", way);
  }
}

static void closing(void) {
  CASE("a sibling closes the input that one waits for");
  begin(1, CALM);
  bop_fiber_t *reader = SPAWN1("reads", 0);
  t_waits(reader);
  bop_fiber_t *closes = SPAWN1("closes", 0);
  t_waits(closes);
  t_wasi_feed(&wasi, "xy"); /* so it waits for its turn */
  CHECK_EQ(t_result(reader), BYTES(2, 'x'));
  CHECK_EQ(t_result(closes), 0);
  CHECK_EQ(t_result(SPAWN1("closes", 0)), 8);
  end();
  CASE("a sibling exits");
  begin(1, CALM);
  reader = SPAWN1("reads", 0);
  t_waits(reader);
  bop_fiber_t *exits = SPAWN1("exits", 3); /* which needs no turn */
  JOINS(exits, BOP_OUTCOME_EXITED);
  CHECK_EQ(bop_fiber_exit_code(exits), 3);
  bop_fiber_detach(exits);
  CHECK_EQ(bop_fiber_state(reader), BOP_STATE_PARKED);
  t_wasi_feed(&wasi, "xy");
  CHECK_EQ(t_result(reader), BYTES(2, 'x'));
  end();
}

/* ---- the memory meanwhile ---- */

static void growing(void) {
  CASE("the memory grows and changes during a call that waits");
  for (int i = 0; i < 2; i++) {
    begin(1 + (size_t)i, i ? 50000 : CALM);
    bop_fiber_t *reader = SPAWN1("reads", 0), *naps = t_spawn(&guest, "naps", (int32_t[]){1, 20}, 2);
    t_waits(reader);
    int32_t pages = 13;
    for (int k = 0; k < 20; k++) {
      pages += 10;
      CHECK_EQ(t_result(SPAWN1("grows", 10)), pages);
      ENDS(SPAWN1("fills", k), BOP_OUTCOME_RETURNED);
    }
    t_wasi_feed(&wasi, "pqr");
    CHECK_EQ(t_result(reader), BYTES(3, 'p'));
    CHECK_EQ(t_result(naps), 1);
    end();
  }
}

int main(void) {
  t_start("wasi_siblings");
  sleepers();
  for (int i = 0; i < QUANTA; i++)
    many_sleepers(t_quanta[i]);
  others_wait();
  closing();
  growing();
  return 0;
}
