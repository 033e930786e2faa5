/* Waiting for descriptors, case by case, from fibers of two runtimes, plain threads, and guests' host functions: what
 * is ready, who is told, deadlines, cancelling, the ends of streams, busy workers. (Closing: fd_close.c. What can't be
 * waited for, limits: fd_limits.c. Everything at once: fd_storm.c.) */
#include "support/descriptors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static void what_is_ready(int kind) {
  CASE("what is ready");
  int s[2];
  t_sockets(s);
  for (int i = 0; i < 3; i++) {
    uint64_t deadline = i == 0 ? NEVER : i == 1 ? t_far() : 0;
    SAYS(kind, s[0], BOTH, deadline, BOP_OK, BOP_WRITABLE);
    SAYS(kind, s[0], BOP_READABLE, 0, BOP_TIMEOUT, 0);
    CHECK_EQ(t_write(s[1], "x", 1), 1);
    for (int twice = 0; twice < 2; twice++) { /* it stays so until somebody reads */
      SAYS(kind, s[0], BOTH, deadline, BOP_OK, BOTH);
      SAYS(kind, s[0], BOP_READABLE, deadline, BOP_OK, BOP_READABLE);
      SAYS(kind, s[0], BOP_WRITABLE, deadline, BOP_OK, BOP_WRITABLE);
    }
    t_fill(s[0]);
    SAYS(kind, s[0], BOTH, deadline, BOP_OK, BOP_READABLE);
    SAYS(kind, s[0], BOP_WRITABLE, 0, BOP_TIMEOUT, 0);
    CHECK_EQ(t_drain(s[0]), 1);
    SAYS(kind, s[0], BOTH, bop_now() + 2 * MS, BOP_TIMEOUT, 0);
    CHECK(t_drain(s[1]) > 0);
  }
  t_close(s[0]);
  t_close(s[1]);
}

static int64_t needs_no_mask(void *data) {
  const int *s = data;
  CHECK_EQ(bop_wait_fd(s[0], BOP_WRITABLE, NULL), BOP_OK);
  CHECK_EQ(bop_wait_fd_until(s[0], BOP_READABLE, NULL, bop_now() + MS), BOP_TIMEOUT);
  CHECK_EQ(bop_wait_fd_until(s[0], BOP_WRITABLE, NULL, 0), BOP_OK);
  return 1;
}

static void no_mask(void) {
  CASE("no mask");
  int s[2];
  t_sockets(s);
  CHECK_EQ(needs_no_mask(s), 1);
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[0], needs_no_mask, s, NULL)), 1);
  t_close(s[0]);
  t_close(s[1]);
}

/* Who waits is told when it happens, and nothing before. */
static void when_it_happens(int kind) {
  CASE("when it happens");
  int p[2], s[2];
  t_pipe(p);
  t_sockets(s);
  for (int i = 0; i < 20; i++) {
    t_waiter reader, writer;
    uint64_t deadline = i % 2 ? NEVER : t_far();
    t_waiter_waits(&reader, kind, p[0], BOP_READABLE, deadline);
    CHECK_EQ(t_write(p[1], "x", 1), 1);
    TOLD(&reader, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(p[0]), 1);

    int fd = i % 3 ? p[1] : s[1];
    t_fill(fd);
    t_waiter_waits(&writer, kind, fd, i % 5 ? BOP_WRITABLE : BOTH, deadline);
    CHECK(t_drain(i % 3 ? p[0] : s[0]) > 0);
    TOLD(&writer, BOP_OK, BOP_WRITABLE);
  }
  for (int i = 0; i < 2; i++) {
    t_close(p[i]);
    t_close(s[i]);
  }
}

/* Several wait for one descriptor: each is told what it waits for, those whose event has not come wait on. */
static void several(void) {
  CASE("several for one descriptor");
  enum { N = 9 };
  static const uint32_t events[N] = {BOP_READABLE, BOP_READABLE, BOP_READABLE, BOP_WRITABLE, BOP_WRITABLE,
                                     BOP_WRITABLE, BOTH,         BOTH,         BOP_READABLE};
  int s[2];
  t_sockets(s);
  for (int round = 0; round < 10; round++) {
    t_waiter waiting[N];
    t_fill(s[0]);
    for (int i = 0; i < N; i++)
      t_waiter_waits(&waiting[i], (i + round) % KINDS, s[0], events[i], i % 2 ? NEVER : t_far());
    if (round % 2) { /* first what is there to be read */
      CHECK_EQ(t_write(s[1], "x", 1), 1);
      for (int i = 0; i < N; i++)
        if (events[i] & BOP_READABLE)
          TOLD(&waiting[i], BOP_OK, BOP_READABLE);
        else
          CHECK_EQ(waiting[i].actor.status, -1);
      CHECK_EQ(t_drain(s[0]), 1);
      CHECK(t_drain(s[1]) > 0);
      for (int i = 0; i < N; i++)
        if (events[i] == BOP_WRITABLE)
          TOLD(&waiting[i], BOP_OK, BOP_WRITABLE);
    } else { /* first room to write */
      CHECK(t_drain(s[1]) > 0);
      for (int i = 0; i < N; i++)
        if (events[i] & BOP_WRITABLE)
          TOLD(&waiting[i], BOP_OK, BOP_WRITABLE);
        else
          CHECK_EQ(waiting[i].actor.status, -1);
      CHECK_EQ(t_write(s[1], "x", 1), 1);
      for (int i = 0; i < N; i++)
        if (events[i] == BOP_READABLE)
          TOLD(&waiting[i], BOP_OK, BOP_READABLE);
      CHECK_EQ(t_drain(s[0]), 1);
    }
  }
  t_close(s[0]);
  t_close(s[1]);
}

static void deadlines(int kind) {
  CASE("deadlines");
  int p[2];
  t_pipe(p);
  SAYS(kind, p[0], BOP_READABLE, 0, BOP_TIMEOUT, 0);
  SAYS(kind, p[0], BOP_READABLE, bop_now() - 1, BOP_TIMEOUT, 0);
  for (uint64_t i = 0; i < 6; i++) /* the first is over when the call begins */
    SAYS(kind, p[0], BOTH, bop_now() + i * 3 * MS, BOP_TIMEOUT, 0);
  t_waiter it; /* the end of time is not near */
  t_waiter_waits(&it, kind, p[0], BOP_READABLE, NEVER - 1);
  CHECK_EQ(t_write(p[1], "x", 1), 1);
  TOLD(&it, BOP_OK, BOP_READABLE);
  SAYS(kind, p[0], BOP_READABLE, 1, BOP_OK, BOP_READABLE); /* what is ready beats a deadline that is past */
  t_close(p[0]);
  t_close(p[1]);
}

/* Cancels itself, and waits: each call says so, also if the descriptor is ready, or none. */
static int64_t waits_cancelled(void *data) {
  const int *p = data;
  bop_fiber_t *self = bop_current();
  CHECK_EQ(bop_fiber_cancel(self), BOP_OK);
  bop_fiber_detach(self);
  uint32_t ready = 77;
  for (int i = 0; i < 6; i++)
    CHECK_EQ(t_wait_fd(p[i % 2], BOTH, &ready, i < 2 ? NEVER : i < 4 ? t_far() : 0), BOP_CANCELLED);
  CHECK_EQ(ready, 77);
  CHECK_EQ(t_bop_close(p[0]), 0); /* that it may do */
  return 1;
}

static void cancelling(int kind) {
  CASE("cancel");
  int p[2];
  t_pipe(p);
  for (int i = 0; i < 20; i++) {
    t_waiter it[3];
    for (int k = 0; k < 3; k++)
      t_waiter_waits(&it[k], (kind + k) % 2, p[0], BOP_READABLE, (i + k) % 2 ? NEVER : t_far());
    CHECK_EQ(bop_fiber_cancel(it[i % 3].actor.fiber), BOP_OK);
    TOLD(&it[i % 3], BOP_CANCELLED, 0);
    CHECK_EQ(t_write(p[1], "x", 1), 1); /* the others are told as if that one had never come */
    TOLD(&it[(i + 1) % 3], BOP_OK, BOP_READABLE);
    TOLD(&it[(i + 2) % 3], BOP_OK, BOP_READABLE);
    CHECK_EQ(t_drain(p[0]), 1);
    t_waiter_waits(&it[0], kind, p[0], BOP_READABLE, NEVER); /* nobody else: the next finds nothing of it */
    CHECK_EQ(bop_fiber_cancel(it[0].actor.fiber), BOP_OK);
    TOLD(&it[0], BOP_CANCELLED, 0);
  }
  CHECK_EQ(t_result(t_spawn_host(t_runtimes[kind], waits_cancelled, p, NULL)), 1);
  t_close(p[1]);
}

/* ---- the ends of streams ---- */

static void ends_of_streams(int kind) {
  CASE("the ends of streams");
  char byte;
  for (int waits = 0; waits < 2; waits++) { /* before it happens, or after */
    int p[2], s[2];
    t_waiter it;
    t_pipe(p); /* the writer goes */
    if (waits)
      t_waiter_waits(&it, kind, p[0], BOP_READABLE, NEVER);
    t_close(p[1]);
    if (waits)
      TOLD(&it, BOP_OK, BOP_READABLE);
    SAYS(kind, p[0], BOP_READABLE, waits ? NEVER : 0, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_read(p[0], &byte, 1), 0);
    t_close(p[0]);

    t_pipe(p); /* the reader goes: a write would not block, but fail */
    t_fill(p[1]);
    if (waits)
      t_waiter_waits(&it, kind, p[1], BOP_WRITABLE, t_far());
    t_close(p[0]);
    if (waits)
      TOLD(&it, BOP_OK, BOP_WRITABLE);
    SAYS(kind, p[1], BOP_WRITABLE, waits ? t_far() : 0, BOP_OK, BOP_WRITABLE);
    CHECK_EQ(t_write(p[1], "x", 1), -EPIPE);
    t_close(p[1]);

    t_sockets(s); /* the peer says that it will write no more */
    t_fill(s[0]);
    if (waits)
      t_waiter_waits(&it, kind, s[0], BOTH, NEVER);
    CHECK_EQ(shutdown(s[1], SHUT_WR), 0);
    if (waits)
      TOLD(&it, BOP_OK, BOP_READABLE);
    SAYS(kind, s[0], BOTH, waits ? NEVER : 0, BOP_OK, BOP_READABLE);
    CHECK_EQ(t_read(s[0], &byte, 1), 0);
    if (waits) /* it hangs up: both sides see that */
      t_waiter_waits(&it, kind, s[0], BOP_WRITABLE, NEVER);
    t_drain(s[1]);
    t_close(s[1]);
    if (waits)
      TOLD(&it, BOP_OK, BOP_WRITABLE);
    SAYS(kind, s[0], BOTH, waits ? t_far() : 0, BOP_OK, BOTH);
    CHECK_EQ(t_write(s[0], "x", 1), -EPIPE);
    t_close(s[0]);
  }
}

/* ---- sockets of the network, and what else can be waited for ---- */

static int tcp(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  return fd;
}

static int connection_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
  return error;
}

static void connections(int kind) {
  CASE("connections");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = tcp(), client = tcp();
  CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
  int refused = connect(client, (struct sockaddr *)&address, size); /* nobody listens yet */
  CHECK(refused == -1);
  SAYS(kind, client, BOP_WRITABLE, NEVER, BOP_OK, BOP_WRITABLE);
  int error = connection_error(client); /* 0 if the connect itself said it */
  CHECK(error == ECONNREFUSED || error == 0);
  t_close(client);

  CHECK_EQ(listen(listener, 4), 0);
  t_waiter acceptor;
  t_waiter_waits(&acceptor, kind, listener, BOP_READABLE, NEVER);
  client = tcp();
  int begun = connect(client, (struct sockaddr *)&address, size);
  CHECK(begun == 0 || errno == EINPROGRESS);
  SAYS(kind, client, BOP_WRITABLE, t_far(), BOP_OK, BOP_WRITABLE);
  CHECK_EQ(connection_error(client), 0);
  TOLD(&acceptor, BOP_OK, BOP_READABLE);
  int server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  CHECK(server >= 0);
  SAYS(kind, listener, BOP_READABLE, 0, BOP_TIMEOUT, 0);

  t_waiter reader; /* the peer resets the connection */
  t_waiter_waits(&reader, kind, client, BOP_READABLE, NEVER);
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  CHECK_EQ(setsockopt(server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
  t_close(server);
  TOLD(&reader, BOP_OK, BOP_READABLE);
  char byte;
  CHECK_EQ(t_read(client, &byte, 1), -ECONNRESET);
  t_close(client);
  t_close(listener);
}

static void other_kinds(int kind) {
  CASE("an eventfd, a timerfd");
  t_waiter it;
  int events = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  CHECK(events >= 0 && timer >= 0);
  SAYS(kind, events, BOTH, NEVER, BOP_OK, BOP_WRITABLE);
  t_waiter_waits(&it, kind, events, BOP_READABLE, NEVER);
  CHECK_EQ(t_write(events, &(uint64_t){1}, 8), 8);
  TOLD(&it, BOP_OK, BOP_READABLE);
  const struct itimerspec soon = {.it_value = {.tv_nsec = 2 * MS}};
  CHECK_EQ(timerfd_settime(timer, 0, &soon, NULL), 0);
  SAYS(kind, timer, BOP_READABLE, t_far(), BOP_OK, BOP_READABLE);
  uint64_t expired = 0;
  CHECK_EQ(t_read(timer, &expired, 8), 8);
  CHECK_EQ(expired, 1);
  t_close(events);
  t_close(timer);
}

int main(void) {
  t_start("fd");
  signal(SIGPIPE, SIG_IGN);
  t_runtimes_start(2, 0);
  for (int kind = 0; kind < KINDS; kind++) {
    what_is_ready(kind);
    when_it_happens(kind);
    deadlines(kind);
    if (kind != THREAD)
      cancelling(kind);
    ends_of_streams(kind);
    connections(kind);
    other_kinds(kind);
  }
  no_mask();
  several();
  t_runtimes_delete();
  return 0;
}
