/* Every function of the header, called without anything: no crash, no hang, and each says so. */
#include "support/support.h"

static int finalized;
static void finalizes(void *env) {
  CHECK(env == &finalized);
  finalized++;
}

static int64_t never(void *env) {
  (void)env;
  t_fail(__FILE__, __LINE__, "must not run");
}

static void config(void) {
  CASE("config");
  CHECK_HAS(bop_version(), "0.");
  CHECK(bop_status_name(BOP_OK) != NULL);
  CHECK(bop_outcome_name(BOP_OUTCOME_RETURNED) != NULL);
  CHECK(bop_state_name(BOP_STATE_READY) != NULL);
  bop_config_t *config = bop_config_new();
  CHECK(config != NULL);
  bop_config_delete(config);
  bop_config_delete(NULL);
  bop_config_wasm(NULL, NULL);
  bop_config_workers(NULL, 1);
  bop_config_quantum(NULL, 1);
  bop_config_stack_size(NULL, 1);
  bop_config_host_stack(NULL, 1);
  bop_config_max_fibers(NULL, 1);
  bop_config_shutdown_timeout(NULL, 1);
  bop_config_guard(NULL, BOP_GUARD_AUTO);
  bop_config_timing(NULL, true);
}

static void runtime(void) {
  CASE("runtime");
  FAILS(bop_runtime_new(NULL, NULL), "NULL");
  CHECK(bop_runtime_engine(NULL) == NULL);
  FAILS(bop_runtime_start(NULL), "NULL");
  FAILS(bop_run(NULL), "NULL");
  FAILS(bop_runtime_shutdown(NULL, 1), "NULL");
  OK(bop_runtime_delete(NULL)); /* as free() does */
  bop_stats_t stats = {.size = sizeof stats, .spawned = 99};
  bop_runtime_stats(NULL, &stats);
  CHECK_EQ(stats.spawned, 99);
  bop_runtime_stats(NULL, NULL);
  bop_worker_stats_t worker = {.size = sizeof worker};
  CHECK(!bop_runtime_worker_stats(NULL, 0, &worker));
  CHECK(!bop_runtime_worker_stats(NULL, 0, NULL));

  bop_runtime_t *real = t_runtime(1, 0);
  bop_runtime_stats(real, NULL);
  CHECK(!bop_runtime_worker_stats(real, 0, NULL));
  wasmtime_store_t *store = wasmtime_store_new(bop_runtime_engine(real), NULL, NULL);
  FAILS(bop_store_new(real, store, NULL), "NULL"); /* taken */
  OK(bop_runtime_delete(real));
}

static void stores(void) {
  CASE("stores");
  wasm_engine_t *engine = wasm_engine_new();
  bop_store_t *store = NULL;
  FAILS(bop_store_new(NULL, NULL, &store), "NULL");
  FAILS(bop_store_new(NULL, wasmtime_store_new(engine, NULL, NULL), &store), "NULL"); /* taken */
  CHECK(store == NULL);
  bop_store_delete(NULL);
  wasmtime_context_t *context = NULL;
  FAILS(bop_store_enter(NULL, &context), "NULL");
  FAILS(bop_store_enter(NULL, NULL), "NULL");
  FAILS(bop_store_exit(NULL), "NULL");
  FAILS(bop_store_trap_policy(NULL, BOP_TRAP_ISOLATE), "NULL");
  FAILS(bop_store_weight(NULL, 1), "NULL");
  FAILS(bop_store_max_fibers(NULL, 1), "NULL");
  CHECK_EQ(bop_store_cancel(NULL), BOP_INVALID);
  FAILS(bop_store_share(NULL, NULL, NULL), "NULL");
  wasm_engine_delete(engine);
}

static void sharing(void) {
  CASE("sharing");
  bop_share_options_t *options = bop_share_options_new();
  CHECK(options != NULL);
  bop_share_options_allocator(options, NULL, 0, NULL, 0);
  bop_share_options_exports(options, NULL, 0, NULL, 0);
  bop_share_options_delete(options);
  bop_share_options_delete(NULL);
  bop_share_options_stack_size(NULL, 1);
  bop_share_options_guard_size(NULL, 1);
  bop_share_options_reserve(NULL, 1);
  bop_share_options_allocator(NULL, "a", 1, "b", 1);
  bop_share_options_exports(NULL, "a", 1, "b", 1);
  bop_prepare_options_t *prepare = bop_prepare_options_new();
  CHECK(prepare != NULL);
  bop_prepare_options_stack_pointer_name(prepare, NULL, 0);
  bop_prepare_options_delete(prepare);
  bop_prepare_options_delete(NULL);
  bop_prepare_options_stack_pointer_name(NULL, "a", 1);
  bop_prepare_options_stack_pointer_index(NULL, 1);
  FAILS(bop_module_prepare(NULL, 0, NULL, NULL, NULL), "NULL");
  wasm_byte_vec_t out = {7, NULL};
  FAILS(bop_module_prepare(NULL, 0, NULL, &out, NULL), "not a module");
  CHECK_EQ(out.size, 7); /* left alone */
  FAILS(bop_linker_define(NULL), "NULL");
}

static void channels(void) {
  CASE("channels");
  FAILS(bop_channel_new(1, NULL), "NULL");
  uint64_t value = 77;
  CHECK_EQ(bop_channel_send(NULL, 1), BOP_INVALID);
  CHECK_EQ(bop_channel_send_until(NULL, 1, 0), BOP_INVALID);
  CHECK_EQ(bop_channel_receive(NULL, &value), BOP_INVALID);
  CHECK_EQ(bop_channel_receive_until(NULL, &value, 0), BOP_INVALID);
  CHECK_EQ(value, 77);
  CHECK_EQ(bop_channel_close(NULL), BOP_INVALID);
  CHECK_EQ(bop_channel_length(NULL), 0);
  CHECK(bop_channel_clone(NULL) == NULL);
  bop_channel_delete(NULL);
}

static void spawning(void) {
  CASE("spawning");
  bop_spawn_options_t *options = bop_spawn_options_new();
  CHECK(options != NULL);
  bop_spawn_options_name(options, NULL, 0);
  bop_spawn_options_delete(options);
  bop_spawn_options_delete(NULL);
  bop_spawn_options_name(NULL, "x", 1);
  bop_spawn_options_stack_size(NULL, 1);
  bop_spawn_options_shadow_stack(NULL, 1);
  bop_fiber_t *fiber = NULL;
  FAILS(bop_spawn(NULL, NULL, NULL, 0, NULL, &fiber), "NULL");
  FAILS(bop_spawn_host(NULL, never, &finalized, finalizes, NULL, &fiber), "NULL");
  CHECK_EQ(finalized, 1);
  FAILS(bop_spawn_host(NULL, NULL, NULL, NULL, NULL, NULL), "NULL");
  FAILS(bop_spawn_instance(NULL, NULL, NULL, 0, NULL, 0, NULL, &finalized, finalizes, NULL, &fiber),
        "NULL");
  CHECK_EQ(finalized, 2);
  CHECK(fiber == NULL);
}

static void fibers(void) {
  CASE("fibers");
  bop_outcome_t outcome = (bop_outcome_t)77;
  CHECK_EQ(bop_fiber_join(NULL, &outcome), BOP_INVALID);
  CHECK_EQ(bop_fiber_join_until(NULL, 0, &outcome), BOP_INVALID);
  CHECK_EQ(outcome, 77);
  wasmtime_val_t value;
  FAILS(bop_fiber_results(NULL, &value, 1), "NULL");
  CHECK_EQ(bop_fiber_exit_code(NULL), 0);
  CHECK(bop_fiber_take_trap(NULL) == NULL);
  CHECK_EQ(bop_fiber_cancel(NULL), BOP_INVALID);
  CHECK_EQ(bop_unpark(NULL), BOP_INVALID);
  CHECK_EQ(bop_fiber_state(NULL), BOP_STATE_FINISHED); /* nothing will ever come of it */
  CHECK_EQ(bop_fiber_id(NULL), 0);
  char name[4] = "abc";
  CHECK_EQ(bop_fiber_name(NULL, name, sizeof name), 0);
  CHECK_EQ(bop_fiber_name(NULL, NULL, 0), 0);
  CHECK(bop_fiber_clone(NULL) == NULL);
  bop_fiber_detach(NULL);
  bop_times_t times = {.size = sizeof times};
  CHECK(!bop_fiber_times(NULL, &times));
  CHECK(!bop_fiber_times(NULL, NULL));
}

/* On a thread that is no fiber. */
static void inside(void) {
  CASE("inside");
  CHECK_EQ(bop_yield(), BOP_OK);
  CHECK_EQ(bop_sleep(1), BOP_OK);
  CHECK_EQ(bop_sleep_until(0), BOP_OK);
  CHECK_EQ(bop_park(), BOP_NOT_FIBER);
  CHECK_EQ(bop_park_until(0), BOP_NOT_FIBER);
  CHECK(bop_current() == NULL);
  CHECK(!bop_cancelled());
  uint64_t before = t_now(), now = bop_now();
  CHECK(before <= now && now <= t_now());
}

static void hooks(void) {
  CASE("hooks");
  OK(wasmtime_store_tls_init());
  CHECK(wasmtime_tls_get() == NULL);
  wasmtime_tls_set(NULL);
  CHECK(wasmtime_tls_get() == NULL);
  bop_activation_t activation;
  FAILS(bop_activation_init(NULL, NULL, 0, 0), "NULL");
  FAILS(bop_activation_init(&activation, NULL, 0, 0), "NULL");
  FAILS(bop_activation_restore(NULL, NULL), "NULL");
  FAILS(bop_activation_save(NULL, NULL), "NULL");
}

int main(void) {
  t_start("symbols");
  config();
  runtime();
  stores();
  sharing();
  channels();
  spawning();
  fibers();
  inside();
  hooks();
  return 0;
}
