/* Writes behind an allocation of Wasmtime's making: AddressSanitizer must end this program. */
#include <bop.h>
#include <stdio.h>

int main(void) {
  wasm_byte_vec_t bytes;
  wasm_byte_vec_new_uninitialized(&bytes, 16);
  volatile size_t behind = bytes.size;
  bytes.data[behind] = 1;
  puts("nothing was found");
  return 0;
}
