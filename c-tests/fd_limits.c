/* What can't be waited for, and where nobody may wait; the limit of descriptors; and a host that closes BOP's own. Each
 * is told in words, and passes. */
#include "support/descriptors.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

static uint64_t some_deadline(int i) { return i == 0 ? NEVER : i == 1 ? t_far() : i == 2 ? 1 : 0; }

static void no_such_events(void) {
  CASE("no such events");
  int p[2];
  t_pipe(p);
  const uint32_t events[] = {0, 4, 8, BOTH | 16, UINT32_MAX, 1u << 31};
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = 0; i < 4; i++)
      for (int e = 0; e < 6; e++)
        SAYS(kind, e % 2 ? -1 : p[1], events[e], some_deadline(i), BOP_INVALID, 0);
  t_close(p[0]);
  t_close(p[1]);
}

/* Whoever asks, and however long it would wait. */
static void nothing_to_wait_for(void) {
  CASE("nothing that can be waited for");
  int p[2];
  t_pipe(p);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  CHECK(file >= 0 && folder >= 0);
  t_close(p[0]);
  t_close(p[1]);
  const int bad[] = {p[0], 1 << 30, file, folder, -1, -77, INT_MIN};
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < 7; k++)
        SAYS(kind, bad[k], k % 2 ? BOP_READABLE : BOTH, some_deadline(i), BOP_FAILED, 0);
  t_close(file);
  t_close(folder);
}

/* On a worker between two fibers nobody may wait. */
static atomic_int finalized;
static void finalizes(void *ends) {
  const int *p = ends;
  uint32_t ready = 77;
  CHECK_EQ(bop_wait_fd(p[0], BOP_READABLE, &ready), BOP_NOT_ALLOWED);
  CHECK_EQ(bop_wait_fd_until(p[0], BOP_READABLE, &ready, t_far()), BOP_NOT_ALLOWED);
  CHECK_EQ(ready, 77);
  CHECK_EQ(t_bop_close(p[1]), 0);
  finalized++;
}

static void on_a_worker(void) {
  CASE("on a worker");
  int p[2];
  t_pipe(p);
  wasm_engine_t *engine = bop_runtime_engine(t_runtimes[0]);
  wasmtime_store_t *raw = wasmtime_store_new(engine, p, finalizes);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  const char *const spins = "(module (func (export \"spin\") (loop (br 0))))";
  wasmtime_instance_t instance = t_instance(engine, context, spins, NULL);
  wasmtime_func_t spin = t_func(context, &instance, "spin");
  bop_store_t *store = NULL;
  bop_fiber_t *fiber = NULL;
  OK(bop_store_new(t_runtimes[0], raw, &store));
  OK(bop_spawn(store, &spin, NULL, 0, NULL, &fiber));
  bop_store_delete(store); /* now the fiber is its last user */
  t_cancel_all(&fiber, 1);
  EVENTUALLY(finalized == 1);
  t_close(p[0]);
}

/* ---- the limit of descriptors ---- */

/* The next one that is opened. */
static int next_number(void) {
  int fd = open("/", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  t_close(fd);
  return fd;
}

static void may_open(rlim_t below) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = below;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* A runtime needs some. If it does not get them it says so, and keeps none; those that are there go on. */
static void no_descriptors(void) {
  CASE("no descriptors");
  struct rlimit before;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  int p[2];
  t_pipe(p);
  t_waiter it[2];
  t_waiter_waits(&it[0], 0, p[0], BOP_READABLE, NEVER);
  const int next = next_number();
  bop_runtime_t *untouched = (bop_runtime_t *)&untouched, *runtime = untouched;
  for (int round = 0; round < 20; round++) {
    may_open((rlim_t)next + (rlim_t)round % 2);
    bop_config_t *config = bop_config_new();
    bop_config_workers(config, 1);
    FAILS(bop_runtime_new(config, &runtime), "descriptor");
    CHECK(runtime == untouched);
    /* Waiting needs none. */
    t_waiter_waits(&it[1], round % 2, p[0], BOP_READABLE, round % 4 < 2 ? NEVER : t_far());
    CHECK_EQ(t_write(p[1], "x", 1), 1);
    SAYS(THREAD, p[0], BOP_READABLE, NEVER, BOP_OK, BOP_READABLE);
    TOLD(&it[0], BOP_OK, BOP_READABLE);
    TOLD(&it[1], BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(p[0]), 1);
    t_waiter_waits(&it[0], round % 2, p[0], BOP_READABLE, NEVER);
  }
  may_open(before.rlim_cur);
  CHECK_EQ(next_number(), next);
  CHECK_EQ(t_bop_close(p[0]), 0);
  TOLD(&it[0], BOP_CLOSED, 0);
  t_close(p[1]);
  for (int i = 0; i < 50; i++) { /* it works again, and what a runtime takes it gives back */
    runtime = t_runtime(1, 0);
    OK(bop_runtime_start(runtime));
    OK(bop_runtime_delete(runtime));
  }
  CHECK(next_number() <= next);
}

/* ---- a host that closes BOP's own descriptor ---- */

/* The highest descriptor that is a poller, and so that of the youngest runtime. */
static int poller(void) {
  int highest = -1;
  char path[300], target[64];
  DIR *open_ones = opendir("/proc/self/fd");
  CHECK(open_ones != NULL);
  for (struct dirent *fd; (fd = readdir(open_ones)) != NULL;) {
    snprintf(path, sizeof path, "/proc/self/fd/%s", fd->d_name);
    ssize_t n = readlink(path, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    if (strcmp(target, "anon_inode:[eventpoll]") == 0 && atoi(fd->d_name) > highest)
      highest = atoi(fd->d_name);
  }
  closedir(open_ones);
  CHECK(highest >= 0);
  return highest;
}

static const char *const GUEST =
    "(module (func (export \"spin\") (loop (br 0)))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $sum i32)"
    "    (loop (local.set $sum (i32.add (local.get $sum) (local.get $n)))"
    "      (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $sum))";

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

static int64_t other_things(void *env) {
  (void)env;
  CHECK_EQ(bop_sleep(MS), BOP_OK);
  CHECK_EQ(bop_park_until(bop_now() + MS), BOP_TIMEOUT);
  CHECK_EQ(bop_yield(), BOP_OK);
  int64_t result = 0;
  CHECK_EQ(bop_blocking(seven, NULL, &result), BOP_OK);
  return result;
}

/* Nobody hangs: who waits is told that its descriptor is closed, or is served; who comes later fails. All that has
 * nothing to do with descriptors works as before. */
static void without_a_poller(size_t workers, bool busy, bool reused) {
  CASE("a runtime without its poller");
  enum { N = 6 };
  int p[N][2];
  t_waiter waiting[N];
  bop_runtime_t *const kept = t_runtimes[1];
  bop_runtime_t *runtime = t_runtimes[1] = t_runtime(workers, 50000);
  OK(bop_runtime_start(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, NULL);
  for (int i = 0; i < N; i++) {
    t_pipe(p[i]);
    t_waiter_waits(&waiting[i], 1, p[i][0], BOP_READABLE, i % 2 ? NEVER : t_far());
  }
  bop_fiber_t *spinner = busy ? t_spawn0(&guest, "spin") : NULL;
  const int ours = poller();
  if (reused) { /* deleting the runtime closes what the number means then */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_EQ(dup2(null, ours), ours);
    t_close(null);
  } else {
    t_close(ours);
  }
  const bool looked_up = busy && workers == 1; /* the ticker looks into the poller all the time */
  for (int i = 0; i < N; i++) { /* a worker that waits in there still serves them, until something else wakes it */
    if (!looked_up) {
      CHECK_EQ(t_write(p[i][1], "x", 1), 1);
      CHECK_EQ(t_result(t_spawn1(&guest, "sum", 100)), 5050);
    }
    bop_status_t status = (bop_status_t)t_actor_end(&waiting[i].actor);
    CHECK(status == BOP_CLOSED || (status == BOP_OK && !looked_up));
  }
  for (int i = 0; i < N; i++) {
    for (int later = 0; later < 2; later++) {
      t_waiter_begin(&waiting[i], 1, p[i][0], BOP_READABLE, later ? t_far() : NEVER);
      bop_status_t status = (bop_status_t)t_actor_end(&waiting[i].actor);
      CHECK(status == BOP_FAILED || status == BOP_CLOSED);
    }
    SAYS(0, p[i][1], BOP_WRITABLE, NEVER, BOP_OK, BOP_WRITABLE); /* other runtimes have their own */
    SAYS(THREAD, p[i][1], BOP_WRITABLE, NEVER, BOP_OK, BOP_WRITABLE);
    CHECK_EQ(t_bop_close(p[i][0]), 0);
    t_close(p[i][1]);
  }
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(t_result(t_spawn1(&guest, "sum", 1000)), 500500);
    CHECK_EQ(t_result(t_spawn_host(runtime, other_things, NULL, NULL)), 7);
  }
  if (busy)
    t_cancel_all(&spinner, 1);
  t_guest_delete(&guest);
  EVENTUALLY(t_stats(runtime).live == 0);
  OK(bop_runtime_delete(runtime));
  t_runtimes[1] = kept;
}

int main(void) {
  t_start("fd_limits");
  t_runtimes_start(2, 0);
  no_such_events();
  on_a_worker();
  no_descriptors();
  for (int i = 0; i < 8; i++)
    without_a_poller(i & 4 ? 2 : 1, i & 1, i & 2);
  nothing_to_wait_for();
  t_runtimes_delete();
  return 0;
}
