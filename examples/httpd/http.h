/* HTTP/1.1 as text: requests are parsed, replies are written. Knows no sockets and no guests. */
#ifndef HTTPD_HTTP_H
#define HTTPD_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#define HEAD_LIMIT ((size_t)8 << 10)  /* bytes of a request's first line and header fields */
#define BODY_LIMIT ((size_t)64 << 10) /* bytes of its body */

/* Text that grows. */
struct text {
  char *data;
  size_t size, capacity;
};

/* Room for so many bytes more. False, and nothing has changed: no memory. */
bool text_reserve(struct text *text, size_t more);
bool text_append(struct text *text, const void *data, size_t size);
bool text_format(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Takes bytes off the front. */
void text_drop(struct text *text, size_t size);
void text_free(struct text *text);

enum method { METHOD_GET, METHOD_HEAD, METHOD_POST };

/* A request; it points into the text that it was parsed from. */
struct request {
  enum method method;
  const char *path, *query; /* decoded, and ended by a 0; there is none inside */
  const char *body;         /* once all of the request is there */
  size_t head_size, body_size;
  bool keep_alive;       /* the client will have further requests on this connection */
  bool expects_continue; /* it waits to be told that it may send the body */
};

/* What has come of a request so far; else the status that it must be refused with, after which nothing on the
 * connection makes sense. */
enum { PARSED = 0, PARSE_MORE = 1 };

/* Looks for a request's head at the beginning of the text, and parses it; it is decoded in place. With PARSED, `head_size`
 * and `body_size` tell how much of the text belongs to the request. */
int http_parse(struct text *text, struct request *request);

const char *http_reason(int status);

struct reply {
  int status;
  const char *type; /* of its content; NULL: plain text */
  bool keep_alive;
  bool head_only; /* to a HEAD: the same, but without the content */
};

/* Appends a whole reply. False: no memory. */
bool http_reply(struct text *text, const struct reply *reply, const void *content, size_t size);

#endif
