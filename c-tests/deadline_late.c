/* A fiber whose deadline has passed before its first turn never begins, however late that turn comes. */
#include "support/guests.h"
#include "support/limits.h"

static atomic_int finalized;
static void finalizes(void *env) {
  (void)env;
  finalized++;
}

static int64_t begins(void *env) {
  (void)env;
  t_fail(__FILE__, __LINE__, "a fiber has begun behind its deadline");
}

static wasmtime_error_t *sets_up(void *env, wasmtime_context_t *context) {
  (void)context;
  begins(env);
  return NULL;
}

HOST_FUNCTION(guest_begins) {
  UNUSED();
  begins(env);
  return NULL;
}

static const t_import CALLS[] = {{"begins", "", "", guest_begins, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static const char *const LATE = "(module " HOST("begins", "") FUNC("begun", "(param i32)", "(call $begins)") ")";

/* In three ways; the handles go to `own`. */
static void spawn_late(const t_guest *guest, const wasmtime_instance_pre_t *pre, uint64_t deadline,
                       bop_fiber_t *own[3]) {
  bop_spawn_options_t *options = t_options(LIMITS(.deadline = deadline));
  wasmtime_val_t zero = t_i32(0);
  OK(bop_spawn_host(world.runtime, begins, NULL, finalizes, options, &own[0]));
  own[1] = t_limited(guest, "begun", 0, LIMITS(.deadline = deadline));
  OK(bop_spawn_instance(world.runtime, pre, "begun", 5, &zero, 1, sets_up, NULL, finalizes, options, &own[2]));
  bop_spawn_options_delete(options);
}

static atomic_bool held, holding;
static int64_t holds_the_worker(void *env) {
  (void)env;
  holding = true;
  while (held) {
  }
  return 1;
}

static bop_fiber_t *hold(void) {
  held = true;
  holding = false;
  bop_fiber_t *fiber = t_spawn_host(world.runtime, holds_the_worker, NULL, NULL);
  EVENTUALLY(holding);
  return fiber;
}

static void before_it_begins(void) {
  CASE("before it begins");
  BEGIN(1, 0, 0);
  t_guest guest;
  t_guest_new(&guest, world.runtime, LATE, CALLS);
  wasmtime_instance_pre_t *pre = t_pre(bop_runtime_engine(world.runtime), LATE, CALLS);
  int freed = finalized;
  bop_fiber_t *late[3];
  for (int i = 0; i < 5; i++) { /* queued behind one that runs on */
    bop_fiber_t *holder = hold();
    uint64_t deadline = bop_now() + MS;
    spawn_late(&guest, pre, deadline, late);
    t_pause(2 * MS);
    held = false;
    CHECK_EQ(t_result(holder), 1);
    for (int j = 0; j < 3; j++)
      STOPPED(late[j], BOP_OUTCOME_TIMED_OUT);
  }
  for (int i = 0; i < 300; i++) { /* late from the beginning, while the worker has nothing else to do */
    spawn_late(&guest, pre, i % 2 ? 1 : bop_now(), late);
    for (int j = 0; j < 3; j++)
      STOPPED(late[j], BOP_OUTCOME_TIMED_OUT);
  }
  EVENTUALLY(finalized == freed + 2 * 305);
  wasmtime_instance_pre_delete(pre);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* Nobody has run anything until it is too late. */
static void before_the_runtime_starts(void) {
  CASE("before the runtime starts");
  for (int i = 0; i < 30; i++) {
    bop_runtime_t *runtime = t_runtime(1, 0);
    bop_fiber_t *late = t_limited_host(runtime, begins, NULL, LIMITS(.deadline = bop_now() + MS / 2));
    t_pause(MS);
    switch (i % 3) {
    case 0: OK(bop_runtime_start(runtime)); break;
    case 1: OK(bop_run(runtime)); break;
    default: EVENTUALLY((t_next(runtime), bop_fiber_state(late) == BOP_STATE_FINISHED));
    }
    STOPPED(late, BOP_OUTCOME_TIMED_OUT);
    OK(bop_runtime_delete(runtime));
  }
}

/* Who was cancelled in time has ended for that, though nobody looked before it was too late. */
static void cancelled_in_time(void) {
  CASE("cancelled in time");
  BEGIN(1, 50000, 0);
  t_guest guest;
  t_guest_new(&guest, world.runtime, LATE, CALLS);
  bop_fiber_t *holder = hold(), *late[2];
  uint64_t deadline = bop_now() + 50 * MS;
  late[0] = t_limited_host(world.runtime, begins, NULL, LIMITS(.deadline = deadline));
  late[1] = t_limited(&guest, "begun", 0, LIMITS(.deadline = deadline));
  for (int i = 0; i < 2; i++)
    CHECK_EQ(bop_fiber_cancel(late[i]), BOP_OK);
  bool in_time = bop_now() < deadline;
  t_pause(55 * MS);
  held = false;
  CHECK_EQ(t_result(holder), 1);
  for (int i = 0; i < 2; i++)
    in_time ? STOPPED(late[i], BOP_OUTCOME_CANCELLED) : bop_fiber_detach(late[i]);
  t_guest_delete(&guest);
  t_world_end(0);
}

int main(void) {
  t_start("deadline_late");
  before_it_begins();
  before_the_runtime_starts();
  cancelled_in_time();
  return 0;
}
