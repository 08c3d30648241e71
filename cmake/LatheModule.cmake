# One target per folder of src/lathe, with explicit links; warnings, hardening and sanitizers through targets only.

add_library(lathe_options INTERFACE)
target_include_directories(lathe_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                                   $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
target_compile_options(
  lathe_options
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
            -Woverloaded-virtual -Wundef -ffp-contract=off -fvisibility=hidden
            $<$<BOOL:${LATHE_WERROR}>:-Werror>)
target_compile_definitions(lathe_options INTERFACE $<$<BOOL:${LATHE_DCHECKS}>:LATHE_DCHECKS> _GLIBCXX_ASSERTIONS)
if(NOT LATHE_SANITIZE)
  target_compile_options(lathe_options INTERFACE -fstack-protector-strong
                         $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  target_link_options(lathe_options INTERFACE -Wl,-z,relro,-z,now)
else()
  target_compile_options(lathe_options INTERFACE -fsanitize=${LATHE_SANITIZE} -fno-sanitize-recover=all
                                                 -fno-omit-frame-pointer)
  target_link_options(lathe_options INTERFACE -fsanitize=${LATHE_SANITIZE})
endif()
if(LATHE_BUILD_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "LATHE_BUILD_FUZZ: expected Clang (libFuzzer), found ${CMAKE_CXX_COMPILER_ID}")
  endif()
  # Coverage counters everywhere; only the programs of tests/fuzz link libFuzzer's main.
  target_compile_options(lathe_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# lathe_module(NAME SOURCES a.cpp ... [LINKS lathe::base ...] [PRIVATE_LINKS ...] [TESTS a_test.cpp ...] [TEST_LINKS ...])
# makes the static library lathe_<NAME> (alias lathe::<NAME>) and, when tests are on, lathe_<NAME>_test with ctest label
# "fast". Whoever links lathe::<NAME> gets everything below it. All modules together become liblathe (LatheInstall.cmake).
function(lathe_module name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINKS;PRIVATE_LINKS;TESTS;TEST_LINKS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "lathe_module(${name}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  add_library(lathe_${name} STATIC ${arg_SOURCES})
  add_library(lathe::${name} ALIAS lathe_${name})
  target_link_libraries(lathe_${name} PUBLIC lathe_options ${arg_LINKS} PRIVATE ${arg_PRIVATE_LINKS})
  set_property(GLOBAL APPEND PROPERTY LATHE_MODULES lathe_${name})
  set(external ${arg_LINKS} ${arg_PRIVATE_LINKS})
  list(FILTER external EXCLUDE REGEX "^lathe(::|_)")
  set_property(GLOBAL APPEND PROPERTY LATHE_EXTERNAL_LINKS ${external})
  if(LATHE_BUILD_TESTS AND arg_TESTS)
    lathe_test(lathe_${name}_test SOURCES ${arg_TESTS} LINKS lathe::${name} ${arg_TEST_LINKS})
  endif()
endfunction()

# lathe_test(TARGET SOURCES ... LINKS ... [LABEL fast|slow] [TIMEOUT seconds]): a GoogleTest program.
function(lathe_test target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "SOURCES;LINKS")
  if(NOT arg_LABEL)
    set(arg_LABEL fast)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(LATHE_SANITIZE)
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 5")
  endif()
  add_executable(${target} ${arg_SOURCES})
  # Compiling tests is most of a build, running them the least.
  target_compile_options(${target} PRIVATE ${LATHE_TEST_OPTIMIZATION})
  target_link_libraries(${target} PRIVATE lathe_test_support lathe_options ${arg_LINKS} GTest::gtest GTest::gmock
                                          GTest::gtest_main)
  add_test(NAME ${target} COMMAND ${target})
  set_tests_properties(${target} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT})
endfunction()
