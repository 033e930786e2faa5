/* What the tests with real guest programs share: loading modules, running one alone on plain
 * Wasmtime, running one as a fiber, and looking at what came of it.
 *
 * A program is started with
 *     TEST <folder of inputs> <folder it may write to> [more]
 * and every oracle here must fail for REAL_EMPTY, a guest that does nothing. */
#ifndef BOP_TEST_REAL_H
#define BOP_TEST_REAL_H

#include "support/support.h"

typedef struct real_bytes {
  uint8_t *data;
  size_t size, capacity;
} real_bytes;

void real_append(real_bytes *bytes, const void *data, size_t size);
void real_free(real_bytes *bytes);
bool real_equal(const real_bytes *a, const real_bytes *b);
bool real_is(const real_bytes *bytes, const char *text);
bool real_contains(const real_bytes *bytes, const char *text);
uint64_t real_hash(const void *data, size_t size);
/* The whole file; fails the test if it can't be read. */
real_bytes real_file(const char *path);

/* ---- the program ---- */

void real_start(const char *name, int argc, char **argv);
/* "<folder of inputs>/<name>", until eight more were asked for. */
const char *real_input(const char *name);
/* The argument behind the two folders; fails the test if there is none. */
const char *real_argument(void);

/* ---- guests ---- */

/* A WASI module, ready to be instantiated on one engine. */
typedef struct real_guest {
  wasm_engine_t *engine; /* borrowed */
  wasmtime_module_t *module;
  wasmtime_instance_pre_t *pre;
} real_guest;

/* A command with a memory that returns at once: what an idle runtime amounts to. */
extern const char *const REAL_EMPTY;

/* An input file, for fibers or for plain Wasmtime. Its compiled code is kept in the folder that the
 * program may write to. */
void real_load(real_guest *guest, bop_runtime_t *runtime, const char *name);
void real_load_plain(real_guest *guest, wasm_engine_t *plain, const char *name);
/* From text, for fibers. */
void real_load_text(real_guest *guest, bop_runtime_t *runtime, const char *wat);
void real_unload(real_guest *guest);

/* One run: what goes in, and what has come out. */
typedef struct real_run {
  const char *argv[8]; /* ends with NULL */
  real_bytes in;       /* stdin */
  const char *folder;  /* read-only, at /data; or NULL */
  real_bytes out, err;
  bop_outcome_t outcome;
  int32_t code;       /* if it exited */
  const char *reason; /* if it trapped or failed; until eight more were asked for */
  bop_fiber_t *fiber;
} real_run;

/* Gives a store the WASI of a run. */
wasmtime_error_t *real_wasi(real_run *run, wasmtime_context_t *context);
/* Takes over how a call on plain Wasmtime has ended. */
void real_ended(real_run *run, wasmtime_error_t *own_error, wasm_trap_t *own_trap);
/* Runs the guest's `_start` on this thread, on plain Wasmtime. */
void real_alone(const real_guest *guest, real_run *run);
/* The same on a fiber. Not checked before the join. */
void real_spawn(bop_runtime_t *runtime, const real_guest *guest, real_run *run);
void real_join(real_run *run);
/* Both; for controls. */
void real_fiber(bop_runtime_t *runtime, const real_guest *guest, real_run *run);
void real_delete(real_run *run);

/* RETURNED, or EXITED with code 0. */
bool real_succeeded(const real_run *run);

/* Two workers, a quantum of 50 us, and stacks for interpreters; started. */
bop_runtime_t *real_runtime(void);
/* So many preemptions at least. Shows that the fibers were really cut up. */
void real_check_preempted(const bop_runtime_t *runtime, uint64_t least);

#endif
