# dmc_torch_ops: the training kernels as operators of PyTorch (python/dmc/torch/csrc), a module that
# Python loads. It uses LibTorch's stable ABI alone, so one file serves torch 2.10 and all newer ones.
add_library(dmc_torch_ops MODULE
  python/dmc/torch/csrc/ops.cpp src/base/error.cpp src/base/parallel.cpp src/kernels/pooling.cpp
  src/kernels/training_attention.cpp src/kernels/cpu/training_attention_cpu.cpp)
target_include_directories(dmc_torch_ops PRIVATE src)
target_include_directories(dmc_torch_ops SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
target_compile_definitions(dmc_torch_ops PRIVATE TORCH_TARGET_VERSION=0x020a000000000000)
target_compile_options(dmc_torch_ops PRIVATE ${DMC_WARNINGS} -fvisibility=hidden
                       -fno-semantic-interposition)
target_link_libraries(dmc_torch_ops PRIVATE Threads::Threads nlohmann_json::nlohmann_json
                      PkgConfig::HWY)
# Only libtorch_cpu, by its name: where it lies is what Python's `import torch` knows.
list(GET TORCH_INCLUDE_DIRS 0 torch_include)
get_filename_component(torch_lib "${torch_include}/../lib" ABSOLUTE)
target_link_libraries(dmc_torch_ops PRIVATE ${torch_lib}/libtorch_cpu.so)
set_target_properties(dmc_torch_ops PROPERTIES POSITION_INDEPENDENT_CODE ON PREFIX ""
  OUTPUT_NAME dmc_torch_ops SKIP_BUILD_RPATH ON DISABLE_PRECOMPILE_HEADERS ON
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
