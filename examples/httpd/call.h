/* What a guest has of its request, and gives for it; and what the host does for guests. */
#ifndef HTTPD_CALL_H
#define HTTPD_CALL_H

#include "http.h"

#include <bop.h>
#include <stdatomic.h>

/* The connection, the guest's store and its WASI hold it, and do not wait for each other. */
struct call {
  atomic_uint users;
  bop_semaphore_t *room; /* gets a permit back when the store is deleted */
  struct text out, err;
  bool script;  /* the argument is for QuickJS */
  bool wasi;    /* the guest needs it */
  bool refused; /* the argument is not UTF-8 */
  bool cut;     /* it has written more than it may */
  size_t size;
  char argument[]; /* the script, or the end of the path; ended by a 0 */
};

/* With one user. NULL: no memory. */
struct call *call_new(const char *argument, size_t size);
void call_release(void *call);

/* Defines what guests import. */
wasmtime_error_t *call_define(wasmtime_linker_t *linker);
/* For bop_spawn_instance, whose env is a call. The finalizer releases it. */
wasmtime_error_t *call_set_up(void *call, wasmtime_context_t *context);
void call_store_gone(void *call);

#endif
