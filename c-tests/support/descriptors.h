/* Descriptors, who waits for them, and chance. */
#ifndef BOP_TEST_DESCRIPTORS_H
#define BOP_TEST_DESCRIPTORS_H

#include "things.h" /* t_far, t_below, t_actor_waits */

#define BOTH (BOP_READABLE | BOP_WRITABLE)

/* What is written to ends[1] is read from ends[0]; between sockets also the other way round. Non-blocking. */
void t_pipe(int ends[2]);
void t_sockets(int ends[2]);
/* Fails the test if it fails. */
void t_close(int fd);
/* What the system call returns, or -errno: errno itself is the thread's, and a fiber may be on another one after each
 * wait. */
int64_t t_read(int fd, void *buffer, size_t size);
int64_t t_write(int fd, const void *buffer, size_t size);
int64_t t_bop_close(int fd);
/* As much as goes in, or comes out, without blocking; in bytes. */
size_t t_fill(int fd);
size_t t_drain(int fd);

/* ---- who waits ---- */

/* NEVER: by the function that takes no deadline. */
bop_status_t t_wait_fd(int fd, uint32_t events, uint32_t *ready, uint64_t deadline);

/* A fiber or a thread that waits once. */
typedef struct t_waiter {
  t_actor actor;
  int fd;
  uint32_t events, ready;
} t_waiter;

void t_waiter_begin(t_waiter *it, int kind, int fd, uint32_t events, uint64_t deadline);
/* It waits by now, or its deadline has come. */
void t_waiter_waits(t_waiter *it, int kind, int fd, uint32_t events, uint64_t deadline);
/* Its call returned this. `told` is what it was told with BOP_OK; else it must have been told nothing. */
#define TOLD(waiter, status, told) t_told(__FILE__, __LINE__, waiter, status, told)
void t_told(const char *file, int line, t_waiter *it, bop_status_t status, uint32_t told);
/* A whole call of which it is known how it ends. */
#define SAYS(kind, fd, events, deadline, status, told) \
  t_says(__FILE__, __LINE__, kind, fd, events, deadline, status, told)
void t_says(const char *file, int line, int kind, int fd, uint32_t events, uint64_t deadline, bop_status_t status,
            uint32_t told);

/* How many threads have this name. */
int t_threads(const char *name);

/* ---- what the environment asks for ---- */

/* BOP_SEED, or one by the clock. Prints it. */
uint64_t t_seed(void);
/* BOP_STRESS in seconds, or 2; in nanoseconds. */
uint64_t t_stress(void);
/* A number of the environment's, or `otherwise`. */
uint64_t t_setting(const char *name, uint64_t otherwise);

#endif
