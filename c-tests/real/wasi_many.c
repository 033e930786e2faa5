/* Unmodified WASI programs, hundreds at once on two workers, each with its own arguments, environment, directory, input and
 * captured output: QuickJS and CPython scripts that sleep, read and write files, read lines that host fibers write to
 * pipes meanwhile, and exit with codes; resvg's pictures. Each must do exactly what it does alone, or what C says.
 *     TEST <inputs> <folder> <folder of pictures> */
#include "real.h"
#include "support/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* What uses its directory, and sleeps; what adds up lines, which it reads from a pipe; pictures. */
enum { QUICKJS, QUICKJS_LINES, CPYTHON, CPYTHON_LINES, RESVG, KINDS_OF_THEM };
static const int HOW_MANY[KINDS_OF_THEM] = {200, 80, 16, 16, 24};
enum { ALL = 200 + 80 + 16 + 16 + 24, PICTURES = 4, LINES = 12 };

static const char JS[] = "const [n, ms] = scriptArgs.map(Number);"
                         "print(scriptArgs.length, std.getenv('WORD'), Object.keys(std.getenviron()).length);"
                         "print(std.loadFile('/data/in.txt'));"
                         "os.sleep(ms);"
                         "let x = n; for (let i = 0; i < 5000; i++) x = (Math.imul(x, 1664525) + 1013904223) >>> 0;"
                         "const out = std.open('/data/out.txt', 'w'); out.puts(String(x)); out.close();"
                         "os.setTimeout(() => {"
                         "  print('first');"
                         "  os.setTimeout(() => { print('second', x); std.exit(n % 100); }, ms);"
                         "}, ms);";
static const char JS_LINES[] = "let sum = 0, line;"
                               "while ((line = std.in.getline()) !== null) print(sum += Number(line));"
                               "print('end'); std.exit(Number(scriptArgs[0]) % 100);";
static const char PY[] = "import os, sys, time\n"
                         "n, ms = map(int, sys.argv[1:])\n"
                         "print(len(sys.argv) - 1, os.environ['WORD'], len(os.environ))\n"
                         "print(open('/data/in.txt').read())\n"
                         "time.sleep(ms / 1000)\n"
                         "x = n\n"
                         "for i in range(5000): x = (x * 1664525 + 1013904223) & 0xffffffff\n"
                         "open('/data/out.txt', 'w').write(str(x))\n"
                         "time.sleep(ms / 1000)\n"
                         "print('first')\n"
                         "print('second', x)\n"
                         "sys.exit(n % 100)\n";
static const char PY_LINES[] = "import sys\n"
                               "sum = 0\n"
                               "for line in sys.stdin:\n"
                               "    sum += int(line)\n"
                               "    print(sum, flush=True)\n"
                               "print('end')\n"
                               "sys.exit(int(sys.argv[1]) % 100)\n";

typedef struct job {
  real_run run;
  int kind;
  uint32_t number;
  char n[16], ms[16], word[32], folder[600];
  char want[1024]; /* its output */
  char file[16];   /* what it leaves in its directory */
  real_bytes *picture, *drawn;
  bool by_bop;  /* which of the two ways its input is a pipe */
  int pipe[2];
  bop_fiber_t *feeder;
  uint64_t random;
} job;

static job jobs[ALL];
static real_bytes svg[PICTURES];
static real_run alone[PICTURES];

static bool has_pipe(const job *it) { return it->kind == QUICKJS_LINES || it->kind == CPYTHON_LINES; }

/* ---- what they must do ---- */

static uint32_t chain(uint32_t x) {
  for (int i = 0; i < 5000; i++)
    x = x * UINT32_C(1664525) + UINT32_C(1013904223);
  return x;
}

static int line(const job *it, int i) { return (int)(it->number % 1000) * (i + 1) + i; }

static void what_it_says(job *it) {
  char *at = it->want;
  if (has_pipe(it)) {
    int sum = 0;
    for (int i = 0; i < LINES; i++)
      at += sprintf(at, "%d\n", sum += line(it, i));
    strcpy(at, "end\n");
  } else if (it->kind != RESVG) {
    uint32_t x = chain(it->number);
    sprintf(at, "2 %s 1\nfile of %s\nfirst\nsecond %u\n", it->word, it->word, x);
    snprintf(it->file, sizeof it->file, "%u", x);
  }
}

static bool right(const job *it) {
  if (it->kind == RESVG)
    return real_succeeded(&it->run) && it->drawn->size > 1000 && real_equal(&it->run.out, it->drawn);
  int code = (int)(it->number % 100);
  bool ended = it->run.outcome == BOP_OUTCOME_EXITED ? it->run.code == code
                                                     : it->run.outcome == BOP_OUTCOME_RETURNED && code == 0;
  if (!ended || !real_is(&it->run.out, it->want) || it->run.err.size != 0)
    return false;
  if (has_pipe(it))
    return true;
  char path[640];
  snprintf(path, sizeof path, "%s/out.txt", it->folder);
  real_bytes left = real_file(path);
  bool same = real_is(&left, it->file);
  real_free(&left);
  return same;
}

/* ---- what they are given ---- */

static void prepare(job *it, int kind, int i, const char *work) {
  *it = (job){.kind = kind, .number = (uint32_t)(i * 7919 + kind), .random = (uint64_t)i + 1};
  snprintf(it->n, sizeof it->n, "%u", it->number);
  snprintf(it->ms, sizeof it->ms, "%d", 1 + i * 13 % 40);
  snprintf(it->word, sizeof it->word, "word-%d-%d", kind, i);
  const char *const js[] = {"qjs", "--std", "-e", has_pipe(it) ? JS_LINES : JS, it->n, has_pipe(it) ? NULL : it->ms};
  const char *const py[] = {"python", "-B", "-S", "-c", has_pipe(it) ? PY_LINES : PY, it->n, has_pipe(it) ? NULL : it->ms};
  const char *const svg_to_png[] = {"resvg", "--resources-dir=.", "-", "-c"};
  if (kind == RESVG)
    memcpy(it->run.argv, svg_to_png, sizeof svg_to_png);
  else if (kind == CPYTHON || kind == CPYTHON_LINES)
    memcpy(it->run.argv, py, sizeof py);
  else
    memcpy(it->run.argv, js, sizeof js);
  if (kind == RESVG) {
    it->picture = &svg[i % PICTURES];
    it->drawn = &alone[i % PICTURES].out;
  } else if (!has_pipe(it)) {
    char path[640];
    snprintf(it->folder, sizeof it->folder, "%s/many-%d-%d", work, kind, i);
    CHECK(mkdir(it->folder, 0777) == 0 || errno == EEXIST);
    snprintf(path, sizeof path, "%s/in.txt", it->folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fprintf(file, "file of %s", it->word) > 0 && fclose(file) == 0);
  } else {
    CHECK_EQ(pipe2(it->pipe, O_CLOEXEC), 0);
    it->by_bop = i % 2;
  }
  what_it_says(it);
}

static ptrdiff_t writes(void *bytes, const unsigned char *data, size_t size) {
  real_append(bytes, data, size);
  return (ptrdiff_t)size;
}

static wasmtime_error_t *set_up(void *data, wasmtime_context_t *context) {
  job *it = data;
  wasi_config_t *wasi = wasi_config_new();
  size_t argc = 0;
  while (argc < sizeof it->run.argv / sizeof it->run.argv[0] && it->run.argv[argc] != NULL)
    argc++;
  CHECK(wasi_config_set_argv(wasi, argc, it->run.argv));
  const char *name = "WORD", *word = it->word;
  CHECK(wasi_config_set_env(wasi, 1, &name, &word));
  if (it->folder[0])
    CHECK(wasi_config_preopen_dir(wasi, it->folder, "/data", true));
  if (it->picture) {
    wasm_byte_vec_t in;
    wasm_byte_vec_new(&in, it->picture->size, (const char *)it->picture->data);
    wasi_config_set_stdin_bytes(wasi, &in);
  }
  if (has_pipe(it) && !it->by_bop) { /* which Wasmtime opens anew */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", it->pipe[0]);
    CHECK(wasi_config_set_stdin_file(wasi, path));
  }
  wasi_config_set_stdout_custom(wasi, writes, &it->run.out, NULL);
  wasi_config_set_stderr_custom(wasi, writes, &it->run.err, NULL);
  return wasmtime_context_set_wasi(context, wasi);
}

/* Writes its lines, whole or in parts, now and then. */
static int64_t feeds(void *data) {
  job *it = data;
  for (int i = 0; i < LINES; i++) {
    char text[32];
    size_t n = (size_t)snprintf(text, sizeof text, "%d\n", line(it, i)), part = t_below(&it->random, n + 1);
    CHECK_EQ(bop_sleep(t_below(&it->random, 5 * MS)), BOP_OK);
    CHECK_EQ(t_write(it->pipe[1], text, part), part);
    if (i % 3 == 0)
      CHECK_EQ(bop_sleep(t_below(&it->random, 2 * MS)), BOP_OK);
    CHECK_EQ(t_write(it->pipe[1], text + part, n - part), n - part);
  }
  t_close(it->pipe[1]);
  return LINES;
}

static void spawn(bop_runtime_t *runtime, const real_guest *guest, job *it) {
  bop_spawn_options_t *options = bop_spawn_options_new();
  if (it->by_bop)
    bop_spawn_options_stdio(options, it->pipe[0], -1, -1);
  OK(bop_spawn_instance(runtime, guest->pre, "_start", 6, NULL, 0, set_up, it, NULL, options, &it->run.fiber));
  bop_spawn_options_delete(options);
  if (has_pipe(it))
    it->feeder = t_spawn_host(runtime, feeds, it, "feeder");
}

static void finish(job *it) {
  real_join(&it->run);
  if (it->feeder)
    CHECK_EQ(t_result(it->feeder), LINES);
  if (has_pipe(it))
    bop_close(it->pipe[0]);
}

static void clean(job *it) {
  char path[640];
  real_delete(&it->run);
  if (it->folder[0]) {
    snprintf(path, sizeof path, "%s/in.txt", it->folder);
    CHECK_EQ(unlink(path), 0);
    snprintf(path, sizeof path, "%s/out.txt", it->folder);
    unlink(path);
    CHECK_EQ(rmdir(it->folder), 0);
  }
}

/* ---- pictures ---- */

static void draw_alone(const char *folder) {
  CASE("pictures, alone");
  static const char *const NAMES[PICTURES] = {"02-rings.svg", "04-tiles.svg", "07-bars.svg", "08-star.svg"};
  wasm_engine_t *plain = wasm_engine_new();
  real_guest resvg;
  real_load_plain(&resvg, plain, "resvg.wasm");
  for (int i = 0; i < PICTURES; i++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
    svg[i] = real_file(path);
    alone[i] = (real_run){.argv = {"resvg", "--resources-dir=.", "-", "-c"}};
    real_append(&alone[i].in, svg[i].data, svg[i].size);
    real_alone(&resvg, &alone[i]);
    CHECK(real_succeeded(&alone[i]) && alone[i].out.size > 1000);
    for (int j = 0; j < i; j++)
      CHECK(!real_equal(&alone[i].out, &alone[j].out));
  }
  real_unload(&resvg);
  wasm_engine_delete(plain);
}

static void control(bop_runtime_t *runtime, const char *work) {
  CASE("control");
  real_guest empty;
  real_load_text(&empty, runtime, REAL_EMPTY);
  for (int kind = 0; kind < KINDS_OF_THEM; kind++) {
    job it;
    prepare(&it, kind, 1, work);
    char path[640];
    snprintf(path, sizeof path, "%s/out.txt", it.folder);
    if (it.folder[0])
      fclose(fopen(path, "w"));
    spawn(runtime, &empty, &it);
    finish(&it);
    CHECK_EQ(it.run.outcome, BOP_OUTCOME_RETURNED);
    CHECK(!right(&it));
    clean(&it);
  }
  real_unload(&empty);
}

int main(int argc, char **argv) {
  real_start("real wasi_many", argc, argv);
  const char *work = argv[2];
  draw_alone(real_argument());
  bop_runtime_t *runtime = real_runtime();
  signal(SIGPIPE, SIG_IGN); /* for the control, which reads nothing */
  control(runtime, work);

  CASE("compile");
  static const char *const FILES[] = {"quickjs.wasm", "cpython.wasm", "resvg.wasm"};
  real_guest guest[3];
  for (int i = 0; i < 3; i++)
    real_load(&guest[i], runtime, FILES[i]);

  CASE("all at once");
  uint64_t random = t_seed() + 1;
  int at = 0;
  for (int kind = 0; kind < KINDS_OF_THEM; kind++)
    for (int i = 0; i < HOW_MANY[kind]; i++)
      prepare(&jobs[at++], kind, i, work);
  CHECK_EQ(at, ALL);
  int order[ALL];
  for (int i = 0; i < ALL; i++) {
    int k = (int)t_below(&random, (uint64_t)i + 1);
    order[i] = order[k];
    order[k] = i;
  }
  for (int i = 0; i < ALL; i++) {
    job *it = &jobs[order[i]];
    spawn(runtime, &guest[it->kind / 2], it);
  }
  for (int i = 0; i < ALL; i++) {
    job *it = &jobs[i];
    finish(it);
    if (!right(it))
      t_fail(__FILE__, __LINE__, "%s: %s %d %s; wrote %.*s, not %s; %.*s", it->word, bop_outcome_name(it->run.outcome),
             (int)it->run.code, it->run.reason, it->kind == RESVG ? 0 : (int)it->run.out.size, (char *)it->run.out.data,
             it->want, (int)it->run.err.size, (char *)it->run.err.data);
    clean(it);
  }
  real_check_preempted(runtime, 500);
  EVENTUALLY(t_stats(runtime).live == 0);
  OK(bop_runtime_delete(runtime));
  for (int i = 0; i < PICTURES; i++) {
    real_delete(&alone[i]);
    real_free(&svg[i]);
  }
  for (int i = 0; i < 3; i++)
    real_unload(&guest[i]);
  return 0;
}
