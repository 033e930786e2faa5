#include "programs.h"

#include "call.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char LARGE[] = "(module (memory 65536) (func (export \"run\")))";

/* What the pool wipes itself of an instance that has ended; what was used beyond that, it gives back to the kernel. */
#define WIPED ((size_t)128 << 10)

/* Instances come from a pool: their memory is there already, and need only be wiped. */
wasm_config_t *programs_engine_config(size_t guests, uint32_t table_limit) {
  wasm_config_t *config = wasm_config_new();
  wasmtime_pooling_allocation_config_t *pool = wasmtime_pooling_allocation_config_new();
  wasmtime_pooling_allocation_config_total_core_instances_set(pool, (uint32_t)guests);
  wasmtime_pooling_allocation_config_total_memories_set(pool, (uint32_t)guests);
  wasmtime_pooling_allocation_config_total_tables_set(pool, (uint32_t)guests);
  wasmtime_pooling_allocation_config_table_elements_set(pool, table_limit);
  wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, WIPED);
  wasmtime_pooling_allocation_config_table_keep_resident_set(pool, WIPED);
  wasmtime_pooling_allocation_strategy_set(config, pool);
  wasmtime_pooling_allocation_config_delete(pool);
  return config;
}

static bool file_read(const char *path, wasm_byte_vec_t *out) {
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    return false;
  long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
  bool good = size >= 0 && fseek(file, 0, SEEK_SET) == 0;
  if (good) {
    wasm_byte_vec_new_uninitialized(out, (size_t)size);
    good = fread(out->data, 1, out->size, file) == out->size;
    if (!good)
      wasm_byte_vec_delete(out);
  }
  fclose(file);
  return good;
}

static bool good(const char *what, wasmtime_error_t *own) {
  if (own == NULL)
    return true;
  wasm_name_t text;
  wasmtime_error_message(own, &text);
  fprintf(stderr, "httpd: %s: %.*s\n", what, (int)text.size, text.data);
  wasm_byte_vec_delete(&text);
  wasmtime_error_delete(own);
  return false;
}

static bool compile(struct module *module, wasm_engine_t *engine, const wasmtime_linker_t *linker, const char *name,
                    const wasm_byte_vec_t *wasm) {
  return good(name, wasmtime_module_new(engine, (const uint8_t *)wasm->data, wasm->size, &module->module)) &&
         good(name, wasmtime_linker_instantiate_pre(linker, module->module, &module->pre));
}

static bool load(struct module *module, wasm_engine_t *engine, const wasmtime_linker_t *linker, const char *path) {
  wasm_byte_vec_t wasm;
  if (!file_read(path, &wasm)) {
    fprintf(stderr, "httpd: cannot read %s: %s\n", path, strerror(errno));
    return false;
  }
  bool loaded = compile(module, engine, linker, path, &wasm);
  wasm_byte_vec_delete(&wasm);
  return loaded;
}

static bool load_large(struct module *module, wasm_engine_t *engine, const wasmtime_linker_t *linker) {
  wasm_byte_vec_t wasm;
  if (!good("large", wasmtime_wat2wasm(LARGE, strlen(LARGE), &wasm)))
    return false;
  bool loaded = compile(module, engine, linker, "large", &wasm);
  wasm_byte_vec_delete(&wasm);
  return loaded;
}

bool programs_load(struct module modules[PROGRAMS], wasm_engine_t *engine, const char *guest, const char *quickjs) {
  memset(modules, 0, PROGRAMS * sizeof *modules);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  bool loaded = good("the linker", call_define(linker)) && load(&modules[PROGRAM_GUEST], engine, linker, guest) &&
                load_large(&modules[PROGRAM_LARGE], engine, linker) &&
                (quickjs == NULL || load(&modules[PROGRAM_QUICKJS], engine, linker, quickjs));
  wasmtime_linker_delete(linker);
  if (!loaded)
    programs_delete(modules);
  return loaded;
}

void programs_delete(struct module modules[PROGRAMS]) {
  for (size_t i = 0; i < PROGRAMS; i++) {
    if (modules[i].pre != NULL)
      wasmtime_instance_pre_delete(modules[i].pre);
    if (modules[i].module != NULL)
      wasmtime_module_delete(modules[i].module);
  }
}
