# What `cmake --install` puts where: the program, liblathe with its headers, CMake package and pkg-config file, the default
# model, the systemd unit, documents, the licence.

include(CMakePackageConfigHelpers)

if(TARGET lathe_cli)
  install(TARGETS lathe_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # systemd looks below lib, whatever the libraries' folder is called. Its units name programs by their absolute path.
  configure_file(${PROJECT_SOURCE_DIR}/packaging/lathe.service.in ${PROJECT_BINARY_DIR}/packaging/lathe.service @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/packaging/lathe.service DESTINATION lib/systemd/system)
endif()
install(TARGETS liblathe EXPORT latheTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
                                             LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
                                             RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(EXISTS ${PROJECT_SOURCE_DIR}/include/lathe)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/lathe DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
endif()

# The Python package opens the shared library, so it comes with it only.
if(BUILD_SHARED_LIBS)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/python/lathe DESTINATION ${CMAKE_INSTALL_DATADIR}/lathe/python
          FILES_MATCHING PATTERN "*.py")
endif()

set(lathe_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lathe)
install(EXPORT latheTargets NAMESPACE lathe:: DESTINATION ${lathe_cmake_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/latheConfig.cmake.in ${PROJECT_BINARY_DIR}/latheConfig.cmake
                              INSTALL_DESTINATION ${lathe_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/latheConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/latheConfig.cmake ${PROJECT_BINARY_DIR}/latheConfigVersion.cmake
        DESTINATION ${lathe_cmake_dir})

# A static library needs its own libraries on the consumer's link line; a shared one brings them along.
set(lathe_pc_requires "libcrypto libcurl libpcre2-8 libzstd")
set(lathe_pc_libs "-lstdc++ -lm -pthread")
if(BUILD_SHARED_LIBS)
  set(lathe_pc_public "")
  set(lathe_pc_private "Requires.private: ${lathe_pc_requires}\nLibs.private: ${lathe_pc_libs}")
else()
  set(lathe_pc_public " ${lathe_pc_libs}")
  set(lathe_pc_private "Requires: ${lathe_pc_requires}")
endif()
# Relative to the file itself, so that a moved or staged tree still works.
file(RELATIVE_PATH lathe_pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" lathe_pc_prefix "${lathe_pc_prefix}")
configure_file(${PROJECT_SOURCE_DIR}/lathe.pc.in ${PROJECT_BINARY_DIR}/lathe.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/lathe.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/storyteller DESTINATION ${CMAKE_INSTALL_DATADIR}/lathe/models)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
