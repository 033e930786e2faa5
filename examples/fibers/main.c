/* 10,000 fibers in one instance of a C program. The program (guest.c) spawns them itself, and they
 * talk through channels. This is the host: guest_load, guest_start and guest_call are what a host
 * must do; the rest checks and measures.
 *
 *     fibers GUEST.wasm [FIBERS]
 *
 * Prints what the guest prints, then a table with a line for each of the guest's exports, and at last
 *     every sum is right
 * If one differs from its formula, the table says so, and the exit status is 1. */
#include <bop.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB (UINT32_C(1) << 10)

static void fail(const char *what, const char *why) {
  fflush(stdout);
  fprintf(stderr, "fibers: %s: %s\n", what, why);
  exit(1);
}

static void ok(wasmtime_error_t *error) { /* NULL is success */
  if (error == NULL)
    return;
  wasm_name_t text;
  wasmtime_error_message(error, &text);
  fprintf(stderr, "fibers: %.*s\n", (int)text.size, text.data);
  exit(1);
}

/* ---- a guest ---- */

/* A store, and the one instance in it. */
struct guest {
  bop_store_t *store;
  wasmtime_instance_t instance;
};

static wasmtime_module_t *guest_load(wasm_engine_t *engine, const char *path) {
  FILE *file = fopen(path, "rb");
  long size = -1;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0)
    size = ftell(file);
  uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
  if (size < 0 || bytes == NULL || fseek(file, 0, SEEK_SET) != 0 ||
      fread(bytes, 1, (size_t)size, file) != (size_t)size)
    fail("cannot read", path);
  fclose(file);

  /* Before it is compiled: what the fibers' stacks take is exported. */
  wasm_byte_vec_t prepared;
  bop_prepared_t found = {.size = sizeof found};
  ok(bop_module_prepare(bytes, (size_t)size, NULL, &prepared, &found));
  if (found.stack_pointer == BOP_STACK_POINTER_NONE)
    fail("no stack pointer in", path);
  wasmtime_module_t *module;
  ok(wasmtime_module_new(engine, (const uint8_t *)prepared.data, prepared.size, &module));
  wasm_byte_vec_delete(&prepared);
  free(bytes);
  return module;
}

static void guest_start(struct guest *guest, bop_runtime_t *runtime,
                        const wasmtime_module_t *module) {
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  ok(bop_linker_define_wasi(linker));
  ok(bop_linker_define(linker)); /* what bop_guest.h declares */

  ok(bop_store_new(runtime, wasmtime_store_new(engine, NULL, NULL), &guest->store));
  wasmtime_context_t *context;
  wasm_trap_t *trap = NULL;
  ok(bop_store_enter(guest->store, &context));
  wasi_config_t *wasi = wasi_config_new();
  wasi_config_inherit_stdout(wasi);
  ok(wasmtime_context_set_wasi(context, wasi));
  ok(wasmtime_linker_instantiate(linker, context, module, &guest->instance, &trap));
  if (trap != NULL)
    fail("the guest", "trapped when it was instantiated");
  ok(bop_store_exit(guest->store));
  wasmtime_linker_delete(linker);

  /* From here on each fiber gets a stack in the guest's memory. With the default of 64 KiB, 10,000
   * would take 800 MB of its 4 GiB of addresses. */
  bop_share_options_t *options = bop_share_options_new();
  bop_share_options_stack_size(options, 16 * KIB);
  ok(bop_store_share(guest->store, &guest->instance, options));
  bop_share_options_delete(options);
  /* A fiber that traps ends the others too: they might wait for it. */
  ok(bop_store_trap_policy(guest->store, BOP_TRAP_POISON));
}

static wasmtime_extern_t guest_export(struct guest *guest, const char *name) {
  wasmtime_context_t *context;
  wasmtime_extern_t found;
  ok(bop_store_enter(guest->store, &context));
  if (!wasmtime_instance_export_get(context, &guest->instance, name, strlen(name), &found))
    fail("the guest has no", name);
  ok(bop_store_exit(guest->store));
  return found;
}

/* Calls a function on a fiber, which may spawn others, and waits for it. */
static uint64_t guest_call(struct guest *guest, const char *name, const uint32_t *args,
                           size_t nargs, size_t nresults) {
  wasmtime_extern_t function = guest_export(guest, name);
  if (function.kind != WASMTIME_EXTERN_FUNC)
    fail("this is no function", name);
  wasmtime_val_t values[2], result = {.of = {.i64 = 0}};
  for (size_t i = 0; i < nargs; i++)
    values[i] = (wasmtime_val_t){.kind = WASMTIME_I32, .of = {.i32 = (int32_t)args[i]}};

  /* This fiber prints, and printf is not as modest as the functions of the others. */
  bop_spawn_options_t *options = bop_spawn_options_new();
  bop_spawn_options_name(options, name, strlen(name));
  bop_spawn_options_shadow_stack(options, 64 * KIB);
  bop_fiber_t *fiber;
  ok(bop_spawn(guest->store, &function.of.func, values, nargs, options, &fiber));
  bop_spawn_options_delete(options);

  bop_outcome_t outcome;
  bop_fiber_join(fiber, &outcome);
  if (outcome == BOP_OUTCOME_CANCELLED) /* by the trap of another fiber: a spawn is told which */
    ok(bop_spawn(guest->store, &function.of.func, values, nargs, NULL, NULL));
  wasm_trap_t *trap = bop_fiber_take_trap(fiber);
  if (trap != NULL) {
    wasm_message_t text; /* ends with a 0 */
    wasm_trap_message(trap, &text);
    fail(name, text.data);
  }
  if (outcome != BOP_OUTCOME_RETURNED)
    fail(name, bop_outcome_name(outcome));
  ok(bop_fiber_results(fiber, &result, nresults));
  bop_fiber_detach(fiber);
  return (uint64_t)result.of.i64;
}

/* ---- what the guest must return ---- */

/* The sum of the numbers below n. */
static uint64_t below(uint64_t n) { return n == 0 ? 0 : n * (n - 1) / 2; }

/* Member i adds up 0 times i, 1 times i + 1, ... 255 times i + 255. */
static uint64_t crowd_sum(uint64_t members) {
  return below(256) * below(members) + UINT64_C(255) * 256 * 511 / 6 * members;
}

/* Station i sees the values 0 to 63, each larger by i; and so does the caller at the end. */
static uint64_t ring_sum(uint64_t stations) {
  return 64 * below(stations + 1) + below(64) * (stations + 1);
}

static uint64_t sieve_sum(uint32_t primes) {
  uint64_t sum = 0;
  for (uint64_t n = 2; primes > 0; n++) {
    uint64_t d = 2;
    while (d * d <= n && n % d != 0)
      d++;
    if (d * d > n) {
      sum += n;
      primes--;
    }
  }
  return sum;
}

/* Of the numbers from 1 to n, n / d have the divisor d. */
static uint64_t divisors_sum(uint32_t n) {
  uint64_t sum = 0;
  for (uint32_t d = 1; d <= n; d++)
    sum += n / d;
  return sum;
}

/* ---- the table ---- */

struct part {
  const char *name;
  uint32_t args[2];
  size_t nargs;
  uint64_t fibers, sum;
  const char *unit; /* what the time is divided by, */
  uint64_t units;   /* and how many; 0: as many as messages */
  /* Measured: */
  uint64_t messages, time_ns, preemptions, result;
};

static void run(struct part *part, struct guest *guest, const bop_runtime_t *runtime) {
  bop_stats_t before = {.size = sizeof before}, after = {.size = sizeof after};
  bop_runtime_stats(runtime, &before);
  uint64_t began = bop_now();
  part->result = guest_call(guest, part->name, part->args, part->nargs, 1);
  part->time_ns = bop_now() - began;
  bop_runtime_stats(runtime, &after);
  part->preemptions = after.preemptions - before.preemptions;
  part->messages = guest_call(guest, "messages", NULL, 0, 1);
  if (after.spawned - before.spawned != part->fibers + 1) /* and the one that has spawned them */
    fail(part->name, "has spawned another number of fibers");
}

static void print_head(void) {
  printf("\n%-9s%8s%10s%11s%22s%11s  %s\n", "", "fibers", "messages", "time", "each", "preempted",
         "sum");
}

static bool print(const struct part *part) {
  bool right = part->result == part->sum;
  uint64_t units = part->units != 0 ? part->units : part->messages;
  printf("%-9s%8" PRIu64 "%10" PRIu64 "%8.1f ms", part->name, part->fibers, part->messages,
         (double)part->time_ns / 1e6);
  printf("%8.0f ns / %-8s%11" PRIu64 "  ", (double)part->time_ns / (double)units, part->unit,
         part->preemptions);
  if (right)
    printf("right\n");
  else
    printf("%" PRIu64 " and not %" PRIu64 "\n", part->result, part->sum);
  return right;
}

/* A line of /proc/self/status: VmRSS, the memory that is resident now; VmHWM, at its peak. */
static double status_mib(const char *field) {
  char line[128];
  unsigned long kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file != NULL && kib == 0 && fgets(line, sizeof line, file) != NULL)
    if (strncmp(line, field, strlen(field)) == 0)
      kib = strtoul(line + strlen(field) + 1, NULL, 10);
  if (kib == 0)
    fail("/proc/self/status has no", field);
  fclose(file);
  return (double)kib / 1024;
}

static void print_memory(struct guest *guest, uint32_t fibers, double before, double peak) {
  wasmtime_extern_t memory = guest_export(guest, "memory");
  wasmtime_context_t *context;
  ok(bop_store_enter(guest->store, &context));
  size_t size = wasmtime_memory_data_size(context, &memory.of.memory);
  ok(bop_store_exit(guest->store));
  printf("resident memory: %.0f MiB before, %.0f at the peak, so %.1f KiB for each of %" PRIu32
         " fibers\n", before, peak, (peak - before) * 1024 / fibers, fibers);
  printf("the instance's memory: %.0f MiB, mostly addresses only\n", (double)size / KIB / KIB);
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3)
    fail("usage", "fibers GUEST.wasm [FIBERS]");
  uint32_t fibers = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10000;
  if (fibers < 100 || fibers > 50000)
    fail("FIBERS", "from 100 to 50000");

  /* The fibers of one store take turns: they have no use for a second worker. */
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  bop_config_stack_size(config, 128 * KIB);
  bop_runtime_t *runtime;
  ok(bop_runtime_new(config, &runtime));
  ok(bop_runtime_start(runtime));

  wasmtime_module_t *module = guest_load(bop_runtime_engine(runtime), argv[1]);
  struct guest guest;
  guest_start(&guest, runtime, module);
  guest_call(&guest, "_initialize", NULL, 0, 0); /* the C library's set-up */

  uint32_t few = fibers / 10, fewer = fibers / 100, numbers = 20000;
  struct part parts[] = {
      {"spawn", {fibers}, 1, fibers, below(fibers), .unit = "fiber", .units = fibers},
      {"crowd", {fibers}, 1, fibers, crowd_sum(fibers), .unit = "fiber", .units = fibers},
      {"ring", {fibers}, 1, fibers, ring_sum(fibers), .unit = "message"},
      {"sieve", {few}, 1, few + 1, sieve_sum(few), .unit = "message"},
      {"divisors", {fewer, numbers}, 2, fewer, divisors_sum(numbers), .unit = "number",
       .units = numbers},
  };
  size_t count = sizeof parts / sizeof parts[0];
  printf("%" PRIu32 " fibers in one instance of %s\n", fibers, argv[1]);
  fflush(stdout); /* the guest writes there by itself */
  double before = status_mib("VmRSS");
  for (size_t i = 0; i < count; i++)
    run(&parts[i], &guest, runtime);
  double peak = status_mib("VmHWM");

  bool right = true;
  print_head();
  for (size_t i = 0; i < count; i++)
    right &= print(&parts[i]);
  print_memory(&guest, fibers, before, peak);
  if (right)
    printf("every sum is right\n");

  bop_store_delete(guest.store);
  ok(bop_runtime_delete(runtime));
  wasmtime_module_delete(module);
  return right ? 0 : 1;
}
