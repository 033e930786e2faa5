/* Guest programs: WASI modules, compiled or taken from the cache, ready to be instantiated. */
#ifndef BOP_RUN_GUEST_H
#define BOP_RUN_GUEST_H

#include "util.h"

#include <wasmtime.h>

/* A module with its imports resolved. Of use as long as its engine lives. */
struct guest {
  wasmtime_module_t *module;
  wasmtime_instance_pre_t *pre;
  bool cached; /* was compiled by an earlier run */
};

/* What one run of a guest gets from the outside. */
struct program {
  const char *const *argv;
  size_t argc;
  const char *folder;       /* preopened as ".", writable; NULL: no files at all */
  struct bytes *out, *err;  /* what the guest writes; they must outlive the store */
};

/* Loads INPUTS/NAME.wasm. The compiled code is kept in OUT/cache, one file for each content of the
 * module and each kind of engine. Ends the program with a message when that can't be done. */
void guest_load(struct guest *guest, wasm_engine_t *engine, const char *kind, const char *name,
                const char *inputs, const char *out);
void guest_delete(struct guest *guest);

/* Gives a store the WASI of a program. NULL is success. */
wasmtime_error_t *guest_wasi(wasmtime_context_t *context, const struct program *program);

/* Runs the guest to its end on this thread, without BOP. Returns NULL if `_start` returned or the
 * guest exited with code 0, and else a message that the caller frees. */
char *guest_run_alone(const struct guest *guest, wasm_engine_t *engine,
                      const struct program *program);

/* The text of an error, which is deleted; of a trap, which is deleted. The caller frees it. */
char *error_text(wasmtime_error_t *own);
char *trap_text(wasm_trap_t *own);

#endif
