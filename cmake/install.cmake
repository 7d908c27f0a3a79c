# install.cmake - the library's public name and version; what `cmake --install` puts where; the
# files by which CMake (find_package) and pkg-config find it; Debian packages.
#
# Everything installed finds its neighbours relative to itself, so that a tree installed with
# `cmake --install build --prefix ANYWHERE` may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Before 1.0.0 a minor version may break programs: the name they are linked to carries both.
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(TAPELINE_SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  set(TAPELINE_COMPATIBILITY SameMinorVersion)
else()
  set(TAPELINE_SOVERSION ${PROJECT_VERSION_MAJOR})
  set(TAPELINE_COMPATIBILITY SameMajorVersion)
endif()
set_target_properties(tapeline_shared PROPERTIES OUTPUT_NAME tapeline EXPORT_NAME tapeline
  VERSION ${PROJECT_VERSION} SOVERSION ${TAPELINE_SOVERSION})

# The same names as in an installed tree, for projects that contain this one.
add_library(Tapeline::tapeline ALIAS tapeline_shared)
add_library(Tapeline::tapeline_static ALIAS tapeline_static)

if(NOT TAPELINE_INSTALL)
  return()
endif()

# ---------------------------------------------------------------- files
set(TAPELINE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Tapeline)
install(TARGETS tapeline_shared EXPORT TapelineTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS tapeline_static EXPORT TapelineStaticTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/lib/include/tapeline
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT development)

# find_package(Tapeline)
install(EXPORT TapelineTargets NAMESPACE Tapeline::
  DESTINATION ${TAPELINE_CMAKE_DIR} COMPONENT development)
install(EXPORT TapelineStaticTargets NAMESPACE Tapeline::
  DESTINATION ${TAPELINE_CMAKE_DIR} COMPONENT development)
configure_package_config_file(cmake/TapelineConfig.cmake.in
  ${PROJECT_BINARY_DIR}/cmake/TapelineConfig.cmake INSTALL_DESTINATION ${TAPELINE_CMAKE_DIR}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cmake/TapelineConfigVersion.cmake
  COMPATIBILITY ${TAPELINE_COMPATIBILITY})
install(FILES ${PROJECT_BINARY_DIR}/cmake/TapelineConfig.cmake
  ${PROJECT_BINARY_DIR}/cmake/TapelineConfigVersion.cmake
  DESTINATION ${TAPELINE_CMAKE_DIR} COMPONENT development)

# pkg-config: the prefix is found from where the file lies. What a static link needs besides is
# named by -l, with the folder for HDF5 and MPI, which distributions keep in ones of their own.
set(TAPELINE_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
  set(TAPELINE_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /${TAPELINE_PC_DIR} /)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(TAPELINE_PC_PREFIX "\${pcfiledir}/${up}")
endif()
set(TAPELINE_PC_PRIVATE)
foreach(library ${HDF5_C_LIBRARIES} ${MPI_C_LIBRARIES})
  if(IS_ABSOLUTE ${library})
    get_filename_component(folder ${library} DIRECTORY)
    get_filename_component(name ${library} NAME_WE)
    string(REGEX REPLACE "^lib" "-l" name ${name})
    list(APPEND TAPELINE_PC_PRIVATE -L${folder} ${name})
  else()
    list(APPEND TAPELINE_PC_PRIVATE -l${library})
  endif()
endforeach()
list(APPEND TAPELINE_PC_PRIVATE -lz ${OpenMP_C_FLAGS} -lpthread -lm)
list(REMOVE_DUPLICATES TAPELINE_PC_PRIVATE)
list(JOIN TAPELINE_PC_PRIVATE " " TAPELINE_PC_PRIVATE)
configure_file(cmake/tapeline.pc.in ${PROJECT_BINARY_DIR}/cmake/tapeline.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/cmake/tapeline.pc
  DESTINATION ${TAPELINE_PC_DIR} COMPONENT development)

# ---------------------------------------------------------------- Debian packages
# cd build && cpack -G DEB: libtapeline0.1 (the shared library) and libtapeline-dev.
set(CPACK_PACKAGE_NAME tapeline)
set(CPACK_PACKAGE_VENDOR "The Tapeline authors")
set(CPACK_PACKAGE_CONTACT "The Tapeline authors <tapeline@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libtapeline${TAPELINE_SOVERSION})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libtapeline-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
    "libtapeline${TAPELINE_SOVERSION} (= ${PROJECT_VERSION}), libhdf5-dev, zlib1g-dev")
if(TAPELINE_MPI)
  string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", mpi-default-dev")
endif()
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "The shared library.")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
    "Headers, the static library, and files for CMake and pkg-config.")
include(CPack)
