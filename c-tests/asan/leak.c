/* Forgets allocations: AddressSanitizer must say so at the end of this program. */
#include <stdlib.h>

static void *volatile kept;

int main(void) {
  /* Several: the address of the last may still be in a register or on the stack. */
  for (int i = 0; i < 16; i++)
    kept = malloc(100);
  kept = NULL;
  return 0;
}
