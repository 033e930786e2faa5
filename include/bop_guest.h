/* For guests: C and C++ compiled to WebAssembly and run by libbop.
 *
 * A guest spawns fibers of its own instance as a program spawns threads, and they take turns: one runs at a
 * time, and it may lose its turn in any loop and at any call. They share memory, globals and tables; each has its own
 * stack. docs/sharing.md says what that asks of a program.
 *
 *   static int32_t work(void *arg) { ... return 7; }
 *
 *   bop_guest_fiber_t fiber = bop_guest_spawn(work, &job);
 *   int32_t result;
 *   if (bop_guest_join(fiber, &result) == BOP_GUEST_OK) ...
 *
 * Any call that waits may also say NOT_ALLOWED or HAS_GC. In a guest that the host runs with bop_spawn_instance the
 * program ends with its first fiber, as a process does when main returns: the others are cancelled.
 *
 * The host defines these functions with bop_linker_define, and makes the module ready with
 * bop_module_prepare. Handles are good within one store. What a program could not have meant (a pointer beyond
 * its memory, a function pointer that is none) traps; everything else comes back as a status.
 *
 * malloc, and whatever else in a C library keeps state, is not made for several fibers: guard it with a
 * bop_guest_mutex_t. The C library's errno and its thread-local variables are shared by all fibers. */
#ifndef BOP_GUEST_H
#define BOP_GUEST_H

#if !defined(__wasm32__)
#error "bop_guest.h is for guests, compiled to wasm32; hosts include bop.h"
#endif

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define BOP_GUEST_NORETURN [[noreturn]]
#else
#define BOP_GUEST_NORETURN _Noreturn
#endif

#define BOP_GUEST_IMPORT(name) __attribute__((import_module("bop"), import_name(#name)))

/* What a call says. */
typedef enum bop_guest_status_t {
  BOP_GUEST_OK = 0,
  BOP_GUEST_TIMEOUT = 1,
  /* The calling fiber was cancelled: it should clean up and return. It traps soon if it does not. */
  BOP_GUEST_CANCELLED = 2,
  /* The call would wait for itself, or nothing may wait here. */
  BOP_GUEST_NOT_ALLOWED = 5,
  /* There is no such fiber or channel, or no longer. */
  BOP_GUEST_INVALID = 6,
  /* The store has a heap of garbage-collected objects, which allows only one fiber. */
  BOP_GUEST_HAS_GC = 7,
  /* The channel is closed; to a receiver: and empty. */
  BOP_GUEST_CLOSED = 8,
  /* The host allows no more fibers, or has no memory for one; or the program is being ended. */
  BOP_GUEST_LIMIT = 9,
  /* The joined fiber trapped or was cancelled: it has no result. */
  BOP_GUEST_FAILED = 10,
} bop_guest_status_t;

/* ---- fibers ---- */

typedef uint64_t bop_guest_fiber_t; /* 0: none */
typedef int32_t (*bop_guest_fn_t)(void *arg);

/* Spawns a fiber that calls fn(arg), to be joined or detached. 0 if there may be no more. */
BOP_GUEST_IMPORT(spawn)
bop_guest_fiber_t bop_guest_spawn(bop_guest_fn_t fn, void *arg);

/* Spawns a fiber that nobody joins. OK, LIMIT. */
BOP_GUEST_IMPORT(go)
bop_guest_status_t bop_guest_go(bop_guest_fn_t fn, void *arg);

/* Waits for the end of a fiber of bop_guest_spawn. OK, and *result (which may be NULL) has what it returned or
 * passed to bop_guest_exit; FAILED. The handle is gone after these two. CANCELLED, INVALID; NOT_ALLOWED for the
 * calling fiber itself. */
BOP_GUEST_IMPORT(join)
bop_guest_status_t bop_guest_join(bop_guest_fiber_t fiber, int32_t *result);

/* Gives up a handle; the fiber goes on. OK, INVALID. */
BOP_GUEST_IMPORT(detach)
bop_guest_status_t bop_guest_detach(bop_guest_fiber_t fiber);

/* The number of the calling fiber, which no other one of the host's runtime has. */
BOP_GUEST_IMPORT(self)
bop_guest_fiber_t bop_guest_self(void);

/* Lets others run. OK, CANCELLED. */
BOP_GUEST_IMPORT(yield)
bop_guest_status_t bop_guest_yield(void);

/* Sleeps, never less than asked for. OK, CANCELLED. */
BOP_GUEST_IMPORT(sleep)
bop_guest_status_t bop_guest_sleep(uint64_t nanoseconds);

/* A clock in nanoseconds that never goes back. */
BOP_GUEST_IMPORT(now)
uint64_t bop_guest_now(void);

/* Ends the calling fiber. Nothing on its stack is cleaned up. */
BOP_GUEST_NORETURN BOP_GUEST_IMPORT(exit)
void bop_guest_exit(int32_t result);

/* ---- channels: queues of 64-bit values; who has waited longest is served first ---- */

typedef uint32_t bop_guest_channel_t; /* 0: none */

/* A channel that holds up to `capacity` values; with 0 a sender waits for a receiver. 0 if there can be none: more
 * than 2^20 values, 2^24 in all channels together, or 2^17 handles of channels and of fibers not joined. */
BOP_GUEST_IMPORT(channel_new)
bop_guest_channel_t bop_guest_channel_new(uint32_t capacity);

/* Waits while the channel is full. OK, CLOSED, CANCELLED, INVALID. */
BOP_GUEST_IMPORT(channel_send)
bop_guest_status_t bop_guest_channel_send(bop_guest_channel_t channel, uint64_t value);

/* Waits while the channel is empty. OK and the value in *value (which may be NULL), CLOSED, CANCELLED, INVALID. */
BOP_GUEST_IMPORT(channel_receive)
bop_guest_status_t bop_guest_channel_receive(bop_guest_channel_t channel, uint64_t *value);

/* Nothing more can be sent; what is in it can be received. Wakes all who wait. OK, CLOSED, INVALID. */
BOP_GUEST_IMPORT(channel_close)
bop_guest_status_t bop_guest_channel_close(bop_guest_channel_t channel);

/* Closes it, and gives up the handle with what is in it. OK, INVALID. */
BOP_GUEST_IMPORT(channel_delete)
bop_guest_status_t bop_guest_channel_delete(bop_guest_channel_t channel);

/* ---- words and locks ---- */

/* Waits until the word is notified, if it holds `expected`; for `timeout` nanoseconds at most, for ever if
 * that is negative. 0: woken, 1: the word holds something else, 2: too late, 3: cancelled. As
 * memory.atomic.wait32, for fibers. */
BOP_GUEST_IMPORT(wait)
int32_t bop_guest_wait(const volatile int32_t *word, int32_t expected, int64_t timeout);

/* Wakes up to `count` fibers that wait for the word, and says how many. As memory.atomic.notify. */
BOP_GUEST_IMPORT(notify)
uint32_t bop_guest_notify(const volatile int32_t *word, uint32_t count);

/* A lock between the fibers of an instance: bop_guest_mutex_t mutex = {0}. Not recursive. A fiber that traps with
 * the lock held leaves it locked. */
typedef struct bop_guest_mutex_t {
  volatile int32_t word; /* 0: free, 1: held, 2: held, and somebody may wait */
} bop_guest_mutex_t;

/* What stands between two of these stays there: to the compiler the lock is memory like any other. */
#define BOP_GUEST_BARRIER() __asm__ volatile("" ::: "memory")

/* Compiled code loses its turn where functions begin, at loop heads, and before bulk operations such as memory.copy:
 * so nothing comes between a volatile read and a volatile write that stand together. */
static inline void bop_guest_lock(bop_guest_mutex_t *mutex) {
  int32_t was = mutex->word;
  mutex->word = was == 0 ? 1 : 2;
  while (was != 0) {
    if (bop_guest_wait(&mutex->word, 2, -1) == 3)
      continue; /* cancelled: traps at the head of this loop, and must not have the lock */
    was = mutex->word;
    mutex->word = 2;
  }
  BOP_GUEST_BARRIER();
}

/* Takes the lock if it is free; whether it did. */
static inline int bop_guest_try_lock(bop_guest_mutex_t *mutex) {
  int32_t was = mutex->word;
  if (was == 0)
    mutex->word = 1;
  BOP_GUEST_BARRIER();
  return was == 0;
}

static inline void bop_guest_unlock(bop_guest_mutex_t *mutex) {
  BOP_GUEST_BARRIER();
  int32_t was = mutex->word;
  mutex->word = 0;
  if (was == 2)
    bop_guest_notify(&mutex->word, 1);
}

#ifdef __cplusplus
}
#endif

#endif
