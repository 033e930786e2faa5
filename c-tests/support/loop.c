#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000 };

static bool readable_within(int fd, int ms) {
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  int n;
  do
    n = poll(&entry, 1, ms);
  while (n < 0 && errno == EINTR);
  CHECK(n >= 0 && (n == 0 || entry.revents == POLLIN));
  return n == 1;
}

bool t_readable(int fd) { return readable_within(fd, 0); }

void t_readable_at_last(const char *file, int line, int fd) {
  if (!readable_within(fd, PATIENCE_MS))
    t_fail(file, line, "the descriptor never became readable");
}

uint64_t t_run_for(bop_runtime_t *runtime, uint64_t budget_ns) {
  uint64_t next = 77;
  OK(bop_run_for(runtime, budget_ns, &next));
  CHECK(next != 77);
  return next;
}

uint64_t t_settle(bop_runtime_t *runtime) {
  int fd = bop_runtime_fd(runtime), runs = 0;
  uint64_t next;
  do {
    next = t_run_for(runtime, SECOND);
    if (++runs > 1000)
      t_fail(__FILE__, __LINE__, "the descriptor stays readable, with nothing left to do");
  } while (next == 0 || t_readable(fd));
  return next;
}

static void watch(const t_loop *loop, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

void t_loop_begin(t_loop *loop, bop_runtime_t *runtime, uint64_t budget_ns, uint64_t timer_ns) {
  *loop = (t_loop){.runtime = runtime, .budget = budget_ns, .fd = bop_runtime_fd(runtime)};
  CHECK(loop->fd >= 0);
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  CHECK(loop->epoll >= 0 && loop->timer >= 0);
  struct timespec every = {(time_t)(timer_ns / SECOND), (long)(timer_ns % SECOND)};
  CHECK_EQ(timerfd_settime(loop->timer, 0, &(struct itimerspec){every, every}, NULL), 0);
  t_pipe(loop->pipe);
  watch(loop, loop->fd);
  watch(loop, loop->timer);
  watch(loop, loop->pipe[0]);
}

void t_loop_end(t_loop *loop) {
  t_close(loop->epoll);
  t_close(loop->timer);
  t_close(loop->pipe[0]);
  t_close(loop->pipe[1]);
}

void t_loop_turn(t_loop *loop) {
  struct epoll_event events[3];
  int n;
  do
    n = epoll_wait(loop->epoll, events, 3, PATIENCE_MS);
  while (n < 0 && errno == EINTR);
  if (n == 0)
    t_fail(__FILE__, __LINE__, "nothing happens any more: a wake-up was lost");
  CHECK(n > 0);
  for (int i = 0; i < n; i++) {
    int fd = events[i].data.fd;
    uint64_t expired = 0;
    if (fd == loop->fd) {
      loop->next = t_run_for(loop->runtime, loop->budget);
      loop->runs++;
    } else if (fd == loop->timer) {
      if (t_read(fd, &expired, sizeof expired) == (int64_t)sizeof expired)
        loop->ticks += expired;
    } else {
      loop->bytes += t_drain(fd);
    }
  }
}
