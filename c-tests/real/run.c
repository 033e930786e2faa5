/* Running a guest, alone or on a fiber. */
#include "real.h"

static ptrdiff_t writes(void *bytes, const unsigned char *data, size_t size) {
  real_append(bytes, data, size);
  return (ptrdiff_t)size;
}

wasmtime_error_t *real_wasi(real_run *run, wasmtime_context_t *context) {
  wasi_config_t *wasi = wasi_config_new();
  size_t argc = 0;
  while (argc < sizeof run->argv / sizeof run->argv[0] && run->argv[argc] != NULL)
    argc++;
  CHECK(wasi_config_set_argv(wasi, argc, run->argv));
  wasm_byte_vec_t in;
  wasm_byte_vec_new(&in, run->in.size, (const char *)run->in.data);
  wasi_config_set_stdin_bytes(wasi, &in);
  wasi_config_set_stdout_custom(wasi, writes, &run->out, NULL);
  wasi_config_set_stderr_custom(wasi, writes, &run->err, NULL);
  if (run->folder != NULL)
    CHECK(wasi_config_preopen_dir(wasi, run->folder, "/data", false));
  return wasmtime_context_set_wasi(context, wasi);
}

static wasmtime_error_t *set_up(void *run, wasmtime_context_t *context) {
  return real_wasi(run, context);
}

void real_ended(real_run *run, wasmtime_error_t *error, wasm_trap_t *trap) {
  int code = 0;
  run->reason = "";
  if (trap != NULL) {
    run->outcome = BOP_OUTCOME_TRAPPED;
    run->reason = t_trap_text(trap);
  } else if (error == NULL) {
    run->outcome = BOP_OUTCOME_RETURNED;
  } else if (wasmtime_error_exit_status(error, &code)) {
    run->outcome = BOP_OUTCOME_EXITED;
    run->code = code;
    wasmtime_error_delete(error);
  } else {
    run->outcome = BOP_OUTCOME_FAILED;
    run->reason = t_error_text(error);
  }
}

void real_alone(const real_guest *guest, real_run *run) {
  wasmtime_store_t *store = wasmtime_store_new(guest->engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  OK(real_wasi(run, context));
  wasmtime_error_t *error =
      wasmtime_instance_pre_instantiate(guest->pre, context, &instance, &trap);
  if (error == NULL && trap == NULL) {
    wasmtime_func_t start = t_func(context, &instance, "_start");
    error = wasmtime_func_call(context, &start, NULL, 0, NULL, 0, &trap);
  }
  real_ended(run, error, trap);
  wasmtime_store_delete(store);
}

void real_spawn(bop_runtime_t *runtime, const real_guest *guest, real_run *run) {
  CHECK(run->fiber == NULL);
  OK(bop_spawn_instance(runtime, guest->pre, "_start", 6, NULL, 0, set_up, run, NULL, NULL,
                        &run->fiber));
}

void real_join(real_run *run) {
  CHECK_EQ(bop_fiber_join(run->fiber, &run->outcome), BOP_OK);
  if (run->outcome == BOP_OUTCOME_EXITED)
    run->code = bop_fiber_exit_code(run->fiber);
  run->reason = t_trap_text(bop_fiber_take_trap(run->fiber));
  if (run->reason == NULL)
    run->reason = "";
  bop_fiber_detach(run->fiber);
  run->fiber = NULL;
}

void real_fiber(bop_runtime_t *runtime, const real_guest *guest, real_run *run) {
  real_spawn(runtime, guest, run);
  real_join(run);
}

void real_delete(real_run *run) {
  real_free(&run->in);
  real_free(&run->out);
  real_free(&run->err);
}

bool real_succeeded(const real_run *run) {
  return run->outcome == BOP_OUTCOME_RETURNED ||
         (run->outcome == BOP_OUTCOME_EXITED && run->code == 0);
}

bop_runtime_t *real_runtime(void) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_quantum(config, 50 * 1000);
  bop_config_stack_size(config, 2u << 20);
  bop_config_host_stack(config, 256u << 10);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  return runtime;
}

void real_check_preempted(const bop_runtime_t *runtime, uint64_t least) {
  bop_stats_t stats = t_stats(runtime);
  if (stats.preemptions < least)
    t_fail(__FILE__, __LINE__, "only %llu preemptions, not %llu",
           (unsigned long long)stats.preemptions, (unsigned long long)least);
}
