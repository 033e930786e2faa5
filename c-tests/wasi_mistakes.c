/* WASI of bop_linker_define_wasi where something is wrong or missing: pointers beyond the memory, no memory, a store
 * without WASI, names that are taken. Each is told, and harms nobody. And where no fiber calls, or one at the bottom of its
 * stack. */
#include "support/wasi.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/bop-wasi-XXXXXX";

/* The message of a fiber that must trap. */
static void traps(bop_fiber_t *own, const char *word) { CHECK_HAS(t_trap_of(own), word); }

/* ---- pointers ---- */

#define END "(i32.const 851968)" /* of 13 pages */
#define END_4 "(i32.const 851964)"
#define CLOCK_AT(id, flags) "(call $clock " N(4096) N(0) N(id) L(0) N(flags) ")"
#define FD_AT(kind, fd) "(call $fd " N(4096) N(0) N(kind) N(fd) ")"
#define POLLS(at, events, n, count) "(call $poll_oneoff " at events n count ")"
enum { BADF = 8, FAULT = 21, INVAL = 28, NOMEM = 48, SPIPE = 70 };

/* What the call returns, or what its trap says; both: it may do either. */
static const struct {
  const char *call;
  int errno_;
  const char *word;
} CALLS[] = {
    {"(call $args_get " END_4 N(0) ")", -1, "out of bounds"}, /* two pointers */
    {"(call $args_get " N(0) N(-1) ")", -1, "out of bounds"},
    {"(call $args_get " N(1) N(8) ")", -1, "not aligned"},
    {"(call $args_sizes_get " END N(0) ")", -1, "out of bounds"},
    {"(call $environ_get " N(0) N(-2) ")", -1, "out of bounds"},
    {"(call $environ_sizes_get " N(0) N(-4) ")", -1, "out of bounds"},
    {"(call $clock_time_get " N(0) L(0) END_4 ")", -1, "out of bounds"},
    {"(call $clock_time_get " N(9) L(0) N(8) ")", -1, "Clockid"},
    {"(call $clock_time_get " N(2) L(0) N(8) ")", BADF, NULL}, /* of the process: there is none */
    {"(call $random_get " END_4 N(5) ")", -1, "out of bounds"},
    {"(call $random_get " N(0) N(-1) ")", -1, "exceeds limit"},
    {"(call $fd_read " N(0) END_4 N(1) N(0) ")", -1, "out of bounds"},
    {"(call $fd_read " N(0) N(64) N(-1) N(0) ")", NOMEM, NULL},
    {"(call $fd_write " N(1) END_4 N(1) N(0) ")", -1, "out of bounds"},
    {"(call $fd_write " N(1) N(64) N(0) N(-4) ")", -1, "out of bounds"},
    {"(call $write " N(1) N(64) END_4 N(5) ")", -1, "out of bounds"},
    {"(call $write " N(9) N(64) N(0) N(5) ")", BADF, NULL},
    {"(call $path_open " N(3) N(0) END_4 N(5) N(1) L(64) L(0) N(0) N(128) ")", -1, "out of bounds"},
    {"(call $fd_readdir " N(3) END_4 N(5) L(0) N(128) ")", -1, "out of bounds"},
    {"(call $fd_seek " N(0) L(0) N(0) N(8) ")", SPIPE, NULL},
    {"(call $fd_close " N(99) ")", BADF, NULL},
    {POLLS(N(64), N(1024), N(0), N(8)), INVAL, NULL}, /* nothing to wait for */
    {POLLS(END_4, N(1024), N(1), N(8)), -1, "Pointer"},
    {POLLS(N(66), N(1024), N(1), N(8)), -1, "not aligned"},
    {POLLS(N(64), N(1024), N(100000000), N(8)), NOMEM, NULL},
    {CLOCK_AT(1, 0) POLLS(N(4160), END_4, N(1), N(8)), FAULT, "out of bounds"},
    {CLOCK_AT(1, 0) POLLS(N(4160), N(-32), N(1), N(8)), FAULT, "out of bounds"},
    {CLOCK_AT(1, 0) POLLS(N(4160), N(5121), N(1), N(8)), FAULT, "not aligned"},
    {CLOCK_AT(1, 0) POLLS(N(4160), N(5120), N(1), N(-4)), FAULT, "out of bounds"},
    {CLOCK_AT(1, 1) POLLS(N(4160), END_4, N(1), N(8)), FAULT, "out of bounds"},
    {CLOCK_AT(7, 0) POLLS(N(4160), N(5120), N(1), N(8)), INVAL, NULL}, /* no such clock */
    {CLOCK_AT(2, 0) POLLS(N(4160), N(5120), N(1), N(8)), INVAL, NULL},
    {CLOCK_AT(1, 2) POLLS(N(4160), N(5120), N(1), N(8)), INVAL, NULL}, /* no such flag */
    {FD_AT(5, 0) POLLS(N(4160), N(5120), N(1), N(8)), INVAL, NULL},    /* nor kind */
    {FD_AT(1, 9) POLLS(N(4160), N(5120), N(1), N(8)), BADF, NULL},
    {FD_AT(1, 1) POLLS(N(4160), N(5120), N(1), N(8)), BADF, NULL}, /* to read from the output */
    {FD_AT(2, 0) POLLS(N(4160), N(5120), N(1), N(8)), BADF, NULL},
};

static void wrong_calls(void) {
  CASE("wrong calls");
  BEGIN(1, CALM, 0);
  t_wasi wasi = {.argv = {"a", "b"}, .names = {"a"}, .values = {"b"}, .folder = folder};
  static char text[16384];
  for (size_t i = 0; i < sizeof CALLS / sizeof CALLS[0]; i++) {
    snprintf(text, sizeof text, WASI_GUEST("(func (export \"run\") (result i32) %s)" FUNC("seven", "(result i32)", N(7))),
             CALLS[i].call);
    t_guest guest;
    t_wasi_guest(&guest, text, &wasi);
    bop_fiber_t *run = t_spawn0(&guest, "run");
    bop_outcome_t outcome;
    CHECK_EQ(bop_fiber_join(run, &outcome), BOP_OK);
    if (outcome == BOP_OUTCOME_RETURNED || CALLS[i].word == NULL) {
      int64_t got = t_result(run);
      if (got != CALLS[i].errno_)
        t_fail(__FILE__, __LINE__, "%s is %d, not %d", CALLS[i].call, (int)got, CALLS[i].errno_);
    } else {
      traps(run, CALLS[i].word);
    }
    CHECK_EQ(t_result(t_spawn0(&guest, "seven")), 7);
    t_guest_delete(&guest);
  }
  t_world_end(0);
}

/* ---- what is missing, or there already ---- */

static const char *const MISSING = WASI_GUEST(
    FUNC("args", "(result i32)", "(call $args_sizes_get " N(0) N(4) ")")
    FUNC("random", "(result i32)", "(call $random_get " N(0) N(4) ")")
    FUNC("tells", "(result i32)", "(call $clock_time_get " N(0) L(0) N(8) ")")
    FUNC("writes", "(result i32)", "(call $write " N(1) N(64) N(0) N(1) ")")
    FUNC("reads", "(result i32)", "(call $read " N(0) N(64) N(0) N(1) ")")
    FUNC("closes", "(result i32)", "(call $fd_close " N(0) ")")
    FUNC("waits", "(result i32)", FD_AT(1, 0) POLLS(N(4160), N(5120), N(1), N(8)))
    FUNC("exits", "(result i32)", "(call $proc_exit " N(3) ")" N(1))
    FUNC("naps", "(result i32)", "(call $clock " N(4096) N(0) N(1) L(1000000) N(0) ")" POLLS(N(4160), N(5120), N(1), N(8)))
    FUNC("yields", "(result i32)", "(call $sched_yield)"));

static void no_wasi(void) {
  CASE("a store without WASI");
  static const char *const NAMES[] = {"args", "random", "tells", "writes", "reads", "waits", "closes"};
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi_guest(&guest, MISSING, NULL);
  for (int twice = 0; twice < 2; twice++)
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
      traps(t_spawn0(&guest, NAMES[i]), "no WASI");
  ENDS(t_spawn0(&guest, "exits"), BOP_OUTCOME_EXITED); /* these need nothing of it */
  CHECK_EQ(t_result(t_spawn0(&guest, "naps")), 0);
  CHECK_EQ(t_result(t_spawn0(&guest, "yields")), 0);
  wasmtime_context_t *context; /* it can be given one later */
  t_wasi wasi = {0};
  OK(bop_store_enter(guest.store, &context));
  OK(t_wasi_set(&wasi, context));
  OK(bop_store_exit(guest.store));
  for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
    CHECK_EQ(t_result(t_spawn0(&guest, NAMES[i])), 0);
  ENDS(t_spawn0(&guest, "exits"), BOP_OUTCOME_EXITED);
  t_guest_delete(&guest);
  t_world_end(0);
}

static void no_memory(void) {
  CASE("a guest that exports no memory");
  static const char *const CASES[] = {"", "(memory 1)", "(memory (export \"mem\") 1)",
                                      "(global (export \"memory\") i32 (i32.const 0))"};
  BEGIN(1, CALM, 0);
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    char text[1024];
    snprintf(text, sizeof text, "(module %s %s)",
             WASI("random_get", "(param i32 i32) (result i32)") WASI("sched_yield", "(result i32)")
             WASI("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"), CASES[i]);
    char *end = text + strlen(text) - 1; /* before the bracket */
    snprintf(end, sizeof text - (size_t)(end - text), "%s%s%s)",
             FUNC("random", "(result i32)", "(call $random_get " N(0) N(4) ")"),
             FUNC("naps", "(result i32)", POLLS(N(64), N(1024), N(1), N(8))),
             FUNC("yields", "(result i32)", "(call $sched_yield)"));
    t_guest guest;
    t_wasi wasi = {0};
    t_wasi_guest(&guest, text, &wasi);
    traps(t_spawn0(&guest, "random"), "exports no memory");
    traps(t_spawn0(&guest, "naps"), "exports no memory");
    CHECK_EQ(t_result(t_spawn0(&guest, "yields")), 0);
    t_guest_delete(&guest);
  }
  t_world_end(0);
}

static void taken_names(void) {
  CASE("names that are taken");
  BEGIN(1, CALM, 0);
  wasm_engine_t *engine = bop_runtime_engine(world.runtime);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  OK(bop_linker_define_wasi(linker));
  FAILS(bop_linker_define_wasi(linker), "defined twice");
  FAILS(wasmtime_linker_define_wasi(linker), "defined twice");
  wasmtime_linker_allow_shadowing(linker, true);
  OK(bop_linker_define_wasi(linker));
  wasmtime_linker_delete(linker);
  linker = wasmtime_linker_new(engine);
  OK(wasmtime_linker_define_wasi(linker));
  FAILS(bop_linker_define_wasi(linker), "defined twice");
  wasmtime_linker_delete(linker);
  FAILS(bop_linker_define_wasi(NULL), "NULL");
  t_world_end(0);
}

/* ---- where it is called ---- */

/* All that waits, once. */
#define CALLS_ALL                                                                                                   \
  "(data (i32.const 64) \"started\")"                                                                                \
  FUNC("all", "(local $s i32)", SET(s, N(4096))                                                                      \
       NAP(s, L(2000000)) CLOCK(s, 0, 1, "(i64.add " MONOTONIC(s) L(2000000) ")", 1) IS(POLL(s, 1), 0)               \
       FD_READ(s, 0, N(0)) CLOCK(s, 1, 1, HOUR, 0) IS(POLL(s, 2), 0) IS(READ(N(0), s, N(5)), 0) IS(COUNT(s), 5)      \
       IS("(call $path_open " N(3) N(0) N(64) N(7) N(1) L(66) L(0) N(0) N(32) ")", 0)                                \
       IS(WRITE(LOAD(N(32)), s, N(64), N(7)), 0) IS("(call $sched_yield)", 0) IS(WRITE(N(1), s, N(64), N(7)), 0))
static const char *const STARTS = WASI_GUEST(CALLS_ALL "(start $all)" FUNC("seven", "(result i32)", N(7)));
static const char *const EXITS = WASI_GUEST(FUNC("exits", "", "(call $proc_exit " N(5) ")") "(start $exits)");

static void on_a_thread(void) {
  CASE("a start function on a plain thread, which is blocked");
  BEGIN(1, CALM, 0);
  t_guest guest;
  wasmtime_context_t *context;
  wasm_trap_t *trap = NULL;
  t_wasi wasi = {.pipe = true, .folder = folder, .fed = "12345"};
  t_wasi_guest(&guest, STARTS, &wasi);
  CHECK_EQ(wasi.out_size, 7);
  CASE("a thread that has entered the store");
  t_wasi_feed(&wasi, "67890");
  OK(bop_store_enter(guest.store, &context));
  OK(wasmtime_func_call(context, t_export(&guest, "all"), NULL, 0, NULL, 0, &trap));
  CHECK(trap == NULL);
  OK(bop_store_exit(guest.store));
  CHECK_EQ(wasi.out_size, 14);
  CASE("a fiber");
  t_wasi_feed(&wasi, "abcde");
  ENDS(t_spawn0(&guest, "all"), BOP_OUTCOME_RETURNED);
  CHECK_EQ(wasi.out_size, 21);
  CHECK(memcmp(wasi.out, "startedstartedstarted", 21) == 0);
  t_wasi_end(&wasi);
  t_guest_delete(&guest);

  CASE("an exit of a start function");
  wasm_engine_t *engine = bop_runtime_engine(world.runtime);
  wasmtime_store_t *store = t_world_store();
  wasmtime_linker_t *linker = t_wasi_linker();
  wasmtime_module_t *module = t_module(engine, EXITS);
  t_wasi none = {0};
  OK(t_wasi_set(&none, wasmtime_store_context(store)));
  wasmtime_context_set_epoch_deadline(wasmtime_store_context(store), UINT64_C(1) << 60);
  wasmtime_error_t *error =
      wasmtime_linker_instantiate(linker, wasmtime_store_context(store), module, &guest.instance, &trap);
  int code = -1;
  CHECK(error != NULL && wasmtime_error_exit_status(error, &code));
  CHECK_EQ(code, 5);
  wasmtime_error_delete(error);
  wasmtime_store_delete(store);
  wasmtime_module_delete(module);
  wasmtime_linker_delete(linker);
  t_world_end(0);
}

/* ---- the bottom of the stack ---- */

/* `deep` goes down `n` levels, and calls there. */
static const char *const DEEP = WASI_GUEST(CALLS_ALL
    FUNC("deep", "(param $n i32) (param $calls i32) (result i32)",
         "(if (result i32) " GET(n) "(then (i32.add " N(1) "(call $deep (i32.sub " GET(n) N(1) ") " GET(calls) ")))"
         "(else " IF(GET(calls), "(call $all)") N(0) "))"));

/* Wherever Wasm's stack ends, what it calls has enough of its own. */
static void at_the_bottom(void) {
  CASE("at the bottom of the stack");
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi wasi = {.pipe = true, .folder = folder};
  t_wasi_guest(&guest, DEEP, &wasi);
  int32_t fits = 0, too_deep = 1 << 20;
  while (too_deep - fits > 1) {
    int32_t n = fits + (too_deep - fits) / 2;
    bop_fiber_t *fiber = t_spawn(&guest, "deep", (int32_t[]){n, 0}, 2);
    bop_outcome_t outcome;
    CHECK_EQ(bop_fiber_join(fiber, &outcome), BOP_OK);
    CHECK(outcome == BOP_OUTCOME_RETURNED || outcome == BOP_OUTCOME_TRAPPED);
    *(outcome == BOP_OUTCOME_RETURNED ? &fits : &too_deep) = n;
    bop_fiber_detach(fiber);
  }
  CHECK(fits > 1000);
  int done = 0;
  for (int32_t n = fits - 40; n <= fits; n++) {
    t_wasi_feed(&wasi, "12345");
    bop_fiber_t *fiber = t_spawn(&guest, "deep", (int32_t[]){n, 1}, 2);
    bop_outcome_t outcome;
    CHECK_EQ(bop_fiber_join(fiber, &outcome), BOP_OK);
    if (outcome == BOP_OUTCOME_TRAPPED)
      traps(fiber, "stack");
    else
      CHECK_EQ(t_result(fiber), n);
    done += outcome == BOP_OUTCOME_RETURNED;
  }
  CHECK(done > 10);
  t_wasi_end(&wasi);
  t_guest_delete(&guest);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_mistakes");
  CHECK(mkdtemp(folder) != NULL);
  wrong_calls();
  no_wasi();
  no_memory();
  taken_names();
  on_a_thread();
  at_the_bottom();
  char path[64];
  snprintf(path, sizeof path, "%s/started", folder);
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(rmdir(folder), 0);
  return 0;
}
