#include "http.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- text ---- */

bool text_reserve(struct text *text, size_t more) {
  if (more <= text->capacity - text->size)
    return true;
  size_t capacity = text->size + more + text->capacity;
  char *moved = realloc(text->data, capacity);
  if (moved == NULL)
    return false;
  text->data = moved;
  text->capacity = capacity;
  return true;
}

bool text_append(struct text *text, const void *data, size_t size) {
  if (!text_reserve(text, size))
    return false;
  if (size != 0)
    memcpy(text->data + text->size, data, size);
  text->size += size;
  return true;
}

bool text_format(struct text *text, const char *format, ...) {
  va_list arguments;
  char *made;
  va_start(arguments, format);
  int size = vasprintf(&made, format, arguments);
  va_end(arguments);
  if (size < 0)
    return false;
  bool good = text_append(text, made, (size_t)size);
  free(made);
  return good;
}

void text_drop(struct text *text, size_t size) {
  text->size -= size;
  if (text->size != 0)
    memmove(text->data, text->data + size, text->size);
}

void text_free(struct text *text) {
  free(text->data);
  *text = (struct text){0};
}

/* ---- requests ---- */

/* The characters of methods and of the names of header fields. */
static bool is_token(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (text[i] <= ' ' || text[i] >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", text[i]) != NULL)
      return false;
  return size != 0;
}

static int hex(char digit) {
  return digit >= '0' && digit <= '9'   ? digit - '0'
         : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
         : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                        : -1;
}

/* Decodes %XX in place, which makes it shorter if anything, and ends it with a 0, for which there is room. */
static bool decode(char *text, size_t size) {
  char *to = text;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '%') {
      int high = i + 2 < size ? hex(text[i + 1]) : -1;
      int low = high >= 0 ? hex(text[i + 2]) : -1;
      if (low < 0)
        return false;
      c = (char)(high * 16 + low);
      i += 2;
    }
    if (c == '\0')
      return false;
    *to++ = c;
  }
  *to = '\0';
  return true;
}

/* The target of a request: /path?query, or the same after http://host. */
static int parse_target(char *target, size_t size, struct request *request) {
  if (size > 7 && strncasecmp(target, "http://", 7) == 0) {
    char *slash = memchr(target + 7, '/', size - 7);
    if (slash == NULL || slash == target + 7)
      return 400;
    size -= (size_t)(slash - target);
    target = slash;
  }
  if (size == 0 || target[0] != '/')
    return 400;
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)target[i] <= ' ' || target[i] == 0x7f)
      return 400;
  char *query = memchr(target, '?', size);
  size_t path = query != NULL ? (size_t)(query - target) : size;
  request->path = target;
  request->query = "";
  if (query != NULL) {
    request->query = query + 1;
    if (!decode(query + 1, size - path - 1))
      return 400;
  }
  return decode(target, path) ? PARSED : 400;
}

/* GET /path HTTP/1.1 */
static int parse_first_line(char *line, size_t size, struct request *request) {
  static const char *const METHODS[] = {"GET", "HEAD", "POST"};
  char *target = memchr(line, ' ', size);
  if (target == NULL || !is_token(line, (size_t)(target - line)))
    return 400;
  size_t method = (size_t)(target - line);
  target++;
  char *version = memchr(target, ' ', size - method - 1);
  if (version == NULL)
    return 400;
  size_t target_size = (size_t)(version++ - target);
  size_t version_size = size - (size_t)(version - line);
  if (version_size != 8 || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.' || version[5] < '0' ||
      version[5] > '9' || version[7] < '0' || version[7] > '9')
    return 400;
  if (version[5] != '1')
    return 505;
  request->keep_alive = version[7] != '0';
  for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++)
    if (strlen(METHODS[i]) == method && memcmp(METHODS[i], line, method) == 0) {
      request->method = (enum method)i;
      return parse_target(target, target_size, request);
    }
  return 501;
}

/* A number without a sign. Too large is too large, however large. */
static bool parse_size(const char *text, size_t size, size_t *out) {
  size_t value = 0;
  for (size_t i = 0; i < size; i++) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    if (value <= BODY_LIMIT)
      value = value * 10 + (size_t)(text[i] - '0');
  }
  *out = value;
  return size != 0;
}

/* Is the word one of a list that is separated by commas? */
static bool lists(const char *value, size_t size, const char *word) {
  const char *end = value + size;
  while (value < end) {
    const char *comma = memchr(value, ',', (size_t)(end - value));
    const char *next = comma != NULL ? comma : end, *last = next;
    while (value < last && (*value == ' ' || *value == '\t'))
      value++;
    while (last > value && (last[-1] == ' ' || last[-1] == '\t'))
      last--;
    if ((size_t)(last - value) == strlen(word) && strncasecmp(value, word, strlen(word)) == 0)
      return true;
    value = next + 1;
  }
  return false;
}

struct fields {
  bool host, length;
};

/* Name: value */
static int parse_field(char *line, size_t size, struct request *request, struct fields *seen) {
  char *colon = memchr(line, ':', size);
  /* A name that ends in a blank, or a line that continues the one before, means different things to different servers:
   * what two of them disagree about is a way past one of them. */
  if (colon == NULL || !is_token(line, (size_t)(colon - line)))
    return 400;
  size_t name = (size_t)(colon - line);
  char *value = colon + 1, *end = line + size;
  for (const char *at = value; at < end; at++)
    if ((unsigned char)*at < ' ' && *at != '\t')
      return 400;
  while (value < end && (*value == ' ' || *value == '\t'))
    value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
    end--;
  size_t length = (size_t)(end - value);
#define IS(text) (name == sizeof(text) - 1 && strncasecmp(line, text, name) == 0)
  if (IS("Host")) {
    if (seen->host)
      return 400;
    seen->host = true;
  } else if (IS("Content-Length")) {
    size_t size_before = request->body_size;
    if (!parse_size(value, length, &request->body_size) || (seen->length && request->body_size != size_before))
      return 400;
    seen->length = true;
  } else if (IS("Transfer-Encoding")) {
    return 501; /* a body in chunks */
  } else if (IS("Connection")) {
    if (lists(value, length, "close"))
      request->keep_alive = false;
    else if (lists(value, length, "keep-alive"))
      request->keep_alive = true;
  } else if (IS("Expect")) {
    if (!lists(value, length, "100-continue"))
      return 417;
    request->expects_continue = true;
  }
#undef IS
  return PARSED;
}

int http_parse(struct text *text, struct request *request) {
  *request = (struct request){0};
  size_t blank = 0; /* clients may send empty lines before a request */
  while (blank + 1 < text->size && memcmp(text->data + blank, "\r\n", 2) == 0)
    blank += 2;
  text_drop(text, blank);
  size_t seen_size = text->size < HEAD_LIMIT ? text->size : HEAD_LIMIT;
  char *start = text->data;
  char *end = seen_size != 0 ? memmem(start, seen_size, "\r\n\r\n", 4) : NULL;
  if (end == NULL) {
    if (seen_size == HEAD_LIMIT)
      return memmem(start, seen_size, "\r\n", 2) == NULL ? 414 : 431;
    return PARSE_MORE;
  }
  request->head_size = (size_t)(end - start) + 4;
  char *line_end = memmem(start, request->head_size, "\r\n", 2);
  bool version_1_0 = line_end - start > 3 && memcmp(line_end - 3, "1.0", 3) == 0;
  int status = parse_first_line(start, (size_t)(line_end - start), request);
  struct fields seen = {0};
  while (status == PARSED && line_end != end) {
    char *line = line_end + 2;
    line_end = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
    status = parse_field(line, (size_t)(line_end - line), request, &seen);
  }
  if (status == PARSED && !seen.host && !version_1_0)
    status = 400;
  if (status == PARSED && request->body_size > BODY_LIMIT)
    status = 413;
  return status;
}

/* ---- replies ---- */

const char *http_reason(int status) {
  static const struct {
    int status;
    const char *reason;
  } REASONS[] = {
      {200, "OK"},
      {400, "Bad Request"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {408, "Request Timeout"},
      {413, "Content Too Large"},
      {414, "URI Too Long"},
      {417, "Expectation Failed"},
      {431, "Request Header Fields Too Large"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
      {507, "Insufficient Storage"},
  };
  for (size_t i = 0; i < sizeof REASONS / sizeof REASONS[0]; i++)
    if (REASONS[i].status == status)
      return REASONS[i].reason;
  return "Unknown";
}

bool http_reply(struct text *text, const struct reply *reply, const void *content, size_t size) {
  char date[64];
  time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text_format(text,
                     "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
                     reply->status, http_reason(reply->status), date,
                     reply->type != NULL ? reply->type : "text/plain; charset=utf-8", size,
                     reply->status == 405 ? "Allow: GET, HEAD\r\n" : "",
                     reply->keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n") &&
         (reply->head_only || text_append(text, content, size));
}
