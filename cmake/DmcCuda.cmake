# The CUDA kernels (src/kernels/cuda): the library dmc_kernels_cuda, and from tests/gpu the test
# program cuda_test. Needs nvcc 13 and no driver; without a GPU the tests skip themselves.
set(CMAKE_CUDA_ARCHITECTURES 80 90a CACHE STRING "GPU architectures to compile for")
enable_language(CUDA)
if(DMC_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${DMC_CCACHE})
endif()
# CMake 3.25.1 does not know that nvcc takes C++20.
set(CMAKE_CUDA_STANDARD 20)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
# std::min and the like may be called from kernels; warnings are errors, in device code too.
set(DMC_CUDA_OPTIONS --expt-relaxed-constexpr -Werror=all-warnings -Xcompiler=-Wall,-Wextra)

include(DmcCudaSources)

add_library(dmc_kernels_cuda STATIC ${DMC_CUDA_SOURCES})
target_compile_options(dmc_kernels_cuda PRIVATE ${DMC_CUDA_OPTIONS})
target_link_libraries(dmc_kernels_cuda PUBLIC dmc_kernels)
add_custom_target(gpu DEPENDS dmc_kernels_cuda)  # all that ./run build cuda builds

if(DMC_TESTS)
  add_executable(cuda_test ${DMC_CUDA_TESTS})
  target_compile_options(cuda_test PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${DMC_CUDA_OPTIONS}>
                         $<$<COMPILE_LANGUAGE:CXX>:${DMC_WARNINGS}>)
  target_link_libraries(cuda_test PRIVATE dmc_runtime GTest::gtest_main)
  add_dependencies(gpu cuda_test)
endif()
