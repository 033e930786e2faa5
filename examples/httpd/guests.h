/* What handles requests: for each one a fresh instance of a module, on a fiber of its own, which may use so much time,
 * processor and memory. */
#ifndef HTTPD_GUESTS_H
#define HTTPD_GUESTS_H

#include "http.h"

#include <bop.h>

struct limits {
  uint64_t deadline_ns;  /* from the request to the reply */
  uint64_t budget_ns;    /* of time on a processor */
  uint64_t memory_bytes; /* of each guest */
  size_t guests;         /* at a time; further requests wait for room */
};

struct guests;

/* Options of the engine that the guests will have. */
wasm_config_t *guests_engine_config(const struct limits *limits);
/* `quickjs` may be NULL: then there are no scripts. NULL: it can't be done, and was said on stderr. */
struct guests *guests_new(bop_runtime_t *runtime, const struct limits *limits, const char *guest, const char *quickjs);
/* Once the runtime is shut down. */
void guests_delete(struct guests *guests);

/* What is to handle a path; NULL: nothing. */
struct route;
const struct route *guests_route(const struct guests *guests, const char *path);
bool guests_takes_body(const struct route *route);

/* Handles a request: waits until its guest has ended. Returns the status, with the content appended to `content`, and its
 * type in `*type`. Now and then `wanted(env)` is asked whether anybody still waits for that. If not, or if the calling
 * fiber is cancelled, the guest is, and 0 is returned. */
int guests_handle(struct guests *guests, const struct route *route, const struct request *request,
                  bool (*wanted)(void *env), void *env, struct text *content, const char **type);

/* How many guests have ended, by bop_outcome_t. */
enum { OUTCOMES = BOP_OUTCOME_OUT_OF_BUDGET + 1 };
void guests_outcomes(const struct guests *guests, uint64_t counts[OUTCOMES]);

#endif
