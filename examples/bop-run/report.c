#include "report.h"

#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBLEMS_SHOWN 10

static void outcomes(const struct run *run) {
  struct table table;
  table_start(&table, "kind|fibers|returned|exited|trapped|cancelled|failed|wrong output");
  for (size_t kind = 0; kind <= KINDS; kind++) {
    size_t fibers = 0, wrong = 0, by_outcome[BOP_OUTCOME_FAILED + 1] = {0};
    for (size_t i = 0; i < run->count; i++) {
      const struct job *job = run->jobs[i];
      if (kind != KINDS && job->kind != kind)
        continue;
      fibers++;
      by_outcome[job->outcome]++;
      wrong += !job->right && job->outcome == job->expected;
    }
    if (fibers == 0)
      continue;
    table_cell(&table, "%s", kind == KINDS ? "all" : KIND_NAMES[kind]);
    table_cell(&table, "%zu", fibers);
    table_cell(&table, "%zu", by_outcome[BOP_OUTCOME_RETURNED]);
    table_cell(&table, "%zu", by_outcome[BOP_OUTCOME_EXITED]);
    table_cell(&table, "%zu", by_outcome[BOP_OUTCOME_TRAPPED]);
    table_cell(&table, "%zu", by_outcome[BOP_OUTCOME_CANCELLED]);
    table_cell(&table, "%zu", by_outcome[BOP_OUTCOME_FAILED]);
    table_cell(&table, "%zu", wrong);
  }
  table_end(&table);
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* The smallest of the values that at least so many percent of them do not exceed. */
static uint64_t percentile(const uint64_t *sorted, size_t count, size_t percent) {
  size_t rank = (count * percent + 99) / 100;
  return sorted[rank == 0 ? 0 : rank - 1];
}

/* Both spans begin with the spawn. A fiber that never got a turn has no first slice. */
static void times(const struct run *run) {
  struct table table;
  table_start(&table, "kind|first slice p50|p99|completion p50|p99");
  uint64_t *first = calloc(run->count + 1, sizeof *first);
  uint64_t *whole = calloc(run->count + 1, sizeof *whole);
  if (first == NULL || whole == NULL)
    fail("out of memory");
  for (size_t kind = 0; kind <= KINDS; kind++) {
    size_t started = 0, ended = 0;
    for (size_t i = 0; i < run->count; i++) {
      const struct job *job = run->jobs[i];
      if (kind != KINDS && job->kind != kind)
        continue;
      if (job->times.started_ns != 0)
        first[started++] = job->times.started_ns - job->times.spawned_ns;
      whole[ended++] = job->times.finished_ns - job->times.spawned_ns;
    }
    if (started == 0)
      continue;
    qsort(first, started, sizeof *first, by_size);
    qsort(whole, ended, sizeof *whole, by_size);
    table_cell(&table, "%s", kind == KINDS ? "all" : KIND_NAMES[kind]);
    table_time(&table, percentile(first, started, 50));
    table_time(&table, percentile(first, started, 99));
    table_time(&table, percentile(whole, ended, 50));
    table_time(&table, percentile(whole, ended, 99));
  }
  table_end(&table);
  free(first);
  free(whole);
}

static void workers(const bop_runtime_t *runtime, uint64_t elapsed_ns) {
  bop_stats_t all = {.size = sizeof all};
  bop_runtime_stats(runtime, &all);
  struct table table;
  table_start(&table, "worker|CPU time|of the run|switches|preemptions|steals|parks|wakes");
  uint64_t cpu = 0;
  bop_worker_stats_t one = {.size = sizeof one};
  for (size_t i = 0; i < all.workers && bop_runtime_worker_stats(runtime, i, &one); i++) {
    table_cell(&table, "%zu", i);
    table_time(&table, one.cpu_ns);
    table_cell(&table, "%.0f %%", 100.0 * (double)one.cpu_ns / (double)elapsed_ns);
    table_cell(&table, "%" PRIu64, one.switches);
    table_cell(&table, "%" PRIu64, one.preemptions);
    table_cell(&table, "%" PRIu64, one.steals);
    table_cell(&table, "%" PRIu64, one.parks);
    table_cell(&table, "%" PRIu64, one.wakes);
    cpu += one.cpu_ns;
  }
  table_cell(&table, "all");
  table_time(&table, cpu);
  table_cell(&table, "%.0f %%", 100.0 * (double)cpu / (double)elapsed_ns);
  table_cell(&table, "%" PRIu64, all.switches);
  table_cell(&table, "%" PRIu64, all.preemptions);
  table_cell(&table, "%" PRIu64, all.steals);
  table_cell(&table, "%" PRIu64, all.parks);
  table_cell(&table, "%" PRIu64, all.wakes);
  table_end(&table);
}

static size_t problems(const struct run *run) {
  size_t count = 0;
  for (size_t i = 0; i < run->count; i++) {
    const struct job *job = run->jobs[i];
    if (!job->right && count++ < PROBLEMS_SHOWN)
      printf("  WRONG %s: %s\n", job->name, job->problem);
  }
  if (count > PROBLEMS_SHOWN)
    printf("  ... and %zu more\n", count - PROBLEMS_SHOWN);
  return count;
}

/* Whether others got through while fibers that never give up the turn held every worker. */
static bool pace(const struct run *run) {
  size_t others = run->count - run->spinners;
  if (run->spinners == 0 || others == 0 || run->paced == SIZE_MAX)
    return true;
  printf("  %zu of %zu other fibers had ended when the first of %zu spinners was cancelled\n",
         run->paced, others, run->spinners);
  return run->paced > 0;
}

bool report(const struct run *run, const struct options *options, const bop_runtime_t *runtime) {
  char *elapsed = duration(run->elapsed_ns);
  printf("\n%zu fibers on %zu workers, quantum %zu us: %s\n\n", run->count, options->workers,
         options->quantum_us, elapsed);
  free(elapsed);
  outcomes(run);
  times(run);
  workers(runtime, run->elapsed_ns);
  size_t wrong = problems(run);
  bool kept = pace(run);
  if (!kept)
    printf("  WRONG: nothing else ran beside the spinners\n");
  if (wrong == 0 && kept)
    printf("  every fiber ended as it must, with the output it must have\n");
  fflush(stdout);
  return wrong == 0 && kept;
}
