/* Waiting for descriptors under load, by fibers of two runtimes and by threads, on 1, 2 and 4 workers with short quanta,
 * now and then beside a guest that never waits. Every byte that is written is read, once and in order; nobody who waits
 * hangs; nobody is told ready for nothing without a reason.
 *
 *   calm lines   one writes, one reads, without deadlines: who is told ready finds that it is so
 *   wild lines   deadlines, cancellations and bop_close race with what happens; then the numbers are used again
 *   seats        fibers wait for what nobody writes to, until one thing happens, of which they must be told
 *
 * BOP_SEED repeats the seed, which every run prints; BOP_STRESS is the seconds, 2 unless told. */
#include "support/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed, chance; /* of the run; of the main thread */
static atomic_bool stop;
static _Atomic uint64_t statuses[BOP_FAILED + 1], bytes, false_alarms;

static uint64_t below(uint64_t n) { return t_below(&chance, n); }

/* ---- lines ---- */

typedef struct stream {
  uint64_t seed, sent, received; /* the counts are of who writes, and of who reads, at the time */
} stream;

typedef struct racer {
  t_actor actor;
  int kind;
  struct line *line;
  bool writes;
  int to; /* the end that the stream is read from */
} racer;

typedef struct line {
  int ends[2];
  bool sockets, calm;
  stream to[2]; /* by the end that is read from; a pipe has the first only */
  racer racers[4];
} line;

enum { CALM = 5, WILD = 10, LINES = CALM + WILD, PIECE = 3000 };
static line lines[LINES];

static int racers_of(const line *it) { return it->sockets ? 4 : 2; }

static uint8_t byte_of(const stream *it, uint64_t at) {
  return (uint8_t)((it->seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static int64_t writes(stream *it, int fd, uint64_t size) {
  uint8_t buffer[PIECE];
  for (uint64_t i = 0; i < size; i++)
    buffer[i] = byte_of(it, it->sent + i);
  int64_t n = t_write(fd, buffer, size);
  it->sent += n > 0 ? (uint64_t)n : 0;
  return n;
}

static int64_t reads(stream *it, int fd, uint64_t size) {
  uint8_t buffer[PIECE];
  int64_t n = t_read(fd, buffer, size);
  for (int64_t i = 0; i < n; i++, it->received++)
    if (buffer[i] != byte_of(it, it->received))
      t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": byte %" PRIu64 " of a stream is wrong", seed, it->received);
  bytes += n > 0 ? (uint64_t)n : 0;
  return n;
}

/* A thread that waits is not woken by bop_close, so it never waits for long. */
static uint64_t patience(racer *me) {
  uint64_t how = me->line->calm ? 7 : t_below(&me->actor.random, 8);
  if (how < 1)
    return 0;
  if (how < 4 || (me->kind == THREAD && !me->line->calm))
    return bop_now() + t_below(&me->actor.random, 100000);
  return how < 7 ? t_far() : NEVER;
}

/* Until it is cancelled, or its descriptor is closed, or its stream is at its end. */
static int64_t races(void *data) {
  racer *me = data;
  stream *it = &me->line->to[me->to];
  const int fd = me->line->ends[me->writes ? !me->to : me->to];
  for (;;) {
    uint32_t ready = 0, event = me->writes ? BOP_WRITABLE : BOP_READABLE;
    bop_status_t status = t_wait_fd(fd, event, &ready, patience(me));
    CHECK(status <= BOP_CANCELLED || status == BOP_CLOSED || status == BOP_FAILED);
    statuses[status]++;
    if (status == BOP_TIMEOUT)
      continue;
    if (status != BOP_OK) {
      CHECK(!me->line->calm);
      return status;
    }
    CHECK_EQ(ready, event);
    if (me->writes && me->line->calm && stop)
      return bop_close(fd);
    uint64_t size = 1 + t_below(&me->actor.random, PIECE);
    int64_t n = me->writes ? writes(it, fd, size) : reads(it, fd, size);
    if (n == -EAGAIN) {
      false_alarms++;
      CHECK(!me->line->calm);
    } else if (n <= 0) {
      CHECK(n == 0 || (!me->line->calm && (n == -EPIPE || n == -ECONNRESET || n == -EBADF)));
      return BOP_OK;
    }
  }
}

static void racer_begins(racer *it) {
  it->actor = (t_actor){.random = below(UINT64_MAX) | 1};
  it->kind = (int)below(KINDS);
  t_actor_begin(&it->actor, it->kind, races);
}

static int64_t ends(t_actor *it, const char *what) {
  int late = 0;
  if (it->fiber) {
    late = bop_fiber_join_until(it->fiber, bop_now() + 60 * SECOND, NULL) != BOP_OK;
  } else {
    struct timespec then = {.tv_sec = time(NULL) + 60};
    late = pthread_timedjoin_np(it->thread, NULL, &then) != 0;
  }
  if (late)
    t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": %s hangs", seed, what);
  return it->fiber ? t_result(it->fiber) : it->result;
}

static void line_begins(line *it, bool calm) {
  *it = (line){.calm = calm, .sockets = !calm && below(2)};
  (it->sockets ? t_sockets : t_pipe)(it->ends);
  const int small = 4096;
  if (below(2) && it->sockets)
    CHECK_EQ(setsockopt(it->ends[below(2)], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  else if (below(2) && !it->sockets)
    CHECK(fcntl(it->ends[0], F_SETPIPE_SZ, small) >= small);
  it->to[0].seed = below(UINT64_MAX);
  it->to[1].seed = below(UINT64_MAX);
  for (int i = 0; i < racers_of(it); i++) {
    it->racers[i].line = it;
    it->racers[i].writes = i % 2;
    it->racers[i].to = i / 2;
    racer_begins(&it->racers[i]);
  }
}

static int64_t closes(void *fd) { return t_bop_close(*(int *)fd); }

/* A thread closes it, or a fiber. */
static void close_somehow(int fd) {
  uint64_t kind = below(KINDS);
  CHECK_EQ(kind == THREAD ? t_bop_close(fd) : t_result(t_spawn_host(t_runtimes[kind], closes, &fd, NULL)), 0);
}

/* All four who use it must see that one end is closed. What was written to there arrives at the other end. */
static void line_ends(line *it) {
  int gone = (int)below(2);
  close_somehow(it->ends[gone]);
  for (int i = 0; i < racers_of(it); i++)
    ends(&it->racers[i].actor, it->racers[i].writes ? "who writes to a closed line" : "who reads from a closed line");
  close_somehow(it->ends[!gone]);
  for (int to = 0; to < 2; to++)
    CHECK(it->to[to].received <= it->to[to].sent);
  CHECK_EQ(it->to[!gone].received, it->to[!gone].sent);
}

/* Another one goes on where it stopped. */
static void racer_changes(racer *it) {
  if (it->actor.fiber == NULL)
    return;
  CHECK_EQ(bop_fiber_cancel(it->actor.fiber), BOP_OK);
  CHECK_EQ(bop_fiber_join_until(it->actor.fiber, bop_now() + 60 * SECOND, NULL), BOP_OK); /* it may never have begun */
  bop_fiber_detach(it->actor.fiber);
  racer_begins(it);
}

/* ---- seats ---- */

enum { SEATS = 4 };
typedef struct seat {
  int ends[2]; /* the first is the same number as long as the seat is there */
  t_waiter sitters[2][2]; /* one of each runtime; those of now, and those of before */
  int now;
  int stale[2]; /* events of what the number meant before, which may still be on their way, by runtime */
} seat;
static seat seats[SEATS];

static void false_alarm(seat *it, int kind, const char *who) {
  if (it->stale[kind]-- == 0)
    t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": %s: told ready", seed, who);
  false_alarms++;
}

static void sit_down(seat *it) {
  it->now = !it->now;
  for (int kind = 0; kind < 2; kind++) {
    t_waiter *sitter = &it->sitters[it->now][kind];
    for (;;) {
      t_waiter_begin(sitter, kind, it->ends[0], BOP_READABLE, NEVER);
      EVENTUALLY(sitter->actor.status != -1 || t_actor_waits(&sitter->actor));
      if (sitter->actor.status == -1)
        break;
      CHECK_EQ(ends(&sitter->actor, "who sits down"), BOP_OK);
      false_alarm(it, kind, "who sits down");
    }
  }
}

/* The sitters of now, or of before, must be told this. */
static void are_told(seat *it, int which, bop_status_t status, const char *who) {
  for (int kind = 0; kind < 2; kind++) {
    bop_status_t got = (bop_status_t)ends(&it->sitters[which][kind].actor, who);
    if (got == BOP_OK && status != BOP_OK)
      false_alarm(it, kind, who);
    else if (got != status)
      t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": %s: told \"%s\"", seed, who, bop_status_name(got));
  }
}

/* The number means another pipe, for which others wait, before those who waited for the former one need know. If that
 * was written to just before, they may have been told so. */
static void seat_changes(seat *it, bool with_bop, bool written) {
  int fresh[2], number = it->ends[0];
  t_pipe(fresh);
  for (int kind = 0; kind < 2 && written; kind++)
    it->stale[kind]++;
  if (written)
    CHECK_EQ(t_write(it->ends[1], "x", 1), 1);
  if (with_bop)
    close_somehow(number);
  CHECK_EQ(dup2(fresh[0], number), number);
  t_close(fresh[0]);
  t_close(it->ends[1]);
  it->ends[1] = fresh[1];
  sit_down(it);
  are_told(it, !it->now, BOP_CLOSED, "who waited for what the number meant");
}

static void something_happens(seat *it) {
  switch (below(6)) {
  case 0:
  case 1:
    CHECK_EQ(t_write(it->ends[1], "x", 1), 1);
    are_told(it, it->now, BOP_OK, "who waits for what was written to");
    CHECK_EQ(t_drain(it->ends[0]), 1);
    sit_down(it);
    break;
  case 2:
    for (int kind = 0; kind < 2; kind++)
      CHECK(bop_fiber_cancel(it->sitters[it->now][kind].actor.fiber) != BOP_INVALID);
    are_told(it, it->now, BOP_CANCELLED, "who was cancelled");
    sit_down(it);
    break;
  default: seat_changes(it, below(2), below(2));
  }
}

/* ---- the storm ---- */

static void storm(size_t workers, bool busy, uint64_t nanoseconds) {
  CASE("storm");
  uint64_t over = t_now() + nanoseconds;
  t_runtimes_start(workers, 50000);
  t_guest guest;
  t_guest_new(&guest, t_runtimes[0], "(module (func (export \"spin\") (loop (br 0))))", NULL);
  bop_fiber_t *spinner = busy ? t_spawn0(&guest, "spin") : NULL;
  stop = false;
  for (int i = 0; i < LINES; i++)
    line_begins(&lines[i], i < CALM);
  for (int i = 0; i < SEATS; i++) {
    seats[i] = (seat){.now = 0};
    t_pipe(seats[i].ends);
    sit_down(&seats[i]);
  }
  while (t_now() < over) {
    line *it = &lines[CALM + below(WILD)];
    t_pause(below(100000));
    switch (below(4)) {
    case 0:
      line_ends(it);
      line_begins(it, false);
      break;
    case 1: something_happens(&seats[below(SEATS)]); break;
    default: racer_changes(&it->racers[below((uint64_t)racers_of(it))]);
    }
  }
  CASE("the end of a storm");
  stop = true;
  for (int i = 0; i < LINES; i++) {
    if (i >= CALM) {
      line_ends(&lines[i]);
      continue;
    }
    ends(&lines[i].racers[1].actor, "who writes to a calm line"); /* and closes it */
    ends(&lines[i].racers[0].actor, "who reads from a calm line");
    CHECK_EQ(lines[i].to[0].received, lines[i].to[0].sent);
    t_close(lines[i].ends[0]);
  }
  for (int i = 0; i < SEATS; i++) {
    close_somehow(seats[i].ends[0]);
    are_told(&seats[i], seats[i].now, BOP_CLOSED, "who waits at the end");
    t_close(seats[i].ends[1]);
  }
  if (busy)
    t_cancel_all(&spinner, 1);
  t_guest_delete(&guest);
  t_runtimes_delete();
}

int main(void) {
  t_start("fd_storm");
  signal(SIGPIPE, SIG_IGN);
  seed = t_seed();
  chance = seed | UINT64_C(1) << 40;
  uint64_t left = t_stress(), turn = left / 6 < SECOND ? left / 6 : SECOND;
  for (int i = 0; left >= turn && left > 0; i++, left -= turn) /* with 1, 2 and 4 workers */
    storm((size_t)1 << i % 3, i / 3 % 2, turn);
  printf("%" PRIu64 " bytes; told: %" PRIu64 " ready (%" PRIu64 " false alarms), %" PRIu64 " too late, %" PRIu64
         " cancelled, %" PRIu64 " closed, %" PRIu64 " failed\n",
         bytes, statuses[BOP_OK], false_alarms, statuses[BOP_TIMEOUT], statuses[BOP_CANCELLED], statuses[BOP_CLOSED],
         statuses[BOP_FAILED]);
  CHECK(statuses[BOP_OK] > 100 && statuses[BOP_TIMEOUT] > 10 && statuses[BOP_CANCELLED] > 3 && statuses[BOP_CLOSED] > 3);
  return 0;
}
