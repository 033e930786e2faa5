#include "server.h"

#include "connection.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long to let others run when there is no descriptor or memory for one more connection. */
#define PAUSE UINT64_C(10000000)

static int64_t accept_all(void *env) {
  struct server *server = env;
  while (bop_semaphore_acquire(server->room) == BOP_OK) {
    int fd = net_accept(server->listener);
    if (fd >= 0) {
      connection_start(server, fd);
      continue;
    }
    bop_semaphore_release(server->room, 1);
    if (fd == -ECANCELED || fd == -EBADF)
      break;
    if (fd != -ECONNABORTED && fd != -EINTR && bop_sleep(PAUSE) != BOP_OK)
      break;
  }
  return 0;
}

static wasmtime_error_t *start(struct server *server) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, "acceptor", 8);
  wasmtime_error_t *error =
      bop_spawn_host(server->runtime, accept_all, server, NULL, options, &server->acceptor);
  bop_spawn_options_delete(options);
  return error;
}

struct server *server_start(bop_runtime_t *runtime, struct guests *guests, const struct server_options *options) {
  struct server *server = calloc(1, sizeof *server);
  if (server == NULL)
    return NULL;
  server->runtime = runtime;
  server->guests = guests;
  server->options = *options;
  server->listener = net_listen(options->address, &server->options.port);
  if (server->listener < 0) {
    fprintf(stderr, "httpd: cannot listen at %s:%d: %s\n", options->address, options->port,
            strerror(-server->listener));
    free(server);
    return NULL;
  }
  pthread_mutex_init(&server->lock, NULL);
  server->room = bop_semaphore_new(options->connections);
  server->open = bop_wait_group_new();
  wasmtime_error_t *error = start(server);
  if (error == NULL)
    return server;
  fprintf(stderr, "httpd: there is no room for a single fiber\n");
  wasmtime_error_delete(error);
  server_delete(server);
  return NULL;
}

uint16_t server_port(const struct server *server) { return server->options.port; }

void server_stop(struct server *server, uint64_t deadline) {
  bop_fiber_cancel(server->acceptor);
  bop_status_t status = bop_fiber_join_until(server->acceptor, deadline, NULL);
  if (status == BOP_OK) { /* nobody uses it any more; its number may soon mean another socket */
    bop_close(server->listener);
    server->listener = -1;
  }
  atomic_store(&server->stopping, true);
  connections_hang_up(server);
}

bool server_wait(struct server *server, uint64_t deadline) {
  return bop_wait_group_wait_until(server->open, deadline) == BOP_OK;
}

void server_delete(struct server *server) {
  if (server->listener >= 0)
    bop_close(server->listener);
  bop_fiber_detach(server->acceptor);
  bop_semaphore_delete(server->room);
  bop_wait_group_delete(server->open);
  pthread_mutex_destroy(&server->lock);
  free(server);
}

struct server_counts server_counts(const struct server *server) {
  return (struct server_counts){atomic_load(&server->connections), atomic_load(&server->replies),
                                atomic_load(&server->refused)};
}
