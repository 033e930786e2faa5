/* Tables whose columns are as wide as what is in them. */
#ifndef BOP_RUN_TABLE_H
#define BOP_RUN_TABLE_H

#include <stddef.h>

#define TABLE_COLUMNS 12

struct table {
  size_t columns, cells; /* cells are kept row by row; the head is the first row */
  char **cell;
};

/* Heads are separated by '|'. The first column is aligned left, the others right. */
void table_start(struct table *table, const char *heads);
/* The next cell, from left to right and from top to bottom. */
void table_cell(struct table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A length of time. */
void table_time(struct table *table, unsigned long long nanoseconds);
/* Prints the table to stdout and frees it. */
void table_end(struct table *table);

#endif
