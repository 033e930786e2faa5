/* Stores: one per fiber, many fibers in one, and exclusive use from a host thread. */
#include "support/support.h"

#include <pthread.h>

static wasm_trap_t *yields(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  atomic_int *count = env;
  if (count != NULL)
    ++*count;
  CHECK_EQ(bop_yield(), BOP_OK);
  return NULL;
}

/* Returns its argument, one turn later. */
static wasm_trap_t *echoes(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                           size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller;
  CHECK_EQ(nargs, 1);
  CHECK_EQ(nresults, 1);
  wasmtime_val_t argument = args[0];
  CHECK_EQ(bop_yield(), BOP_OK);
  results[0] = argument;
  return NULL;
}

static const t_import IMPORTS[] = {
    {"yield", "", "", yields, NULL}, {"echo", "I", "I", echoes, NULL}, {NULL, NULL, NULL, NULL, NULL}};

static const char *const GUEST =
    "(module (import \"host\" \"yield\" (func $yield))"
    "  (import \"host\" \"echo\" (func $echo (param i64) (result i64)))"
    "  (memory (export \"memory\") 1)"
    "  (global $sum (mut i64) (i64.const 0))"
    "  (func $fib (export \"fib\") (param i32) (result i32)"
    "    (if (result i32) (i32.lt_s (local.get 0) (i32.const 2)) (then (local.get 0))"
    "      (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))"
    "                     (call $fib (i32.sub (local.get 0) (i32.const 2)))))))"
    /* adds 1 to the global n times; between get and set nobody may come in */
    "  (func (export \"add\") (param $n i32)"
    "    (loop $l"
    "      (global.set $sum (i64.add (global.get $sum) (i64.const 1)))"
    "      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))"
    "  (func (export \"total\") (result i64) global.get $sum)"
    /* writes its id into its own 64 bytes, a word a turn, then counts the words that still hold it */
    "  (func (export \"region\") (param $id i32) (result i32) (local $i i32) (local $ok i32)"
    "    (loop $w"
    "      (i32.store (i32.add (i32.shl (local.get $id) (i32.const 6)) (local.get $i)) (local.get $id))"
    "      (call $yield)"
    "      (br_if $w (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 64))))"
    "    (local.set $i (i32.const 0))"
    "    (loop $r"
    "      (local.set $ok (i32.add (local.get $ok) (i32.eq (local.get $id)"
    "        (i32.load (i32.add (i32.shl (local.get $id) (i32.const 6)) (local.get $i))))))"
    "      (br_if $r (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 64))))"
    "    local.get $ok)"
    /* recursion with values of three types in flight over each suspension:
       f(n) = n * x + 3 n + f(n - 1) */
    "  (func $flight (export \"flight\") (param $n i32) (param $x i32) (result i64) (local $f f64)"
    "    (if (i32.eqz (local.get $n)) (then (return (i64.const 0))))"
    "    (local.set $f (f64.mul (f64.const 3) (f64.convert_i32_s (local.get $n))))"
    "    (i64.add"
    "      (i64.add"
    "        (i64.mul (i64.extend_i32_s (local.get $n)) (call $echo (i64.extend_i32_s (local.get $x))))"
    "        (call $echo (i64.trunc_f64_s (local.get $f))))"
    "      (call $flight (i32.sub (local.get $n) (i32.const 1)) (local.get $x))))"
    "  (func (export \"spin\") (loop (i64.store (i32.const 0)"
    "      (i64.add (i64.const 1) (i64.load (i32.const 0)))) (br 0))))";

static void foreign_engine(bop_runtime_t *runtime) {
  CASE("store of another engine");
  wasm_engine_t *engine = wasm_engine_new();
  bop_store_t *store = NULL;
  FAILS(bop_store_new(runtime, wasmtime_store_new(engine, NULL, NULL), &store), "engine");
  CHECK(store == NULL);
  wasm_engine_delete(engine);
}

static void own_stores(bop_runtime_t *runtime) {
  CASE("own stores");
  enum { N = 50 };
  static t_guest guests[N];
  bop_fiber_t *fibers[N];
  for (int i = 0; i < N; i++) {
    t_guest_new(&guests[i], runtime, GUEST, IMPORTS);
    FAILS(bop_store_weight(guests[i].store, 0), "1 to 1000");
    FAILS(bop_store_weight(guests[i].store, 1001), "1 to 1000");
    OK(bop_store_weight(guests[i].store, (uint32_t)(1 + i * 20)));
    fibers[i] = t_spawn1(&guests[i], "fib", i % 20);
  }
  int64_t fib[20] = {0, 1};
  for (int i = 2; i < 20; i++)
    fib[i] = fib[i - 1] + fib[i - 2];
  for (int i = 0; i < N; i++) {
    CHECK_EQ(t_result(fibers[i]), fib[i % 20]);
    t_guest_delete(&guests[i]);
  }
}

static void one_store(bop_runtime_t *runtime) {
  CASE("one store: shared global");
  enum { N = 64 };
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *fibers[N];
  for (int i = 0; i < N; i++)
    fibers[i] = t_spawn1(&guest, "add", 10000);
  for (int i = 0; i < N; i++)
    ENDS(fibers[i], BOP_OUTCOME_RETURNED);
  CHECK_EQ(t_result(t_spawn0(&guest, "total")), N * 10000);

  CASE("one store: shared memory");
  for (int i = 0; i < N; i++)
    fibers[i] = t_spawn1(&guest, "region", i + 1);
  for (int i = 0; i < N; i++)
    CHECK_EQ(t_result(fibers[i]), 16);

  CASE("one store: values in flight");
  for (int i = 0; i < N; i++)
    fibers[i] = t_spawn(&guest, "flight", (int32_t[]){20 + i, 1000 * i}, 2);
  for (int64_t i = 0; i < N; i++) {
    int64_t n = 20 + i;
    CHECK_EQ(t_result(fibers[i]), n * (n + 1) / 2 * (1000 * i + 3));
  }
  t_guest_delete(&guest);
}

static wasmtime_memory_t memory_of(wasmtime_context_t *context, const t_guest *guest) {
  wasmtime_extern_t item;
  CHECK(wasmtime_instance_export_get(context, &guest->instance, "memory", 6, &item));
  CHECK_EQ(item.kind, WASMTIME_EXTERN_MEMORY);
  return item.of.memory;
}

static uint64_t word0(wasmtime_context_t *context, const wasmtime_memory_t *memory) {
  uint64_t word;
  memcpy(&word, wasmtime_memory_data(context, memory), sizeof word);
  return word;
}

static void enter(bop_runtime_t *runtime) {
  CASE("enter and exit");
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  wasmtime_context_t *context = NULL;
  FAILS(bop_store_exit(guest.store), "enter");
  OK(bop_store_enter(guest.store, &context));
  CHECK(context != NULL);
  wasmtime_context_t *again = NULL;
  FAILS(bop_store_enter(guest.store, &again), "enter");
  CHECK(again == NULL);

  /* Wasm on a host thread, longer than many quanta of the spinner next door: not interrupted. */
  t_guest other;
  t_guest_new(&other, runtime, GUEST, IMPORTS);
  bop_fiber_t *spinners[4];
  for (int i = 0; i < 4; i++)
    spinners[i] = t_spawn0(&other, "spin");
  EVENTUALLY(t_stats(runtime).ticks > 0);
  wasmtime_val_t argument = t_i32(20000000), result;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_func_call(context, t_export(&guest, "add"), &argument, 1, NULL, 0, &trap));
  CHECK(trap == NULL);
  OK(wasmtime_func_call(context, t_export(&guest, "total"), NULL, 0, &result, 1, &trap));
  CHECK(trap == NULL);
  CHECK_EQ(result.of.i64, 20000000);
  /* Host functions that would suspend: on a plain thread a yield does nothing, and says OK. */
  OK(wasmtime_func_call(context, t_export(&guest, "flight"), (wasmtime_val_t[]){t_i32(3), t_i32(5)},
                        2, &result, 1, &trap));
  CHECK(trap == NULL);
  CHECK_EQ(result.of.i64, 6 * 8);
  OK(bop_store_exit(guest.store));
  FAILS(bop_store_exit(guest.store), "enter");
  CHECK_EQ(t_result(t_spawn0(&guest, "total")), 20000000);

  CASE("enter while fibers run");
  for (int i = 0; i < 20; i++) {
    OK(bop_store_enter(other.store, &context));
    wasmtime_memory_t memory = memory_of(context, &other);
    uint64_t before = word0(context, &memory);
    t_pause(2 * MS);
    CHECK_EQ(word0(context, &memory), before); /* nobody else is in */
    OK(bop_store_exit(other.store));
    uint64_t now = before;
    EVENTUALLY((OK(bop_store_enter(other.store, &context)), now = word0(context, &memory),
                OK(bop_store_exit(other.store)), now != before));
  }
  t_cancel_all(spinners, 4);
  t_guest_delete(&other);
  t_guest_delete(&guest);
}

static struct {
  bop_store_t *store;
  atomic_int inside;
  atomic_int turns;
} shared;

static void *enters(void *unused) {
  (void)unused;
  for (int i = 0; i < 50; i++) {
    wasmtime_context_t *context = NULL;
    OK(bop_store_enter(shared.store, &context));
    CHECK_EQ(++shared.inside, 1);
    ++shared.turns;
    t_pause(MS / 10);
    --shared.inside;
    OK(bop_store_exit(shared.store));
  }
  return NULL;
}

static int64_t enters_as_a_fiber(void *store) {
  wasmtime_context_t *context = NULL;
  FAILS(bop_store_enter(store, &context), "fiber");
  CHECK(context == NULL);
  FAILS(bop_store_exit(store), "fiber");
  return 5;
}

static void enter_from_threads(bop_runtime_t *runtime) {
  CASE("enter from several threads");
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  shared.store = guest.store;
  bop_fiber_t *fiber = t_spawn1(&guest, "region", 3);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, enters, NULL), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(shared.turns, 200);
  CHECK_EQ(t_result(fiber), 16);
  CHECK_EQ(t_result(t_spawn_host(runtime, enters_as_a_fiber, guest.store, NULL)), 5);
  t_guest_delete(&guest);
}

/* What would wait for ever says so instead. */
static void enter_in_vain(void) {
  CASE("enter without workers");
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  wasmtime_context_t *context = NULL;
  OK(bop_store_enter(guest.store, &context)); /* nobody is in the way */
  bop_fiber_t *fiber = t_spawn1(&guest, "fib", 10);
  FAILS(bop_run(runtime), "entered");
  FAILS(bop_runtime_shutdown(runtime, MS), "entered");
  CHECK_EQ(bop_fiber_join(fiber, NULL), BOP_NOT_ALLOWED);
  OK(bop_store_exit(guest.store));
  context = NULL;
  FAILS(bop_store_enter(guest.store, &context), "worker"); /* the fiber is queued */
  CHECK(context == NULL);
  OK(bop_run(runtime));
  CHECK_EQ(t_result(fiber), 55);
  OK(bop_store_enter(guest.store, &context));
  OK(bop_store_exit(guest.store));
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void *enters_and_exits(void *store) {
  for (int i = 0; i < 20000; i++) {
    wasmtime_context_t *context = NULL;
    OK(bop_store_enter(store, &context));
    OK(bop_store_exit(store));
  }
  return NULL;
}

static void enter_by_many_without_workers(void) {
  CASE("enter by many without workers");
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, enters_and_exits, guest.store), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

/* A thread that wants the store does not wait for the end of a quantum, here an hour. */
static void enter_comes_before_the_quantum(void) {
  CASE("enter with a long quantum");
  bop_runtime_t *runtime = t_runtime(1, 3600 * SECOND);
  OK(bop_runtime_start(runtime));
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  bop_fiber_t *spinner = t_spawn0(&guest, "spin");
  EVENTUALLY(bop_fiber_state(spinner) == BOP_STATE_RUNNING);
  for (int i = 0; i < 50; i++) {
    wasmtime_context_t *context = NULL;
    OK(bop_store_enter(guest.store, &context));
    CHECK(bop_fiber_state(spinner) != BOP_STATE_RUNNING);
    OK(bop_store_exit(guest.store));
  }
  t_cancel_all(&spinner, 1);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void *spawns_inside(void *data) {
  const t_guest *guest = data;
  for (int i = 0; i < 3000; i++) {
    wasmtime_context_t *context = NULL;
    wasmtime_error_t *error = bop_store_enter(guest->store, &context);
    if (error != NULL) { /* stranded: whoever runs the fibers gets it out */
      wasmtime_error_delete(error);
      continue;
    }
    if (i % 3 == 0)
      bop_fiber_detach(t_spawn1(guest, "fib", 1));
    OK(bop_store_exit(guest->store));
  }
  return NULL;
}

/* Fibers come and nobody runs them: threads that want the store are told, and none is left behind. */
static void enter_while_it_strands(void) {
  CASE("enter while fibers are left to nobody");
  bop_runtime_t *runtime = t_runtime(1, 0);
  t_guest guest;
  t_guest_new(&guest, runtime, GUEST, IMPORTS);
  for (int round = 0; round < 30; round++) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
      CHECK_EQ(pthread_create(&threads[i], NULL, spawns_inside, &guest), 0);
    for (int i = 0; i < 2; i++)
      CHECK_EQ(pthread_join(threads[i], NULL), 0);
    OK(bop_run(runtime));
  }
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

static void async_store(bop_runtime_t *runtime) {
  CASE("a store for async calls");
  wasmtime_store_t *raw = wasmtime_store_new(bop_runtime_engine(runtime), NULL, NULL);
  /* Declared with an error to return, which Wasmtime 48 never does: the value is not there. */
  (void)wasmtime_context_epoch_deadline_async_yield_and_update(wasmtime_store_context(raw), 1);
  bop_store_t *store = NULL;
  FAILS(bop_store_new(runtime, raw, &store), "async");
  CHECK(store == NULL);
}

static bop_store_t *entered_store;
static wasm_trap_t *exits_inside(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                 size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  FAILS(bop_store_exit(entered_store), "stack");
  if (env != NULL)
    bop_store_delete(entered_store); /* it is in use: it stays */
  return NULL;
}

static void exit_inside_wasm(bop_runtime_t *runtime) {
  CASE("exit inside Wasm");
  const t_import imports[] = {{"exit", "", "", exits_inside, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (import \"host\" \"exit\" (func $e)) (func (export \"run\") (call $e)))", imports);
  entered_store = guest.store;
  wasmtime_context_t *context = NULL;
  wasm_trap_t *trap = NULL;
  OK(bop_store_enter(guest.store, &context));
  OK(wasmtime_func_call(context, t_export(&guest, "run"), NULL, 0, NULL, 0, &trap));
  CHECK(trap == NULL);
  OK(bop_store_exit(guest.store));
  /* The same for a host function that is called without any Wasm. */
  OK(bop_store_enter(guest.store, &context));
  wasm_functype_t *type = t_functype("", "");
  wasmtime_func_t direct;
  wasmtime_func_new(context, type, exits_inside, NULL, NULL, &direct);
  OK(wasmtime_func_call(context, &direct, NULL, 0, NULL, 0, &trap));
  CHECK(trap == NULL);
  wasm_functype_delete(type);
  OK(bop_store_exit(guest.store));
  t_guest_delete(&guest);
}

static void never_freed(void *data) {
  (void)data;
  t_fail(__FILE__, __LINE__, "a store was freed under its own Wasm");
}

static void delete_inside_wasm(void) {
  CASE("delete inside Wasm");
  static int yes = 1;
  const t_import imports[] = {{"exit", "", "", exits_inside, &yes}, {NULL, NULL, NULL, NULL, NULL}};
  bop_runtime_t *runtime = t_runtime(1, 0);
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_store_t *raw = wasmtime_store_new(engine, &yes, never_freed);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  wasmtime_instance_t instance =
      t_instance(engine, context,
                 "(module (import \"host\" \"exit\" (func $e)) (func (export \"run\") (call $e)))", imports);
  wasmtime_func_t run = t_func(context, &instance, "run");
  OK(bop_store_new(runtime, raw, &entered_store));
  wasm_trap_t *trap = NULL;
  OK(bop_store_enter(entered_store, &context));
  OK(wasmtime_func_call(context, &run, NULL, 0, NULL, 0, &trap));
  CHECK(trap == NULL);
}

/* The last user of a store may be a worker between two fibers: nothing may block there. */
static bop_fiber_t *other_fiber;
static atomic_int refused;
static void blocks(void *data) {
  (void)data;
  bop_outcome_t outcome;
  CHECK_EQ(bop_sleep(MS), BOP_NOT_ALLOWED);
  CHECK_EQ(bop_park(), BOP_NOT_FIBER);
  CHECK_EQ(bop_fiber_join(other_fiber, &outcome), BOP_NOT_ALLOWED);
  CHECK_EQ(bop_yield(), BOP_OK);
  CHECK(bop_current() == NULL);
  refused = 1;
}

static int64_t waits(void *env) {
  (void)env;
  return bop_park();
}

static void finalizer_on_a_worker(bop_runtime_t *runtime) {
  CASE("a finalizer on a worker");
  wasmtime_store_t *raw = wasmtime_store_new(bop_runtime_engine(runtime), &refused, blocks);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  wasmtime_instance_t instance = t_instance(bop_runtime_engine(runtime), context, GUEST, IMPORTS);
  wasmtime_func_t spin = t_func(context, &instance, "spin");
  bop_store_t *store = NULL;
  OK(bop_store_new(runtime, raw, &store));
  other_fiber = t_spawn_host(runtime, waits, NULL, NULL);
  bop_fiber_t *fiber = NULL;
  OK(bop_store_enter(store, &context));
  OK(bop_spawn(store, &spin, NULL, 0, NULL, &fiber));
  bop_store_delete(store); /* exits, too; the spinner is the last user */
  CHECK_EQ(refused, 0);
  t_cancel_all(&fiber, 1);
  EVENTUALLY(refused == 1);
  CHECK_EQ(bop_unpark(other_fiber), BOP_OK);
  CHECK_EQ(t_result(other_fiber), BOP_OK);
}

static atomic_int freed;
static void frees(void *data) { freed += *(int *)data; }

static void lifetime(bop_runtime_t *runtime) {
  CASE("a store lives as long as its fibers");
  static int one = 1;
  static atomic_int calls;
  const t_import imports[] = {{"yield", "", "", yields, &calls},
                              {"echo", "I", "I", echoes, NULL},
                              {NULL, NULL, NULL, NULL, NULL}};
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_store_t *raw = wasmtime_store_new(engine, &one, frees);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  wasmtime_instance_t instance = t_instance(engine, context, GUEST, imports);
  wasmtime_func_t region = t_func(context, &instance, "region");
  bop_store_t *store = NULL;
  OK(bop_store_new(runtime, raw, &store));
  bop_fiber_t *fibers[8];
  for (int i = 0; i < 8; i++) {
    wasmtime_val_t id = t_i32(i);
    OK(bop_spawn(store, &region, &id, 1, NULL, &fibers[i]));
  }
  bop_store_delete(store);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(t_result(fibers[i]), 16);
  CHECK_EQ(calls, 8 * 16);
  EVENTUALLY(freed == 1);
}

static int refusals;
static wasm_trap_t *may_yield(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                              size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)results, (void)nresults;
  bop_status_t status = bop_yield();
  CHECK(status == BOP_OK || status == BOP_STORE_HAS_GC);
  refusals += status == BOP_STORE_HAS_GC;
  return NULL;
}

/* W9: a collection would not see the roots of a suspended sibling, so such a store is refused a
 * second fiber, or that fiber a suspension, with a clear word. */
static void gc_heap(void) {
  CASE("GC heap");
  wasm_config_t *wasm = wasm_config_new();
  wasmtime_config_wasm_function_references_set(wasm, true);
  wasmtime_config_wasm_gc_set(wasm, true);
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_wasm(config, wasm);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  const t_import imports[] = {{"yield", "", "", may_yield, NULL}, {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, runtime,
              "(module (type $box (struct (field i32)))"
              "  (import \"host\" \"yield\" (func $yield))"
              "  (func (export \"boxed\") (param i32) (result i32) (local $b (ref null $box))"
              "    (local.set $b (struct.new $box (local.get 0)))"
              "    (call $yield)"
              "    (struct.get $box 0 (local.get $b))))",
              imports);
  bop_fiber_t *fiber = t_spawn1(&guest, "boxed", 77);
  OK(bop_run(runtime));
  CHECK_EQ(t_result(fiber), 77); /* alone it may suspend */
  CHECK_EQ(refusals, 0);

  fiber = t_spawn1(&guest, "boxed", 78);
  bop_fiber_t *second = NULL;
  wasmtime_val_t argument = t_i32(79);
  wasmtime_error_t *error = bop_spawn(guest.store, t_export(&guest, "boxed"), &argument, 1, NULL, &second);
  OK(bop_run(runtime));
  CHECK_EQ(t_result(fiber), 78);
  if (error != NULL) {
    FAILS(error, "GC");
  } else {
    CHECK(refusals > 0);
    CHECK_EQ(t_result(second), 79);
  }
  /* Who has joined the one fiber may spawn the next. */
  for (int i = 0; i < 2000; i++) {
    fiber = t_spawn1(&guest, "boxed", i);
    OK(bop_run(runtime));
    CHECK_EQ(t_result(fiber), i);
  }
  OK(bop_runtime_start(runtime));
  for (int i = 0; i < 2000; i++)
    CHECK_EQ(t_result(t_spawn1(&guest, "boxed", i)), i);
  t_guest_delete(&guest);
  OK(bop_runtime_delete(runtime));
}

int main(void) {
  t_start("store");
  bop_runtime_t *runtime = t_runtime(2, 50000);
  OK(bop_runtime_start(runtime));
  foreign_engine(runtime);
  own_stores(runtime);
  one_store(runtime);
  enter(runtime);
  enter_from_threads(runtime);
  lifetime(runtime);
  finalizer_on_a_worker(runtime);
  async_store(runtime);
  exit_inside_wasm(runtime);
  enter_in_vain();
  enter_by_many_without_workers();
  enter_while_it_strands();
  enter_comes_before_the_quantum();
  OK(bop_runtime_delete(runtime));
  gc_heap();
  if (!T_ASAN) /* it leaks, and is meant to */
    delete_inside_wasm();
  return 0;
}
