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
  progress_show(progress, bop_now(), (size_t)stats.finished, run->count, note);
  free(note);
}

static void cancel(struct run *run, struct job *job) {
  if (job->kind == KIND_SPIN && run->paced == SIZE_MAX) {
    run->paced = 0;
    for (size_t i = run->spinners; i < run->count; i++)
      run->paced += bop_fiber_state(run->jobs[i]->fiber) == BOP_STATE_FINISHED;
  }
  bop_status_t status = bop_fiber_cancel(job->fiber);
  if (status != BOP_OK && status != BOP_FINISHED) /* it has ended in time */
    fail("cannot cancel %s: %s", job->name, bop_status_name(status));
}

/* Cancels every job whose deadline has come. Returns the next deadline. */
static uint64_t cancel_due(struct run *run, uint64_t now) {
  while (run->due < run->count && job_deadline(run->jobs[run->due]) <= now)
    cancel(run, run->jobs[run->due++]);
  return run->due < run->count ? job_deadline(run->jobs[run->due]) : UINT64_MAX;
}

static void join(struct run *run, struct job *job, bop_runtime_t *runtime,
                 struct progress *progress) {
  bop_outcome_t outcome;
  bop_status_t status;
  do {
    uint64_t now = bop_now(), deadline = cancel_due(run, now);
    status = bop_fiber_join_until(job->fiber, now + LOOK < deadline ? now + LOOK : deadline,
                                  &outcome);
    look(run, runtime, progress);
  } while (status == BOP_TIMEOUT);
  if (status != BOP_OK)
    fail("cannot join %s: %s", job->name, bop_status_name(status));
  job_finish(job, outcome);
}

void run_jobs(struct run *run, bop_runtime_t *runtime, struct progress *progress) {
  uint64_t started = bop_now();
  run->paced = SIZE_MAX; /* not known yet */
  for (size_t i = 0; i < run->count; i++) {
    job_spawn(run->jobs[i], runtime);
    look(run, runtime, progress);
  }
  for (size_t i = 0; i < run->count; i++)
    join(run, run->jobs[i], runtime, progress);
  run->elapsed_ns = bop_now() - started;
  progress_end(progress);
}
