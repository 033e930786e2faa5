/* resvg: pictures from stdin to stdout, equal to those that the module makes on plain Wasmtime. */
#include "real.h"

#include <dirent.h>

enum { AT_ONCE = 3, MOST = 32 };

typedef struct picture {
  char name[256];
  real_bytes svg;
  real_run alone, fibers[AT_ONCE];
} picture;

static picture pictures[MOST];
static size_t count;

/* Without a resources folder, and one that is not there will do, it writes a warning to stdout. */
static void prepare(real_run *run, const picture *picture) {
  const char *argv[] = {"resvg", "--resources-dir=.", "-z", "4", "-", "-c"};
  memset(run, 0, sizeof *run);
  memcpy(run->argv, argv, sizeof argv);
  real_append(&run->in, picture->svg.data, picture->svg.size);
}

static void read_pictures(const char *folder) {
  DIR *dir = opendir(folder);
  if (dir == NULL)
    t_fail(__FILE__, __LINE__, "cannot read %s", folder);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    size_t length = strlen(entry->d_name);
    if (length < 5 || strcmp(entry->d_name + length - 4, ".svg") != 0)
      continue;
    CHECK(count < MOST);
    picture *picture = &pictures[count++];
    strcpy(picture->name, entry->d_name);
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    picture->svg = real_file(path);
  }
  closedir(dir);
  CHECK(count >= 2);
}

/* A picture, and the one that was made alone. */
static bool right(const real_run *run, const real_run *alone) {
  return real_succeeded(run) && run->out.size > 1000 &&
         memcmp(run->out.data, "\x89PNG\r\n\x1a\n", 8) == 0 && real_equal(&run->out, &alone->out);
}

static void render_alone(void) {
  CASE("alone");
  wasm_engine_t *plain = wasm_engine_new();
  real_guest resvg;
  real_load_plain(&resvg, plain, "resvg.wasm");
  for (size_t i = 0; i < count; i++) {
    real_run *alone = &pictures[i].alone;
    prepare(alone, &pictures[i]);
    real_alone(&resvg, alone);
    if (!right(alone, alone))
      t_fail(__FILE__, __LINE__, "%s: no picture: %s %.*s", pictures[i].name, alone->reason,
             (int)alone->err.size, (const char *)alone->err.data);
    for (size_t j = 0; j < i; j++) /* pictures that are all the same would prove nothing */
      CHECK(!real_equal(&alone->out, &pictures[j].alone.out));
  }
  real_unload(&resvg);
  wasm_engine_delete(plain);
}

static void control(bop_runtime_t *runtime) {
  CASE("control");
  real_guest empty;
  real_load_text(&empty, runtime, REAL_EMPTY);
  real_run run;
  prepare(&run, &pictures[0]);
  real_fiber(runtime, &empty, &run);
  CHECK_EQ(run.outcome, BOP_OUTCOME_RETURNED);
  CHECK(!right(&run, &pictures[0].alone));
  CHECK(!right(&run, &run));
  CHECK(!right(&pictures[1].alone, &pictures[0].alone));
  real_delete(&run);
  real_unload(&empty);
}

int main(int argc, char **argv) {
  real_start("real resvg", argc, argv);
  read_pictures(real_argument());
  render_alone();
  bop_runtime_t *runtime = real_runtime();
  control(runtime);

  CASE("fibers");
  real_guest resvg;
  real_load(&resvg, runtime, "resvg.wasm");
  for (int n = 0; n < AT_ONCE; n++)
    for (size_t i = 0; i < count; i++) {
      prepare(&pictures[i].fibers[n], &pictures[i]);
      real_spawn(runtime, &resvg, &pictures[i].fibers[n]);
    }
  for (size_t i = 0; i < count; i++) {
    for (int n = 0; n < AT_ONCE; n++) {
      real_run *run = &pictures[i].fibers[n];
      real_join(run);
      if (!right(run, &pictures[i].alone))
        t_fail(__FILE__, __LINE__, "%s: %s %s, %zu bytes: %.*s", pictures[i].name,
               bop_outcome_name(run->outcome), run->reason, run->out.size, (int)run->err.size,
               (const char *)run->err.data);
      real_delete(run);
    }
    real_delete(&pictures[i].alone);
    real_free(&pictures[i].svg);
  }
  real_check_preempted(runtime, 200);
  OK(bop_runtime_delete(runtime));
  real_unload(&resvg);
  return 0;
}
