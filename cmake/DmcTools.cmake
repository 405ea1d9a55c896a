# Optional accelerators of the build itself: used where they are installed, never required.
find_program(DMC_CCACHE ccache)
if(DMC_CCACHE)
  # Without this ccache gives up on sources that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER env
      "CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime" ${DMC_CCACHE})
endif()
find_program(DMC_MOLD mold)
if(DMC_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
if(DMC_SANITIZE)
  # Under sanitizers g++ 12 takes its own <regex> for uninitialized, and ThreadSanitizer warns of
  # fences, which it does not know.
  add_compile_options(-Wno-maybe-uninitialized -Wno-tsan)
  add_compile_options(-fsanitize=${DMC_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${DMC_SANITIZE})
  # SIMD is compiled for each instruction set: with sanitizers it would take longer than all else
  # together. The plain twin that its tests compare it with (src/kernels/ref) has them.
  file(GLOB DMC_SIMD ${CMAKE_SOURCE_DIR}/src/kernels/cpu/*.cpp)
  set_source_files_properties(${DMC_SIMD} PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)
endif()
