/* Channels, case by case, between plain threads and host fibers of two runtimes: order, rendezvous, deadlines,
 * closing, cancelling, who is served first, and what becomes of handles. (What holds when everything
 * happens at once: channel_storm.c.) */
#include "support/actors.h"

#include <unistd.h>

/* ---- one call, and how it ends ---- */

static int64_t calls_once(void *data) {
  t_actor *me = data;
  bop_status_t status = t_call(me->channel, me->sends, &me->value, me->deadline);
  me->returned_at = bop_now();
  return me->status = (int)status;
}

static void begin_call(t_actor *it, int kind, bop_channel_t *c, bool sends, uint64_t value, uint64_t deadline) {
  *it = (t_actor){.channel = c, .sends = sends, .value = value, .deadline = deadline, .status = -1};
  t_actor_begin(it, kind, calls_once);
}

/* A thread that waits in a channel sleeps, and nothing else here makes it. */
static bool sleeps(pid_t tid) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
  FILE *file = tid ? fopen(path, "r") : NULL;
  size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
  if (file)
    fclose(file);
  text[n] = '\0';
  const char *name_end = strrchr(text, ')');
  return name_end != NULL && name_end[2] == 'S';
}

static void begin_waiting(t_actor *it, int kind, bop_channel_t *c, bool sends, uint64_t value, uint64_t deadline) {
  begin_call(it, kind, c, sends, value, deadline);
  EVENTUALLY(it->status != -1 || (it->fiber ? bop_fiber_state(it->fiber) == BOP_STATE_PARKED : sleeps(it->tid)));
  CHECK(it->status == -1 || bop_now() >= deadline);
}

static void call_ends(t_actor *it, bop_status_t status, uint64_t value) {
  CHECK_EQ(t_actor_end(it), status);
  CHECK_EQ(it->value, value);
  CHECK(status != BOP_TIMEOUT || it->returned_at >= it->deadline);
}

/* A whole call of which it is known how it ends. */
static void says(int kind, bop_channel_t *c, bool sends, uint64_t value, uint64_t deadline,
                 bop_status_t status, uint64_t value_after) {
  t_actor it;
  begin_call(&it, kind, c, sends, value, deadline);
  call_ends(&it, status, value_after);
}

static uint64_t far(void) { return bop_now() + 3600 * SECOND; }

/* ---- the cases ---- */

static int64_t sends_1000(void *c) {
  for (uint64_t v = 0; v < 1000; v++)
    CHECK_EQ(bop_channel_send(c, v * v), BOP_OK);
  return 1000;
}

static void order(size_t capacity) {
  CASE("order");
  bop_channel_t *c = t_channel(capacity, capacity);
  CHECK_EQ(bop_channel_send_until(c, 5, 0), BOP_TIMEOUT);
  CHECK_EQ(bop_channel_length(c), capacity);
  uint64_t got = 0;
  for (uint64_t v = 0; v < capacity; v++) {
    CHECK_EQ(bop_channel_receive(c, v % 2 ? NULL : &got), BOP_OK);
    CHECK_EQ(got, v & ~UINT64_C(1));
  }
  got = 77;
  CHECK_EQ(bop_channel_receive_until(c, &got, 0), BOP_TIMEOUT);
  CHECK_EQ(got, 77);
  bop_fiber_t *sender = t_spawn_host(t_runtimes[0], sends_1000, c, NULL);
  for (uint64_t v = 0; v < 1000; v++) {
    CHECK_EQ(bop_channel_receive(c, &got), BOP_OK);
    CHECK_EQ(got, v * v);
  }
  CHECK_EQ(t_result(sender), 1000);
  bop_channel_delete(c);
}

static void wrong(void) {
  CASE("wrong arguments");
  for (int sends = 0; sends < 2; sends++) {
    says(THREAD, NULL, sends, 77, NEVER, BOP_INVALID, 77);
    says(THREAD, NULL, sends, 77, far(), BOP_INVALID, 77);
    says(0, NULL, sends, 77, 0, BOP_INVALID, 77);
  }
  CHECK_EQ(bop_channel_receive(NULL, NULL), BOP_INVALID);
  CHECK_EQ(bop_channel_close(NULL), BOP_INVALID);
  CHECK_EQ(bop_channel_length(NULL), 0);
  CHECK(bop_channel_clone(NULL) == NULL);
  bop_channel_delete(NULL);
  FAILS(bop_channel_new(1, NULL), "out is NULL");
  bop_channel_t *untouched = (bop_channel_t *)&untouched, *c = untouched;
  const size_t huge[] = {SIZE_MAX, SIZE_MAX / 8, (SIZE_MAX >> 4) + 1, (size_t)1 << 56};
  for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++)
    FAILS(bop_channel_new(huge[i], &c), "no memory for a channel");
  CHECK(c == untouched);
  CHECK_HAS(bop_status_name(BOP_CLOSED), "closed");
}

/* Capacity 0: neither side is done before the other comes; and who comes finds it, so need not wait. */
static void rendezvous(int kind) {
  CASE("rendezvous");
  bop_channel_t *c = t_channel(0, 0);
  t_actor it;
  uint64_t got = 0;
  begin_waiting(&it, kind, c, true, 5, NEVER);
  CHECK_EQ(bop_channel_length(c), 0);
  CHECK_EQ(bop_channel_receive_until(c, &got, 0), BOP_OK);
  CHECK_EQ(got, 5);
  call_ends(&it, BOP_OK, 5);
  begin_waiting(&it, kind, c, false, 0, NEVER);
  CHECK_EQ(bop_channel_send_until(c, 6, 0), BOP_OK);
  call_ends(&it, BOP_OK, 6);
  bop_channel_delete(c);
}

static int64_t closes(void *c) { return bop_channel_close(c); }

static void closing(size_t capacity, bool sends) {
  CASE("close");
  bop_channel_t *c = t_channel(capacity, sends ? capacity : 0);
  t_actor waiting[2 * KINDS];
  for (int i = 0; i < 2 * KINDS; i++)
    begin_waiting(&waiting[i], i % KINDS, c, sends, 20, i % 2 ? NEVER : far());
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], closes, c, NULL)), BOP_OK);
  for (int i = 0; i < 2 * KINDS; i++)
    call_ends(&waiting[i], BOP_CLOSED, 20);
  CHECK_EQ(bop_channel_close(c), BOP_CLOSED);
  for (int kind = 0; kind < KINDS; kind++)
    says(kind, c, true, 3, kind ? NEVER : 0, BOP_CLOSED, 3);
  if (sends)
    for (uint64_t v = 0; v < capacity; v++) /* what is in it comes out, and nothing of those who waited */
      says((int)v % KINDS, c, false, 0, v % 2 ? NEVER : 0, BOP_OK, v);
  for (int kind = 0; kind < KINDS; kind++)
    says(kind, c, false, 3, kind ? NEVER : 0, BOP_CLOSED, 3);
  bop_channel_delete(c);
}

static void deadlines(int kind) {
  CASE("deadlines");
  bop_channel_t *c = t_channel(1, 0);
  for (int sends = 0; sends < 2; sends++) {
    says(kind, c, sends, 9, 0, BOP_TIMEOUT, 9);
    for (uint64_t i = 0; i < 6; i++) /* the first is over when the call begins */
      says(kind, c, sends, 9, bop_now() + i * 3 * MS, BOP_TIMEOUT, 9);
    t_actor it; /* the end of time is not near */
    begin_waiting(&it, kind, c, sends, 9, NEVER - 1);
    CHECK_EQ(t_call(c, !sends, &(uint64_t){9}, 0), BOP_OK);
    call_ends(&it, BOP_OK, 9);
    if (!sends)
      says(kind, c, true, 9, 1, BOP_OK, 9); /* room wins over a deadline that is past */
  }
  says(kind, c, false, 0, 0, BOP_OK, 9); /* and so does a value */
  CHECK_EQ(bop_channel_length(c), 0);
  bop_channel_delete(c);
}

/* Cancels itself, and calls: each says so, and nothing goes in or comes out. */
static int64_t calls_cancelled(void *data) {
  bop_channel_t *c = data; /* has one value, and room for one */
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  uint64_t value = 3;
  for (int i = 0; i < 6; i++)
    CHECK_EQ(t_call(c, i % 2, &value, i < 2 ? NEVER : i < 4 ? far() : 0), BOP_CANCELLED);
  CHECK_EQ(bop_channel_length(c), 1);
  CHECK_EQ(bop_channel_close(c), BOP_OK); /* that it may do */
  for (int i = 0; i < 2; i++)
    CHECK_EQ(t_call(c, i, &value, NEVER), BOP_CANCELLED);
  return (int64_t)value;
}

static void cancelling(int kind) {
  CASE("cancel");
  t_actor it[2];
  for (int sends = 0; sends < 2; sends++) {
    bop_channel_t *c = t_channel((size_t)sends, (size_t)sends);
    for (int i = 0; i < 2; i++)
      begin_waiting(&it[i], kind, c, sends, 3, i ? NEVER : far());
    CHECK_EQ(bop_fiber_cancel(it[0].fiber), BOP_OK);
    call_ends(&it[0], BOP_CANCELLED, 3);
    CHECK_EQ(it[1].status, -1);
    /* The next in the queue is served as if the other had never come. */
    CHECK_EQ(t_call(c, !sends, &(uint64_t){3}, 0), BOP_OK);
    call_ends(&it[1], BOP_OK, 3);
    CHECK_EQ(bop_channel_length(c), (size_t)sends);
    bop_channel_delete(c);
  }
  bop_channel_t *c = t_channel(2, 1);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[kind], calls_cancelled, c, NULL)), 3);
  says(1 - kind, c, false, 7, NEVER, BOP_OK, 0);
  bop_channel_delete(c);
}

/* Who has waited longest is served first; who leaves the queue leaves the order as it was. */
static void fairness(bool sends) {
  CASE(sends ? "fairness of senders" : "fairness of receivers");
  enum { N = 24 };
  t_actor waiting[N];
  bop_channel_t *c = t_channel(sends, sends);
  for (int i = 0; i < N; i++)
    begin_waiting(&waiting[i], i % 5 == 3 ? i % 2 : i % KINDS, c, sends, 100 + (uint64_t)i, NEVER);
  for (int i = 3; i < N; i += 5) {
    CHECK_EQ(bop_fiber_cancel(waiting[i].fiber), BOP_OK);
    call_ends(&waiting[i], BOP_CANCELLED, 100 + (uint64_t)i);
  }
  uint64_t last = 0;
  for (int i = 0; i < N; i++) {
    if (i % 5 == 3)
      continue;
    uint64_t value = 100 + (uint64_t)i;
    CHECK_EQ(waiting[i].status, -1);
    CHECK_EQ(t_call(c, !sends, &value, 0), BOP_OK);
    call_ends(&waiting[i], BOP_OK, 100 + (uint64_t)i);
    if (sends) { /* what comes out is one behind what moves in; and nobody overtakes */
      CHECK_EQ(value, last);
      CHECK_EQ(bop_channel_send_until(c, 1, 0), BOP_TIMEOUT);
    }
    last = 100 + (uint64_t)i;
  }
  CHECK_EQ(bop_channel_length(c), sends);
  bop_channel_delete(c);
}

/* Who waits in a call keeps the channel, whatever becomes of the handle that it came with. */
static void handles(int kind) {
  CASE("handles");
  bop_channel_t *c = t_channel(0, 0), *other = bop_channel_clone(c);
  t_actor it;
  begin_waiting(&it, kind, c, false, 0, NEVER);
  bop_channel_delete(c);
  CHECK_EQ(bop_channel_send_until(other, 8, 0), BOP_OK);
  call_ends(&it, BOP_OK, 8);
  begin_waiting(&it, kind, other, true, 9, bop_now() + 20 * MS);
  bop_channel_delete(other); /* the last: that closes nothing, but nobody will ever come */
  call_ends(&it, BOP_TIMEOUT, 9);
}

/* On a worker between two fibers nobody may wait; what needs no waiting goes. */
static atomic_int finalized;
static void finalizes(void *c) {
  CHECK_EQ(t_call(c, true, &(uint64_t){1}, NEVER), BOP_OK);
  CHECK_EQ(t_call(c, true, &(uint64_t){2}, NEVER), BOP_NOT_ALLOWED);
  uint64_t value = 0;
  CHECK_EQ(t_call(c, false, &value, NEVER), BOP_OK);
  CHECK_EQ(t_call(c, false, &value, far()), BOP_NOT_ALLOWED);
  CHECK_EQ(value, 1);
  finalized = 1;
}

static void on_a_worker(void) {
  CASE("on a worker");
  bop_channel_t *c = t_channel(1, 0);
  wasm_engine_t *engine = bop_runtime_engine(t_runtimes[0]);
  wasmtime_store_t *raw = wasmtime_store_new(engine, c, finalizes);
  wasmtime_context_t *context = wasmtime_store_context(raw);
  const char *const spins = "(module (func (export \"spin\") (loop (br 0))))";
  wasmtime_instance_t instance = t_instance(engine, context, spins, NULL);
  wasmtime_func_t spin = t_func(context, &instance, "spin");
  bop_store_t *store = NULL;
  bop_fiber_t *fiber = NULL;
  OK(bop_store_new(t_runtimes[0], raw, &store));
  OK(bop_spawn(store, &spin, NULL, 0, NULL, &fiber));
  bop_store_delete(store); /* now the fiber is its last user */
  t_cancel_all(&fiber, 1);
  EVENTUALLY(finalized == 1);
  bop_channel_delete(c);
}

int main(void) {
  t_start("channel");
  t_runtimes_start(2, 0);
  for (int i = 0; i < 4; i++) {
    order((size_t)i);
    closing((size_t)i / 2, i % 2);
  }
  wrong();
  for (int kind = 0; kind < KINDS; kind++) {
    rendezvous(kind);
    deadlines(kind);
    handles(kind);
    if (kind != THREAD)
      cancelling(kind);
  }
  fairness(false);
  fairness(true);
  on_a_worker();
  t_runtimes_delete();
  return 0;
}
