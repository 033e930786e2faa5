#include "wasi.h"

#include <fcntl.h>
#include <unistd.h>

static ptrdiff_t captures(char *text, size_t size, atomic_size_t *used, const unsigned char *data, size_t more) {
  CHECK(*used + more < size);
  memcpy(text + *used, data, more);
  *used += more;
  return (ptrdiff_t)more;
}

static ptrdiff_t writes_out(void *data, const unsigned char *text, size_t size) {
  t_wasi *it = data;
  return captures(it->out, sizeof it->out, &it->out_size, text, size);
}

static ptrdiff_t writes_err(void *data, const unsigned char *text, size_t size) {
  t_wasi *it = data;
  return captures(it->err, sizeof it->err, &it->err_size, text, size);
}

static size_t length(const char *const *list) {
  size_t n = 0;
  while (list[n] != NULL)
    n++;
  return n;
}

wasmtime_error_t *t_wasi_set(t_wasi *it, wasmtime_context_t *context) {
  wasi_config_t *wasi = wasi_config_new();
  CHECK(wasi_config_set_argv(wasi, length(it->argv), it->argv));
  CHECK(wasi_config_set_env(wasi, length(it->names), it->names, it->values));
  if (it->folder)
    CHECK(wasi_config_preopen_dir(wasi, it->folder, "/d", !it->read_only));
  if (it->inputs)
    wasi_config_inherit_stdin(wasi);
  if (it->bytes) {
    wasm_byte_vec_t bytes;
    wasm_byte_vec_new(&bytes, strlen(it->bytes), it->bytes);
    wasi_config_set_stdin_bytes(wasi, &bytes);
  }
  if (it->pipe) { /* which is opened anew: Wasmtime has no other way to take a descriptor */
    char path[64];
    CHECK_EQ(pipe2(it->ends, O_CLOEXEC), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", it->ends[0]);
    CHECK(wasi_config_set_stdin_file(wasi, path));
    t_close(it->ends[0]);
    if (it->fed)
      t_wasi_feed(it, it->fed);
  }
  if (!it->loud) {
    wasi_config_set_stdout_custom(wasi, writes_out, it, NULL);
    wasi_config_set_stderr_custom(wasi, it->err_callback ? it->err_callback : writes_err, it, NULL);
  }
  return wasmtime_context_set_wasi(context, wasi);
}

void t_wasi_feed(const t_wasi *it, const char *text) {
  CHECK_EQ(t_write(it->ends[1], text, strlen(text)), (int64_t)strlen(text));
}

void t_wasi_end(t_wasi *it) {
  t_close(it->ends[1]);
  it->pipe = false;
}

wasmtime_linker_t *t_wasi_linker(void) {
  wasmtime_linker_t *linker = t_world_linker();
  OK(bop_linker_define_wasi(linker));
  return linker;
}

void t_wasi_instance(t_guest *guest, const wasmtime_module_t *module, t_wasi *it) {
  wasmtime_store_t *store = t_world_store();
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_linker_t *linker = t_wasi_linker();
  wasm_trap_t *trap = NULL;
  if (it)
    OK(t_wasi_set(it, context));
  wasmtime_context_set_epoch_deadline(context, UINT64_C(1) << 60); /* for a start function */
  OK(wasmtime_linker_instantiate(linker, context, module, &guest->instance, &trap));
  if (trap)
    t_fail(__FILE__, __LINE__, "instantiation trapped: %s", t_trap_text(trap));
  t_find_exports(guest, context);
  OK(bop_store_new(world.runtime, store, &guest->store));
  wasmtime_linker_delete(linker);
}

void t_wasi_guest(t_guest *guest, const char *wat, t_wasi *it) {
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), wat);
  t_wasi_instance(guest, module, it);
  wasmtime_module_delete(module);
}

void t_waits(bop_fiber_t *fiber) { EVENTUALLY(bop_fiber_state(fiber) == BOP_STATE_PARKED); }
