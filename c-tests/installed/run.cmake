# Installs the library, moves the tree elsewhere, and builds and runs the project beside this file
# against it: by find_package, and by pkg-config. A test of the main build (c-tests/CMakeLists.txt).
cmake_minimum_required(VERSION 3.20)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    string(REPLACE ";" " " command "${ARGV}")
    message(FATAL_ERROR "failed (${result}): ${command}")
  endif()
endfunction()

# As run, and what is printed must be this.
function(run_for wanted)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output RESULT_VARIABLE result)
  if(NOT result EQUAL 0 OR NOT output MATCHES "${wanted}")
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "failed (${result}): ${command}\nprinted: ${output}")
  endif()
endfunction()

# ---- install, and move: nothing may depend on where it was installed to ----

set(first "${WORK}/first")
set(prefix "${WORK}/prefix")
file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${first}")
file(RENAME "${first}" "${prefix}")
set(lib "${prefix}/${LIBDIR}")

foreach(file
    "include/bop.h" "include/wasm.h" "include/wasmtime.h" "include/wasmtime.hh" "include/wasi.h"
    "include/wasmtime/conf.h" "share/licenses/bop/LICENSE"
    "${LIBDIR}/libbop.a" "${LIBDIR}/libbop.so" "${LIBDIR}/libbop.so.${VERSION}"
    "${LIBDIR}/cmake/bop/bop-config.cmake" "${LIBDIR}/cmake/bop/bop-config-version.cmake"
    "${LIBDIR}/cmake/bop/bop-targets.cmake" "${LIBDIR}/pkgconfig/bop.pc")
  if(NOT EXISTS "${prefix}/${file}")
    message(FATAL_ERROR "not installed: ${file}")
  endif()
endforeach()
if(IS_SYMLINK "${lib}/libbop.so.${VERSION}")
  message(FATAL_ERROR "libbop.so.${VERSION} is a link: the library itself was not installed")
endif()

file(GLOB_RECURSE texts "${lib}/cmake/*" "${lib}/pkgconfig/*" "${prefix}/include/bop*")
foreach(text IN LISTS texts)
  file(READ "${text}" content)
  foreach(place "${first}" "${REPOSITORY}" "${BUILD}")
    string(FIND "${content}" "${place}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${text} names a place of the build: ${place}")
    endif()
  endforeach()
endforeach()

# ---- by find_package ----

run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${WORK}/consumer" -G "${GENERATOR}"
  "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}" "-DCMAKE_C_COMPILER=${CC}" "-DCMAKE_CXX_COMPILER=${CXX}"
  -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF "-DCMAKE_PREFIX_PATH=${prefix}")
file(STRINGS "${WORK}/consumer/CMakeCache.txt" found REGEX "^bop_DIR:")
string(FIND "${found}" "=${prefix}/" at)
if(at EQUAL -1)
  message(FATAL_ERROR "another bop was found: ${found}")
endif()
run("${CMAKE_COMMAND}" --build "${WORK}/consumer")
run("${CMAKE_CTEST_COMMAND}" --test-dir "${WORK}/consumer" --output-on-failure --no-tests=error)

# ---- by pkg-config ----

find_program(PKG_CONFIG NAMES pkg-config pkgconf)
if(NOT PKG_CONFIG)
  message("pkg-config is not installed; bop.pc was not tried")
  return()
endif()
set(ENV{PKG_CONFIG_PATH} "${lib}/pkgconfig")
set(sum "sum 5050, beside a loop without end")
set(strict -std=c99 -pedantic -Wall -Wextra -Werror)

function(pkg_config variable)
  execute_process(COMMAND "${PKG_CONFIG}" ${ARGN} bop
    OUTPUT_VARIABLE output OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(output UNIX_COMMAND "${output}")
  set("${variable}" "${output}" PARENT_SCOPE)
endfunction()

run_for("^${VERSION}\n" "${PKG_CONFIG}" --modversion bop)
pkg_config(compile --cflags)
pkg_config(link --libs)
run("${CC}" ${strict} ${compile} "${SOURCE}/consumer.c" -o "${WORK}/by-pkg-config"
  ${link} "-Wl,-rpath,${lib}")
run_for("${sum}" "${WORK}/by-pkg-config")

# The linker takes the static library where there is no shared one.
file(MAKE_DIRECTORY "${WORK}/static")
file(CREATE_LINK "${lib}/libbop.a" "${WORK}/static/libbop.a" SYMBOLIC)
pkg_config(link --static --libs)
run("${CC}" ${strict} ${compile} "${SOURCE}/consumer.c" -o "${WORK}/by-pkg-config-static"
  "-L${WORK}/static" ${link})
run_for("${sum}" "${WORK}/by-pkg-config-static")

# ---- what runs is what was linked ----

find_program(READELF readelf)
foreach(program consumer/consumer-c-bop consumer/consumer-cc-bop by-pkg-config
    consumer/consumer-c-static consumer/consumer-cc-static by-pkg-config-static)
  execute_process(COMMAND "${READELF}" -d "${WORK}/${program}"
    OUTPUT_VARIABLE needs COMMAND_ERROR_IS_FATAL ANY)
  string(FIND "${needs}" "[libbop.so." at)
  if(program MATCHES "static" AND NOT at EQUAL -1)
    message(FATAL_ERROR "${program} needs the shared library")
  elseif(NOT program MATCHES "static" AND at EQUAL -1)
    message(FATAL_ERROR "${program} does not need the shared library")
  endif()
endforeach()
