#include "script.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Long enough for the others to get through many times over, short enough to wait for. */
#define SPIN_LIMIT (SECOND + SECOND / 2)

void scripts_read(struct scripts *scripts, const char *folder) {
  for (size_t kind = 0; kind < KINDS; kind++) {
    scripts->text[kind] = NULL;
    if (kind == KIND_PICTURE)
      continue;
    char *path = format("%s/%s.js", folder, KIND_NAMES[kind]);
    struct bytes bytes = {0};
    if (!file_read(path, &bytes))
      fail("cannot read %s: %s", path, strerror(errno));
    bytes_append(&bytes, "", 1);
    scripts->text[kind] = (char *)bytes.data;
    free(path);
  }
}

void scripts_free(struct scripts *scripts) {
  for (size_t kind = 0; kind < KINDS; kind++)
    free(scripts->text[kind]);
}

/* ---- what the scripts compute, again ---- */

static uint32_t next(uint32_t x) { return x * UINT32_C(1664525) + UINT32_C(1013904223); }

static char *fib(unsigned seed) {
  unsigned a = 0, b = 1;
  for (unsigned n = 16 + seed % 10; n > 0; n--) {
    unsigned sum = a + b;
    a = b;
    b = sum;
  }
  return format("%u\n", a);
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static char *sort(unsigned seed) {
  static uint32_t numbers[6000];
  uint32_t x = seed, hash = UINT32_C(0x811c9dc5);
  for (size_t i = 0; i < LENGTH(numbers); i++)
    numbers[i] = x = next(x);
  qsort(numbers, LENGTH(numbers), sizeof numbers[0], by_value);
  for (size_t i = 0; i < LENGTH(numbers); i++)
    hash = (hash ^ numbers[i]) * UINT32_C(0x01000193);
  return format("%" PRIu32 " %" PRIu32 " %" PRIu32 "\n", hash, numbers[0],
                numbers[LENGTH(numbers) - 1]);
}

struct word {
  char text[4];
  int count;
};

static int by_count(const void *a, const void *b) {
  const struct word *x = a, *y = b;
  return x->count != y->count ? y->count - x->count : strcmp(x->text, y->text);
}

static char *text(unsigned seed) {
  static const char LETTERS[] = "XBCD";
  struct word words[64] = {0};
  uint32_t x = seed;
  for (int i = 0; i < 4000; i++) {
    char word[4] = {0};
    unsigned at = 0;
    for (int j = 0; j < 3; j++) {
      x = next(x);
      at = at * 4 + (x >> 30);
      word[j] = LETTERS[x >> 30];
    }
    memcpy(words[at].text, word, sizeof word);
    words[at].count++;
  }
  qsort(words, LENGTH(words), sizeof words[0], by_count);
  struct word *w = words;
  return format("%s:%d %s:%d %s:%d %s:%d %s:%d\n", w[0].text, w[0].count, w[1].text, w[1].count,
                w[2].text, w[2].count, w[3].text, w[3].count, w[4].text, w[4].count);
}

static char *factorial(unsigned seed) {
  unsigned n = 400 + seed * 7 % 800;
  uint64_t a = 1, b = 1;
  for (uint64_t i = 2; i <= n; i++) {
    a = a * i % 1000003;
    b = b * i % 998244353;
  }
  return format("%u %" PRIu64 " %" PRIu64 "\n", n, a, b);
}

/* ---- jobs ---- */

/* The engine looks at its options up to the script; what follows is for the script. `std` is the
 * module that has exit. */
static void prepare(struct job *job, const struct guest *quickjs, const struct scripts *scripts,
                    enum kind kind, unsigned seed) {
  *job = (struct job){.kind = kind, .guest = quickjs};
  snprintf(job->name, sizeof job->name, "%s-%u", KIND_NAMES[kind], seed);
  snprintf(job->seed, sizeof job->seed, "%u", seed);
  const char *argv[] = {"qjs", "--std", "-e", scripts->text[kind], job->seed};
  memcpy(job->argv, argv, sizeof argv);
  job->argc = LENGTH(argv);
}

static void expect(struct job *job, bop_outcome_t outcome, char *own_text) {
  job->expected = outcome;
  bytes_append(&job->expected_out, own_text, strlen(own_text));
  free(own_text);
}

void script_job(struct job *job, const struct guest *quickjs, const struct scripts *scripts,
                size_t n) {
  static const enum kind ORDER[] = {KIND_FIB,  KIND_SORT, KIND_TEXT, KIND_FACTORIAL,
                                    KIND_SORT, KIND_TEXT, KIND_FIB,  KIND_FACTORIAL};
  unsigned seed = (unsigned)n;
  /* One in ten ends in a way of its own, and must not take others along. */
  enum kind kind = n % 20 == 9    ? KIND_EXIT
                   : n % 20 == 19 ? KIND_OVERFLOW
                                  : ORDER[n % LENGTH(ORDER)];
  prepare(job, quickjs, scripts, kind, seed);
  switch (kind) {
  case KIND_FIB: expect(job, BOP_OUTCOME_RETURNED, fib(seed)); break;
  case KIND_SORT: expect(job, BOP_OUTCOME_RETURNED, sort(seed)); break;
  case KIND_TEXT: expect(job, BOP_OUTCOME_RETURNED, text(seed)); break;
  case KIND_FACTORIAL: expect(job, BOP_OUTCOME_RETURNED, factorial(seed)); break;
  case KIND_EXIT:
    expect(job, BOP_OUTCOME_EXITED, format("leaving\n"));
    job->expected_code = 10 + (int32_t)(seed % 90);
    break;
  default: expect(job, BOP_OUTCOME_TRAPPED, format("down\n")); break;
  }
}

void spin_job(struct job *job, const struct guest *quickjs, const struct scripts *scripts,
              size_t n) {
  prepare(job, quickjs, scripts, KIND_SPIN, (unsigned)n);
  job->expected = BOP_OUTCOME_CANCELLED;
  job->limit_ns = SPIN_LIMIT;
}
