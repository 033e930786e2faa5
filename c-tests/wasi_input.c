/* What a WASI guest reads from its standard input, where there may be nothing yet: only its fiber waits. (That siblings wait
 * for their turn meanwhile: wasi_siblings.c.) */
#include "support/wasi.h"

#include <fcntl.h>
#include <unistd.h>

enum { BADF = 8, INTR = 27 };

static const char *const READER = WASI_GUEST(
    /* the errno, or the number of bytes and the first of them */
    FUNC("reads", "(param $n i32) (result i32) (local $s i32) (local $e i32)", SET(s, N(4096))
         "(memory.fill " AT(s, BUFFER) N(0) N(1) ")"
         IF("(local.tee $e " READ(N(0), s, GET(n)) ")", "(return (i32.sub " N(0) GET(e) "))")
         ADD("(i32.mul " N(256) COUNT(s) ")", "(i32.load8_u offset=2048 " GET(s) ")"))
    /* tells each byte, to the end: how many there were */
    FUNC("all", "(param $at_once i32) (result i32) (local $s i32) (local $n i32) (local $i i32) (local $e i32)",
         SET(s, N(4096))
         "(loop $more" IF("(i32.eq " N(27) "(local.tee $e " READ(N(0), s, GET(at_once)) "))", "(br $more)") IS(GET(e), 0)
         IF(COUNT(s), SET(n, ADD(GET(n), COUNT(s))) AGAIN(i)
            EACH(i, COUNT(s), "(call $tell (i32.load8_u offset=2048 " ADD(GET(s), GET(i)) "))") "(br $more)") ")" GET(n))
    /* the subscriptions that were told, as bits: standard input is 1, the clock is 2 */
    FUNC("polls", "(param $ms i32) (result i32) (local $s i32) (local $e i32)", SET(s, N(4096))
         FD_READ(s, 0, N(0)) CLOCK(s, 1, 1, "(i64.mul " L(1000000) "(i64.extend_i32_s " GET(ms) "))", 0)
         SET(e, "(call $poll_oneoff " AT(s, 64) AT(s, E0) "(select " N(1) N(2) "(i32.lt_s " GET(ms) N(0) ")) " AT(s, 8) ")")
         IF(GET(e), "(return (i32.sub " N(0) GET(e) "))")
         IF("(i32.eq " COUNT(s) N(2) ")", "(return " N(3) ")") IS(COUNT(s), 1) IS(ERROR(s, E0), 0)
         "(if (i32.eq " USERDATA(s, E0) N(100) ") (then " IS(TYPE(s, E0), 1) ") (else " IS(TYPE(s, E0), 0) "))"
         "(i32.sub " USERDATA(s, E0) N(99) ")")
    FUNC("closes", "(param $fd i32) (result i32)", "(call $fd_close " GET(fd) ")") FUNC("seven", "(result i32)", N(7)));

#define READS(guest, n) t_spawn1(guest, "reads", n)
#define BYTES(n, first) (256 * (n) + (first))

static void an_empty_pipe(void) {
  CASE("a pipe with nothing in it yet: only the fiber waits");
  BEGIN(1, CALM, 0);
  t_guest guest, other;
  t_wasi wasi = {.pipe = true}, none = {0};
  t_wasi_guest(&guest, READER, &wasi);
  t_wasi_guest(&other, READER, &none);
  for (int round = 0; round < 10; round++) {
    bop_fiber_t *reader = READS(&guest, 100);
    t_waits(reader);
    for (int i = 0; i < 10; i++) { /* on the only worker */
      CHECK_EQ(t_result(t_spawn0(&other, "seven")), 7);
      CHECK_EQ(t_result(READS(&other, 100)), 0);
      CHECK_EQ(t_result(t_spawn0(&guest, "seven")), 7);
    }
    CHECK_EQ(bop_fiber_state(reader), BOP_STATE_PARKED);
    t_wasi_feed(&wasi, "hello");
    CHECK_EQ(t_result(reader), BYTES(5, 'h'));
    t_wasi_feed(&wasi, "abc"); /* in parts, and as much as there is */
    CHECK_EQ(t_result(READS(&guest, 1)), BYTES(1, 'a'));
    CHECK_EQ(t_result(READS(&guest, 50)), BYTES(2, 'b'));
  }
  CASE("the end of the file");
  bop_fiber_t *reader = READS(&guest, 100);
  t_waits(reader);
  t_wasi_end(&wasi);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(t_result(reader), 0);
    reader = i % 2 ? READS(&guest, 1) : READS(&guest, 100);
    CHECK_EQ(t_result(t_spawn1(&guest, "polls", 0x7fffffff)), 1); /* is something to be read */
  }
  CHECK_EQ(t_result(reader), 0);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  t_world_end(0);
}

static void polling(void) {
  CASE("a poll for input, or for a time");
  enum { HOUR_MS = 3600000, FOR_EVER = -1 };
  BEGIN(1, CALM, 0);
  t_guest guest, other;
  t_wasi wasi = {.pipe = true}, none = {0};
  t_wasi_guest(&guest, READER, &wasi);
  t_wasi_guest(&other, READER, &none);
  for (int round = 0; round < 10; round++) {
    uint64_t began = t_now();
    CHECK_EQ(t_result(t_spawn1(&guest, "polls", round)), 2); /* the time comes first */
    CHECK(t_now() - began >= (uint64_t)round * MS);
    bop_fiber_t *waits = t_spawn1(&guest, "polls", round % 2 ? HOUR_MS : FOR_EVER);
    t_waits(waits);
    CHECK_EQ(t_result(t_spawn0(&other, "seven")), 7);
    t_wasi_feed(&wasi, "x");
    CHECK_EQ(t_result(waits), 1);
    CHECK_EQ(t_result(t_spawn1(&guest, "polls", HOUR_MS)), 1); /* it is still there */
    CHECK(t_result(t_spawn1(&guest, "polls", 0)) & 1);
    CHECK_EQ(t_result(READS(&guest, 100)), BYTES(1, 'x'));
  }
  t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  t_world_end(0);
}

static void closed(void) {
  CASE("a guest that closes its own input, and then reads");
  BEGIN(1, CALM, 0);
  for (int waits = 0; waits < 3; waits++) { /* before, behind a read that waited, a poll that did */
    t_guest guest;
    t_wasi wasi = {.pipe = true};
    t_wasi_guest(&guest, READER, &wasi);
    if (waits) {
      bop_fiber_t *fiber = waits == 1 ? READS(&guest, 100) : t_spawn1(&guest, "polls", -1);
      t_waits(fiber);
      t_wasi_feed(&wasi, "x");
      CHECK_EQ(t_result(fiber), waits == 1 ? BYTES(1, 'x') : 1);
    }
    CHECK_EQ(t_result(t_spawn1(&guest, "closes", 0)), 0);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(t_result(READS(&guest, 100)), -BADF);
      CHECK_EQ(t_result(t_spawn1(&guest, "polls", 1)), -BADF);
      CHECK_EQ(t_result(t_spawn1(&guest, "closes", 0)), BADF);
    }
    t_wasi_end(&wasi);
    t_guest_delete(&guest);
  }
  t_world_end(0);
}

static void bytes(void) {
  CASE("input that is there from the start");
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi wasi = {.bytes = "abcdef"};
  t_wasi_guest(&guest, READER, &wasi);
  CHECK_EQ(t_result(t_spawn1(&guest, "polls", 1000000)), 1);
  CHECK_EQ(t_result(READS(&guest, 2)), BYTES(2, 'a'));
  CHECK_EQ(t_result(READS(&guest, 100)), BYTES(4, 'c'));
  CHECK_EQ(t_result(READS(&guest, 100)), 0);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* ---- many at once ---- */

static void many(void) {
  CASE("many guests, each with a pipe of its own");
  enum { GUESTS = 40, CHUNKS = 400 };
  static t_wasi wasi[GUESTS];
  t_guest guest[GUESTS];
  bop_fiber_t *reader[GUESTS];
  int64_t fed[GUESTS] = {0}, all = 0;
  BEGIN(2, 50000, 0);
  uint64_t random = t_seed() + 1;
  world.told = 0;
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), READER);
  for (int i = 0; i < GUESTS; i++) {
    wasi[i] = (t_wasi){.pipe = true};
    t_wasi_instance(&guest[i], module, &wasi[i]);
    reader[i] = t_spawn1(&guest[i], "all", i + 1);
  }
  for (int i = 0; i < CHUNKS; i++) {
    char text[64] = "";
    uint64_t to = t_below(&random, GUESTS), n = t_below(&random, sizeof text);
    for (uint64_t k = 0; k < n; k++)
      all += text[k] = (char)('a' + t_below(&random, 26));
    t_wasi_feed(&wasi[to], text);
    fed[to] += (int64_t)n;
  }
  for (int i = 0; i < GUESTS; i++)
    t_wasi_end(&wasi[i]);
  for (int i = 0; i < GUESTS; i++) {
    CHECK_EQ(t_result(reader[i]), fed[i]);
    t_guest_delete(&guest[i]);
  }
  CHECK_EQ(world.told, all);
  wasmtime_module_delete(module);
  t_world_end(0);
}

/* All bytes are read by somebody, and by nobody else. Its end comes for good: this must be the last. */
static void of_the_process(void) {
  CASE("several guests that read the process's own input");
  enum { GUESTS = 8, TEXTS = 200 };
  static t_wasi wasi[GUESTS];
  t_guest guest[GUESTS];
  bop_fiber_t *reader[GUESTS];
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  CHECK_EQ(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
  t_close(ends[0]);
  BEGIN(2, 50000, 0);
  world.told = 0;
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), READER);
  for (int i = 0; i < GUESTS; i++) {
    wasi[i] = (t_wasi){.inputs = true};
    t_wasi_instance(&guest[i], module, &wasi[i]);
    reader[i] = t_spawn1(&guest[i], "all", 3);
  }
  for (int i = 0; i < TEXTS; i++)
    CHECK_EQ(t_write(ends[1], "12345", 5), 5);
  EVENTUALLY(world.told == TEXTS * ('1' + '2' + '3' + '4' + '5'));
  t_close(ends[1]);
  int64_t all = 0;
  for (int i = 0; i < GUESTS; i++) {
    all += t_result(reader[i]);
    CHECK_EQ(t_result(READS(&guest[i], 5)), 0);
    t_guest_delete(&guest[i]);
  }
  CHECK_EQ(all, TEXTS * 5);
  wasmtime_module_delete(module);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_input");
  an_empty_pipe();
  polling();
  closed();
  bytes();
  many();
  of_the_process();
  return 0;
}
