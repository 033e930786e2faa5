/* libbop: green threads for WebAssembly, beside Wasmtime's own C API, which libbop holds.
 *
 *   config     bop_config_*       how a runtime is to be; taken by bop_runtime_new
 *   runtime    bop_runtime_*      an engine and the workers that run fibers; bop_run lends a thread
 *   stores     bop_store_*        a Wasmtime store handed over; its fibers take turns
 *   sharing    bop_module_prepare, bop_store_share   compiled guests, many fibers in one instance
 *   spawning   bop_spawn*         a Wasm function, a C function, or a fresh instance, as a fiber
 *   fibers     bop_fiber_*        join, results, cancel, state
 *   inside     bop_yield, bop_sleep, bop_park, bop_current, ...
 *   channels   bop_channel_*      between fibers of any store and plain threads
 *   locks      bop_mutex_*, bop_semaphore_*, bop_wait_group_*   likewise
 *   waiting    bop_wait_fd, bop_close, bop_blocking   descriptors, and calls that block a thread
 *   guests     bop_linker_define  the same for guests: what bop_guest.h declares
 *   WASI       bop_linker_define_wasi   preview 1, whose calls wait as fibers do
 *   hooks      wasmtime_tls_*, bop_activation_*   for hosts with coroutines of their own
 *
 * Ownership: an object belongs to whoever got it from a function named _new, _clone or spawn, and
 * goes by _delete or _detach. An argument that is taken is so also when the call fails. A finalizer
 * runs exactly once, on failure too. _delete of NULL does nothing.
 * Errors: NULL is success for a wasmtime_error_t *, BOP_OK for a bop_status_t. There is no "last
 * error": fibers move between threads. Wrong arguments are reported and leave everything usable.
 * Threads: any thread may call anything, unless a function's comment says otherwise. A fiber may
 * hold nothing thread-local across a call that may suspend it; "Switches" in a comment tells.
 * Time is in nanoseconds; deadlines are those of bop_now, which is CLOCK_MONOTONIC. */

#ifndef BOP_H
#define BOP_H

/* Generated from src/capi; edit that and run `make header`. */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#endif
#if !defined(__cplusplus) && !defined(static_assert)
#define static_assert(condition, message) ((void)sizeof(char[(condition) ? 1 : -1]))
#define BOP_OWN_STATIC_ASSERT
#endif
#include <wasmtime.h>
#if defined(BOP_OWN_STATIC_ASSERT)
#undef static_assert
#undef BOP_OWN_STATIC_ASSERT
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/**
 * What a call inside a fiber returns.
 */
typedef enum {
  /**
   * What was waited for has happened.
   */
  BOP_OK = 0,
  /**
   * The deadline came first.
   */
  BOP_TIMEOUT = 1,
  /**
   * The calling fiber was cancelled. It should clean up and return.
   */
  BOP_CANCELLED = 2,
  /**
   * The fiber that the call is about has finished.
   */
  BOP_FINISHED = 3,
  /**
   * Only fibers may make this call.
   */
  BOP_NOT_FIBER = 4,
  /**
   * The call would wait for itself, or block a worker: a fiber that joins itself or a fiber of
   * another runtime, a thread that joins a fiber of the store that it has entered, a finalizer that
   * a worker runs between two fibers, a host function that the guest's allocator calls while it makes room for a fiber's
   * stack, or who locks a mutex that it holds. Or the caller unlocks a mutex that it does not hold.
   */
  BOP_NOT_ALLOWED = 5,
  /**
   * The handle is NULL, or a number makes no sense.
   */
  BOP_INVALID = 6,
  /**
   * The fiber may not be suspended: its store has other fibers and a heap of garbage-collected
   * objects, and a collection would not see what the suspended fiber refers to.
   */
  BOP_STORE_HAS_GC = 7,
  /**
   * The channel is closed; to a receiver: and nothing is left in it. Or the descriptor was closed.
   */
  BOP_CLOSED = 8,
  /**
   * There can be no more of something: descriptors that are waited for, or threads.
   */
  BOP_LIMIT = 9,
  /**
   * The descriptor is not open, or of a kind that nobody can wait for (a file, a directory).
   */
  BOP_FAILED = 10,
  /**
   * The mutex is locked, and is the caller's: but the fiber that had it before has ended without unlocking
   * it. What it protects may be half done.
   */
  BOP_ABANDONED = 11,
} bop_status_t;

/**
 * How a fiber ended.
 */
typedef enum {
  /**
   * Its function returned; `bop_fiber_results` has the results.
   */
  BOP_OUTCOME_RETURNED = 0,
  /**
   * Wasm trapped, or a host function that Wasm called failed; `bop_fiber_take_trap` has it.
   */
  BOP_OUTCOME_TRAPPED = 1,
  /**
   * It was cancelled, before it began or on its way. If it was in Wasm then, there is a trap with
   * the backtrace.
   */
  BOP_OUTCOME_CANCELLED = 2,
  /**
   * The guest called WASI's `proc_exit`; `bop_fiber_exit_code` has the code.
   */
  BOP_OUTCOME_EXITED = 3,
  /**
   * The guest's function was never called: the set-up or the instantiation failed. The trap has the
   * message.
   */
  BOP_OUTCOME_FAILED = 4,
  /**
   * Its deadline, or that of its store, has passed (`bop_spawn_options_deadline`, `bop_store_deadline`); as with
   * `BOP_OUTCOME_CANCELLED`, on its way or before it began.
   */
  BOP_OUTCOME_TIMED_OUT = 5,
  /**
   * It, or its store, has used up its time on a processor (`bop_spawn_options_cpu_budget`,
   * `bop_store_cpu_budget`).
   */
  BOP_OUTCOME_OUT_OF_BUDGET = 6,
} bop_outcome_t;

/**
 * What a fiber is doing.
 */
typedef enum {
  /**
   * It waits for its turn.
   */
  BOP_STATE_READY = 0,
  /**
   * A worker is running it.
   */
  BOP_STATE_RUNNING = 1,
  /**
   * It waits for something: a time, an unpark, the end of another fiber, a descriptor, a lock, and so on.
   */
  BOP_STATE_PARKED = 2,
  /**
   * It has ended.
   */
  BOP_STATE_FINISHED = 3,
} bop_state_t;

/**
 * How a module's stack pointer was found.
 */
typedef enum {
  /**
   * It was not: the module seems to keep no stack in its memory.
   */
  BOP_STACK_POINTER_NONE = 0,
  /**
   * The module exports it as `__stack_pointer`.
   */
  BOP_STACK_POINTER_EXPORT = 1,
  /**
   * The module imports it as `__stack_pointer`.
   */
  BOP_STACK_POINTER_IMPORT = 2,
  /**
   * The name section calls it `__stack_pointer`.
   */
  BOP_STACK_POINTER_NAME = 3,
  /**
   * It is the first global that the module defines, where LLVM's linker puts it, and functions use it
   * as a stack pointer.
   */
  BOP_STACK_POINTER_LAYOUT = 4,
  /**
   * The options say so.
   */
  BOP_STACK_POINTER_CHOSEN = 5,
} bop_stack_pointer_t;

/**
 * What a descriptor is waited for; may be combined.
 */
typedef enum {
  /**
   * A read, or an accept, would not block. The end of the stream and errors are readable.
   */
  BOP_READABLE = 1,
  /**
   * A write, or a connect that is under way, would not block. Errors are writable.
   */
  BOP_WRITABLE = 2,
} bop_fd_event_t;

/**
 * How the guard below each fiber's stack is made.
 */
typedef enum {
  /**
   * The better one that the kernel has.
   */
  BOP_GUARD_AUTO = 0,
  /**
   * `MADV_GUARD_INSTALL` (Linux 6.13): costs no mapping, so there can be a million fibers.
   */
  BOP_GUARD_INSTALL = 1,
  /**
   * `mprotect`: works everywhere; each guard costs the process two mappings, and the usual limit
   * of 65,530 mappings then means about 32,000 fibers.
   */
  BOP_GUARD_MPROTECT = 2,
} bop_guard_t;

/**
 * What a trap means to the other fibers of its store.
 */
typedef enum {
  /**
   * It ends its own fiber. The others go on, with whatever the trap left in their memory.
   */
  BOP_TRAP_ISOLATE = 0,
  /**
   * It ends all fibers of the store: the others are cancelled, and later spawns are refused with the
   * first trap as the reason.
   */
  BOP_TRAP_POISON = 1,
} bop_trap_policy_t;

/**
 * A bounded queue of 64-bit values, with any number of senders and receivers: fibers of any store and
 * runtime, and plain threads. Who has waited longest is served first. Handles are counted: each is
 * deleted once.
 */
typedef struct bop_channel_t bop_channel_t;

/**
 * Options of a runtime. `bop_runtime_new` takes it. Not to be used by two threads at once.
 */
typedef struct bop_config_t bop_config_t;

/**
 * A handle on a fiber. Any thread may use it, also when the fiber has ended or its runtime was
 * deleted. Handles are counted: each is detached once.
 */
typedef struct bop_fiber_t bop_fiber_t;

/**
 * A lock that fibers of any store and runtime, and plain threads, take turns to hold. Who has waited longest is next. A
 * fiber may wait for anything else while it holds one. A fiber that ends with it abandons it to the next; a
 * thread that does so leaves it locked, and the kernel may give its number, by which it holds it, to another thread. Handles are counted: each is deleted once.
 */
typedef struct bop_mutex_t bop_mutex_t;

/**
 * What `bop_module_prepare` is told. Not to be used by two threads at once.
 */
typedef struct bop_prepare_options_t bop_prepare_options_t;

/**
 * One engine, its workers, its timers. Any thread may use it.
 */
typedef struct bop_runtime_t bop_runtime_t;

/**
 * A number of permits, which fibers of any store and runtime, and plain threads, take and give back. Who has waited
 * longest is served first. Handles are counted: each is deleted once.
 */
typedef struct bop_semaphore_t bop_semaphore_t;

/**
 * How an instance is shared. Not to be used by two threads at once.
 */
typedef struct bop_share_options_t bop_share_options_t;

/**
 * Options of a spawn. May be used for any number of spawns, not by two threads at once.
 */
typedef struct bop_spawn_options_t bop_spawn_options_t;

/**
 * A Wasmtime store that a runtime looks after. Its fibers take turns, and never run at once. Any
 * thread may use the handle.
 */
typedef struct bop_store_t bop_store_t;

/**
 * A number of things that are to be done, by fibers of any store and runtime or plain threads, and those who wait
 * until none is left. Handles are counted: each is deleted once.
 */
typedef struct bop_wait_group_t bop_wait_group_t;

/**
 * A function of the host that is run as a fiber. What it returns is the fiber's one result, an
 * i64.
 */
typedef int64_t (*bop_host_fn_t)(void *env);

/**
 * Called when `env` is no longer needed.
 */
typedef void (*bop_finalizer_t)(void *env);

/**
 * What Wasmtime remembers of the Wasm on a coroutine's stack. Make it with `bop_activation_init`; its
 * content is private.
 */
typedef struct {
  /**
   * Private.
   */
  size_t words[32];
} bop_activation_t;

/**
 * What was found in a module, and done to it.
 */
typedef struct {
  /**
   * `sizeof(bop_prepared_t)`, set by the caller.
   */
  size_t size;
  /**
   * How the stack pointer was found.
   */
  bop_stack_pointer_t stack_pointer;
  /**
   * Its index among the module's globals, if it was found.
   */
  uint32_t index;
  /**
   * Exports that were added.
   */
  size_t exports_added;
} bop_prepared_t;

/**
 * Called on the new fiber, with its fresh store, before the module is instantiated in it: gives the
 * store its WASI, limits, data. It may suspend. An error that it returns, which is taken, ends the
 * fiber with `BOP_OUTCOME_FAILED`.
 */
typedef wasmtime_error_t *(*bop_setup_fn_t)(void *env, wasmtime_context_t *context);

/**
 * What a runtime has counted since it was made.
 */
typedef struct {
  /**
   * `sizeof(bop_stats_t)`, set by the caller.
   */
  size_t size;
  /**
   * Background workers, as configured.
   */
  uint64_t workers;
  /**
   * Fibers that were spawned.
   */
  uint64_t spawned;
  /**
   * Fibers that have ended.
   */
  uint64_t finished;
  /**
   * Fibers that live.
   */
  uint64_t live;
  /**
   * Times that a fiber was resumed.
   */
  uint64_t switches;
  /**
   * Times that a guest lost its turn at an epoch check.
   */
  uint64_t preemptions;
  /**
   * Times that a worker took strands from another one.
   */
  uint64_t steals;
  /**
   * Times that a fiber began to wait.
   */
  uint64_t parks;
  /**
   * Times that a worker woke a fiber; threads that are no workers are not counted.
   */
  uint64_t wakes;
  /**
   * Ticks of the clock that ends time slices; it stands still while nobody waits for a turn.
   */
  uint64_t ticks;
} bop_stats_t;

/**
 * What a worker has counted since its runtime was made.
 */
typedef struct {
  /**
   * `sizeof(bop_worker_stats_t)`, set by the caller.
   */
  size_t size;
  /**
   * CPU time of the thread that is this worker, in nanoseconds; 0 if none is.
   */
  uint64_t cpu_ns;
  /**
   * Times that it resumed a fiber.
   */
  uint64_t switches;
  /**
   * Times that a guest lost its turn on it.
   */
  uint64_t preemptions;
  /**
   * Times that it took strands from another worker.
   */
  uint64_t steals;
  /**
   * Times that a fiber on it began to wait.
   */
  uint64_t parks;
  /**
   * Times that it woke a fiber.
   */
  uint64_t wakes;
} bop_worker_stats_t;

/**
 * When things happened to a fiber: `CLOCK_MONOTONIC`, in nanoseconds; 0 = not yet.
 */
typedef struct {
  /**
   * `sizeof(bop_times_t)`, set by the caller.
   */
  size_t size;
  /**
   * It was spawned.
   */
  uint64_t spawned_ns;
  /**
   * Its first slice began.
   */
  uint64_t started_ns;
  /**
   * It ended.
   */
  uint64_t finished_ns;
} bop_times_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a channel that holds up to `capacity` values. With 0, a sender waits until a receiver takes its
 * value.
 *
 * Returns: NULL and the channel in `*out`, or an error: no memory for so many, a NULL.
 * Ownership: the handle is the caller's, until `bop_channel_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `out` is NULL or writable.
 */
wasmtime_error_t *bop_channel_new(size_t capacity,
                                  bop_channel_t **out);

/**
 * Sends a value; waits while the channel is full.
 *
 * Returns: `BOP_OK`; else the value was not sent: `BOP_CLOSED`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`;
 * `BOP_STORE_HAS_GC`; `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `channel` is NULL or a live handle.
 */
bop_status_t bop_channel_send(bop_channel_t *channel, uint64_t value);

/**
 * As `bop_channel_send`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
 *
 * Returns: as `bop_channel_send`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: As for `bop_channel_send`.
 */
bop_status_t bop_channel_send_until(bop_channel_t *channel,
                                    uint64_t value,
                                    uint64_t deadline);

/**
 * Receives the oldest value; waits while there is none.
 *
 * Returns: `BOP_OK` and the value in `*value` (which may be NULL). Else `*value` is left alone:
 * `BOP_CLOSED`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `channel` is NULL or a live handle; `value` is NULL or writable.
 */
bop_status_t bop_channel_receive(bop_channel_t *channel, uint64_t *value);

/**
 * As `bop_channel_receive`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
 *
 * Returns: as `bop_channel_receive`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: As for `bop_channel_receive`.
 */
bop_status_t bop_channel_receive_until(bop_channel_t *channel,
                                       uint64_t *value,
                                       uint64_t deadline);

/**
 * Closes a channel: nothing more can be sent, what is in it can be received, and all who wait are woken.
 *
 * Returns: `BOP_OK`; `BOP_CLOSED` if it was closed already; `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `channel` is NULL or a live handle.
 */
bop_status_t bop_channel_close(bop_channel_t *channel);

/**
 * How many values are in a channel.
 *
 * Returns: the number at the moment; 0 for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `channel` is NULL or a live handle.
 */
size_t bop_channel_length(const bop_channel_t *channel);

/**
 * A second handle on a channel.
 *
 * Returns: the handle; NULL for NULL.
 * Ownership: the caller's, until `bop_channel_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `channel` is NULL or a live handle.
 */
bop_channel_t *bop_channel_clone(const bop_channel_t *channel);

/**
 * Lets go of a handle. The channel goes with the last one, and with it what is in it: it is not
 * closed by that. Who waits in a call keeps it. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `channel` is NULL or the caller's handle.
 */
void bop_channel_delete(bop_channel_t *channel);

/**
 * Options with their defaults.
 *
 * Returns: the options.
 * Ownership: the caller's, until `bop_runtime_new` or `bop_config_delete` takes them.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_config_t *bop_config_new(void);

/**
 * Deletes options that no runtime was made from. NULL is fine.
 *
 * Ownership: takes `config`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or the caller's.
 */
void bop_config_delete(bop_config_t *config);

/**
 * Wasmtime's own options of the engine. NULL means its defaults, which is also the default here.
 * Whatever they say, epoch interruption is on. Wasm in a store that BOP looks after has its fiber's
 * stack, whatever `max_wasm_stack` says; in any other store that a fiber uses it has `max_wasm_stack`
 * from where it is entered, and the fiber's stack must be as large.
 *
 * Ownership: takes `wasm`, in any case.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live; `wasm` is NULL or the caller's.
 */
void bop_config_wasm(bop_config_t *config,
                     wasm_config_t *wasm);

/**
 * How many OS threads run fibers after `bop_runtime_start`. Default: one for each CPU that the
 * process may use. At least 1, at most 1024.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_workers(bop_config_t *config, size_t workers);

/**
 * The time slice after which a guest is preempted if others wait, in nanoseconds. Default 1,000,000
 * (1 ms), at least 50,000 (50 µs). 0 makes guests switch at *every* epoch check, whoever waits:
 * slow, and good for finding bugs.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_quantum(bop_config_t *config, uint64_t nanoseconds);

/**
 * The size of a fiber's stack, in bytes, unless the spawn says otherwise. Default 1 MiB; at least
 * 16 KiB more than `bop_config_host_stack`. It costs address space; memory only as far as it is used.
 * Rounded up to a power of two.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_stack_size(bop_config_t *config,
                           size_t bytes);

/**
 * The part of each stack that Wasm must leave to the host functions it calls, in bytes. Default
 * 64 KiB. Wasm that would go further traps; a host function that goes further than this on top of
 * such Wasm runs into the guard, which is reported with the fiber's name, and aborts the process.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_host_stack(bop_config_t *config, size_t bytes);

/**
 * How many fibers may live at a time; a spawn that would make more fails, or waits (`bop_spawn_options_wait`). Default: no
 * limit.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_max_fibers(bop_config_t *config,
                           size_t fibers);

/**
 * How long `bop_runtime_delete` waits for the fibers that it has cancelled, in nanoseconds.
 * Default 5 s.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_shutdown_timeout(bop_config_t *config, uint64_t nanoseconds);

/**
 * How the guards below stacks are made. Default `BOP_GUARD_AUTO`. `bop_runtime_new` refuses a number
 * that is no `bop_guard_t`.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_guard(bop_config_t *config,
                      bop_guard_t guard);

/**
 * Whether to note when each fiber is spawned, first run and ended, for `bop_fiber_times`. Default
 * false: it costs three looks at the clock for each fiber.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_timing(bop_config_t *config, bool timing);

/**
 * How many threads may make calls of `bop_blocking` at a time. Default 512, at least 1. One that has had nothing to do for
 * a second ends.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or live.
 */
void bop_config_helpers(bop_config_t *config,
                        size_t threads);

/**
 * Waits until a descriptor is ready for one of `events`, a combination of `bop_fd_event_t`: a socket, a pipe, a terminal,
 * an eventfd or the like, which should be non-blocking. Any number of fibers may wait for one descriptor. That it is
 * ready is a hint, which may be outdated: the read or write may still say `EAGAIN`.
 *
 * Close such a descriptor with `bop_close`, or who waits for it may wait for ever.
 *
 * Returns: `BOP_OK` and what it is ready for in `*ready` (which may be NULL). Else `*ready` is left alone: `BOP_CLOSED`
 * by `bop_close`; `BOP_FAILED`: it is not open, or of a kind that can't be waited for; `BOP_LIMIT`: the kernel allows
 * no more; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`: no or unknown events.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread, which `bop_close` does not wake.
 * Requires: `ready` is NULL or writable.
 */
bop_status_t bop_wait_fd(int fd,
                         uint32_t events,
                         uint32_t *ready);

/**
 * As `bop_wait_fd`, but waits no longer than until `deadline` (see `bop_now`); 0 only looks.
 *
 * Returns: as `bop_wait_fd`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread, which `bop_close` does not wake.
 * Requires: As for `bop_wait_fd`.
 */
bop_status_t bop_wait_fd_until(int fd, uint32_t events, uint32_t *ready, uint64_t deadline);

/**
 * Closes a descriptor, as `close` does. Fibers that wait for it, of whatever runtime, return `BOP_CLOSED`.
 *
 * Returns: what `close` returns, with `errno`.
 * Context: any thread or fiber.
 * Switches: never.
 */
int bop_close(int fd);

/**
 * Calls `function(env)` on a helper thread, so that it may block, while the fiber waits. There are as many helpers as calls
 * under way, up to `bop_config_helpers`; further calls queue up. A call that has begun is waited for, even if the
 * fiber is cancelled meanwhile; so `env` may be on its stack.
 *
 * Returns: `BOP_OK` and what the function returned in `*result` (which may be NULL). Else it was not called: `BOP_CANCELLED`;
 * `BOP_LIMIT`: there is no helper, and no thread can be made; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`;
 * `BOP_INVALID`: `function` is NULL.
 * Context: any thread or fiber. A plain thread calls the function itself.
 * Switches: suspends the calling fiber.
 * Requires: `function` may be called on any thread; `result` is NULL or writable.
 */
bop_status_t bop_blocking(bop_host_fn_t function,
                          void *env,
                          int64_t *result);

/**
 * As `bop_blocking`, but waits no longer than until `deadline` (see `bop_now`), or until the fiber is cancelled. The
 * function then runs on, to its end, and nobody is told its result.
 *
 * Returns: as `bop_blocking`; after `BOP_TIMEOUT` and `BOP_CANCELLED` the function may still run, or never have begun.
 * Ownership: `finalizer`, if there is one, is called with `env` exactly once, in any case: when the function has
 * returned, or will not be called.
 * Context: any thread or fiber. A plain thread calls the function itself, whatever the deadline.
 * Switches: suspends the calling fiber.
 * Requires: `function` and `finalizer` may be called on any thread; `result` is NULL or writable.
 */
bop_status_t bop_blocking_until(bop_host_fn_t function,
                                void *env,
                                bop_finalizer_t finalizer,
                                int64_t *result,
                                uint64_t deadline);

/**
 * Waits for the end of a fiber. Any number may wait for the same one, and one may ask again.
 *
 * Returns: `BOP_OK` and the outcome in `*outcome` (which may be NULL). Else `*outcome` is left
 * alone: `BOP_CANCELLED` if the calling fiber was cancelled; `BOP_NOT_ALLOWED` for a fiber that joins
 * itself or, unless it has ended, a fiber of another runtime; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `fiber` is NULL or a live handle; `outcome` is NULL or writable.
 */
bop_status_t bop_fiber_join(bop_fiber_t *fiber,
                            bop_outcome_t *outcome);

/**
 * As `bop_fiber_join`, but waits no longer than until `deadline` (see `bop_now`).
 *
 * Returns: as `bop_fiber_join`, and `BOP_TIMEOUT`. A fiber that has ended is `BOP_OK` whatever the
 * deadline.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: As for `bop_fiber_join`.
 */
bop_status_t bop_fiber_join_until(bop_fiber_t *fiber, uint64_t deadline, bop_outcome_t *outcome);

/**
 * Copies the results of a fiber that returned: as many as its function has. May be called again.
 *
 * Returns: NULL, or an error: not ended, ended otherwise, another number of results.
 * Ownership: the values are the caller's (`wasmtime_val_unroot`, for references).
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle; `results` has room for `nresults` values, or is NULL.
 */
wasmtime_error_t *bop_fiber_results(const bop_fiber_t *fiber,
                                    wasmtime_val_t *results,
                                    size_t nresults);

/**
 * The code that the guest passed to WASI's `proc_exit`.
 *
 * Returns: the code if the outcome is `BOP_OUTCOME_EXITED`, else 0.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
int32_t bop_fiber_exit_code(const bop_fiber_t *fiber);

/**
 * Takes the trap that ended a fiber: its message, its code, its backtrace. Of several takers the
 * first gets it.
 *
 * Returns: the trap, or NULL if there is none (any more, or yet).
 * Ownership: the caller's (`wasm_trap_delete`).
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
wasm_trap_t *bop_fiber_take_trap(bop_fiber_t *fiber);

/**
 * Cancels a fiber, for good. If it waits, its call returns `BOP_CANCELLED`, and so does each further
 * one; if it runs Wasm, that traps at its next epoch check; if it has not begun, it ends without
 * running. A host function must return by itself.
 *
 * Returns: `BOP_OK`, `BOP_FINISHED`, `BOP_INVALID`.
 * Context: any thread or fiber; a fiber may cancel itself.
 * Switches: never. It does not wait for the end.
 * Requires: `fiber` is NULL or a live handle.
 */
bop_status_t bop_fiber_cancel(bop_fiber_t *fiber);

/**
 * Gives a fiber the permit that `bop_park` consumes. If it is parked it wakes; else its next
 * `bop_park` returns at once. A fiber has one permit at the most.
 *
 * Returns: `BOP_OK`, `BOP_FINISHED`, `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
bop_status_t bop_unpark(bop_fiber_t *fiber);

/**
 * What a fiber is doing; true only for the moment, except that a fiber that has finished stays so.
 *
 * Returns: the state; `BOP_STATE_FINISHED` for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
bop_state_t bop_fiber_state(const bop_fiber_t *fiber);

/**
 * How long the fiber has run on a processor, in nanoseconds, if it has a budget (`bop_spawn_options_cpu_budget`).
 *
 * Returns: the time up to now, also while it runs; 0 without a budget, and for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
uint64_t bop_fiber_cpu(const bop_fiber_t *fiber);

/**
 * A number that no other fiber of the runtime has had.
 *
 * Returns: the number; 0 for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
uint64_t bop_fiber_id(const bop_fiber_t *fiber);

/**
 * Copies a fiber's name into `buffer`, of `size` bytes, with a 0 at the end; what does not fit is cut.
 *
 * Returns: the length of the whole name in bytes, without the 0; 0 for no name or NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle; `buffer` is NULL or has `size` bytes.
 */
size_t bop_fiber_name(const bop_fiber_t *fiber,
                      char *buffer,
                      size_t size);

/**
 * A second handle on a fiber.
 *
 * Returns: the handle; NULL for NULL.
 * Ownership: the caller's, until `bop_fiber_detach`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle.
 */
bop_fiber_t *bop_fiber_clone(const bop_fiber_t *fiber);

/**
 * Lets go of a handle. The fiber goes on. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or the caller's handle.
 */
void bop_fiber_detach(bop_fiber_t *fiber);

/**
 * Defines the module `bop` in a linker: what `bop_guest.h` declares, with which a guest spawns fibers of
 * its own instance, waits, and passes values through channels. An instance that exports its stack pointer
 * (`bop_module_prepare`) and was not shared (`bop_store_share`) is shared by its first spawn, with the defaults,
 * if only one fiber of the store lives then; else that spawn traps. That is the instance that calls: another one that
 * fibers enter through it must be shared by the host. Most of it needs a fiber: a start function
 * that the host's own thread runs traps there.
 *
 * Returns: NULL, or an error: one of the names is defined already, a NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `linker` is NULL or live.
 */
wasmtime_error_t *bop_linker_define(wasmtime_linker_t *linker);

/**
 * Defines WASI preview 1 in a linker, as `wasmtime_linker_define_wasi` does, with the same implementation; but what would
 * block the thread suspends the fiber: sleeping, `sched_yield`, `poll_oneoff`, files, and input that is not there yet. The
 * store gets its WASI by `wasmtime_context_set_wasi`, and nothing is granted that is not in there. `proc_exit` ends
 * the fiber with `BOP_OUTCOME_EXITED`.
 *
 * A call that waits keeps the store's WASI: siblings that call it wait for their turn, except to sleep, to yield and to exit;
 * `wasmtime_context_set_wasi` may not be called meanwhile. What
 * is written to the process's own standard output, or to a file of `wasi_config_set_stdout_file`, is written on the worker;
 * a callback of `wasi_config_set_stdout_custom` runs on a thread of Wasmtime's, and must not call what may suspend; input from
 * a file or pipe of `wasi_config_set_stdin_file` takes such a thread for each guest that waits, of which there are 512.
 * `bop_store_stdio` needs none of them. Outside of fibers all calls block the thread, and fail while a fiber's call waits.
 *
 * Returns: NULL, or an error: one of the names is defined already, a NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `linker` is NULL or live.
 */
wasmtime_error_t *bop_linker_define_wasi(wasmtime_linker_t *linker);

/**
 * Prepares the calling thread for Wasm: signal stack, trap handling. Wasmtime does it at the first
 * call; a thread that resumes a coroutine in the middle of one must have done it before. Again is
 * harmless.
 *
 * Returns: NULL, or an error if this build of Wasmtime is not as BOP knows it.
 * Context: any thread, outside fibers.
 * Switches: never.
 */
wasmtime_error_t *wasmtime_store_tls_init(void);

/**
 * The pointer to the youngest activation of Wasm on this thread.
 *
 * Returns: the pointer; NULL if no Wasm is on this stack.
 * Context: any thread, outside fibers.
 * Switches: never.
 */
void *wasmtime_tls_get(void);

/**
 * Sets the pointer that `wasmtime_tls_get` returns: with the value that it had when the stack that
 * runs next was left. This is enough if no two coroutines share a store, and each stack has room for what Wasm may use on
 * it, `wasmtime_config_max_wasm_stack_set`, and for host functions: Wasm does not know where the stack ends.
 *
 * Context: any thread, outside fibers.
 * Switches: never.
 * Requires: `pointer` is NULL or what `wasmtime_tls_get` gave on the stack that runs next.
 */
void wasmtime_tls_set(void *pointer);

/**
 * Prepares an activation for a coroutine that has not begun, with the stack of `size` bytes at
 * `stack` (its lowest address). Wasm leaves the lowest `host_stack` bytes to the host functions that
 * it calls; it traps before it goes there.
 *
 * Returns: NULL, or an error: a NULL, a stack that can't be right.
 * Ownership: the activation needs no clean-up.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `activation` is NULL or writable.
 */
wasmtime_error_t *bop_activation_init(bop_activation_t *activation,
                                      void *stack,
                                      size_t size,
                                      size_t host_stack);

/**
 * Call this right before switching to a coroutine that uses the store, or, where the switch is somebody else's, in the
 * coroutine right after it: puts the coroutine's activation in place of the thread's and the store's. A store with a heap of garbage-collected objects
 * may have one coroutine only: a collection does not see what a suspended one refers to.
 *
 * Returns: NULL, or an error: a NULL, the activation is in place already, a build of Wasmtime that BOP does
 * not know.
 * Context: the thread that runs the coroutine; nobody else uses the store.
 * Switches: never.
 * Requires: `context` is NULL or live; `activation` is NULL or was initialised, and is this coroutine's.
 */
wasmtime_error_t *bop_activation_restore(wasmtime_context_t *context,
                                         bop_activation_t *activation);

/**
 * Call this right after a coroutine has switched back, or in the coroutine right before it does: keeps its activation,
 * and puts that of the thread and the store back. On the thread that called `bop_activation_restore`.
 *
 * Returns: NULL, or an error: a NULL, no `bop_activation_restore` before, a build of Wasmtime that BOP does
 * not know.
 * Context: the thread that runs the coroutine.
 * Switches: never.
 * Requires: As for `bop_activation_restore`.
 */
wasmtime_error_t *bop_activation_save(wasmtime_context_t *context,
                                      bop_activation_t *activation);

/**
 * Gives up the turn. Others that are ready run first.
 *
 * Returns: `BOP_OK` (also on a plain thread, where it does nothing); `BOP_CANCELLED`;
 * `BOP_STORE_HAS_GC`.
 * Context: any thread or fiber.
 * Switches: suspends the calling fiber.
 */
bop_status_t bop_yield(void);

/**
 * Sleeps for so many nanoseconds.
 *
 * Returns: `BOP_OK`, never early; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`.
 * Context: any thread or fiber.
 * Switches: suspends the calling fiber; blocks a plain thread.
 */
bop_status_t bop_sleep(uint64_t nanoseconds);

/**
 * Sleeps until `deadline` (see `bop_now`).
 *
 * Returns: as `bop_sleep`.
 * Context: any thread or fiber.
 * Switches: suspends the calling fiber; blocks a plain thread.
 */
bop_status_t bop_sleep_until(uint64_t deadline);

/**
 * Waits for the permit that `bop_unpark` gives, and consumes it. Returns at once if it is
 * there.
 *
 * Returns: `BOP_OK`, never without a permit; `BOP_CANCELLED`; `BOP_NOT_FIBER`; `BOP_STORE_HAS_GC`.
 * Context: fibers only.
 * Switches: may suspend the calling fiber.
 */
bop_status_t bop_park(void);

/**
 * As `bop_park`, but waits no longer than until `deadline` (see `bop_now`).
 *
 * Returns: as `bop_park`, and `BOP_TIMEOUT`. A permit that is there is `BOP_OK` whatever the
 * deadline.
 * Context: fibers only.
 * Switches: may suspend the calling fiber.
 */
bop_status_t bop_park_until(uint64_t deadline);

/**
 * The calling fiber.
 *
 * Returns: a new handle; NULL if no fiber calls.
 * Ownership: the caller's, until `bop_fiber_detach`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_fiber_t *bop_current(void);

/**
 * Was the calling fiber cancelled? For long computations of the host, which nobody preempts.
 *
 * Returns: whether it was; false on a plain thread.
 * Context: any thread or fiber.
 * Switches: never.
 */
bool bop_cancelled(void);

/**
 * The clock of all deadlines: `CLOCK_MONOTONIC`.
 *
 * Returns: the time in nanoseconds.
 * Context: any thread or fiber.
 * Switches: never.
 */
uint64_t bop_now(void);

/**
 * Options with their default: the stack pointer is looked for.
 *
 * Returns: the options.
 * Ownership: the caller's, until `bop_prepare_options_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_prepare_options_t *bop_prepare_options_new(void);

/**
 * Deletes options. NULL is fine.
 *
 * Ownership: takes `options`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or the caller's.
 */
void bop_prepare_options_delete(bop_prepare_options_t *options);

/**
 * The stack pointer is the global with this name, `len` bytes of UTF-8, in the module's exports or in
 * its name section.
 *
 * Ownership: copied.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live; `name` is NULL or has `len` bytes.
 */
void bop_prepare_options_stack_pointer_name(bop_prepare_options_t *options,
                                            const char *name,
                                            size_t len);

/**
 * The stack pointer is the global with this index; imported globals count first.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_prepare_options_stack_pointer_index(bop_prepare_options_t *options, uint32_t index);

/**
 * Makes a module ready to be shared by many fibers, before it is compiled: finds the global that is its
 * stack pointer, and adds what is missing of three exports, `__stack_pointer`, the memory, and the
 * table that function pointers are indices of (`__indirect_function_table`). No other byte changes. A
 * component is copied as it is.
 *
 * Returns: NULL and the module in `*out`, for `wasmtime_module_new`; or an error, and `*out` is left
 * alone: not a module (in the binary format), the chosen global is not there or can't be a stack
 * pointer, a NULL.
 * Ownership: `*out` is the caller's (`wasm_byte_vec_delete`). `options` may be NULL, and `prepared`, which is
 * filled in as far as its `size` says.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `wasm` has `len` bytes; `options` is NULL or live; `out` is NULL or writable; `prepared` is NULL or
 * as large as it says.
 */
wasmtime_error_t *bop_module_prepare(const uint8_t *wasm,
                                     size_t len,
                                     const bop_prepare_options_t *options,
                                     wasm_byte_vec_t *out,
                                     bop_prepared_t *prepared);

/**
 * Makes a mutex that nobody holds.
 *
 * Returns: the mutex.
 * Ownership: the handle is the caller's, until `bop_mutex_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_mutex_t *bop_mutex_new(void);

/**
 * Locks a mutex; waits while another fiber or thread holds it.
 *
 * Returns: `BOP_OK`: it is the caller's; `BOP_ABANDONED`: so it is, but the fiber that had it before has ended without
 * unlocking it. Else it is not: `BOP_CANCELLED`; `BOP_NOT_ALLOWED`, also if the caller holds it; `BOP_STORE_HAS_GC`;
 * `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `mutex` is NULL or a live handle.
 */
bop_status_t bop_mutex_lock(bop_mutex_t *mutex);

/**
 * As `bop_mutex_lock`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
 *
 * Returns: as `bop_mutex_lock`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `mutex` is NULL or a live handle.
 */
bop_status_t bop_mutex_lock_until(bop_mutex_t *mutex, uint64_t deadline);

/**
 * Unlocks a mutex, which goes to who has waited longest.
 *
 * Returns: `BOP_OK`; `BOP_NOT_ALLOWED` if the caller does not hold it; `BOP_INVALID`.
 * Context: the fiber or thread that holds it.
 * Switches: never.
 * Requires: `mutex` is NULL or a live handle.
 */
bop_status_t bop_mutex_unlock(bop_mutex_t *mutex);

/**
 * A second handle on a mutex.
 *
 * Returns: the handle; NULL for NULL.
 * Ownership: the caller's, until `bop_mutex_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `mutex` is NULL or a live handle.
 */
bop_mutex_t *bop_mutex_clone(const bop_mutex_t *mutex);

/**
 * Lets go of a handle. The mutex goes with the last one; who waits in a call keeps it. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `mutex` is NULL or the caller's handle.
 */
void bop_mutex_delete(bop_mutex_t *mutex);

/**
 * The version of this library, as `major.minor.patch`.
 *
 * Returns: a string that lives for ever.
 * Context: any thread or fiber.
 * Switches: never.
 */
const char *bop_version(void);

/**
 * What a status means, in a few words.
 *
 * Returns: a string that lives for ever; "unknown" for a number that is no status.
 * Context: any thread or fiber.
 * Switches: never.
 */
const char *bop_status_name(bop_status_t status);

/**
 * What an outcome means, in a word.
 *
 * Returns: a string that lives for ever; "unknown" for a number that is no outcome.
 * Context: any thread or fiber.
 * Switches: never.
 */
const char *bop_outcome_name(bop_outcome_t outcome);

/**
 * What a state means, in a word.
 *
 * Returns: a string that lives for ever; "unknown" for a number that is no state.
 * Context: any thread or fiber.
 * Switches: never.
 */
const char *bop_state_name(bop_state_t state);

/**
 * Makes a runtime from options; NULL means the defaults. It has no threads until
 * `bop_runtime_start` or `bop_run`.
 *
 * Returns: NULL and the runtime in `*out`; or an error, and `*out` is left alone: an option that can't
 * be right, which it names, or a build of Wasmtime that BOP does not know.
 * Ownership: takes `config`, in any case. The runtime is the caller's, until `bop_runtime_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `config` is NULL or the caller's; `out` is NULL or writable.
 */
wasmtime_error_t *bop_runtime_new(bop_config_t *config,
                                  bop_runtime_t **out);

/**
 * The runtime's engine: what modules must be compiled for, and stores made with.
 *
 * Returns: the engine; NULL if `runtime` is NULL.
 * Ownership: the runtime's. A `wasmtime_engine_clone` may outlive it.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `runtime` is NULL or live.
 */
wasm_engine_t *bop_runtime_engine(const bop_runtime_t *runtime);

/**
 * Starts the workers: so many background threads run fibers from now on.
 *
 * Returns: NULL, or an error: started before, shut down, no thread to be had.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `runtime` is NULL or live.
 */
wasmtime_error_t *bop_runtime_start(bop_runtime_t *runtime);

/**
 * Makes the calling thread a worker until no fiber is left. Needs no `bop_runtime_start`, and goes
 * with it; several threads may call it at once.
 *
 * Of more than 16 threads in it at a time, the further ones only wait.
 *
 * Returns: NULL, or an error: called from a fiber or by a thread that has entered a store, shut down, no
 * thread to be had for the clock.
 * Context: host threads only.
 * Switches: never. It blocks the thread, which runs fibers meanwhile.
 * Requires: `runtime` is NULL or live, and stays so until the call returns.
 */
wasmtime_error_t *bop_run(bop_runtime_t *runtime);

/**
 * Makes the calling thread run fibers until none is ready, or for `budget_ns` nanoseconds: for a host with an event loop of
 * its own, which calls this whenever `bop_runtime_fd` is readable. It never sleeps. A guest that runs on is
 * interrupted, at most about a millisecond too late; a host function is not. Without `bop_runtime_start` all
 * fibers run on the threads that call this (a helper thread still watches the clock, for timers and preemption).
 *
 * Returns: NULL, and in `*next` (which may be NULL) when there will be more to do, as far as can be told (see
 * `bop_now`): 0 for at once, `UINT64_MAX` if only the descriptor will tell. Or an error: called from a fiber, the
 * runtime is shut down, as many threads as there may be run fibers.
 * Context: host threads only; several may call it at once.
 * Switches: never.
 * Requires: `runtime` is NULL or live; `next` is NULL or writable.
 */
wasmtime_error_t *bop_run_for(bop_runtime_t *runtime,
                              uint64_t budget_ns,
                              uint64_t *next);

/**
 * A descriptor that is readable exactly when fibers are ready, or what they wait for has happened, and no thread
 * is running them: for the `poll`, `epoll` or event library of a host that calls `bop_run_for`. It makes no sense beside
 * `bop_runtime_start`, whose workers see to that themselves.
 *
 * Returns: the descriptor; -1 for NULL.
 * Ownership: the runtime's. Only wait for it, and no longer than the runtime lives.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `runtime` is NULL or live.
 */
int bop_runtime_fd(bop_runtime_t *runtime);

/**
 * Ends a runtime: refuses further fibers, cancels those that live, waits for their end and for that of calls of
 * `bop_blocking_until` that were left alone, then stops all threads. Fibers that were never begun end as cancelled without running. Afterwards it can only be
 * looked at and deleted.
 *
 * Returns: NULL, or an error: one that names the fibers, or says how many calls, did not end within `timeout_ns`
 * nanoseconds (the fibers stay cancelled; call it again to go on waiting), called from a fiber or by a thread
 * that has entered a store.
 * Context: host threads only.
 * Switches: never. It blocks the thread.
 * Requires: `runtime` is NULL or live.
 */
wasmtime_error_t *bop_runtime_shutdown(bop_runtime_t *runtime,
                                       uint64_t timeout_ns);

/**
 * Shuts a runtime down, with the time of `bop_config_shutdown_timeout`, and deletes it. Handles of
 * its fibers and stores stay valid. NULL is fine.
 *
 * Returns: NULL, or an error as from `bop_runtime_shutdown`; then the runtime is not deleted.
 * Ownership: takes `runtime` if it returns NULL.
 * Context: host threads only.
 * Switches: never. It blocks the thread.
 * Requires: `runtime` is NULL, or the caller's and not in use by another thread.
 */
wasmtime_error_t *bop_runtime_delete(bop_runtime_t *runtime);

/**
 * Makes a semaphore with so many permits.
 *
 * Returns: the semaphore.
 * Ownership: the handle is the caller's, until `bop_semaphore_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_semaphore_t *bop_semaphore_new(uint64_t permits);

/**
 * Takes a permit; waits while there is none.
 *
 * Returns: `BOP_OK`; else no permit was taken: `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`;
 * `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `semaphore` is NULL or a live handle.
 */
bop_status_t bop_semaphore_acquire(bop_semaphore_t *semaphore);

/**
 * As `bop_semaphore_acquire`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
 *
 * Returns: as `bop_semaphore_acquire`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `semaphore` is NULL or a live handle.
 */
bop_status_t bop_semaphore_acquire_until(bop_semaphore_t *semaphore,
                                         uint64_t deadline);

/**
 * Adds permits, which go to those who have waited longest. Whoever does so need not have taken any.
 *
 * Returns: `BOP_OK`; `BOP_INVALID`, also if there would be 2^64 permits.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `semaphore` is NULL or a live handle.
 */
bop_status_t bop_semaphore_release(bop_semaphore_t *semaphore, uint64_t permits);

/**
 * How many permits a semaphore has.
 *
 * Returns: the number at the moment; 0 for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `semaphore` is NULL or a live handle.
 */
uint64_t bop_semaphore_permits(const bop_semaphore_t *semaphore);

/**
 * A second handle on a semaphore.
 *
 * Returns: the handle; NULL for NULL.
 * Ownership: the caller's, until `bop_semaphore_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `semaphore` is NULL or a live handle.
 */
bop_semaphore_t *bop_semaphore_clone(const bop_semaphore_t *semaphore);

/**
 * Lets go of a handle. The semaphore goes with the last one; who waits in a call keeps it. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `semaphore` is NULL or the caller's handle.
 */
void bop_semaphore_delete(bop_semaphore_t *semaphore);

/**
 * Options with their defaults: stacks of 64 KiB with a guard of 16 KiB, which grow the memory; the exports
 * that `bop_module_prepare` names.
 *
 * Returns: the options.
 * Ownership: the caller's, until `bop_share_options_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_share_options_t *bop_share_options_new(void);

/**
 * Deletes options. NULL is fine.
 *
 * Ownership: takes `options`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or the caller's.
 */
void bop_share_options_delete(bop_share_options_t *options);

/**
 * The size in bytes of a fiber's stack in the instance's memory, rounded up to whole pages. Default
 * 64 KiB. A spawn may ask for another one.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_share_options_stack_size(bop_share_options_t *options, uint32_t bytes);

/**
 * The size in bytes of the guard below each stack, rounded up to whole pages. Default 16 KiB. A fiber that
 * touches the guard of its stack traps at its next function entry or loop head, and harms nobody; a
 * single frame larger than the guard can step over it. 0: no guards, and an overflow is seen only when
 * the fiber is switched out or looks up while its stack is below its end. Guards are made as those of
 * native stacks are (`bop_config_guard`); with `mprotect`, both together allow about 16,000 fibers.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_share_options_guard_size(bop_share_options_t *options,
                                  uint32_t bytes);

/**
 * Takes the memory for stacks from the guest's own allocator, exported under these names (`malloc`
 * and `free`, of C's types), in place of growing the memory. For guests that take all that the memory
 * grows by for their own (Emscripten's; wasi-libc's before 2023, unless it was called once already). The allocator is called while no fiber of the store
 * has lost its turn somewhere in the guest: a new fiber waits for that, or finds a stack that was
 * reserved or given back. It must not suspend.
 *
 * Ownership: the names are copied.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live; the names have as many bytes of UTF-8 as their lengths say.
 */
void bop_share_options_allocator(bop_share_options_t *options,
                                 const char *allocate,
                                 size_t allocate_len,
                                 const char *release,
                                 size_t release_len);

/**
 * Makes so many stacks at once, when the instance is shared. More are made when they are needed.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_share_options_reserve(bop_share_options_t *options, size_t stacks);

/**
 * The names of the exports to use, for a module with names of its own: a mutable i32 global, and the
 * memory that its stack lies in. NULL leaves one as it is.
 *
 * Ownership: the names are copied.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live; the names have as many bytes of UTF-8 as their lengths say.
 */
void bop_share_options_exports(bop_share_options_t *options,
                               const char *stack_pointer,
                               size_t stack_pointer_len,
                               const char *memory,
                               size_t memory_len);

/**
 * Shares an instance among the fibers that will be spawned in its store: each gets a stack of its
 * own in the instance's memory, with the stack pointer to it, as compiled C, C++ and Rust need it.
 * Guests that keep no such stack need no sharing. All else in the instance is shared: memory, globals,
 * tables; `docs/sharing.md` says what a guest must mind. A store may share several instances.
 *
 * Returns: NULL, or an error: called from a fiber, the store has live fibers, no such exports, a
 * stack pointer that is shared already, another store's instance, stacks that do not fit into the
 * memory or can't have guards there, whatever `bop_store_enter` returns.
 * Ownership: `options` stays the caller's, and may be NULL.
 * Context: host threads only, whether they have entered the store or not.
 * Switches: never. It blocks the thread while somebody else has entered the store.
 * Requires: Pointers are NULL or live.
 */
wasmtime_error_t *bop_store_share(bop_store_t *store,
                                  const wasmtime_instance_t *instance,
                                  const bop_share_options_t *options);

/**
 * Options with their defaults: no name, the runtime's stack size.
 *
 * Returns: the options.
 * Ownership: the caller's, until `bop_spawn_options_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_spawn_options_t *bop_spawn_options_new(void);

/**
 * Deletes options. NULL is fine.
 *
 * Ownership: takes `options`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or the caller's.
 */
void bop_spawn_options_delete(bop_spawn_options_t *options);

/**
 * The fiber's name, `len` bytes of UTF-8, for messages and `bop_fiber_name`.
 *
 * Ownership: copied.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live; `name` is NULL or has `len` bytes.
 */
void bop_spawn_options_name(bop_spawn_options_t *options, const char *name, size_t len);

/**
 * The size of the fiber's stack in bytes, 0 for the runtime's. A spawn fails if it is not at least
 * 16 KiB more than the part that is reserved for host functions.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_stack_size(bop_spawn_options_t *options, size_t bytes);

/**
 * The size in bytes of the fiber's stack in each instance that its store shares (see
 * `bop_store_share`), rounded up to whole pages; 0 for what the instance was shared with. Without such
 * instances it means nothing. A spawn fails if the memory could never have so much.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_shadow_stack(bop_spawn_options_t *options,
                                    uint32_t bytes);

/**
 * When the fiber shall end at the latest (see `bop_now`); 0 for no deadline. It is then stopped as a cancelled fiber is,
 * wherever it is, and its outcome is `BOP_OUTCOME_TIMED_OUT`; if it has not begun, it never does.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_deadline(bop_spawn_options_t *options,
                                uint64_t deadline);

/**
 * How long the fiber may run on a processor, in nanoseconds, over all its turns; waiting does not count, what the kernel
 * takes from its worker meanwhile does. Fibers that a guest spawns have no budget of their own: `bop_store_cpu_budget` is for
 * all of a store. 0 for no budget;
 * `UINT64_MAX` for one without end, so that `bop_fiber_cpu` tells what it uses. Who has used it up is stopped
 * as a cancelled fiber is, at most about a millisecond later, with `BOP_OUTCOME_OUT_OF_BUDGET`. A host function is not
 * stopped; the Wasm that it returns to is. The fiber's switches cost two looks at the clock more.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_cpu_budget(bop_spawn_options_t *options,
                                  uint64_t nanoseconds);

/**
 * Until when (see `bop_now`) the spawn shall wait for room if there are as many fibers as there may be, by
 * `bop_config_max_fibers` or `bop_store_max_fibers`; `UINT64_MAX` for as long as it takes, 0 for not at all: it then
 * fails. Those who wait are served in order. A spawn that waits suspends the calling fiber, or blocks the thread.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_wait(bop_spawn_options_t *options,
                            uint64_t deadline);

/**
 * How many bytes each linear memory of a fresh store may have, and how many elements each table; 0 for no limit. What
 * would go beyond fails in the guest (`memory.grow` returns -1), or ends the fiber with `BOP_OUTCOME_FAILED` if
 * it is instantiated so large. For `bop_spawn_instance` only; for other stores see `wasmtime_store_limiter`.
 *
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_memory(bop_spawn_options_t *options,
                              uint64_t bytes,
                              uint64_t table_elements);

/**
 * The host's descriptors that the WASI guest of a fresh store has for standard input, output and errors; -1 leaves it to
 * the store's WASI. Reads and writes of pipes, sockets and terminals then suspend the fiber until they can go on. It
 * needs `bop_linker_define_wasi`, and is for `bop_spawn_instance` only; for other stores see `bop_store_stdio`.
 *
 * Ownership: the descriptors stay the caller's, who closes them with `bop_close`, after the fiber's end.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `options` is NULL or live.
 */
void bop_spawn_options_stdio(bop_spawn_options_t *options,
                             int input,
                             int output,
                             int errors);

/**
 * Spawns a fiber that calls `func` in a store, beside any others of that store. `args` must fit the
 * function's type.
 *
 * Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
 * `*out` is left alone: wrong arguments, a function of another store, a store with a heap of
 * garbage-collected objects and a live fiber, too many fibers, a stack too small, no memory, shut down.
 * Ownership: `args` are copied. The handle is the caller's, until `bop_fiber_detach`.
 * Context: any thread or fiber.
 * Switches: never, unless it waits for room (`bop_spawn_options_wait`).
 * Requires: Pointers are NULL or live; `args` has `nargs` values, each of which holds what its kind says.
 */
wasmtime_error_t *bop_spawn(bop_store_t *store,
                            const wasmtime_func_t *func,
                            const wasmtime_val_t *args,
                            size_t nargs,
                            const bop_spawn_options_t *options,
                            bop_fiber_t **out);

/**
 * Spawns a fiber that calls a function of the host. `docs/host-code.md` says what such a function
 * must mind.
 *
 * Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
 * `*out` is left alone: too many fibers, a stack too small, no memory, shut down.
 * Ownership: `finalizer`, if there is one, is called with `env` exactly once: on the fiber after the
 * function has returned, or when the fiber was cancelled before it began; on the caller's thread if
 * this fails. The handle is the caller's, until `bop_fiber_detach`.
 * Context: any thread or fiber.
 * Switches: never, unless it waits for room (`bop_spawn_options_wait`).
 * Requires: Pointers are NULL or live; `function` and `finalizer` may be called on any thread.
 */
wasmtime_error_t *bop_spawn_host(bop_runtime_t *runtime,
                                 bop_host_fn_t function,
                                 void *env,
                                 bop_finalizer_t finalizer,
                                 const bop_spawn_options_t *options,
                                 bop_fiber_t **out);

/**
 * Spawns a fiber that makes a store, instantiates a module in it, and calls one of its exports (`name`,
 * of `len` bytes). All of it, start function included, happens on the fiber. When the fiber ends, so does the
 * program: fibers that its guest has spawned (`bop_linker_define`) are cancelled. With the last of them the store is
 * deleted, on a worker: the finalizers of its data must not make calls that block.
 *
 * Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
 * `*out` is left alone: no such function, wrong arguments, another engine's module, too many fibers, a
 * stack too small, no memory, shut down. If the set-up or the instantiation fails, the fiber's
 * outcome says so.
 * Ownership: `pre` is copied, as are `name` and `args`. `setup` may be NULL. `finalizer` is called
 * with `env` exactly once: when the store has been deleted; on the fiber if it was cancelled before it began; on
 * the caller's thread if this fails. The handle is the caller's, until
 * `bop_fiber_detach`.
 * Context: any thread or fiber.
 * Switches: never, unless it waits for room (`bop_spawn_options_wait`).
 * Requires: Pointers are NULL or live; `name` has `len` bytes; `args` has `nargs` values, each of which holds what
 * its kind says; `setup` and `finalizer` may be called on any thread.
 */
wasmtime_error_t *bop_spawn_instance(bop_runtime_t *runtime,
                                     const wasmtime_instance_pre_t *pre,
                                     const char *name,
                                     size_t len,
                                     const wasmtime_val_t *args,
                                     size_t nargs,
                                     bop_setup_fn_t setup,
                                     void *env,
                                     bop_finalizer_t finalizer,
                                     const bop_spawn_options_t *options,
                                     bop_fiber_t **out);

/**
 * Fills in `*stats`, as far as its `size` says that it reaches. Does nothing if either is NULL.
 *
 * Context: any thread or fiber. The numbers are a moment old, each for itself.
 * Switches: never.
 * Requires: `runtime` is NULL or live; `stats` is NULL, or as large as it says.
 */
void bop_runtime_stats(const bop_runtime_t *runtime, bop_stats_t *stats);

/**
 * Fills in `*stats` for one worker. The workers of `bop_runtime_start` and of `bop_run` share one
 * numbering, from 0 up, in the order in which they came.
 *
 * Returns: whether there is such a worker (as many as are configured, and as ever were), and neither
 * pointer is NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: As for `bop_runtime_stats`.
 */
bool bop_runtime_worker_stats(const bop_runtime_t *runtime,
                              size_t worker,
                              bop_worker_stats_t *stats);

/**
 * Fills in `*times`. The runtime must have been made with `bop_config_timing`.
 *
 * Returns: whether it was, and neither pointer is NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `fiber` is NULL or a live handle; `times` is NULL, or as large as it says.
 */
bool bop_fiber_times(const bop_fiber_t *fiber, bop_times_t *times);

/**
 * Hands a store to a runtime, with all that is in it; `wasmtime_store_t`'s functions may not be used
 * on it any more. The runtime sets the store's epoch callback and deadline; before that, Wasm in the store traps
 * at its first epoch check unless `wasmtime_context_set_epoch_deadline` was called.
 *
 * Returns: NULL and the handle in `*out`, or an error: made with another engine, set up for Wasmtime's
 * async calls, a NULL.
 * Ownership: takes `store`, in any case; an error deletes it. The handle is the caller's, until
 * `bop_store_delete`.
 * Context: any thread or fiber, but the store must not be in use.
 * Switches: never.
 * Requires: `runtime` is NULL or live; `store` is NULL or the caller's; `out` is NULL or writable.
 */
wasmtime_error_t *bop_store_new(bop_runtime_t *runtime,
                                wasmtime_store_t *store,
                                bop_store_t **out);

/**
 * Lets go of a store. Its fibers go on (see `bop_store_cancel`). It is deleted when its last fiber has ended, which may be on a worker: the
 * finalizers of the store's data and functions must not make calls that block. A thread that has
 * entered it exits. From within a call of the entered store it can't be deleted: then it never is, and its
 * fibers never run again. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or the caller's.
 */
void bop_store_delete(bop_store_t *store);

/**
 * Sets what a trap of one fiber means to the others of the store. Default `BOP_TRAP_ISOLATE`. Setting it
 * back to that makes a poisoned store take fibers again. An exit (WASI's `proc_exit`) is no trap. Which fiber
 * poisoned the store, and by what, is what the error of a later spawn says.
 *
 * Returns: NULL, or an error: a number that is no policy, a NULL.
 * Context: any thread or fiber. It counts from the next trap on.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
wasmtime_error_t *bop_store_trap_policy(bop_store_t *store,
                                        bop_trap_policy_t policy);

/**
 * Sets the store's weight: how many quanta it may run at a stretch while others wait for its worker. So
 * a store of weight 3 gets three times the share of one of weight 1, however many fibers either has; and
 * others wait for so much longer. 1 to 1,000; default 1, which is also what host fibers and
 * `bop_spawn_instance` have.
 *
 * Returns: NULL, or an error: a weight out of range, a NULL.
 * Context: any thread or fiber. It counts from the store's next turn on.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
wasmtime_error_t *bop_store_weight(bop_store_t *store,
                                   uint32_t weight);

/**
 * Sets how many fibers the store may have at a time; a spawn beyond fails. Without it the runtime's limit holds, and
 * for those that its guest spawns (`bop_linker_define`) 131,072. Those that are there already stay.
 *
 * Returns: NULL, or an error: 0 fibers, a NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
wasmtime_error_t *bop_store_max_fibers(bop_store_t *store,
                                       size_t fibers);

/**
 * The host's descriptors that the WASI guests of a store have for standard input, output and errors; -1 leaves it to
 * the store's WASI. See `bop_spawn_options_stdio`.
 *
 * Returns: `BOP_OK`, `BOP_INVALID`.
 * Ownership: the descriptors stay the caller's, who closes them with `bop_close`, when no guest uses them any more.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
bop_status_t bop_store_stdio(bop_store_t *store,
                             int input,
                             int output,
                             int errors);

/**
 * When all fibers of the store shall end (see `bop_now`); 0 for never. They are then stopped as `bop_spawn_options_deadline`
 * says, and later spawns are refused. A deadline that has passed can't be taken back.
 *
 * Returns: `BOP_OK`, `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
bop_status_t bop_store_deadline(bop_store_t *store,
                                uint64_t deadline);

/**
 * How long all fibers of the store together may run on a processor from now on, in nanoseconds; `UINT64_MAX` without
 * end, but metered for `bop_store_cpu`. Whoever runs when it is used up is stopped as `bop_spawn_options_cpu_budget` says, and so
 * are all that run later, until there is more: call it again.
 *
 * Returns: `BOP_OK`, `BOP_INVALID`: also for 0.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
bop_status_t bop_store_cpu_budget(bop_store_t *store,
                                  uint64_t nanoseconds);

/**
 * How long the store's fibers have run on a processor, in nanoseconds, since `bop_store_cpu_budget` was first called.
 *
 * Returns: the time up to now, that of one that runs included; 0 before that call, and for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
uint64_t bop_store_cpu(const bop_store_t *store);

/**
 * Cancels all fibers that the store has, those included that its guest has spawned, as `bop_fiber_cancel` cancels
 * one. The store takes new ones as before. Fibers that are being spawned meanwhile may be missed.
 *
 * Returns: `BOP_OK`, `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: never. It does not wait for their end.
 * Requires: `store` is NULL or live.
 */
bop_status_t bop_store_cancel(bop_store_t *store);

/**
 * Waits for the store's fibers to be between two turns, and keeps them from running until
 * `bop_store_exit`: meanwhile the calling thread may use the store as it likes, calls of Wasm
 * included (they run on the thread's own stack, and are not preempted). A fiber that runs gives way at
 * its next epoch check or suspension; a host function that does neither keeps the thread waiting.
 *
 * Returns: NULL and Wasmtime's context in `*out`, valid until the exit; or an error: called from a
 * fiber, entered already by this thread, fibers of the store are ready and the runtime has no worker, a
 * store with live fibers and a heap of garbage-collected objects.
 * Ownership: the context is the store's.
 * Context: host threads only.
 * Switches: never. It blocks the thread.
 * Requires: `store` is NULL or live; `out` is NULL or writable.
 */
wasmtime_error_t *bop_store_enter(bop_store_t *store,
                                  wasmtime_context_t **out);

/**
 * Lets the store's fibers run again.
 *
 * Returns: NULL, or an error: the calling thread has not entered, or is still in a call of the store.
 * Context: the host thread that entered.
 * Switches: never.
 * Requires: `store` is NULL or live.
 */
wasmtime_error_t *bop_store_exit(bop_store_t *store);

/**
 * Makes a wait group with nothing to be done.
 *
 * Returns: the wait group.
 * Ownership: the handle is the caller's, until `bop_wait_group_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 */
bop_wait_group_t *bop_wait_group_new(void);

/**
 * So many more things are to be done.
 *
 * Returns: `BOP_OK`; `BOP_INVALID`, also if there would be 2^64 of them.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `group` is NULL or a live handle.
 */
bop_status_t bop_wait_group_add(bop_wait_group_t *group, uint64_t more);

/**
 * One thing is done. With the last one, all who wait go on.
 *
 * Returns: `BOP_OK`; `BOP_INVALID`, also if nothing was left to be done.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `group` is NULL or a live handle.
 */
bop_status_t bop_wait_group_done(bop_wait_group_t *group);

/**
 * Waits until nothing is left to be done, if only for a moment.
 *
 * Returns: `BOP_OK`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `group` is NULL or a live handle.
 */
bop_status_t bop_wait_group_wait(bop_wait_group_t *group);

/**
 * As `bop_wait_group_wait`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
 *
 * Returns: as `bop_wait_group_wait`, and `BOP_TIMEOUT`.
 * Context: any thread or fiber.
 * Switches: may suspend the calling fiber; blocks a plain thread.
 * Requires: `group` is NULL or a live handle.
 */
bop_status_t bop_wait_group_wait_until(bop_wait_group_t *group,
                                       uint64_t deadline);

/**
 * How many things are left to be done.
 *
 * Returns: the number at the moment; 0 for NULL.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `group` is NULL or a live handle.
 */
uint64_t bop_wait_group_left(const bop_wait_group_t *group);

/**
 * A second handle on a wait group.
 *
 * Returns: the handle; NULL for NULL.
 * Ownership: the caller's, until `bop_wait_group_delete`.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `group` is NULL or a live handle.
 */
bop_wait_group_t *bop_wait_group_clone(const bop_wait_group_t *group);

/**
 * Lets go of a handle. The wait group goes with the last one; who waits in a call keeps it. NULL is fine.
 *
 * Ownership: takes the handle.
 * Context: any thread or fiber.
 * Switches: never.
 * Requires: `group` is NULL or the caller's handle.
 */
void bop_wait_group_delete(bop_wait_group_t *group);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BOP_H */
