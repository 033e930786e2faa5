#include "job.h"

#include "picture.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *const KIND_NAMES[KINDS] = {
    "fib", "sort", "text", "factorial", "exit", "overflow", "picture", "spin",
};

/* Runs on the new fiber, in its new store, before the module is instantiated there. */
static wasmtime_error_t *set_up(void *env, wasmtime_context_t *context) {
  struct job *job = env;
  struct program program = {
      .argv = job->argv,
      .argc = job->argc,
      .folder = job->folder,
      .out = &job->out,
      .err = &job->err,
  };
  return guest_wasi(context, &program);
}

void job_spawn(struct job *job, bop_runtime_t *runtime) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, job->name, strlen(job->name));
  wasmtime_error_t *error = bop_spawn_instance(runtime, job->guest->pre, "_start", 6, NULL, 0,
                                               set_up, job, NULL, options, &job->fiber);
  bop_spawn_options_delete(options);
  if (error != NULL)
    fail("cannot start %s: %s", job->name, error_text(error));
  job->times.size = sizeof job->times;
  if (!bop_fiber_times(job->fiber, &job->times))
    fail("this runtime takes no times");
}

uint64_t job_deadline(const struct job *job) { return job->times.spawned_ns + job->limit_ns; }

/* Output in a message: one line, not too long. */
static char *quoted(const struct bytes *bytes) {
  size_t size = bytes->size < 60 ? bytes->size : 60;
  while (size > 0 && bytes->data[size - 1] == '\n')
    size--;
  char *text = format("\"%.*s\"%s", (int)size, size ? (const char *)bytes->data : "",
                      bytes->size > 60 ? "..." : "");
  for (char *at = text; *at != '\0'; at++)
    if ((unsigned char)*at < ' ')
      *at = ' ';
  return text;
}

/* Wasmtime puts the backtrace first and the cause in the last line. */
static char *cause(wasm_trap_t *own) {
  char *text = trap_text(own);
  size_t size = strlen(text);
  while (size > 0 && text[size - 1] == '\n')
    text[--size] = '\0';
  char *line = strrchr(text, '\n');
  line = line == NULL ? text : line + 1;
  char *copy = format("%s", line + strspn(line, " "));
  free(text);
  return copy;
}

static char *wrong_outcome(struct job *job) {
  wasm_trap_t *trap = bop_fiber_take_trap(job->fiber);
  char *why = trap != NULL ? cause(trap) : quoted(&job->err);
  char *problem = format("%s, not %s: %s", bop_outcome_name(job->outcome),
                         bop_outcome_name(job->expected), why);
  free(why);
  return problem;
}

static char *wrong_output(const struct job *job) {
  char *got = quoted(&job->out), *want = quoted(&job->expected_out);
  char *problem = format("wrote %s, not %s", got, want);
  free(got);
  free(want);
  return problem;
}

static char *judge(struct job *job) {
  if (job->outcome != job->expected)
    return wrong_outcome(job);
  if (job->code != job->expected_code)
    return format("exit code %" PRId32 ", not %" PRId32, job->code, job->expected_code);
  if (!bytes_equal(&job->out, &job->expected_out))
    return wrong_output(job);
  if (job->kind == KIND_PICTURE)
    return picture_compare(job);
  return NULL;
}

void job_finish(struct job *job, bop_outcome_t outcome) {
  job->outcome = outcome;
  job->code = outcome == BOP_OUTCOME_EXITED ? bop_fiber_exit_code(job->fiber) : 0;
  bop_fiber_times(job->fiber, &job->times);
  job->problem = judge(job);
  job->right = job->problem == NULL;
}

void job_delete(struct job *job) {
  if (job->fiber != NULL)
    bop_fiber_detach(job->fiber);
  bytes_free(&job->out);
  bytes_free(&job->err);
  bytes_free(&job->expected_out);
  bytes_free(&job->expected_picture);
  free(job->folder);
  free(job->problem);
}
