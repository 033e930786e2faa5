# The test programs under AddressSanitizer. The library itself is not instrumented, but its calls of
# malloc, free, memcpy and their like are checked as well.

add_compile_options(-fsanitize=address)
add_link_options(-fsanitize=address)

# An exception that crosses frames on a fiber's stack, which the sanitizer takes for no stack at
# all, leaves those frames marked as out of bounds. So in C++ the heap and the globals are checked,
# and no stack.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:--param=asan-stack=0>")
else()
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-mllvm -asan-stack=0>")
endif()

# A leak is found by stopping the process as a debugger does, which some containers forbid; and then
# every program would fail. Ask once, with a program that does leak.
if(NOT DEFINED BOP_LEAKS_ARE_FOUND)
  try_run(leak_status leak_compiles
    "${CMAKE_CURRENT_BINARY_DIR}/leak-probe" "${CMAKE_CURRENT_SOURCE_DIR}/asan/leak.c"
    COMPILE_DEFINITIONS -fsanitize=address
    LINK_OPTIONS -fsanitize=address
    COMPILE_OUTPUT_VARIABLE leak_compiler_output
    RUN_OUTPUT_VARIABLE leak_output)
  if(NOT leak_compiles)
    message(FATAL_ERROR "No program can be built with -fsanitize=address here:\n"
      "${leak_compiler_output}")
  endif()
  set(found 0)
  if(leak_output MATCHES "detected memory leaks")
    set(found 1)
  endif()
  set(BOP_LEAKS_ARE_FOUND "${found}" CACHE INTERNAL "LeakSanitizer works on this machine")
endif()
message(STATUS "AddressSanitizer finds leaks here: ${BOP_LEAKS_ARE_FOUND}")

string(JOIN ":" asan_options
  # Faults are Wasmtime's business: Wasm's traps, and the guards of fibers' stacks.
  handle_segv=0 handle_sigbus=0 handle_sigfpe=0 handle_sigill=0 handle_abort=0
  # Nor may a thread's signal stack be replaced, and freed, behind Wasmtime's back.
  use_sigaltstack=0
  # A frame moved to the heap is not on its fiber's stack.
  detect_stack_use_after_return=0
  detect_leaks=${BOP_LEAKS_ARE_FOUND}
  # A failed allocation is something to test.
  allocator_may_return_null=1
  abort_on_error=0)
set(TEST_ENVIRONMENT "ASAN_OPTIONS=${asan_options}")

# A sanitizer that finds nothing may be off. These do what it must find, and pass if it says so.
function(bop_asan_control name message)
  add_executable("asan-${name}" "asan/${name}.c")
  add_test(NAME "asan.${name}" COMMAND "asan-${name}")
  set_tests_properties("asan.${name}" PROPERTIES
    TIMEOUT 60 LABELS "controls" ENVIRONMENT "${TEST_ENVIRONMENT}"
    PASS_REGULAR_EXPRESSION "${message}")
endfunction()

function(bop_asan_controls)
  bop_asan_control(overflow "AddressSanitizer: heap-buffer-overflow")
  if(BOP_LEAKS_ARE_FOUND)
    bop_asan_control(leak "LeakSanitizer: detected memory leaks")
  endif()
endfunction()
