#include "table.h"

#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct table *table, char *own) {
  char **moved = realloc(table->cell, (table->cells + 1) * sizeof *moved);
  if (moved == NULL)
    fail("out of memory");
  table->cell = moved;
  table->cell[table->cells++] = own;
}

void table_start(struct table *table, const char *heads) {
  *table = (struct table){0};
  for (;;) {
    size_t length = strcspn(heads, "|");
    put(table, format("%.*s", (int)length, heads));
    table->columns++;
    if (heads[length] == '\0')
      break;
    heads += length + 1;
  }
  if (table->columns > TABLE_COLUMNS)
    fail("a table with %zu columns", table->columns);
}

void table_cell(struct table *table, const char *pattern, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, pattern);
  if (vasprintf(&text, pattern, arguments) < 0)
    fail("out of memory");
  va_end(arguments);
  put(table, text);
}

void table_time(struct table *table, unsigned long long nanoseconds) {
  put(table, duration(nanoseconds));
}

void table_end(struct table *table) {
  size_t width[TABLE_COLUMNS] = {0};
  for (size_t i = 0; i < table->cells; i++) {
    size_t length = strlen(table->cell[i]), column = i % table->columns;
    if (width[column] < length)
      width[column] = length;
  }
  for (size_t i = 0; i < table->cells; i++) {
    size_t column = i % table->columns;
    bool last = column + 1 == table->columns;
    printf("  %*s%s", column == 0 ? -(int)width[0] : (int)width[column], table->cell[i],
           last ? "\n" : "");
    if (last && i < table->columns) /* a rule below the head */
      for (size_t c = 0; c < table->columns; c++) {
        printf("  ");
        for (size_t n = 0; n < width[c]; n++)
          putchar('-');
        if (c + 1 == table->columns)
          putchar('\n');
      }
    free(table->cell[i]);
  }
  putchar('\n');
  free(table->cell);
  *table = (struct table){0};
}
