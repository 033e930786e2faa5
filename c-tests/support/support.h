/* What every test program here needs: checks, guests made from text, messages, time.
 *
 * Include this first: it asks for the POSIX and GNU declarations that strict C11 hides. */
#ifndef BOP_TEST_SUPPORT_H
#define BOP_TEST_SUPPORT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <bop.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#include <atomic>
extern "C" {
#else
#include <stdatomic.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define T_ASAN 1
#else
#define T_ASAN 0
#endif

#define MS UINT64_C(1000000) /* nanoseconds */
#define SECOND (1000 * MS)

/* ---- checks: each prints its place and ends the process with status 1 ---- */

void t_fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

#define CHECK(condition) \
  ((condition) ? (void)0 : t_fail(__FILE__, __LINE__, "not true: %s", #condition))
#define CHECK_EQ(got, want) t_check_eq(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(want))
/* The text must contain the word; case does not matter. */
#define CHECK_HAS(text, word) t_check_has(__FILE__, __LINE__, #text, text, word)
/* A `wasmtime_error_t *` that must be NULL. */
#define OK(error) t_check_ok(__FILE__, __LINE__, #error, error)
/* A `wasmtime_error_t *` that must not be NULL and whose message contains the word. Deletes it. */
#define FAILS(error, word) t_check_fails(__FILE__, __LINE__, #error, error, word)
/* Waits for what other threads or fibers must bring about. The bound is one of liveness only. */
#define EVENTUALLY(condition)                                       \
  do {                                                              \
    uint64_t t_end_ = t_now() + 60 * SECOND;                        \
    while (!(condition)) {                                          \
      if (t_now() > t_end_)                                         \
        t_fail(__FILE__, __LINE__, "never came true: %s", #condition); \
      t_pause(MS / 5);                                              \
    }                                                               \
  } while (0)
/* Says which part of the program runs, so that a failure or a hang can be told. */
#define CASE(name) t_case(name)

void t_check_eq(const char *file, int line, const char *what, int64_t got, int64_t want);
void t_check_has(const char *file, int line, const char *what, const char *text, const char *word);
void t_check_ok(const char *file, int line, const char *what, wasmtime_error_t *error);
void t_check_fails(const char *file, int line, const char *what, wasmtime_error_t *error,
                   const char *word);
void t_case(const char *name);
/* The first call of a program and of each forked child: a hang ends it with a message. */
void t_start(const char *program);

/* ---- messages: each text lives until eight more were asked for ---- */

/* Both take the object and delete it. */
const char *t_error_text(wasmtime_error_t *own);
const char *t_trap_text(wasm_trap_t *own);
/* Borrow the trap. The trace is "inner middle outer", the names of the functions, innermost first. */
const char *t_trap_message(const wasm_trap_t *trap);
const char *t_trap_trace(const wasm_trap_t *trap);
/* -1 if the trap has no code. */
int t_trap_code(const wasm_trap_t *trap);

/* ---- time, on the host thread that calls ---- */

uint64_t t_now(void);   /* CLOCK_MONOTONIC, nanoseconds */
void t_pause(uint64_t nanoseconds); /* blocks the thread, in no way known to BOP */

/* ---- guests ---- */

/* A host function that a guest imports from the module "host". Types are strings of
 * i (i32), I (i64), f (f32), F (f64). A list ends with an entry without a name. */
typedef struct t_import {
  const char *name;
  const char *params;
  const char *results;
  wasmtime_func_callback_t call;
  void *env;
} t_import;

/* One instance in a store that was handed to a runtime, with its exported functions. */
typedef struct t_guest {
  bop_store_t *store;
  wasmtime_instance_t instance;
  size_t exports;
  struct {
    char name[32];
    wasmtime_func_t func;
  } export_[24];
} t_guest;

wasm_functype_t *t_functype(const char *params, const char *results);
wasmtime_module_t *t_module(wasm_engine_t *engine, const char *wat);
wasmtime_linker_t *t_linker(wasm_engine_t *engine, const t_import *imports);
/* Instantiates into a store, without a runtime. */
wasmtime_instance_t t_instance(wasm_engine_t *engine, wasmtime_context_t *context, const char *wat,
                               const t_import *imports);
wasmtime_func_t t_func(wasmtime_context_t *context, const wasmtime_instance_t *instance,
                       const char *name);
/* Fills in the functions that `guest->instance` exports. */
void t_find_exports(t_guest *guest, wasmtime_context_t *context);
/* `imports` may be NULL. */
void t_guest_new(t_guest *guest, bop_runtime_t *runtime, const char *wat, const t_import *imports);
void t_guest_delete(t_guest *guest);
const wasmtime_func_t *t_export(const t_guest *guest, const char *name);
wasmtime_instance_pre_t *t_pre(wasm_engine_t *engine, const char *wat, const t_import *imports);

wasmtime_val_t t_i32(int32_t value);
wasmtime_val_t t_i64(int64_t value);

/* ---- runtimes and fibers ---- */

/* A runtime with a number of workers and a quantum (0 keeps the default), not started. */
bop_runtime_t *t_runtime(size_t workers, uint64_t quantum_ns);
/* Spawns an export with i32 arguments. */
bop_fiber_t *t_spawn(const t_guest *guest, const char *name, const int32_t *args, size_t nargs);
bop_fiber_t *t_spawn0(const t_guest *guest, const char *name);
bop_fiber_t *t_spawn1(const t_guest *guest, const char *name, int32_t arg);
bop_fiber_t *t_spawn_host(bop_runtime_t *runtime, bop_host_fn_t function, void *env,
                          const char *name);
/* Join, and the one result; the outcome must be RETURNED. The handle is dropped. */
int64_t t_result(bop_fiber_t *own);
/* Join, check the outcome, drop the handle. */
#define ENDS(fiber, outcome) t_ends(__FILE__, __LINE__, #fiber, fiber, outcome)
void t_ends(const char *file, int line, const char *what, bop_fiber_t *own, bop_outcome_t outcome);
/* Join and check the outcome; the handle stays. */
#define JOINS(fiber, outcome) t_joins(__FILE__, __LINE__, #fiber, fiber, outcome)
void t_joins(const char *file, int line, const char *what, bop_fiber_t *fiber,
             bop_outcome_t outcome);
/* Cancels a list of fibers, all of which must end CANCELLED, and drops the handles. */
void t_cancel_all(bop_fiber_t **own, size_t n);
bop_stats_t t_stats(const bop_runtime_t *runtime);

#ifdef __cplusplus
}
#endif

#endif
