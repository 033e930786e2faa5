#include "real.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

static char **arguments;
static int argument_count;

void real_append(real_bytes *bytes, const void *data, size_t size) {
  if (size > bytes->capacity - bytes->size) {
    bytes->capacity = (bytes->size + size) * 2;
    bytes->data = realloc(bytes->data, bytes->capacity);
    CHECK(bytes->data != NULL);
  }
  if (size != 0)
    memcpy(bytes->data + bytes->size, data, size);
  bytes->size += size;
}

void real_free(real_bytes *bytes) {
  free(bytes->data);
  *bytes = (real_bytes){0};
}

bool real_equal(const real_bytes *a, const real_bytes *b) {
  return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

bool real_is(const real_bytes *bytes, const char *text) {
  return bytes->size == strlen(text) && memcmp(bytes->data, text, bytes->size) == 0;
}

bool real_contains(const real_bytes *bytes, const char *text) {
  return bytes->size != 0 && memmem(bytes->data, bytes->size, text, strlen(text)) != NULL;
}

/* By words: linear memories are megabytes. */
uint64_t real_hash(const void *data, size_t size) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325), word = 0;
  for (size_t i = 0; i < size; i += sizeof word) {
    size_t n = size - i < sizeof word ? size - i : sizeof word;
    word = 0;
    memcpy(&word, (const uint8_t *)data + i, n);
    hash = (hash ^ word) * UINT64_C(0x100000001b3);
    hash ^= hash >> 29; /* or the upper bytes of a word would never reach the lower ones */
  }
  return hash ^ size;
}

real_bytes real_file(const char *path) {
  real_bytes bytes = {0};
  uint8_t block[65536];
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    t_fail(__FILE__, __LINE__, "cannot read %s: %s", path, strerror(errno));
  for (size_t got; (got = fread(block, 1, sizeof block, file)) != 0;)
    real_append(&bytes, block, got);
  CHECK(!ferror(file));
  fclose(file);
  return bytes;
}

void real_start(const char *name, int argc, char **argv) {
  t_start(name);
  if (argc < 3)
    t_fail(__FILE__, __LINE__, "usage: %s INPUTS FOLDER [MORE]", name);
  arguments = argv;
  argument_count = argc;
  if (mkdir(argv[2], 0777) != 0 && errno != EEXIST)
    t_fail(__FILE__, __LINE__, "cannot make %s: %s", argv[2], strerror(errno));
}

static const char *in_folder(const char *folder, const char *name) {
  static char ring[8][512];
  static unsigned next;
  char *path = ring[next++ % 8];
  int length = snprintf(path, sizeof ring[0], "%s/%s", folder, name);
  CHECK(length > 0 && (size_t)length < sizeof ring[0]);
  return path;
}

const char *real_input(const char *name) { return in_folder(arguments[1], name); }

const char *real_argument(void) {
  if (argument_count < 4)
    t_fail(__FILE__, __LINE__, "an argument is missing behind %s", arguments[2]);
  return arguments[3];
}

const char *const REAL_EMPTY = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";

static void link_wasi(real_guest *guest) {
  wasmtime_linker_t *linker = wasmtime_linker_new(guest->engine);
  OK(bop_linker_define_wasi(linker));
  OK(wasmtime_linker_instantiate_pre(linker, guest->module, &guest->pre));
  wasmtime_linker_delete(linker);
}

static void keep(const wasmtime_module_t *module, const char *path) {
  char part[540];
  snprintf(part, sizeof part, "%s.%ld", path, (long)getpid());
  wasm_byte_vec_t code;
  OK(wasmtime_module_serialize(module, &code));
  FILE *file = fopen(part, "wb");
  CHECK(file != NULL);
  CHECK_EQ(fwrite(code.data, 1, code.size, file), code.size);
  CHECK_EQ(fclose(file), 0);
  CHECK_EQ(rename(part, path), 0);
  wasm_byte_vec_delete(&code);
}

/* Wasmtime refuses code that another version made, or for other settings: then it is made anew. */
static void load(real_guest *guest, const char *kind, const char *name) {
  real_bytes wasm = real_file(real_input(name));
  char file[64];
  snprintf(file, sizeof file, "%016" PRIx64 "-%s.cwasm", real_hash(wasm.data, wasm.size), kind);
  const char *path = in_folder(arguments[2], file);
  wasmtime_error_t *error = wasmtime_module_deserialize_file(guest->engine, path, &guest->module);
  if (error != NULL) {
    wasmtime_error_delete(error);
    OK(wasmtime_module_new(guest->engine, wasm.data, wasm.size, &guest->module));
    keep(guest->module, path);
  }
  real_free(&wasm);
  link_wasi(guest);
}

void real_load(real_guest *guest, bop_runtime_t *runtime, const char *name) {
  *guest = (real_guest){.engine = bop_runtime_engine(runtime)};
  load(guest, "bop", name);
}

void real_load_plain(real_guest *guest, wasm_engine_t *plain, const char *name) {
  *guest = (real_guest){.engine = plain};
  load(guest, "plain", name);
}

void real_load_text(real_guest *guest, bop_runtime_t *runtime, const char *wat) {
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  *guest = (real_guest){.engine = engine, .module = t_module(engine, wat)};
  link_wasi(guest);
}

void real_unload(real_guest *guest) {
  wasmtime_instance_pre_delete(guest->pre);
  wasmtime_module_delete(guest->module);
}
