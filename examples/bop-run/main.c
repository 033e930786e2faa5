/* Real WASI programs as green threads: hundreds of QuickJS scripts, some of which never end, and a
 * folder of pictures that resvg renders, each on a fiber of its own, on a few workers.
 *
 * Prints what it does, and at the end tables: outcomes by kind of fiber, times to the first slice
 * and to completion, and what each worker has done. The last line is
 *     every fiber ended as it must, with the output it must have
 * and the exit status 0, or else each problem is named and the exit status is 1. */
#include "guest.h"
#include "options.h"
#include "picture.h"
#include "report.h"
#include "run.h"
#include "script.h"

#include <stdlib.h>

/* Where js/ and svg/ are; the build says. */
#ifndef BOP_RUN_FILES
#define BOP_RUN_FILES "."
#endif

/* Interpreters recurse deeply. Part of each stack is kept for host functions: WASI opens files. */
#define STACK (2u << 20)
#define HOST_STACK (256u << 10)

static void load(struct guest *guest, wasm_engine_t *engine, const char *kind, const char *name,
                 const struct options *options, struct progress *progress) {
  uint64_t begin = bop_now();
  guest_load(guest, engine, kind, name, options->inputs, options->out);
  char *time = duration(bop_now() - begin);
  progress_say(progress, "%s for %s: %s in %s", name, kind,
               guest->cached ? "loaded" : "compiled", time);
  free(time);
}

/* The pictures, rendered on Wasmtime as it is: an engine that BOP knows nothing of. */
static void prepare_pictures(struct pictures *pictures, const struct options *options,
                             struct progress *progress) {
  wasm_engine_t *plain = wasm_engine_new();
  struct guest resvg;
  load(&resvg, plain, "wasmtime", "resvg", options, progress);
  uint64_t begin = bop_now();
  pictures_prepare(pictures, plain, &resvg, BOP_RUN_FILES "/svg", options->out);
  char *time = duration(bop_now() - begin);
  progress_say(progress, "%zu pictures rendered one by one, without BOP, in %s", pictures->count,
               time);
  free(time);
  guest_delete(&resvg);
  wasm_engine_delete(plain);
}

static bop_runtime_t *make_runtime(const struct options *options) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, options->workers);
  bop_config_quantum(config, options->quantum_us * UINT64_C(1000));
  bop_config_stack_size(config, STACK);
  bop_config_host_stack(config, HOST_STACK);
  bop_config_timing(config, true);
  bop_runtime_t *runtime = NULL;
  wasmtime_error_t *error = bop_runtime_new(config, &runtime);
  if (error != NULL)
    fail("cannot make a runtime: %s", error_text(error));
  return runtime;
}

/* The spinners first, so that they hold the workers before anyone else gets a turn. */
static void gather(struct run *run, struct job *scripts, const struct options *options,
                   struct pictures *pictures) {
  *run = (struct run){.count = options->spinners + options->fibers + pictures->count,
                      .spinners = options->spinners};
  run->jobs = calloc(run->count, sizeof(*run->jobs));
  if (run->jobs == NULL)
    fail("out of memory");
  size_t at = 0;
  for (size_t i = 0; i < options->spinners; i++)
    run->jobs[at++] = &scripts[i];
  for (size_t i = 0; i < pictures->count; i++)
    run->jobs[at++] = &pictures->jobs[i];
  for (size_t i = 0; i < options->fibers; i++)
    run->jobs[at++] = &scripts[options->spinners + i];
  /* What has not ended when all could have ended ten times over is stuck: it is cancelled, and
   * that is reported. */
  for (size_t i = run->spinners; i < run->count; i++)
    run->jobs[i]->limit_ns = 60 * SECOND + run->count * (SECOND / 20);
}

static void delete_jobs(struct run *run) {
  for (size_t i = 0; i < run->count; i++)
    job_delete(run->jobs[i]);
  free(run->jobs);
}

int main(int argc, char **argv) {
  struct options options = options_parse(argc, argv);
  struct progress progress;
  progress_start(&progress, bop_now());

  struct pictures pictures;
  prepare_pictures(&pictures, &options, &progress);

  bop_runtime_t *runtime = make_runtime(&options);
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  struct guest quickjs, resvg;
  load(&quickjs, engine, "bop", "quickjs", &options, &progress);
  load(&resvg, engine, "bop", "resvg", &options, &progress);

  struct scripts texts;
  scripts_read(&texts, BOP_RUN_FILES "/js");
  struct job *scripts = calloc(options.spinners + options.fibers + 1, sizeof *scripts);
  if (scripts == NULL)
    fail("out of memory");
  for (size_t i = 0; i < options.spinners; i++)
    spin_job(&scripts[i], &quickjs, &texts, i);
  for (size_t i = 0; i < options.fibers; i++)
    script_job(&scripts[options.spinners + i], &quickjs, &texts, i);
  for (size_t i = 0; i < pictures.count; i++)
    pictures.jobs[i].guest = &resvg;

  struct run run;
  gather(&run, scripts, &options, &pictures);
  wasmtime_error_t *error = bop_runtime_start(runtime);
  if (error != NULL)
    fail("cannot start the runtime: %s", error_text(error));
  run_jobs(&run, runtime, &progress);
  bool good = report(&run, &options, runtime);

  delete_jobs(&run);
  free(scripts);
  free(pictures.jobs);
  scripts_free(&texts);
  error = bop_runtime_delete(runtime);
  if (error != NULL)
    fail("cannot delete the runtime: %s", error_text(error));
  guest_delete(&quickjs);
  guest_delete(&resvg);
  return good ? 0 : 1;
}
