/* Boolector, a solver: is a number a product? The exit codes 10 (sat) and 20 (unsat) are results,
 * not traps. Arithmetic in C knows the answer, and checks the factors that the solver found. */
#include "real.h"

#include <inttypes.h>

/* Factors of fewer bits than this. */
enum { BITS = 14 };

static const uint32_t NUMBERS[] = {
    200000033, 16381u * 16369u, 3u * 61,        16001u * 16001u, 199999991, 12289u * 8191u,
    15,        101u * 9973u,    16001u * 2u,    200000477,       7919,      2u * 16363u,
    13u * 17,  16057u * 15991u, 4093u * 16369u, 199999967,
};
enum { PROBLEMS = sizeof NUMBERS / sizeof NUMBERS[0] };

/* Whether two numbers, each more than 1 and of so few bits, have this product. */
static bool is_product(uint32_t n) {
  for (uint32_t a = 2; a < 1u << BITS && (uint64_t)a * a <= n; a++)
    if (n % a == 0 && n / a < 1u << BITS)
      return true;
  return false;
}

static void prepare(real_run *run, uint32_t n) {
  char text[768];
  int width = 2 * BITS;
  int length =
      snprintf(text, sizeof text,
               "(set-logic QF_BV)"
               "(declare-fun x () (_ BitVec %d)) (declare-fun y () (_ BitVec %d))"
               "(assert (= (bvmul x y) (_ bv%" PRIu32 " %d)))"
               "(assert (bvult (_ bv1 %d) x)) (assert (bvult (_ bv1 %d) y))"
               "(assert (bvult x (_ bv%d %d))) (assert (bvult y (_ bv%d %d)))"
               "(check-sat)\n",
               width, width, n, width, width, width, 1 << BITS, width, 1 << BITS, width);
  *run = (real_run){.argv = {"boolector", "-m"}};
  real_append(&run->in, text, (size_t)length);
}

/* The value that the model gives to a variable: "(define-fun x () (_ BitVec 28) #b0...101)". */
static uint64_t value(const real_run *run, const char *name) {
  char start[64], *text = strndup((const char *)run->out.data, run->out.size);
  snprintf(start, sizeof start, "define-fun %s ", name);
  char *at = text == NULL ? NULL : strstr(text, start);
  at = at == NULL ? NULL : strstr(at, "#b");
  uint64_t found = at == NULL ? 0 : strtoull(at + 2, NULL, 2);
  free(text);
  return found;
}

static bool right(const real_run *run, uint32_t n) {
  if (run->outcome != BOP_OUTCOME_EXITED)
    return false;
  if (!is_product(n))
    return run->code == 20 && real_is(&run->out, "unsat\n");
  uint64_t x = value(run, "x"), y = value(run, "y");
  return run->code == 10 && x > 1 && y > 1 && x < 1u << BITS && y < 1u << BITS && x * y == n;
}

static void control(bop_runtime_t *runtime) {
  CASE("control");
  real_guest empty;
  real_load_text(&empty, runtime, REAL_EMPTY);
  real_run run;
  prepare(&run, NUMBERS[0]);
  real_fiber(runtime, &empty, &run);
  CHECK_EQ(run.outcome, BOP_OUTCOME_RETURNED);
  CHECK(!right(&run, 200000033));
  CHECK(!right(&run, 15));
  real_delete(&run);
  real_unload(&empty);
}

int main(int argc, char **argv) {
  real_start("real boolector", argc, argv);
  CHECK(!is_product(200000033)); /* a prime */
  CHECK(is_product(15));
  bop_runtime_t *runtime = real_runtime();
  control(runtime);

  CASE("solve");
  real_guest boolector;
  real_load(&boolector, runtime, "boolector.wasm");
  static real_run runs[PROBLEMS];
  int products = 0;
  for (int i = 0; i < PROBLEMS; i++) {
    prepare(&runs[i], NUMBERS[i]);
    real_spawn(runtime, &boolector, &runs[i]);
    products += is_product(NUMBERS[i]);
  }
  CHECK(products >= 4 && products <= PROBLEMS - 4); /* both answers are asked for */
  for (int i = 0; i < PROBLEMS; i++) {
    real_join(&runs[i]);
    if (!right(&runs[i], NUMBERS[i]))
      t_fail(__FILE__, __LINE__, "%" PRIu32 ": %s with code %d %s: %.*s%.*s", NUMBERS[i],
             bop_outcome_name(runs[i].outcome), (int)runs[i].code, runs[i].reason,
             (int)runs[i].out.size, (const char *)runs[i].out.data, (int)runs[i].err.size,
             (const char *)runs[i].err.data);
    real_delete(&runs[i]);
  }
  real_check_preempted(runtime, 100);
  OK(bop_runtime_delete(runtime));
  real_unload(&boolector);
  return 0;
}
