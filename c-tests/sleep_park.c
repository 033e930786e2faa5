/* Sleeping, and the permit of park and unpark. */
#include "support/support.h"

#include <pthread.h>

static bop_runtime_t *runtime;

static int64_t never_early(void *env) {
  uint64_t duration = (uint64_t)(uintptr_t)env;
  for (int i = 0; i < 5; i++) {
    uint64_t start = bop_now();
    CHECK_EQ(bop_sleep(duration), BOP_OK);
    CHECK(bop_now() >= start + duration);
    uint64_t deadline = bop_now() + duration;
    CHECK_EQ(bop_sleep_until(deadline), BOP_OK);
    CHECK(bop_now() >= deadline);
  }
  return 1;
}

static int64_t far(void *env) {
  (void)env;
  return bop_sleep(3600 * SECOND);
}

static void sleeping(void) {
  CASE("sleep");
  bop_fiber_t *late[20], *fibers[50];
  for (int i = 0; i < 20; i++) /* the heap of timers is full of later ones */
    late[i] = t_spawn_host(runtime, far, NULL, NULL);
  for (uintptr_t i = 0; i < 50; i++)
    fibers[i] = t_spawn_host(runtime, never_early, (void *)(i * 37 % 50 * (MS / 5)), NULL);
  for (int i = 0; i < 50; i++)
    CHECK_EQ(t_result(fibers[i]), 1);
  for (int i = 0; i < 20; i++) {
    EVENTUALLY(bop_fiber_state(late[i]) == BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(late[i]), BOP_OK);
    CHECK_EQ(t_result(late[i]), BOP_CANCELLED);
  }
  CHECK_EQ(never_early((void *)(uintptr_t)MS), 1); /* on a plain thread too */
  CHECK_EQ(bop_sleep_until(0), BOP_OK);
  CHECK_EQ(bop_yield(), BOP_OK);
}

/* In order however slow the machine is: a near timer comes before one that is hours away, and a
 * sleep that starts after another has ended ends after it. */
static atomic_int order;
static int64_t sleeps_first(void *env) {
  (void)env;
  CHECK_EQ(bop_sleep(20 * MS), BOP_OK);
  return ++order;
}
static int64_t sleeps_second(void *other) {
  bop_outcome_t outcome;
  CHECK_EQ(bop_fiber_join_until(other, bop_now() + 3600 * SECOND, &outcome), BOP_OK);
  CHECK_EQ(bop_sleep(MS), BOP_OK);
  return ++order;
}

static void ordering(void) {
  CASE("order");
  bop_fiber_t *last = t_spawn_host(runtime, far, NULL, NULL);
  bop_fiber_t *a = t_spawn_host(runtime, sleeps_first, NULL, NULL);
  bop_fiber_t *b = t_spawn_host(runtime, sleeps_second, a, NULL);
  CHECK_EQ(t_result(b), 2);
  CHECK_EQ(t_result(a), 1);
  CHECK(bop_fiber_state(last) != BOP_STATE_FINISHED);
  EVENTUALLY(bop_fiber_state(last) == BOP_STATE_PARKED);
  CHECK_EQ(bop_fiber_cancel(last), BOP_OK);
  CHECK_EQ(t_result(last), BOP_CANCELLED);
}

static atomic_int stage;

static int64_t permits(void *env) {
  (void)env;
  while (stage == 0) /* the permit comes before the park */
    CHECK_EQ(bop_yield(), BOP_OK);
  CHECK_EQ(bop_park(), BOP_OK);
  /* two unparks made one permit */
  CHECK_EQ(bop_park_until(bop_now() + 20 * MS), BOP_TIMEOUT);
  CHECK_EQ(bop_park_until(0), BOP_TIMEOUT);
  stage = 2;
  /* An unpark meanwhile must neither end a sleep early nor be lost. */
  uint64_t until = bop_now() + 50 * MS;
  CHECK_EQ(bop_sleep_until(until), BOP_OK);
  CHECK(bop_now() >= until);
  while (stage == 2)
    CHECK_EQ(bop_yield(), BOP_OK);
  CHECK_EQ(bop_park(), BOP_OK);
  /* a permit given to oneself */
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_unpark(self), BOP_OK);
  CHECK_EQ(bop_park(), BOP_OK);
  CHECK_EQ(bop_unpark(self), BOP_OK);
  CHECK_EQ(bop_park_until(0), BOP_OK); /* a permit that is there beats a deadline that is past */
  bop_fiber_detach(self);
  return bop_park_until(bop_now() + 10 * MS);
}

static void permit(void) {
  CASE("permit");
  bop_fiber_t *fiber = t_spawn_host(runtime, permits, NULL, NULL);
  CHECK_EQ(bop_unpark(fiber), BOP_OK);
  CHECK_EQ(bop_unpark(fiber), BOP_OK);
  stage = 1;
  EVENTUALLY(stage == 2);
  CHECK_EQ(bop_unpark(fiber), BOP_OK);
  stage = 3;
  JOINS(fiber, BOP_OUTCOME_RETURNED);
  CHECK_EQ(bop_unpark(fiber), BOP_FINISHED);
  CHECK_EQ(t_result(fiber), BOP_TIMEOUT);
}

static atomic_int parks_done;

static int64_t parks_n(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) {
    CHECK_EQ(bop_park(), BOP_OK);
    parks_done++;
  }
  return parks_done;
}

static void *unparks(void *fiber) {
  CHECK_EQ(bop_park(), BOP_NOT_FIBER);
  CHECK_EQ(bop_park_until(bop_now() + MS), BOP_NOT_FIBER);
  CHECK(bop_current() == NULL);
  CHECK(!bop_cancelled());
  for (int i = 0; i < 500; i++) {
    CHECK(bop_unpark(fiber) != BOP_INVALID);
    if (i % 50 == 0)
      t_pause(MS / 10);
  }
  return NULL;
}

static void from_threads(void) {
  CASE("unpark from threads");
  enum { N = 200 };
  /* Each unpark gives one wake-up at most, so with one unpark at a time the counts are equal. */
  bop_fiber_t *fiber = t_spawn_host(runtime, parks_n, (void *)N, NULL);
  parks_done = 0;
  for (int i = 0; i < N; i++) {
    CHECK_EQ(parks_done, i);
    if (i % 2)
      EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
    CHECK_EQ(bop_unpark(fiber), BOP_OK);
    uint64_t end = t_now() + 60 * SECOND;
    while (parks_done == i)
      CHECK(t_now() < end);
  }
  CHECK_EQ(t_result(fiber), N);

  /* Many threads at once: no permit that was given to a parked fiber is lost. */
  parks_done = 0;
  fiber = t_spawn_host(runtime, parks_n, (void *)3, NULL);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, unparks, fiber), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  while (bop_unpark(fiber) == BOP_OK)
    t_pause(MS);
  CHECK_EQ(t_result(fiber), 3);
}

/* ---- ping-pong ---- */

enum { ROUNDS = 20000 };
static struct {
  bop_fiber_t *_Atomic player[2];
  atomic_int turn;
} game;

static int64_t plays(void *side) {
  int me = (int)(intptr_t)side, parked = 0;
  for (int i = 0; i < ROUNDS; i++) {
    while (game.turn != 2 * i + me) {
      CHECK_EQ(bop_park(), BOP_OK);
      parked++;
    }
    game.turn++;
    bop_fiber_t *other = game.player[1 - me];
    CHECK(bop_unpark(other) != BOP_INVALID);
  }
  return parked;
}

static wasm_trap_t *plays_in_wasm(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                  size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  results[0] = t_i32((int32_t)plays((void *)(intptr_t)args[0].of.i32));
  return NULL;
}

static void end_of_game(void) {
  /* Either uses the other's handle up to its end. */
  for (int i = 0; i < 2; i++)
    JOINS(game.player[i], BOP_OUTCOME_RETURNED);
  CHECK_EQ(game.turn, 2 * ROUNDS);
  for (int i = 0; i < 2; i++)
    CHECK(t_result(game.player[i]) <= 2 * ROUNDS + 2); /* no spurious wake-ups */
}

static void ping_pong(void) {
  CASE("ping-pong of host fibers");
  game.turn = -1; /* nobody's until both are known */
  for (int i = 0; i < 2; i++)
    game.player[i] = t_spawn_host(runtime, plays, (void *)(intptr_t)i, NULL);
  game.turn = 0;
  CHECK_EQ(bop_unpark(game.player[0]), BOP_OK);
  end_of_game();

  CASE("ping-pong in one store");
  const t_import imports[] = {{"play", "i", "i", plays_in_wasm, NULL},
                              {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (import \"host\" \"play\" (func $play (param i32) (result i32)))"
              "  (func (export \"play\") (param i32) (result i32) (call $play (local.get 0))))",
              imports);
  game.turn = -1;
  for (int i = 0; i < 2; i++)
    game.player[i] = t_spawn1(&guest, "play", i);
  game.turn = 0;
  CHECK_EQ(bop_unpark(game.player[0]), BOP_OK);
  end_of_game();
  t_guest_delete(&guest);
}

int main(void) {
  t_start("sleep_park");
  runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  sleeping();
  ordering();
  permit();
  from_threads();
  ping_pong();
  OK(bop_runtime_delete(runtime));
  return 0;
}
