/* Guests that import the module "bop" (bop_guest.h), as text that reads a little better, and the one runtime that
 * they run in. */
#ifndef BOP_TEST_GUESTS_H
#define BOP_TEST_GUESTS_H

#include "support.h"

/* ---- text ---- */

#define S_(x) #x
#define S(x) S_(x)
#define N(n) "(i32.const " S(n) ")"
#define L(n) "(i64.const " S(n) ")"
#define GET(x) "(local.get $" S(x) ")"
#define SET(x, value) "(local.set $" S(x) " " value ")"
#define ADD(a, b) "(i32.add " a b ")"
#define LOAD(at) "(i32.load " at ")"
#define STORE(at, value) "(i32.store " at value ")"
#define LOAD64(at) "(i64.load " at ")"
#define STORE64(at, value) "(i64.store " at value ")"
#define IF(condition, then) "(if " condition "(then " then "))"
#define FUNC(name, type, body) "(func $" name " (export \"" name "\") " type " " body ")"
/* The body once for each i from 0 to n - 1; i must be 0 when it begins, or be set to that. */
#define EACH(i, n, body) \
  "(loop " body "(br_if 0 (i32.lt_u (local.tee $" S(i) ADD(GET(i), N(1)) ") " n ")))"
#define AGAIN(i) SET(i, N(0))
#define AT8(i) "(i32.shl " GET(i) N(3) ")"

/* Checks, which name the line that they stand in; the file is that of the BEGIN below. */
#define IS(got, want) "(call $is (i32.const " S(__LINE__) ") " got " (i32.const " S(want) "))"
#define SO(condition) IS("(i32.ne " condition N(0) ")", 1)
#define NOT(condition) IS("(i32.ne " condition N(0) ")", 0)

#define SPAWN(func, arg) "(call $spawn " func arg ")"
#define GO(func, arg) "(call $go " func arg ")"
#define JOIN(fiber, at) "(call $join " fiber at ")"
#define DETACH(fiber) "(call $detach " fiber ")"
#define SEND(c, value) "(call $channel_send " c value ")"
#define RECEIVE(c, at) "(call $channel_receive " c at ")"
#define CLOSE(c) "(call $channel_close " c ")"
#define DELETE(c) "(call $channel_delete " c ")"
#define CHANNEL(capacity) "(call $channel_new " capacity ")"
#define WAIT(at, expected, timeout) "(call $wait " at expected timeout ")"
#define NOTIFY(at, count) "(call $notify " at count ")"
#define SLEEP(nanoseconds) "(call $sleep " nanoseconds ")"
#define EXIT(code) "(call $exit " code ")"
#define SELF "(call $self)"
#define YIELD "(call $yield)"
#define NOW "(call $now)"
#define HOUR L(3600000000000)
#define C "(global.get $c)"
#define SET_C(value) "(global.set $c " value ")"
/* A join that is OK. What is written must be the result, and not what was there. */
#define GIVES(fiber, result) STORE(N(8), N(77)) IS(JOIN(fiber, N(8)), 0) IS(LOAD(N(8)), result)

#define HOST(name, type) "(import \"host\" \"" name "\" (func $" name " " type "))"
#define BOP(name, type) "(import \"bop\" \"" name "\" (func $" name " " type "))"
/* Of the host: a check, how many fibers live, to wait for the world's gate, to cancel oneself, to tell. */
#define IMPORTS                                                                                           \
  HOST("is", "(param i32 i32 i32)") HOST("live", "(result i32)") HOST("gate", "") HOST("cancel", "")      \
  HOST("tell", "(param i32)") BOP("spawn", "(param i32 i32) (result i64)")                                \
  BOP("go", "(param i32 i32) (result i32)") BOP("join", "(param i64 i32) (result i32)")                   \
  BOP("detach", "(param i64) (result i32)") BOP("self", "(result i64)") BOP("yield", "(result i32)")      \
  BOP("sleep", "(param i64) (result i32)") BOP("now", "(result i64)") BOP("exit", "(param i32)")          \
  BOP("channel_new", "(param i32) (result i32)") BOP("channel_send", "(param i32 i64) (result i32)")      \
  BOP("channel_receive", "(param i32 i32) (result i32)") BOP("channel_close", "(param i32) (result i32)") \
  BOP("channel_delete", "(param i32) (result i32)") BOP("wait", "(param i32 i32 i64) (result i32)")       \
  BOP("notify", "(param i32 i32) (result i32)")
#define GUEST(body)                                                                      \
  "(module " IMPORTS "(memory (export \"memory\") 1) (global $c (mut i32) (i32.const 0))" \
  "(table (export \"__indirect_function_table\") 16 funcref)" body ")"

/* ---- the world ---- */

extern struct t_world {
  const char *file; /* with the text of the guests */
  bop_runtime_t *runtime;
  bop_channel_t *gate; /* the program's, which fibers of guests wait in */
  atomic_int told;     /* the sum of what guests told */
  atomic_int freed;    /* stores */
} world;

/* With an hour a turn, nobody loses one: who was spawned has run, up to where it waits, after one yield. */
#define CALM (3600 * SECOND)
enum { QUANTA = 3 };
extern const uint64_t t_quanta[QUANTA]; /* at every check, often, calm */

/* `max_fibers` may be 0: no limit. */
#define BEGIN(workers, quantum_ns, max_fibers) t_world_begin(__FILE__, workers, quantum_ns, max_fibers)
void t_world_begin(const char *file, size_t workers, uint64_t quantum_ns, size_t max_fibers);
/* So many fibers are left, and nothing holds the runtime up, whose patience with fibers is 5 s. */
void t_world_end(uint64_t live);

/* A store that counts when it is freed, and the finalizer that does so, for other things: `&world.freed`. */
wasmtime_store_t *t_world_store(void);
void t_world_frees(void *count);
/* "bop", and what IMPORTS has of "host". */
wasmtime_linker_t *t_world_linker(void);
/* Why it can't be instantiated, or NULL. */
const char *t_instantiate(wasmtime_context_t *context, const char *wat, wasmtime_instance_t *instance);
/* One more instance in a store that is not BOP's yet: `guest->store` is left alone. */
void t_add_instance(t_guest *guest, wasmtime_context_t *context, const char *wat);
/* A store with one instance, with two. */
void t_world_guest(t_guest *guest, const char *wat);
void t_world_guests(t_guest guests[2], const char *first_wat, const char *second_wat);

/* The result of one export in a new store, which must be freed. */
int64_t t_result_of(const char *wat, const char *name, const int32_t *args, size_t nargs);
/* The message of a fiber that must trap. The handle is dropped. */
const char *t_trap_of(bop_fiber_t *own);
/* An instance of its own, which runs its export "run". */
bop_fiber_t *t_spawn_run(const char *wat, wasmtime_val_t *args, size_t nargs);

#endif
