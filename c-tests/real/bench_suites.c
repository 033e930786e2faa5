/* Benchmark suites: 29 kernels of polybench and the small jobs of mibench, all at once as fibers,
 * against each of them alone on plain Wasmtime in this same process.
 *
 * Polybench prints nothing. What tells a run from an idle one is the linear memory that it leaves
 * behind: its digest must be that of the run alone, and not that of an instance that never ran. */
#include "real.h"

#include <inttypes.h>

typedef struct job {
  const char *suite, *name;
  const char *argv[3];  /* behind the program's name */
  const char *in;       /* an input file, for stdin */
  const char *says;     /* what stdout contains, as the suite itself has it */
  bool timed;           /* clock readings are in its memory and output: neither is compared */
} job;

#define KERNEL(called) {.suite = "polybench", .name = called}
#define SMALL_JOB(called) .suite = "mibench", .name = called

static const job JOBS[] = {
    KERNEL("2mm"), KERNEL("3mm"), KERNEL("adi"),
    KERNEL("atax"), KERNEL("bicg"), KERNEL("cholesky"),
    KERNEL("correlation"), KERNEL("covariance"), KERNEL("doitgen"),
    KERNEL("durbin"), KERNEL("fdtd-2d"), KERNEL("floyd-warshall"),
    KERNEL("gemm"), KERNEL("gemver"), KERNEL("gesummv"),
    KERNEL("gramschmidt"), KERNEL("heat-3d"), KERNEL("jacobi-1d"),
    KERNEL("jacobi-2d"), KERNEL("lu"), KERNEL("ludcmp"),
    KERNEL("mvt"), KERNEL("nussinov"), KERNEL("seidel-2d"),
    KERNEL("symm"), KERNEL("syr2k"), KERNEL("syrk"),
    KERNEL("trisolv"), KERNEL("trmm"),
    {SMALL_JOB("basicmath_small"), .says = "6.283185307180 radians = 360 degrees"},
    {SMALL_JOB("bitcnts"), .argv = {"7500"}, .says = "Bits: 61053", .timed = true},
    {SMALL_JOB("crc"), .argv = {"/data/small.pcm"}, .says = "6DA5B639 1368864"},
    {SMALL_JOB("dijkstra_small"), .argv = {"/data/input.dat"},
     .says = "Shortest path is 2 in cost. Path is:  19 69"},
    {SMALL_JOB("dijkstra_large"), .argv = {"/data/input.dat"},
     .says = "Shortest path is 3 in cost. Path is:  99 3 21 70 55"},
    {SMALL_JOB("fft"), .argv = {"4", "4096"}, .says = "3023.767334 \t3642.202393"},
    {SMALL_JOB("rawcaudio"), .in = "small.pcm"},
    {SMALL_JOB("rawdaudio"), .in = "small.adpcm"},
    {SMALL_JOB("search_small"), .says = "\"principalities\" is not in \"principles.\""},
    {SMALL_JOB("search_large"),
     .says = "\"more\" is in \"and recycling it for more than its\""},
};
enum { COUNT = sizeof JOBS / sizeof JOBS[0], AT_ONCE = 2 };

/* One instance, to be run or not. */
typedef struct instance {
  real_run run;
  wasmtime_store_t *store;
  bop_store_t *handle;
  wasmtime_func_t start;
  wasmtime_memory_t memory;
  uint64_t digest;
} instance;

static instance idle[COUNT], alone[COUNT], fibers[COUNT][AT_ONCE];

static void prepare(real_run *run, const job *job) {
  static const char *assets;
  if (assets == NULL)
    assets = strdup(real_input("wasure/mibench/assets"));
  *run = (real_run){.argv = {job->name}, .folder = assets};
  memcpy(&run->argv[1], job->argv, sizeof job->argv);
  if (job->in != NULL) {
    char name[128];
    snprintf(name, sizeof name, "wasure/mibench/assets/%s", job->in);
    run->in = real_file(real_input(name));
  }
}

static void make(instance *instance, const job *job, const real_guest *guest) {
  prepare(&instance->run, job);
  instance->store = wasmtime_store_new(guest->engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(instance->store);
  wasmtime_instance_t made;
  wasmtime_extern_t memory;
  wasm_trap_t *trap = NULL;
  OK(real_wasi(&instance->run, context));
  OK(wasmtime_instance_pre_instantiate(guest->pre, context, &made, &trap));
  CHECK(trap == NULL);
  instance->start = t_func(context, &made, "_start");
  CHECK(wasmtime_instance_export_get(context, &made, "memory", 6, &memory));
  CHECK_EQ(memory.kind, WASMTIME_EXTERN_MEMORY);
  instance->memory = memory.of.memory;
}

static void take_digest(instance *instance, wasmtime_context_t *context) {
  instance->digest = real_hash(wasmtime_memory_data(context, &instance->memory),
                               wasmtime_memory_data_size(context, &instance->memory));
}

static const char *module_name(const job *job) {
  static char name[128];
  snprintf(name, sizeof name, "wasure/%s/%s.wasm", job->suite, job->name);
  return name;
}

static bool says(const job *job, const real_run *run) {
  return job->says == NULL || real_contains(&run->out, job->says);
}

/* As alone, and neither as if it had not run. */
static bool right(int i, const instance *instance) {
  const job *job = &JOBS[i];
  if (!real_succeeded(&instance->run) || !says(job, &instance->run) ||
      instance->digest == idle[i].digest)
    return false;
  return job->timed || (instance->digest == alone[i].digest &&
                        real_equal(&instance->run.out, &alone[i].run.out));
}

static void run_alone(wasm_engine_t *plain) {
  CASE("alone");
  for (int i = 0; i < COUNT; i++) {
    real_guest guest;
    real_load_plain(&guest, plain, module_name(&JOBS[i]));
    make(&idle[i], &JOBS[i], &guest);
    take_digest(&idle[i], wasmtime_store_context(idle[i].store));
    make(&alone[i], &JOBS[i], &guest);
    wasmtime_context_t *context = wasmtime_store_context(alone[i].store);
    wasm_trap_t *trap = NULL;
    wasmtime_error_t *error =
        wasmtime_func_call(context, &alone[i].start, NULL, 0, NULL, 0, &trap);
    real_ended(&alone[i].run, error, trap);
    take_digest(&alone[i], context);
    if (!right(i, &alone[i]))
      t_fail(__FILE__, __LINE__, "%s, alone, %s %s", JOBS[i].name,
             bop_outcome_name(alone[i].run.outcome), alone[i].run.reason);
    wasmtime_store_delete(idle[i].store);
    wasmtime_store_delete(alone[i].store);
    real_unload(&guest);
  }
}

/* What never ran, or ran as another program, is not right. */
static void control(void) {
  CASE("control");
  for (int i = 0; i < COUNT; i++) {
    instance not_run = idle[i];
    not_run.run.outcome = BOP_OUTCOME_RETURNED;
    CHECK(!right(i, &not_run));
    CHECK(!right(i, &alone[(i + 1) % COUNT]));
  }
}

static void run_as_fibers(bop_runtime_t *runtime) {
  CASE("fibers");
  static real_guest guests[COUNT];
  for (int i = 0; i < COUNT; i++) {
    real_load(&guests[i], runtime, module_name(&JOBS[i]));
    for (int n = 0; n < AT_ONCE; n++) {
      make(&fibers[i][n], &JOBS[i], &guests[i]);
      OK(bop_store_new(runtime, fibers[i][n].store, &fibers[i][n].handle));
    }
  }
  for (int n = 0; n < AT_ONCE; n++)
    for (int i = 0; i < COUNT; i++)
      OK(bop_spawn(fibers[i][n].handle, &fibers[i][n].start, NULL, 0, NULL,
                   &fibers[i][n].run.fiber));
  for (int i = 0; i < COUNT; i++) {
    for (int n = 0; n < AT_ONCE; n++) {
      instance *instance = &fibers[i][n];
      real_join(&instance->run);
      wasmtime_context_t *context;
      OK(bop_store_enter(instance->handle, &context));
      take_digest(instance, context);
      OK(bop_store_exit(instance->handle));
      if (!right(i, instance))
        t_fail(__FILE__, __LINE__,
               "%s %s %s; memory %016" PRIx64 ", alone %016" PRIx64 ", idle %016" PRIx64
               "; wrote %zu bytes, alone %zu",
               JOBS[i].name, bop_outcome_name(instance->run.outcome), instance->run.reason,
               instance->digest, alone[i].digest, idle[i].digest, instance->run.out.size,
               alone[i].run.out.size);
      bop_store_delete(instance->handle);
      real_delete(&instance->run);
    }
    real_unload(&guests[i]);
  }
}

/* Kotlin's compiler uses exceptions of the legacy proposal, which Wasmtime does not take. BOP's
 * engine says about it what Wasmtime's says. */
static void refused(wasm_engine_t *plain, wasm_engine_t *engine) {
  CASE("refused");
  real_bytes wasm = real_file(real_input("wasure/kotlin-prime/kotlin-prime-1K.wasm"));
  wasmtime_module_t *module = NULL;
  const char *want = t_error_text(wasmtime_module_new(plain, wasm.data, wasm.size, &module));
  CHECK(want != NULL && module == NULL);
  CHECK_HAS(want, "exceptions");
  const char *got = t_error_text(wasmtime_module_new(engine, wasm.data, wasm.size, &module));
  CHECK(got != NULL && module == NULL);
  if (strcmp(got, want) != 0)
    t_fail(__FILE__, __LINE__, "refused with: %s\nnot with: %s", got, want);
  real_free(&wasm);
}

int main(int argc, char **argv) {
  real_start("real benchmark suites", argc, argv);
  wasm_engine_t *plain = wasm_engine_new();
  run_alone(plain);
  control();
  bop_runtime_t *runtime = real_runtime();
  run_as_fibers(runtime);
  real_check_preempted(runtime, 1000);
  refused(plain, bop_runtime_engine(runtime));
  OK(bop_runtime_delete(runtime));
  wasm_engine_delete(plain);
  for (int i = 0; i < COUNT; i++) {
    real_delete(&idle[i].run);
    real_delete(&alone[i].run);
  }
  return 0;
}
