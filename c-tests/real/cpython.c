/* CPython 3.12: interpreters as fibers, each running digest.py with its own seed. What they must
 * print comes from the Python of this machine.
 *     TEST <inputs> <folder> <folder of digest.py> <python> */
#include "real.h"

enum { INTERPRETERS = 6 };

typedef struct interpreter {
  real_run run;
  char seed[16];
  char want[128]; /* the line that it must print */
} interpreter;

static interpreter interpreters[INTERPRETERS];

static void ask_this_machine(const char *python, const char *folder) {
  char command[1024];
  int length = snprintf(command, sizeof command, "'%s' '%s/digest.py'", python, folder);
  for (int i = 0; i < INTERPRETERS; i++) {
    snprintf(interpreters[i].seed, sizeof interpreters[i].seed, "%d", 1000 + 37 * i);
    length += snprintf(command + length, sizeof command - (size_t)length, " %s",
                       interpreters[i].seed);
  }
  FILE *pipe = popen(command, "r");
  CHECK(pipe != NULL);
  for (int i = 0; i < INTERPRETERS; i++) {
    char *want = interpreters[i].want;
    CHECK(fgets(want, sizeof interpreters[i].want, pipe) != NULL);
    /* The seed, a blank, 64 digits and a line end, and no two alike. */
    CHECK_EQ(strlen(want), strlen(interpreters[i].seed) + 66);
    for (int j = 0; j < i; j++)
      CHECK(strcmp(want, interpreters[j].want) != 0);
  }
  CHECK_EQ(pclose(pipe), 0);
}

static void prepare(interpreter *interpreter, const char *folder) {
  /* No .pyc files, and no site module, which would look around for packages. */
  const char *argv[] = {"python", "-B", "-S", "/data/digest.py", interpreter->seed};
  memset(&interpreter->run, 0, sizeof interpreter->run);
  memcpy(interpreter->run.argv, argv, sizeof argv);
  interpreter->run.folder = folder;
}

static bool right(const interpreter *interpreter) {
  return real_succeeded(&interpreter->run) && real_is(&interpreter->run.out, interpreter->want);
}

static void control(bop_runtime_t *runtime, const char *folder) {
  CASE("control");
  real_guest empty;
  real_load_text(&empty, runtime, REAL_EMPTY);
  interpreter control = interpreters[0];
  prepare(&control, folder);
  real_fiber(runtime, &empty, &control.run);
  CHECK_EQ(control.run.outcome, BOP_OUTCOME_RETURNED);
  CHECK(!right(&control));
  real_unload(&empty);
}

int main(int argc, char **argv) {
  real_start("real cpython", argc, argv);
  const char *folder = real_argument();
  ask_this_machine(argc > 4 ? argv[4] : "python3", folder);
  bop_runtime_t *runtime = real_runtime();
  control(runtime, folder);

  CASE("compile");
  real_guest cpython;
  real_load(&cpython, runtime, "cpython.wasm");
  CASE("run");
  for (int i = 0; i < INTERPRETERS; i++) {
    prepare(&interpreters[i], folder);
    real_spawn(runtime, &cpython, &interpreters[i].run);
  }
  for (int i = 0; i < INTERPRETERS; i++) {
    real_run *run = &interpreters[i].run;
    real_join(run);
    if (!right(&interpreters[i]))
      t_fail(__FILE__, __LINE__, "seed %s: %s %s: wrote %.*s, not %s; %.*s", interpreters[i].seed,
             bop_outcome_name(run->outcome), run->reason, (int)run->out.size,
             (const char *)run->out.data, interpreters[i].want, (int)run->err.size,
             (const char *)run->err.data);
    real_delete(run);
  }
  real_check_preempted(runtime, 200);
  OK(bop_runtime_delete(runtime));
  real_unload(&cpython);
  return 0;
}
