/* The deadline of a fiber ends it, wherever it is, and nobody else. */
#include "support/descriptors.h"
#include "support/guests.h"
#include "support/limits.h"

/* ---- every call that waits ---- */

enum { SLEEPS, PARKS, YIELDS, JOINS_OTHER, JOINS_SIBLING, SENDS, RECEIVES, LOCKS, ACQUIRES, AWAITS_GROUP, READS, WRITES,
       LEAVES_BLOCKING, WAYS };

/* What is waited for, and never comes. */
static struct {
  bop_fiber_t *other, *sibling;
  bop_channel_t *empty, *full;
  t_thing things[SORTS];
  int nothing_to_read[2], no_room[2];
  atomic_bool gate; /* ends the blocking calls */
} never;
static atomic_int finalized, entered[WAYS], returned[WAYS];
static _Atomic uint64_t returned_at[WAYS];

static void finalizes(void *env) {
  (void)env;
  finalized++;
}

static int64_t blocks(void *begun) {
  if (begun != NULL)
    ++*(atomic_int *)begun;
  while (!never.gate)
    t_pause(MS);
  return 99;
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

static bop_status_t yields(void) {
  bop_status_t status;
  do
    status = bop_yield();
  while (status == BOP_OK);
  return status;
}

static bop_status_t waits(int way) {
  switch (way) {
  case SLEEPS: return bop_sleep(3600 * SECOND);
  case PARKS: return bop_park();
  case YIELDS: return yields();
  case JOINS_OTHER: return bop_fiber_join(never.other, NULL);
  case JOINS_SIBLING: return bop_fiber_join(never.sibling, NULL);
  case SENDS: return bop_channel_send(never.full, 1);
  case RECEIVES: return bop_channel_receive(never.empty, NULL);
  case LOCKS:
  case ACQUIRES:
  case AWAITS_GROUP: return t_take(never.things[way - LOCKS], NEVER);
  case READS: return bop_wait_fd(never.nothing_to_read[0], BOP_READABLE, NULL);
  case WRITES: return bop_wait_fd(never.no_room[1], BOP_WRITABLE, NULL);
  default: return bop_blocking_until(blocks, NULL, finalizes, NULL, UINT64_MAX);
  }
}

/* Each returns as for a fiber that was cancelled, and so does each further one. */
static int64_t waits_in_vain(void *way) {
  entered[(intptr_t)way]++;
  bop_status_t status = waits((int)(intptr_t)way);
  returned_at[(intptr_t)way] = bop_now();
  CHECK(bop_cancelled());
  CHECK_EQ(bop_sleep(MS), BOP_CANCELLED);
  returned[(intptr_t)way]++;
  return status;
}

HOST_FUNCTION(guest_waits) {
  UNUSED();
  CHECK_EQ(waits_in_vain((void *)(intptr_t)args[0].of.i32), BOP_CANCELLED);
  return NULL;
}

/* A call that has begun is waited for. */
static atomic_int begun;
HOST_FUNCTION(blocks_guest) {
  UNUSED();
  int64_t result = 0;
  bop_status_t status = bop_blocking(blocks, &begun, &result);
  CHECK_EQ(status, begun ? BOP_OK : BOP_CANCELLED);
  CHECK_EQ(result, begun ? 99 : 0);
  return NULL;
}

static const t_import HOST_IMPORTS[] = {{"wait", "i", "", guest_waits, NULL},
                                        {"block", "", "", blocks_guest, NULL},
                                        {NULL, NULL, NULL, NULL, NULL}};

static const char *const WAITER =
    "(module " HOST("wait", "(param i32)") HOST("block", "")
    "(global $n (mut i32) (i32.const 0))"
    "(func $spin (export \"spin\") (param i32) (loop (br 0)))"
    FUNC("count", "(param i32)", "(loop (global.set $n (i32.add (global.get $n) (i32.const 1))) (br 0))")
    FUNC("counted", "(param i32) (result i32)", "(global.get $n)")
    FUNC("seven", "(param i32) (result i32)", "(i32.const 7)")
    FUNC("wait_then_spin", "(param i32)", "(call $wait (local.get 0)) (call $spin (i32.const 0))")
    FUNC("block_then_spin", "(param i32)", "(call $block) (call $spin (i32.const 0))")
    FUNC("wait_then_return", "(param i32) (result i32)", "(call $wait (local.get 0)) (i32.const 31)") ")";

/* Whether all of them had begun in time, which is a matter of the machine. */
static bool all_wait(size_t workers, uint64_t patience) {
  BEGIN(workers, 50000, 0);
  t_guest guest;
  t_guest_new(&guest, world.runtime, WAITER, HOST_IMPORTS);
  never.gate = false;
  never.other = t_spawn_host(world.runtime, parks, NULL, NULL);
  never.sibling = t_spawn1(&guest, "spin", 0);
  never.empty = t_channel(1, 0);
  never.full = t_channel(1, 1);
  for (int sort = 0; sort < SORTS; sort++)
    never.things[sort] = t_taken(sort);
  t_pipe(never.nothing_to_read);
  t_pipe(never.no_room);
  t_fill(never.no_room[1]);
  int freed = finalized;

  bop_fiber_t *guests[WAYS], *hosts[WAYS];
  bool all = true;
  uint64_t deadline = bop_now() + patience;
  for (intptr_t way = 0; way < WAYS; way++) {
    entered[way] = returned[way] = 0;
    guests[way] = t_limited(&guest, "wait_then_spin", (int32_t)way, LIMITS(.deadline = deadline));
    if (way != JOINS_SIBLING) /* which is in the guests' store */
      hosts[way] = t_limited_host(world.runtime, waits_in_vain, (void *)way, LIMITS(.deadline = deadline));
  }
  for (int way = 0; way < WAYS; way++) {
    STOPPED(guests[way], BOP_OUTCOME_TIMED_OUT);
    bop_outcome_t outcome = BOP_OUTCOME_RETURNED;
    if (way != JOINS_SIBLING) {
      CHECK_EQ(bop_fiber_join(hosts[way], &outcome), BOP_OK);
      if (outcome == BOP_OUTCOME_RETURNED) /* a function of the host's has its result */
        CHECK_EQ(t_result(hosts[way]), BOP_CANCELLED);
      else
        STOPPED(hosts[way], BOP_OUTCOME_TIMED_OUT);
    }
    CHECK_EQ(returned[way], entered[way]);
    CHECK(entered[way] == 0 || returned_at[way] >= deadline);
    all &= entered[way] == (way == JOINS_SIBLING ? 1 : 2);
  }
  /* A call that waits to its end did so; Wasm that gets to its end has returned, but a check on the way may stop it. */
  begun = 0;
  deadline = bop_now() + 20 * MS;
  bop_fiber_t *blocked = t_limited(&guest, "block_then_spin", 0, LIMITS(.deadline = deadline));
  bop_fiber_t *returns = t_limited(&guest, "wait_then_return", SLEEPS, LIMITS(.deadline = bop_now() + MS));
  bop_outcome_t outcome;
  CHECK_EQ(bop_fiber_join(returns, &outcome), BOP_OK);
  CHECK(outcome == BOP_OUTCOME_RETURNED || outcome == BOP_OUTCOME_TIMED_OUT);
  bop_fiber_detach(returns);
  CHECK(bop_fiber_join_until(blocked, deadline + 10 * MS, NULL) == BOP_TIMEOUT || !begun);
  never.gate = true;
  STOPPED(blocked, BOP_OUTCOME_TIMED_OUT);
  EVENTUALLY(finalized == freed + entered[LEAVES_BLOCKING]); /* those that were left alone */

  /* Nobody is left in a queue, and nothing has gone to those who were. */
  CHECK(bop_channel_length(never.empty) == 0 && bop_channel_length(never.full) == 1);
  for (int sort = 0; sort < SORTS; sort++) {
    CHECK_EQ(t_give(never.things[sort]), BOP_OK);
    CHECK_EQ(t_take(never.things[sort], NEVER), BOP_OK);
    t_thing_delete(never.things[sort]);
  }
  t_cancel_all((bop_fiber_t *[]){never.sibling}, 1);
  CHECK_EQ(bop_fiber_cancel(never.other), BOP_OK);
  CHECK_EQ(t_result(never.other), BOP_CANCELLED);
  bop_channel_delete(never.empty);
  bop_channel_delete(never.full);
  for (int i = 0; i < 2; i++) {
    t_close(never.nothing_to_read[i]);
    t_close(never.no_room[i]);
  }
  CHECK_EQ(t_next(world.runtime), UINT64_MAX);
  t_guest_delete(&guest);
  t_world_end(0);
  return all;
}

static void in_every_call(size_t workers) {
  CASE("in every call that waits");
  for (uint64_t patience = 50 * MS; !all_wait(workers, patience); patience *= 4)
    CHECK(patience < 20 * SECOND);
}

/* ---- others ---- */

static int64_t locks_and_sleeps(void *mutex) {
  CHECK_EQ(bop_mutex_lock(mutex), BOP_OK);
  return bop_sleep(3600 * SECOND);
}

static void spinning(void) {
  CASE("spinning, beside others");
  BEGIN(2, 50000, 0);
  t_guest guests[2];
  bop_fiber_t *counts[2];
  for (int i = 0; i < 2; i++) {
    t_guest_new(&guests[i], world.runtime, WAITER, HOST_IMPORTS);
    counts[i] = t_spawn1(&guests[i], "count", 0);
  }
  OK(bop_store_trap_policy(guests[0].store, BOP_TRAP_POISON)); /* it is no trap, either */
  for (int i = 0; i < 10; i++) {
    uint64_t deadline = bop_now() + (uint64_t)i * MS;
    bop_fiber_t *spins = t_limited(&guests[0], "spin", 0, LIMITS(.deadline = deadline));
    STOPPED(spins, BOP_OUTCOME_TIMED_OUT);
    CHECK(bop_now() >= deadline);
    for (int j = 0; j < 2; j++) {
      int64_t before = t_result(t_spawn1(&guests[j], "counted", 0));
      EVENTUALLY(t_result(t_spawn1(&guests[j], "counted", 0)) != before);
    }
  }
  /* What it held is somebody else's. */
  bop_mutex_t *mutex = bop_mutex_new();
  bop_status_t status = BOP_OK;
  for (uint64_t patience = 5 * MS; status == BOP_OK; patience *= 4) { /* it may be too late before it begins */
    CHECK(patience < 20 * SECOND);
    bop_fiber_t *locks =
        t_limited_host(world.runtime, locks_and_sleeps, mutex, LIMITS(.deadline = bop_now() + patience));
    CHECK_EQ(bop_fiber_join(locks, NULL), BOP_OK);
    bop_fiber_detach(locks);
    status = bop_mutex_lock(mutex);
    CHECK_EQ(bop_mutex_unlock(mutex), BOP_OK);
  }
  CHECK_EQ(status, BOP_ABANDONED);
  bop_mutex_delete(mutex);
  t_cancel_all(counts, 2);
  /* Alone, when nobody ticks for anybody else. */
  STOPPED(t_limited(&guests[1], "spin", 0, LIMITS(.deadline = bop_now() + 5 * MS)), BOP_OUTCOME_TIMED_OUT);
  for (int i = 0; i < 2; i++)
    t_guest_delete(&guests[i]);
  t_world_end(0);
}

/* ---- ends in time, and other ends ---- */

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static void after_the_end(void) {
  CASE("after the end");
  BEGIN(2, 0, 0);
  t_guest guest;
  t_guest_new(&guest, world.runtime, WAITER, HOST_IMPORTS);
  uint64_t far = bop_now() + 3600 * SECOND, soon = bop_now() + 300 * MS;
  for (int i = 0; i < 2000; i++) {
    CHECK_EQ(t_result(t_limited(&guest, "seven", 0, LIMITS(.deadline = far))), 7);
    CHECK_EQ(t_result(t_limited_host(world.runtime, seven, NULL, LIMITS(.deadline = i % 2 ? far : UINT64_MAX))), 7);
  }
  EVENTUALLY(t_stats(world.runtime).live == 0);
  CHECK_EQ(t_next(world.runtime), UINT64_MAX); /* their timers went with them */
  bop_fiber_t *fiber = t_limited_host(world.runtime, seven, NULL, LIMITS(.deadline = soon));
  bop_outcome_t before, after;
  CHECK_EQ(bop_fiber_join(fiber, &before), BOP_OK);
  t_pause(soon > bop_now() ? soon - bop_now() + MS : 0);
  CHECK_EQ(bop_fiber_join(fiber, &after), BOP_OK);
  CHECK_EQ(after, before);
  bop_fiber_detach(fiber);
  t_guest_delete(&guest);
  t_world_end(0);
}

static void the_first_reason(void) {
  CASE("the first reason");
  BEGIN(1, 50000, 0);
  t_guest guest;
  t_guest_new(&guest, world.runtime, WAITER, HOST_IMPORTS);
  /* Too late, and cancelled before it has come to its end. */
  never.gate = false;
  begun = 0;
  uint64_t deadline = bop_now() + 20 * MS;
  bop_fiber_t *blocked = t_limited(&guest, "block_then_spin", 0, LIMITS(.deadline = deadline));
  bop_fiber_t *sleeps = t_limited(&guest, "wait_then_spin", SLEEPS, LIMITS(.deadline = deadline + MS));
  STOPPED(sleeps, BOP_OUTCOME_TIMED_OUT); /* timers come in order */
  CHECK(bop_fiber_cancel(blocked) == BOP_OK || !begun);
  never.gate = true;
  STOPPED(blocked, BOP_OUTCOME_TIMED_OUT);
  /* Of a deadline and a budget. */
  STOPPED(t_limited(&guest, "spin", 0, LIMITS(.deadline = bop_now() + 5 * MS, .budget = 600 * SECOND)),
          BOP_OUTCOME_TIMED_OUT);
  STOPPED(t_limited(&guest, "spin", 0, LIMITS(.deadline = bop_now() + 600 * SECOND, .budget = 5 * MS)),
          BOP_OUTCOME_OUT_OF_BUDGET);
  t_guest_delete(&guest);
  t_world_end(0);
}

int main(void) {
  t_start("deadline");
  bop_spawn_options_deadline(NULL, 5);
  in_every_call(1);
  in_every_call(3);
  spinning();
  after_the_end();
  the_first_reason();
  return 0;
}
