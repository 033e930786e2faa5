#include "descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

void t_pipe(int ends[2]) { CHECK_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0); }

void t_sockets(int ends[2]) {
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

void t_close(int fd) { CHECK_EQ(close(fd), 0); }

APART int64_t t_read(int fd, void *buffer, size_t size) {
  ssize_t n = read(fd, buffer, size);
  return n < 0 ? -errno : n;
}

APART int64_t t_write(int fd, const void *buffer, size_t size) {
  ssize_t n = write(fd, buffer, size);
  return n < 0 ? -errno : n;
}

APART int64_t t_bop_close(int fd) { return bop_close(fd) < 0 ? -errno : 0; }

size_t t_fill(int fd) {
  static const char zeros[4096];
  size_t all = 0;
  int64_t n;
  for (size_t size = sizeof zeros; size > 0; size /= 2) /* the last byte that fits, too */
    for (; (n = t_write(fd, zeros, size)) > 0; all += (size_t)n) {
    }
  CHECK_EQ(n, -EAGAIN);
  return all;
}

size_t t_drain(int fd) {
  char buffer[4096];
  size_t all = 0;
  int64_t n;
  for (; (n = t_read(fd, buffer, sizeof buffer)) > 0; all += (size_t)n) {
  }
  CHECK(n == 0 || n == -EAGAIN);
  return all;
}

/* ---- who waits ---- */

bop_status_t t_wait_fd(int fd, uint32_t events, uint32_t *ready, uint64_t deadline) {
  return deadline == NEVER ? bop_wait_fd(fd, events, ready) : bop_wait_fd_until(fd, events, ready, deadline);
}

enum { UNTOLD = 77 };

static int64_t waits_once(void *data) {
  t_waiter *me = data;
  bop_status_t status = t_wait_fd(me->fd, me->events, &me->ready, me->actor.deadline);
  me->actor.returned_at = bop_now();
  return me->actor.status = (int)status;
}

void t_waiter_begin(t_waiter *it, int kind, int fd, uint32_t events, uint64_t deadline) {
  *it = (t_waiter){.actor = {.deadline = deadline, .status = -1}, .fd = fd, .events = events, .ready = UNTOLD};
  t_actor_begin(&it->actor, kind, waits_once);
}

void t_waiter_waits(t_waiter *it, int kind, int fd, uint32_t events, uint64_t deadline) {
  t_waiter_begin(it, kind, fd, events, deadline);
  t_actor *actor = &it->actor;
  EVENTUALLY(actor->status != -1 || t_actor_waits(actor));
  CHECK(actor->status == -1 || bop_now() >= deadline);
}

void t_told(const char *file, int line, t_waiter *it, bop_status_t status, uint32_t told) {
  bop_status_t got = (bop_status_t)t_actor_end(&it->actor);
  if (got != status)
    t_fail(file, line, "the wait ended \"%s\", not \"%s\"", bop_status_name(got), bop_status_name(status));
  t_check_eq(file, line, "what it was told", it->ready, status == BOP_OK ? told : UNTOLD);
  if (status == BOP_TIMEOUT && it->actor.returned_at < it->actor.deadline)
    t_fail(file, line, "the deadline had not come");
}

void t_says(const char *file, int line, int kind, int fd, uint32_t events, uint64_t deadline, bop_status_t status,
            uint32_t told) {
  t_waiter it;
  t_waiter_begin(&it, kind, fd, events, deadline);
  t_told(file, line, &it, status, told);
}

/* ---- threads ---- */

int t_threads(const char *name) {
  int n = 0;
  char path[300], text[64];
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE *file = fopen(path, "r");
    if (file && fgets(text, sizeof text, file)) /* else it is gone */
      n += strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == '\n';
    if (file)
      fclose(file);
  }
  closedir(tasks);
  return n;
}

/* ---- what the environment asks for ---- */

uint64_t t_setting(const char *name, uint64_t otherwise) {
  const char *given = getenv(name);
  return given ? strtoull(given, NULL, 10) : otherwise;
}

uint64_t t_seed(void) {
  uint64_t seed = t_setting("BOP_SEED", t_now() % 1000000000);
  printf("BOP_SEED=%" PRIu64 "\n", seed);
  fflush(stdout);
  return seed;
}

uint64_t t_stress(void) {
  const char *given = getenv("BOP_STRESS");
  return (uint64_t)((given ? atof(given) : 2) * (double)SECOND);
}
