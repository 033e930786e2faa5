/* Everything at once, again and again: what a server that runs for months does. In each round fibers do whatever comes by
 * chance (guests that return, trap, spin until they are stopped, share an instance, sleep through WASI; channels, locks,
 * sockets, blocking calls), and each checks what came of it. Between two rounds, when all is quiet, nothing may be there
 * that was not there before: memory, descriptors, threads, mappings.
 *
 * BOP_SOAK is how long, in seconds: `make soak` takes five minutes. BOP_SEED is what chance begins with. */
#include "support/support.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACTORS = 64, ROUNDS = 6, SPIN_NS = 3000000 };

static bop_runtime_t *runtime;
static t_guest shared;
static wasmtime_instance_pre_t *fresh, *wasi;
static atomic_uint_fast64_t acts, deadline;

static const char *const SHARED =
    "(module (memory (export \"memory\") 2) (global $sp (export \"__stack_pointer\") (mut i32) (i32.const 65536))"
    "(func (export \"spin\") (loop (br 0))) (func (export \"trap\") unreachable)"
    /* the sum of the numbers up to n, each kept in a frame of its own in memory */
    "(func $sum (export \"sum\") (param $n i32) (result i32) (local $at i32)"
    "  (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))"
    "  (global.set $sp (local.tee $at (i32.sub (global.get $sp) (i32.const 16))))"
    "  (i32.store (local.get $at) (local.get $n))"
    "  (call $sum (i32.sub (local.get $n) (i32.const 1))) (i32.add (i32.load (local.get $at)))"
    "  (global.set $sp (i32.add (local.get $at) (i32.const 16)))))";
static const char *const FRESH =
    "(module (memory 1) (func (export \"double\") (param i32) (result i32)"
    "  (i32.store (i32.const 64) (local.get 0)) (i32.mul (i32.load (i32.const 64)) (i32.const 2)))"
    "  (func (export \"grow\") (param i32) (result i32) (memory.grow (local.get 0))))";
/* sleeps a millisecond, says so, exits */
static const char *const WASI =
    "(module (import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))"
    "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))"
    "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))"
    "(memory (export \"memory\") 1) (data (i32.const 256) \"slept\\n\")"
    "(data (i32.const 16) \"\\01\\00\\00\\00\") (data (i32.const 24) \"\\40\\42\\0f\\00\")"
    "(data (i32.const 200) \"\\00\\01\\00\\00\\06\\00\\00\\00\")"
    "(func (export \"_start\")"
    "  (if (call $poll (i32.const 0) (i32.const 104) (i32.const 1) (i32.const 180)) (then unreachable))"
    "  (if (call $write (i32.const 1) (i32.const 200) (i32.const 1) (i32.const 180)) (then unreachable))"
    "  (call $exit (i32.const 7))))";

/* ---- what an actor may do ---- */

static uint64_t next(uint64_t *chance) {
  return *chance ^= *chance << 13, *chance ^= *chance >> 7, *chance ^= *chance << 17;
}

static void sums(uint64_t *chance) {
  int32_t n = (int32_t)(next(chance) % 200);
  CHECK_EQ(t_result(t_spawn1(&shared, "sum", n)), n * (n + 1) / 2);
}

static void traps(uint64_t *chance) {
  (void)chance;
  ENDS(t_spawn0(&shared, "trap"), BOP_OUTCOME_TRAPPED);
}

static void is_stopped(uint64_t *chance) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_outcome_t outcome = BOP_OUTCOME_CANCELLED;
  switch (next(chance) % 3) {
  case 0:
    bop_spawn_options_deadline(options, bop_now() + SPIN_NS);
    outcome = BOP_OUTCOME_TIMED_OUT;
    break;
  case 1:
    bop_spawn_options_cpu_budget(options, SPIN_NS);
    outcome = BOP_OUTCOME_OUT_OF_BUDGET;
    break;
  }
  bop_fiber_t *fiber;
  OK(bop_spawn(shared.store, t_export(&shared, "spin"), NULL, 0, options, &fiber));
  bop_spawn_options_delete(options);
  if (outcome == BOP_OUTCOME_CANCELLED)
    CHECK_EQ(bop_fiber_cancel(fiber), BOP_OK);
  ENDS(fiber, outcome);
}

static void instances(uint64_t *chance) {
  wasmtime_val_t n = t_i32((int32_t)(next(chance) % 1000));
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_memory(options, 65536, 0);
  bop_fiber_t *doubles, *grows;
  OK(bop_spawn_instance(runtime, fresh, "double", 6, &n, 1, NULL, NULL, NULL, options, &doubles));
  OK(bop_spawn_instance(runtime, fresh, "grow", 4, &n, 1, NULL, NULL, NULL, options, &grows));
  bop_spawn_options_delete(options);
  CHECK_EQ(t_result(doubles), n.of.i32 * 2);
  CHECK_EQ(t_result(grows), n.of.i32 ? -1 : 1);
}

static wasmtime_error_t *gives_wasi(void *env, wasmtime_context_t *context) {
  (void)env;
  return wasmtime_context_set_wasi(context, wasi_config_new());
}

static void programs(uint64_t *chance) {
  (void)chance;
  int pipes[2];
  CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_stdio(options, -1, pipes[1], -1);
  bop_fiber_t *fiber;
  OK(bop_spawn_instance(runtime, wasi, "_start", 6, NULL, 0, gives_wasi, NULL, NULL, options, &fiber));
  bop_spawn_options_delete(options);
  JOINS(fiber, BOP_OUTCOME_EXITED);
  CHECK_EQ(bop_wait_fd(pipes[0], BOP_READABLE, NULL), BOP_OK);
  char text[16] = {0};
  CHECK_EQ(read(pipes[0], text, sizeof text), 6);
  CHECK_EQ(strcmp(text, "slept\n"), 0);
  CHECK_EQ(bop_fiber_exit_code(fiber), 7);
  bop_fiber_detach(fiber);
  bop_close(pipes[0]), bop_close(pipes[1]);
}

static int64_t sends(void *env) {
  bop_channel_t *channel = env;
  for (uint64_t i = 1; i <= 20; i++)
    CHECK_EQ(bop_channel_send(channel, i), BOP_OK);
  return 0;
}

static void channels(uint64_t *chance) {
  bop_channel_t *channel;
  OK(bop_channel_new(next(chance) % 4, &channel));
  bop_fiber_t *fiber = t_spawn_host(runtime, sends, channel, NULL);
  uint64_t sum = 0, value;
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(bop_channel_receive(channel, &value), BOP_OK);
    sum += value;
  }
  CHECK_EQ(sum, 210);
  CHECK_EQ(t_result(fiber), 0);
  bop_channel_delete(channel);
}

static int64_t dies_with(void *mutex) {
  return bop_mutex_lock(mutex);
}

static void locks(uint64_t *chance) {
  (void)chance;
  bop_mutex_t *mutex = bop_mutex_new();
  bop_semaphore_t *semaphore = bop_semaphore_new(0);
  CHECK_EQ(bop_semaphore_acquire_until(semaphore, bop_now() + MS), BOP_TIMEOUT);
  CHECK_EQ(t_result(t_spawn_host(runtime, dies_with, mutex, NULL)), BOP_OK);
  CHECK_EQ(bop_mutex_lock(mutex), BOP_ABANDONED);
  CHECK_EQ(bop_mutex_unlock(mutex), BOP_OK);
  bop_semaphore_delete(semaphore);
  bop_mutex_delete(mutex);
}

static int64_t echoes(void *env) {
  int fd = *(int *)env;
  char byte;
  while (bop_wait_fd(fd, BOP_READABLE, NULL) == BOP_OK && read(fd, &byte, 1) == 1)
    CHECK_EQ(write(fd, &byte, 1), 1);
  return 0;
}

static void sockets(uint64_t *chance) {
  int pair[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  bop_fiber_t *fiber = t_spawn_host(runtime, echoes, &pair[1], NULL);
  for (int i = 0; i < 5; i++) {
    char sent = (char)next(chance), got = 0;
    CHECK_EQ(write(pair[0], &sent, 1), 1);
    CHECK_EQ(bop_wait_fd(pair[0], BOP_READABLE, NULL), BOP_OK);
    CHECK_EQ(read(pair[0], &got, 1), 1);
    CHECK_EQ(got, sent);
  }
  bop_close(pair[0]); /* the end of the stream for the other */
  CHECK_EQ(t_result(fiber), 0);
  bop_close(pair[1]);
}

static int64_t takes_a_while(void *env) {
  usleep(200);
  return *(int *)env + 1;
}

static void blocking(uint64_t *chance) {
  int n = (int)(next(chance) % 1000);
  int64_t result;
  CHECK_EQ(bop_blocking(takes_a_while, &n, &result), BOP_OK);
  CHECK_EQ(result, n + 1);
}

static void sleeps(uint64_t *chance) {
  CHECK_EQ(bop_sleep(next(chance) % (2 * MS)), BOP_OK);
}

static void (*const ACTS[])(uint64_t *) = {sums,  traps,   is_stopped, instances, programs, channels,
                                           locks, sockets, blocking,   sleeps,    sums,     instances};

static int64_t acts_on(void *env) {
  uint64_t chance = (uint64_t)(uintptr_t)env;
  while (bop_now() < deadline) {
    ACTS[next(&chance) % (sizeof ACTS / sizeof *ACTS)](&chance);
    acts++;
  }
  return 0;
}

/* ---- what is there ---- */

typedef struct state {
  long kib, descriptors, threads, mappings;
} state;

static long lines_of(const char *file, const char *key) {
  char line[512];
  long n = 0;
  FILE *f = fopen(file, "r");
  CHECK(f != NULL);
  while (fgets(line, sizeof line, f)) {
    if (!key)
      n++;
    else if (strncmp(line, key, strlen(key)) == 0)
      n = strtol(line + strlen(key), NULL, 10);
  }
  fclose(f);
  return n;
}

static state look(void) {
  t_pause(22 * SECOND / 10); /* helpers end after one second, and idle memory is given back */
  state now = {lines_of("/proc/self/status", "VmRSS:"), 0, lines_of("/proc/self/status", "Threads:"),
               lines_of("/proc/self/maps", NULL)};
  for (int fd = 0; fd < 4096; fd++)
    now.descriptors += fcntl(fd, F_GETFD) >= 0;
  return now;
}

int main(void) {
  t_start("soak");
  const char *given = getenv("BOP_SEED"), *length = getenv("BOP_SOAK");
  uint64_t seed = given ? strtoull(given, NULL, 0) : bop_now(), seconds = length ? strtoull(length, NULL, 0) : 3;
  printf("BOP_SEED=%llu\n", (unsigned long long)seed);
  alarm(0);
  runtime = t_runtime(2, 100000);
  t_guest_new(&shared, runtime, SHARED, NULL);
  OK(bop_store_share(shared.store, &shared.instance, NULL));
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  fresh = t_pre(engine, FRESH, NULL);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  OK(bop_linker_define_wasi(linker));
  wasmtime_module_t *module = t_module(engine, WASI);
  OK(wasmtime_linker_instantiate_pre(linker, module, &wasi));
  wasmtime_module_delete(module);
  wasmtime_linker_delete(linker);
  OK(bop_runtime_start(runtime));

  /* The first rounds, a fifth of the time, bring everything to its usual size. */
  state before = {0, 0, 0, 0};
  printf("%8s %10s %10s %12s %8s %9s\n", "round", "acts", "KiB", "descriptors", "threads", "mappings");
  for (int round = 1; round <= ROUNDS; round++) {
    deadline = bop_now() + seconds * SECOND / ROUNDS;
    bop_fiber_t *actors[ACTORS];
    for (size_t i = 0; i < ACTORS; i++)
      actors[i] = t_spawn_host(runtime, acts_on, (void *)(uintptr_t)((seed + (uint64_t)round * ACTORS + i) | 1), NULL);
    for (size_t i = 0; i < ACTORS; i++)
      CHECK_EQ(t_result(actors[i]), 0);
    EVENTUALLY(t_stats(runtime).live == 0);
    state now = look();
    printf("%8d %10llu %10ld %12ld %8ld %9ld\n", round, (unsigned long long)acts, now.kib, now.descriptors,
           now.threads, now.mappings);
    fflush(stdout);
    if (round == 2)
      before = now;
    if (round > 2) {
      CHECK_EQ(now.descriptors, before.descriptors);
      CHECK(now.threads <= before.threads);
      /* The pools come to rest late: in a short run some of that is still ahead. */
      CHECK(T_ASAN || now.mappings <= before.mappings + (seconds < 60 ? 64 : 8));
      CHECK(T_ASAN || now.kib <= before.kib + before.kib / 20 + 2048); /* ASan keeps what was freed */
    }
  }
  wasmtime_instance_pre_delete(fresh);
  wasmtime_instance_pre_delete(wasi);
  t_guest_delete(&shared);
  OK(bop_runtime_delete(runtime));
  return 0;
}
