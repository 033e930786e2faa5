/* Very many fibers that sleep: they wake in the order of their deadlines, never early, and cost no processor while they
 * sleep. BOP_SLEEPERS says how many; BOP_SEED their deadlines. */
#include "support/support.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct sleeper {
  uint64_t deadline, woke;
  uint64_t place; /* in the order of waking up */
} sleeper;

static atomic_uint_fast64_t asleep, awake;

static int64_t sleeps(void *env) {
  sleeper *me = env;
  asleep++;
  bop_status_t status = bop_sleep_until(me->deadline);
  me->woke = bop_now();
  me->place = awake++;
  return status;
}

static uint64_t cpu_time(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t seed;

static uint64_t random_below(uint64_t n) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed % n;
}

static int by_deadline(const void *a, const void *b) {
  const sleeper *x = *(sleeper *const *)a, *y = *(sleeper *const *)b;
  return (x->deadline > y->deadline) - (x->deadline < y->deadline);
}

/* A worker takes those that were woken from the common queue by the batch, and looks into that queue once in a while
 * although it has some at hand: as many may overtake others. */
#define BATCHES 64

/* On one worker, who is due first runs first: of two whose deadlines are a millisecond apart, the later one is not awake
 * before the earlier, but for those of a batch or two if all are late. */
static void in_order(size_t n, uint64_t spread) {
  CASE("in order");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_stack_size(config, 96 << 10);
  bop_runtime_t *runtime;
  OK(bop_runtime_new(config, &runtime));
  sleeper *sleepers = calloc(n, sizeof *sleepers), **order = calloc(n, sizeof *order);
  bop_fiber_t **fibers = calloc(n, sizeof *fibers);
  CHECK(sleepers && order && fibers);
  asleep = awake = 0;
  OK(bop_runtime_start(runtime));
  /* After all of them were spawned, which takes as long as it takes: those that sleep then are told apart by `asleep`. */
  uint64_t begin = bop_now(), margin = n * 20000 + SECOND / 2;
  for (size_t i = 0; i < n; i++) {
    sleepers[i].deadline = begin + margin + random_below(spread);
    order[i] = &sleepers[i];
    OK(bop_spawn_host(runtime, sleeps, &sleepers[i], NULL, NULL, &fibers[i]));
  }
  EVENTUALLY(asleep == n);
  uint64_t spawned = bop_now(), cpu = cpu_time();
  if (spawned < begin + margin) { /* else this machine is too slow for it */
    t_pause(begin + margin - spawned);
    uint64_t used = cpu_time() - cpu, passed = bop_now() - spawned;
    printf("%zu fibers spawned in %.0f ms; asleep for %.0f ms they used %.1f ms of processor\n", n,
           (double)(spawned - begin) / 1e6, (double)passed / 1e6, (double)used / 1e6);
    /* Idle memory may be given back meanwhile, once. One look at each fiber now and then would be more. */
    CHECK(used < passed / 4 + 20 * 1000000);
  }
  uint64_t late = 0;
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ(t_result(fibers[i]), BOP_OK);
    CHECK(sleepers[i].woke >= sleepers[i].deadline);
    if (sleepers[i].woke - sleepers[i].deadline > late)
      late = sleepers[i].woke - sleepers[i].deadline;
  }
  printf("all awake; the latest %.1f ms late\n", (double)late / 1e6);
  qsort(order, n, sizeof *order, by_deadline);
  uint64_t latest = 0;
  for (size_t i = 0, due = 0; i < n; i++) {
    while (order[due]->deadline + 1000000 < order[i]->deadline) {
      latest = order[due]->place > latest ? order[due]->place : latest;
      due++;
    }
    CHECK(due == 0 || order[i]->place + BATCHES > latest);
  }
  bop_stats_t stats = t_stats(runtime);
  CHECK_EQ(stats.live, 0);
  OK(bop_runtime_delete(runtime));
  free(fibers), free(order), free(sleepers);
}

int main(void) {
  t_start("sleepers");
  const char *given = getenv("BOP_SEED"), *number = getenv("BOP_SLEEPERS");
  seed = given ? strtoull(given, NULL, 0) : bop_now();
  printf("BOP_SEED=%llu\n", (unsigned long long)seed);
  seed |= 1;
  in_order(number ? strtoull(number, NULL, 0) : 20000, SECOND);
  return 0;
}
