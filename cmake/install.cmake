# Installs the libraries, the headers, and what find_package and pkg-config read. Nothing installed
# holds an absolute path: the tree may be moved.

install(PROGRAMS "${BOP_ARTIFACTS}/libbop.so"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}" RENAME "${BOP_REALNAME}")
install(FILES "${BOP_STAGED_LIB}/${BOP_SONAME}" "${BOP_STAGED_LIB}/libbop.so"
  "${BOP_ARTIFACTS}/libbop.a"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}")

install(FILES "${PROJECT_SOURCE_DIR}/include/bop.h" "${PROJECT_SOURCE_DIR}/include/bop_guest.h"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(DIRECTORY "${BOP_STAGED_INCLUDE}/" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/bop")

set(BOP_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/bop")
configure_package_config_file(cmake/bop-config.cmake.in
  "${PROJECT_BINARY_DIR}/package/bop-config.cmake"
  INSTALL_DESTINATION "${BOP_CMAKE_DIR}" NO_SET_AND_CHECK_MACRO)
configure_package_config_file(cmake/bop-targets.cmake.in
  "${PROJECT_BINARY_DIR}/package/bop-targets.cmake"
  INSTALL_DESTINATION "${BOP_CMAKE_DIR}"
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR
  NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Before 1.0 the minor version may break.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/bop-config-version.cmake"
  VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/package/bop-config.cmake"
  "${PROJECT_BINARY_DIR}/package/bop-config-version.cmake"
  "${PROJECT_BINARY_DIR}/package/bop-targets.cmake"
  DESTINATION "${BOP_CMAKE_DIR}")

file(RELATIVE_PATH BOP_PC_PREFIX
  "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" BOP_PC_PREFIX "${BOP_PC_PREFIX}")
string(REPLACE ";" " " BOP_PC_SYSTEM_LIBRARIES "${BOP_SYSTEM_LIBRARIES}")
# ${prefix} is for pkg-config to fill in.
foreach(dir INCLUDEDIR LIBDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(BOP_PC_${dir} "${CMAKE_INSTALL_${dir}}")
  else()
    set(BOP_PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(cmake/bop.pc.in "${PROJECT_BINARY_DIR}/package/bop.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/package/bop.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
