/* Limits: of fibers, of stack sizes, of memory. Each is an error in words, and a passing one. */
#include "support/support.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int finalized;
static void finalizes(void *env) {
  (void)env;
  finalized++;
}

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

static int64_t seven(void *env) {
  (void)env;
  return 7;
}

/* A fiber that has ended no longer counts, at the latest soon after. */
static bop_fiber_t *spawn_at_last(bop_runtime_t *runtime, bop_host_fn_t function) {
  bop_fiber_t *fiber = NULL;
  wasmtime_error_t *error = NULL;
  EVENTUALLY((error = bop_spawn_host(runtime, function, NULL, NULL, NULL, &fiber),
              error != NULL ? wasmtime_error_delete(error) : (void)0, fiber != NULL));
  return fiber;
}

static const char *const GUEST = "(module (func (export \"run\") (result i32) (i32.const 5)))";

static void max_fibers(void) {
  CASE("max_fibers");
  enum { MOST = 4 };
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_max_fibers(config, MOST);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, NULL);
  wasmtime_instance_pre_t *pre = t_pre(bop_runtime_engine(runtime), GUEST, NULL);

  bop_fiber_t *fibers[MOST], *more = NULL;
  for (int i = 0; i < MOST; i++)
    fibers[i] = t_spawn_host(runtime, parks, NULL, NULL);
  for (int i = 1; i <= 3; i++) {
    FAILS(bop_spawn_host(runtime, seven, NULL, finalizes, NULL, &more), "limit");
    CHECK_EQ(finalized, 2 * i - 1);
    FAILS(bop_spawn(guest.store, t_export(&guest, "run"), NULL, 0, NULL, &more), "limit");
    FAILS(bop_spawn_instance(runtime, pre, "run", 3, NULL, 0, NULL, NULL, finalizes, NULL, &more),
          "limit");
    CHECK_EQ(finalized, 2 * i);
  }
  CHECK(more == NULL);
  CHECK_EQ(t_stats(runtime).live, MOST);

  for (int i = 0; i < 20; i++) { /* each place is free again and again */
    CHECK_EQ(bop_unpark(fibers[i % MOST]), BOP_OK);
    CHECK_EQ(t_result(fibers[i % MOST]), BOP_OK);
    fibers[i % MOST] = spawn_at_last(runtime, i % 2 ? seven : parks);
    if (i % 2) {
      CHECK_EQ(t_result(fibers[i % MOST]), 7);
      fibers[i % MOST] = spawn_at_last(runtime, parks);
    }
    FAILS(bop_spawn_host(runtime, seven, NULL, NULL, NULL, &more), "limit");
  }
  /* Who has joined a fiber has its place. */
  CHECK_EQ(bop_unpark(fibers[0]), BOP_OK);
  CHECK_EQ(t_result(fibers[0]), BOP_OK);
  for (int i = 0; i < 5000; i++)
    CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);
  fibers[0] = t_spawn_host(runtime, parks, NULL, NULL);
  for (int i = 0; i < MOST; i++) {
    EVENTUALLY(bop_fiber_state(fibers[i]) == BOP_STATE_PARKED);
    CHECK_EQ(bop_fiber_cancel(fibers[i]), BOP_OK);
    CHECK_EQ(t_result(fibers[i]), BOP_CANCELLED);
  }
  EVENTUALLY(t_stats(runtime).live == 0);
  CHECK_EQ(t_result(t_spawn0(&guest, "run")), 5);
  wasmtime_instance_pre_delete(pre);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static atomic_bool refusing;

static void *is_refused(void *runtime) {
  while (refusing) {
    bop_fiber_t *fiber = NULL;
    wasmtime_error_t *error = bop_spawn_host(runtime, seven, NULL, NULL, NULL, &fiber);
    if (error != NULL)
      wasmtime_error_delete(error);
    bop_fiber_detach(fiber);
  }
  return NULL;
}

static int64_t yields(void *env) {
  (void)env;
  for (int i = 0; i < 20; i++)
    bop_yield();
  return 1;
}

/* Spawns that are refused must not keep bop_run from seeing that no fiber is left. */
static void refused_beside_bop_run(void) {
  CASE("refused while bop_run waits for the end");
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_max_fibers(config, 1);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  refusing = true;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, is_refused, runtime), 0);
  for (int i = 0; i < 300; i++) {
    bop_fiber_t *fiber = NULL;
    wasmtime_error_t *error = bop_spawn_host(runtime, yields, NULL, NULL, NULL, &fiber);
    if (error != NULL)
      wasmtime_error_delete(error);
    bop_fiber_detach(fiber);
    OK(bop_run(runtime));
  }
  refusing = false;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  OK(bop_runtime_delete(runtime));
}

static bop_spawn_options_t *with_stack(size_t size) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_stack_size(options, size);
  return options;
}

static void stack_sizes(void) {
  CASE("stack sizes");
  bop_runtime_t *runtime = t_runtime(1, 0);
  OK(bop_runtime_start(runtime));
  const size_t bad[] = {1, 4096, SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 50};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    bop_spawn_options_t *options = with_stack(bad[i]);
    bop_fiber_t *fiber = NULL;
    FAILS(bop_spawn_host(runtime, seven, NULL, NULL, options, &fiber), "stack");
    CHECK(fiber == NULL);
    bop_spawn_options_delete(options);
    CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);
  }
  const size_t good[] = {128 << 10, 3000001, 64 << 20};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    bop_spawn_options_t *options = with_stack(good[i]);
    bop_fiber_t *fiber = NULL;
    OK(bop_spawn_host(runtime, seven, NULL, NULL, options, &fiber));
    CHECK_EQ(t_result(fiber), 7);
    bop_spawn_options_delete(options);
  }
  OK(bop_runtime_delete(runtime));
}

static size_t address_space(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void out_of_memory(void) {
  t_start("limits, child");
  CASE("no memory for a stack");
  bop_runtime_t *runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));
  CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);
  EVENTUALLY(t_stats(runtime).live == 0);
  size_t room = (size_t)512 << 20;
  struct rlimit limit = {address_space() + room, address_space() + room};
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);

  /* one stack that can't be had */
  bop_spawn_options_t *huge = with_stack((size_t)1 << 30);
  bop_fiber_t *fiber = NULL;
  FAILS(bop_spawn_host(runtime, seven, NULL, finalizes, huge, &fiber), "memory");
  CHECK(fiber == NULL);
  CHECK_EQ(finalized, 1);
  bop_spawn_options_delete(huge);
  CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);

  /* many that can, until no more can; twice, as all of them must have come back */
  bop_spawn_options_t *large = with_stack(32 << 20);
  size_t had[2];
  for (int round = 0; round < 2; round++) {
    bop_fiber_t *fibers[64];
    size_t n = 0;
    wasmtime_error_t *error = NULL;
    while (n < 64 && error == NULL) {
      fiber = NULL;
      error = bop_spawn_host(runtime, parks, NULL, NULL, large, &fiber);
      if (error == NULL)
        fibers[n++] = fiber;
    }
    CHECK(n > 0 && n < 64);
    FAILS(error, "memory");
    for (size_t i = 0; i < n; i++)
      CHECK_EQ(bop_unpark(fibers[i]), BOP_OK);
    for (size_t i = 0; i < n; i++)
      CHECK_EQ(t_result(fibers[i]), BOP_OK);
    EVENTUALLY(t_stats(runtime).live == 0);
    had[round] = n;
  }
  CHECK(2 * had[1] >= had[0]); /* the host's allocator may have taken some of the room meanwhile */
  bop_spawn_options_delete(large);
  CHECK_EQ(t_result(t_spawn_host(runtime, seven, NULL, NULL)), 7);
  OK(bop_runtime_delete(runtime));
}

static void no_memory(void) {
  if (T_ASAN)
    return; /* the sanitizer's shadow memory leaves no room for such a limit */
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    out_of_memory();
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
  t_start("limits");
  no_memory(); /* first: a process with threads must not be forked */
  max_fibers();
  refused_beside_bop_run();
  stack_sizes();
  return 0;
}
