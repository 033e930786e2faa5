/* Descriptors that are closed, and whose numbers then mean something else, while fibers wait for them: by bop_close, by
 * close behind BOP's back, under two numbers at once. Numbers are chosen with dup2, so nothing here depends on which
 * one the kernel takes next. */
#include "support/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

/* From now on the number means what `fd` means, which is closed. */
static void becomes(int number, int fd) {
  CHECK_EQ(dup2(fd, number), number);
  if (fd != number)
    t_close(fd);
}

/* A pipe whose reading end has this number. */
static void pipe_as(int number, int ends[2]) {
  t_pipe(ends);
  if (ends[1] == number)
    ends[1] = dup(number);
  becomes(number, ends[0]);
  ends[0] = number;
}

static void close_both(const int ends[2]) {
  t_close(ends[0]);
  t_close(ends[1]);
}

/* One byte wakes who waits for the reading end, and is all that is in it. */
static void serves(const int ends[2], t_waiter *it) {
  CHECK_EQ(t_write(ends[1], "x", 1), 1);
  TOLD(it, BOP_OK, BOP_READABLE);
  CHECK_EQ(t_drain(ends[0]), 1);
}

static int64_t closes(void *fd) { return t_bop_close(*(int *)fd); }

/* All who wait are woken, of whatever runtime, and are told nothing but that. */
static void wakes_all(void) {
  CASE("bop_close wakes all");
  enum { N = 12 };
  for (int round = 0; round < 10; round++) {
    int s[2];
    t_waiter waiting[N];
    t_sockets(s);
    t_fill(s[0]);
    for (int i = 0; i < N; i++)
      t_waiter_waits(&waiting[i], i % 2, s[0], 1 + (uint32_t)i % BOTH, i % 4 < 2 ? NEVER : t_far());
    if (round % 3 == 0)
      CHECK_EQ(t_bop_close(s[0]), 0);
    else
      CHECK_EQ(t_result(t_spawn_host(t_runtimes[round % 2], closes, &s[0], NULL)), 0);
    for (int i = 0; i < N; i++)
      TOLD(&waiting[i], BOP_CLOSED, 0);
    for (int kind = 0; kind < KINDS; kind++)
      SAYS(kind, s[0], BOTH, kind ? NEVER : t_far(), BOP_FAILED, 0);
    t_close(s[1]);
  }
}

static void what_close_returns(void) {
  CASE("what close returns");
  int p[2];
  t_pipe(p);
  CHECK_EQ(t_bop_close(p[0]), 0); /* nobody ever waited for it */
  CHECK_EQ(t_write(p[1], "x", 0), 0);
  CHECK_EQ(t_bop_close(p[0]), -EBADF);
  CHECK_EQ(t_bop_close(p[1]), 0);
  int none[] = {p[1], -1, -2, 1 << 30};
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(t_bop_close(none[i]), -EBADF);
    CHECK_EQ(t_result(t_spawn_host(t_runtimes[i % 2], closes, &none[i], NULL)), -EBADF);
  }
  int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(t_bop_close(file), 0); /* of whatever kind */
  CHECK_EQ(t_read(file, &(char){0}, 1), -EBADF);
}

/* The number is somebody else's at once, whose waits have nothing to do with those of before. */
static void number_reused(int kind) {
  CASE("a number reused after bop_close");
  int p[2];
  t_pipe(p);
  const int number = p[0];
  t_waiter old[3], now;
  for (int round = 0; round < 30; round++) {
    for (int i = 0; i < 3; i++)
      t_waiter_waits(&old[i], (kind + i) % 2, number, BOP_READABLE, i ? NEVER : t_far());
    CHECK_EQ(t_bop_close(number), 0);
    int writer = p[1];
    pipe_as(number, p);
    t_waiter_waits(&now, kind, number, BOP_READABLE, round % 2 ? NEVER : t_far());
    CHECK_EQ(t_write(writer, "x", 1), -EPIPE);
    t_close(writer);
    for (int i = 0; i < 3; i++)
      TOLD(&old[i], BOP_CLOSED, 0);
    CHECK_EQ(now.actor.status, -1);
    serves(p, &now);
  }
  close_both(p);
}

/* Behind BOP's back: it sees that when somebody waits for what the number means now. */
static void closed_behind_our_back(int kind) {
  CASE("close, and the number reused");
  int p[2];
  t_pipe(p);
  const int number = p[0];
  t_waiter old[3], now;
  for (int round = 0; round < 30; round++) {
    for (int i = 0; i < 3; i++)
      t_waiter_waits(&old[i], kind, number, BOP_READABLE, i ? NEVER : t_far());
    int writer = p[1];
    if (round % 2)
      t_close(number);
    pipe_as(number, p); /* closes it, if it is open */
    t_close(writer);
    if (round % 3 == 0)
      CHECK_EQ(t_write(p[1], "x", 1), 1);
    t_waiter_begin(&now, kind, number, BOP_READABLE, NEVER);
    for (int i = 0; i < 3; i++)
      TOLD(&old[i], BOP_CLOSED, 0);
    if (round % 3)
      CHECK_EQ(t_write(p[1], "x", 1), 1);
    TOLD(&now, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(number), 1);
  }
  close_both(p);
}

/* The same if the number means nothing, or something that can't be waited for. */
static void closed_for_good(int kind) {
  CASE("close, and the number is of no use");
  const char *const useless[] = {NULL, "/proc/self/stat", "/"};
  for (int i = 0; i < 3; i++) {
    int p[2];
    t_waiter old[2];
    t_pipe(p);
    for (int k = 0; k < 2; k++)
      t_waiter_waits(&old[k], kind, p[0], BOP_READABLE, k ? NEVER : t_far());
    t_close(p[0]);
    if (useless[i])
      becomes(p[0], open(useless[i], O_RDONLY | O_CLOEXEC));
    SAYS(kind, p[0], BOP_READABLE, NEVER, BOP_FAILED, 0);
    for (int k = 0; k < 2; k++)
      TOLD(&old[k], BOP_CLOSED, 0);
    if (useless[i])
      t_close(p[0]);
    t_close(p[1]);
  }
}

/* bop_close comes too late for the descriptor, but not for who waits. */
static void closed_twice(int kind) {
  CASE("close, and then bop_close");
  int p[2];
  t_waiter old;
  t_pipe(p);
  t_waiter_waits(&old, kind, p[0], BOP_READABLE, kind ? NEVER : t_far());
  t_close(p[0]);
  CHECK_EQ(t_bop_close(p[0]), -EBADF);
  TOLD(&old, BOP_CLOSED, 0);
  t_close(p[1]);
}

/* Who is left of a closed descriptor can still be cancelled, and has its deadline; and leaves nothing behind. */
static void left_of_a_closed_one(int kind) {
  CASE("who waits for a closed one");
  int p[2];
  t_waiter cancelled, late, now;
  t_pipe(p);
  t_waiter_waits(&cancelled, kind, p[0], BOP_READABLE, NEVER);
  t_waiter_begin(&late, kind, p[0], BOP_READABLE, bop_now() + 20 * MS);
  t_waiter_waits(&now, kind, p[0], BOP_READABLE, bop_now() + 20 * MS);
  t_close(p[0]);
  CHECK_EQ(bop_fiber_cancel(cancelled.actor.fiber), BOP_OK);
  TOLD(&cancelled, BOP_CANCELLED, 0);
  TOLD(&late, BOP_TIMEOUT, 0);
  TOLD(&now, BOP_TIMEOUT, 0);
  t_close(p[1]);
  pipe_as(p[0], p);
  t_waiter_waits(&now, kind, p[0], BOP_READABLE, NEVER);
  serves(p, &now);
  close_both(p);
}

/* ---- one file, two numbers ---- */

static void duplicates(int kind) {
  CASE("duplicates");
  for (int with_bop = 0; with_bop < 2; with_bop++) {
    int p[2];
    t_waiter one, two;
    t_pipe(p);
    int other = dup(p[0]);
    t_waiter_waits(&one, kind, p[0], BOP_READABLE, NEVER);
    t_waiter_waits(&two, kind, other, BOP_READABLE, NEVER);
    CHECK_EQ(t_write(p[1], "x", 1), 1); /* either can be read */
    TOLD(&one, BOP_OK, BOP_READABLE);
    TOLD(&two, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(other), 1);

    t_waiter_waits(&one, kind, p[0], BOP_READABLE, NEVER);
    t_waiter_waits(&two, kind, other, BOP_READABLE, t_far());
    if (with_bop) { /* who waits for the other number waits on */
      CHECK_EQ(t_bop_close(p[0]), 0);
      TOLD(&one, BOP_CLOSED, 0);
    } else { /* the file lives: the kernel tells of it under either number */
      t_close(p[0]);
    }
    CHECK_EQ(two.actor.status, -1);
    CHECK_EQ(t_write(p[1], "x", 1), 1);
    TOLD(&two, BOP_OK, BOP_READABLE);
    if (!with_bop)
      TOLD(&one, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(other), 1);

    CHECK_EQ(dup2(other, p[0]), p[0]); /* and back again */
    t_waiter_waits(&one, kind, p[0], BOP_READABLE, NEVER);
    serves(p, &one);
    t_close(other);
    close_both(p);
  }
}

/* The kernel remembers a number that was closed while its file lives on, also when BOP has forgotten it. */
static void duplicate_comes_back(int kind) {
  CASE("a duplicate comes back");
  int p[2];
  t_waiter it;
  t_pipe(p);
  int other = dup(p[0]);
  for (int i = 0; i < 10; i++) {
    t_waiter_waits(&it, kind, p[0], BOP_READABLE, NEVER);
    t_close(p[0]);
    CHECK_EQ(bop_fiber_cancel(it.actor.fiber), BOP_OK);
    TOLD(&it, BOP_CANCELLED, 0);
    CHECK_EQ(dup2(other, p[0]), p[0]);
    t_waiter_waits(&it, kind, p[0], BOP_READABLE, NEVER);
    serves(p, &it);
  }
  t_close(other);
  close_both(p);
}

/* The number means another file, while the former one lives on. What happens to that is a hint for who waits now, and
 * no more: it still gets what is its own. */
static void former_file_lives_on(int kind) {
  CASE("the former file lives on");
  int former[2], p[2];
  t_waiter old, now;
  for (int i = 0; i < 10; i++) {
    t_pipe(former);
    const int number = former[0], other = dup(number);
    t_waiter_waits(&old, kind, number, BOP_READABLE, NEVER);
    pipe_as(number, p);
    t_waiter_waits(&now, kind, number, BOP_READABLE, NEVER);
    TOLD(&old, BOP_CLOSED, 0);
    CHECK_EQ(t_write(former[1], "y", 1), 1);
    t_pause(i % 2 ? MS : 0);
    CHECK_EQ(t_write(p[1], "x", 1), 1);
    TOLD(&now, BOP_OK, BOP_READABLE);
    SAYS(kind, number, BOP_READABLE, NEVER, BOP_OK, BOP_READABLE);
    char byte = 0;
    CHECK_EQ(t_read(number, &byte, 1), 1);
    CHECK_EQ(byte, 'x');
    SAYS(kind, number, BOP_READABLE, bop_now() + MS, BOP_TIMEOUT, 0);
    t_close(other);
    t_close(former[1]);
    close_both(p);
  }
}

int main(void) {
  t_start("fd_close");
  signal(SIGPIPE, SIG_IGN);
  t_runtimes_start(2, 0);
  wakes_all();
  what_close_returns();
  for (int kind = 0; kind < THREAD; kind++) {
    number_reused(kind);
    closed_behind_our_back(kind);
    closed_twice(kind);
    left_of_a_closed_one(kind);
    duplicates(kind);
    duplicate_comes_back(kind);
    former_file_lives_on(kind);
    closed_for_good(kind);
  }
  t_runtimes_delete();
  return 0;
}
