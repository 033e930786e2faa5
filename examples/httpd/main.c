/* An HTTP/1.1 server whose requests are handled by guests: for each one a fresh WebAssembly instance on a fiber of its
 * own, with a deadline, a budget of processor time and a limit of memory. One guest that never ends, one that traps and
 * one that sleeps harm no other, and nothing in here is a callback: fibers read, wait and write as threads would.
 *
 *   server.c, connection.c   an accepting fiber, and one per connection
 *   http.c, net.c            requests and replies as text; sockets
 *   guests.c, call.c, programs.c   requests handled by guests; what a guest is given; modules
 *   guest.c                  the small guest
 *
 * Prints where it listens; ends, with status 0, by SIGTERM or SIGINT, after what is under way is answered or the grace
 * is over; a second signal ends the grace. At the end it prints what it has counted. */
#include "options.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define MS UINT64_C(1000000)

static void ok(wasmtime_error_t *error) {
  if (error == NULL)
    return;
  wasm_name_t text;
  wasmtime_error_message(error, &text);
  fflush(stdout);
  fprintf(stderr, "httpd: %.*s\n", (int)text.size, text.data);
  _Exit(1); /* not exit: workers may be running, and would lose what they stand on */
}

static bop_runtime_t *make_runtime(const struct options *options) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, options->workers);
  bop_config_quantum(config, options->quantum_ns);
  bop_config_wasm(config, guests_engine_config(&options->limits));
  bop_runtime_t *runtime;
  ok(bop_runtime_new(config, &runtime));
  return runtime;
}

/* As many descriptors as the process may have: many systems give 1,024 to who does not ask. */
static void raise_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static void end(struct server *server, const sigset_t *signals, uint64_t grace_ns) {
  uint64_t deadline = bop_now() + grace_ns;
  server_stop(server, deadline);
  const struct timespec soon = {.tv_nsec = 10 * MS};
  while (!server_wait(server, 0) && bop_now() < deadline)
    if (sigtimedwait(signals, NULL, &soon) > 0)
      break;
}

static void report(const struct server *server, const struct guests *guests, const bop_runtime_t *runtime) {
  struct server_counts counts = server_counts(server);
  bop_stats_t stats = {.size = sizeof stats};
  bop_runtime_stats(runtime, &stats);
  printf("httpd: %" PRIu64 " connections, %" PRIu64 " replies, %" PRIu64 " requests that were none; guests:",
         counts.connections, counts.replies, counts.refused);
  uint64_t outcomes[OUTCOMES];
  guests_outcomes(guests, outcomes);
  for (int i = 0; i < OUTCOMES; i++)
    printf(" %" PRIu64 " %s%s", outcomes[i], bop_outcome_name((bop_outcome_t)i), i + 1 < OUTCOMES ? "," : "");
  printf("; %" PRIu64 " preemptions; %" PRIu64 " fibers left\n", stats.preemptions, stats.live);
  fflush(stdout);
}

int main(int argc, char **argv) {
  struct options options = options_parse(argc, argv);
  raise_descriptors();
  /* Blocked here and thus in all threads: this one asks for them. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  bop_runtime_t *runtime = make_runtime(&options);
  struct guests *guests = guests_new(runtime, &options.limits, options.guest, options.quickjs);
  if (guests == NULL)
    return 1;
  ok(bop_runtime_start(runtime));
  struct server *server = server_start(runtime, guests, &options.server);
  if (server == NULL)
    _Exit(1);
  printf("httpd: http://%s:%d, %zu workers, ", options.server.address, server_port(server), options.workers);
  if (options.preemption)
    printf("turns of %" PRIu64 " us\n", options.quantum_ns / 1000);
  else
    printf("no preemption\n");
  fflush(stdout);

  int signal;
  sigwait(&signals, &signal);
  end(server, &signals, options.grace_ns);
  /* Cancels what is left; waits until all fibers have ended, and with them all stores. */
  ok(bop_runtime_shutdown(runtime, 60000 * MS));
  report(server, guests, runtime);
  server_delete(server);
  guests_delete(guests);
  ok(bop_runtime_delete(runtime));
  return 0;
}
