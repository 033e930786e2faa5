/* 100,000 fibers of one instance, parked, and woken in random order: each finds its stack in the guest's
 * memory, its locals and its place as it left them, and ends with the right result. What one keeps in
 * memory while it is parked is measured.
 *
 * BOP_PARKED is how many, 100,000 unless told. BOP_SEED repeats the seed, which every run prints. */
#include "support/support.h"

#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

enum {
  FIBERS = 100000,
  FEW = 5000,             /* where each guard costs mappings, of which a process may have 65,530 */
  MOST_BYTES = 9 << 10,   /* what a parked fiber may keep that has not touched its stack in the guest */
  NATIVE_STACK = 32 << 10,
  HOST_STACK = 16 << 10,
  SHADOW_STACK = 4 << 10, /* with its guard, 100,000 need 782 MiB of the guest's addresses */
  SHADOW_GUARD = 4 << 10,
  LEVELS = 8,             /* frames, one below the other, at the bottom of which a fiber parks */
  WAKERS = 6,             /* every other one a fiber, the others threads */
  CANCELS = 50,           /* one of so many fibers is cancelled in place of being woken */
};

/* `work` fills a frame, parks below up to eight further ones, parks again in its own frame, and makes its
 * result of all that is in the frames then, a local, and what it was told when it was woken. `idle`
 * parks once, and touches no memory. */
static const char GUEST[] =
    "(module (import \"host\" \"park\" (func $park (param i32) (result i32)))"
    "(memory (export \"memory\") 2)"
    "(global $__stack_pointer (export \"__stack_pointer\") (mut i32) (i32.const 65536))"
    "(func $wait (param $me i32) (result i32) (local $told i32)"
    "  (if (i32.eqz (local.tee $told (call $park (local.get $me))))"
    "    (then (loop (br 0))))" /* cancelled: the trap comes here */
    "  (local.get $told))"
    "(func $fill (param $frame i32) (param $by i32) (local $k i32)"
    "  (loop (i32.store (i32.add (local.get $frame) (i32.shl (local.get $k) (i32.const 2)))"
    "      (i32.mul (local.get $by) (i32.add (local.get $k) (i32.const 1))))"
    "    (br_if 0 (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1)))"
    "                       (i32.const 64)))))"
    "(func $digest (param $frame i32) (result i32) (local $k i32) (local $sum i32)"
    "  (loop (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31))"
    "      (i32.load (i32.add (local.get $frame) (i32.shl (local.get $k) (i32.const 2))))))"
    "    (br_if 0 (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1)))"
    "                       (i32.const 64))))"
    "  (local.get $sum))"
    "(func $dive (param $me i32) (param $n i32) (result i32) (local $frame i32) (local $sum i32)"
    "  (global.set $__stack_pointer (local.tee $frame"
    "    (i32.sub (global.get $__stack_pointer) (i32.const 256))))"
    "  (call $fill (local.get $frame)"
    "    (i32.add (local.get $me) (i32.mul (local.get $n) (i32.const 7919))))"
    "  (if (local.get $n)"
    "    (then (i32.store offset=20 (local.get $frame)"
    "      (call $dive (local.get $me) (i32.sub (local.get $n) (i32.const 1)))))"
    "    (else (i32.store offset=20 (local.get $frame) (call $wait (local.get $me)))))"
    "  (local.set $sum (call $digest (local.get $frame)))"
    "  (global.set $__stack_pointer (i32.add (local.get $frame) (i32.const 256)))"
    "  (local.get $sum))"
    "(func (export \"work\") (param $me i32) (result i32) (local $frame i32) (local $key i32)"
    "  (global.set $__stack_pointer (local.tee $frame"
    "    (i32.sub (global.get $__stack_pointer) (i32.const 256))))"
    "  (local.set $key (i32.mul (local.get $me) (i32.const 0x9e3779b1)))"
    "  (call $fill (local.get $frame) (local.get $key))"
    "  (i32.store offset=40 (local.get $frame)"
    "    (call $dive (local.get $me) (i32.and (local.get $me) (i32.const 7))))"
    "  (i32.store offset=200 (local.get $frame) (call $wait (local.get $me)))"
    "  (local.set $key (i32.xor (local.get $key) (call $digest (local.get $frame))))"
    "  (global.set $__stack_pointer (i32.add (local.get $frame) (i32.const 256)))"
    "  (local.get $key))"
    "(func (export \"idle\") (param $me i32) (result i32)"
    "  (i32.xor (call $wait (local.get $me)) (local.get $me))))";

/* ---- what a fiber should return ---- */

static uint64_t seed;

/* A number that depends on the seed and on what for it is. */
static uint32_t chance(uint64_t what, uint64_t which) {
  uint64_t x = seed + what * UINT64_C(0x9e3779b97f4a7c15) + which * UINT64_C(0xd1342543de82ef95);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return (uint32_t)(x >> 32);
}

enum { CANCELLED_IN = 100, SHUFFLED = 200 }; /* other uses of `chance` than the rounds */

/* What fiber `i` is told when it is woken for the `round`th time; never 0. */
static uint32_t told(int round, uint32_t i) { return chance((uint64_t)round, i) | 1; }

static bool cancelled_in(int round, uint32_t i) {
  return chance(CANCELLED_IN + (uint64_t)round, i) % CANCELS == 0;
}

static uint32_t digest(uint32_t by, int special, uint32_t value) {
  uint32_t sum = 0;
  for (uint32_t k = 0; k < 64; k++)
    sum = sum * 31 + ((int)k == special ? value : by * (k + 1));
  return sum;
}

static uint32_t idles(uint32_t i) { return told(1, i) ^ i; }

static uint32_t works(uint32_t i) {
  uint32_t inner = told(1, i);
  for (uint32_t n = 0; n <= i % LEVELS; n++)
    inner = digest(i + n * 7919, 5, inner);
  /* The frame with two words replaced: in a polynomial, a difference counts where it is. */
  uint32_t key = i * UINT32_C(0x9e3779b1), sum = digest(key, 10, inner), power = 1;
  for (int k = 50; k < 63; k++)
    power *= 31;
  return key ^ (sum + (told(2, i) - key * 51) * power);
}

/* ---- the fibers ---- */

static size_t fibers;
static bop_fiber_t **fiber;
static _Atomic uint32_t *message; /* for each fiber, from who wakes it; 0: none */
static atomic_size_t parking;     /* calls of `parks` so far */

static wasm_trap_t *parks(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                          size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  uint32_t me = (uint32_t)args[0].of.i32;
  atomic_fetch_add(&parking, 1);
  bop_status_t status = bop_park();
  uint32_t got = atomic_exchange(&message[me], 0);
  CHECK_EQ(status, got ? BOP_OK : BOP_CANCELLED);
  results[0] = t_i32((int32_t)got);
  return NULL;
}

static const t_import IMPORTS[] = {{"park", "i", "i", parks, NULL}, {NULL, NULL, NULL, NULL, NULL}};

/* Those that live, in the order in which they are woken next. */
static uint32_t *order;
static size_t live;

static void shuffle(int round) {
  for (size_t k = live; k > 1; k--) {
    size_t other = chance(SHUFFLED + (uint64_t)round, k) % k;
    uint32_t last = order[k - 1];
    order[k - 1] = order[other];
    order[other] = last;
  }
}

static bool parked(void) {
  for (size_t k = 0; k < live; k++)
    if (bop_fiber_state(fiber[order[k]]) != BOP_STATE_PARKED)
      return false;
  return true;
}

static double resident(void) {
  long size, pages;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &pages) == 2);
  fclose(file);
  return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Spawns fibers until `count` live, waits until all of them are parked, and says by how much that has made
 * this process grow. */
static double spawn(const t_guest *guest, const char *export_, size_t count) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_stack_size(options, NATIVE_STACK);
  double before = resident();
  for (; live < count; live++) {
    wasmtime_val_t me = t_i32((int32_t)live);
    OK(bop_spawn(guest->store, t_export(guest, export_), &me, 1, options, &fiber[live]));
    order[live] = (uint32_t)live;
  }
  bop_spawn_options_delete(options);
  EVENTUALLY(parking == count && parked());
  return resident() - before;
}

/* ---- waking ---- */

typedef struct waker {
  int round;
  size_t first; /* in `order`; the next one is WAKERS further */
} waker;

static int64_t wakes(void *data) {
  const waker *me = data;
  for (size_t k = me->first; k < live; k += WAKERS) {
    uint32_t i = order[k];
    if (cancelled_in(me->round, i)) {
      CHECK_EQ(bop_fiber_cancel(fiber[i]), BOP_OK);
    } else {
      CHECK_EQ(message[i], 0);
      message[i] = told(me->round, i);
      CHECK_EQ(bop_unpark(fiber[i]), BOP_OK);
    }
    if (k / WAKERS % 32 == 0)
      CHECK_EQ(bop_yield(), BOP_OK); /* for the fibers among the wakers, whom nobody preempts */
  }
  return 1;
}

static void *wakes_on_a_thread(void *data) {
  CHECK_EQ(wakes(data), 1);
  return NULL;
}

static void wake_all(bop_runtime_t *runtime, int round) {
  shuffle(round);
  waker wakers[WAKERS];
  pthread_t thread[WAKERS];
  bop_fiber_t *host[WAKERS];
  for (size_t w = 0; w < WAKERS; w++) {
    wakers[w] = (waker){round, w};
    if (w % 2)
      host[w] = t_spawn_host(runtime, wakes, &wakers[w], "waker");
    else
      CHECK_EQ(pthread_create(&thread[w], NULL, wakes_on_a_thread, &wakers[w]), 0);
  }
  for (size_t w = 0; w < WAKERS; w++) {
    if (w % 2)
      CHECK_EQ(t_result(host[w]), 1);
    else
      CHECK_EQ(pthread_join(thread[w], NULL), 0);
  }
}

/* Joins those that end in this round: the cancelled ones or, in the last one, all. */
static void join(int round, uint32_t (*expected)(uint32_t)) {
  size_t left = 0;
  for (size_t k = 0; k < live; k++) {
    uint32_t i = order[k];
    if (cancelled_in(round, i)) {
      ENDS(fiber[i], BOP_OUTCOME_CANCELLED);
    } else if (expected != NULL) {
      uint32_t result = (uint32_t)t_result(fiber[i]);
      if (result != expected(i))
        t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": fiber %u of %zu returned %u, not %u", seed, i,
               fibers, result, expected(i));
    } else {
      order[left++] = i;
    }
  }
  live = left;
}

/* ---- the cases ---- */

/* A runtime with such guards, and small stacks; NULL if the kernel has none. */
static bop_runtime_t *runtime_with(bop_guard_t guard) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 2);
  bop_config_quantum(config, 50000);
  bop_config_host_stack(config, HOST_STACK);
  bop_config_guard(config, guard);
  bop_runtime_t *runtime = NULL;
  wasmtime_error_t *error = bop_runtime_new(config, &runtime);
  if (error != NULL && guard == BOP_GUARD_INSTALL) {
    FAILS(error, "guard"); /* a kernel before 6.13 */
    return NULL;
  }
  OK(error);
  OK(bop_runtime_start(runtime));
  return runtime;
}

static void new_guest(t_guest *guest, bop_runtime_t *runtime) {
  t_guest_new(guest, runtime, GUEST, IMPORTS);
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, SHADOW_STACK);
  bop_share_options_guard_size(options, SHADOW_GUARD);
  OK(bop_store_share(guest->store, &guest->instance, options));
  bop_share_options_delete(options);
  live = 0;
  parking = 0;
}

/* Parked, and woken once, without a touch of the stack in the guest. Bytes per fiber. */
static double idle(bop_runtime_t *runtime, size_t count) {
  CASE("idle");
  t_guest guest;
  new_guest(&guest, runtime);
  spawn(&guest, "idle", 16); /* what only the first ones cost */
  double bytes = spawn(&guest, "idle", count) / (double)(count - 16);
  wake_all(runtime, 1);
  join(1, idles);
  t_guest_delete(&guest);
  return bytes;
}

/* Parked and woken twice, with frames in the guest. */
static void work(bop_runtime_t *runtime, size_t count) {
  CASE("work");
  t_guest guest;
  new_guest(&guest, runtime);
  spawn(&guest, "work", count);
  wake_all(runtime, 1);
  join(1, NULL);
  EVENTUALLY(parking == count + live && parked());
  wake_all(runtime, 2);
  join(2, works);
  t_guest_delete(&guest);
}

int main(void) {
  t_start("parked");
  const char *given = getenv("BOP_SEED"), *number = getenv("BOP_PARKED");
  seed = given ? strtoull(given, NULL, 10) : t_now() % 1000000000;
  fibers = number ? strtoull(number, NULL, 10) : T_ASAN ? FEW : FIBERS;
  printf("BOP_SEED=%" PRIu64 "\n", seed);
  CHECK(fibers > 16);
  bop_runtime_t *few = runtime_with(BOP_GUARD_MPROTECT), *many = runtime_with(BOP_GUARD_INSTALL);
  if (many == NULL && fibers > FEW)
    fibers = FEW;
  fiber = calloc(fibers, sizeof *fiber);
  message = calloc(fibers, sizeof *message);
  order = calloc(fibers, sizeof *order);
  CHECK(fiber != NULL && message != NULL && order != NULL);
  memset(fiber, 1, fibers * sizeof *fiber); /* in memory before anything is measured */
  memset(order, 1, fibers * sizeof *order);
  memset((void *)message, 0, fibers * sizeof *message);
  if (many != NULL) {
    uint64_t start = t_now();
    double bytes = idle(many, fibers);
    work(many, fibers);
    printf("%zu fibers: %.1f KiB each while parked; %.1f s\n", fibers, bytes / 1024,
           (double)(t_now() - start) / 1e9);
    CHECK(T_ASAN || bytes <= MOST_BYTES); /* ASan's allocator keeps more than was asked for */
    OK(bop_runtime_delete(many));
  }
  size_t less = fibers < FEW ? fibers : FEW;
  idle(few, less);
  work(few, less);
  OK(bop_runtime_delete(few));
  return 0;
}
