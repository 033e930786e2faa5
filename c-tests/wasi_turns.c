/* Fibers of one store whose WASI calls wait again and again, so that the turn with the store's WASI changes hands all the
 * time: everybody gets it, nobody keeps the others from it, whoever is cancelled meanwhile. */
#include "support/limits.h"
#include "support/wasi.h"

#include <sys/stat.h>
#include <unistd.h>

#define OWN_FILE(flags) "(call $path_open " N(3) N(0) AT(s, 32) N(4) N(flags) L(66) L(0) N(0) AT(s, 16) ")"
static const char *const TAKES_TURNS = WASI_GUEST(
    "(data (i32.const 64) \"line\")"
    /* a file of its own, written and read in many calls that all wait */
    FUNC("files", "(param $i i32) (param $rounds i32) (result i32) (local $s i32) (local $k i32)", SET(s, AREA(i))
         STORE("offset=32 " GET(s), "(i32.add " ADD(N(1633771873), "(i32.and " GET(i) N(15) ")") /* "aaaa" */
               "(i32.shl (i32.shr_u " GET(i) N(4) ") " N(8) "))")
         IS(OWN_FILE(1), 0) STORE(GET(s), AT(s, BUFFER)) STORE("offset=4 " GET(s), N(8))
         EACH(k, GET(rounds), STORE64(AT(s, BUFFER), "(i64.extend_i32_u (i32.mul " GET(i) GET(k) "))")
              IS("(call $fd_pwrite " LOAD("offset=16 " GET(s)) GET(s) N(1) L(0) AT(s, 8) ")", 0) IS(COUNT(s), 8)
              STORE64(AT(s, BUFFER), L(-1))
              IS("(call $fd_pread " LOAD("offset=16 " GET(s)) GET(s) N(1) L(0) AT(s, 8) ")", 0) IS(COUNT(s), 8)
              SO("(i64.eq " LOAD64(AT(s, BUFFER)) "(i64.extend_i32_u (i32.mul " GET(i) GET(k) ")))"))
         IS("(call $fd_close " LOAD("offset=16 " GET(s)) ")", 0)
         IS("(call $path_unlink_file " N(3) AT(s, 32) N(4) ")", 0) GET(i))
    FUNC("lines", "(param $i i32) (param $n i32) (result i32) (local $s i32) (local $k i32)", SET(s, AREA(i))
         STORE8(AT(s, BUFFER), GET(i))
         EACH(k, GET(n), STORE8(AT(s, 2049), GET(k)) IS(WRITE(N(1), s, AT(s, BUFFER), N(2)), 0) IS(COUNT(s), 2)) GET(i))
    FUNC("reads", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) IS(READ(N(0), s, N(99)), 0)
         ADD("(i32.mul " N(256) COUNT(s) ")", "(i32.load8_u offset=2048 " GET(s) ")"))
    /* byte by byte, to the end; tells each */
    FUNC("reads_on", "(param $i i32) (result i32) (local $s i32) (local $n i32)", SET(s, AREA(i))
         "(loop " IS(READ(N(0), s, N(1)), 0)
         IF(COUNT(s), "(call $tell (i32.load8_u offset=2048 " GET(s) "))" SET(n, ADD(GET(n), N(1))) "(br 1)") ")" GET(n))
    FUNC("polls_on", "(param $i i32) (param $n i32) (result i32) (local $s i32) (local $k i32)", SET(s, AREA(i))
         EACH(k, GET(n), FD_READ(s, 0, N(0)) CLOCK(s, 1, 1, L(100000), 0) IS(POLL(s, 2), 0)) GET(i))
    FUNC("quick", "(param $i i32) (result i32)", IS("(call $random_get " AREA(i) N(9) ")", 0) GET(i))
    FUNC("naps_until", "(param $i i32) (param $ms i32) (result i32) (local $s i32)", SET(s, AREA(i))
         CLOCK(s, 0, 1, "(i64.add " MONOTONIC(s) "(i64.mul " L(1000000) "(i64.extend_i32_u " GET(ms) ")))", 1)
         IS(POLL(s, 1), 0) GET(i))
    FUNC("naps", "(param $i i32) (result i32) (local $s i32)", SET(s, AREA(i)) NAP(s, L(200000)) GET(i)));

static char folder[] = "/tmp/bop-wasi-XXXXXX";
static t_wasi wasi;
static t_guest guest;

static void begin(size_t workers, uint64_t quantum) {
  BEGIN(workers, quantum, 0);
  wasi = (t_wasi){.pipe = true, .folder = folder};
  t_wasi_guest(&guest, TAKES_TURNS, &wasi);
}

static void end(void) {
  if (wasi.pipe)
    t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_world_end(0);
}

#define SPAWN1(name, i) t_spawn1(&guest, name, i)
#define SPAWN2(name, i, n) t_spawn(&guest, name, (int32_t[]){i, n}, 2)
#define BYTES(n, first) (256 * (n) + (first))

/* The first has the turn; the next comes when that is done. */
static void several_read(void) {
  CASE("several wait for input, in order");
  enum { READERS = 10 };
  begin(1, CALM);
  bop_fiber_t *fiber[READERS];
  for (int i = 0; i < READERS; i++) {
    fiber[i] = SPAWN1("reads", i);
    t_waits(fiber[i]);
  }
  for (int i = 0; i < READERS; i++) {
    char text[2] = {(char)('a' + i), 0};
    t_wasi_feed(&wasi, text);
    CHECK_EQ(t_result(fiber[i]), BYTES(1, 'a' + i));
  }
  end();
}

static void prints(uint64_t quantum) {
  CASE("many print");
  enum { FIBERS = 100, LINES = 40 };
  begin(2, quantum);
  bop_fiber_t *fiber[FIBERS];
  for (int i = 0; i < FIBERS; i++)
    fiber[i] = SPAWN2("lines", i, LINES);
  for (int i = 0; i < FIBERS; i++)
    CHECK_EQ(t_result(fiber[i]), i);
  char next[FIBERS] = {0}; /* whole pieces, and each one's in order */
  CHECK_EQ(wasi.out_size, FIBERS * LINES * 2);
  for (size_t i = 0; i < wasi.out_size; i += 2) {
    CHECK(wasi.out[i] >= 0 && wasi.out[i] < FIBERS);
    CHECK_EQ(wasi.out[i + 1], next[(int)wasi.out[i]]++);
  }
  end();
}

static void files(uint64_t quantum) {
  CASE("many use files");
  enum { FIBERS = 20 };
  begin(2, quantum);
  bop_fiber_t *fiber[FIBERS];
  for (int i = 0; i < FIBERS; i++)
    fiber[i] = SPAWN2("files", i, 20);
  for (int i = 0; i < FIBERS; i++)
    CHECK_EQ(t_result(fiber[i]), i);
  end();
}

/* Who reads on and on does not keep others from their turn for ever. */
static void reads_on(const char *other, uint64_t quantum) {
  CASE("one reads on and on");
  begin(1, quantum);
  world.told = 0;
  bop_fiber_t *reader = SPAWN1("reads_on", 0);
  t_waits(reader);
  bop_fiber_t *fiber = other[0] == 'q' ? SPAWN1(other, 1) : SPAWN2(other, 1, 1);
  int fed = 0;
  while (bop_fiber_state(fiber) != BOP_STATE_FINISHED && fed < 1000) {
    t_wasi_feed(&wasi, "\1");
    fed++;
    EVENTUALLY(world.told == fed || bop_fiber_state(fiber) == BOP_STATE_FINISHED);
  }
  CHECK_EQ(bop_fiber_state(fiber), BOP_STATE_FINISHED);
  CHECK_EQ(t_result(fiber), 1);
  t_wasi_end(&wasi);
  CHECK_EQ(t_result(reader), fed);
  end();
}

static void polls_on(void) {
  CASE("some poll, others read and print");
  enum { FIBERS = 12 };
  begin(2, 50000);
  bop_fiber_t *fiber[FIBERS];
  for (int i = 0; i < FIBERS; i++)
    fiber[i] = SPAWN2(i % 2 ? "polls_on" : "lines", i, 100);
  for (int i = 0; i < FIBERS; i++)
    CHECK_EQ(t_result(fiber[i]), i);
  end();
}

/* C programs, CPython among them, sleep until a time of the monotonic clock. */
static void sleepers_until(void) {
  CASE("who sleeps until a time is in nobody's way");
  begin(1, CALM);
  bop_fiber_t *sleeper = SPAWN2("naps_until", 0, 3600000);
  t_waits(sleeper);
  for (int i = 1; i < 10; i++) {
    CHECK_EQ(t_result(SPAWN1("quick", i)), i);
    CHECK_EQ(t_result(SPAWN2("naps_until", i, i)), i);
    CHECK_EQ(t_result(SPAWN2("lines", i, 2)), i);
  }
  CHECK_EQ(bop_fiber_state(sleeper), BOP_STATE_PARKED);
  t_cancel_all(&sleeper, 1);
  end();
}

/* Joins one, and feeds the reader meanwhile: as long as that waits for input it is the reader's turn. */
static int fed_until_ended(bop_fiber_t *fiber, bop_outcome_t *outcome) {
  int fed = 0;
  while (bop_fiber_join_until(fiber, bop_now() + MS, outcome) == BOP_TIMEOUT) {
    t_wasi_feed(&wasi, "\1");
    fed++;
  }
  return fed;
}

/* All of it at once, for a while; some are cancelled. */
static void storm(void) {
  CASE("a storm");
  enum { FIBERS = 60 };
  static const char *const NAMES[] = {"files", "lines", "quick", "naps", "polls_on", "naps_until"};
  begin(2, 50000);
  uint64_t random = t_seed() + 1, until = t_now() + t_stress() / 4;
  bop_fiber_t *fiber[FIBERS] = {NULL}, *reader = SPAWN1("reads_on", FIBERS);
  int fed = 0, ended = 0;
  world.told = 0;
  while (t_now() < until) {
    size_t i = t_below(&random, FIBERS);
    if (fiber[i] != NULL) {
      bop_outcome_t outcome;
      if (t_below(&random, 4) == 0)
        CHECK(bop_fiber_cancel(fiber[i]) != BOP_INVALID);
      fed += fed_until_ended(fiber[i], &outcome);
      CHECK(outcome == BOP_OUTCOME_RETURNED || outcome == BOP_OUTCOME_CANCELLED);
      bop_fiber_detach(fiber[i]);
      ended++;
    }
    const char *name = NAMES[t_below(&random, 6)];
    if (wasi.out_size > sizeof wasi.out / 2)
      name = "naps";
    int32_t me = (int32_t)i, n = (int32_t)t_below(&random, 5) + 1;
    fiber[i] = strcmp(name, "quick") == 0 || strcmp(name, "naps") == 0 ? SPAWN1(name, me) : SPAWN2(name, me, n);
    t_wasi_feed(&wasi, "\1");
    fed++;
  }
  for (int i = 0; i < FIBERS; i++)
    if (fiber[i] != NULL) {
      fed += fed_until_ended(fiber[i], NULL);
      bop_fiber_detach(fiber[i]);
    }
  EVENTUALLY(world.told == fed);
  t_wasi_end(&wasi);
  CHECK_EQ(t_result(reader), fed);
  printf("%d ended\n", ended);
  end();
  char command[64]; /* what cancelled ones have left there */
  snprintf(command, sizeof command, "rm -f %s/????", folder);
  CHECK_EQ(system(command), 0);
}

int main(void) {
  t_start("wasi_turns");
  CHECK(mkdtemp(folder) != NULL);
  several_read();
  for (int i = 0; i < QUANTA; i++) {
    prints(t_quanta[i]);
    files(t_quanta[i]);
    reads_on("quick", t_quanta[i]);
    reads_on("lines", t_quanta[i]);
  }
  polls_on();
  sleepers_until();
  storm();
  CHECK_EQ(rmdir(folder), 0);
  return 0;
}
