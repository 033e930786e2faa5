/* Three C libraries, as their authors have written them, at work on documents made from a seed:
 * yyjson builds and writes one, LZ4 compresses and restores it, yyjson parses what was restored and
 * writes it again, and xxHash sums up everything that is in memory on the way.
 *
 * There is a good deal on the stack: LZ4 keeps its hash table there (16 KiB), xxHash its state
 * (aligned to 64 bytes), libc's printf its numbers, yyjson's reader 17 KiB at -O0.
 *
 * What is not on a stack may not be shared either. Wasi-libc's malloc is made for one thread, and a
 * fiber can be preempted in the middle of it. So no job calls it: each works in an arena of its own,
 * a static one, and yyjson gets a pool in there. */
#include "c_libs.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include <lz4.h>
#include <xxhash.h>
#include <yyjson.h>

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(name)))
#else
#define EXPORT(name)
#endif

/* Texts stay below 64 KiB: for those LZ4 makes the same bytes on machines of 32 and of 64 bits. */
enum { ARENAS = 1000, TEXT = 8 << 10, POOL = 64 << 10, RECORDS = 24 };

typedef struct arena {
  char text[TEXT];     /* as written */
  char restored[TEXT]; /* after LZ4 */
  char packed[LZ4_COMPRESSBOUND(TEXT)];
  _Alignas(16) char pool[POOL]; /* where yyjson allocates, anew for each document */
} arena;

static arena arenas[ARENAS];

/* What is wrong is told by the place that saw it. */
#define MUST(condition)  \
  do {                   \
    if (!(condition))    \
      return __LINE__;   \
  } while (0)

static uint64_t next(uint64_t *seed) { /* splitmix64 */
  uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint32_t below(uint64_t *seed, uint32_t limit) {
  return (uint32_t)(next(seed) >> 32) % limit;
}

/* ---- a document ---- */

/* Words from a short list, so that there is something to compress; some need escapes, some UTF-8. */
static yyjson_mut_val *words(yyjson_mut_doc *doc, uint64_t *seed) {
  static const char *const list[] = {"fiber", "stack",  "linear memory", "\"quoted\"", "tab\there",
                                     "quantum", "gr\xc3\xbc\xc3\x9f" "e", "\xe2\x82\xac", "a\\b", "epoch"};
  char text[160];
  size_t used = 0;
  for (uint32_t n = 1 + below(seed, 5); n != 0; n--) {
    const char *word = list[below(seed, sizeof list / sizeof list[0])];
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%s-%03x", used == 0 ? "" : " ", word,
                             below(seed, 4096));
  }
  return yyjson_mut_strncpy(doc, text, used);
}

static yyjson_mut_val *value(yyjson_mut_doc *doc, uint64_t *seed, int depth) {
  yyjson_mut_val *out;
  switch (below(seed, depth < 3 ? 8 : 6)) {
  case 0: return yyjson_mut_uint(doc, next(seed));
  case 1: return yyjson_mut_sint(doc, -(int64_t)below(seed, 100000));
  case 2: return yyjson_mut_real(doc, (double)(int64_t)next(seed) / 1048576.0);
  case 3: return below(seed, 2) ? yyjson_mut_bool(doc, true) : yyjson_mut_null(doc);
  case 4:
  case 5: return words(doc, seed);
  case 6:
    out = yyjson_mut_arr(doc);
    for (uint32_t n = below(seed, 4); n != 0; n--)
      yyjson_mut_arr_append(out, value(doc, seed, depth + 1));
    return out;
  default:
    out = yyjson_mut_obj(doc);
    for (uint32_t n = below(seed, 4); n != 0; n--) {
      yyjson_mut_val *key = words(doc, seed);
      yyjson_mut_obj_add(out, key, value(doc, seed, depth + 1));
    }
    return out;
  }
}

/* Written into arena->text. Returns 0 or a line. */
static int compose(arena *arena, uint64_t *seed, size_t *size) {
  yyjson_alc alc;
  MUST(yyjson_alc_pool_init(&alc, arena->pool, sizeof arena->pool));
  yyjson_mut_doc *doc = yyjson_mut_doc_new(&alc);
  MUST(doc != NULL);
  yyjson_mut_val *root = yyjson_mut_arr(doc);
  yyjson_mut_doc_set_root(doc, root);
  for (int i = 0; i < RECORDS; i++) {
    yyjson_mut_val *record = yyjson_mut_obj(doc);
    MUST(yyjson_mut_obj_add_uint(doc, record, "id", next(seed)));
    MUST(yyjson_mut_obj_add_val(doc, record, "name", words(doc, seed)));
    MUST(yyjson_mut_obj_add_real(doc, record, "score", (double)(int64_t)next(seed) / 1048576.0));
    MUST(yyjson_mut_obj_add_val(doc, record, "more", value(doc, seed, 0)));
    MUST(yyjson_mut_arr_append(root, record));
  }
  char *text = yyjson_mut_write_opts(doc, YYJSON_WRITE_NOFLAG, &alc, size, NULL);
  MUST(text != NULL && *size <= sizeof arena->text);
  memcpy(arena->text, text, *size);
  return 0;
}

/* ---- and all that is done with it ---- */

/* Adds up a parsed document, branch by branch: each has a state of its own, on the stack. */
static uint64_t sum(yyjson_val *value) {
  XXH3_state_t state;
  char number[40];
  size_t index, count;
  yyjson_val *key, *item;
  XXH3_64bits_reset(&state);
  yyjson_type type = yyjson_get_type(value);
  XXH3_64bits_update(&state, &type, sizeof type);
  switch (type) {
  case YYJSON_TYPE_ARR:
    yyjson_arr_foreach(value, index, count, item) {
      uint64_t branch = sum(item);
      XXH3_64bits_update(&state, &branch, sizeof branch);
    }
    break;
  case YYJSON_TYPE_OBJ:
    yyjson_obj_foreach(value, index, count, key, item) {
      uint64_t branch = sum(item);
      XXH3_64bits_update(&state, yyjson_get_str(key), yyjson_get_len(key));
      XXH3_64bits_update(&state, &branch, sizeof branch);
    }
    break;
  case YYJSON_TYPE_STR:
    XXH3_64bits_update(&state, yyjson_get_str(value), yyjson_get_len(value));
    break;
  case YYJSON_TYPE_NUM:
    if (yyjson_is_real(value))
      snprintf(number, sizeof number, "%.17g", yyjson_get_real(value));
    else
      snprintf(number, sizeof number, "%llu", (unsigned long long)yyjson_get_uint(value));
    XXH3_64bits_update(&state, number, strlen(number));
    break;
  default:
    XXH3_64bits_update(&state, yyjson_get_bool(value) ? "t" : "f", 1);
  }
  return XXH3_64bits_digest(&state);
}

/* Returns 0 or a line. */
static int play(arena *arena, uint64_t *seed, XXH64_state_t *out) {
  size_t size, again;
  int line = compose(arena, seed, &size);
  MUST(line == 0);
  XXH64_update(out, arena->text, size);

  int packed = LZ4_compress_default(arena->text, arena->packed, (int)size, sizeof arena->packed);
  MUST(packed > 0 && (size_t)packed < size);
  XXH64_update(out, arena->packed, (size_t)packed);
  memset(arena->restored, 0, sizeof arena->restored);
  MUST(LZ4_decompress_safe(arena->packed, arena->restored, packed, sizeof arena->restored) == (int)size);
  MUST(memcmp(arena->restored, arena->text, size) == 0);
  MUST(XXH32(arena->restored, size, 7) == XXH32(arena->text, size, 7));

  yyjson_alc alc;
  MUST(yyjson_alc_pool_init(&alc, arena->pool, sizeof arena->pool));
  yyjson_doc *doc = yyjson_read_opts(arena->restored, size, YYJSON_READ_NOFLAG, &alc, NULL);
  MUST(doc != NULL);
  uint64_t total = sum(yyjson_doc_get_root(doc));
  XXH64_update(out, &total, sizeof total);
  char *text = yyjson_write_opts(doc, YYJSON_WRITE_NOFLAG, &alc, &again, NULL);
  MUST(text != NULL && again == size && memcmp(text, arena->text, size) == 0);
  return 0;
}

EXPORT("arenas") uint32_t c_libs_arenas(void) { return ARENAS; }

EXPORT("job") uint64_t c_libs_job(uint32_t id, uint32_t rounds) {
  XXH64_state_t out;
  uint64_t seed = id;
  XXH64_reset(&out, id);
  for (uint32_t i = 0; i < rounds; i++) {
    int line = play(&arenas[id % ARENAS], &seed, &out);
    if (line != 0)
      return (uint64_t)line;
  }
  return XXH64_digest(&out);
}
