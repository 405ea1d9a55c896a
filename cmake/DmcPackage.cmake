# What `cmake --install` puts where.
include(GNUInstallDirs)

install(TARGETS dmc RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET dmc-train) # where dmc looks for it; LibTorch stays where it was found
  set_target_properties(dmc-train PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS dmc-train RUNTIME DESTINATION libexec/dmc)
endif()
file(GLOB builtin_models models/builtin*)
install(DIRECTORY ${builtin_models} DESTINATION ${CMAKE_INSTALL_DATADIR}/dmc/models)

if(DMC_LIBRARY)
  # One library with the header dmc.h; of all that is linked into it, nothing else is seen.
  file(GLOB embed_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/embed/*.cpp)
  list(FILTER embed_sources EXCLUDE REGEX "_test\\.cpp$")
  add_library(libdmc SHARED ${embed_sources})
  set_target_properties(libdmc PROPERTIES OUTPUT_NAME dmc EXPORT_NAME dmc VERSION ${PROJECT_VERSION}
                        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  target_compile_options(libdmc PRIVATE ${DMC_WARNINGS})
  target_compile_features(libdmc INTERFACE cxx_std_20)
  target_link_libraries(libdmc PRIVATE $<BUILD_INTERFACE:dmc_cache>)
  target_link_options(libdmc PRIVATE -Wl,--exclude-libs,ALL)
  target_include_directories(libdmc INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/dmc>)
  add_library(dmc::dmc ALIAS libdmc)

  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dmc)
  install(TARGETS libdmc EXPORT dmc LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES src/embed/dmc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dmc)
  install(FILES src/base/error.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dmc/base)
  install(EXPORT dmc NAMESPACE dmc:: FILE dmc-config.cmake DESTINATION ${package_dir})
  include(CMakePackageConfigHelpers)
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/dmc-config-version.cmake
                                   COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/dmc-config-version.cmake DESTINATION ${package_dir})
endif()
