/* What a server and its connections share. */
#ifndef HTTPD_CONNECTION_H
#define HTTPD_CONNECTION_H

#include "server.h"

#include <pthread.h>
#include <stdatomic.h>

struct connection;

struct server {
  bop_runtime_t *runtime;
  struct guests *guests;
  struct server_options options;
  int listener;
  bop_fiber_t *acceptor;
  atomic_bool stopping;
  bop_semaphore_t *room;   /* for connections */
  bop_wait_group_t *open;  /* they, until they are closed */
  pthread_mutex_t lock;    /* of the list; nobody waits for anything else while he holds it */
  struct connection *list;
  _Atomic uint64_t connections, replies, refused;
};

/* Takes over a socket, and a permit of `room`: serves it on a new fiber. */
void connection_start(struct server *server, int fd);
/* Makes those who wait for a request find the end of the stream instead. */
void connections_hang_up(struct server *server);

#endif
