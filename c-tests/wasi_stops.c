/* Whoever waits in a WASI call can be stopped there: cancelled, by a deadline of its own or of its store, for want of a
 * budget, by the end of the runtime. Nobody else is, and nothing that was to be read is lost. */
#include "support/limits.h"
#include "support/wasi.h"

#include <sys/stat.h>
#include <unistd.h>

#define WAY(n, name) IF("(i32.eq " GET(way) N(n) ")", "(call $" name " " GET(s) ")")
enum { NAPS, NAPS_UNTIL, NAPS_WALL, NAPS_LONGER, POLLS, POLLS_UNTIL, READS, YIELDS, NAPS_SHORT, WRITES_FILE, PRINTS, WAYS };

static const char *const WAITER = WASI_GUEST(
    "(data (i32.const 64) \"file\")"
    FUNC("naps", "(param $s i32)", CLOCK(s, 0, 1, HOUR, 0) "(drop " POLL(s, 1) ")")
    FUNC("naps_until", "(param $s i32)", CLOCK(s, 0, 1, "(i64.add " MONOTONIC(s) HOUR ")", 1) "(drop " POLL(s, 1) ")")
    FUNC("naps_wall", "(param $s i32)", CLOCK(s, 0, 0, "(i64.add " REALTIME(s) HOUR ")", 1) "(drop " POLL(s, 1) ")")
    FUNC("naps_longer", "(param $s i32)", CLOCK(s, 0, 1, HOUR, 0) CLOCK(s, 1, 0, L(-1), 0) CLOCK(s, 2, 1, HOUR, 0)
         "(drop " POLL(s, 3) ")")
    FUNC("polls", "(param $s i32)", FD_READ(s, 0, N(0)) "(drop " POLL(s, 1) ")")
    FUNC("polls_until", "(param $s i32)", FD_READ(s, 0, N(0)) CLOCK(s, 1, 1, HOUR, 0) "(drop " POLL(s, 2) ")")
    FUNC("reads", "(param $s i32)", "(drop " READ(N(0), s, N(9)) ")")
    FUNC("yields", "(param $s i32)", "(loop (drop (call $sched_yield)) (br 0))")
    FUNC("naps_short", "(param $s i32)", "(loop " NAP(s, L(300000)) "(br 0))")
    FUNC("writes_file", "(param $s i32)", IS("(call $path_open " N(3) N(0) N(64) N(4) N(1) L(66) L(0) N(0) AT(s, 16) ")", 0)
         STORE(GET(s), N(64)) STORE("offset=4 " GET(s), N(4))
         "(loop " IS("(call $fd_pwrite " LOAD("offset=16 " GET(s)) GET(s) N(1) L(0) AT(s, 8) ")", 0) "(br 0))")
    FUNC("prints", "(param $s i32)", "(loop " IS(WRITE(N(2), s, N(64), N(4)), 0) "(br 0))")
    /* in a way; cancels itself before if it is told to. It must not come back. */
    FUNC("waits", "(param $way i32) (param $cancels i32) (local $s i32)", SET(s, N(4096)) IF(GET(cancels), "(call $cancel)")
         WAY(0, "naps") WAY(1, "naps_until") WAY(2, "naps_wall") WAY(3, "naps_longer") WAY(4, "polls") WAY(5, "polls_until")
         WAY(6, "reads") WAY(7, "yields") WAY(8, "naps_short") WAY(9, "writes_file") WAY(10, "prints")
         "(loop (br 0))")
    FUNC("goes", "(param $way i32)", "(call $waits (local.get 0) " N(0) ")")
    FUNC("spin", "(param i32)", "(loop (br 0))")
    FUNC("gets", "(param $n i32) (result i32) (local $s i32)", SET(s, AREA(n)) IS(READ(N(0), s, GET(n)), 0) COUNT(s))
    FUNC("random", "(param $n i32) (result i32)", "(call $random_get " N(64) GET(n) ")")
    FUNC("stays", "(param $n i32)", "(drop (call $random_get " N(64) GET(n) ")) (loop (br 0))")
    FUNC("seven", "(result i32)", N(7)));

static char folder[] = "/tmp/bop-wasi-XXXXXX";
static wasmtime_module_t *module;
static t_wasi wasi[WAYS];
static t_guest guest[WAYS];

static ptrdiff_t drops(void *env, const unsigned char *data, size_t size) {
  (void)env, (void)data;
  return (ptrdiff_t)size;
}

/* A store for each way. */
static void begin(size_t workers, uint64_t quantum) {
  BEGIN(workers, quantum, 0);
  module = t_module(bop_runtime_engine(world.runtime), WAITER);
  for (int way = 0; way < WAYS; way++) {
    wasi[way] = (t_wasi){.pipe = true, .folder = folder, .err_callback = drops};
    t_wasi_instance(&guest[way], module, &wasi[way]);
  }
}

/* Whoever was stopped, all is well. */
static void end(void) {
  for (int way = 0; way < WAYS; way++) {
    CHECK_EQ(t_result(t_spawn0(&guest[way], "seven")), 7);
    t_wasi_feed(&wasi[way], "abc");
    CHECK_EQ(t_result(t_spawn1(&guest[way], "gets", 9)), 3);
    CHECK_EQ(t_result(t_spawn1(&guest[way], "random", 9)), 0);
    t_wasi_end(&wasi[way]);
    t_guest_delete(&guest[way]);
  }
  wasmtime_module_delete(module);
  t_world_end(0);
}

static bool waits_long(int way) { return way < YIELDS; }

static void cancelled(size_t workers, uint64_t quantum) {
  CASE("cancelled");
  begin(workers, quantum);
  for (int round = 0; round < 5; round++) {
    bop_fiber_t *fiber[WAYS];
    for (int way = 0; way < WAYS; way++) {
      fiber[way] = t_spawn(&guest[way], "waits", (int32_t[]){way, 0}, 2);
      if (waits_long(way) && round % 2) /* or on its way there */
        t_waits(fiber[way]);
    }
    for (int i = 0; i < WAYS; i++) {
      int way = (i + round) % WAYS;
      if (round == 3)
        CHECK_EQ(bop_store_cancel(guest[way].store), BOP_OK);
      else
        CHECK_EQ(bop_fiber_cancel(fiber[way]), BOP_OK);
      STOPPED(fiber[way], BOP_OUTCOME_CANCELLED);
    }
  }
  CASE("cancelled before it calls");
  for (int way = 0; way < WAYS; way++)
    STOPPED(t_spawn(&guest[way], "waits", (int32_t[]){way, 1}, 2), BOP_OUTCOME_CANCELLED);
  end();
}

static void deadlines(size_t workers, uint64_t quantum) {
  CASE("a fiber's deadline");
  begin(workers, quantum);
  for (int round = 0; round < 3; round++) {
    bop_fiber_t *fiber[WAYS];
    uint64_t deadline = bop_now() + 10 * MS;
    for (int way = 0; way < WAYS; way++)
      fiber[way] = t_limited(&guest[way], "goes", way, LIMITS(.deadline = deadline));
    for (int way = 0; way < WAYS; way++)
      STOPPED(fiber[way], BOP_OUTCOME_TIMED_OUT);
    CHECK(bop_now() >= deadline);
  }
  end();
  CASE("a store's deadline");
  begin(workers, quantum);
  bop_fiber_t *fiber[WAYS];
  for (int way = 0; way < WAYS; way++) {
    fiber[way] = t_spawn1(&guest[way], "goes", way);
    CHECK_EQ(bop_store_deadline(guest[way].store, bop_now() + 10 * MS), BOP_OK);
  }
  for (int way = 0; way < WAYS; way++) {
    STOPPED(fiber[way], BOP_OUTCOME_TIMED_OUT);
    t_wasi_end(&wasi[way]);
    t_guest_delete(&guest[way]);
  }
  wasmtime_module_delete(module);
  t_world_end(0);
}

/* Waiting costs nothing of it: only those that go on and on use it up. */
static void budgets(size_t workers, uint64_t quantum) {
  CASE("a fiber's budget");
  begin(workers, quantum);
  bop_fiber_t *fiber[WAYS];
  for (int way = 0; way < WAYS; way++)
    fiber[way] = t_limited(&guest[way], "goes", way, LIMITS(.budget = waits_long(way) ? 30 * SECOND : 5 * MS));
  for (int way = YIELDS; way < WAYS; way++)
    STOPPED(fiber[way], BOP_OUTCOME_OUT_OF_BUDGET);
  for (int way = 0; way < YIELDS; way++) {
    t_waits(fiber[way]);
    uint64_t used;
    EVENTUALLY((used = bop_fiber_cpu(fiber[way]), t_pause(MS), bop_fiber_cpu(fiber[way]) == used));
  }
  t_cancel_all(fiber, YIELDS);
  CASE("a store's budget, which a sibling has used up: whoever goes on ends");
  for (int way = 0; way < WAYS; way++) {
    fiber[way] = t_spawn1(&guest[way], "goes", way);
    if (waits_long(way))
      t_waits(fiber[way]);
    CHECK_EQ(bop_store_cpu_budget(guest[way].store, 5 * MS), BOP_OK);
    STOPPED(t_spawn1(&guest[way], "spin", 0), BOP_OUTCOME_OUT_OF_BUDGET);
  }
  for (int way = YIELDS; way < WAYS; way++)
    STOPPED(fiber[way], BOP_OUTCOME_OUT_OF_BUDGET);
  for (int way = POLLS; way <= READS; way++) {
    CHECK_EQ(bop_fiber_state(fiber[way]), BOP_STATE_PARKED);
    t_wasi_feed(&wasi[way], "x");
    STOPPED(fiber[way], BOP_OUTCOME_OUT_OF_BUDGET);
  }
  for (int way = 0; way < POLLS; way++) {
    CHECK_EQ(bop_fiber_state(fiber[way]), BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(fiber[way]), BOP_OK);
    STOPPED(fiber[way], BOP_OUTCOME_CANCELLED);
  }
  for (int way = 0; way < WAYS; way++) { /* there is more */
    CHECK_EQ(bop_store_cpu_budget(guest[way].store, UINT64_MAX), BOP_OK);
    if (way >= POLLS && way <= READS) { /* what the stopped one did not read is still there */
      int64_t n = way == READS ? 0 : t_result(t_spawn1(&guest[way], "gets", 9));
      CHECK(n == 1 || way == READS);
    }
  }
  t_wasi_feed(&wasi[READS], "y"); /* whether or not it has read its "x", this comes whole */
  int64_t n = t_result(t_spawn1(&guest[READS], "gets", 9));
  CHECK(n == 1 || n == 2);
  end();
}

/* One that waits for input, and one that waits for its turn with WASI, which that has. */
static void behind_a_sibling(void) {
  CASE("who waits for its turn");
  begin(1, CALM);
  for (int kind = 0; kind < 3; kind++) {
    t_guest *store = &guest[kind];
    bop_fiber_t *reader = t_spawn1(store, "gets", 9), *waits;
    t_waits(reader);
    waits = t_limited(store, "stays", 9, LIMITS(.deadline = kind == 1 ? bop_now() + 5 * MS : 0));
    if (kind != 1) {
      t_waits(waits);
      CHECK_EQ(kind ? bop_fiber_cancel(waits) : bop_store_cancel(store->store), BOP_OK);
    }
    STOPPED(waits, kind == 1 ? BOP_OUTCOME_TIMED_OUT : BOP_OUTCOME_CANCELLED);
    if (kind == 0) {
      STOPPED(reader, BOP_OUTCOME_CANCELLED);
      continue;
    }
    CHECK_EQ(bop_fiber_state(reader), BOP_STATE_PARKED); /* that one is none the worse */
    t_wasi_feed(&wasi[kind], "ab");
    CHECK_EQ(t_result(reader), 2);
  }
  end();
}

static void at_the_end(void) {
  CASE("the end of the runtime");
  begin(2, 50000);
  bop_fiber_t *fiber[WAYS], *behind = NULL;
  for (int way = 0; way < WAYS; way++) {
    fiber[way] = t_spawn1(&guest[way], "goes", way);
    if (waits_long(way))
      t_waits(fiber[way]);
  }
  behind = t_spawn1(&guest[READS], "stays", 9);
  t_waits(behind);
  int before = world.freed;
  for (int way = 0; way < WAYS; way++)
    t_guest_delete(&guest[way]);
  wasmtime_module_delete(module);
  t_world_end(WAYS + 1);
  CHECK_EQ(world.freed, before + WAYS);
  for (int way = 0; way < WAYS; way++) {
    STOPPED(fiber[way], BOP_OUTCOME_CANCELLED);
    t_wasi_end(&wasi[way]);
  }
  STOPPED(behind, BOP_OUTCOME_CANCELLED);
}

int main(void) {
  t_start("wasi_stops");
  CHECK(mkdtemp(folder) != NULL);
  for (size_t workers = 1; workers <= 2; workers++) {
    cancelled(workers, workers == 1 ? 1 * MS : 50000);
    deadlines(workers, workers == 1 ? 1 * MS : 50000);
    budgets(workers, workers == 1 ? 1 * MS : 50000);
  }
  behind_a_sibling();
  at_the_end();
  char path[64];
  snprintf(path, sizeof path, "%s/file", folder);
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(rmdir(folder), 0);
  return 0;
}
