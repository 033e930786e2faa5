#include "progress.h"

#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Fast enough to look alive, slow enough to cost nothing; in a log, a line each second. */
static uint64_t interval(const struct progress *progress) {
  return progress->terminal ? SECOND / 20 : SECOND;
}

void progress_start(struct progress *progress, uint64_t now_ns) {
  const char *kind = getenv("TERM");
  *progress = (struct progress){
      .terminal = isatty(STDOUT_FILENO) && kind != NULL && strcmp(kind, "dumb") != 0,
      .started_ns = now_ns,
  };
}

static void clear(struct progress *progress) {
  if (progress->open)
    fputs("\r\033[K", stdout);
  progress->open = false;
}

void progress_say(struct progress *progress, const char *pattern, ...) {
  clear(progress);
  va_list arguments;
  va_start(arguments, pattern);
  vprintf(pattern, arguments);
  va_end(arguments);
  putchar('\n');
  fflush(stdout);
}

static size_t columns(void) {
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return 80;
}

void progress_show(struct progress *progress, uint64_t now_ns, size_t done, size_t all,
                   const char *note) {
  bool due = now_ns - progress->drawn_ns >= interval(progress);
  bool last = done == all && progress->shown != all && progress->open;
  if (!due && !last)
    return;
  progress->drawn_ns = now_ns;
  progress->shown = done;
  double seconds = (double)(now_ns - progress->started_ns) / 1e9;
  char *text = format("%zu of %zu  %.1f s  %s", done, all, seconds, note);
  if (!progress->terminal) {
    printf("  %s\n", text);
  } else {
    /* The bar gets what the text leaves of the line, and no line is ever full: some terminals
     * would wrap it. */
    size_t width = columns(), length = strlen(text);
    size_t bar = width > length + 6 ? width - length - 6 : 0;
    if (bar > 40)
      bar = 40;
    size_t filled = all == 0 ? bar : bar * done / all;
    fputs("\r  ", stdout);
    if (bar >= 5) {
      putchar('[');
      for (size_t i = 0; i < bar; i++)
        putchar(i < filled ? '#' : '.');
      fputs("] ", stdout);
    }
    printf("%.*s\033[K", (int)(width > 3 ? width - 3 : 1), text);
    progress->open = true;
  }
  fflush(stdout);
  free(text);
}

void progress_end(struct progress *progress) {
  if (progress->open)
    putchar('\n');
  progress->open = false;
  fflush(stdout);
}
