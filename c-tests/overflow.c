/* A host function that overruns its fiber's stack: the process must die, by SIGABRT, after it said
 * which fiber that was; and it must not have written over a neighbour's stack before. */
#include "support/support.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 128 << 10, PATTERN = 24 << 10, NEIGHBOURS = 8 };

/* Of each neighbour's stack, a part near its start and the lowest part it will use. */
static volatile unsigned char *volatile patterns[NEIGHBOURS];
static atomic_int ready;

static int64_t neighbour(void *env) {
  int me = (int)(intptr_t)env;
  volatile unsigned char pattern[PATTERN];
  for (int i = 0; i < PATTERN; i++)
    pattern[i] = (unsigned char)(i * 31 + me);
  patterns[me] = pattern;
  ready++;
  while (bop_park() == BOP_OK) {
  }
  return pattern[me];
}

/* Runs when the fault was told and the process ends: are the neighbours whole? */
static void on_abort(int signal) {
  (void)signal;
  static const char whole[] = "neighbours are whole\n", hurt[] = "a neighbour was overwritten\n";
  bool ok = true;
  for (int n = 0; n < NEIGHBOURS; n++)
    for (int i = 0; i < PATTERN; i++)
      ok = ok && patterns[n][i] == (unsigned char)(i * 31 + n);
  ssize_t written = ok ? write(STDERR_FILENO, whole, sizeof whole - 1)
                       : write(STDERR_FILENO, hurt, sizeof hurt - 1);
  (void)written;
}

/* Not a loop for any compiler, and every frame is touched. */
static __attribute__((noinline)) int64_t overrun(int64_t depth) {
  volatile unsigned char frame[700];
  for (size_t i = 0; i < sizeof frame; i++)
    frame[i] = (unsigned char)depth;
  if (depth == INT64_MAX)
    return 0;
  return overrun(depth + 1) + frame[depth % 700];
}

static int64_t greedy(void *env) {
  (void)env;
  CHECK_EQ(bop_park(), BOP_OK);
  return overrun(0);
}

static wasm_trap_t *greedy_host(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  greedy(NULL);
  return NULL;
}

static void spawn_neighbour(bop_runtime_t *runtime, bop_spawn_options_t *options, int number) {
  bop_spawn_options_name(options, "bystander", 9);
  OK(bop_spawn_host(runtime, neighbour, (void *)(intptr_t)number, NULL, options, NULL));
  EVENTUALLY(ready == number + 1); /* each gets its stack before the next one */
}

/* In the child. With `harmless` the fiber does all but overrun, so that the check can fail. */
static void child(bop_guard_t guard, bool through_wasm, bool harmless) {
  t_start("overflow, child");
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_guard(config, guard);
  bop_runtime_t *runtime = NULL;
  wasmtime_error_t *error = bop_runtime_new(config, &runtime);
  if (error != NULL && guard == BOP_GUARD_INSTALL) {
    FAILS(error, "guard"); /* a kernel before 6.13 */
    _exit(77);
  }
  OK(error);
  OK(bop_runtime_start(runtime));
  signal(SIGABRT, on_abort);
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_stack_size(options, STACK);
  for (int i = 0; i < NEIGHBOURS / 2; i++)
    spawn_neighbour(runtime, options, i);
  bop_fiber_t *fiber = NULL;
  const t_import imports[] = {{"greedy", "", "", greedy_host, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (import \"host\" \"greedy\" (func $g)) (func (export \"run\") (call $g)))",
              imports);
  bop_spawn_options_name(options, "greedy-fiber", 12);
  if (through_wasm)
    OK(bop_spawn(guest.store, t_export(&guest, "run"), NULL, 0, options, &fiber));
  else
    OK(bop_spawn_host(runtime, greedy, NULL, NULL, options, &fiber));
  EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED);
  for (int i = NEIGHBOURS / 2; i < NEIGHBOURS; i++)
    spawn_neighbour(runtime, options, i);
  if (harmless)
    _exit(0);
  CHECK_EQ(bop_unpark(fiber), BOP_OK);
  bop_outcome_t outcome;
  bop_fiber_join(fiber, &outcome);
  _exit(0); /* it survived */
}

static int run(bop_guard_t guard, bool through_wasm, bool harmless, char *said, size_t size) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    child(guard, through_wasm, harmless);
    _exit(0);
  }
  close(ends[1]);
  size_t used = 0;
  ssize_t n;
  while (used + 1 < size && (n = read(ends[0], said + used, size - 1 - used)) > 0)
    used += (size_t)n;
  said[used] = '\0';
  close(ends[0]);
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

static void overflows(bop_guard_t guard, bool through_wasm) {
  CASE(through_wasm ? "host function called by Wasm" : "host fiber");
  char said[4096];
  int status = run(guard, through_wasm, false, said, sizeof said);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    return; /* this kernel can't make such guards, and said so */
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
    t_fail(__FILE__, __LINE__, "guard %d: the child ended with status %#x and said: %s", (int)guard,
           (unsigned)status, said);
  CHECK_HAS(said, "greedy-fiber");
  CHECK_HAS(said, "stack");
  CHECK_HAS(said, "overflow");
  CHECK_HAS(said, "neighbours are whole");
}

int main(void) {
  t_start("overflow");
  CASE("a child that does not overflow");
  char said[4096];
  int status = run(BOP_GUARD_AUTO, false, true, said, sizeof said);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    t_fail(__FILE__, __LINE__, "the child ended with status %#x and said: %s", (unsigned)status, said);
  CHECK(strstr(said, "overflow") == NULL);
  for (int guard = BOP_GUARD_AUTO; guard <= BOP_GUARD_MPROTECT; guard++) {
    overflows((bop_guard_t)guard, false);
    overflows((bop_guard_t)guard, true);
  }
  return 0;
}
