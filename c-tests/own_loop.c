/* A host with a loop of its own: no thread of the runtime's runs fibers, only bop_run_for, called when bop_runtime_fd
 * is readable; and that is so exactly when there is something to do. */
#include "support/limits.h"
#include "support/loop.h"

static atomic_int laps;
HOST_FUNCTION(yields) {
  UNUSED();
  laps++;
  bop_yield();
  return NULL;
}

HOST_FUNCTION(plays) { /* a value goes to and fro between two fibers */
  UNUSED();
  bop_channel_t **channels = env;
  uint64_t ball;
  laps++;
  if (bop_channel_receive(channels[args[0].of.i32], &ball) == BOP_OK)
    bop_channel_send(channels[1 - args[0].of.i32], ball);
  return NULL;
}

static const char *const GUEST =
    "(module (import \"host\" \"yield\" (func $yield)) (import \"host\" \"play\" (func $play (param i32)))"
    "  (global $n (mut i32) (i32.const 0))"
    "  (func (export \"spin\") (param i32) (loop (br 0)))"
    "  (func (export \"count\") (param i32) (loop (global.set $n (i32.add (global.get $n) (i32.const 1))) (br 0)))"
    "  (func (export \"counted\") (param i32) (result i32) (global.get $n))"
    "  (func (export \"yield\") (param i32) (loop (call $yield) (br 0)))"
    "  (func (export \"play\") (param i32) (loop (call $play (local.get 0)) (br 0)))"
    "  (func (export \"lap\") (param $n i32) (result i32)"
    "    (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 8)))";

static bop_channel_t *channels[2];
static const t_import IMPORTS[] = {{"yield", "", "", yields, NULL},
                                   {"play", "i", "", plays, channels},
                                   {NULL, NULL, NULL, NULL, NULL}};

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static int64_t sleeps_until(void *deadline) {
  bop_status_t status = bop_sleep_until(*(uint64_t *)deadline);
  CHECK(status == BOP_CANCELLED || bop_now() >= *(uint64_t *)deadline);
  return status;
}

static void nothing_to_do(void) {
  CASE("nothing to do");
  bop_runtime_t *runtime = t_runtime(1, 0);
  int fd = bop_runtime_fd(runtime);
  CHECK(fd >= 0 && fd == bop_runtime_fd(runtime));
  CHECK(!t_readable(fd));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(t_run_for(runtime, (uint64_t)i * SECOND), UINT64_MAX);
    CHECK(!t_readable(fd));
  }
  /* A fiber is something to do; also one that was there before anybody asked for the descriptor. */
  bop_runtime_t *other = t_runtime(1, 0);
  bop_fiber_t *fibers[] = {t_spawn_host(runtime, seven, NULL, NULL), t_spawn_host(other, seven, NULL, NULL)};
  CHECK(t_readable(fd) && t_readable(bop_runtime_fd(other)));
  OK(bop_run_for(runtime, SECOND, NULL));
  CHECK(!t_readable(fd) && t_readable(bop_runtime_fd(other)));
  CHECK_EQ(t_run_for(other, UINT64_MAX), UINT64_MAX);
  CHECK(!t_readable(bop_runtime_fd(other)));
  for (int i = 0; i < 2; i++)
    CHECK_EQ(t_result(fibers[i]), 7);
  OK(bop_runtime_delete(other));
  OK(bop_runtime_delete(runtime));
}

static void timers(void) {
  CASE("timers");
  bop_runtime_t *runtime = t_runtime(1, 0);
  int fd = bop_runtime_fd(runtime);
  uint64_t start = bop_now(), deadlines[] = {start + 300 * MS, start + 200 * MS, start + 3600 * SECOND, UINT64_MAX};
  bop_fiber_t *fibers[4];
  for (int i = 0; i < 4; i++)
    fibers[i] = t_spawn_host(runtime, sleeps_until, &deadlines[i], NULL);
  uint64_t next = t_settle(runtime);
  for (int i = 1; i >= 0; i--) { /* on a slow machine one or both may have ended */
    CHECK(next == deadlines[i] || bop_now() >= deadlines[i]);
    bool early = t_readable(fd);
    CHECK(!early || bop_now() >= deadlines[i]);
    if (bop_fiber_state(fibers[i]) != BOP_STATE_FINISHED)
      READABLE_AT_LAST(fd);
    CHECK(bop_now() >= deadlines[i]);
    next = t_settle(runtime);
    CHECK_EQ(t_result(fibers[i]), BOP_OK);
  }
  CHECK_EQ(next, deadlines[2]);
  CHECK_EQ(bop_fiber_cancel(fibers[2]), BOP_OK);
  /* What never comes is nothing to come back for. */
  CHECK(t_readable(fd));
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  CHECK_EQ(bop_fiber_cancel(fibers[3]), BOP_OK);
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  bop_fiber_detach(fibers[2]);
  bop_fiber_detach(fibers[3]);
  OK(bop_runtime_delete(runtime));
}

/* ---- budgets ---- */

static void lone_spinner(void) {
  CASE("a guest that never ends");
  bop_runtime_t *runtime = t_runtime(1, 3600 * SECOND); /* nobody loses a turn to anybody else */
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  t_loop loop;
  t_loop_begin(&loop, runtime, 2 * MS, 5 * MS);
  bop_fiber_t *counts = t_spawn1(&guest, "count", 0);
  for (int i = 0; i < 5; i++) {
    uint64_t start = bop_now();
    CHECK(t_readable(loop.fd));
    CHECK_EQ(t_run_for(runtime, 2 * MS), 0);
    CHECK(bop_now() >= start + 2 * MS);
  }
  /* The host's own things go on meanwhile. */
  CHECK_EQ(t_write(loop.pipe[1], "hello", 5), 5);
  LOOP_UNTIL(&loop, loop.ticks >= 5 && loop.bytes == 5 && loop.runs >= 5);
  bop_fiber_t *counted = t_spawn1(&guest, "counted", 0);
  LOOP_UNTIL(&loop, bop_fiber_state(counted) == BOP_STATE_FINISHED);
  CHECK(t_result(counted) != 0); /* and it has really run */
  CHECK_EQ(t_run_for(runtime, 0), 0); /* at once */
  CHECK_EQ(bop_fiber_cancel(counts), BOP_OK);
  LOOP_UNTIL(&loop, bop_fiber_state(counts) == BOP_STATE_FINISHED);
  ENDS(counts, BOP_OUTCOME_CANCELLED);
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  t_loop_end(&loop);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* They have something to do for ever, but none of them for long. */
static void each_other(const char *how) {
  CASE(how);
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  for (int i = 0; i < 2; i++)
    channels[i] = t_channel(1, 0);
  CHECK_EQ(bop_channel_send(channels[0], 1), BOP_OK); /* the ball */
  t_loop loop;
  t_loop_begin(&loop, runtime, MS, 5 * MS);
  bop_fiber_t *fibers[2] = {t_spawn1(&guest, how, 0), t_spawn1(&guest, how, 1)};
  for (int i = 0; i < 5; i++) {
    int before = laps;
    uint64_t start = bop_now();
    CHECK_EQ(t_run_for(runtime, MS), 0);
    CHECK(bop_now() >= start + MS && laps > before);
    CHECK(t_readable(loop.fd));
  }
  LOOP_UNTIL(&loop, loop.ticks >= 5 && loop.runs >= 5);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(bop_fiber_cancel(fibers[i]), BOP_OK);
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  for (int i = 0; i < 2; i++) {
    ENDS(fibers[i], BOP_OUTCOME_CANCELLED);
    bop_channel_delete(channels[i]);
  }
  t_loop_end(&loop);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* A call with no time at all still gets on. */
static void no_budget(void) {
  CASE("no budget");
  bop_runtime_t *runtime = t_runtime(1, 50000);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *fibers[20];
  for (int i = 0; i < 20; i++)
    fibers[i] = i % 2 ? t_spawn1(&guest, "lap", 2000) : t_spawn_host(runtime, seven, NULL, NULL);
  uint64_t next = 0;
  for (int i = 0; next == 0; i++) {
    CHECK(i < 1000000 && t_readable(bop_runtime_fd(runtime)));
    next = t_run_for(runtime, 0);
  }
  CHECK_EQ(next, UINT64_MAX);
  for (int i = 0; i < 20; i++)
    CHECK_EQ(t_result(fibers[i]), i % 2 ? 8 : 7);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* ---- mistakes, and the end ---- */

static int64_t runs_within(void *runtime) {
  FAILS(bop_run_for(runtime, 0, NULL), "fiber");
  return 1;
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

static int64_t waits_to_read(void *ends) { return bop_wait_fd(*(int *)ends, BOP_READABLE, NULL); }

static void mistakes(void) {
  CASE("mistakes");
  uint64_t next = 5;
  FAILS(bop_run_for(NULL, SECOND, &next), "runtime is NULL");
  CHECK_EQ(bop_runtime_fd(NULL), -1);
  bop_runtime_t *runtime = t_runtime(1, 0);
  bop_fiber_t *fiber = t_spawn_host(runtime, runs_within, runtime, NULL);
  t_settle(runtime);
  CHECK_EQ(t_result(fiber), 1);
  OK(bop_runtime_shutdown(runtime, 0));
  FAILS(bop_run_for(runtime, SECOND, &next), "shut down");
  CHECK_EQ(next, 5);
  CHECK(!t_readable(bop_runtime_fd(runtime)));
  OK(bop_runtime_delete(runtime));
}

static void the_end(void) {
  CASE("the end");
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_guest guest, other;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  t_guest_new(&other, runtime, GUEST, IMPORTS);
  t_loop loop;
  t_loop_begin(&loop, runtime, MS, 0);
  uint64_t far = t_far();
  bop_fiber_t *spins[] = {t_spawn1(&guest, "spin", 0), t_spawn1(&other, "yield", 0), t_spawn1(&other, "yield", 0)};
  bop_fiber_t *waiting[] = {t_spawn_host(runtime, parks, NULL, NULL)};
  int ends[2];
  t_pipe(ends);
  bop_fiber_t *reads = t_spawn_host(runtime, waits_to_read, ends, NULL);
  LOOP_UNTIL(&loop, loop.runs > 5 && bop_fiber_state(reads) == BOP_STATE_PARKED);
  bop_fiber_t *never_ran = t_spawn_host(runtime, sleeps_until, &far, NULL);
  OK(bop_runtime_shutdown(runtime, 60 * SECOND));
  FAILS(bop_run_for(runtime, 0, NULL), "shut down");
  for (int i = 0; i < 3; i++)
    ENDS(spins[i], BOP_OUTCOME_CANCELLED);
  ENDS(never_ran, BOP_OUTCOME_CANCELLED);
  CHECK_EQ(t_result(waiting[0]), BOP_CANCELLED);
  CHECK_EQ(t_result(reads), BOP_CANCELLED);
  t_close(ends[0]);
  t_close(ends[1]);
  t_loop_end(&loop);
  t_guest_delete(&guest);
  t_guest_delete(&other);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("own_loop");
  nothing_to_do();
  timers();
  lone_spinner();
  each_other("yield");
  each_other("play");
  no_budget();
  mistakes();
  the_end();
  return 0;
}
