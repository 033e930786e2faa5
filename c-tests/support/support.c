#include "support.h"

#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

static const char *program = "test";
static const char *volatile current_case = "start";

void t_fail(const char *file, int line, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s:%d: [%s: %s] ", file, line, program, current_case);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  fflush(NULL);
  /* Not exit: destructors must not run while workers do. */
  _exit(1);
}

void t_check_eq(const char *file, int line, const char *what, int64_t got, int64_t want) {
  if (got != want)
    t_fail(file, line, "%s is %lld, not %lld", what, (long long)got, (long long)want);
}

static bool has(const char *text, const char *word) {
  size_t n = strlen(word);
  for (; text != NULL && strlen(text) >= n; text++)
    if (strncasecmp(text, word, n) == 0)
      return true;
  return false;
}

void t_check_has(const char *file, int line, const char *what, const char *text, const char *word) {
  if (!has(text, word))
    t_fail(file, line, "%s does not say \"%s\": %s", what, word, text ? text : "(null)");
}

void t_check_ok(const char *file, int line, const char *what, wasmtime_error_t *error) {
  if (error != NULL)
    t_fail(file, line, "%s failed: %s", what, t_error_text(error));
}

void t_check_fails(const char *file, int line, const char *what, wasmtime_error_t *error,
                   const char *word) {
  if (error == NULL)
    t_fail(file, line, "%s did not fail", what);
  t_check_has(file, line, what, t_error_text(error), word);
}

void t_case(const char *name) { current_case = name; }

static void put(const char *text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0)
    _exit(1);
}

static void on_alarm(int signal) {
  (void)signal;
  put(program);
  put(": hangs in: ");
  put(current_case);
  put("\n");
  _exit(1);
}

void t_start(const char *name) {
  program = name;
  signal(SIGALRM, on_alarm);
  alarm(240);
}

/* A ring of texts, so that two can be had in one expression. Tests check from several threads. */
static const char *keep(const char *data, size_t size) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static char *ring[8];
  static unsigned next;
  char *copy = malloc(size + 1);
  if (copy == NULL)
    abort();
  if (size != 0)
    memcpy(copy, data, size);
  copy[size] = '\0';
  pthread_mutex_lock(&lock);
  unsigned at = next++ % 8;
  free(ring[at]);
  ring[at] = copy;
  pthread_mutex_unlock(&lock);
  return copy;
}

const char *t_error_text(wasmtime_error_t *own) {
  if (own == NULL)
    return NULL;
  wasm_name_t message;
  wasmtime_error_message(own, &message);
  const char *text = keep(message.data, message.size);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(own);
  return text;
}

const char *t_trap_message(const wasm_trap_t *trap) {
  if (trap == NULL)
    return NULL;
  wasm_message_t message;
  wasm_trap_message(trap, &message);
  const char *text = keep(message.data, message.size);
  wasm_byte_vec_delete(&message);
  return text;
}

const char *t_trap_text(wasm_trap_t *own) {
  const char *text = t_trap_message(own);
  if (own != NULL)
    wasm_trap_delete(own);
  return text;
}

const char *t_trap_trace(const wasm_trap_t *trap) {
  if (trap == NULL)
    return NULL;
  wasm_frame_vec_t frames;
  wasm_trap_trace(trap, &frames);
  char text[2048];
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < frames.size && used < sizeof text - 64; i++) {
    const wasm_name_t *name = wasmtime_frame_func_name(frames.data[i]);
    used += (size_t)snprintf(text + used, 64, "%s%.*s", i ? " " : "", name ? (int)name->size : 1,
                             name ? name->data : "?");
  }
  wasm_frame_vec_delete(&frames);
  return keep(text, used);
}

int t_trap_code(const wasm_trap_t *trap) {
  wasmtime_trap_code_t code;
  return trap != NULL && wasmtime_trap_code(trap, &code) ? code : -1;
}

uint64_t t_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

void t_pause(uint64_t nanoseconds) {
  struct timespec left = {(time_t)(nanoseconds / SECOND), (long)(nanoseconds % SECOND)};
  while (nanosleep(&left, &left) != 0) {
  }
}

static void valtypes(const char *text, wasm_valtype_vec_t *out) {
  wasm_valtype_t *types[16];
  size_t n = 0;
  for (; text != NULL && *text != '\0' && n < 16; text++) {
    wasm_valkind_t kind = WASM_I32;
    switch (*text) {
    case 'i': kind = WASM_I32; break;
    case 'I': kind = WASM_I64; break;
    case 'f': kind = WASM_F32; break;
    case 'F': kind = WASM_F64; break;
    default: t_fail(__FILE__, __LINE__, "no such type: %c", *text);
    }
    types[n++] = wasm_valtype_new(kind);
  }
  wasm_valtype_vec_new(out, n, types);
}

wasm_functype_t *t_functype(const char *params, const char *results) {
  wasm_valtype_vec_t p, r;
  valtypes(params, &p);
  valtypes(results, &r);
  return wasm_functype_new(&p, &r);
}

wasmtime_module_t *t_module(wasm_engine_t *engine, const char *wat) {
  wasm_byte_vec_t bytes;
  wasmtime_module_t *module = NULL;
  OK(wasmtime_wat2wasm(wat, strlen(wat), &bytes));
  OK(wasmtime_module_new(engine, (const uint8_t *)bytes.data, bytes.size, &module));
  wasm_byte_vec_delete(&bytes);
  return module;
}

wasmtime_linker_t *t_linker(wasm_engine_t *engine, const t_import *imports) {
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  for (; imports != NULL && imports->name != NULL; imports++) {
    wasm_functype_t *type = t_functype(imports->params, imports->results);
    OK(wasmtime_linker_define_func(linker, "host", 4, imports->name, strlen(imports->name), type,
                                   imports->call, imports->env, NULL));
    wasm_functype_delete(type);
  }
  return linker;
}

wasmtime_instance_t t_instance(wasm_engine_t *engine, wasmtime_context_t *context, const char *wat,
                               const t_import *imports) {
  wasmtime_module_t *module = t_module(engine, wat);
  wasmtime_linker_t *linker = t_linker(engine, imports);
  wasmtime_instance_t instance;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_linker_instantiate(linker, context, module, &instance, &trap));
  if (trap != NULL)
    t_fail(__FILE__, __LINE__, "instantiation trapped: %s", t_trap_text(trap));
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  return instance;
}

wasmtime_func_t t_func(wasmtime_context_t *context, const wasmtime_instance_t *instance,
                       const char *name) {
  wasmtime_extern_t item;
  if (!wasmtime_instance_export_get(context, instance, name, strlen(name), &item) ||
      item.kind != WASMTIME_EXTERN_FUNC)
    t_fail(__FILE__, __LINE__, "no function %s is exported", name);
  return item.of.func;
}

void t_find_exports(t_guest *guest, wasmtime_context_t *context) {
  char *name;
  size_t length;
  wasmtime_extern_t item;
  guest->exports = 0;
  for (size_t i = 0; wasmtime_instance_export_nth(context, &guest->instance, i, &name, &length, &item);
       i++) {
    if (item.kind == WASMTIME_EXTERN_FUNC) {
      CHECK(guest->exports < sizeof guest->export_ / sizeof guest->export_[0]);
      CHECK(length < sizeof guest->export_[0].name);
      memcpy(guest->export_[guest->exports].name, name, length);
      guest->export_[guest->exports].name[length] = '\0';
      guest->export_[guest->exports++].func = item.of.func;
    }
    wasmtime_extern_delete(&item);
  }
}

void t_guest_new(t_guest *guest, bop_runtime_t *runtime, const char *wat, const t_import *imports) {
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  guest->instance = t_instance(engine, context, wat, imports);
  t_find_exports(guest, context);
  OK(bop_store_new(runtime, store, &guest->store));
}

void t_guest_delete(t_guest *guest) {
  bop_store_delete(guest->store);
  guest->store = NULL;
}

const wasmtime_func_t *t_export(const t_guest *guest, const char *name) {
  for (size_t i = 0; i < guest->exports; i++)
    if (strcmp(guest->export_[i].name, name) == 0)
      return &guest->export_[i].func;
  t_fail(__FILE__, __LINE__, "no function %s is exported", name);
}

wasmtime_instance_pre_t *t_pre(wasm_engine_t *engine, const char *wat, const t_import *imports) {
  wasmtime_module_t *module = t_module(engine, wat);
  wasmtime_linker_t *linker = t_linker(engine, imports);
  wasmtime_instance_pre_t *pre = NULL;
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  return pre;
}

wasmtime_val_t t_i32(int32_t value) {
  wasmtime_val_t v = {.kind = WASMTIME_I32, .of = {.i32 = value}};
  return v;
}

wasmtime_val_t t_i64(int64_t value) {
  wasmtime_val_t v = {.kind = WASMTIME_I64, .of = {.i64 = value}};
  return v;
}

bop_runtime_t *t_runtime(size_t workers, uint64_t quantum_ns) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, workers);
  if (quantum_ns != 0)
    bop_config_quantum(config, quantum_ns);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  CHECK(runtime != NULL);
  return runtime;
}

bop_fiber_t *t_spawn(const t_guest *guest, const char *name, const int32_t *args, size_t nargs) {
  wasmtime_val_t values[8];
  CHECK(nargs <= 8);
  for (size_t i = 0; i < nargs; i++)
    values[i] = t_i32(args[i]);
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn(guest->store, t_export(guest, name), values, nargs, NULL, &fiber));
  CHECK(fiber != NULL);
  return fiber;
}

bop_fiber_t *t_spawn0(const t_guest *guest, const char *name) { return t_spawn(guest, name, NULL, 0); }

bop_fiber_t *t_spawn1(const t_guest *guest, const char *name, int32_t arg) {
  return t_spawn(guest, name, &arg, 1);
}

bop_fiber_t *t_spawn_host(bop_runtime_t *runtime, bop_host_fn_t function, void *env,
                          const char *name) {
  bop_spawn_options_t *options = NULL;
  if (name != NULL) {
    options = bop_spawn_options_new();
    bop_spawn_options_name(options, name, strlen(name));
  }
  bop_fiber_t *fiber = NULL;
  OK(bop_spawn_host(runtime, function, env, NULL, options, &fiber));
  CHECK(fiber != NULL);
  if (options != NULL)
    bop_spawn_options_delete(options);
  return fiber;
}

void t_joins(const char *file, int line, const char *what, bop_fiber_t *fiber,
             bop_outcome_t outcome) {
  bop_outcome_t got = (bop_outcome_t)77;
  bop_status_t status = bop_fiber_join(fiber, &got);
  if (status != BOP_OK)
    t_fail(file, line, "join of %s gave %s", what, bop_status_name(status));
  if (got != outcome)
    t_fail(file, line, "%s ended %s, not %s: %s", what, bop_outcome_name(got),
           bop_outcome_name(outcome), t_trap_text(bop_fiber_take_trap(fiber)));
}

void t_ends(const char *file, int line, const char *what, bop_fiber_t *own, bop_outcome_t outcome) {
  t_joins(file, line, what, own, outcome);
  bop_fiber_detach(own);
}

int64_t t_result(bop_fiber_t *own) {
  JOINS(own, BOP_OUTCOME_RETURNED);
  wasmtime_val_t value = t_i64(0);
  OK(bop_fiber_results(own, &value, 1));
  bop_fiber_detach(own);
  CHECK(value.kind == WASMTIME_I32 || value.kind == WASMTIME_I64);
  return value.kind == WASMTIME_I32 ? value.of.i32 : value.of.i64;
}

void t_cancel_all(bop_fiber_t **own, size_t n) {
  for (size_t i = 0; i < n; i++)
    CHECK_EQ(bop_fiber_cancel(own[i]), BOP_OK);
  for (size_t i = 0; i < n; i++)
    ENDS(own[i], BOP_OUTCOME_CANCELLED);
}

bop_stats_t t_stats(const bop_runtime_t *runtime) {
  bop_stats_t stats = {0};
  stats.size = sizeof stats;
  bop_runtime_stats(runtime, &stats);
  return stats;
}
