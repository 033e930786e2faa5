/* A host whose event loop is libuv's: one thread for its timers, its TCP server, and all fibers.
 *
 * libuv watches bop_runtime_fd as it watches any other descriptor, and runs fibers for a millisecond at a time. A guest
 * that never ends runs all the while. Fibers are the clients of the server: what they send it echoes, on the same
 * thread. libuv's timer and its thread pool send values to fibers. */
#include "support/descriptors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <uv.h>

enum { CLIENTS = 20, MESSAGES = 50, LARGEST = 20000, GUESTS = 10, TICKS = 20, WORKS = 10 };

static struct host {
  uv_loop_t loop;
  uv_poll_t fibers;
  uv_timer_t timer;
  uv_tcp_t server;
  uv_work_t works[WORKS];
  struct sockaddr_in address;
  bop_runtime_t *runtime;
  bop_channel_t *ticks, *results;
  uint64_t runs, connections, echoed;
  bool ended;
  bop_fiber_t *manager;
} host;

#define UV(call) CHECK_EQ(call, 0)

/* ---- the loop's own things ---- */

static void frees_client(uv_handle_t *client) { free(client); }

static void closes(uv_handle_t *handle, void *server) {
  if (!uv_is_closing(handle)) /* a client that the server has not yet seen close is one that it made */
    uv_close(handle, handle->type == UV_TCP && handle != server ? frees_client : NULL);
}

static void runs_fibers(uv_poll_t *handle, int status, int events) {
  (void)handle;
  CHECK(status == 0 && events == UV_READABLE);
  OK(bop_run_for(host.runtime, MS, NULL));
  host.runs++;
  if (!host.ended && bop_fiber_state(host.manager) == BOP_STATE_FINISHED) {
    host.ended = true;
    uv_walk(&host.loop, closes, &host.server); /* without handles the loop ends */
  }
}

static void ticks(uv_timer_t *timer) {
  bop_status_t status = bop_channel_send_until(host.ticks, uv_now(timer->loop), 0);
  CHECK(status == BOP_OK || status == BOP_TIMEOUT || status == BOP_CLOSED); /* never waits */
}

static void works(uv_work_t *work) { /* on a thread of libuv's */
  t_pause(MS);
  CHECK_EQ(bop_channel_send(host.results, (uint64_t)(work - host.works)), BOP_OK);
}

typedef struct echo {
  uv_write_t request;
  uv_buf_t buffer;
} echo;

static void has_written(uv_write_t *request, int status) {
  CHECK_EQ(status, 0);
  echo *it = (echo *)request;
  host.echoed += it->buffer.len;
  free(it->buffer.base);
  free(it);
}

static void allocates(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
  (void)handle;
  *buffer = uv_buf_init(malloc(suggested), (unsigned)suggested);
}

static void reads(uv_stream_t *client, ssize_t n, const uv_buf_t *buffer) {
  if (n > 0) {
    echo *it = calloc(1, sizeof *it);
    it->buffer = uv_buf_init(buffer->base, (unsigned)n);
    UV(uv_write(&it->request, client, &it->buffer, 1, has_written));
    return;
  }
  free(buffer->base);
  CHECK(n == 0 || n == UV_EOF);
  if (n == UV_EOF)
    uv_close((uv_handle_t *)client, frees_client);
}

static void accepts(uv_stream_t *server, int status) {
  CHECK_EQ(status, 0);
  uv_tcp_t *client = malloc(sizeof *client);
  UV(uv_tcp_init(&host.loop, client));
  UV(uv_accept(server, (uv_stream_t *)client));
  UV(uv_read_start((uv_stream_t *)client, allocates, reads));
  host.connections++;
}

static void serve(void) {
  int length = sizeof host.address;
  UV(uv_ip4_addr("127.0.0.1", 0, &host.address));
  UV(uv_tcp_init(&host.loop, &host.server));
  UV(uv_tcp_bind(&host.server, (const struct sockaddr *)&host.address, 0));
  UV(uv_listen((uv_stream_t *)&host.server, 128, accepts));
  UV(uv_tcp_getsockname(&host.server, (struct sockaddr *)&host.address, &length));
}

/* ---- fibers ---- */

/* What connect says; errno is the thread's, and must be asked for at once. */
static __attribute__((noinline, noclone)) int connects(int fd) {
  return connect(fd, (const struct sockaddr *)&host.address, sizeof host.address) == 0 ? 0 : errno;
}

/* Sends and reads back at the same time: more is on its way than sockets hold. */
static int64_t is_client(void *number) {
  uint64_t random = (uint64_t)(uintptr_t)number * 977 + 1;
  int64_t all = 0;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  int error = connects(fd);
  CHECK(error == 0 || error == EINPROGRESS);
  CHECK_EQ(bop_wait_fd(fd, BOP_WRITABLE, NULL), BOP_OK);
  char *sent = malloc(LARGEST), *got = malloc(LARGEST);
  for (int i = 0; i < MESSAGES; i++) {
    int64_t size = 1 + (int64_t)t_below(&random, LARGEST), out = 0, in = 0;
    for (int64_t j = 0; j < size; j++)
      sent[j] = (char)t_below(&random, 256);
    while (in < size) {
      int64_t n = out < size ? t_write(fd, sent + out, (size_t)(size - out)) : -EAGAIN;
      out += n > 0 ? n : 0;
      int64_t m = t_read(fd, got + in, (size_t)(size - in));
      in += m > 0 ? m : 0;
      CHECK((n > 0 || n == -EAGAIN) && (m > 0 || m == -EAGAIN));
      if (n < 0 && m < 0)
        CHECK_EQ(bop_wait_fd(fd, out < size ? BOTH : BOP_READABLE, NULL), BOP_OK);
    }
    CHECK(memcmp(sent, got, (size_t)size) == 0);
    all += size;
  }
  free(sent);
  free(got);
  CHECK_EQ(t_bop_close(fd), 0);
  return all;
}

static int64_t counts_ticks(void *env) {
  (void)env;
  uint64_t last = 0, now = 0;
  for (int i = 0; i < TICKS; i++, last = now) {
    CHECK_EQ(bop_channel_receive(host.ticks, &now), BOP_OK);
    CHECK(now >= last);
  }
  CHECK_EQ(bop_channel_close(host.ticks), BOP_OK);
  return TICKS;
}

static int64_t awaits_works(void *env) {
  (void)env;
  int64_t sum = 0;
  uint64_t number;
  for (int i = 0; i < WORKS; i++) {
    CHECK_EQ(bop_channel_receive(host.results, &number), BOP_OK);
    sum += (int64_t)number;
  }
  return sum;
}

static const char *const GUEST =
    "(module (func (export \"spin\") (loop (br 0)))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $s i32)"
    "    (loop (local.set $s (i32.add (local.get $s) (local.get $n)))"
    "      (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (local.get $s)))";

/* Spawns all the others, waits for them, and ends the one that would not end. */
static int64_t manages(void *data) {
  const t_guest *guest = data;
  bop_fiber_t *spins = t_spawn0(&guest[GUESTS], "spin"), *clients[CLIENTS], *sums[GUESTS];
  for (uintptr_t i = 0; i < CLIENTS; i++)
    clients[i] = t_spawn_host(host.runtime, is_client, (void *)i, NULL);
  for (int i = 0; i < GUESTS; i++)
    sums[i] = t_spawn1(&guest[i], "sum", 300000 + i);
  bop_fiber_t *counts = t_spawn_host(host.runtime, counts_ticks, NULL, NULL);
  bop_fiber_t *awaits = t_spawn_host(host.runtime, awaits_works, NULL, NULL);
  int64_t all = 0;
  for (int i = 0; i < CLIENTS; i++)
    all += t_result(clients[i]);
  for (int i = 0; i < GUESTS; i++)
    CHECK_EQ(t_result(sums[i]), (int32_t)((uint64_t)(300000 + i) * (uint64_t)(300001 + i) / 2));
  CHECK_EQ(t_result(counts), TICKS);
  CHECK_EQ(t_result(awaits), WORKS * (WORKS - 1) / 2);
  CHECK(bop_fiber_state(spins) != BOP_STATE_FINISHED);
  t_cancel_all(&spins, 1);
  return all;
}

int main(void) {
  t_start("real.uv_loop");
  printf("libuv %s\n", uv_version_string());
  host.runtime = t_runtime(1, 0);
  host.ticks = t_channel(1, 0);
  host.results = t_channel(1, 0);
  t_guest guests[GUESTS + 1];
  for (int i = 0; i <= GUESTS; i++)
    t_guest_new(&guests[i], host.runtime, GUEST, NULL);
  UV(uv_loop_init(&host.loop));
  UV(uv_poll_init(&host.loop, &host.fibers, bop_runtime_fd(host.runtime)));
  UV(uv_poll_start(&host.fibers, UV_READABLE, runs_fibers));
  UV(uv_timer_init(&host.loop, &host.timer));
  UV(uv_timer_start(&host.timer, ticks, 1, 1));
  serve();
  for (int i = 0; i < WORKS; i++)
    UV(uv_queue_work(&host.loop, &host.works[i], works, NULL));
  host.manager = t_spawn_host(host.runtime, manages, guests, NULL);

  UV(uv_run(&host.loop, UV_RUN_DEFAULT));
  UV(uv_loop_close(&host.loop)); /* nothing of it is left */
  CHECK_EQ(t_result(host.manager), host.echoed);
  CHECK_EQ(host.connections, CLIENTS);
  CHECK(host.runs > 10 && t_stats(host.runtime).preemptions > 10);
  CHECK_EQ(t_stats(host.runtime).live, 0);
  printf("%llu bytes came back; fibers were run %llu times\n", (unsigned long long)host.echoed,
         (unsigned long long)host.runs);
  for (int i = 0; i <= GUESTS; i++)
    t_guest_delete(&guests[i]);
  bop_channel_delete(host.ticks);
  bop_channel_delete(host.results);
  OK(bop_runtime_delete(host.runtime));
  return 0;
}
