/* QuickJS: scripts as fibers, each with its own numbers; some end in other ways. */
#include "real.h"

enum { SCRIPTS = 60 };

/* Places queens, runs a chain of numbers, and prints both, the second bit by bit. */
static const char SCRIPT[] =
    "const seed = Number(scriptArgs[0]);"
    "const place = (n, row, cols, a, b) => {"
    "  if (row === n) return 1;"
    "  let found = 0;"
    "  for (let c = 0; c < n; c++) {"
    "    const x = 1 << c, y = 1 << (row + c), z = 1 << (row - c + n);"
    "    if (!(cols & x || a & y || b & z)) found += place(n, row + 1, cols | x, a | y, b | z);"
    "  }"
    "  return found;"
    "};"
    "print('queens', place(4 + seed % 5, 0, 0, 0, 0));"
    "let x = seed;"
    "for (let i = 0; i < 20000; i++) {"
    "  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;"
    "  if (i % 4000 === 0) print(x.toString(16));"
    "}"
    "print([x].map(String).join(''));";

static void script_says(unsigned seed, char *text, size_t size) {
  static const int QUEENS[] = {2, 10, 4, 40, 92};
  size_t used = (size_t)snprintf(text, size, "queens %d\n", QUEENS[seed % 5]);
  uint32_t x = seed;
  for (int i = 0; i < 20000; i++) {
    x = x * UINT32_C(1664525) + UINT32_C(1013904223);
    if (i % 4000 == 0)
      used += (size_t)snprintf(text + used, size - used, "%x\n", (unsigned)x);
  }
  snprintf(text + used, size - used, "%u\n", (unsigned)x);
}

typedef struct script {
  real_run run;
  char seed[16];
} script;

static void prepare(script *script, const char *text, unsigned seed) {
  memset(script, 0, sizeof *script);
  snprintf(script->seed, sizeof script->seed, "%u", seed);
  const char *argv[] = {"qjs", "--std", "-e", text, script->seed};
  memcpy(script->run.argv, argv, sizeof argv);
}

static bool computed(const script *script, unsigned seed) {
  char want[256];
  script_says(seed, want, sizeof want);
  return real_succeeded(&script->run) && real_is(&script->run.out, want);
}

static bool exited(const script *script, int code) {
  return script->run.outcome == BOP_OUTCOME_EXITED && script->run.code == code &&
         real_is(&script->run.out, "on its way out\n");
}

/* The engine runs off the stack that it keeps in linear memory. */
static bool overflowed(const script *script) {
  return script->run.outcome == BOP_OUTCOME_TRAPPED && real_is(&script->run.out, "down\n") &&
         strstr(script->run.reason, "out of bounds") != NULL;
}

static const char EXIT[] = "print('on its way out'); std.exit(33);";
static const char OVERFLOW[] = "print('down'); const f = (n) => f(n + 1) + 1; f(0);";
static const char SPIN[] = "for (;;) {}";

static void control(bop_runtime_t *runtime) {
  CASE("control");
  real_guest empty;
  real_load_text(&empty, runtime, REAL_EMPTY);
  script script;
  prepare(&script, SCRIPT, 1);
  real_fiber(runtime, &empty, &script.run);
  CHECK_EQ(script.run.outcome, BOP_OUTCOME_RETURNED);
  CHECK(!computed(&script, 1));
  CHECK(!exited(&script, 33));
  CHECK(!overflowed(&script));
  real_unload(&empty);
}

int main(int argc, char **argv) {
  real_start("real quickjs", argc, argv);
  bop_runtime_t *runtime = real_runtime();
  control(runtime);

  real_guest quickjs;
  real_load(&quickjs, runtime, "quickjs.wasm");
  static script scripts[SCRIPTS], spinners[2], exits, overflows;
  CASE("spawn");
  for (int i = 0; i < 2; i++) {
    prepare(&spinners[i], SPIN, 0);
    real_spawn(runtime, &quickjs, &spinners[i].run);
  }
  prepare(&exits, EXIT, 0);
  real_spawn(runtime, &quickjs, &exits.run);
  for (unsigned i = 0; i < SCRIPTS; i++) {
    prepare(&scripts[i], SCRIPT, i);
    real_spawn(runtime, &quickjs, &scripts[i].run);
  }
  prepare(&overflows, OVERFLOW, 0);
  real_spawn(runtime, &quickjs, &overflows.run);

  CASE("scripts end beside spinners on every worker");
  for (unsigned i = 0; i < SCRIPTS; i++) {
    real_join(&scripts[i].run);
    if (!computed(&scripts[i], i))
      t_fail(__FILE__, __LINE__, "script %u %s %s and wrote: %.*s", i,
             bop_outcome_name(scripts[i].run.outcome), scripts[i].run.reason,
             (int)scripts[i].run.out.size, (const char *)scripts[i].run.out.data);
    real_delete(&scripts[i].run);
  }
  real_join(&exits.run);
  CHECK(exited(&exits, 33));
  real_join(&overflows.run);
  CHECK(overflowed(&overflows));

  CASE("spinners are cancelled");
  for (int i = 0; i < 2; i++) {
    CHECK(bop_fiber_state(spinners[i].run.fiber) != BOP_STATE_FINISHED);
    CHECK_EQ(bop_fiber_cancel(spinners[i].run.fiber), BOP_OK);
    real_join(&spinners[i].run);
    CHECK_EQ(spinners[i].run.outcome, BOP_OUTCOME_CANCELLED);
    real_delete(&spinners[i].run);
  }
  real_check_preempted(runtime, 200);
  real_delete(&exits.run);
  real_delete(&overflows.run);
  OK(bop_runtime_delete(runtime));
  real_unload(&quickjs);
  return 0;
}
