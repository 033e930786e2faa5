/* WASI preview 1 of bop_linker_define_wasi, call by call, for one fiber at a time on one worker: clocks, yielding, what a
 * store is given and what it is not, exits. (Wrong calls: wasi_mistakes.c; input and output: wasi_input.c, wasi_output.c;
 * files: wasi_files.c; being stopped: wasi_stops.c; many fibers of one store: wasi_siblings.c.) */
#include "support/wasi.h"

#include <time.h>

/* ---- clocks ---- */

#define MSEC(n) "(i64.mul " L(1000000) n ")"
#define SPAN(ms) "(i64.mul " L(1000000) "(i64.extend_i32_u " GET(ms) "))"
#define LATER(clock, ms) "(i64.add " clock SPAN(ms) ")"
#define PASSED(t, ms) SO("(i64.ge_u (i64.sub " MONOTONIC(s) GET(t) ") " SPAN(ms) ")")

static const char *const CLOCKS = WASI_GUEST(
    /* one clock: by itself, and for as long as it says at least */
    FUNC("one", "(param $ms i32) (result i32) (local $s i32) (local $t i64)", SET(s, N(4096))
         SET(t, MONOTONIC(s)) CLOCK(s, 0, 1, SPAN(ms), 0) IS(POLL(s, 1), 0) IS(COUNT(s), 1) PASSED(t, ms)
         IS(USERDATA(s, E0), 100) IS(ERROR(s, E0), 0) IS(TYPE(s, E0), 0)
         SET(t, MONOTONIC(s)) CLOCK(s, 0, 0, SPAN(ms), 0) IS(POLL(s, 1), 0) IS(COUNT(s), 1) PASSED(t, ms)
         SET(t, MONOTONIC(s)) CLOCK(s, 0, 1, LATER(MONOTONIC(s), ms), 1) IS(POLL(s, 1), 0) IS(COUNT(s), 1) PASSED(t, ms)
         IS(USERDATA(s, E0), 100) IS(ERROR(s, E0), 0) IS(TYPE(s, E0), 0)
         SET(t, REALTIME(s)) CLOCK(s, 0, 0, LATER(REALTIME(s), ms), 1) IS(POLL(s, 1), 0) IS(COUNT(s), 1)
         SO("(i64.ge_u (i64.sub " REALTIME(s) GET(t) ") " SPAN(ms) ")") N(1))
    /* what is past is due at once */
    FUNC("past", "(result i32) (local $s i32)", SET(s, N(4096))
         CLOCK(s, 0, 0, L(1), 1) IS(POLL(s, 1), 0) IS(COUNT(s), 1) CLOCK(s, 0, 1, L(1), 1) IS(POLL(s, 1), 0) IS(COUNT(s), 1)
         CLOCK(s, 0, 1, L(0), 0) IS(POLL(s, 1), 0) IS(COUNT(s), 1) N(1))
    /* of several those that are due are told, the others not */
    FUNC("several", "(param $ms i32) (result i32) (local $s i32) (local $t i64)", SET(s, N(4096))
         CLOCK(s, 0, 1, HOUR, 0) CLOCK(s, 1, 0, SPAN(ms), 0) CLOCK(s, 2, 1, L(-1), 0) SET(t, MONOTONIC(s))
         IS(POLL(s, 3), 0) IS(COUNT(s), 1) IS(USERDATA(s, E0), 101) IS(TYPE(s, E0), 0) PASSED(t, ms)
         CLOCK(s, 2, 1, LATER(MONOTONIC(s), ms), 1) CLOCK(s, 1, 0, HOUR, 0)
         IS(POLL(s, 3), 0) IS(COUNT(s), 1) IS(USERDATA(s, E0), 102)
         CLOCK(s, 0, 1, L(0), 0) CLOCK(s, 1, 0, HOUR, 0) CLOCK(s, 2, 0, L(0), 1) IS(POLL(s, 3), 0) IS(COUNT(s), 2)
         IS(ADD(USERDATA(s, E0), USERDATA(s, E1)), 202) N(1))
    /* 70 of them, at 8192, of which one is due; the events are at 16384 */
    FUNC("many", "(param $ms i32) (result i32) (local $s i32) (local $i i32)", SET(s, N(8192))
         EACH(i, N(70), "(call $clock " GET(s) GET(i) N(1)
              "(select " SPAN(ms) HOUR "(i32.eq " GET(i) N(55) ")) " N(0) ")")
         IS("(call $poll_oneoff " AT(s, 64) N(16384) N(70) AT(s, 8) ")", 0) IS(COUNT(s), 1) LOAD(N(16384)))
    FUNC("never", "(local $s i32)", SET(s, N(4096)) CLOCK(s, 0, 1, L(-1), 0) "(drop " POLL(s, 1) ")")
    FUNC("realtime", "(result i64) (local $s i32)", SET(s, N(4096)) REALTIME(s))
    FUNC("monotonic", "(result i64) (local $s i32)", SET(s, N(4096)) MONOTONIC(s))
    FUNC("resolution", "(param $id i32) (result i64)", IS("(call $clock_res_get " GET(id) N(64) ")", 0) LOAD64(N(64))));

static uint64_t wall(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static const char *const COUNTS = "(module (global $n (mut i32) (i32.const 0)) (func (export \"more\") (result i32)"
                                  "(global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))";

static void clocks(void) {
  CASE("clocks");
  BEGIN(1, CALM, 0);
  t_wasi wasi = {0};
  t_guest guest, other;
  t_wasi_guest(&guest, CLOCKS, &wasi);
  t_guest_new(&other, world.runtime, COUNTS, NULL);
  for (int32_t ms = 0; ms < 20; ms += 9) {
    CHECK_EQ(t_result(t_spawn1(&guest, "one", ms)), 1);
    CHECK_EQ(t_result(t_spawn1(&guest, "several", ms)), 1);
    CHECK_EQ(t_result(t_spawn1(&guest, "many", ms)), 155);
  }
  CHECK_EQ(t_result(t_spawn0(&guest, "past")), 1);
  uint64_t before = wall(), told = (uint64_t)t_result(t_spawn0(&guest, "realtime"));
  CHECK(before <= told && told <= wall());
  before = (uint64_t)t_result(t_spawn0(&guest, "monotonic"));
  CHECK(before <= (uint64_t)t_result(t_spawn0(&guest, "monotonic")));
  CHECK(t_result(t_spawn1(&guest, "resolution", 0)) > 0);
  CHECK(t_result(t_spawn1(&guest, "resolution", 1)) > 0);

  CASE("while one sleeps, others have its worker");
  bop_fiber_t *never = t_spawn0(&guest, "never");
  t_waits(never);
  for (int i = 1; i <= 20; i++) {
    CHECK_EQ(t_result(t_spawn0(&other, "more")), i);
    CHECK_EQ(t_result(t_spawn0(&guest, "past")), 1);
  }
  CHECK_EQ(bop_fiber_state(never), BOP_STATE_PARKED);
  t_cancel_all(&never, 1);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  t_world_end(0);
}

/* ---- yielding ---- */

/* Each notes its turns in a list of the host's. */
static int turns[40], turn_count;
static wasm_trap_t *notes(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)results, (void)nresults;
  CHECK(turn_count < 40);
  turns[turn_count++] = args[0].of.i32;
  return NULL;
}

/* On the only worker, so both are there before either runs. The stores have no WASI: this needs nothing of it. */
static int64_t spawns_two(void *pre) {
  bop_fiber_t *fiber[2];
  for (int i = 0; i < 2; i++) {
    wasmtime_val_t me = t_i32(i);
    OK(bop_spawn_instance(world.runtime, pre, "run", 3, &me, 1, NULL, NULL, NULL, NULL, &fiber[i]));
  }
  for (int i = 0; i < 2; i++)
    ENDS(fiber[i], BOP_OUTCOME_RETURNED);
  return 1;
}

static void yielding(void) {
  CASE("sched_yield lets others run");
  BEGIN(1, CALM, 0);
  wasm_engine_t *engine = bop_runtime_engine(world.runtime);
  const t_import imports[] = {{"note", "i", "", notes, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  wasmtime_linker_t *linker = t_linker(engine, imports);
  OK(bop_linker_define_wasi(linker));
  wasmtime_module_t *module = t_module(engine,
      "(module" HOST("note", "(param i32)") WASI("sched_yield", "(result i32)") "(memory (export \"memory\") 1)"
      FUNC("run", "(param $me i32) (local $i i32)",
           EACH(i, N(10), "(call $note " GET(me) ") (if (call $sched_yield) (then unreachable))")) ")");
  wasmtime_instance_pre_t *pre = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  CHECK_EQ(t_result(t_spawn_host(world.runtime, spawns_two, pre, NULL)), 1);
  CHECK_EQ(turn_count, 20);
  for (int i = 1; i < 20; i++)
    CHECK(turns[i] != turns[i - 1]);
  wasmtime_instance_pre_delete(pre);
  wasmtime_module_delete(module);
  wasmtime_linker_delete(linker);
  t_world_end(0);
}

/* ---- what a store is given, and nothing else ---- */

static const char *const GIVEN = WASI_GUEST(
    "(data (i32.const 64) \"file\") (data (i32.const 72) \"/etc/passwd\")"
    /* the number, and the size of all; then the texts, one after the other, from 8192 on */
    FUNC("args", "(result i32) (local $s i32)", SET(s, N(4096))
         IS("(call $args_sizes_get " N(128) N(132) ")", 0) IS("(call $args_get " N(4096) N(8192) ")", 0)
         ADD("(i32.mul " N(1000) LOAD(N(128)) ")", LOAD(N(132))))
    FUNC("env", "(result i32) (local $s i32)", SET(s, N(4096))
         IS("(call $environ_sizes_get " N(128) N(132) ")", 0) IS("(call $environ_get " N(4096) N(8192) ")", 0)
         ADD("(i32.mul " N(1000) LOAD(N(128)) ")", LOAD(N(132))))
    FUNC("pointer", "(param $i i32) (result i32)", "(i32.load offset=4096 (i32.shl " GET(i) N(2) "))")
    FUNC("byte", "(param $at i32) (result i32)", "(i32.load8_u " GET(at) ")")
    FUNC("random", "(param $n i32) (result i64)", STORE64(N(64), L(0)) IS("(call $random_get " N(64) GET(n) ")", 0)
         LOAD64(N(64)))
    /* no input but its end; output goes nowhere; no descriptor but these three, so nothing to be opened */
    FUNC("nothing", "(result i32) (local $s i32) (local $i i32)", SET(s, N(4096))
         IS(READ(N(0), s, N(10)), 0) IS(COUNT(s), 0)
         IS(WRITE(N(1), s, N(64), N(4)), 0) IS(COUNT(s), 4) IS(WRITE(N(2), s, N(64), N(4)), 0) IS(COUNT(s), 4)
         SET(i, N(3)) EACH(i, N(10), IS("(call $fd_prestat_get " GET(i) N(128) ")", 8)
              IS("(call $path_open " GET(i) N(0) N(64) N(4) N(1) L(64) L(0) N(0) N(128) ")", 8)
              IS("(call $path_open " GET(i) N(0) N(72) N(11) N(0) L(2) L(0) N(0) N(128) ")", 8)
              IS(READ(GET(i), s, N(1)), 8))
         AGAIN(i) EACH(i, N(3), SO("(call $path_open " GET(i) N(0) N(64) N(4) N(1) L(64) L(0) N(0) N(128) ")"))
         N(1)));

static void text_is(const t_guest *guest, int32_t at, const char *text) {
  for (size_t i = 0; i <= strlen(text); i++)
    CHECK_EQ(t_result(t_spawn1(guest, "byte", at + (int32_t)i)), (unsigned char)text[i]);
}

static void given(void) {
  CASE("arguments, environment, random bytes");
  BEGIN(1, CALM, 0);
  setenv("BOP_TEST_SECRET", "is not for guests", 1);
  t_guest guest;
  t_wasi some = {.argv = {"prog", "", "zwei \xc3\xb6"}, .names = {"A", "EMPTY"}, .values = {"1=2", ""}};
  t_wasi_guest(&guest, GIVEN, &some);
  CHECK_EQ(t_result(t_spawn0(&guest, "args")), 3000 + 5 + 1 + 8);
  CHECK_EQ(t_result(t_spawn1(&guest, "pointer", 0)), 8192);
  CHECK_EQ(t_result(t_spawn1(&guest, "pointer", 2)), 8198);
  text_is(&guest, 8192, "prog");
  text_is(&guest, 8198, "zwei \xc3\xb6");
  CHECK_EQ(t_result(t_spawn0(&guest, "env")), 2000 + 6 + 7);
  text_is(&guest, 8192, "A=1=2");
  text_is(&guest, 8198, "EMPTY=");
  int64_t first = t_result(t_spawn1(&guest, "random", 8));
  CHECK(first != 0 && first != t_result(t_spawn1(&guest, "random", 8)));
  CHECK_EQ(t_result(t_spawn1(&guest, "random", 0)), 0);
  CHECK_EQ(t_result(t_spawn1(&guest, "random", 3)) >> 24, 0);
  t_guest_delete(&guest);

  CASE("nothing is granted that was not given");
  t_wasi none = {.loud = true};
  t_wasi_guest(&guest, GIVEN, &none);
  CHECK_EQ(t_result(t_spawn0(&guest, "args")), 0);
  CHECK_EQ(t_result(t_spawn0(&guest, "env")), 0);
  CHECK_EQ(t_result(t_spawn0(&guest, "nothing")), 1);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* ---- exits ---- */

static const char *const EXITS = WASI_GUEST(
    FUNC("inner", "(param i32)", "(call $proc_exit (local.get 0)) unreachable")
    FUNC("exits", "(param i32) (result i32)", "(call $inner (local.get 0)) " N(1)) FUNC("seven", "(result i32)", N(7)));

static void exits(void) {
  CASE("exits");
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi wasi = {0};
  t_wasi_guest(&guest, EXITS, &wasi);
  OK(bop_store_trap_policy(guest.store, BOP_TRAP_POISON)); /* an exit is no trap */
  static const int32_t CODES[] = {0, 1, 2, 77, 125};
  for (size_t i = 0; i < sizeof CODES / sizeof CODES[0]; i++) {
    bop_fiber_t *fiber = t_spawn1(&guest, "exits", CODES[i]);
    JOINS(fiber, BOP_OUTCOME_EXITED);
    CHECK_EQ(bop_fiber_exit_code(fiber), CODES[i]);
    CHECK(bop_fiber_take_trap(fiber) == NULL);
    bop_fiber_detach(fiber);
    CHECK_EQ(t_result(t_spawn0(&guest, "seven")), 7);
  }
  OK(bop_store_trap_policy(guest.store, BOP_TRAP_ISOLATE));
  static const int32_t NO_CODES[] = {126, 127, 255, 256, -1, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < sizeof NO_CODES / sizeof NO_CODES[0]; i++) {
    bop_fiber_t *fiber = t_spawn1(&guest, "exits", NO_CODES[i]);
    JOINS(fiber, BOP_OUTCOME_TRAPPED);
    CHECK_EQ(bop_fiber_exit_code(fiber), 0);
    CHECK_HAS(t_trap_of(fiber), "invalid exit status");
  }
  CHECK_EQ(t_result(t_spawn0(&guest, "seven")), 7);
  t_guest_delete(&guest);
  t_world_end(0);
}

int main(void) {
  t_start("wasi");
  clocks();
  yielding();
  given();
  exits();
  return 0;
}
