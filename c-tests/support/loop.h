/* A host's own loop: its epoll watches a runtime beside a pipe and a timer of the host's. */
#ifndef BOP_TEST_LOOP_H
#define BOP_TEST_LOOP_H

#include "descriptors.h"

/* Is it readable now? */
bool t_readable(int fd);
/* It becomes so, or the test has failed. */
#define READABLE_AT_LAST(fd) t_readable_at_last(__FILE__, __LINE__, fd)
void t_readable_at_last(const char *file, int line, int fd);

/* Runs fibers once, for so long at the most, and says when there is more to do. */
uint64_t t_run_for(bop_runtime_t *runtime, uint64_t budget_ns);

typedef struct t_loop {
  bop_runtime_t *runtime;
  uint64_t budget; /* of each call of bop_run_for */
  int fd, epoll, timer, pipe[2];
  uint64_t next;   /* what the last of them said */
  uint64_t runs;   /* of them */
  uint64_t ticks;  /* of the timer, which there is if it was set */
  uint64_t bytes;  /* that came through the pipe */
} t_loop;

/* The timer may be 0: none. */
void t_loop_begin(t_loop *loop, bop_runtime_t *runtime, uint64_t budget_ns, uint64_t timer_ns);
void t_loop_end(t_loop *loop);
/* Waits, without end, and does what there is to do. If nothing ever is, the test has failed. */
void t_loop_turn(t_loop *loop);
#define LOOP_UNTIL(loop, condition) \
  while (!(condition))              \
  t_loop_turn(loop)
/* Runs fibers until there is nothing more to do, and the descriptor says so. Not beside other threads. */
uint64_t t_settle(bop_runtime_t *runtime);

#endif
