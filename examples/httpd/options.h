/* The command line. */
#ifndef HTTPD_OPTIONS_H
#define HTTPD_OPTIONS_H

#include "server.h"

struct options {
  struct server_options server;
  struct limits limits;
  size_t workers;      /* OS threads that run fibers */
  uint64_t quantum_ns; /* the length of a turn when others wait */
  uint64_t grace_ns;   /* how long requests may go on when the server is told to end */
  bool preemption;
  const char *guest, *quickjs; /* the modules; no quickjs: NULL */
};

/* Ends the program with a message if something is wrong with the arguments, or after --help. */
struct options options_parse(int argc, char **argv);

#endif
