#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The build says where they are. */
#ifndef HTTPD_GUEST
#define HTTPD_GUEST "httpd-guest.wasm"
#endif
#ifndef HTTPD_QUICKJS
#define HTTPD_QUICKJS "build/inputs/quickjs.wasm"
#endif

#define MS UINT64_C(1000000)
/* A turn that outlasts any guest. */
#define NO_QUANTUM (UINT64_C(3600) * 1000 * MS)

static const char HELP[] =
    "Usage: httpd [OPTION]...\n"
    "An HTTP/1.1 server. Each request is handled by a WebAssembly guest of its own.\n"
    "\n"
    "  --address IPV4      where to listen (127.0.0.1)\n"
    "  --port N            0: the kernel chooses one (8080)\n"
    "  --workers N         OS threads that run fibers (one for each core)\n"
    "  --quantum-us N      the length of a guest's turn when others wait (1000)\n"
    "  --no-preemption     a guest keeps its worker until it waits or ends\n"
    "  --deadline-ms N     how long a guest may take (5000)\n"
    "  --budget-ms N       how much processor time it may use (250)\n"
    "  --memory-mib N      how much memory it may have (64)\n"
    "  --guests N          how many there may be at a time (512)\n"
    "  --connections N     how many there may be at a time (1024)\n"
    "  --idle-ms N         how long a connection may be without a request (60000)\n"
    "  --request-ms N      how long a request may take to come in, a reply to go out (10000)\n"
    "  --grace-ms N        how long requests may go on after SIGTERM or SIGINT (5000)\n"
    "  --guest FILE        the module for all but /js (" HTTPD_GUEST ")\n"
    "  --quickjs FILE      the module for /js; \"\": none (" HTTPD_QUICKJS ")\n"
    "  --help              this text\n";

static _Noreturn void reject(const char *option, const char *problem) {
  fprintf(stderr, "httpd: %s: %s\nTry httpd --help.\n", option, problem);
  exit(2);
}

static uint64_t number(const char *option, const char *text, uint64_t least, uint64_t most) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  /* strtoull takes blanks and signs. */
  if (text[0] < '0' || text[0] > '9' || *end != '\0')
    reject(option, "not a whole number");
  if (errno == ERANGE || value < least || value > most) {
    fprintf(stderr, "httpd: %s: from %llu to %llu\n", option, (unsigned long long)least, (unsigned long long)most);
    exit(2);
  }
  return value;
}

struct options options_parse(int argc, char **argv) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  uint64_t port = 8080, workers = cores > 0 ? (uint64_t)cores : 1, quantum_us = 1000, deadline_ms = 5000,
           budget_ms = 250, memory_mib = 64, guests = 512, connections = 1024, idle_ms = 60000, request_ms = 10000,
           grace_ms = 5000;
  struct options options = {.preemption = true, .guest = HTTPD_GUEST, .quickjs = HTTPD_QUICKJS};
  const char *address = "127.0.0.1";
  const struct {
    const char *name;
    uint64_t *number, least, most;
    const char **text;
  } known[] = {
      {"--address", NULL, 0, 0, &address},
      {"--port", &port, 0, 65535, NULL},
      {"--workers", &workers, 1, 1024, NULL},
      {"--quantum-us", &quantum_us, 50, 1000000, NULL},
      {"--deadline-ms", &deadline_ms, 1, 86400000, NULL},
      {"--budget-ms", &budget_ms, 1, 86400000, NULL},
      {"--memory-mib", &memory_mib, 1, 4096, NULL},
      /* Each has 4 GiB of addresses and more, used or not. */
      {"--guests", &guests, 1, 8000, NULL},
      {"--connections", &connections, 1, 100000, NULL},
      {"--idle-ms", &idle_ms, 1, 86400000, NULL},
      {"--request-ms", &request_ms, 1, 86400000, NULL},
      {"--grace-ms", &grace_ms, 0, 86400000, NULL},
      {"--guest", NULL, 0, 0, &options.guest},
      {"--quickjs", NULL, 0, 0, &options.quickjs},
  };
  const size_t count = sizeof known / sizeof known[0];
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      fputs(HELP, stdout);
      exit(0);
    }
    if (strcmp(argv[i], "--no-preemption") == 0) {
      options.preemption = false;
      continue;
    }
    size_t at = 0;
    while (at < count && strcmp(known[at].name, argv[i]) != 0)
      at++;
    if (at == count)
      reject(argv[i], "no such option");
    if (++i == argc)
      reject(known[at].name, "a value is missing");
    if (known[at].number != NULL)
      *known[at].number = number(known[at].name, argv[i], known[at].least, known[at].most);
    else
      *known[at].text = argv[i];
  }
  options.server = (struct server_options){.address = address,
                                           .port = (uint16_t)port,
                                           .connections = connections,
                                           .idle_ns = idle_ms * MS,
                                           .request_ns = request_ms * MS};
  options.limits = (struct limits){.deadline_ns = deadline_ms * MS,
                                   .budget_ns = budget_ms * MS,
                                   .memory_bytes = memory_mib << 20,
                                   .guests = guests};
  options.workers = workers;
  options.quantum_ns = options.preemption ? quantum_us * 1000 : NO_QUANTUM;
  options.grace_ns = grace_ms * MS;
  if (options.quickjs[0] == '\0')
    options.quickjs = NULL;
  return options;
}
