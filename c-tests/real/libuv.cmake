# libuv, for a host whose event loop that is: the one that is installed; else the source that tools/fetch.py
# libuv has unpacked, compiled here. After include(libuv.cmake) BOP_LIBUV is the target to link, or empty.
include_guard()

set(BOP_FETCHED_LIBUV "${PROJECT_SOURCE_DIR}/build/tools/libuv" CACHE PATH "Where libuv is looked for last")
# A build tree that was configured before it was fetched is configured again.
file(GLOB bop_libuv_stamp CONFIGURE_DEPENDS "${BOP_FETCHED_LIBUV}/wheel.sha256")
set(BOP_LIBUV)

find_package(libuv CONFIG QUIET)
if(TARGET libuv::uv)
  set(BOP_LIBUV libuv::uv)
  message(STATUS "libuv is that of ${libuv_DIR}")
  return()
endif()

# Debian's has no files for CMake.
find_package(PkgConfig QUIET)
if(PKG_CONFIG_FOUND)
  pkg_check_modules(BOP_INSTALLED_LIBUV QUIET IMPORTED_TARGET libuv)
  if(BOP_INSTALLED_LIBUV_FOUND)
    set(BOP_LIBUV PkgConfig::BOP_INSTALLED_LIBUV)
    message(STATUS "libuv is the installed ${BOP_INSTALLED_LIBUV_VERSION}")
    return()
  endif()
endif()

if(bop_libuv_stamp)
  # Not by its own CMakeLists.txt, which would have it installed with BOP.
  file(GLOB sources "${BOP_FETCHED_LIBUV}/src/*.c")
  foreach(name IN ITEMS async core dl fs getaddrinfo getnameinfo linux loop loop-watcher pipe poll process
      procfs-exepath proctitle random-devurandom random-getrandom random-sysctl-linux signal stream tcp
      thread tty udp)
    list(APPEND sources "${BOP_FETCHED_LIBUV}/src/unix/${name}.c")
  endforeach()
  add_library(bop-fetched-libuv STATIC EXCLUDE_FROM_ALL ${sources})
  target_include_directories(bop-fetched-libuv SYSTEM PUBLIC "${BOP_FETCHED_LIBUV}/include")
  target_include_directories(bop-fetched-libuv PRIVATE "${BOP_FETCHED_LIBUV}/src")
  target_compile_definitions(bop-fetched-libuv PRIVATE
    _FILE_OFFSET_BITS=64 _LARGEFILE_SOURCE _GNU_SOURCE _POSIX_C_SOURCE=200112)
  target_compile_options(bop-fetched-libuv PRIVATE -w -fno-strict-aliasing)
  target_link_libraries(bop-fetched-libuv PUBLIC Threads::Threads ${CMAKE_DL_LIBS} rt)
  set_target_properties(bop-fetched-libuv PROPERTIES C_STANDARD 11 C_EXTENSIONS ON)
  set(BOP_LIBUV bop-fetched-libuv)
  message(STATUS "libuv is compiled from ${BOP_FETCHED_LIBUV}")
endif()
