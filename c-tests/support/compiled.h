/* Guests as compilers make them: their functions keep frames on a stack in the guest's memory. */
#ifndef BOP_TEST_COMPILED_H
#define BOP_TEST_COMPILED_H

#include "support.h"

/* "yield" lets others run; "gate" waits in the program's channel; "fill" writes where the guest says, as reads of
 * files and sockets do. */
extern const t_import t_compiled_imports[];
extern bop_channel_t *t_compiled_gate;

/* The text, to be freed. A `limit` that is not "" is that of the memory, in pages, of which it has 2. */
char *t_compiled_text(const char *limit, bool exports_stack_pointer);
/* Exports its stack pointer, and is not shared. */
void t_compiled_new(t_guest *guest, bop_runtime_t *runtime, const char *limit);

/* A started runtime with three workers and a quantum; 0: it switches at every check. Takes the options of Wasm, which
 * may be NULL. */
bop_runtime_t *t_compiled_runtime(wasm_config_t *own, bop_guard_t guard, uint64_t quantum_ns);

/* What "sum" returns. */
int32_t t_sum(int32_t seed, int32_t depth);
/* Runs "sum" in many fibers, and starts the runtime with them if told to; the number of those that end otherwise
 * than they should. */
enum { MANY = 200 };
int t_sums(const t_guest *guest, int fibers, int32_t depth, bop_runtime_t *start);
/* Ends the fiber, which must have used up its stack in the guest's memory; the message has the word. */
void t_overflows(bop_fiber_t *own, const char *word);

/* How often a fiber was back from "yield" on another thread than it first called that on; since it was set to 0. */
extern atomic_int t_wanderers;
void t_forget_threads(void); /* of which there may be more than are remembered: once in a while */

#endif
