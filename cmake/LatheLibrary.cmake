# liblathe: the objects of every module as one library, for programs outside this tree. The program and the tests link the
# modules themselves.

get_property(lathe_modules GLOBAL PROPERTY LATHE_MODULES)
get_property(lathe_external_links GLOBAL PROPERTY LATHE_EXTERNAL_LINKS)
list(REMOVE_DUPLICATES lathe_external_links)
# Compiled in, or used by the program only.
list(REMOVE_ITEM lathe_external_links nlohmann_json::nlohmann_json CLI11::CLI11 PkgConfig::EDIT Boost::headers)
list(FILTER lathe_modules EXCLUDE REGEX "^lathe_(cli|server)")

set(lathe_objects "")
foreach(module IN LISTS lathe_modules)
  list(APPEND lathe_objects $<TARGET_OBJECTS:${module}>)
endforeach()
add_library(liblathe ${lathe_objects})
add_library(lathe::lathe ALIAS liblathe)
set_target_properties(
  liblathe
  PROPERTIES OUTPUT_NAME lathe
             EXPORT_NAME lathe
             LINKER_LANGUAGE CXX
             VERSION ${PROJECT_VERSION}
             SOVERSION ${PROJECT_VERSION_MAJOR})
target_compile_features(liblathe INTERFACE cxx_std_20)
target_include_directories(liblathe INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(liblathe PRIVATE ${lathe_external_links} $<BUILD_INTERFACE:lathe_options>)
