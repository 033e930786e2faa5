#include "guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No script here writes as much. A guest that does gets an error, not our memory. */
#define OUTPUT_LIMIT (1u << 20)

char *error_text(wasmtime_error_t *own) {
  wasm_name_t message;
  wasmtime_error_message(own, &message);
  char *text = format("%.*s", (int)message.size, message.data);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(own);
  return text;
}

char *trap_text(wasm_trap_t *own) {
  wasm_message_t message;
  wasm_trap_message(own, &message); /* ends with a zero, unlike that of an error */
  char *text = format("%.*s", (int)message.size, message.data);
  wasm_byte_vec_delete(&message);
  wasm_trap_delete(own);
  return text;
}

static wasmtime_module_t *compile(wasm_engine_t *engine, const struct bytes *wasm,
                                  const char *path) {
  wasmtime_module_t *module = NULL;
  wasmtime_error_t *error = wasmtime_module_new(engine, wasm->data, wasm->size, &module);
  if (error != NULL)
    fail("%s: %s", path, error_text(error));
  return module;
}

/* A cache that can't be written is slow, not wrong: no error. */
static void keep(const wasmtime_module_t *module, const char *path) {
  wasm_byte_vec_t code;
  wasmtime_error_t *error = wasmtime_module_serialize(module, &code);
  if (error != NULL) {
    wasmtime_error_delete(error);
    return;
  }
  if (!file_write(path, code.data, code.size))
    fprintf(stderr, "bop-run: cannot keep %s: %s\n", path, strerror(errno));
  wasm_byte_vec_delete(&code);
}

/* Wasmtime checks that compiled code was made by its own version and for settings like those of
 * the engine, and refuses it otherwise: then it is compiled anew. */
static void module_load(struct guest *guest, wasm_engine_t *engine, const char *kind,
                        const char *name, const char *inputs, const char *out) {
  char *path = format("%s/%s.wasm", inputs, name);
  struct bytes wasm = {0};
  if (!file_read(path, &wasm))
    fail("cannot read %s: %s\nFetch the programs first: python3 tools/fetch.py", path,
         strerror(errno));
  char *folder = format("%s/cache", out);
  folder_make(folder);
  char *kept = format("%s/%s-%016" PRIx64 "-%s.cwasm", folder, name, bytes_hash(&wasm), kind);
  wasmtime_error_t *error = wasmtime_module_deserialize_file(engine, kept, &guest->module);
  guest->cached = error == NULL;
  if (error != NULL) {
    wasmtime_error_delete(error);
    guest->module = compile(engine, &wasm, path);
    keep(guest->module, kept);
  }
  free(kept);
  free(folder);
  free(path);
  bytes_free(&wasm);
}

void guest_load(struct guest *guest, wasm_engine_t *engine, const char *kind, const char *name,
                const char *inputs, const char *out) {
  *guest = (struct guest){0};
  module_load(guest, engine, kind, name, inputs, out);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  wasmtime_error_t *error = bop_linker_define_wasi(linker);
  if (error == NULL)
    error = wasmtime_linker_instantiate_pre(linker, guest->module, &guest->pre);
  if (error != NULL)
    fail("%s.wasm: %s", name, error_text(error));
  wasmtime_linker_delete(linker);
}

void guest_delete(struct guest *guest) {
  wasmtime_instance_pre_delete(guest->pre);
  wasmtime_module_delete(guest->module);
  *guest = (struct guest){0};
}

/* Wasmtime calls this from the guest's write to stdout or stderr, thus on the guest's fiber: no
 * two calls for one buffer can overlap. */
static ptrdiff_t writes(void *buffer, const unsigned char *data, size_t size) {
  struct bytes *bytes = buffer;
  if (size > OUTPUT_LIMIT - bytes->size)
    return -ENOSPC;
  bytes_append(bytes, data, size);
  return (ptrdiff_t)size;
}

wasmtime_error_t *guest_wasi(wasmtime_context_t *context, const struct program *program) {
  wasi_config_t *wasi = wasi_config_new();
  if (!wasi_config_set_argv(wasi, program->argc, (const char **)program->argv)) {
    wasi_config_delete(wasi);
    return wasmtime_error_new("an argument is not UTF-8");
  }
  wasi_config_set_stdout_custom(wasi, writes, program->out, NULL);
  wasi_config_set_stderr_custom(wasi, writes, program->err, NULL);
  if (program->folder != NULL && !wasi_config_preopen_dir(wasi, program->folder, ".", true)) {
    wasi_config_delete(wasi);
    char *text = format("cannot open the folder %s", program->folder);
    wasmtime_error_t *error = wasmtime_error_new(text);
    free(text);
    return error;
  }
  return wasmtime_context_set_wasi(context, wasi);
}

static char *start(const struct guest *guest, wasmtime_context_t *context) {
  wasmtime_instance_t instance;
  wasmtime_extern_t entry;
  wasm_trap_t *trap = NULL;
  wasmtime_error_t *error =
      wasmtime_instance_pre_instantiate(guest->pre, context, &instance, &trap);
  if (error == NULL && trap == NULL) {
    if (!wasmtime_instance_export_get(context, &instance, "_start", 6, &entry) ||
        entry.kind != WASMTIME_EXTERN_FUNC)
      return format("it exports no function _start");
    error = wasmtime_func_call(context, &entry.of.func, NULL, 0, NULL, 0, &trap);
  }
  if (trap != NULL)
    return trap_text(trap);
  int code = 0;
  if (error != NULL && wasmtime_error_exit_status(error, &code)) {
    wasmtime_error_delete(error);
    return code == 0 ? NULL : format("it exited with code %d", code);
  }
  return error == NULL ? NULL : error_text(error);
}

char *guest_run_alone(const struct guest *guest, wasm_engine_t *engine,
                      const struct program *program) {
  wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_error_t *error = guest_wasi(context, program);
  char *problem = error != NULL ? error_text(error) : start(guest, context);
  wasmtime_store_delete(store);
  return problem;
}
