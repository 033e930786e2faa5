/* A server: a fiber that accepts, and one for each connection. */
#ifndef HTTPD_SERVER_H
#define HTTPD_SERVER_H

#include "guests.h"

struct server_options {
  const char *address;
  uint16_t port;
  size_t connections;  /* at a time; further ones wait in the kernel's queue */
  uint64_t idle_ns;    /* how long a connection may be without a request */
  uint64_t request_ns; /* how long a request may take to come in, and a reply to go out */
};

struct server;

/* Begins to accept. NULL: it can't, and has said so on stderr. `guests` must outlive it. */
struct server *server_start(bop_runtime_t *runtime, struct guests *guests, const struct server_options *options);
uint16_t server_port(const struct server *server);
/* Accepts no more, and closes connections as soon as the request that they are at, if any, is answered. Does not wait for
 * that, and for the accepting fiber until the deadline. Called once, by a plain thread. */
void server_stop(struct server *server, uint64_t deadline);
/* Waits until no connection is left; false: the deadline came first. */
bool server_wait(struct server *server, uint64_t deadline);
/* Once it is stopped, and the runtime shut down. */
void server_delete(struct server *server);

struct server_counts {
  uint64_t connections, replies, refused; /* refused: requests that were none */
};
struct server_counts server_counts(const struct server *server);

#endif
