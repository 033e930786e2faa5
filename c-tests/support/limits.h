/* Spawns with limits: of time, of room, of memory. */
#ifndef BOP_TEST_LIMITS_H
#define BOP_TEST_LIMITS_H

#include "support.h"

/* What a guest imports; all of its arguments are there, used or not. */
#define HOST_FUNCTION(name)                                                                                \
  static wasm_trap_t *name(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs, \
                           wasmtime_val_t *results, size_t nresults)
#define UNUSED() ((void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults)

/* As bop_spawn_options_* take them; 0: not set. */
typedef struct t_limits {
  uint64_t deadline, budget, wait, memory, table;
} t_limits;
#define LIMITS(...) ((t_limits){__VA_ARGS__})

bop_spawn_options_t *t_options(t_limits limits);
/* An export that takes one i32; a function of the host. */
bop_fiber_t *t_limited(const t_guest *guest, const char *name, int32_t arg, t_limits limits);
bop_fiber_t *t_limited_host(bop_runtime_t *runtime, bop_host_fn_t function, void *env, t_limits limits);

/* Joins: it was stopped for this reason, and the trap, if there is one, says so. The handle is dropped. */
#define STOPPED(fiber, outcome) t_stopped(__FILE__, __LINE__, #fiber, fiber, outcome)
void t_stopped(const char *file, int line, const char *what, bop_fiber_t *own, bop_outcome_t outcome);

/* What bop_run_for says of the next thing to do, on a runtime that has nothing to do now. UINT64_MAX: no timer is left,
 * neither that of a fiber nor that of a store. */
uint64_t t_next(bop_runtime_t *runtime);

/* How long the process has run on processors. */
uint64_t t_process_cpu(void);

#endif
