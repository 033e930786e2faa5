/* Standard input and output of WASI guests on descriptors of the host's (bop_store_stdio, bop_spawn_options_stdio): reads
 * and writes wait as fibers do, without a thread for each, and in nobody's way. */
#include "support/limits.h"
#include "support/wasi.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

enum { BADF = 8, PIPE = 64 };

static const char *const GUEST_TEXT = WASI_GUEST(
    "(data (i32.const 64) \"line\")"
    /* the errno, or the number of bytes and the first of them */
    FUNC("reads", "(param $n i32) (result i32) (local $s i32) (local $e i32)", SET(s, N(4096))
         "(memory.fill " AT(s, BUFFER) N(0) N(1) ")"
         IF("(local.tee $e " READ(N(0), s, GET(n)) ")", "(return (i32.sub " N(0) GET(e) "))")
         ADD("(i32.mul " N(256) COUNT(s) ")", "(i32.load8_u offset=2048 " GET(s) ")"))
    /* from 16384 on: 0, 1, ... 250, 0, 1 ... */
    FUNC("writes", "(param $fd i32) (param $n i32) (result i32) (local $s i32) (local $i i32)", SET(s, N(8192))
         IF(GET(n), EACH(i, GET(n), "(i32.store8 offset=16384 " GET(i) "(i32.rem_u " GET(i) N(251) "))"))
         "(if (result i32) (local.tee $i " WRITE(GET(fd), s, N(16384), GET(n)) ")"
         "(then (i32.sub " N(0) GET(i) ")) (else " COUNT(s) "))")
    /* the subscriptions that were told, as bits: input is 1, the clock is 2; `until`: a time, in place of a span */
    FUNC("polls", "(param $us i32) (param $until i32) (result i32) (local $s i32) (local $ns i64)", SET(s, N(12288))
         SET(ns, "(i64.mul " L(1000) "(i64.extend_i32_u " GET(us) "))") FD_READ(s, 0, N(0))
         IF(GET(until), SET(ns, "(i64.add " GET(ns) MONOTONIC(s) ")"))
         "(call $clock " GET(s) N(1) N(1) GET(ns) GET(until) ")"
         IS(POLL(s, 2), 0) IF("(i32.eq " COUNT(s) N(2) ")", "(return " N(3) ")") IS(COUNT(s), 1) IS(ERROR(s, E0), 0)
         "(if (i32.eq " USERDATA(s, E0) N(100) ") (then " IS(TYPE(s, E0), 1) ") (else " IS(TYPE(s, E0), 0) "))"
         "(i32.sub " USERDATA(s, E0) N(99) ")")
    FUNC("floods", "(param $n i32)", "(loop (drop (call $writes " N(1) GET(n) ")) (br 0))")
    FUNC("closes", "(param $fd i32) (result i32)", "(call $fd_close " GET(fd) ")")
    FUNC("quick", "(param $i i32) (result i32) (local $s i32)", SET(s, N(20480)) IS("(call $random_get " N(64) N(9) ")", 0)
         IS(WRITE(N(2), s, N(64), N(4)), 0) GET(i))
    FUNC("opens", "(param $i i32) (result i32) (local $s i32)", SET(s, N(24576))
         IS("(call $path_open " N(3) N(0) N(64) N(4) N(1) L(66) L(0) N(0) AT(s, 16) ")", 0)
         IS(WRITE(LOAD("offset=16 " GET(s)), s, N(64), N(4)), 0) "(call $fd_close " LOAD("offset=16 " GET(s)) ")")
    /* what it reads, and 1 more for each byte, it writes, to the end */
    FUNC("run", "(local $s i32) (local $i i32)", SET(s, N(4096))
         "(loop $more" IS(READ(N(0), s, N(7)), 0)
         IF(COUNT(s), AGAIN(i) EACH(i, COUNT(s), "(i32.store8 offset=2048 " ADD(GET(s), GET(i))
                                    ADD(N(1), "(i32.load8_u offset=2048 " ADD(GET(s), GET(i)) ")") ")")
            IS(WRITE(N(1), s, AT(s, BUFFER), COUNT(s)), 0) "(br $more)") ")"));

#define SPAWN2(name, a, b) t_spawn(&guest, name, (int32_t[]){a, b}, 2)
#define READS(n) t_spawn1(&guest, "reads", n)
#define POLLS(us, until) t_result(SPAWN2("polls", us, until))
#define BYTES(n, first) (256 * (n) + (first))

static t_guest guest;
static t_wasi wasi;
static int in[2], out[2];

static void begin(size_t workers, uint64_t quantum) {
  BEGIN(workers, quantum, 0);
  CHECK_EQ(pipe2(in, O_CLOEXEC), 0); /* blocking ones, as others make them */
  CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
  wasi = (t_wasi){.bytes = "not this"};
  t_wasi_guest(&guest, GUEST_TEXT, &wasi);
  CHECK_EQ(bop_store_stdio(guest.store, in[0], out[1], -1), BOP_OK);
}

static void end(void) {
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(t_bop_close(in[i]), 0);
    CHECK_EQ(t_bop_close(out[i]), 0);
  }
  t_guest_delete(&guest);
  t_world_end(0);
}

static void feed(const char *text) { CHECK_EQ(t_write(in[1], text, strlen(text)), (int64_t)strlen(text)); }

/* ---- input ---- */

static void reading(void) {
  CASE("reading: only the fiber waits, in nobody's way");
  begin(1, CALM);
  for (int round = 0; round < 10; round++) {
    bop_fiber_t *reader = READS(100);
    t_waits(reader);
    for (int i = 0; i < 10; i++)
      CHECK_EQ(t_result(t_spawn1(&guest, "quick", i)), i); /* siblings need not wait for their turn */
    CHECK_EQ(bop_fiber_state(reader), BOP_STATE_PARKED);
    feed("hello");
    CHECK_EQ(t_result(reader), BYTES(5, 'h'));
    feed("abc");
    CHECK_EQ(t_result(READS(1)), BYTES(1, 'a'));
    CHECK_EQ(t_result(READS(50)), BYTES(2, 'b'));
    CHECK_EQ(t_result(READS(0)), 0);
  }
  CHECK_EQ(wasi.err_size, 400);
  CASE("several read from one pipe: each byte once");
  enum { READERS = 20 };
  bop_fiber_t *fiber[READERS];
  int64_t sum = 0, want = 0;
  for (int i = 0; i < READERS; i++)
    t_waits(fiber[i] = READS(1));
  for (int i = 0; i < READERS; i++) {
    char text[2] = {(char)('a' + i), 0};
    want += BYTES(1, text[0]);
    feed(text);
  }
  for (int i = 0; i < READERS; i++)
    sum += t_result(fiber[i]);
  CHECK_EQ(sum, want);
  CASE("the end of the file");
  bop_fiber_t *reader = READS(9);
  t_waits(reader);
  t_close(in[1]);
  CHECK_EQ(t_result(reader), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(t_result(READS(9)), 0);
    CHECK_EQ(POLLS(1000000000, i % 2), 1);
  }
  in[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
  end();
}

static void polling(void) {
  CASE("polling, with and without something there");
  begin(1, CALM);
  for (int until = 0; until < 2; until++)
    for (int round = 0; round < 5; round++) {
      CHECK_EQ(POLLS(0, until), 2); /* only a look */
      CHECK_EQ(POLLS(500 * round, until), 2);
      bop_fiber_t *waits = SPAWN2("polls", 2000000000, until);
      t_waits(waits);
      CHECK_EQ(t_result(t_spawn1(&guest, "quick", 3)), 3);
      feed("x");
      CHECK_EQ(t_result(waits), 1);
      CHECK_EQ(POLLS(2000000000, until), 1);
      CHECK(POLLS(0, until) & 1);
      CHECK_EQ(t_result(READS(9)), BYTES(1, 'x'));
    }
  end();
}

/* ---- output ---- */

static void writing(void) {
  CASE("writing: a pipe that is full");
  enum { MANY_BYTES = 300000 };
  begin(1, CALM);
  for (int round = 0; round < 3; round++) {
    static unsigned char got[MANY_BYTES];
    bop_fiber_t *writer = SPAWN2("writes", 1, MANY_BYTES);
    t_waits(writer);
    CHECK_EQ(t_result(t_spawn1(&guest, "quick", 3)), 3);
    for (size_t n = 0; n < MANY_BYTES;) {
      int64_t more = t_read(out[0], got + n, MANY_BYTES - n);
      CHECK(more > 0);
      n += (size_t)more;
    }
    CHECK_EQ(t_result(writer), MANY_BYTES);
    for (size_t i = 0; i < MANY_BYTES; i++)
      CHECK_EQ(got[i], i % 251);
  }
  CHECK_EQ(t_result(SPAWN2("writes", 1, 0)), 0);
  CASE("a pipe that nobody reads is an error, and no signal");
  CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
  t_close(out[0]);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(t_result(SPAWN2("writes", 1, 10)), -PIPE);
  out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  end();
}

/* ---- closing, and being stopped ---- */

static void closing(void) {
  CASE("a guest closes its input, which stays the host's");
  begin(1, CALM);
  feed("abc");
  CHECK_EQ(t_result(t_spawn1(&guest, "closes", 0)), 0);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(t_result(READS(9)), -BADF);
    CHECK_EQ(t_result(t_spawn1(&guest, "closes", 0)), BADF);
  }
  char text[8];
  CHECK_EQ(t_read(in[0], text, sizeof text), 3);
  CHECK_EQ(t_result(SPAWN2("writes", 1, 4)), 4);
  CHECK_EQ(t_read(out[0], text, sizeof text), 4);
  CHECK_EQ(t_result(t_spawn1(&guest, "closes", 1)), 0);
  CHECK_EQ(t_result(SPAWN2("writes", 1, 4)), -BADF);
  end();
  CASE("the host closes it, by bop_close");
  begin(1, CALM);
  bop_fiber_t *reader = READS(9), *writer = SPAWN2("writes", 1, 300000);
  t_waits(reader);
  t_waits(writer);
  CHECK_EQ(t_bop_close(in[0]), 0);
  CHECK_EQ(t_bop_close(out[1]), 0);
  CHECK_EQ(t_result(reader), -BADF);
  CHECK(t_result(writer) > 0); /* what was written before counts */
  in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  out[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
  end();
}

static void stopped(void) {
  CASE("cancelled, or late");
  begin(1, CALM);
  for (int late = 0; late < 2; late++) {
    t_limits limits = {.deadline = late ? bop_now() + 5 * MS : 0};
    bop_fiber_t *fiber[2] = {t_limited(&guest, "reads", 9, limits), t_limited(&guest, "floods", 300000, limits)};
    for (int i = 0; i < 2; i++)
      if (!late) {
        t_waits(fiber[i]);
        CHECK_EQ(bop_fiber_cancel(fiber[i]), BOP_OK);
      }
    for (int i = 0; i < 2; i++)
      STOPPED(fiber[i], late ? BOP_OUTCOME_TIMED_OUT : BOP_OUTCOME_CANCELLED);
  }
  feed("abc"); /* nothing is lost */
  CHECK_EQ(t_result(READS(9)), BYTES(3, 'a'));
  end();
}

/* ---- other kinds ---- */

static void other_kinds(void) {
  CASE("a socket for both, a file for input, wrong handles");
  begin(1, CALM);
  int sockets[2];
  char text[8];
  t_sockets(sockets);
  CHECK_EQ(bop_store_stdio(guest.store, sockets[0], sockets[0], -1), BOP_OK);
  bop_fiber_t *reader = READS(9);
  t_waits(reader);
  CHECK_EQ(t_result(SPAWN2("writes", 1, 4)), 4);
  CHECK_EQ(t_read(sockets[1], text, sizeof text), 4);
  CHECK_EQ(t_write(sockets[1], "pq", 2), 2);
  CHECK_EQ(t_result(reader), BYTES(2, 'p'));
  FILE *file = tmpfile();
  CHECK(file != NULL && fputs("from a file", file) >= 0 && fflush(file) == 0);
  CHECK_EQ(lseek(fileno(file), 5, SEEK_SET), 5);
  CHECK_EQ(bop_store_stdio(guest.store, fileno(file), -1, -1), BOP_OK);
  CHECK_EQ(POLLS(2000000000, 0), 1); /* is always ready */
  CHECK_EQ(t_result(READS(4)), BYTES(4, 'a'));
  CHECK_EQ(t_result(READS(99)), BYTES(2, 'l'));
  CHECK_EQ(t_result(READS(99)), 0);
  CHECK_EQ(bop_store_stdio(guest.store, -1, -1, -1), BOP_OK); /* the store's own again */
  CHECK_EQ(t_result(READS(99)), BYTES(8, 'n'));
  CHECK_EQ(bop_store_stdio(NULL, 0, 1, 2), BOP_INVALID);
  fclose(file);
  CHECK_EQ(t_bop_close(sockets[0]), 0);
  t_close(sockets[1]);
  end();
}

/* ---- many ---- */

static void without_threads(void) {
  CASE("many wait, and no thread for any of them");
  enum { GUESTS = 300 };
  static t_guest guests[GUESTS];
  static t_wasi wasis[GUESTS];
  static bop_fiber_t *fiber[GUESTS];
  static int ends[GUESTS][2];
  char folder[] = "/tmp/bop-wasi-XXXXXX", path[64];
  CHECK(mkdtemp(folder) != NULL);
  BEGIN(2, 50000, 0);
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), GUEST_TEXT);
  t_wasi with_files = {.folder = folder};
  t_wasi_instance(&guest, module, &with_files);
  CHECK_EQ(t_result(t_spawn1(&guest, "opens", 0)), 0);
  int before = t_threads("tokio-rt-worker");
  for (int i = 0; i < GUESTS; i++) {
    CHECK_EQ(pipe2(ends[i], O_CLOEXEC), 0);
    t_wasi_instance(&guests[i], module, &wasis[i]);
    CHECK_EQ(bop_store_stdio(guests[i].store, ends[i][0], -1, -1), BOP_OK);
    fiber[i] = t_spawn1(&guests[i], "reads", 9);
  }
  for (int i = 0; i < GUESTS; i++)
    t_waits(fiber[i]);
  for (int i = 0; i < 10; i++)
    CHECK_EQ(t_result(t_spawn1(&guest, "opens", 0)), 0); /* others need threads for their files, and get them */
  CHECK(t_threads("tokio-rt-worker") < before + 64);
  for (int i = 0; i < GUESTS; i++) {
    int k = (i * 7) % GUESTS;
    CHECK_EQ(t_write(ends[k][1], "abc", (size_t)(k % 3) + 1), k % 3 + 1);
  }
  for (int i = 0; i < GUESTS; i++) {
    CHECK_EQ(t_result(fiber[i]), BYTES(i % 3 + 1, 'a'));
    CHECK_EQ(t_bop_close(ends[i][0]), 0);
    t_close(ends[i][1]);
    t_guest_delete(&guests[i]);
  }
  t_guest_delete(&guest);
  wasmtime_module_delete(module);
  t_world_end(0);
  snprintf(path, sizeof path, "%s/line", folder);
  CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

static wasmtime_error_t *sets_up(void *none, wasmtime_context_t *context) { return t_wasi_set(none, context); }

/* Each program's output is the next one's input: the last one's is what went in, plus as many as there are. */
static void pipeline(size_t workers, uint64_t quantum) {
  CASE("a pipeline of programs");
  enum { PROGRAMS = 60, TEXT = 2000 };
  bop_fiber_t *fiber[PROGRAMS];
  int ends[PROGRAMS + 1][2];
  static t_wasi none;
  BEGIN(workers, quantum, 0);
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), GUEST_TEXT);
  wasmtime_linker_t *linker = t_wasi_linker();
  wasmtime_instance_pre_t *pre = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  for (int i = 0; i <= PROGRAMS; i++)
    CHECK_EQ(pipe2(ends[i], O_CLOEXEC | (i % 2 ? O_NONBLOCK : 0)), 0);
  for (int i = 0; i < PROGRAMS; i++) {
    bop_spawn_options_t *options = bop_spawn_options_new();
    bop_spawn_options_stdio(options, ends[i][0], ends[i + 1][1], -1);
    OK(bop_spawn_instance(world.runtime, pre, "run", 3, NULL, 0, sets_up, &none, NULL, options, &fiber[i]));
    bop_spawn_options_delete(options);
  }
  for (int i = 0; i < TEXT; i += 50) {
    unsigned char piece[50];
    for (int k = 0; k < 50; k++)
      piece[k] = (unsigned char)((i + k) % 101);
    CHECK_EQ(t_write(ends[0][1], piece, 50), 50);
  }
  t_close(ends[0][1]);
  for (int i = 0; i < PROGRAMS; i++) {
    ENDS(fiber[i], BOP_OUTCOME_RETURNED);
    CHECK_EQ(t_bop_close(ends[i][0]), 0);
    CHECK_EQ(t_bop_close(ends[i + 1][1]), 0);
  }
  for (int i = 0; i < TEXT; i++) {
    unsigned char byte;
    CHECK_EQ(t_read(ends[PROGRAMS][0], &byte, 1), 1);
    CHECK_EQ(byte, i % 101 + PROGRAMS);
  }
  t_close(ends[PROGRAMS][0]);
  wasmtime_instance_pre_delete(pre);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_stdio");
  reading();
  polling();
  writing();
  closing();
  stopped();
  other_kinds();
  without_threads();
  pipeline(1, CALM);
  pipeline(2, 50000);
  return 0;
}
