/* The hooks: Wasm on coroutines that are not BOP's (ucontext), suspended in the middle of a host
 * function and resumed on other threads. No runtime is made here: the engine is a plain one. */
#include "support/support.h"

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { STACK = 512 << 10, HOST_STACK = 128 << 10 };

typedef struct coroutine {
  ucontext_t self, resumer;
  bop_activation_t activation;
  void *stack;
  bool finished;
  /* what it calls, and what came of it */
  struct guest *guest;
  const char *name;
  wasmtime_val_t args[2];
  size_t nargs;
  int64_t result;
  wasm_trap_t *trap;
  void *word; /* its activation pointer, for the test that swaps it by hand */
} coroutine;

typedef struct guest {
  wasmtime_store_t *store;
  wasmtime_context_t *context;
  wasmtime_instance_t instance;
  coroutine *running; /* the one coroutine of this store that has the turn */
} guest;

/* The host function: out of the coroutine, and back in, perhaps on another thread. */
static wasm_trap_t *suspends(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                             size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)nargs, (void)nresults;
  coroutine *me = ((guest *)env)->running;
  int64_t argument = args[0].of.i64;
  CHECK(wasmtime_tls_get() != NULL); /* Wasm is on this stack */
  CHECK_EQ(swapcontext(&me->self, &me->resumer), 0);
  CHECK(((guest *)env)->running == me);
  CHECK(wasmtime_tls_get() != NULL);
  results[0] = t_i64(argument);
  return NULL;
}

static const char *const GUEST =
    "(module (import \"host\" \"suspend\" (func $suspend (param i64) (result i64)))"
    /* f(n, x) = n * x + f(n - 1, x), a suspension on every level, with floats in flight */
    "  (func $mul (export \"mul\") (param $n i32) (param $x i32) (result i64) (local $f f64)"
    "    (if (i32.eqz (local.get $n)) (then (return (i64.const 0))))"
    "    (local.set $f (f64.convert_i32_s (local.get $n)))"
    "    (i64.add"
    "      (i64.trunc_f64_s (f64.mul (local.get $f)"
    "        (f64.convert_i64_s (call $suspend (i64.extend_i32_s (local.get $x))))))"
    "      (call $mul (i32.sub (local.get $n) (i32.const 1)) (local.get $x))))"
    "  (func $turns (param i32) (loop (if (local.get 0) (then"
    "    (drop (call $suspend (i64.const 0)))"
    "    (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br 1)))))"
    "  (func $wall (param i32) (call $turns (local.get 0)) unreachable)"
    "  (func $a_wall (export \"wall\") (param i32) (call $wall (local.get 0)))"
    "  (func $divider (param i32) (call $turns (local.get 0))"
    "    (drop (i32.div_u (i32.const 1) (i32.const 0))))"
    "  (func $b_div (export \"div\") (param i32) (call $divider (local.get 0)))"
    "  (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))"
    "  (func $c_deep (export \"deep\") (param i32)"
    "    (call $turns (local.get 0)) (drop (call $deep (local.get 0)))))";

static void guest_new(guest *g, wasm_engine_t *engine) {
  const t_import imports[] = {{"suspend", "I", "I", suspends, g}, {NULL, NULL, NULL, NULL, NULL}};
  g->store = wasmtime_store_new(engine, NULL, NULL);
  g->context = wasmtime_store_context(g->store);
  g->instance = t_instance(engine, g->context, GUEST, imports);
  g->running = NULL;
}

static void entry(unsigned high, unsigned low) {
  coroutine *me = (coroutine *)((uintptr_t)high << 32 | low);
  guest *g = me->guest;
  wasmtime_func_t func = t_func(g->context, &g->instance, me->name);
  wasmtime_val_t result = t_i64(0);
  bool returns = strcmp(me->name, "mul") == 0;
  OK(wasmtime_func_call(g->context, &func, me->args, me->nargs, &result, returns, &me->trap));
  me->result = result.of.i64;
  me->finished = true;
  swapcontext(&me->self, &me->resumer);
}

static void coroutine_new(coroutine *c, guest *g, const char *name, int n, int x) {
  memset(c, 0, sizeof *c);
  c->guest = g;
  c->name = name;
  c->args[0] = t_i32(n);
  c->args[1] = t_i32(x);
  c->nargs = strcmp(name, "mul") == 0 ? 2 : 1;
  c->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(c->stack != MAP_FAILED);
  CHECK_EQ(getcontext(&c->self), 0);
  c->self.uc_stack.ss_sp = c->stack;
  c->self.uc_stack.ss_size = STACK;
  uintptr_t me = (uintptr_t)c;
  makecontext(&c->self, (void (*)(void))entry, 2, (unsigned)(me >> 32), (unsigned)me);
  OK(bop_activation_init(&c->activation, c->stack, STACK, HOST_STACK));
}

static void coroutine_free(coroutine *c) {
  if (c->trap != NULL)
    wasm_trap_delete(c->trap);
  CHECK_EQ(munmap(c->stack, STACK), 0);
}

/* One turn, on the thread that calls. */
static void resume(coroutine *c) {
  guest *g = c->guest;
  CHECK(!c->finished);
  g->running = c;
  OK(bop_activation_restore(g->context, &c->activation));
  CHECK_EQ(swapcontext(&c->resumer, &c->self), 0);
  OK(bop_activation_save(g->context, &c->activation));
  g->running = NULL;
  CHECK(wasmtime_tls_get() == NULL); /* nothing of the coroutine stays on this thread */
}

static void *resume_on_thread(void *c) {
  OK(wasmtime_store_tls_init());
  CHECK(wasmtime_tls_get() == NULL);
  resume(c);
  return NULL;
}

static void resume_elsewhere(coroutine *c) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, resume_on_thread, c), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static int64_t mul(int64_t n, int64_t x) { return n * (n + 1) / 2 * x; }

/* Plain calls on the thread's own stack: the store has its own state back. */
static void still_plain(guest *g) {
  wasmtime_func_t func = t_func(g->context, &g->instance, "mul");
  wasmtime_val_t args[2] = {t_i32(0), t_i32(1)}, result;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_func_call(g->context, &func, args, 2, &result, 1, &trap));
  CHECK(trap == NULL && result.of.i64 == 0);
  func = t_func(g->context, &g->instance, "deep");
  args[0] = t_i32(0);
  OK(wasmtime_func_call(g->context, &func, args, 1, NULL, 0, &trap));
  CHECK_EQ(t_trap_code(trap), WASMTIME_TRAP_CODE_STACK_OVERFLOW);
  wasm_trap_delete(trap);
}

static void one(wasm_engine_t *engine) {
  CASE("one coroutine, one thread");
  guest g;
  guest_new(&g, engine);
  coroutine c;
  coroutine_new(&c, &g, "mul", 5, 1000);
  for (int i = 0; i < 5; i++) {
    resume(&c);
    CHECK(!c.finished);
    still_plain(&g); /* a suspended coroutine does not keep the store from being used */
  }
  resume(&c);
  CHECK(c.finished && c.trap == NULL);
  CHECK_EQ(c.result, mul(5, 1000));
  coroutine_free(&c);

  CASE("one coroutine, a thread for each turn");
  coroutine_new(&c, &g, "mul", 9, -3);
  for (int i = 0; i < 10; i++)
    resume_elsewhere(&c);
  CHECK(c.finished && c.trap == NULL);
  CHECK_EQ(c.result, mul(9, -3));
  coroutine_free(&c);
  still_plain(&g);
  wasmtime_store_delete(g.store);
}

static void interleaved(wasm_engine_t *engine) {
  CASE("coroutines interleaved in one store");
  enum { N = 8 };
  guest g;
  guest_new(&g, engine);
  static coroutine c[N];
  for (int i = 0; i < N; i++)
    coroutine_new(&c[i], &g, "mul", 3 + i, 100 + i);
  int left = N;
  for (int turn = 0; left > 0; turn++)
    for (int i = 0; i < N; i++) {
      coroutine *next = &c[turn % 2 ? N - 1 - i : i]; /* not always the same neighbours */
      if (next->finished)
        continue;
      if ((turn + i) % 3 == 0)
        resume_elsewhere(next);
      else
        resume(next);
      left -= next->finished;
    }
  for (int i = 0; i < N; i++) {
    CHECK(c[i].trap == NULL);
    CHECK_EQ(c[i].result, mul(3 + i, 100 + i));
    coroutine_free(&c[i]);
  }
  still_plain(&g);
  wasmtime_store_delete(g.store);
}

static void traps(wasm_engine_t *engine) {
  CASE("traps after a migration");
  static const struct {
    const char *name, *trace;
    int code;
  } kinds[] = {{"wall", "wall a_wall", WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED},
               {"div", "divider b_div", WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO},
               {"deep", "deep deep deep", WASMTIME_TRAP_CODE_STACK_OVERFLOW},
               {"mul", NULL, -1}};
  enum { N = 16 };
  guest g;
  guest_new(&g, engine);
  static coroutine c[N];
  for (int i = 0; i < N; i++)
    coroutine_new(&c[i], &g, kinds[i % 4].name, 1 + i % 5, 7 * i);
  int left = N;
  while (left > 0)
    for (int i = 0; i < N; i++)
      if (!c[i].finished) {
        resume_elsewhere(&c[i]);
        left -= c[i].finished;
      }
  for (int i = 0; i < N; i++) {
    if (kinds[i % 4].trace == NULL) {
      CHECK(c[i].trap == NULL);
      CHECK_EQ(c[i].result, mul(1 + i % 5, 7 * i));
    } else {
      CHECK(c[i].trap != NULL);
      CHECK_EQ(t_trap_code(c[i].trap), kinds[i % 4].code);
      const char *trace = t_trap_trace(c[i].trap), *want = kinds[i % 4].trace;
      if (strncmp(trace, want, strlen(want)) != 0 || (i % 4 != 2 && strcmp(trace, want) != 0))
        t_fail(__FILE__, __LINE__, "%s: trace is \"%s\", not \"%s\"", c[i].name, trace, want);
    }
    coroutine_free(&c[i]);
  }
  still_plain(&g);
  wasmtime_store_delete(g.store);
}

/* With one coroutine per store the pointer alone is enough, and may be swapped by hand. */
static void *resume_by_hand(void *data) {
  coroutine *c = data;
  OK(wasmtime_store_tls_init());
  void *mine = wasmtime_tls_get();
  c->guest->running = c;
  wasmtime_tls_set(c->word);
  CHECK(wasmtime_tls_get() == c->word);
  CHECK_EQ(swapcontext(&c->resumer, &c->self), 0);
  c->word = wasmtime_tls_get();
  wasmtime_tls_set(mine);
  CHECK(wasmtime_tls_get() == mine);
  CHECK((c->word == NULL) == c->finished);
  return NULL;
}

static void by_hand(void) {
  CASE("the pointer swapped by hand");
  wasm_config_t *config = wasm_config_new();
  wasmtime_config_max_wasm_stack_set(config, STACK / 2); /* measured from where Wasm was entered */
  wasm_engine_t *engine = wasm_engine_new_with_config(config);
  guest g[2];
  coroutine c[2];
  for (int i = 0; i < 2; i++) {
    guest_new(&g[i], engine);
    coroutine_new(&c[i], &g[i], i ? "wall" : "mul", 4, 25);
  }
  for (int turn = 0; turn < 5; turn++)
    for (int i = 0; i < 2; i++) {
      pthread_t thread;
      CHECK_EQ(pthread_create(&thread, NULL, resume_by_hand, &c[i]), 0);
      CHECK_EQ(pthread_join(thread, NULL), 0);
    }
  CHECK(c[0].finished && c[0].trap == NULL);
  CHECK_EQ(c[0].result, mul(4, 25));
  CHECK(c[1].finished && c[1].trap != NULL);
  CHECK(strcmp(t_trap_trace(c[1].trap), "wall a_wall") == 0);
  for (int i = 0; i < 2; i++) {
    coroutine_free(&c[i]);
    wasmtime_store_delete(g[i].store);
  }
  wasm_engine_delete(engine);
}

static void errors(wasm_engine_t *engine) {
  CASE("errors");
  bop_activation_t activation;
  static char stack[64 << 10];
  FAILS(bop_activation_init(NULL, stack, sizeof stack, 4096), "NULL");
  FAILS(bop_activation_init(&activation, NULL, sizeof stack, 4096), "NULL");
  FAILS(bop_activation_init(&activation, stack, 16, 8), "stack");
  FAILS(bop_activation_init(&activation, stack, sizeof stack, sizeof stack), "stack");
  FAILS(bop_activation_init(&activation, stack, SIZE_MAX, 4096), "stack");
  OK(bop_activation_init(&activation, stack, sizeof stack, 4096));
  FAILS(bop_activation_restore(NULL, &activation), "NULL");
  FAILS(bop_activation_save(NULL, &activation), "NULL");
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  FAILS(bop_activation_restore(wasmtime_store_context(store), NULL), "NULL");
  FAILS(bop_activation_save(wasmtime_store_context(store), NULL), "NULL");
  /* Out of order: told, and nothing is lost. */
  wasmtime_context_t *context = wasmtime_store_context(store);
  FAILS(bop_activation_save(context, &activation), "restore");
  OK(bop_activation_restore(context, &activation));
  FAILS(bop_activation_restore(context, &activation), "save");
  OK(bop_activation_save(context, &activation));
  FAILS(bop_activation_save(context, &activation), "restore");
  wasmtime_store_delete(store);
}

int main(void) {
  t_start("hooks");
  OK(wasmtime_store_tls_init());
  OK(wasmtime_store_tls_init()); /* again is harmless */
  CHECK(wasmtime_tls_get() == NULL);
  wasm_engine_t *engine = wasm_engine_new();
  one(engine);
  interleaved(engine);
  traps(engine);
  by_hand();
  errors(engine);
  wasm_engine_delete(engine);
  return 0;
}
