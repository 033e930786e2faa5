#include "picture.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Enlarged, so that a picture is some work. */
static const char *const ARGV[] = {"resvg", "-z", "6", "in.svg", "out.png"};

static int is_svg(const struct dirent *entry) {
  size_t length = strlen(entry->d_name);
  return length > 4 && length < 32 && strcmp(entry->d_name + length - 4, ".svg") == 0;
}

/* A folder that has in.svg and no out.png. */
static char *folder_for(const char *out, const char *stage, const char *name,
                        const struct bytes *svg) {
  char *folder = format("%s/%s/%s", out, stage, name);
  folder_make(folder);
  char *input = format("%s/in.svg", folder), *output = format("%s/out.png", folder);
  if (!file_write(input, svg->data, svg->size))
    fail("cannot write %s: %s", input, strerror(errno));
  if (unlink(output) != 0 && errno != ENOENT)
    fail("cannot remove %s: %s", output, strerror(errno));
  free(input);
  free(output);
  return folder;
}

static bool is_png(const struct bytes *bytes) {
  return bytes->size > 1000 && memcmp(bytes->data, "\x89PNG\r\n\x1a\n", 8) == 0;
}

/* Renders a picture without BOP, and keeps what came out as what must come out. */
static void render_alone(struct job *job, wasm_engine_t *plain, const struct guest *alone,
                         const char *folder) {
  struct bytes out = {0}, err = {0};
  struct program program = {
      .argv = ARGV, .argc = LENGTH(ARGV), .folder = folder, .out = &out, .err = &err};
  char *problem = guest_run_alone(alone, plain, &program);
  char *path = format("%s/out.png", folder);
  if (problem != NULL)
    fail("%s, alone on Wasmtime: %s\n%.*s", job->name, problem, (int)err.size,
         err.size ? (const char *)err.data : "");
  if (!file_read(path, &job->expected_picture) || !is_png(&job->expected_picture))
    fail("%s, alone on Wasmtime, made no picture %s", job->name, path);
  free(path);
  bytes_free(&out);
  bytes_free(&err);
}

static void prepare(struct job *job, wasm_engine_t *plain, const struct guest *alone,
                    const char *source, const char *file, const char *out) {
  *job = (struct job){.kind = KIND_PICTURE, .expected = BOP_OUTCOME_RETURNED};
  char *path = format("%s/%s", source, file);
  struct bytes svg = {0};
  if (!file_read(path, &svg))
    fail("cannot read %s: %s", path, strerror(errno));
  char name[32];
  snprintf(name, sizeof name, "%.*s", (int)strlen(file) - 4, file);
  snprintf(job->name, sizeof job->name, "picture-%s", name);
  memcpy(job->argv, ARGV, sizeof ARGV);
  job->argc = LENGTH(ARGV);
  char *folder = folder_for(out, "alone", name, &svg);
  render_alone(job, plain, alone, folder);
  free(folder);
  job->folder = folder_for(out, "pictures", name, &svg);
  bytes_free(&svg);
  free(path);
}

void pictures_prepare(struct pictures *pictures, wasm_engine_t *plain, const struct guest *alone,
                      const char *svg, const char *out) {
  struct dirent **entries;
  int count = scandir(svg, &entries, is_svg, alphasort);
  if (count < 0)
    fail("cannot read the folder %s: %s", svg, strerror(errno));
  if (count == 0)
    fail("%s has no pictures", svg);
  pictures->count = (size_t)count;
  pictures->jobs = calloc(pictures->count, sizeof *pictures->jobs);
  if (pictures->jobs == NULL)
    fail("out of memory");
  for (size_t i = 0; i < pictures->count; i++) {
    prepare(&pictures->jobs[i], plain, alone, svg, entries[i]->d_name, out);
    /* Comparing would prove little if all pictures were the same. */
    for (size_t j = 0; j < i; j++)
      if (bytes_equal(&pictures->jobs[i].expected_picture, &pictures->jobs[j].expected_picture))
        fail("%s and %s are the same picture", entries[i]->d_name, entries[j]->d_name);
  }
  for (size_t i = 0; i < pictures->count; i++)
    free(entries[i]);
  free(entries);
}

char *picture_compare(struct job *job) {
  char *path = format("%s/out.png", job->folder), *problem = NULL;
  struct bytes picture = {0};
  if (!file_read(path, &picture))
    problem = format("no picture %s: %s", path, strerror(errno));
  else if (!bytes_equal(&picture, &job->expected_picture))
    problem = format("%s differs from the picture rendered alone", path);
  bytes_free(&picture);
  free(path);
  return problem;
}
