/* Mutexes, semaphores and wait groups under load: fibers of guests and of C, of two runtimes, and threads, whose
 * deadlines and cancellations race with every hand-over, and who end with what they hold. Whatever comes: one at a
 * time is in what a mutex guards, and who comes after one that has ended there is told, once; there are as many in
 * what a semaphore bounds as it has permits, and none is lost; nobody goes on before all is done, nor waits for
 * ever.
 *
 * BOP_SEED repeats the seed of the storm, which every run prints; BOP_STRESS is its seconds, 2 unless told. */
#include "support/descriptors.h" /* t_seed, t_stress; and things.h */

#include <inttypes.h>

enum { MUTEXES = 3, SEMAPHORES = 2, PART = 5, IDS = 1 << 16 };
enum { STORES = 4, THREADS = 3, HOSTS = 4, GUESTS = 2 * STORES, RACERS = THREADS + HOSTS + GUESTS, OF_C = -1 };

typedef struct racer {
  t_actor actor;
  bool is_thread;
  int store;   /* a guest's, or OF_C */
  uint32_t id; /* of all that ever took this place it is the only one with this */
  /* What it has, or has ended with: a bit for each mutex and for each permit; things to be done. */
  uint32_t mutexes, permits, tasks;
} racer;

static atomic_bool stop;
static _Atomic uint64_t statuses[SORTS][BOP_ABANDONED + 1];

/* What the mutexes guard is as plain as can be. */
static struct {
  bop_mutex_t *mutex;
  uint32_t inside;     /* who is there, or has ended there; or 0 */
  uint64_t came, went; /* how often somebody did */
} rooms[MUTEXES];
/* The mutexes with which each has ended; and of which the next one was told. */
static uint32_t left[IDS];
static _Atomic uint32_t seen[IDS];
static uint32_t next_id;

static struct {
  bop_semaphore_t *semaphore;
  int permits;
  atomic_int inside;
} halls[SEMAPHORES];

/* Rounds of PART tasks, each of which somebody takes; who waits for the group waits for the round that is on. */
static struct {
  bop_wait_group_t *group;
  atomic_int tasks;
  _Atomic uint64_t round, done;
} work;

/* ---- what it has ---- */

static void enters(racer *me, int i, bool abandoned) {
  if (abandoned) { /* somebody has ended in there */
    CHECK(rooms[i].inside != 0 && rooms[i].inside < IDS && rooms[i].inside != me->id);
    CHECK_EQ(atomic_fetch_or(&seen[rooms[i].inside], 1u << i) >> i & 1, 0);
    CHECK_EQ(rooms[i].came, ++rooms[i].went);
  }
  CHECK_EQ(abandoned ? 0 : rooms[i].inside, 0);
  CHECK_EQ(rooms[i].came++, rooms[i].went);
  rooms[i].inside = me->id;
  me->mutexes |= 1u << i;
}

static void leaves(racer *me, int i) {
  CHECK_EQ(rooms[i].inside, me->id);
  CHECK_EQ(rooms[i].came, ++rooms[i].went);
  rooms[i].inside = 0;
  me->mutexes &= ~(1u << i);
  CHECK_EQ(bop_mutex_unlock(rooms[i].mutex), BOP_OK);
}

static void gives_permit(racer *me, int i) {
  halls[i].inside--;
  me->permits &= ~(1u << i);
  CHECK_EQ(bop_semaphore_release(halls[i].semaphore, 1), BOP_OK);
}

static void does_task(racer *me) {
  if (--me->tasks == 0)
    work.done++;
  CHECK_EQ(bop_wait_group_done(work.group), BOP_OK);
}

static void takes_task(racer *me) {
  int n = work.tasks;
  while (n > 0 && !atomic_compare_exchange_weak(&work.tasks, &n, n - 1)) {
  }
  me->tasks = n > 0;
}

static void lets_go(racer *me) {
  for (int i = 0; i < MUTEXES; i++)
    if (me->mutexes >> i & 1)
      leaves(me, i);
  for (int i = 0; i < SEMAPHORES; i++)
    if (me->permits >> i & 1)
      gives_permit(me, i);
  while (me->tasks)
    does_task(me);
}

/* ---- what it does ---- */

/* For ever only in an order that all keep: first the group, with nothing; then semaphores, then mutexes. */
static bop_status_t takes(racer *me, int sort, void *it, bool may_be_for_ever) {
  uint64_t patience = t_below(&me->actor.random, 8), soon = bop_now() + t_below(&me->actor.random, 40000);
  uint64_t deadline = patience < 2 ? 0 : patience < 5 || !may_be_for_ever ? soon : NEVER;
  bop_status_t status = t_take((t_thing){sort, it}, deadline);
  CHECK(status <= BOP_CANCELLED || (sort == MUTEX && status == BOP_ABANDONED));
  CHECK(!me->is_thread || status != BOP_CANCELLED);
  statuses[sort][status]++;
  return status;
}

static bop_status_t uses_mutex(racer *me, int i) {
  bool mine = me->mutexes >> i & 1;
  if (t_below(&me->actor.random, 8) == 0) {
    bop_status_t status = mine ? bop_mutex_lock(rooms[i].mutex) : bop_mutex_unlock(rooms[i].mutex);
    CHECK(status == BOP_NOT_ALLOWED || (mine && status == BOP_CANCELLED));
  }
  if (mine)
    return leaves(me, i), BOP_OK;
  bop_status_t status = takes(me, MUTEX, rooms[i].mutex, me->mutexes >> i == 0);
  if (status == BOP_OK || status == BOP_ABANDONED)
    enters(me, i, status == BOP_ABANDONED);
  return status;
}

static bop_status_t uses_semaphore(racer *me, int i) {
  if (me->permits >> i & 1)
    return gives_permit(me, i), BOP_OK;
  bop_status_t status = takes(me, SEMAPHORE, halls[i].semaphore, me->mutexes == 0 && me->permits >> i == 0);
  if (status == BOP_OK) {
    CHECK(++halls[i].inside <= halls[i].permits);
    me->permits |= 1u << i;
  }
  return status;
}

static bop_status_t uses_group(racer *me) {
  if (me->tasks && t_below(&me->actor.random, 3) == 0) { /* it finds that there is more to do */
    me->tasks++;
    return bop_wait_group_add(work.group, 1);
  }
  if (me->tasks)
    return does_task(me), BOP_OK;
  if (t_below(&me->actor.random, 2))
    return takes_task(me), BOP_OK;
  uint64_t round = work.round;
  bop_status_t status = takes(me, GROUP, work.group, me->mutexes + me->permits == 0);
  CHECK(status != BOP_OK || work.done >= round * PART);
  return status;
}

/* No wake-up of an earlier wait is taken for another one. */
static bop_status_t rests(racer *me) {
  uint64_t until = bop_now() + t_below(&me->actor.random, 20000);
  if (me->is_thread)
    return t_pause(1000), BOP_OK;
  bool parks = t_below(&me->actor.random, 2);
  bop_status_t status = parks ? bop_park_until(until) : bop_sleep_until(until);
  CHECK(status == (parks ? BOP_TIMEOUT : BOP_OK) || status == BOP_CANCELLED);
  CHECK(status == BOP_CANCELLED || bop_now() >= until);
  return status;
}

enum { GOES_ON, ENDS_SO, TRAPS, FAILS_SO };

static int step(racer *me) {
  uint64_t *random = &me->actor.random, what = t_below(random, 32);
  if (stop)
    return lets_go(me), ENDS_SO;
  if (!me->is_thread && t_below(random, 100) == 0) /* with all that it has */
    return me->store == OF_C ? ENDS_SO : ENDS_SO + (int)t_below(random, 3);
  int mutex = me->mutexes && t_below(random, 2) ? __builtin_ctz(me->mutexes) : (int)t_below(random, MUTEXES);
  bop_status_t status = what < 16   ? uses_mutex(me, mutex)
                        : what < 24 ? uses_semaphore(me, (int)t_below(random, SEMAPHORES))
                        : what < 30 ? uses_group(me)
                                    : rests(me);
  if (status != BOP_CANCELLED)
    return GOES_ON;
  if (t_below(random, 2))
    lets_go(me);
  return me->store == OF_C ? ENDS_SO : GOES_ON; /* a guest will find out */
}

static int64_t races(void *data) {
  racer *me = data;
  while (step(me) == GOES_ON)
    if (t_below(&me->actor.random, 4) == 0)
      bop_yield();
  return 0;
}

static wasm_trap_t *guest_steps(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                                wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)nargs, (void)nresults;
  int next = step((racer *)(intptr_t)args[0].of.i64);
  results[0] = t_i32(next);
  return next == FAILS_SO ? wasmtime_trap_new("it was to fail", 14) : NULL;
}

static const t_import IMPORTS[] = {{"step", "I", "i", guest_steps, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static const char *const GUEST =
    "(module (import \"host\" \"step\" (func $step (param i64) (result i32)))"
    "  (func $busy (local $i i32) (loop"
    "    (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 15000)))))"
    "  (func (export \"run\") (param $me i64) (local $next i32)"
    "    (loop (call $busy) (br_if 0 (i32.eqz (local.tee $next (call $step (local.get $me))))))"
    "    (if (i32.eq (local.get $next) (i32.const 2)) (then unreachable))))";

/* Each round is over when all of it is done, and no earlier. */
static int64_t directs(void *data) {
  t_actor *me = data;
  for (; !stop; me->n++) {
    CHECK_EQ(work.done, me->n * PART);
    CHECK_EQ(bop_wait_group_left(work.group), 0);
    CHECK_EQ(bop_wait_group_add(work.group, PART), BOP_OK);
    work.round = me->n + 1;
    work.tasks = PART;
    CHECK_EQ(bop_wait_group_wait(work.group), BOP_OK);
  }
  me->status = 1;
  return (int64_t)me->n;
}

/* ---- the storm ---- */

static t_guest guests[STORES];
static uint64_t rounds, deaths, preemptions;

static void begins(racer *it, int place, uint64_t random) {
  *it = (racer){.actor = {.random = random | 1},
                .is_thread = place < THREADS,
                .store = place < THREADS + HOSTS ? OF_C : place % STORES,
                .id = next_id++};
  const wasmtime_val_t arg = t_i64((int64_t)(intptr_t)it);
  if (it->store == OF_C)
    t_actor_begin(&it->actor, it->is_thread ? THREAD : place % 2, races);
  else
    OK(bop_spawn(guests[it->store].store, t_export(&guests[it->store], "run"), &arg, 1, NULL, &it->actor.fiber));
}

/* What it has ended with is given back, but for the mutexes. */
static void buries(racer *it) {
  CHECK_EQ(bop_fiber_join(it->actor.fiber, NULL), BOP_OK);
  bop_fiber_detach(it->actor.fiber);
  it->actor.fiber = NULL;
  left[it->id] = it->mutexes;
  deaths += it->mutexes != 0;
  it->mutexes = 0;
  lets_go(it);
}

static bool ended(const racer *it) {
  return it->actor.fiber && bop_fiber_state(it->actor.fiber) == BOP_STATE_FINISHED;
}

static void storm(uint64_t seed, uint64_t nanoseconds, size_t workers) {
  CASE("storm");
  uint64_t over = t_now() + nanoseconds, random = seed | UINT64_C(1) << 40;
  t_runtimes_start(workers, 50000);
  memset(left, 0, sizeof left);
  memset((void *)seen, 0, sizeof seen);
  memset(rooms, 0, sizeof rooms);
  next_id = 1, stop = false;
  work.group = bop_wait_group_new();
  work.tasks = (int)(work.round = work.done = 0);
  for (int i = 0; i < MUTEXES; i++)
    rooms[i].mutex = bop_mutex_new();
  for (int i = 0; i < SEMAPHORES; i++)
    halls[i].semaphore = bop_semaphore_new((uint64_t)(halls[i].permits = 1 + 2 * i));
  for (int i = 0; i < STORES; i++)
    t_guest_new(&guests[i], t_runtimes[i % 2], GUEST, IMPORTS);
  t_actor director = {.n = 0};
  t_actor_begin(&director, (int)t_below(&random, KINDS), directs);
  racer racers[RACERS];
  for (int i = 0; i < RACERS; i++)
    begins(&racers[i], i, t_below(&random, UINT64_MAX));
  while (t_now() < over && next_id < IDS - 1) {
    int place = THREADS + (int)t_below(&random, RACERS - THREADS);
    t_pause(t_below(&random, 200000));
    if (!ended(&racers[place])) {
      if (t_below(&random, 2))
        continue;
      CHECK(bop_fiber_cancel(racers[place].actor.fiber) != BOP_INVALID);
    }
    buries(&racers[place]);
    begins(&racers[place], place, t_below(&random, UINT64_MAX));
  }
  /* Nobody is cancelled any more: whoever waits is woken by others, or by what is given back for the dead. */
  CASE("all come to their end");
  racer last = {.actor = {.random = 1}, .is_thread = true, .id = next_id};
  stop = true;
  for (bool alive = true; alive; t_pause(MS / 10)) {
    alive = director.status == 0;
    for (int i = THREADS; i < RACERS; i++) {
      if (ended(&racers[i]))
        buries(&racers[i]);
      alive |= racers[i].actor.fiber != NULL;
    }
    takes_task(&last); /* of which nobody may be left to do it */
    lets_go(&last);
  }
  for (int i = 0; i < THREADS; i++)
    t_actor_end(&racers[i].actor);
  rounds += (uint64_t)t_actor_end(&director);

  CASE("nothing is lost");
  for (int i = 0; i < MUTEXES; i++) {
    bop_status_t status = bop_mutex_lock_until(rooms[i].mutex, 0);
    CHECK(status == BOP_OK || status == BOP_ABANDONED);
    enters(&last, i, status == BOP_ABANDONED);
    leaves(&last, i);
    bop_mutex_delete(rooms[i].mutex);
  }
  for (int i = 0; i < SEMAPHORES; i++) {
    CHECK_EQ(bop_semaphore_permits(halls[i].semaphore), halls[i].permits);
    CHECK_EQ(halls[i].inside, 0);
    bop_semaphore_delete(halls[i].semaphore);
  }
  CHECK_EQ(bop_wait_group_left(work.group), 0);
  bop_wait_group_delete(work.group);
  for (uint32_t id = 0; id <= next_id; id++)
    if (left[id] != seen[id])
      t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": %u ended with the mutexes %x, of which %x were told of", seed,
             id, left[id], seen[id]);
  for (int i = 0; i < STORES; i++)
    t_guest_delete(&guests[i]);
  preemptions += t_stats(t_runtimes[0]).preemptions + t_stats(t_runtimes[1]).preemptions;
  t_runtimes_delete();
}

int main(void) {
  static const char *const names[SORTS] = {"mutexes", "semaphores", "wait groups"};
  t_start("sync_storm");
  uint64_t seed = t_seed(), all = t_stress(), turns = all / (2 * SECOND) < 3 ? 3 : all / (2 * SECOND);
  for (uint64_t i = 0; i < turns; i++)
    storm(seed + i, all / turns, (size_t)1 << i % 3);
  for (int sort = 0; sort < SORTS; sort++) {
    _Atomic uint64_t *n = statuses[sort];
    printf("%s: %" PRIu64 " taken, %" PRIu64 " too late, %" PRIu64 " cancelled, %" PRIu64 " abandoned\n", names[sort],
           n[BOP_OK], n[BOP_TIMEOUT], n[BOP_CANCELLED], n[BOP_ABANDONED]);
    CHECK(n[BOP_OK] > 100 && n[BOP_TIMEOUT] > 100 && n[BOP_CANCELLED] > 10);
  }
  printf("%" PRIu64 " rounds; %" PRIu64 " fibers ended with mutexes\n", rounds, deaths);
  CHECK(rounds > 10 && deaths > 10 && preemptions > 10);
  return 0;
}
