#include "limits.h"

#include <time.h>

bop_spawn_options_t *t_options(t_limits limits) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_deadline(options, limits.deadline);
  bop_spawn_options_cpu_budget(options, limits.budget);
  bop_spawn_options_wait(options, limits.wait);
  bop_spawn_options_memory(options, limits.memory, limits.table);
  return options;
}

bop_fiber_t *t_limited(const t_guest *guest, const char *name, int32_t arg, t_limits limits) {
  bop_spawn_options_t *options = t_options(limits);
  bop_fiber_t *fiber = NULL;
  wasmtime_val_t value = t_i32(arg);
  OK(bop_spawn(guest->store, t_export(guest, name), &value, 1, options, &fiber));
  CHECK(fiber != NULL);
  bop_spawn_options_delete(options);
  return fiber;
}

bop_fiber_t *t_limited_host(bop_runtime_t *runtime, bop_host_fn_t function, void *env, t_limits limits) {
  bop_spawn_options_t *options = t_options(limits);
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn_host(runtime, function, env, NULL, options, &fiber));
  CHECK(fiber != NULL);
  bop_spawn_options_delete(options);
  return fiber;
}

static const char *reason(bop_outcome_t outcome) {
  switch (outcome) {
  case BOP_OUTCOME_TIMED_OUT: return "deadline";
  case BOP_OUTCOME_OUT_OF_BUDGET: return "budget";
  default: return "cancel";
  }
}

void t_stopped(const char *file, int line, const char *what, bop_fiber_t *own, bop_outcome_t outcome) {
  t_joins(file, line, what, own, outcome);
  wasm_trap_t *trap = bop_fiber_take_trap(own);
  if (trap != NULL)
    t_check_has(file, line, what, t_trap_text(trap), reason(outcome));
  wasmtime_val_t none;
  t_check_fails(file, line, what, bop_fiber_results(own, &none, 1), bop_outcome_name(outcome));
  bop_fiber_detach(own);
}

uint64_t t_next(bop_runtime_t *runtime) {
  uint64_t next = 77;
  OK(bop_run_for(runtime, 0, &next));
  CHECK(next != 77);
  return next;
}

uint64_t t_process_cpu(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}
