/* Failing with a message, byte buffers, files, numbers as text. Knows nothing of Wasm.
 *
 * Comes before any other header: it asks for declarations that strict C11 hides. */
#ifndef BOP_RUN_UTIL_H
#define BOP_RUN_UTIL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECOND UINT64_C(1000000000) /* nanoseconds */
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Says why the program can't go on, and ends it with status 2. For set-up only: a fiber that goes
 * wrong is a result, and is reported with the others. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* printf into memory that the caller frees. */
char *format(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct bytes {
  uint8_t *data;
  size_t size, capacity;
};

void bytes_append(struct bytes *bytes, const void *data, size_t size);
void bytes_free(struct bytes *bytes);
bool bytes_equal(const struct bytes *a, const struct bytes *b);
/* The 64-bit FNV-1a hash: tells versions of a file apart, guards against nothing. */
uint64_t bytes_hash(const struct bytes *bytes);

/* Both set errno when they return false. The buffer is filled anew. */
bool file_read(const char *path, struct bytes *out);
/* Readers see the old file or the whole new one. */
bool file_write(const char *path, const void *data, size_t size);
/* Makes the folder and those above it; ends the program when that fails. */
void folder_make(const char *path);

/* "840 us", "12.3 ms", "1.20 s", in memory that the caller frees. */
char *duration(uint64_t nanoseconds);

#endif
