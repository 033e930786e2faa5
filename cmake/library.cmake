# The library as cargo leaves it, and as targets of this build tree: bop::bop and bop::static.

find_program(BOP_CARGO cargo HINTS ENV CARGO_HOME "$ENV{HOME}/.cargo" PATH_SUFFIXES bin)
if(NOT BOP_CARGO)
  message(FATAL_ERROR "cargo was not found: install Rust, or set BOP_CARGO to its path.")
endif()

set(BOP_ARTIFACTS "${BOP_TARGET_DIR}/release")
set(BOP_STAGED_LIB "${PROJECT_BINARY_DIR}/lib")
set(BOP_STAGED_INCLUDE "${PROJECT_BINARY_DIR}/include")
set(BOP_SONAME "libbop.so.${PROJECT_VERSION_MAJOR}")
set(BOP_REALNAME "libbop.so.${PROJECT_VERSION}")
# What `rustc --print native-static-libs` lists for Linux with glibc.
set(BOP_SYSTEM_LIBRARIES -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc)
# An imported target may only name folders that exist.
file(MAKE_DIRECTORY "${BOP_STAGED_INCLUDE}" "${PROJECT_SOURCE_DIR}/include")

# Always run: cargo knows best whether anything is to be done, and then changes no file.
add_custom_target(bop-cargo ALL
  COMMAND "${CMAKE_COMMAND}"
    "-DCARGO=${BOP_CARGO}"
    "-DFLAGS=${BOP_CARGO_FLAGS}"
    "-DSOURCE=${PROJECT_SOURCE_DIR}"
    "-DTARGET_DIR=${BOP_TARGET_DIR}"
    "-DLIB=${BOP_STAGED_LIB}"
    "-DINCLUDE=${BOP_STAGED_INCLUDE}"
    "-DSONAME=${BOP_SONAME}"
    "-DREALNAME=${BOP_REALNAME}"
    -P "${PROJECT_SOURCE_DIR}/cmake/cargo.cmake"
  # What a `clean` of this tree deletes: not cargo's own files.
  BYPRODUCTS "${BOP_STAGED_LIB}/libbop.so" "${BOP_STAGED_LIB}/libbop.a"
  WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
  COMMENT "cargo build --release --lib"
  USES_TERMINAL VERBATIM)

set(BOP_BUILD_INCLUDES "${PROJECT_SOURCE_DIR}/include" "${BOP_STAGED_INCLUDE}")

add_library(bop::bop SHARED IMPORTED GLOBAL)
set_target_properties(bop::bop PROPERTIES
  IMPORTED_LOCATION "${BOP_STAGED_LIB}/libbop.so"
  IMPORTED_SONAME "${BOP_SONAME}"
  INTERFACE_INCLUDE_DIRECTORIES "${BOP_BUILD_INCLUDES}")
add_dependencies(bop::bop bop-cargo)

add_library(bop::static STATIC IMPORTED GLOBAL)
set_target_properties(bop::static PROPERTIES
  IMPORTED_LOCATION "${BOP_STAGED_LIB}/libbop.a"
  INTERFACE_INCLUDE_DIRECTORIES "${BOP_BUILD_INCLUDES}"
  INTERFACE_LINK_LIBRARIES "${BOP_SYSTEM_LIBRARIES}")
add_dependencies(bop::static bop-cargo)
