#include "call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a guest may write. More is an error to it, and not our memory. */
#define REPLY_LIMIT ((size_t)1 << 20)

struct call *call_new(const char *argument, size_t size) {
  struct call *call = calloc(1, sizeof *call + size + 1);
  if (call == NULL)
    return NULL;
  atomic_init(&call->users, 1);
  call->size = size;
  memcpy(call->argument, argument, size);
  return call;
}

void call_release(void *env) {
  struct call *call = env;
  if (atomic_fetch_sub(&call->users, 1) != 1)
    return;
  text_free(&call->out);
  text_free(&call->err);
  free(call);
}

void call_store_gone(void *env) {
  struct call *call = env;
  bop_semaphore_release(call->room, 1);
  call_release(call);
}

/* ---- WASI ---- */

static ptrdiff_t keep(struct call *call, struct text *text, const void *data, size_t size) {
  if (size <= REPLY_LIMIT - text->size && text_append(text, data, size))
    return (ptrdiff_t)size;
  call->cut = true; /* not every program looks whether it could write */
  return -ENOSPC;
}

/* Wasmtime calls these on a thread of its own, while the guest waits. If the guest is cancelled then, such a call may be
 * under way still when its store is gone. So each stream holds the call until its finalizer is called. */
static ptrdiff_t write_out(void *env, const unsigned char *data, size_t size) {
  struct call *call = env;
  return keep(call, &call->out, data, size);
}

static ptrdiff_t write_err(void *env, const unsigned char *data, size_t size) {
  struct call *call = env;
  return keep(call, &call->err, data, size);
}

/* Runs on the new fiber, in its new store, before the module is instantiated there. The WASI grants nothing but its
 * output. To make one takes longer than the rest of a short request: only who needs it gets one. */
wasmtime_error_t *call_set_up(void *env, wasmtime_context_t *context) {
  struct call *call = env;
  wasmtime_context_set_data(context, call);
  if (!call->wasi)
    return NULL;
  wasi_config_t *wasi = wasi_config_new();
  const char *argv[] = {"qjs", "--std", "-e", call->argument};
  if (call->script && !wasi_config_set_argv(wasi, sizeof argv / sizeof argv[0], argv)) {
    call->refused = true;
    wasi_config_delete(wasi);
    return wasmtime_error_new("the script is not UTF-8");
  }
  atomic_fetch_add(&call->users, 2);
  wasi_config_set_stdout_custom(wasi, write_out, call, call_release);
  wasi_config_set_stderr_custom(wasi, write_err, call, call_release);
  return wasmtime_context_set_wasi(context, wasi);
}

/* ---- the module "httpd", which guest.c imports ---- */

static wasm_trap_t *trap_new(const char *message) { return wasmtime_trap_new(message, strlen(message)); }

static struct call *call_of(wasmtime_caller_t *caller) {
  return wasmtime_context_get_data(wasmtime_caller_context(caller));
}

/* The bytes in the guest's memory that its two arguments mean. */
static wasm_trap_t *guest_bytes(wasmtime_caller_t *caller, const wasmtime_val_t *args, char **data, size_t *size) {
  wasmtime_context_t *context = wasmtime_caller_context(caller);
  wasmtime_extern_t memory;
  if (!wasmtime_caller_export_get(caller, "memory", 6, &memory) || memory.kind != WASMTIME_EXTERN_MEMORY)
    return trap_new("the guest exports no memory");
  size_t at = (uint32_t)args[0].of.i32, all = wasmtime_memory_data_size(context, &memory.of.memory);
  *size = (uint32_t)args[1].of.i32;
  if (at > all || *size > all - at)
    return trap_new("beyond the guest's memory");
  *data = (char *)wasmtime_memory_data(context, &memory.of.memory) + at;
  return NULL;
}

static wasm_trap_t *path(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                         wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)nresults;
  const struct call *call = call_of(caller);
  char *data;
  size_t size;
  wasm_trap_t *trap = guest_bytes(caller, args, &data, &size);
  if (trap != NULL)
    return trap;
  memcpy(data, call->argument, size < call->size ? size : call->size);
  results[0] = (wasmtime_val_t){.kind = WASMTIME_I32, .of = {.i32 = (int32_t)call->size}};
  return NULL;
}

static wasm_trap_t *append(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                           wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)results, (void)nresults;
  struct call *call = call_of(caller);
  char *data;
  size_t size;
  wasm_trap_t *trap = guest_bytes(caller, args, &data, &size);
  if (trap == NULL)
    keep(call, &call->out, data, size);
  return trap;
}

static wasmtime_error_t *define(wasmtime_linker_t *linker, const char *name, wasm_functype_t *own,
                                wasmtime_func_callback_t function) {
  wasmtime_error_t *error =
      wasmtime_linker_define_func(linker, "httpd", 5, name, strlen(name), own, function, NULL, NULL);
  wasm_functype_delete(own);
  return error;
}

wasmtime_error_t *call_define(wasmtime_linker_t *linker) {
  wasmtime_error_t *error = bop_linker_define_wasi(linker);
  if (error == NULL)
    error = define(linker, "path",
                   wasm_functype_new_2_1(wasm_valtype_new_i32(), wasm_valtype_new_i32(), wasm_valtype_new_i32()), path);
  if (error == NULL)
    error = define(linker, "write", wasm_functype_new_2_0(wasm_valtype_new_i32(), wasm_valtype_new_i32()), append);
  return error;
}
