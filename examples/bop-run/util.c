#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void fail(const char *message, ...) {
  va_list arguments;
  va_start(arguments, message);
  fflush(stdout);
  fputs("bop-run: ", stderr);
  vfprintf(stderr, message, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  fflush(stderr);
  _exit(2); /* not exit: workers may be running, and would lose what they stand on */
}

char *format(const char *pattern, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, pattern);
  if (vasprintf(&text, pattern, arguments) < 0)
    fail("out of memory");
  va_end(arguments);
  return text;
}

void bytes_append(struct bytes *bytes, const void *data, size_t size) {
  if (size > bytes->capacity - bytes->size) {
    size_t capacity = (bytes->size + size) * 2;
    uint8_t *moved = realloc(bytes->data, capacity);
    if (moved == NULL)
      fail("out of memory");
    bytes->data = moved;
    bytes->capacity = capacity;
  }
  if (size != 0)
    memcpy(bytes->data + bytes->size, data, size);
  bytes->size += size;
}

void bytes_free(struct bytes *bytes) {
  free(bytes->data);
  *bytes = (struct bytes){0};
}

bool bytes_equal(const struct bytes *a, const struct bytes *b) {
  return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

uint64_t bytes_hash(const struct bytes *bytes) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < bytes->size; i++)
    hash = (hash ^ bytes->data[i]) * UINT64_C(0x100000001b3);
  return hash;
}

bool file_read(const char *path, struct bytes *out) {
  out->size = 0;
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    return false;
  uint8_t block[65536];
  size_t got;
  errno = 0;
  while ((got = fread(block, 1, sizeof block, file)) != 0)
    bytes_append(out, block, got);
  bool good = !ferror(file); /* opening a folder works, reading it does not */
  int error = errno;
  fclose(file);
  errno = error;
  return good;
}

bool file_write(const char *path, const void *data, size_t size) {
  char *part = format("%s.%ld.part", path, (long)getpid());
  FILE *file = fopen(part, "wb");
  bool good = file != NULL;
  if (good) {
    good = fwrite(data, 1, size, file) == size;
    good = fclose(file) == 0 && good;
    good = good && rename(part, path) == 0;
    if (!good) {
      int error = errno;
      unlink(part);
      errno = error;
    }
  }
  free(part);
  return good;
}

void folder_make(const char *path) {
  char *copy = format("%s", path);
  for (char *at = copy + 1; at[-1] != '\0'; at++) {
    if (*at != '/' && *at != '\0')
      continue;
    char kept = *at;
    *at = '\0';
    if (mkdir(copy, 0777) != 0 && errno != EEXIST)
      fail("cannot make the folder %s: %s", copy, strerror(errno));
    *at = kept;
  }
  struct stat status;
  if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
    fail("%s is not a folder", path);
  free(copy);
}

char *duration(uint64_t nanoseconds) {
  double value = (double)nanoseconds;
  if (nanoseconds < 1000000)
    return format("%.0f us", value / 1e3);
  if (nanoseconds < SECOND)
    return format("%.1f ms", value / 1e6);
  return format("%.2f s", value / 1e9);
}
