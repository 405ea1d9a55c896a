# Where the text of the built-in corpus lies (src/text/corpus.h): the Python sources beside the
# LibTorch we build with, and the standard library of the Python that goes with it.
function(dmc_corpus_sources TARGET)
  get_filename_component(torch_sources "${Torch_DIR}/../../.." ABSOLUTE)
  if(NOT Torch_DIR OR NOT EXISTS "${torch_sources}/__init__.py")
    set(torch_sources "")
  endif()
  find_package(Python3 COMPONENTS Interpreter QUIET)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/text/corpus.cpp PROPERTIES COMPILE_DEFINITIONS
    "DMC_TORCH_SOURCES=\"${torch_sources}\";DMC_STDLIB_SOURCES=\"${Python3_STDLIB}\"")
endfunction()
