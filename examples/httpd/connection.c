#include "connection.h"

#include "net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How long a client may still send after it was told that nobody listens. */
#define FINISH UINT64_C(1000000000)

struct connection {
  struct server *server;
  int fd;
  struct connection *next, **link; /* in the server's list */
  struct text in;                  /* what has come and is not handled; it never moves */
  struct text content, out;        /* of the reply */
};

static const char INDEX[] = "<!doctype html>\n<title>httpd</title>\n<ul>\n"
                            "<li><a href=\"/hello/you\">/hello/NAME</a>: a page by a small guest\n"
                            "<li><a href=\"/js?print(6*7)\">/js?SCRIPT</a>, or a POST of one: QuickJS runs it\n"
                            "<li><a href=\"/sleep/500\">/sleep/MS</a>: sleeps by way of WASI\n"
                            "<li><a href=\"/spin\">/spin</a>: never ends\n"
                            "<li><a href=\"/trap\">/trap</a>, <a href=\"/recurse\">/recurse</a>: trap\n"
                            "<li><a href=\"/memory\">/memory</a>: takes all that it can have\n"
                            "<li><a href=\"/large\">/large</a>: wants more than that from the start\n</ul>\n";

/* ---- one request ---- */

/* What can be known of a request so far: PARSED when all of it is there. */
static int parse(struct connection *connection, struct request *request, bool *parsed) {
  if (!*parsed) {
    int status = http_parse(&connection->in, request);
    if (status != PARSED)
      return status;
    *parsed = true;
    request->body = connection->in.data + request->head_size;
  }
  return connection->in.size - request->head_size < request->body_size ? PARSE_MORE : PARSED;
}

/* Reads until there is a whole request, or a reason to refuse it. 0: PARSED; a status; negative: there will be none. */
static int read_request(struct connection *connection, struct request *request) {
  const struct server_options *options = &connection->server->options;
  struct text *in = &connection->in;
  bool parsed = false, told = false, begun = in->size != 0;
  uint64_t deadline = bop_now() + (begun ? options->request_ns : options->idle_ns);
  for (;;) {
    int status = parse(connection, request, &parsed);
    if (status != PARSE_MORE)
      return status;
    if (parsed && request->expects_continue && !told) {
      static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";
      if (net_write(connection->fd, CONTINUE, sizeof CONTINUE - 1, deadline) != 0)
        return -1;
      told = true;
    }
    ssize_t count = net_read(connection->fd, in->data + in->size, in->capacity - in->size, deadline);
    if (count == -ETIMEDOUT && begun)
      return 408;
    if (count <= 0)
      return -1;
    in->size += (size_t)count;
    if (!begun) {
      begun = true;
      deadline = bop_now() + options->request_ns;
    }
  }
}

static bool wanted(void *env) {
  const struct connection *connection = env;
  /* Once the server stops, it has itself ended what clients send. */
  return atomic_load(&connection->server->stopping) || !net_gone(connection->fd);
}

static int answer(struct connection *connection, const struct request *request, const char **type) {
  struct text *content = &connection->content;
  if (strcmp(request->path, "/") == 0) {
    *type = "text/html; charset=utf-8";
    return text_append(content, INDEX, sizeof INDEX - 1) ? 200 : 0;
  }
  struct guests *guests = connection->server->guests;
  const struct route *route = guests_route(guests, request->path);
  if (route == NULL)
    return text_format(content, "there is nothing at %s\n", request->path) ? 404 : 0;
  if (request->method == METHOD_POST && !guests_takes_body(route))
    return text_format(content, "%s takes no content\n", request->path) ? 405 : 0;
  return guests_handle(guests, route, request, wanted, connection, content, type);
}

static bool send_reply(struct connection *connection, const struct reply *reply) {
  struct text *content = &connection->content, *out = &connection->out;
  out->size = 0;
  return http_reply(out, reply, content->data, content->size) &&
         net_write(connection->fd, out->data, out->size, bop_now() + connection->server->options.request_ns) == 0;
}

/* Reads a request and answers it. Returns whether there may be another one. */
static bool serve_one(struct connection *connection) {
  struct server *server = connection->server;
  struct request request;
  connection->content.size = 0;
  int status = read_request(connection, &request);
  if (status < 0)
    return false;
  if (status != PARSED) {
    /* Where the next request begins, nobody knows. */
    atomic_fetch_add(&server->refused, 1);
    struct reply reply = {.status = status};
    if (text_format(&connection->content, "%s\n", http_reason(status)) && send_reply(connection, &reply))
      net_finish(connection->fd, bop_now() + FINISH);
    return false;
  }
  struct reply reply = {.head_only = request.method == METHOD_HEAD};
  reply.status = answer(connection, &request, &reply.type);
  if (reply.status == 0)
    return false;
  reply.keep_alive = request.keep_alive && !atomic_load(&server->stopping);
  text_drop(&connection->in, request.head_size + request.body_size);
  if (!send_reply(connection, &reply))
    return false;
  atomic_fetch_add(&server->replies, 1);
  if (!reply.keep_alive)
    net_finish(connection->fd, bop_now() + FINISH);
  return reply.keep_alive;
}

/* ---- the connection ---- */

static int64_t serve(void *env) {
  while (serve_one(env)) {
  }
  return 0;
}

/* The fiber's finalizer: it is called exactly once, whether the fiber has begun or not. */
static void finish(void *env) {
  struct connection *connection = env;
  struct server *server = connection->server;
  pthread_mutex_lock(&server->lock);
  *connection->link = connection->next;
  if (connection->next != NULL)
    connection->next->link = connection->link;
  pthread_mutex_unlock(&server->lock);
  bop_close(connection->fd);
  text_free(&connection->in);
  text_free(&connection->content);
  text_free(&connection->out);
  free(connection);
  bop_semaphore_release(server->room, 1);
  bop_wait_group_done(server->open);
}

void connection_start(struct server *server, int fd) {
  struct connection *connection = calloc(1, sizeof *connection);
  if (connection == NULL || !text_reserve(&connection->in, HEAD_LIMIT + BODY_LIMIT)) {
    free(connection);
    bop_close(fd);
    bop_semaphore_release(server->room, 1);
    return;
  }
  connection->server = server;
  connection->fd = fd;
  bop_wait_group_add(server->open, 1);
  atomic_fetch_add(&server->connections, 1);
  pthread_mutex_lock(&server->lock);
  connection->next = server->list;
  connection->link = &server->list;
  if (server->list != NULL)
    server->list->link = &connection->next;
  server->list = connection;
  pthread_mutex_unlock(&server->lock);
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, "connection", 10);
  wasmtime_error_t *error = bop_spawn_host(server->runtime, serve, connection, finish, options, NULL);
  bop_spawn_options_delete(options);
  if (error != NULL) /* and `finish` was called */
    wasmtime_error_delete(error);
}

void connections_hang_up(struct server *server) {
  pthread_mutex_lock(&server->lock);
  for (struct connection *connection = server->list; connection != NULL; connection = connection->next)
    shutdown(connection->fd, SHUT_RD);
  pthread_mutex_unlock(&server->lock);
}
