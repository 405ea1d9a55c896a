# The sources of the CUDA kernels, DMC_CUDA_SOURCES, of their tests, DMC_CUDA_TESTS, and of what
# measures them, DMC_GPU_BENCH, for nvcc (DmcCuda.cmake) or for the emulator (tests/gpu/emulator).

# dmc_cuda_instances(OUT KERNEL): a source of src/kernels/cuda/KERNEL_instance.cu.in for each line of
# attention/slot_kernels.inc.
function(dmc_cuda_instances OUT KERNEL)
  set(dir ${CMAKE_SOURCE_DIR}/src/kernels/cuda/attention)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dir}/slot_kernels.inc)
  file(STRINGS ${dir}/slot_kernels.inc lines REGEX "^DMC_SLOT_KERNEL")
  set(sources)
  foreach(line ${lines})
    string(REGEX MATCH "\\(k([A-Z0-9]+), ([0-9]+)\\)" _ "${line}")
    set(TYPE k${CMAKE_MATCH_1})
    set(DIM ${CMAKE_MATCH_2})
    set(source ${CMAKE_BINARY_DIR}/cuda/${KERNEL}_${CMAKE_MATCH_1}_${DIM}.cu)
    configure_file(${dir}/${KERNEL}_instance.cu.in ${source} @ONLY)
    list(APPEND sources ${source})
  endforeach()
  set(${OUT} ${sources} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE DMC_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*.cu)
foreach(kernel decode prefill)
  dmc_cuda_instances(instances ${kernel})
  list(APPEND DMC_CUDA_SOURCES ${instances})
endforeach()
file(GLOB DMC_CUDA_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/gpu/*.cu
     ${CMAKE_SOURCE_DIR}/tests/gpu/*.cpp)
file(GLOB DMC_GPU_BENCH CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/gpu/*.cu)
file(GLOB DMC_MODEL_BENCH CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/gpu/*.cpp)
