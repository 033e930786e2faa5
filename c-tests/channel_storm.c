/* Channels under load: what was sent is received, once, and nothing else is. Fibers of guests and of C, of two
 * runtimes, and threads, with nobody in a hurry; then fibers and threads whose deadlines and cancellations race
 * with every hand-over.
 *
 * BOP_SEED repeats the seed of the storm, which every run prints; BOP_STRESS is its seconds, 2 unless told. */
#include "support/actors.h"

#include <inttypes.h>

/* ---- many to many: each value is a number of its own, and is received once ---- */

enum { IDS = 1 << 22 };
static _Atomic uint8_t sent[IDS], got[IDS];

static void receives(uint64_t id) {
  CHECK(id < IDS);
  CHECK_EQ(got[id]++, 0);
}

/* As compiled code does, it keeps what it needs in frames in its memory. `run` sends n numbers, and returns the
 * next one; or, if n is 0, it returns the sum of all that it received. For each it dives `depth` levels deep. */
static const char *const GUEST =
    "(module (import \"host\" \"send\" (func $send (param i64)))"
    "  (import \"host\" \"receive\" (func $receive (result i64)))"
    "  (memory (export \"memory\") 1)"
    "  (global $sp (export \"__stack_pointer\") (mut i32) (i32.const 65536))"
    "  (func $busy (local $i i32) (loop"
    "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000)))))"
    "  (func $dive (param $v i64) (param $depth i32) (result i64) (local $f i32) (local $got i64)"
    "    (global.set $sp (local.tee $f (i32.sub (global.get $sp) (i32.const 512))))"
    "    (i64.store (local.get $f) (local.get $v))"
    "    (local.set $got (if (result i64) (local.get $depth)"
    "      (then (call $dive (i64.load (local.get $f)) (i32.sub (local.get $depth) (i32.const 1))))"
    "      (else (if (result i64) (i64.lt_s (local.get $v) (i64.const 0)) (then (call $receive))"
    "        (else (call $send (i64.load (local.get $f))) (i64.const 0))))))"
    "    (if (i64.ne (i64.load (local.get $f)) (local.get $v)) (then unreachable))"
    "    (global.set $sp (i32.add (local.get $f) (i32.const 512)))"
    "    (local.get $got))"
    "  (func (export \"run\") (param $v i64) (param $n i64) (param $depth i32) (result i64)"
    "    (local $f i32) (local $got i64)"
    "    (global.set $sp (local.tee $f (i32.sub (global.get $sp) (i32.const 16))))"
    "    (i64.store (local.get $f) (local.get $v))"
    "    (loop (call $busy) (local.set $got (call $dive (local.get $v) (local.get $depth)))"
    "      (if (i64.eqz (local.get $n))"
    "        (then (if (i64.ge_s (local.get $got) (i64.const 0)) (then"
    "          (i64.store (local.get $f) (i64.add (i64.load (local.get $f)) (local.get $got))) (br 2))))"
    "      (else (i64.store (local.get $f) (local.tee $v (i64.add (i64.load (local.get $f)) (i64.const 1))))"
    "        (br_if 1 (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))))"
    "    (global.set $sp (i32.add (local.get $f) (i32.const 16)))"
    "    (i64.load (local.get $f))))";

static wasm_trap_t *guest_sends(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)nargs, (void)results, (void)nresults;
  CHECK_EQ(bop_channel_send(env, (uint64_t)args[0].of.i64), BOP_OK);
  return NULL;
}

static wasm_trap_t *guest_receives(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args,
                                   size_t nargs, wasmtime_val_t *results, size_t nresults) {
  (void)caller, (void)args, (void)nargs, (void)nresults;
  uint64_t id = 0;
  bop_status_t status = bop_channel_receive(env, &id);
  CHECK(status == BOP_OK || status == BOP_CLOSED);
  if (status == BOP_OK)
    receives(id);
  results[0] = t_i64(status == BOP_OK ? (int64_t)id : -1);
  return NULL;
}

/* What the guest does, as a host fiber or a thread. */
static int64_t takes_part(void *data) {
  t_actor *me = data;
  uint64_t id = me->value, sum = me->value;
  for (; id < me->value + me->n; id++)
    CHECK_EQ(bop_channel_send(me->channel, id), BOP_OK);
  if (me->n)
    return (int64_t)id;
  while (bop_channel_receive(me->channel, &id) == BOP_OK) {
    receives(id);
    sum += id;
  }
  return (int64_t)sum;
}

static uint64_t preemptions;

static void many_to_many(size_t workers, size_t capacity) {
  CASE("many to many");
  enum { PARTS = 36, EACH = 300, TOTAL = PARTS / 2 * EACH }; /* every second one sends */
  t_runtimes_start(workers, 50000);
  memset((void *)got, 0, TOTAL);
  bop_channel_t *c = t_channel(capacity, 0);
  const t_import imports[] = {{"send", "I", "", guest_sends, c},
                              {"receive", "", "I", guest_receives, c},
                              {NULL, NULL, NULL, NULL, NULL}};
  t_guest guest;
  t_guest_new(&guest, t_runtimes[0], GUEST, imports);
  OK(bop_store_share(guest.store, &guest.instance, NULL));
  t_actor parts[PARTS];
  int64_t sum = 0;
  for (int i = 0; i < PARTS; i++) {
    int64_t first = i % 2 ? i / 2 * EACH : -1, n = i % 2 ? EACH : 0;
    parts[i] = (t_actor){.channel = c, .value = (uint64_t)first, .n = (uint64_t)n};
    const wasmtime_val_t args[] = {t_i64(first), t_i64(n), t_i32(i % 7)};
    if (i % 6 < 2)
      OK(bop_spawn(guest.store, t_export(&guest, "run"), args, 3, NULL, &parts[i].fiber));
    else
      t_actor_begin(&parts[i], i % 6 < 4 ? THREAD : i / 6 % 2, takes_part);
  }
  for (int i = 1; i < PARTS; i += 2)
    CHECK_EQ(t_actor_end(&parts[i]), i / 2 * EACH + EACH);
  CHECK_EQ(bop_channel_close(c), BOP_OK);
  for (int i = 0; i < PARTS; i += 2)
    sum += t_actor_end(&parts[i]);
  CHECK_EQ(sum + PARTS / 2, (int64_t)TOTAL * (TOTAL - 1) / 2); /* each began with -1 */
  for (int id = 0; id < TOTAL; id++)
    CHECK_EQ(got[id], 1);
  preemptions += t_stats(t_runtimes[0]).preemptions;
  t_guest_delete(&guest);
  bop_channel_delete(c);
  t_runtimes_delete();
}

/* ---- the storm: deadlines and cancellations race with every hand-over ---- */

enum { CHANNELS = 3, RACERS = 12 };
static bop_channel_t *channels[CHANNELS];
static atomic_bool stop;
static _Atomic uint32_t next_id;
static _Atomic uint64_t statuses[2][BOP_CLOSED + 1];

static uint64_t below(uint64_t *random, uint64_t n) {
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random % n;
}

static int64_t races(void *data) {
  t_actor *me = data;
  bop_status_t status = BOP_OK;
  while (!stop && status != BOP_CANCELLED) {
    uint64_t id = me->sends ? next_id++ : IDS, patience = below(&me->random, 8);
    if (me->sends && id >= IDS)
      break;
    uint64_t soon = bop_now() + below(&me->random, 40000);
    status = t_call(channels[below(&me->random, CHANNELS)], me->sends, &id,
                  patience < 4 ? 0 : patience < 7 ? soon : NEVER);
    CHECK(status <= BOP_CANCELLED || status == BOP_CLOSED);
    statuses[me->sends][status]++;
    if (status == BOP_OK && me->sends)
      sent[id] = 1;
    else if (status == BOP_OK)
      receives(id);
    if (below(&me->random, 4) == 0)
      bop_yield();
  }
  return status;
}

/* Runs for so long, or until the numbers are used up. */
static void storm(uint64_t seed, uint64_t nanoseconds) {
  CASE("storm");
  uint64_t over = t_now() + nanoseconds, random = seed | UINT64_C(1) << 40;
  memset((void *)sent, 0, sizeof sent);
  memset((void *)got, 0, sizeof got);
  next_id = 0;
  stop = false;
  for (size_t i = 0; i < CHANNELS; i++)
    channels[i] = t_channel(i, 0);
  t_actor racers[RACERS];
  for (int i = 0; i < RACERS; i++) {
    racers[i] = (t_actor){.random = below(&random, UINT64_MAX) | 1, .sends = i % 2};
    t_actor_begin(&racers[i], i % KINDS, races);
  }
  while (t_now() < over && next_id < IDS) {
    t_actor *it = &racers[below(&random, RACERS)];
    t_pause(below(&random, 200000));
    if (it->fiber == NULL)
      continue;
    CHECK(bop_fiber_cancel(it->fiber) != BOP_INVALID);
    CHECK_EQ(bop_fiber_join(it->fiber, NULL), BOP_OK); /* it may never have begun */
    bop_fiber_detach(it->fiber);
    t_actor_begin(it, (int)below(&random, 2), races);
  }
  stop = true;
  for (size_t i = 0; i < CHANNELS; i++)
    CHECK_EQ(bop_channel_close(channels[i]), BOP_OK);
  for (int i = 0; i < RACERS; i++)
    t_actor_end(&racers[i]);
  for (size_t i = 0; i < CHANNELS; i++) {
    for (uint64_t id; bop_channel_receive(channels[i], &id) == BOP_OK;)
      receives(id);
    bop_channel_delete(channels[i]);
  }
  size_t lost = 0, ghosts = 0;
  for (size_t id = 0; id < IDS; id++) {
    lost += sent[id] && !got[id];
    ghosts += !sent[id] && got[id];
  }
  if (lost + ghosts != 0)
    t_fail(__FILE__, __LINE__,
           "BOP_SEED=%" PRIu64 ": %zu values were sent and not received, %zu received and not sent",
           seed, lost, ghosts);
}

static void storms(void) {
  const char *given = getenv("BOP_SEED"), *seconds = getenv("BOP_STRESS");
  uint64_t seed = given ? strtoull(given, NULL, 10) : t_now() % 1000000000;
  uint64_t left = (uint64_t)((seconds ? atof(seconds) : 2) * (double)SECOND);
  printf("BOP_SEED=%" PRIu64 "\n", seed);
  fflush(stdout);
  for (uint64_t turn = 0; left > 0; left -= turn) {
    turn = left < 2 * SECOND ? left : 2 * SECOND;
    storm(seed++, turn);
  }
  for (int sends = 0; sends < 2; sends++) {
    _Atomic uint64_t *n = statuses[sends];
    printf("%s: %" PRIu64 " done, %" PRIu64 " too late, %" PRIu64 " cancelled\n", sends ? "sends" : "receives",
           n[BOP_OK], n[BOP_TIMEOUT], n[BOP_CANCELLED]);
    CHECK(n[BOP_OK] > 100 && n[BOP_TIMEOUT] > 100 && n[BOP_CANCELLED] > 10);
  }
}

int main(void) {
  t_start("channel_storm");
  for (size_t workers = 1; workers <= 4; workers *= 2)
    for (size_t capacity = 0; capacity < 8; capacity = 4 * capacity + 1)
      many_to_many(workers, capacity);
  CHECK(preemptions > 10);
  t_runtimes_start(2, 0);
  storms();
  t_runtimes_delete();
  return 0;
}
