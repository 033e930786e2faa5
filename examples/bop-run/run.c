#include "run.h"

#include <inttypes.h>
#include <stdlib.h>

/* How long a join may wait before the progress is looked at. */
#define LOOK (SECOND / 25)

static void look(const struct run *run, bop_runtime_t *runtime, struct progress *progress) {
  bop_stats_t stats = {.size = sizeof stats};
  bop_runtime_stats(runtime, &stats);
  char *note = format("%" PRIu64 " switches, %" PRIu64 " preemptions", stats.switches,
                      stats.preemptions);
  /* The launcher is one of them. */
  size_t done = stats.finished > 0 ? (size_t)stats.finished - 1 : 0;
  progress_show(progress, bop_now(), done, run->count, note);
  free(note);
}

static void cancel(struct run *run, size_t spawned, struct job *job) {
  if (job->kind == KIND_SPIN && run->paced == SIZE_MAX) {
    run->paced = 0;
    for (size_t i = run->spinners; i < spawned; i++)
      run->paced += bop_fiber_state(run->jobs[i]->fiber) == BOP_STATE_FINISHED;
  }
  bop_status_t status = bop_fiber_cancel(job->fiber);
  if (status != BOP_OK && status != BOP_FINISHED) /* it has ended in time */
    fail("cannot cancel %s: %s", job->name, bop_status_name(status));
}

/* Cancels every job whose deadline has come. Returns the next deadline. */
static uint64_t cancel_due(struct run *run, uint64_t now) {
  size_t spawned = atomic_load(&run->spawned);
  while (run->due < spawned && job_deadline(run->jobs[run->due]) <= now)
    cancel(run, spawned, run->jobs[run->due++]);
  return run->due < spawned ? job_deadline(run->jobs[run->due]) : UINT64_MAX;
}

/* Waits for a fiber, and meanwhile looks after the others. */
static bop_outcome_t wait_for(struct run *run, bop_fiber_t *fiber, const char *name,
                              bop_runtime_t *runtime, struct progress *progress) {
  bop_outcome_t outcome;
  bop_status_t status;
  do {
    uint64_t until = bop_now() + LOOK, deadline = cancel_due(run, bop_now());
    status = bop_fiber_join_until(fiber, until < deadline ? until : deadline, &outcome);
    look(run, runtime, progress);
  } while (status == BOP_TIMEOUT);
  if (status != BOP_OK)
    fail("cannot join %s: %s", name, bop_status_name(status));
  return outcome;
}

struct launch {
  struct run *run;
  bop_runtime_t *runtime;
};

/* Spawns all jobs. What a fiber spawns is queued at the worker that runs it, and the other workers
 * steal it from there: nothing has to come in through the one door of the runtime. */
static int64_t launch(void *env) {
  struct launch *launch = env;
  struct run *run = launch->run;
  for (size_t i = 0; i < run->count; i++) {
    job_spawn(run->jobs[i], launch->runtime);
    atomic_store(&run->spawned, i + 1);
  }
  return 0;
}

void run_jobs(struct run *run, bop_runtime_t *runtime, struct progress *progress) {
  uint64_t started = bop_now();
  run->paced = SIZE_MAX; /* not known yet */
  struct launch env = {run, runtime};
  bop_fiber_t *launcher;
  wasmtime_error_t *error = bop_spawn_host(runtime, launch, &env, NULL, NULL, &launcher);
  if (error != NULL)
    fail("cannot start the launcher: %s", error_text(error));
  wait_for(run, launcher, "the launcher", runtime, progress);
  bop_fiber_detach(launcher);
  for (size_t i = 0; i < run->count; i++) {
    struct job *job = run->jobs[i];
    job_finish(job, wait_for(run, job->fiber, job->name, runtime, progress));
  }
  run->elapsed_ns = bop_now() - started;
  progress_end(progress);
}
