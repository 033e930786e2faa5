/* The end of a runtime with blocking calls: those that nobody waits for any more are waited for, and counted if they do
 * not return; those that fibers wait for are these fibers' affair; those that are over, or were taken back, are nobody's. */
#include "support/blockers.h"

static void never_returns(void) {
  CASE("a call that never returns");
  t_helpers_begin(4, MS, 30 * MS);
  t_blocker alone[2], one;
  for (int i = 0; i < 2; i++) { /* nobody waits for these any more */
    t_blocker_begins(&alone[i], 0, bop_now() + 5 * SECOND);
    EVENTUALLY(alone[i].begun == 1 && t_blocker_waits(&alone[i]));
    CHECK_EQ(bop_fiber_cancel(alone[i].actor.fiber), BOP_OK);
    CALL_ENDS(&alone[i], BOP_CANCELLED);
  }
  for (int i = 0; i < 10; i++) { /* others are made as ever */
    t_blocker_begins(&one, 0, i % 2 ? NEVER : t_far());
    t_let_go(&one);
    CALL_ENDS(&one, BOP_OK);
  }
  FAILS(bop_runtime_shutdown(t_runtimes[0], 10 * MS), "blocking calls");
  t_let_go(&alone[0]);
  EVENTUALLY(alone[0].freed == 1);
  FAILS(bop_runtime_delete(t_runtimes[0]), "blocking calls");
  CHECK_EQ(alone[1].freed, 0);
  FAILS(bop_spawn_host(t_runtimes[0], t_blocks, &one, NULL, NULL, NULL), "shut");
  t_let_go(&alone[1]);
  OK(bop_runtime_delete(t_runtimes[0])); /* it has waited for what was left */
  CHECK_EQ(alone[1].freed, 1);
  CHECK_EQ(alone[1].over, 1);
  EVENTUALLY(t_helpers() == 0);
}

/* A fiber that waits for its call, cancelled or not, is what the error names. */
static void fiber_never_returns(void) {
  CASE("a fiber whose call never returns");
  t_helpers_begin(4, MS, 30 * MS);
  t_blocker it;
  t_blocker_begins(&it, 0, NEVER);
  EVENTUALLY(it.begun == 1);
  FAILS(bop_runtime_delete(t_runtimes[0]), "1 fibers");
  CHECK_EQ(it.actor.status, -1);
  t_let_go(&it);
  CALL_ENDS(&it, BOP_OK);
  OK(bop_runtime_delete(t_runtimes[0]));
}

/* Calls that timed out in the queue have no part in what is left. */
static int64_t times_out(void *it) {
  for (int i = 0; i < 20; i++)
    CHECK_EQ(bop_blocking_until(t_blocks, it, NULL, NULL, bop_now() + MS / 10), BOP_TIMEOUT);
  return 20;
}

static void taken_back_before(void) {
  CASE("taken back before");
  t_helpers_begin(1, MS, 5 * SECOND);
  t_blocker holder, never = {.freed = 0};
  t_blocker_begins(&holder, 0, t_far());
  EVENTUALLY(holder.begun == 1 && t_blocker_waits(&holder));
  CHECK_EQ(bop_fiber_cancel(holder.actor.fiber), BOP_OK);
  CALL_ENDS(&holder, BOP_CANCELLED);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], times_out, &never, NULL)), 20);
  const char *error = t_error_text(bop_runtime_shutdown(t_runtimes[0], 10 * MS));
  CHECK(error != NULL);
  if (strncmp(error, "1 blocking calls", 16) != 0)
    t_fail(__FILE__, __LINE__, "one call is left, but: %s", error);
  t_let_go(&holder);
  t_helpers_end();
  CHECK_EQ(never.begun, 0);
}

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static int64_t one_call(void *env) {
  (void)env;
  int64_t result = 0;
  CHECK_EQ(bop_blocking(seven, NULL, &result), BOP_OK);
  return result;
}

/* Helpers that only linger are no reason for a shutdown to wait, nor to fail. */
static void nothing_under_way(void) {
  CASE("nothing under way");
  t_helpers_begin(2, MS, 0);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], one_call, NULL, NULL)), 7);
  EVENTUALLY(t_stats(t_runtimes[0]).live == 0);
  t_pause(20 * MS); /* the helper is back by now, most likely, and it is not time for it to go */
  OK(bop_runtime_delete(t_runtimes[0]));
}

int main(void) {
  t_start("blocking_ends");
  never_returns();
  fiber_never_returns();
  nothing_under_way();
  taken_back_before();
  return 0;
}
