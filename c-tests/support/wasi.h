/* Guests that import WASI preview 1, as text, and what their stores are given. */
#ifndef BOP_TEST_WASI_H
#define BOP_TEST_WASI_H

#include "descriptors.h" /* t_pipe, t_close, t_threads, t_setting */
#include "guests.h"

/* ---- text ---- */

#define WASI(name, type) "(import \"wasi_snapshot_preview1\" \"" name "\" (func $" name " " type "))"
#define WASI_IMPORTS                                                                                                 \
  WASI("args_get", "(param i32 i32) (result i32)") WASI("args_sizes_get", "(param i32 i32) (result i32)")            \
  WASI("environ_get", "(param i32 i32) (result i32)") WASI("environ_sizes_get", "(param i32 i32) (result i32)")      \
  WASI("clock_res_get", "(param i32 i32) (result i32)") WASI("clock_time_get", "(param i32 i64 i32) (result i32)")   \
  WASI("random_get", "(param i32 i32) (result i32)") WASI("sched_yield", "(result i32)")                             \
  WASI("proc_exit", "(param i32)") WASI("poll_oneoff", "(param i32 i32 i32 i32) (result i32)")                       \
  WASI("fd_read", "(param i32 i32 i32 i32) (result i32)") WASI("fd_write", "(param i32 i32 i32 i32) (result i32)")   \
  WASI("fd_pread", "(param i32 i32 i32 i64 i32) (result i32)")                                                       \
  WASI("fd_pwrite", "(param i32 i32 i32 i64 i32) (result i32)") WASI("fd_sync", "(param i32) (result i32)")          \
  WASI("fd_close", "(param i32) (result i32)") WASI("fd_seek", "(param i32 i64 i32 i32) (result i32)")               \
  WASI("fd_filestat_get", "(param i32 i32) (result i32)")                                                            \
  WASI("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)")                                                     \
  WASI("fd_prestat_get", "(param i32 i32) (result i32)")                                                             \
  WASI("fd_prestat_dir_name", "(param i32 i32 i32) (result i32)")                                                    \
  WASI("path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)")                                      \
  WASI("path_filestat_get", "(param i32 i32 i32 i32 i32) (result i32)")                                              \
  WASI("path_unlink_file", "(param i32 i32 i32) (result i32)")                                                       \
  WASI("path_rename", "(param i32 i32 i32 i32 i32 i32) (result i32)")                                                \
  WASI("path_create_directory", "(param i32 i32 i32) (result i32)")                                                  \
  WASI("path_remove_directory", "(param i32 i32 i32) (result i32)")

/* Each of up to 200 fibers has 4 KiB of the memory: a vector and what was counted; subscriptions; events, E0 and E1;
 * a buffer. */
#define AREA(i) "(i32.shl " ADD(GET(i), N(1)) N(12) ")"
#define COUNT(s) LOAD("offset=8 " GET(s))
#define E0 1024
#define E1 1056
#define BUFFER 2048
#define STORE8(at, value) "(i32.store8 " at value ")"
/* An event's userdata, and its type: 0 the clock, 1 a read, 2 a write. */
#define USERDATA(s, event) "(i32.wrap_i64 (i64.load offset=" S(event) " " GET(s) "))"
#define TYPE(s, event) "(i32.load8_u offset=10 " AT(s, event) ")"
#define ERROR(s, event) "(i32.load16_u offset=8 " AT(s, event) ")"
#define AT(s, offset) ADD(GET(s), N(offset))

/* By `$s`, the caller's area: reads into its buffer, or writes from an address. The number is at COUNT(s). */
#define READ(fd, s, len) "(call $read " fd GET(s) AT(s, BUFFER) len ")"
#define WRITE(fd, s, at, len) "(call $write " fd GET(s) at len ")"
/* Fills in the subscription `n`, whose userdata is n + 100. Relative if the flags are 0, absolute if 1. */
#define CLOCK(s, n, id, timeout, flags) "(call $clock " GET(s) N(n) N(id) timeout N(flags) ")"
#define FD_READ(s, n, fd) "(call $fd " GET(s) N(n) N(1) fd ")"
#define POLL(s, n) "(call $poll_oneoff " AT(s, 64) AT(s, E0) N(n) AT(s, 8) ")"
/* One relative clock: what most programs' sleep is. */
#define NAP(s, ns) CLOCK(s, 0, 1, ns, 0) IS(POLL(s, 1), 0) IS(COUNT(s), 1)
#define MONOTONIC(s) "(call $time " GET(s) N(1) ")"
#define REALTIME(s) "(call $time " GET(s) N(0) ")"

#define WASI_GUEST_OF(memory, body)                                                                                  \
  "(module " IMPORTS WASI_IMPORTS memory "(global $c (mut i32) (i32.const 0))"                                       \
  "(table (export \"__indirect_function_table\") 16 funcref)"                                                        \
  "(func $read (param $fd i32) (param $s i32) (param $at i32) (param $len i32) (result i32)"                         \
  STORE(GET(s), GET(at)) STORE("offset=4 " GET(s), GET(len)) STORE("offset=8 " GET(s), N(-1))                        \
  "(call $fd_read " GET(fd) GET(s) N(1) AT(s, 8) "))"                                                                \
  "(func $write (param $fd i32) (param $s i32) (param $at i32) (param $len i32) (result i32)"                        \
  STORE(GET(s), GET(at)) STORE("offset=4 " GET(s), GET(len)) STORE("offset=8 " GET(s), N(-1))                        \
  "(call $fd_write " GET(fd) GET(s) N(1) AT(s, 8) "))"                                                               \
  "(func $clock (param $s i32) (param $n i32) (param $id i32) (param $timeout i64) (param $flags i32)"               \
  "(local $at i32)" SET(at, ADD(AT(s, 64), "(i32.mul " GET(n) N(48) ")"))                                            \
  "(memory.fill " GET(at) N(0) N(48) ")" STORE64(GET(at), "(i64.extend_i32_u " ADD(GET(n), N(100)) ")")              \
  STORE("offset=16 " GET(at), GET(id)) STORE64("offset=24 " GET(at), GET(timeout))                                   \
  "(i32.store16 offset=40 " GET(at) GET(flags) "))"                                                                  \
  "(func $fd (param $s i32) (param $n i32) (param $tag i32) (param $fd i32)"                                         \
  "(local $at i32)" SET(at, ADD(AT(s, 64), "(i32.mul " GET(n) N(48) ")"))                                            \
  "(memory.fill " GET(at) N(0) N(48) ")" STORE64(GET(at), "(i64.extend_i32_u " ADD(GET(n), N(100)) ")")              \
  "(i32.store8 offset=8 " GET(at) GET(tag) ")" STORE("offset=16 " GET(at), GET(fd)) ")"                              \
  "(func $time (param $s i32) (param $id i32) (result i64)"                                                          \
  IS("(call $clock_time_get " GET(id) L(1) AT(s, 16) ")", 0) LOAD64("offset=16 " GET(s)) ")"                         \
  body ")"
#define WASI_GUEST(body) WASI_GUEST_OF("(memory (export \"memory\") 13)", body)

/* ---- what a store is given ---- */

/* All of it may be left out. It must live as long as the store. */
typedef struct t_wasi {
  const char *argv[6], *names[4], *values[4]; /* each ends with NULL */
  const char *folder;                         /* at "/d" */
  bool read_only;
  bool pipe;   /* its standard input is a pipe, which t_wasi_feed writes to */
  const char *bytes; /* it is this */
  bool inputs; /* it is the process's own */
  int ends[2]; /* of the pipe */
  const char *fed; /* what is in it when it begins */
  bool loud;   /* its standard output and error are not captured */
  ptrdiff_t (*err_callback)(void *it, const unsigned char *data, size_t size); /* or this takes the errors */
  atomic_size_t out_size, err_size;
  char out[16384], err[1024];
} t_wasi;

wasmtime_error_t *t_wasi_set(t_wasi *it, wasmtime_context_t *context);
void t_wasi_feed(const t_wasi *it, const char *text);
/* There is no more to come. */
void t_wasi_end(t_wasi *it);
/* What t_world_linker has, and WASI. */
wasmtime_linker_t *t_wasi_linker(void);
/* A store with one instance; `it` may be NULL: it has no WASI. */
void t_wasi_guest(t_guest *guest, const char *wat, t_wasi *it);
void t_wasi_instance(t_guest *guest, const wasmtime_module_t *module, t_wasi *it);
/* It waits in a call, and does not use a processor. */
void t_waits(bop_fiber_t *fiber);

#endif
