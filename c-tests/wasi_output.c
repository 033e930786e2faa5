/* Where a WASI guest's output goes: a file, a callback of the host's, a pipe that nobody reads. */
#include "support/wasi.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

enum { BADF = 8, IO = 29, PIPE = 64 };

static const char *const WRITER = WASI_GUEST(
    "(data (i32.const 64) \"hello\\n\")"
    FUNC("hello", "(param $fd i32) (result i32) (local $s i32)", SET(s, N(4096))
         "(if (result i32) (local.tee $fd " WRITE(GET(fd), s, N(64), N(6)) ")"
         "(then (i32.sub " N(0) GET(fd) ")) (else " COUNT(s) "))")
    /* so many bytes at once, with all that wait in between: 0, 1, ... 250, 0, 1 ... */
    FUNC("much", "(param $n i32) (result i32) (local $s i32) (local $i i32)", SET(s, N(4096))
         EACH(i, GET(n), "(i32.store8 offset=16384 " GET(i) "(i32.rem_u " GET(i) N(251) "))")
         IS(WRITE(N(1), s, N(16384), GET(n)), 0) COUNT(s))
    /* `me` and the number, in ten lines of two bytes each */
    FUNC("lines", "(param $me i32) (local $s i32) (local $i i32)", SET(s, AREA(me))
         EACH(i, N(10), STORE8(AT(s, BUFFER), GET(me)) STORE8(AT(s, 2049), ADD(N(48), GET(i)))
              IS(WRITE(N(1), s, AT(s, BUFFER), N(2)), 0) IS(COUNT(s), 2)))
    FUNC("closes", "(param $fd i32) (result i32)", "(call $fd_close " GET(fd) ")"));

/* What a store has for output, in place of what t_wasi has. */
typedef ptrdiff_t (*callback)(void *env, const unsigned char *data, size_t size);
static void outputs(t_guest *guest, callback out, callback err, const char *out_path, const char *err_path) {
  wasmtime_context_t *context;
  t_wasi_guest(guest, WRITER, NULL);
  wasi_config_t *wasi = wasi_config_new();
  if (out)
    wasi_config_set_stdout_custom(wasi, out, NULL, NULL);
  if (err)
    wasi_config_set_stderr_custom(wasi, err, NULL, NULL);
  if (out_path)
    CHECK(wasi_config_set_stdout_file(wasi, out_path));
  if (err_path)
    CHECK(wasi_config_set_stderr_file(wasi, err_path));
  OK(bop_store_enter(guest->store, &context));
  OK(wasmtime_context_set_wasi(context, wasi));
  OK(bop_store_exit(guest->store));
}

static void file_is(const char *path, const char *text) {
  char got[256] = "";
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  size_t n = fread(got, 1, sizeof got - 1, file);
  CHECK_EQ(n, strlen(text));
  CHECK(memcmp(got, text, n) == 0);
  fclose(file);
  CHECK_EQ(unlink(path), 0);
}

static void files(void) {
  CASE("output to files");
  char folder[] = "/tmp/bop-wasi-XXXXXX", out[64], err[64];
  CHECK(mkdtemp(folder) != NULL);
  snprintf(out, sizeof out, "%s/out", folder);
  snprintf(err, sizeof err, "%s/err", folder);
  BEGIN(1, CALM, 0);
  t_guest guest;
  outputs(&guest, NULL, NULL, out, err);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), 6);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 2)), 6);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 0)), -BADF); /* which is for input */
  CHECK_EQ(t_result(t_spawn1(&guest, "closes", 1)), 0);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), -BADF);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 2)), 6);
  t_guest_delete(&guest);
  t_world_end(0);
  file_is(out, "hello\nhello\nhello\n");
  file_is(err, "hello\nhello\n");
  CHECK_EQ(rmdir(folder), 0);
}

/* ---- callbacks ---- */

static size_t got, calls;
static ptrdiff_t takes(void *env, const unsigned char *data, size_t size) {
  (void)env;
  for (size_t i = 0; i < size; i++)
    CHECK_EQ(data[i], (got + i) % 251);
  got += size;
  calls++;
  return (ptrdiff_t)size;
}

static ptrdiff_t refuses(void *env, const unsigned char *data, size_t size) {
  (void)env, (void)data, (void)size;
  return -EPIPE;
}

static char some[16];
static ptrdiff_t takes_some(void *env, const unsigned char *data, size_t size) {
  (void)env;
  size = size < 4 ? size : 4;
  strncat(some, (const char *)data, size);
  return (ptrdiff_t)size;
}

/* It may be called on any thread. */
static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static bop_channel_t *sent;
static bop_fiber_t *spawned;
static ptrdiff_t does_things(void *env, const unsigned char *data, size_t size) {
  (void)env, (void)data;
  CHECK_EQ(bop_channel_send_until(sent, size, 0), BOP_OK);
  OK(bop_spawn_host(world.runtime, seven, NULL, NULL, NULL, &spawned));
  CHECK(t_stats(world.runtime).live >= 1);
  return (ptrdiff_t)size;
}

static void callbacks(void) {
  CASE("a callback gets all, in order");
  BEGIN(1, CALM, 0);
  t_guest guest;
  outputs(&guest, takes, refuses, NULL, NULL);
  for (int32_t n = 1; n < 200000; n = n * 7 + 3) {
    got = calls = 0;
    CHECK_EQ(t_result(t_spawn1(&guest, "much", n)), n);
    CHECK_EQ(got, n);
  }
  CHECK(calls > 10);
  CASE("a callback that fails");
  for (int i = 0; i < 3; i++) /* why, once; then it is broken */
    CHECK_EQ(t_result(t_spawn1(&guest, "hello", 2)), i ? -IO : -PIPE);
  t_guest_delete(&guest);
  CASE("a callback that takes less");
  outputs(&guest, takes_some, NULL, NULL, NULL);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), 6);
  CHECK(strcmp(some, "hello\n") == 0);
  t_guest_delete(&guest);
  CASE("a callback that calls BOP");
  sent = t_channel(9, 0);
  outputs(&guest, does_things, NULL, NULL, NULL);
  for (int i = 0; i < 3; i++) {
    uint64_t size = 0;
    CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), 6);
    CHECK_EQ(bop_channel_receive(sent, &size), BOP_OK);
    CHECK_EQ(size, 6);
    CHECK_EQ(t_result(spawned), 7);
  }
  bop_channel_delete(sent);
  t_guest_delete(&guest);
  t_world_end(0);
}

static void broken_pipe(void) {
  CASE("a pipe that nobody reads");
  signal(SIGPIPE, SIG_IGN);
  BEGIN(1, CALM, 0);
  int ends[2];
  char path[64], text[64];
  t_pipe(ends);
  snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
  t_guest guest;
  outputs(&guest, NULL, NULL, path, NULL);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), 6);
  CHECK_EQ(t_read(ends[0], text, sizeof text), 6);
  CHECK(memcmp(text, "hello\n", 6) == 0);
  t_close(ends[0]);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), -PIPE);
  CHECK_EQ(t_result(t_spawn1(&guest, "closes", 1)), 0);
  CHECK_EQ(t_result(t_spawn1(&guest, "hello", 1)), -BADF);
  t_close(ends[1]);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* ---- many ---- */

static void many(void) {
  CASE("many guests");
  enum { GUESTS = 100 };
  static t_wasi wasi[GUESTS];
  static t_guest guest[GUESTS];
  static bop_fiber_t *fiber[GUESTS];
  BEGIN(2, 50000, 0);
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), WRITER);
  for (int i = 0; i < GUESTS; i++) {
    t_wasi_instance(&guest[i], module, &wasi[i]);
    fiber[i] = t_spawn1(&guest[i], "lines", i + 20);
  }
  for (int i = 0; i < GUESTS; i++) {
    ENDS(fiber[i], BOP_OUTCOME_RETURNED);
    CHECK_EQ(wasi[i].out_size, 20);
    for (int k = 0; k < 10; k++) {
      CHECK_EQ((unsigned char)wasi[i].out[2 * k], i + 20);
      CHECK_EQ(wasi[i].out[2 * k + 1], '0' + k);
    }
    t_guest_delete(&guest[i]);
  }
  wasmtime_module_delete(module);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_output");
  files();
  callbacks();
  broken_pipe();
  many();
  return 0;
}
