# Guests in C and C++, compiled to WebAssembly with the compiler that tools/fetch.py puts into
# build/tools (`fetch.py zig`). After include(guest.cmake) BOP_GUEST_COMPILER says whether it is there.
#
#   bop_add_guest(NAME
#     SOURCES file...        .c; or .cc, .cpp, .cxx for C++
#     [INCLUDES folder...]   where headers are looked for
#     [OPTIONS option...]    for the compiler: -O2, -std=c11, ...
#     [LINK option...]       for the linker, as the compiler takes them: -s, -Wl,--export=name, ...
#     [PROGRAM])             it has a main, and exports _start; else _initialize, for libraries
#
# makes NAME.wasm in the current binary folder, by a target NAME that is part of `all`. WASI is
# preview 1. Functions are exported by __attribute__((export_name("..."))).
include_guard()

get_filename_component(bop_tools "${CMAKE_CURRENT_LIST_DIR}/../build/tools" ABSOLUTE)
set(BOP_GUEST_TOOLCHAIN "${bop_tools}/zig" CACHE PATH "Where the compiler from C to Wasm is")
# A build tree that was configured before it was fetched is configured again.
file(GLOB bop_guest_stamp CONFIGURE_DEPENDS "${BOP_GUEST_TOOLCHAIN}/wheel.sha256")
set(BOP_GUEST_COMPILER FALSE)
if(bop_guest_stamp)
  set(BOP_GUEST_COMPILER TRUE)
endif()

# Nothing goes into the home folder. Wasi-libc, compiled once, is kept beside the compiler.
set(BOP_GUEST_ENVIRONMENT
  "ZIG_GLOBAL_CACHE_DIR=${BOP_GUEST_TOOLCHAIN}-cache"
  "ZIG_LOCAL_CACHE_DIR=${CMAKE_BINARY_DIR}/zig-cache")

function(bop_add_guest name)
  cmake_parse_arguments(PARSE_ARGV 1 guest "PROGRAM" "" "SOURCES;INCLUDES;OPTIONS;LINK")
  if(guest_UNPARSED_ARGUMENTS OR NOT guest_SOURCES)
    message(FATAL_ERROR "bop_add_guest(${name}): no SOURCES, or unknown ${guest_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT BOP_GUEST_COMPILER)
    message(FATAL_ERROR "There is no compiler for guests in ${BOP_GUEST_TOOLCHAIN}: "
      "run tools/fetch.py zig")
  endif()
  set(run "${CMAKE_COMMAND}" -E env ${BOP_GUEST_ENVIRONMENT} "${BOP_GUEST_TOOLCHAIN}/zig")
  set(common --target=wasm32-wasi)
  # At -O0 this compiler turns UBSan on, which brings its own run-time library along.
  set(options -fno-sanitize=undefined ${guest_OPTIONS})
  foreach(folder IN LISTS guest_INCLUDES)
    get_filename_component(folder "${folder}" ABSOLUTE)
    list(APPEND options "-I${folder}")
  endforeach()

  set(folder "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/${name}.guest")
  file(MAKE_DIRECTORY "${folder}")
  set(objects)
  set(linker cc)
  set(number 0)
  foreach(source IN LISTS guest_SOURCES)
    get_filename_component(source "${source}" ABSOLUTE)
    get_filename_component(file "${source}" NAME)
    set(compiler cc)
    if(file MATCHES "\\.(cc|cpp|cxx)$")
      set(compiler c++)
      set(linker c++)
    endif()
    math(EXPR number "${number} + 1") # two folders may have files of one name
    set(object "${folder}/${number}-${file}.o")
    add_custom_command(OUTPUT "${object}"
      COMMAND ${run} ${compiler} ${common} ${options}
        -MD -MF "${object}.d" -c "${source}" -o "${object}"
      DEPENDS "${source}" "${bop_guest_stamp}"
      DEPFILE "${object}.d"
      COMMENT "Compiling ${file} to Wasm for ${name}"
      COMMAND_EXPAND_LISTS VERBATIM)
    list(APPEND objects "${object}")
  endforeach()

  set(model -mexec-model=reactor)
  if(guest_PROGRAM)
    set(model -mexec-model=command)
  endif()
  set(wasm "${CMAKE_CURRENT_BINARY_DIR}/${name}.wasm")
  add_custom_command(OUTPUT "${wasm}"
    COMMAND ${run} ${linker} ${common} ${model} ${options} ${objects} ${guest_LINK} -o "${wasm}"
    DEPENDS ${objects}
    COMMENT "Linking ${name}.wasm"
    COMMAND_EXPAND_LISTS VERBATIM)
  add_custom_target(${name} ALL DEPENDS "${wasm}")
endfunction()
