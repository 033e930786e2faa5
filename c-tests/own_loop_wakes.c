/* A host's own loop is told of whatever wakes a fiber, and at the latest when the call that does so returns. Then
 * threads wake fibers in every way, at random, and several run them.
 *
 * BOP_SEED repeats the seed of the storm, which every run prints; BOP_STRESS is its seconds, 2 unless told. */
#include "support/loop.h"

#include <pthread.h>
#include <sched.h>

/* ---- one by one ---- */

enum { SENT, TAKEN, CHANNEL_CLOSED, UNPARKED, CANCELLED, MUTEX_GIVEN, PERMIT_GIVEN, GROUP_DONE, WRITTEN, FD_CLOSED,
       CALLED, SLEPT, TIMED_OUT, WAYS };

static struct {
  int way;
  bop_channel_t *empty, *full;
  t_thing things[SORTS];
  int pipe[2];
  atomic_bool gate;
  bop_fiber_t *fiber;
} it;

static int64_t blocks(void *env) {
  (void)env;
  while (!it.gate)
    t_pause(MS / 5);
  return 1;
}

static int64_t waits(void *env) {
  (void)env;
  switch (it.way) {
  case SENT:
  case CHANNEL_CLOSED: return bop_channel_receive(it.empty, NULL);
  case TAKEN: return bop_channel_send(it.full, 1);
  case UNPARKED:
  case CANCELLED:
  case TIMED_OUT: return bop_park();
  case MUTEX_GIVEN:
  case PERMIT_GIVEN:
  case GROUP_DONE: return t_take(it.things[it.way - MUTEX_GIVEN], NEVER);
  case WRITTEN:
  case FD_CLOSED: return bop_wait_fd(it.pipe[0], BOP_READABLE, NULL);
  case CALLED: return bop_blocking(blocks, NULL, NULL);
  default: return bop_sleep(20 * MS);
  }
}

static void *wakes(void *none) {
  switch (it.way) {
  case SENT: CHECK_EQ(bop_channel_send(it.empty, 1), BOP_OK); break;
  case CHANNEL_CLOSED: CHECK_EQ(bop_channel_close(it.empty), BOP_OK); break;
  case TAKEN: CHECK_EQ(bop_channel_receive(it.full, NULL), BOP_OK); break;
  case UNPARKED: CHECK_EQ(bop_unpark(it.fiber), BOP_OK); break;
  case CANCELLED: CHECK_EQ(bop_fiber_cancel(it.fiber), BOP_OK); break;
  case MUTEX_GIVEN:
  case PERMIT_GIVEN:
  case GROUP_DONE: CHECK_EQ(t_give(it.things[it.way - MUTEX_GIVEN]), BOP_OK); break;
  case WRITTEN: CHECK_EQ(t_write(it.pipe[1], "x", 1), 1); break;
  case FD_CLOSED: CHECK_EQ(t_bop_close(it.pipe[0]), 0); break;
  case CALLED: it.gate = true; break;
  default: break; /* by itself */
  }
  return none;
}

/* By the thread of the loop, or by another one. When who wakes is back, the descriptor is readable. */
static void wake_ups(bool by_another_thread) {
  CASE(by_another_thread ? "woken by another thread" : "woken by the loop's own thread");
  static const bop_status_t told[WAYS] = {[CHANNEL_CLOSED] = BOP_CLOSED, [CANCELLED] = BOP_CANCELLED,
                                          [FD_CLOSED] = BOP_CLOSED, [TIMED_OUT] = BOP_CANCELLED};
  bop_runtime_t *runtime = t_runtime(1, 0);
  int fd = bop_runtime_fd(runtime);
  for (it.way = 0; it.way < WAYS; it.way++) {
    it.empty = t_channel(1, 0);
    it.full = t_channel(1, 1);
    for (int sort = 0; sort < SORTS; sort++)
      it.things[sort] = t_taken(sort);
    t_pipe(it.pipe);
    it.gate = false;
    bop_spawn_options_t *options = bop_spawn_options_new();
    bop_spawn_options_deadline(options, it.way == TIMED_OUT ? bop_now() + 20 * MS : 0);
    OK(bop_spawn_host(runtime, waits, NULL, NULL, options, &it.fiber));
    bop_spawn_options_delete(options);
    bool timed = it.way == SLEPT || it.way == TIMED_OUT;
    uint64_t next = t_run_for(runtime, SECOND);
    CHECK(timed || (next == UINT64_MAX && !t_readable(fd) && bop_fiber_state(it.fiber) == BOP_STATE_PARKED));
    pthread_t thread;
    if (by_another_thread && it.way != MUTEX_GIVEN) { /* which is this thread's */
      CHECK_EQ(pthread_create(&thread, NULL, wakes, NULL), 0);
      CHECK_EQ(pthread_join(thread, NULL), 0);
    } else {
      wakes(NULL);
    }
    bool at_once = it.way != CALLED && !timed;
    if (at_once)
      CHECK(t_readable(fd));
    else if (bop_fiber_state(it.fiber) != BOP_STATE_FINISHED)
      READABLE_AT_LAST(fd);
    CHECK_EQ(at_once ? t_run_for(runtime, SECOND) : t_settle(runtime), UINT64_MAX);
    CHECK(!t_readable(fd));
    if (it.way == TIMED_OUT && bop_fiber_state(it.fiber) == BOP_STATE_FINISHED) {
      bop_outcome_t outcome; /* it may never have begun, on a slow machine */
      CHECK_EQ(bop_fiber_join(it.fiber, &outcome), BOP_OK);
      CHECK(outcome == BOP_OUTCOME_TIMED_OUT || outcome == BOP_OUTCOME_RETURNED);
      bop_fiber_detach(it.fiber);
    } else {
      CHECK_EQ(bop_fiber_state(it.fiber), BOP_STATE_FINISHED);
      CHECK_EQ(t_result(it.fiber), told[it.way]);
    }
    if (it.way == MUTEX_GIVEN)
      CHECK_EQ(bop_mutex_lock(it.things[MUTEX].it), BOP_ABANDONED);
    for (int sort = 0; sort < SORTS; sort++)
      t_thing_delete(it.things[sort]);
    bop_channel_delete(it.empty);
    bop_channel_delete(it.full);
    t_close(it.pipe[1]);
    if (it.way != FD_CLOSED)
      t_close(it.pipe[0]);
  }
  OK(bop_runtime_delete(runtime));
}

/* Fibers of a store that a thread has entered are not ready. */
static void a_store_is_left(void) {
  CASE("a store is left");
  bop_runtime_t *runtime = t_runtime(1, 0);
  int fd = bop_runtime_fd(runtime);
  t_guest guest;
  t_guest_new(&guest, runtime, "(module (func (export \"eight\") (param i32) (result i32) (i32.const 8)))", NULL);
  wasmtime_context_t *context;
  OK(bop_store_enter(guest.store, &context));
  bop_fiber_t *fiber = t_spawn1(&guest, "eight", 0);
  CHECK(!t_readable(fd));
  OK(bop_store_exit(guest.store));
  CHECK(t_readable(fd));
  CHECK_EQ(t_settle(runtime), UINT64_MAX);
  CHECK_EQ(t_result(fiber), 8);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* ---- all at once ---- */

enum { PRODUCERS = 3, LOOPS = 2 };
static struct {
  bop_runtime_t *runtime;
  bop_channel_t *channel;
  bop_fiber_t *parker;
  int pipe[2];
  atomic_bool stop;
  _Atomic uint64_t done; /* of what was begun: values received, permits used, bytes read, fibers run, calls made */
  _Atomic uint64_t sent, bytes, spawned, permits, calls;
} storm;

static int64_t receives(void *env) {
  (void)env;
  int64_t n = 0;
  for (; bop_channel_receive(storm.channel, NULL) == BOP_OK; n++)
    storm.done++;
  return n;
}

static int64_t uses_permits(void *env) {
  (void)env;
  int64_t n = 0;
  for (; bop_park() == BOP_OK; n++)
    storm.done++;
  return n;
}

static int64_t reads(void *env) {
  (void)env;
  int64_t all = 0, n;
  char buffer[64];
  for (bop_status_t status = BOP_OK; status == BOP_OK; status = bop_wait_fd(storm.pipe[0], BOP_READABLE, NULL))
    while ((n = t_read(storm.pipe[0], buffer, sizeof buffer)) > 0) {
      storm.done += (uint64_t)n;
      all += n;
    }
  return all;
}

static int64_t ends_soon(void *nap) {
  bop_sleep((uint64_t)(uintptr_t)nap);
  storm.done++;
  return 1;
}

static int64_t is_called(void *env) {
  (void)env;
  return 1;
}

static int64_t calls(void *env) {
  int64_t result = 0;
  if (bop_blocking(is_called, env, &result) == BOP_OK)
    storm.done++;
  return result;
}

/* One thing after another. Who is alone waits until it is done: a loop that sleeps on is found out. */
static int64_t produces(void *data) {
  t_actor *me = data;
  bool alone = me->n == 1;
  uint64_t n = 0;
  for (; !storm.stop; n++) {
    uint64_t before = storm.done;
    switch (t_below(&me->random, 5)) {
    case 0:
      CHECK_EQ(bop_channel_send(storm.channel, n), BOP_OK);
      storm.sent++;
      break;
    case 1: /* one at a time: a second permit would be lost */
      if (!alone)
        continue;
      CHECK_EQ(bop_unpark(storm.parker), BOP_OK);
      storm.permits++;
      break;
    case 2:
      if (t_write(storm.pipe[1], "x", 1) != 1)
        continue;
      storm.bytes++;
      break;
    case 3:
      OK(bop_spawn_host(storm.runtime, ends_soon, (void *)(uintptr_t)t_below(&me->random, 100000), NULL, NULL,
                        NULL));
      storm.spawned++;
      break;
    default:
      OK(bop_spawn_host(storm.runtime, calls, NULL, NULL, NULL, NULL));
      storm.calls++;
    }
    for (uint64_t patience = t_now() + 60 * SECOND; alone && storm.done == before; sched_yield())
      if (t_now() > patience)
        t_fail(__FILE__, __LINE__, "the loop sleeps on");
    if (t_below(&me->random, 2))
      t_pause(t_below(&me->random, 100000));
  }
  return (int64_t)n;
}

static uint64_t begun(void) { return storm.sent + storm.bytes + storm.spawned + storm.permits + storm.calls; }

static void *loops(void *data) {
  t_loop *loop = data;
  LOOP_UNTIL(loop, loop->bytes > 0);
  return NULL;
}

static void a_storm(uint64_t *random, int producers, int loop_threads, uint64_t nanoseconds) {
  CASE(producers == 1 ? "a storm of one" : loop_threads == 1 ? "a storm" : "a storm, and several loops");
  storm.runtime = t_runtime(1, 50000);
  storm.channel = t_channel(2, 0);
  storm.stop = false;
  storm.done = storm.sent = storm.bytes = storm.spawned = storm.permits = storm.calls = 0;
  t_pipe(storm.pipe);
  t_loop loop[LOOPS];
  pthread_t threads[LOOPS];
  for (int i = 0; i < loop_threads; i++) {
    t_loop_begin(&loop[i], storm.runtime, t_below(random, 2 * MS), 0);
    CHECK_EQ(pthread_create(&threads[i], NULL, loops, &loop[i]), 0);
  }
  bop_fiber_t *receivers[2], *reader = t_spawn_host(storm.runtime, reads, NULL, NULL);
  storm.parker = t_spawn_host(storm.runtime, uses_permits, NULL, NULL);
  for (int i = 0; i < 2; i++)
    receivers[i] = t_spawn_host(storm.runtime, receives, NULL, NULL);
  t_actor actors[PRODUCERS];
  for (int i = 0; i < producers; i++) {
    actors[i] = (t_actor){.random = t_below(random, UINT64_MAX) | 1, .n = (uint64_t)producers};
    t_actor_begin(&actors[i], THREAD, produces);
  }
  t_pause(nanoseconds);
  storm.stop = true;
  int64_t actions = 0;
  for (int i = 0; i < producers; i++)
    actions += t_actor_end(&actors[i]);
  EVENTUALLY(storm.done == begun());
CHECK(actions > 10 && storm.sent > 0 && storm.bytes > 0 && storm.spawned > 0 && storm.calls > 0);
  CHECK_EQ(bop_channel_close(storm.channel), BOP_OK);
  CHECK_EQ(t_result(receivers[0]) + t_result(receivers[1]), storm.sent);
  CHECK_EQ(bop_fiber_cancel(storm.parker), BOP_OK);
  CHECK_EQ(t_result(storm.parker), storm.permits);
  CHECK_EQ(bop_fiber_cancel(reader), BOP_OK);
  CHECK_EQ(t_result(reader), storm.bytes);
  EVENTUALLY(t_stats(storm.runtime).live == 0);
  for (int i = 0; i < loop_threads; i++) {
    CHECK_EQ(t_write(loop[i].pipe[1], "x", 1), 1);
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
    t_loop_end(&loop[i]);
  }
  CHECK_EQ(t_settle(storm.runtime), UINT64_MAX);
  bop_channel_delete(storm.channel);
  t_close(storm.pipe[0]);
  t_close(storm.pipe[1]);
  OK(bop_runtime_delete(storm.runtime));
}

int main(void) {
  t_start("own_loop_wakes");
  wake_ups(false);
  wake_ups(true);
  a_store_is_left();
  uint64_t random = t_seed() | UINT64_C(1) << 40, third = t_stress() / 3;
  a_storm(&random, 1, 1, third);
  a_storm(&random, PRODUCERS, 1, third);
  a_storm(&random, PRODUCERS, LOOPS, third);
  return 0;
}
