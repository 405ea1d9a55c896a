# LibTorch as the target `torch`, from the wheel's share/cmake on CMAKE_PREFIX_PATH. CPU builds bring
# their own. The package file of CUDA builds wants a whole CUDA toolkit and sets compiler flags for
# it; nothing here is compiled against LibTorch's CUDA headers, so its libraries are named instead.
find_path(DMC_TORCH_CONFIG TorchConfig.cmake PATHS ${CMAKE_PREFIX_PATH} PATH_SUFFIXES Torch
          NO_DEFAULT_PATH)
get_filename_component(torch_root "${DMC_TORCH_CONFIG}/../../.." ABSOLUTE)
if(DMC_TORCH_CONFIG AND EXISTS ${torch_root}/lib/libtorch_cuda.so)
  set(Torch_DIR ${DMC_TORCH_CONFIG})
  set(TORCH_INCLUDE_DIRS ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
  add_library(torch INTERFACE)
  target_include_directories(torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  # libtorch.so has no symbols; it is what loads libtorch_cuda.so.
  target_link_libraries(torch INTERFACE ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so
                        "-Wl,--no-as-needed,${torch_root}/lib/libtorch.so,--as-needed")
  message(STATUS "LibTorch with CUDA: ${torch_root}")
else()
  find_package(Torch REQUIRED)
endif()
