# dmc_folder(NAME [TORCH] [EXCLUDE REGEX] DEPS ... [TEST_DEPS ...]): the library dmc_NAME of all sources under
# src/NAME, and, from the *_test.cpp beside them, the test program NAME_test. A new file needs no
# line anywhere.
# -Wno-restrict: g++ 12 warns of its own std::string (GCC bug 105651).
# -Wno-aggressive-loop-optimizations: and of kernels' remainder loops that run no iteration.
set(DMC_WARNINGS -Wall -Wextra -Wshadow -Wno-missing-field-initializers -Wno-restrict
    -Wno-aggressive-loop-optimizations -Werror)

function(dmc_folder NAME)
  cmake_parse_arguments(ARG "TORCH" "EXCLUDE" "DEPS;TEST_DEPS" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/src/${NAME})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cpp)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${ARG_EXCLUDE}")
  endif()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")

  if(sources)
    add_library(dmc_${NAME} STATIC ${sources})
    target_include_directories(dmc_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_compile_options(dmc_${NAME} PRIVATE ${DMC_WARNINGS})
    target_link_libraries(dmc_${NAME} PUBLIC ${ARG_DEPS})
    if(ARG_TORCH)
      dmc_use_torch(dmc_${NAME})
    endif()
  else()
    add_library(dmc_${NAME} INTERFACE)
    target_include_directories(dmc_${NAME} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(dmc_${NAME} INTERFACE ${ARG_DEPS})
  endif()

  if(DMC_TESTS AND tests)
    add_executable(${NAME}_test ${tests})
    target_compile_options(${NAME}_test PRIVATE ${DMC_WARNINGS})
    target_link_libraries(${NAME}_test PRIVATE dmc_${NAME} ${ARG_TEST_DEPS} GTest::gtest_main)
    if(ARG_TORCH)
      dmc_use_torch(${NAME}_test)
    endif()
    # GOMP_SPINCOUNT: see src/cli/training_program.cpp.
    gtest_discover_tests(${NAME}_test DISCOVERY_MODE PRE_TEST TEST_PREFIX "${NAME}:"
                         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
                         PROPERTIES ENVIRONMENT "GOMP_SPINCOUNT=10000")
  endif()
endfunction()

# Torch's headers are system headers (their warnings are not ours) and are precompiled once: the
# first torch target builds the header, the others reuse it.
function(dmc_use_torch TARGET)
  target_include_directories(${TARGET} SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(${TARGET} PUBLIC torch)
  if(NOT TARGET dmc_torch_pch)
    file(WRITE ${CMAKE_BINARY_DIR}/dmc_torch_pch.cpp "")
    add_library(dmc_torch_pch OBJECT ${CMAKE_BINARY_DIR}/dmc_torch_pch.cpp)
    target_link_libraries(dmc_torch_pch PUBLIC torch)
    target_compile_options(dmc_torch_pch PRIVATE ${DMC_WARNINGS})
    target_precompile_headers(dmc_torch_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/torch_pch.h)
  endif()
  target_precompile_headers(${TARGET} REUSE_FROM dmc_torch_pch)
endfunction()
