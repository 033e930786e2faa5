#include "options.h"

#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char HELP[] =
    "Usage: bop-run [OPTION]...\n"
    "Runs real WASI programs as fibers: QuickJS scripts, some of which never end, and resvg, that\n"
    "renders a folder of SVG files. Checks all that they produce.\n"
    "\n"
    "  --workers N      OS threads that run fibers (one for each core)\n"
    "  --fibers N       scripts that come to an end (400)\n"
    "  --spinners N     scripts that never end, and are cancelled at their deadline (8)\n"
    "  --quantum-us N   the time slice, from 50 up (1000)\n"
    "  --inputs DIR     where tools/fetch.py has put the programs (build/inputs)\n"
    "  --out DIR        for pictures and compiled modules (build/run)\n"
    "  --help           this text\n"
    "\n"
    "Exit status: 0 if every fiber ended as it must with the output it must have, 1 if not,\n"
    "2 if the run could not be set up.\n";

static _Noreturn void reject(const char *problem, const char *option, const char *value) {
  fail("%s: %s%s%s\nTry bop-run --help.", option, problem, value ? ": " : "", value ? value : "");
}

/* The limits catch slips of the finger. So many fibers have been run at once; a few times as many
 * could not all have their 4 GiB of addresses. */
static size_t number(const char *option, const char *text, size_t least, size_t most) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  /* strtoull takes blanks and signs. */
  if (text[0] < '0' || text[0] > '9' || *end != '\0')
    reject("not a whole number", option, text);
  if (errno == ERANGE || value < least || value > most) {
    char *problem = format("must be from %zu to %zu, not", least, most);
    reject(problem, option, text);
  }
  return (size_t)value;
}

struct options options_parse(int argc, char **argv) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  struct options options = {
      .workers = cores > 0 ? (size_t)cores : 1,
      .fibers = 400,
      .spinners = 8,
      .quantum_us = 1000,
      .inputs = "build/inputs",
      .out = "build/run",
  };
  struct {
    const char *name;
    size_t *number, least, most;
    const char **text;
  } known[] = {
      {"--workers", &options.workers, 1, 1024, NULL},
      {"--fibers", &options.fibers, 0, 20000, NULL},
      {"--spinners", &options.spinners, 0, 1000, NULL},
      {"--quantum-us", &options.quantum_us, 50, 1000000, NULL},
      {"--inputs", NULL, 0, 0, &options.inputs},
      {"--out", NULL, 0, 0, &options.out},
  };
  for (int i = 1; i < argc; i++) {
    char *name = argv[i], *value = NULL;
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
      fputs(HELP, stdout);
      exit(0);
    }
    char *equals = strchr(name, '=');
    if (equals != NULL) {
      *equals = '\0';
      value = equals + 1;
    }
    size_t at = 0;
    while (at < LENGTH(known) && strcmp(known[at].name, name) != 0)
      at++;
    if (at == LENGTH(known))
      reject("no such option", name, NULL);
    if (value == NULL && ++i == argc)
      reject("a value is missing", name, NULL);
    if (value == NULL)
      value = argv[i];
    if (known[at].number != NULL)
      *known[at].number = number(name, value, known[at].least, known[at].most);
    else if (*value == '\0')
      reject("an empty name", name, NULL);
    else
      *known[at].text = value;
  }
  return options;
}
