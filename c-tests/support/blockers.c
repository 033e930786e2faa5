#include "blockers.h"

enum { UNTOLD = 77 };

atomic_int t_inside, t_most_inside;

int64_t t_blocks(void *data) {
  t_blocker *me = data;
  int now = ++t_inside, most = t_most_inside;
  while (now > most && !atomic_compare_exchange_weak(&t_most_inside, &most, now)) {
  }
  me->begun++;
  CHECK_EQ(me->freed, 0);
  while (!me->may_return)
    t_pause(MS / 5);
  CHECK_EQ(me->freed, 0);
  t_inside--;
  me->over++;
  return T_BLOCKED;
}

void t_frees(void *data) {
  t_blocker *me = data;
  CHECK_EQ(me->begun, me->over);
  me->freed++;
}

static int64_t calls(void *data) {
  t_blocker *me = data;
  bop_status_t status = me->until ? bop_blocking_until(t_blocks, me, t_frees, &me->result, me->actor.deadline)
                                  : bop_blocking(t_blocks, me, &me->result);
  if (status == BOP_OK) { /* all is over, on the caller's side too */
    CHECK_EQ(me->over, 1);
    CHECK_EQ(me->freed, me->until);
  }
  return me->actor.status = (int)status;
}

void t_blocker_begins(t_blocker *it, int kind, uint64_t deadline) {
  *it = (t_blocker){.actor = {.deadline = deadline, .status = -1}, .until = deadline != NEVER, .result = UNTOLD};
  t_actor_begin(&it->actor, kind, calls);
}

bool t_blocker_waits(const t_blocker *it) { return t_actor_waits(&it->actor); }

void t_let_go(t_blocker *it) { it->may_return = true; }

void t_blocker_ends(const char *file, int line, t_blocker *it, bop_status_t status) {
  bop_status_t got = (bop_status_t)t_actor_end(&it->actor);
  if (got != status)
    t_fail(file, line, "the call ended \"%s\", not \"%s\"", bop_status_name(got), bop_status_name(status));
  t_check_eq(file, line, "its result", it->result, status == BOP_OK ? T_BLOCKED : UNTOLD);
}

int t_helpers(void) { return t_threads("bop-helper"); }

void t_helpers_begin(size_t helpers, uint64_t quantum_ns, uint64_t shutdown_timeout) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_helpers(config, helpers);
  bop_config_quantum(config, quantum_ns);
  bop_config_shutdown_timeout(config, shutdown_timeout);
  OK(bop_runtime_new(config, &t_runtimes[0]));
  OK(bop_runtime_start(t_runtimes[0]));
}

void t_helpers_end(void) {
  EVENTUALLY(t_stats(t_runtimes[0]).live == 0);
  OK(bop_runtime_delete(t_runtimes[0]));
}
