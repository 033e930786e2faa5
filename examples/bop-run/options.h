/* The command line. */
#ifndef BOP_RUN_OPTIONS_H
#define BOP_RUN_OPTIONS_H

#include <stddef.h>

struct options {
  size_t workers;    /* OS threads that run fibers */
  size_t fibers;     /* scripts that come to an end */
  size_t spinners;   /* scripts that never do */
  size_t quantum_us; /* the length of a turn when others wait */
  const char *inputs, *out;
};

/* Ends the program with a message if something is wrong with the arguments, or after --help. */
struct options options_parse(int argc, char **argv);

#endif
