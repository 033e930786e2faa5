/* C that was not written for this, compiled by a real toolchain: LZ4, yyjson and xxHash (see
 * guests/c_libs.c) run in one instance from 1,000 fibers, which are preempted every 50 us. Each result
 * must be that of the same source compiled natively. At -O0 nearly every variable is on the shadow
 * stack; at -O2 the hash tables, states and buffers are.
 *
 * Then the same again with bop_store_share left out, so that all fibers use one shadow stack: now there
 * must be wrong results, or traps. A guest on a broken stack may do anything within its memory, also
 * never end; what is left after some seconds is cancelled, and proves nothing.
 *
 * BOP_FIBERS is the number of fibers, 1,000 unless told. With --no-share as the last argument the first
 * part leaves it out too, and fails: to see how that looks. */
#include "guests/c_libs.h"
#include "real.h"

#include <inttypes.h>

enum { FIBERS = 1000, ROUNDS = 16, PREEMPTIONS = 3 /* for each fiber, on average, at least */ };

typedef struct library {
  const char *name;
  bop_stack_pointer_t found; /* how it must be */
  wasmtime_module_t *module;
} library;

static library libraries[] = {
    {.name = "c-libs-O2.wasm", .found = BOP_STACK_POINTER_LAYOUT}, /* stripped */
    {.name = "c-libs-O0.wasm", .found = BOP_STACK_POINTER_NAME},
};
enum { LIBRARIES = sizeof libraries / sizeof libraries[0] };

/* How long the fibers may take, all together. */
static const uint64_t PATIENCE = 120 * SECOND, PATIENCE_UNSHARED = 3 * SECOND;

static const char *way(bop_stack_pointer_t found) {
  switch (found) {
  case BOP_STACK_POINTER_NAME: return "the name section";
  case BOP_STACK_POINTER_LAYOUT: return "the layout";
  default: return "another way";
  }
}

static int fibers = FIBERS;
static uint64_t *native; /* what job number i returns */

static void run_natively(void) {
  CASE("native");
  const char *wanted = getenv("BOP_FIBERS");
  if (wanted != NULL)
    fibers = atoi(wanted);
  if (fibers < 2 || (uint32_t)fibers > c_libs_arenas())
    t_fail(__FILE__, __LINE__, "BOP_FIBERS is not from 2 to %" PRIu32, c_libs_arenas());
  native = calloc((size_t)fibers, sizeof *native);
  CHECK(native != NULL);
  for (int i = 0; i < fibers; i++) {
    native[i] = c_libs_job((uint32_t)i, ROUNDS);
    if (native[i] < C_LIBS_LINES)
      t_fail(__FILE__, __LINE__, "natively job %d failed in line %d", i, (int)native[i]);
  }
  CHECK(native[0] != native[1]);
}

static void load(library *library, wasm_engine_t *engine) {
  CASE(library->name);
  char path[512];
  CHECK(snprintf(path, sizeof path, "%s/%s", real_argument(), library->name) < (int)sizeof path);
  real_bytes file = real_file(path);
  wasm_byte_vec_t prepared;
  bop_prepared_t report = {.size = sizeof report};
  OK(bop_module_prepare(file.data, file.size, NULL, &prepared, &report));
  printf("%s: the stack pointer is global %" PRIu32 ", found by %s\n", library->name, report.index,
         way(report.stack_pointer));
  CHECK_EQ(report.stack_pointer, library->found);
  OK(wasmtime_module_new(engine, (const uint8_t *)prepared.data, prepared.size, &library->module));
  wasm_byte_vec_delete(&prepared);
  real_free(&file);
}

/* One store with one instance, initialised, and shared or not. */
static bop_store_t *open_store(const library *library, bop_runtime_t *runtime, bool share,
                               wasmtime_func_t *job) {
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  OK(bop_linker_define_wasi(linker)); /* at -O0, for the seed of the stack protector */
  OK(wasmtime_context_set_wasi(context, wasi_config_new()));
  OK(wasmtime_linker_instantiate(linker, context, library->module, &instance, &trap));
  CHECK(trap == NULL);
  wasmtime_linker_delete(linker);
  wasmtime_func_t initialize = t_func(context, &instance, "_initialize");
  wasmtime_func_t arenas = t_func(context, &instance, "arenas");
  *job = t_func(context, &instance, "job");

  bop_store_t *handle;
  bop_fiber_t *fiber;
  OK(bop_store_new(runtime, store, &handle));
  OK(bop_spawn(handle, &initialize, NULL, 0, NULL, &fiber));
  ENDS(fiber, BOP_OUTCOME_RETURNED);
  OK(bop_spawn(handle, &arenas, NULL, 0, NULL, &fiber));
  CHECK_EQ(t_result(fiber), c_libs_arenas());
  if (share)
    OK(bop_store_share(handle, &instance, NULL));
  return handle;
}

/* Of the fibers that did not return what they should: how many ended in which way. */
typedef struct wrong {
  int result, trapped, endless;
  char first[256];
} wrong;

/* Takes the fiber. */
static void judge(int id, bop_fiber_t *fiber, uint64_t deadline, wrong *wrong) {
  bop_outcome_t outcome;
  wasmtime_val_t value = t_i64(0);
  char what[160] = "";
  if (bop_fiber_join_until(fiber, deadline, &outcome) == BOP_TIMEOUT) {
    wrong->endless++;
    snprintf(what, sizeof what, "does not end");
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
    CHECK_EQ(bop_fiber_join(fiber, NULL), BOP_OK);
  } else if (outcome != BOP_OUTCOME_RETURNED) {
    wrong->trapped++;
    wasm_trap_t *trap = bop_fiber_take_trap(fiber);
    snprintf(what, sizeof what, "%s, code %d, in %.100s", bop_outcome_name(outcome),
             t_trap_code(trap), trap == NULL ? "" : t_trap_trace(trap));
    if (trap != NULL)
      wasm_trap_delete(trap);
  } else {
    OK(bop_fiber_results(fiber, &value, 1));
    CHECK_EQ(value.kind, WASMTIME_I64);
    if ((uint64_t)value.of.i64 != native[id]) {
      wrong->result++;
      snprintf(what, sizeof what, "%016" PRIx64 ", natively %016" PRIx64, (uint64_t)value.of.i64,
               native[id]);
    }
  }
  if (what[0] != '\0' && wrong->first[0] == '\0')
    snprintf(wrong->first, sizeof wrong->first, "job %d: %s", id, what);
  bop_fiber_detach(fiber);
}

/* All jobs at once. */
static wrong run(const library *library, bop_runtime_t *runtime, bool share) {
  wasmtime_func_t job;
  wrong wrong = {0};
  bop_store_t *store = open_store(library, runtime, share, &job);
  bop_fiber_t **fiber = calloc((size_t)fibers, sizeof *fiber);
  CHECK(fiber != NULL);
  uint64_t before = t_stats(runtime).preemptions;
  uint64_t deadline = t_now() + (share ? PATIENCE : PATIENCE_UNSHARED);
  for (int i = 0; i < fibers; i++) {
    wasmtime_val_t args[2] = {t_i32(i), t_i32(ROUNDS)};
    OK(bop_spawn(store, &job, args, 2, NULL, &fiber[i]));
  }
  for (int i = 0; i < fibers; i++)
    judge(i, fiber[i], deadline, &wrong);
  uint64_t preemptions = t_stats(runtime).preemptions - before;
  int bad = wrong.result + wrong.trapped + wrong.endless;
  printf("%s, %s: %d of %d right, %" PRIu64 " preemptions", library->name,
         share ? "shared" : "not shared", fibers - bad, fibers, preemptions);
  if (bad != 0)
    printf(";\n  %d other results, %d traps, %d do not end; first: %s", wrong.result, wrong.trapped,
           wrong.endless, wrong.first);
  printf("\n");
  if (share && preemptions < (uint64_t)(PREEMPTIONS * fibers))
    t_fail(__FILE__, __LINE__, "%d fibers were preempted %" PRIu64 " times only", fibers,
           preemptions);
  bop_store_delete(store);
  free(fiber);
  return wrong;
}

int main(int argc, char **argv) {
  real_start("real c_libs", argc, argv);
  bool share = argc < 5 || strcmp(argv[4], "--no-share") != 0;
  run_natively();
  bop_runtime_t *runtime = real_runtime();
  for (int i = 0; i < LIBRARIES; i++)
    load(&libraries[i], bop_runtime_engine(runtime));
  for (int i = 0; i < LIBRARIES; i++) {
    CASE(libraries[i].name);
    wrong wrong = run(&libraries[i], runtime, share);
    CHECK_EQ(wrong.result + wrong.trapped + wrong.endless, 0);
  }
  CASE("control");
  for (int i = 0; i < LIBRARIES; i++) {
    wrong wrong = run(&libraries[i], runtime, false);
    CHECK(wrong.result + wrong.trapped != 0);
  }
  OK(bop_runtime_delete(runtime));
  for (int i = 0; i < LIBRARIES; i++)
    wasmtime_module_delete(libraries[i].module);
  free(native);
  return 0;
}
