/* What the run is doing, on stdout: on a terminal one line that is drawn again and again, elsewhere
 * a line now and then. */
#ifndef BOP_RUN_PROGRESS_H
#define BOP_RUN_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
  bool terminal;
  uint64_t started_ns;
  uint64_t drawn_ns;    /* when a line was last put out */
  size_t shown;         /* how many were done in it */
  bool open;            /* the cursor stands behind a line that may be drawn over */
};

void progress_start(struct progress *progress, uint64_t now_ns);
/* A line of its own, kept. */
void progress_say(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* So many of all are done; the note is put behind the bar. Draws only if enough time has gone by,
 * or if all are done. */
void progress_show(struct progress *progress, uint64_t now_ns, size_t done, size_t all,
                   const char *note);
/* Leaves the drawn line where it is. */
void progress_end(struct progress *progress);

#endif
