/* An echo server and its clients in one process: each side of each connection is a fiber of its own, on two workers.
 * Messages of random length go to and fro in pieces of random length, some of them larger than the kernel takes at a
 * time; every byte that comes back is checked.
 *
 * BOP_CONNECTIONS is how many there are at once, 10,000 unless told, or as many as there can be descriptors for (each
 * takes two). BOP_SEED repeats the seed, which every run prints. */
#include "support/descriptors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  CONNECTIONS = 10000,
  ROUNDS = 4,
  SHORT = 3000,    /* bytes of most messages, at the most */
  LONG = 300000,   /* and of those of every 50th connection, whose buffers are made small */
  PIECE = 4096,    /* what is read or written at a time, at the most */
  AT_A_TIME = 100, /* clients that connect: fewer than the kernel keeps for the acceptor */
};

static uint64_t seed;
static struct sockaddr_in address;
static int listener;
static bop_channel_t *connecting;  /* has a value for each client that connects */
static bop_wait_group_t *all_here; /* one thing to be done for each client that has not had its first message back */
static atomic_uint accepted, served;
static atomic_ullong sent, echoed, waits;

/* What connection `which` sends as its byte number `at`. */
static uint8_t byte_of(uint64_t which, uint64_t at) {
  uint64_t x = seed + which * UINT64_C(0x9e3779b97f4a7c15) + at / 8 * UINT64_C(0xd1342543de82ef95);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  return (uint8_t)(x >> (at % 8 * 8));
}

static uint32_t wait_for(int fd, uint32_t events) {
  uint32_t ready = 0;
  waits++;
  CHECK_EQ(bop_wait_fd(fd, events, &ready), BOP_OK);
  CHECK(ready != 0 && (ready & ~events) == 0);
  return ready;
}

/* ---- the server ---- */

static int64_t serves(void *data) {
  int fd = (int)(intptr_t)data;
  uint64_t random = (seed ^ (uint64_t)fd << 32) | 1;
  uint8_t buffer[PIECE];
  for (;;) {
    int64_t n = t_read(fd, buffer, 1 + t_below(&random, PIECE));
    if (n == 0)
      break;
    if (n == -EAGAIN) {
      wait_for(fd, BOP_READABLE);
      continue;
    }
    CHECK(n > 0);
    for (int64_t done = 0, now; done < n; done += now)
      if ((now = t_write(fd, buffer + done, 1 + t_below(&random, (uint64_t)(n - done)))) < 0) {
        CHECK_EQ(now, -EAGAIN);
        now = 0;
        wait_for(fd, BOP_WRITABLE);
      }
    echoed += (uint64_t)n;
  }
  served++;
  return bop_close(fd);
}

/* Accepts until the listener is closed. */
static int64_t accepts(void *runtime) {
  bop_status_t status;
  while ((status = bop_wait_fd(listener, BOP_READABLE, NULL)) == BOP_OK) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
      accepted++;
      OK(bop_spawn_host(runtime, serves, (void *)(intptr_t)fd, NULL, NULL, NULL));
    }
  }
  return status;
}

/* ---- a client ---- */

static int connection_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
  return error;
}

__attribute__((noinline)) static bool connects(int fd) {
  bool done = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
  CHECK(done || errno == EINPROGRESS);
  return done;
}

static int connected(bool small) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  if (small) {
    const int size = 16 << 10;
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
  }
  CHECK_EQ(bop_channel_send(connecting, 1), BOP_OK);
  if (!connects(fd))
    wait_for(fd, BOP_WRITABLE);
  CHECK_EQ(connection_error(fd), 0);
  return fd;
}

/* Sends and receives at the same time: what comes back must not be kept waiting, or both sides might. */
static int64_t talks(void *data) {
  uint64_t me = (uint64_t)(uintptr_t)data, random = (seed + me) * UINT64_C(0x9e3779b97f4a7c15) | 1;
  uint8_t buffer[PIECE];
  int fd = connected(me % 50 == 0);
  uint64_t out = 0, in = 0, end = 0;
  for (int round = 0; round < ROUNDS; round++) {
    end += 1 + t_below(&random, me % 50 ? SHORT : LONG);
    while (in < end) {
      uint64_t most = 1 + t_below(&random, PIECE), n = most < end - out ? most : end - out;
      for (uint64_t i = 0; i < n; i++)
        buffer[i] = byte_of(me, out + i);
      int64_t now = n ? t_write(fd, buffer, n) : -EAGAIN;
      CHECK(now > 0 || now == -EAGAIN);
      bool stuck = now < 0;
      out += stuck ? 0 : (uint64_t)now;

      now = t_read(fd, buffer, 1 + t_below(&random, PIECE));
      CHECK(now > 0 || now == -EAGAIN);
      for (int64_t i = 0; i < now; i++)
        if (buffer[i] != byte_of(me, in + (uint64_t)i))
          t_fail(__FILE__, __LINE__, "BOP_SEED=%" PRIu64 ": connection %" PRIu64 ": byte %" PRIu64 " is wrong", seed,
                 me, in + (uint64_t)i);
      in += now < 0 ? 0 : (uint64_t)now;
      CHECK(in <= out);
      if (stuck && now < 0)
        wait_for(fd, (in < end ? BOP_READABLE : 0) | (out < end ? BOP_WRITABLE : 0));
    }
    if (round == 0) { /* now all wait for each other, connected */
      CHECK_EQ(bop_channel_receive(connecting, NULL), BOP_OK);
      CHECK_EQ(served, 0);
      CHECK_EQ(bop_wait_group_done(all_here), BOP_OK);
      CHECK_EQ(bop_wait_group_wait(all_here), BOP_OK);
    }
  }
  sent += out;
  CHECK_EQ(shutdown(fd, SHUT_WR), 0);
  while (t_read(fd, buffer, 1) != 0)
    wait_for(fd, BOP_READABLE);
  CHECK_EQ(bop_close(fd), 0);
  return (int64_t)out;
}

/* ---- both ---- */

/* As many as are asked for, as far as the limit of descriptors goes. */
static uint64_t connections(void) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  uint64_t most = limit.rlim_cur > 1 << 20 ? 1 << 19 : limit.rlim_cur > 64 ? (limit.rlim_cur - 64) / 2 : 0;
  uint64_t n = t_setting("BOP_CONNECTIONS", CONNECTIONS);
  return n < most ? n : most;
}

static void listens(void) {
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  CHECK(listener >= 0);
  CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
  CHECK_EQ(listen(listener, 4 * AT_A_TIME), 0);
}

int main(void) {
  t_start("echo");
  signal(SIGPIPE, SIG_IGN);
  seed = t_seed();
  const uint64_t n = connections();
  bop_fiber_t **clients = calloc(n, sizeof *clients);
  CHECK(clients != NULL);
  listens();
  connecting = t_channel(AT_A_TIME, 0);
  all_here = bop_wait_group_new();
  CHECK_EQ(bop_wait_group_add(all_here, n), BOP_OK);
  bop_runtime_t *runtime = t_runtime(2, 0);
  OK(bop_runtime_start(runtime));

  CASE("echo");
  uint64_t start = t_now(), all = 0;
  bop_fiber_t *acceptor = t_spawn_host(runtime, accepts, runtime, "acceptor");
  for (uint64_t i = 0; i < n; i++)
    clients[i] = t_spawn_host(runtime, talks, (void *)(uintptr_t)i, NULL);
  for (uint64_t i = 0; i < n; i++)
    all += (uint64_t)t_result(clients[i]);
  EVENTUALLY(served == n);
  double seconds = (double)(t_now() - start) / 1e9;
  CHECK_EQ(bop_close(listener), 0);
  CHECK_EQ(t_result(acceptor), BOP_CLOSED);
  CHECK_EQ(accepted, n);
  CHECK_EQ(sent, all);
  CHECK_EQ(echoed, all);
  CHECK(waits > n);
  printf("%" PRIu64 " connections, %.1f MB there and back in %.2f s, %llu waits\n", n, (double)all / 1e6, seconds,
         (unsigned long long)waits);
  EVENTUALLY(t_stats(runtime).live == 0);
  OK(bop_runtime_delete(runtime));
  bop_channel_delete(connecting);
  bop_wait_group_delete(all_here);
  free(clients);
  return 0;
}
