#include "guests.h"

#include "call.h"
#include "programs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_LIMIT 20000u /* elements */
/* How often it is asked whether a reply is still wanted. */
#define LOOK UINT64_C(50000000)

struct route {
  const char *path; /* ends in a slash: whatever comes after that is the guest's */
  enum program program;
  const char *export;
  bool wasi;
  const char *type;
};

static const struct route ROUTES[] = {
    {"/hello/", PROGRAM_GUEST, "hello", false, "text/html; charset=utf-8"},
    {"/spin", PROGRAM_GUEST, "spin", false, NULL},
    {"/trap", PROGRAM_GUEST, "trap", false, NULL},
    {"/recurse", PROGRAM_GUEST, "recurse", false, NULL},
    {"/sleep/", PROGRAM_GUEST, "sleep", true, NULL},
    {"/memory", PROGRAM_GUEST, "fill", false, NULL},
    {"/large", PROGRAM_LARGE, "run", false, NULL},
    {"/js", PROGRAM_QUICKJS, "_start", true, NULL},
};

struct guests {
  bop_runtime_t *runtime;
  struct limits limits;
  struct module modules[PROGRAMS];
  bop_semaphore_t *room;
  _Atomic uint64_t outcomes[OUTCOMES];
};

wasm_config_t *guests_engine_config(const struct limits *limits) {
  return programs_engine_config(limits->guests, TABLE_LIMIT);
}

struct guests *guests_new(bop_runtime_t *runtime, const struct limits *limits, const char *guest, const char *quickjs) {
  struct guests *guests = calloc(1, sizeof *guests);
  if (guests == NULL || !programs_load(guests->modules, bop_runtime_engine(runtime), guest, quickjs)) {
    free(guests);
    return NULL;
  }
  guests->runtime = runtime;
  guests->limits = *limits;
  guests->room = bop_semaphore_new(limits->guests);
  return guests;
}

void guests_delete(struct guests *guests) {
  programs_delete(guests->modules);
  bop_semaphore_delete(guests->room);
  free(guests);
}

const struct route *guests_route(const struct guests *guests, const char *path) {
  for (size_t i = 0; i < sizeof ROUTES / sizeof ROUTES[0]; i++) {
    const struct route *route = &ROUTES[i];
    size_t size = strlen(route->path);
    bool fits = strncmp(path, route->path, size) == 0 && (route->path[size - 1] == '/' || path[size] == '\0');
    if (fits && guests->modules[route->program].pre != NULL)
      return route;
  }
  return NULL;
}

bool guests_takes_body(const struct route *route) { return route->program == PROGRAM_QUICKJS; }

/* ---- the end of a guest, as HTTP has it ---- */

static int add_error(struct text *content, wasmtime_error_t *own) {
  wasm_name_t message;
  wasmtime_error_message(own, &message);
  text_format(content, "there can be no guest now: %.*s\n", (int)message.size, message.data);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(own);
  return 503;
}

static void add_trap(struct text *content, const char *what, bop_fiber_t *fiber) {
  wasm_trap_t *trap = bop_fiber_take_trap(fiber);
  if (trap == NULL)
    return;
  wasm_message_t message;
  wasm_trap_message(trap, &message);
  text_format(content, "%s: %s\n", what, message.data); /* it ends with a 0 */
  wasm_byte_vec_delete(&message);
  wasm_trap_delete(trap);
}

static int take_output(struct text *content, const struct call *call) {
  if (call->cut)
    return text_format(content, "the reply is too long, or there is no memory for it\n") ? 500 : 0;
  return text_append(content, call->out.data, call->out.size) ? 200 : 0;
}

static int judge(const struct guests *guests, const struct call *call, bop_fiber_t *fiber, bop_outcome_t outcome,
                 struct text *content) {
  switch (outcome) {
  case BOP_OUTCOME_RETURNED:
    return take_output(content, call);
  case BOP_OUTCOME_EXITED:
    if (bop_fiber_exit_code(fiber) == 0)
      return take_output(content, call);
    text_format(content, "the guest exited with code %" PRId32 "\n", bop_fiber_exit_code(fiber));
    text_append(content, call->err.data, call->err.size);
    return 500;
  case BOP_OUTCOME_TRAPPED:
    add_trap(content, "the guest trapped", fiber);
    return 500;
  case BOP_OUTCOME_TIMED_OUT:
    text_format(content, "the guest was not done within %" PRIu64 " ms\n", guests->limits.deadline_ns / 1000000);
    return 504;
  case BOP_OUTCOME_OUT_OF_BUDGET:
    text_format(content, "the guest has used its %" PRIu64 " ms of processor time\n",
                guests->limits.budget_ns / 1000000);
    return 503;
  case BOP_OUTCOME_FAILED: /* it asks for more memory than it may have, or its argument makes no sense */
    add_trap(content, "the guest could not be started", fiber);
    return call->refused ? 400 : 507;
  default: /* cancelled: nobody wants it */
    return 0;
  }
}

/* ---- requests ---- */

static struct call *prepare(struct guests *guests, const struct route *route, const struct request *request) {
  const char *argument = request->path + strlen(route->path);
  size_t size = strlen(argument);
  bool script = route->program == PROGRAM_QUICKJS;
  if (script) {
    bool posted = request->method == METHOD_POST;
    argument = posted ? request->body : request->query;
    size = posted ? request->body_size : strlen(argument);
  }
  struct call *call = call_new(argument, size);
  if (call != NULL) {
    call->room = guests->room;
    call->script = script;
    call->wasi = route->wasi;
  }
  return call;
}

static wasmtime_error_t *spawn(struct guests *guests, const struct route *route, struct call *call, uint64_t deadline,
                               bop_fiber_t **fiber) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, route->path, strlen(route->path));
  bop_spawn_options_deadline(options, deadline);
  bop_spawn_options_cpu_budget(options, guests->limits.budget_ns);
  bop_spawn_options_memory(options, guests->limits.memory_bytes, TABLE_LIMIT);
  atomic_fetch_add(&call->users, 1);
  wasmtime_error_t *error =
      bop_spawn_instance(guests->runtime, guests->modules[route->program].pre, route->export, strlen(route->export),
                         NULL, 0, call_set_up, call, call_store_gone, options, fiber);
  bop_spawn_options_delete(options);
  return error;
}

/* Waits for a guest, and detaches it. */
static int join(struct guests *guests, const struct call *call, bop_fiber_t *fiber, bool (*wanted)(void *env),
                void *env, struct text *content) {
  bop_outcome_t outcome;
  bop_status_t status;
  int result = 0;
  while ((status = bop_fiber_join_until(fiber, bop_now() + LOOK, &outcome)) == BOP_TIMEOUT)
    if (!wanted(env))
      bop_fiber_cancel(fiber);
  if (status == BOP_OK) {
    atomic_fetch_add(&guests->outcomes[outcome], 1);
    result = judge(guests, call, fiber, outcome, content);
  } else { /* the connection's own fiber is cancelled */
    bop_fiber_cancel(fiber);
  }
  bop_fiber_detach(fiber);
  return result;
}

int guests_handle(struct guests *guests, const struct route *route, const struct request *request,
                  bool (*wanted)(void *env), void *env, struct text *content, const char **type) {
  uint64_t deadline = bop_now() + guests->limits.deadline_ns;
  struct call *call = prepare(guests, route, request);
  if (call == NULL)
    return 0;
  int result = 0;
  bop_status_t status = bop_semaphore_acquire_until(guests->room, deadline);
  if (status == BOP_OK) {
    bop_fiber_t *fiber;
    wasmtime_error_t *error = spawn(guests, route, call, deadline, &fiber);
    result = error != NULL ? add_error(content, error) : join(guests, call, fiber, wanted, env, content);
  } else if (status == BOP_TIMEOUT) {
    text_format(content, "there are %zu guests already\n", guests->limits.guests);
    result = 503;
  }
  if (result == 200)
    *type = route->type;
  call_release(call);
  return result;
}

void guests_outcomes(const struct guests *guests, uint64_t counts[OUTCOMES]) {
  for (size_t i = 0; i < OUTCOMES; i++)
    counts[i] = atomic_load(&guests->outcomes[i]);
}
