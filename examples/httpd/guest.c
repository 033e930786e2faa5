/* The guest that most requests are handled by: each gets an instance of its own. It has the request's path from the
 * host and gives the reply to it; sleep is WASI's. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(name) __attribute__((import_module("httpd"), import_name(#name)))

/* Copies the path from where the route's own ends, as far as it fits. Returns how long it is. */
IMPORT(path) uint32_t httpd_path(char *buffer, uint32_t size);
/* Appends to the reply. */
IMPORT(write) void httpd_write(const char *text, uint32_t size);

static void put(const char *text) { httpd_write(text, (uint32_t)strlen(text)); }

/* The path, ended by a 0, and cut if it is too long. */
static void path(char *buffer, uint32_t size) {
  uint32_t length = httpd_path(buffer, size - 1);
  buffer[length < size ? length : size - 1] = '\0';
}

/* /hello/NAME: a page that greets. Names come from anybody, and may be no markup here. */
EXPORT(hello)
void hello(void) {
  char name[256], page[sizeof name * 6 + 128];
  path(name, sizeof name);
  size_t size = 0;
  for (const char *c = "<!doctype html>\n<title>Hello</title>\n<p>Hello, "; *c != '\0'; c++)
    page[size++] = *c;
  for (const char *c = name[0] != '\0' ? name : "whoever you are"; *c != '\0'; c++) {
    const char *as = *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : *c == '&' ? "&amp;" : *c == '"' ? "&quot;" : NULL;
    if (as == NULL)
      page[size++] = *c;
    for (; as != NULL && *as != '\0'; as++)
      page[size++] = *as;
  }
  for (const char *c = "!\n"; *c != '\0'; c++)
    page[size++] = *c;
  httpd_write(page, (uint32_t)size);
}

static volatile uint32_t turns;

/* /spin: never ends, and calls nothing that could give up the turn. */
EXPORT(spin)
void spin(void) {
  for (;;)
    turns++;
}

/* /trap: an assertion that does not hold. */
static __attribute__((noinline)) void check(uint32_t value) {
  if (value == turns)
    __builtin_trap();
}

EXPORT(trap)
void trap(void) {
  put("this is never sent, as what follows is no reply");
  check(turns);
}

/* /recurse: too deep. Its stack lies at the beginning of its memory, and what is below that traps. */
static __attribute__((noinline)) uint32_t deeper(uint32_t *above) {
  uint32_t here[16] = {*above + 1};
  turns++;
  return here[0] == 0 ? 0 : deeper(here) + here[turns % 16];
}

EXPORT(recurse)
void recurse(void) {
  uint32_t top = 0;
  deeper(&top);
}

/* /sleep/MILLISECONDS */
EXPORT(sleep)
void sleep_for(void) {
  char number[16], reply[64];
  path(number, sizeof number);
  unsigned long ms = strtoul(number, NULL, 10);
  struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
  nanosleep(&time, NULL);
  snprintf(reply, sizeof reply, "slept for %lu ms\n", ms);
  put(reply);
}

/* /memory: takes all that it can have. */
EXPORT(fill)
void fill(void) {
  static char *volatile block; /* or the compiler leaves the allocation out */
  char reply[64];
  unsigned mib = 0;
  for (; (block = malloc(1 << 20)) != NULL; mib++)
    memset(block, 1, 1 << 20);
  snprintf(reply, sizeof reply, "no more after %u MiB\n", mib);
  put(reply);
}
