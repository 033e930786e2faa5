# Runs cargo and lays its results out for a C build: the names a dynamic linker looks for, and one
# folder with Wasmtime's headers. Run as a script by the target bop-cargo (library.cmake).
cmake_minimum_required(VERSION 3.20)

# Wasmtime's build script calls `cmake`: let it be this one, on the PATH or not.
get_filename_component(cmake_folder "${CMAKE_COMMAND}" DIRECTORY)
set(ENV{PATH} "${cmake_folder}:$ENV{PATH}")
# A make above has its own job slots, and hands them only to makes.
unset(ENV{MAKEFLAGS})
unset(ENV{MFLAGS})
set(ENV{CARGO_TARGET_DIR} "${TARGET_DIR}")
separate_arguments(FLAGS UNIX_COMMAND "${FLAGS}")

execute_process(
  COMMAND "${CARGO}" build --release --lib ${FLAGS}
  WORKING_DIRECTORY "${SOURCE}"
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "cargo build failed (${result}); see above.")
endif()

set(artifacts "${TARGET_DIR}/release")
foreach(name libbop.so libbop.a wasmtime-include.txt)
  if(NOT EXISTS "${artifacts}/${name}")
    message(FATAL_ERROR "cargo left no ${artifacts}/${name}. Does a setting of cargo's "
      "(build.target, build.build-dir) move what it builds? "
      "If the file was deleted: touch build.rs.")
  endif()
endforeach()

# libbop.so -> libbop.so.0 -> libbop.so.0.1.0 -> what cargo built. Installed, the last is the file.
file(MAKE_DIRECTORY "${LIB}")
function(link_to target name)
  if(IS_SYMLINK "${LIB}/${name}")
    file(READ_SYMLINK "${LIB}/${name}" old)
    if(old STREQUAL target)
      return()
    endif()
  endif()
  file(CREATE_LINK "${target}" "${LIB}/${name}" SYMBOLIC)
endfunction()
link_to("${artifacts}/libbop.a" libbop.a)
link_to("${artifacts}/libbop.so" "${REALNAME}")
link_to("${REALNAME}" "${SONAME}")
link_to("${SONAME}" libbop.so)

# The headers of this build, and no others: what an earlier Wasmtime had must not linger.
file(STRINGS "${artifacts}/wasmtime-include.txt" headers LIMIT_COUNT 1)
get_filename_component(headers "${headers}" ABSOLUTE BASE_DIR "${artifacts}")
if(NOT EXISTS "${headers}/wasmtime/conf.h")
  message(FATAL_ERROR "No headers of Wasmtime in ${headers}, which wasmtime-include.txt names.")
endif()
file(GLOB_RECURSE wanted RELATIVE "${headers}" "${headers}/*")
file(GLOB_RECURSE present RELATIVE "${INCLUDE}" "${INCLUDE}/*")
foreach(name IN LISTS present)
  if(NOT name IN_LIST wanted)
    file(REMOVE "${INCLUDE}/${name}")
  endif()
endforeach()
foreach(name IN LISTS wanted)
  # By content: a rebuilt Wasmtime with the same headers rebuilds no C.
  configure_file("${headers}/${name}" "${INCLUDE}/${name}" COPYONLY)
endforeach()
