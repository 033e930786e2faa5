/* Calls that block, made by helper threads while their fibers wait: results, how many helpers there are, the queue,
 * cancelling, deadlines, who keeps `env`. (Limits, mistakes, guests: blocking_limits.c. Shutting down:
 * blocking_ends.c.) */
#include "support/blockers.h"

#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

/* ---- results ---- */

static int64_t negates(void *value) { return -*(int64_t *)value; }
static int64_t says_where(void *env) {
  (void)env;
  return gettid();
}

static int64_t several_calls(void *data) {
  const bool fiber = data != NULL;
  int64_t values[] = {0, 1, -1, INT64_MAX, INT64_MIN + 1}, result = 77;
  for (int i = 0; i < 5; i++) { /* the arguments are on the caller's stack */
    CHECK_EQ(bop_blocking(negates, &values[i], &result), BOP_OK);
    CHECK_EQ(result, -values[i]);
    CHECK_EQ(bop_blocking_until(negates, &values[i], NULL, &result, t_far()), BOP_OK);
    CHECK_EQ(result, -values[i]);
    CHECK_EQ(bop_blocking(negates, &values[i], NULL), BOP_OK);
    CHECK_EQ(bop_blocking_until(negates, &values[i], NULL, NULL, UINT64_MAX), BOP_OK);
  }
  int64_t before = says_where(NULL);
  CHECK_EQ(bop_blocking(says_where, NULL, &result), BOP_OK);
  CHECK(fiber ? result != before : result == before);
  result = 77;
  CHECK_EQ(bop_blocking(NULL, &result, &result), BOP_INVALID);
  CHECK_EQ(bop_blocking_until(NULL, NULL, NULL, &result, t_far()), BOP_INVALID);
  CHECK_EQ(result, 77);
  return 1;
}

static void results(void) {
  CASE("results");
  CHECK_EQ(several_calls(NULL), 1);
  CHECK_EQ(t_helpers(), 0); /* a plain thread has blocked by itself */
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], several_calls, t_runtimes[0], NULL)), 1);
}

/* A function on a helper is on a plain thread. */
static int64_t looks_round(void *data) {
  const int *p = data;
  CHECK(bop_current() == NULL);
  CHECK_EQ(bop_yield(), BOP_OK);
  CHECK_EQ(bop_sleep(MS), BOP_OK);
  CHECK_EQ(bop_park(), BOP_NOT_FIBER);
  CHECK_EQ(bop_wait_fd(p[0], BOP_READABLE, NULL), BOP_OK);
  int64_t value = 7, result = 0;
  CHECK_EQ(bop_blocking(negates, &value, &result), BOP_OK);
  CHECK_EQ(result, -7);
  return t_result(t_spawn_host(t_runtimes[0], several_calls, t_runtimes[0], NULL)); /* it blocks for a fiber */
}

static int64_t sends_round(void *p) {
  int64_t result = 0;
  CHECK_EQ(bop_blocking(looks_round, p, &result), BOP_OK);
  return result;
}

static void on_a_plain_thread(void) {
  CASE("on a plain thread");
  int p[2];
  t_pipe(p);
  bop_fiber_t *fiber = t_spawn_host(t_runtimes[0], sends_round, p, NULL);
  t_pause(2 * MS);
  CHECK_EQ(t_write(p[1], "x", 1), 1);
  CHECK_EQ(t_result(fiber), 1);
  t_close(p[0]);
  t_close(p[1]);
}

/* ---- how many ---- */

static int64_t lets_all_go(void *data) {
  t_blocker *all = data;
  for (int i = 0; i < 40; i++) {
    CHECK_EQ(bop_yield(), BOP_OK);
    CHECK_EQ(all[i].actor.status, -1);
    t_let_go(&all[i]);
  }
  return 40;
}

/* On one worker more calls block at the same time than there are threads otherwise, and other fibers run meanwhile. The
 * helpers stay for a while, and are used again; then they go. */
static void grows_and_shrinks(void) {
  CASE("helpers come and go");
  enum { N = 40 };
  static t_blocker all[N];
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < N; i++)
      t_blocker_begins(&all[i], 0, i % 2 ? NEVER : t_far());
    EVENTUALLY(t_inside == N && t_helpers() == N);
    CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], lets_all_go, all, NULL)), N);
    for (int i = 0; i < N; i++)
      CALL_ENDS(&all[i], BOP_OK);
  }
  EVENTUALLY(t_helpers() == 0);
}

/* One at a time needs one helper; another one comes if the first is not back yet. */
static int64_t one_after_the_other(void *env) {
  (void)env;
  int64_t tids[64], changes = 0;
  for (int i = 0; i < 1000; i++) {
    int64_t tid = 0, k = 0;
    CHECK_EQ(bop_blocking(says_where, NULL, &tid), BOP_OK);
    while (k < changes && tids[k] != tid)
      k++;
    CHECK(k < 64);
    tids[k] = tid;
    changes += k == changes;
  }
  return changes;
}

static void reused(void) {
  CASE("one helper for many calls");
  CHECK(t_result(t_spawn_host(t_runtimes[0], one_after_the_other, NULL, NULL)) < 64);
}

/* ---- cancelling ---- */

static void cancelled_on_the_way(void) {
  CASE("cancelled while it runs");
  for (int i = 0; i < 20; i++) {
    t_blocker it;
    t_blocker_begins(&it, i % 2, NEVER);
    EVENTUALLY(it.begun == 1 && t_blocker_waits(&it));
    CHECK_EQ(bop_fiber_cancel(it.actor.fiber), BOP_OK);
    t_pause(i % 4 ? 0 : 2 * MS);
    CHECK_EQ(it.actor.status, -1); /* what it was given may be on the fiber's stack */
    t_let_go(&it);
    CALL_ENDS(&it, BOP_OK);
  }
  for (int i = 0; i < 20; i++) { /* one that need not wait for the end, nor does */
    t_blocker it;
    t_blocker_begins(&it, i % 2, t_far());
    EVENTUALLY(it.begun == 1 && t_blocker_waits(&it));
    CHECK_EQ(bop_fiber_cancel(it.actor.fiber), BOP_OK);
    CALL_ENDS(&it, BOP_CANCELLED);
    CHECK_EQ(it.freed, 0);
    t_let_go(&it);
    EVENTUALLY(it.freed == 1);
    CHECK_EQ(it.over, 1);
  }
}

static int64_t calls_cancelled(void *data) {
  t_blocker *it = data;
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  int64_t result = 77;
  for (int i = 1; i <= 3; i++) {
    CHECK_EQ(bop_blocking(t_blocks, it, &result), BOP_CANCELLED);
    CHECK_EQ(bop_blocking_until(t_blocks, it, t_frees, &result, i == 1 ? 0 : t_far()), BOP_CANCELLED);
    CHECK_EQ(it->freed, i);
  }
  CHECK_EQ(it->begun, 0);
  return result;
}

/* ---- deadlines ---- */

static void too_late(int kind) {
  CASE("too late");
  for (uint64_t i = 0; i < 10; i++) {
    t_blocker it;
    t_blocker_begins(&it, kind, i ? bop_now() + i * MS : 0); /* the first never begins */
    CALL_ENDS(&it, BOP_TIMEOUT);
    CHECK(bop_now() >= it.actor.deadline);
    CHECK(i || (it.begun == 0 && it.freed == 1));
    if (it.begun)
      CHECK_EQ(it.freed, 0); /* it runs on */
    t_let_go(&it);
    EVENTUALLY(it.freed == 1);
    CHECK_EQ(it.begun, it.over);
  }
}

/* ---- everything at once: deadlines and cancellations race with the beginning and the end of calls ---- */

static void races(uint64_t seed) {
  CASE("races");
  enum { N = 24, ROUNDS = 60 };
  static t_blocker all[N];
  uint64_t random = seed | UINT64_C(1) << 40, outcomes[BOP_CANCELLED + 1] = {0}, not_begun = 0;
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < N; i++) {
      uint64_t soon = bop_now() + t_below(&random, 2 * MS);
      t_blocker_begins(&all[i], (int)t_below(&random, 2), t_below(&random, 2) ? NEVER : soon);
    }
    for (int k = 0; k < 4 * N; k++) {
      t_blocker *it = &all[t_below(&random, N)];
      if (t_below(&random, 4) == 0)
        CHECK(bop_fiber_cancel(it->actor.fiber) != BOP_INVALID);
      else
        t_let_go(it);
      t_pause(t_below(&random, 20000));
    }
    for (int i = 0; i < N; i++)
      t_let_go(&all[i]);
    for (int i = 0; i < N; i++) {
      t_blocker *it = &all[i];
      bop_outcome_t outcome = BOP_OUTCOME_FAILED;
      CHECK_EQ(bop_fiber_join(it->actor.fiber, &outcome), BOP_OK);
      bop_fiber_detach(it->actor.fiber);
      if (outcome == BOP_OUTCOME_CANCELLED) { /* it has never run */
        CHECK_EQ(it->actor.status, -1);
        continue;
      }
      bop_status_t status = (bop_status_t)(int)it->actor.status;
      if (it->until)
        EVENTUALLY(it->freed == 1);
      CHECK_EQ(it->begun, it->over); /* and nothing uses it any more */
      CHECK(status == BOP_OK ? it->over == 1 && it->result == T_BLOCKED : it->result == 77);
      CHECK(status == BOP_OK || status == BOP_CANCELLED || (status == BOP_TIMEOUT && it->until));
      CHECK(status == BOP_OK || it->until || it->begun == 0);
      outcomes[status]++;
      not_begun += it->begun == 0;
    }
  }
  printf("%" PRIu64 " done, %" PRIu64 " too late, %" PRIu64 " cancelled; %" PRIu64 " not begun\n", outcomes[BOP_OK],
         outcomes[BOP_TIMEOUT], outcomes[BOP_CANCELLED], not_begun);
  CHECK(outcomes[BOP_OK] > 10 && outcomes[BOP_TIMEOUT] > 3 && outcomes[BOP_CANCELLED] > 3);
}

int main(void) {
  t_start("blocking");
  uint64_t seed = t_seed();
  t_runtimes_start(1, 0);
  results();
  on_a_plain_thread();
  grows_and_shrinks();
  reused();
  cancelled_on_the_way();
  CASE("cancelled before");
  t_blocker never = {.freed = 0};
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], calls_cancelled, &never, NULL)), 77);
  too_late(0);
  races(seed);
  t_runtimes_delete();
  EVENTUALLY(t_helpers() == 0);
  return 0;
}
