/* Who waits for a descriptor is told whatever the workers do meanwhile: one spins in a guest for ever, all are in turns
 * without end, one is idle in the poller, the only one is a thread of the host's, the runtime is being shut down; and
 * while nothing happens, nothing runs. Host functions that Wasm calls wait, while siblings in the same store go on. */
#include "support/descriptors.h"
#include "support/limits.h" /* t_process_cpu */

#include <pthread.h>
#include <unistd.h>

static wasm_trap_t *gets(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                         wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  int fd = args[0].of.i32;
  uint8_t byte = 0;
  bop_status_t status = BOP_OK;
  int64_t n = 0;
  while (status == BOP_OK && (n = t_read(fd, &byte, 1)) < 0) {
    uint32_t ready = 0;
    status = bop_wait_fd(fd, BOP_READABLE, &ready);
    CHECK(status == BOP_CANCELLED || (status == BOP_OK && ready == BOP_READABLE));
  }
  results[0] = t_i32(status == BOP_OK && n == 1 ? byte : -1);
  return NULL;
}

static wasm_trap_t *puts_(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                          wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)results, (void)nresults;
  uint8_t byte = (uint8_t)args[1].of.i32;
  while (t_write(args[0].of.i32, &byte, 1) < 0)
    CHECK_EQ(bop_wait_fd_until(args[0].of.i32, BOP_WRITABLE, NULL, t_far()), BOP_OK);
  return NULL;
}

static const t_import IMPORTS[] = {
    {"get", "i", "i", gets, NULL}, {"put", "ii", "", puts_, NULL}, {NULL, NULL, NULL, NULL, NULL}};

/* `relay` passes on n bytes, each one more than it came, and returns their sum. */
static const char *const GUEST =
    "(module (import \"host\" \"get\" (func $get (param i32) (result i32)))"
    "  (import \"host\" \"put\" (func $put (param i32 i32)))"
    "  (global $count (mut i64) (i64.const 0))"
    "  (func (export \"count\") (loop (global.set $count (i64.add (global.get $count) (i64.const 1))) (br 0)))"
    "  (func (export \"counted\") (result i64) global.get $count)"
    "  (func (export \"relay\") (param $in i32) (param $out i32) (param $n i32) (result i32)"
    "    (local $byte i32) (local $sum i32)"
    "    (loop (local.set $sum (i32.add (local.get $sum) (local.tee $byte (call $get (local.get $in)))))"
    "      (call $put (local.get $out) (i32.add (local.get $byte) (i32.const 1)))"
    "      (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $sum))";

/* A byte goes round through guests that wait for pipes; beside them, in their store or another one, a guest that never
 * waits. However busy it is, each is told. */
static void a_ring_of_guests(size_t workers, uint64_t quantum_ns, bool one_store, int spinners) {
  CASE("a ring of guests");
  enum { LINKS = 5, ROUNDS = 30 };
  bop_runtime_t *runtime = t_runtime(workers, quantum_ns);
  OK(bop_runtime_start(runtime));
  t_guest guests[2];
  for (int i = 0; i < 2; i++)
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
  int pipes[LINKS + 1][2];
  for (int i = 0; i <= LINKS; i++)
    t_pipe(pipes[i]);
  bop_fiber_t *spinner[2], *relays[LINKS];
  for (int i = 0; i < spinners; i++)
    spinner[i] = t_spawn0(&guests[i], "count");
  for (int i = 0; i < LINKS; i++) {
    const int32_t args[] = {pipes[i][0], pipes[i + 1][1], ROUNDS};
    relays[i] = t_spawn(&guests[one_store ? 0 : i % 2], "relay", args, 3);
  }
  for (int round = 0; round < ROUNDS; round++) {
    uint8_t byte = (uint8_t)round;
    CHECK_EQ(t_write(pipes[0][1], &byte, 1), 1);
    CHECK_EQ(bop_wait_fd_until(pipes[LINKS][0], BOP_READABLE, NULL, bop_now() + 60 * SECOND), BOP_OK);
    CHECK_EQ(t_read(pipes[LINKS][0], &byte, 1), 1);
    CHECK_EQ(byte, round + LINKS);
  }
  for (int i = 0; i < LINKS; i++)
    CHECK_EQ(t_result(relays[i]), ROUNDS * (ROUNDS - 1) / 2 + i * ROUNDS);
  /* And who spins has got on while they waited. */
  bop_fiber_t *waits = t_spawn(&guests[0], "relay", (int32_t[]){pipes[0][0], pipes[1][1], 2}, 3);
  EVENTUALLY(bop_fiber_state(waits) == BOP_STATE_PARKED);
  for (int i = 0; i < spinners; i++) {
    int64_t before = t_result(t_spawn0(&guests[i], "counted"));
    EVENTUALLY(t_result(t_spawn0(&guests[i], "counted")) > before);
  }
  t_cancel_all(spinner, (size_t)spinners);
  CHECK_EQ(bop_fiber_state(waits), BOP_STATE_PARKED);
  t_cancel_all(&waits, 1);
  for (int i = 0; i < 2; i++)
    t_guest_delete(&guests[i]);
  for (int i = 0; i <= LINKS; i++) {
    t_close(pipes[i][0]);
    t_close(pipes[i][1]);
  }
  EVENTUALLY(t_stats(runtime).live == 0);
  OK(bop_runtime_delete(runtime));
}

/* ---- host fibers that leave no worker idle ---- */

static atomic_bool enough;
static atomic_int turns;

static int64_t takes_turns(void *env) {
  (void)env;
  while (!enough) {
    CHECK_EQ(bop_yield(), BOP_OK);
    turns++;
  }
  return 1;
}

static int64_t waits_for_100(void *ends) {
  const int *p = ends;
  for (int i = 0; i < 100; i++) {
    uint32_t ready = 0;
    CHECK_EQ(bop_wait_fd(p[0], BOP_READABLE, &ready), BOP_OK);
    char byte;
    CHECK_EQ(t_read(p[0], &byte, 1), 1); /* nobody else reads, so it was no false alarm */
    CHECK_EQ(t_write(p[1], &byte, 1), 1);
  }
  return 100;
}

static void turns_without_end(size_t workers) {
  CASE("turns without end");
  bop_runtime_t *runtime = t_runtime(workers, 0);
  OK(bop_runtime_start(runtime));
  enough = false;
  bop_fiber_t *busy[3];
  for (int i = 0; i < 3; i++)
    busy[i] = t_spawn_host(runtime, takes_turns, NULL, NULL);
  int s[2];
  t_sockets(s);
  bop_fiber_t *waiter = t_spawn_host(runtime, waits_for_100, (int[]){s[0], s[0]}, NULL);
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(t_write(s[1], "x", 1), 1);
    CHECK_EQ(bop_wait_fd_until(s[1], BOP_READABLE, NULL, bop_now() + 60 * SECOND), BOP_OK);
    char byte;
    CHECK_EQ(t_read(s[1], &byte, 1), 1);
  }
  CHECK_EQ(t_result(waiter), 100);
  int before = turns;
  EVENTUALLY(turns > before); /* they have lost nothing */
  enough = true;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(t_result(busy[i]), 1);
  t_close(s[0]);
  t_close(s[1]);
  OK(bop_runtime_delete(runtime));
}

/* ---- idle ---- */

static int64_t reads_on(void *ends) {
  const int *p = ends;
  char byte = 0;
  while (byte != 'q') {
    CHECK_EQ(bop_wait_fd(p[0], BOP_READABLE, NULL), BOP_OK);
    CHECK_EQ(t_read(p[0], &byte, 1), 1);
  }
  return 1;
}

static bool at_rest(void) {
  uint64_t before = t_process_cpu();
  t_pause(15 * MS);
  return t_process_cpu() - before < MS / 2;
}

/* However the workers and the ticker have come out of the last event: between two of them nobody keeps looking. */
static void idle(void) {
  CASE("idle");
  bop_runtime_t *runtime = t_runtime(2, 50000);
  OK(bop_runtime_start(runtime));
  int p[2];
  t_pipe(p);
  bop_fiber_t *reader = t_spawn_host(runtime, reads_on, p, NULL);
  for (int i = 0; i < 60; i++) {
    EVENTUALLY(at_rest());
    CHECK_EQ(t_write(p[1], "x", 1), 1);
  }
  CHECK_EQ(t_write(p[1], "q", 1), 1);
  CHECK_EQ(t_result(reader), 1);
  t_close(p[0]);
  t_close(p[1]);
  OK(bop_runtime_delete(runtime));
}

/* ---- workers of the host's, and the end ---- */

static void *writes_late(void *ends) {
  const int *p = ends;
  for (int i = 0; i < 5; i++) {
    t_pause(5 * MS);
    CHECK_EQ(t_write(p[1], "x", 1), 1);
  }
  return NULL;
}

static int64_t reads_five(void *ends) {
  const int *p = ends;
  char bytes[5];
  for (int64_t got = 0, n; got < 5; got += n) {
    CHECK_EQ(bop_wait_fd(p[0], BOP_READABLE, NULL), BOP_OK);
    CHECK((n = t_read(p[0], bytes, sizeof bytes)) > 0);
  }
  return 5;
}

/* The thread in bop_run is the only worker: it waits in there, and leaves with the last fiber. */
static void on_a_lent_thread(void) {
  CASE("on a lent thread");
  bop_runtime_t *runtime = t_runtime(1, 0);
  int p[2];
  t_pipe(p);
  for (int i = 0; i < 5; i++) {
    bop_fiber_t *fiber = t_spawn_host(runtime, reads_five, p, NULL);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, writes_late, p), 0);
    OK(bop_run(runtime));
    CHECK_EQ(bop_fiber_state(fiber), BOP_STATE_FINISHED);
    CHECK_EQ(t_result(fiber), 5);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
  t_close(p[0]);
  t_close(p[1]);
  OK(bop_runtime_delete(runtime));
}

static int64_t waits_in_vain(void *fd) { return bop_wait_fd(*(int *)fd, BOP_READABLE, NULL); }

/* Who waits is cancelled, also before there is any worker, and nothing keeps the runtime from ending. */
static void at_the_end(bool started) {
  CASE("who waits at the end");
  int p[2];
  t_pipe(p);
  bop_runtime_t *runtime = t_runtime(2, 0);
  bop_fiber_t *fibers[20];
  if (started)
    OK(bop_runtime_start(runtime));
  for (int i = 0; i < 20; i++)
    fibers[i] = t_spawn_host(runtime, waits_in_vain, &p[0], NULL);
  for (int i = 0; i < 20 && started; i++)
    EVENTUALLY(bop_fiber_state(fibers[i]) == BOP_STATE_PARKED);
  OK(bop_runtime_delete(runtime));
  for (int i = 0; i < 20; i++)
    if (started)
      CHECK_EQ(t_result(fibers[i]), BOP_CANCELLED);
    else
      ENDS(fibers[i], BOP_OUTCOME_CANCELLED);
  CHECK_EQ(t_bop_close(p[0]), 0);
  t_close(p[1]);
}

int main(void) {
  t_start("fd_busy");
  for (int i = 0; i < 12; i++) /* workers: 1 and 2; spinners: none, one, two */
    a_ring_of_guests(1 + (size_t)i % 2, 50000, i % 4 < 2, i / 4);
  a_ring_of_guests(2, 0, true, 1);
  turns_without_end(1);
  turns_without_end(2);
  turns_without_end(4);
  idle();
  on_a_lent_thread();
  at_the_end(true);
  at_the_end(false);
  return 0;
}
