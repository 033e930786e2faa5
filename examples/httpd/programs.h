/* The modules that guests are instances of. */
#ifndef HTTPD_PROGRAMS_H
#define HTTPD_PROGRAMS_H

#include <bop.h>

enum program {
  PROGRAM_GUEST,   /* guest.c */
  PROGRAM_LARGE,   /* has all the memory that there can be, from the start */
  PROGRAM_QUICKJS, /* a JavaScript engine, as its authors compiled it */
  PROGRAMS
};

/* A module with its imports resolved. */
struct module {
  wasmtime_module_t *module;
  wasmtime_instance_pre_t *pre; /* NULL: there is no such program */
};

/* Options of an engine that has up to so many guests at a time. */
wasm_config_t *programs_engine_config(size_t guests, uint32_t table_limit);
/* Compiles what is to be had from files; `quickjs` may be NULL. False: it can't be done, and was said on stderr. */
bool programs_load(struct module modules[PROGRAMS], wasm_engine_t *engine, const char *guest, const char *quickjs);
void programs_delete(struct module modules[PROGRAMS]);

#endif
