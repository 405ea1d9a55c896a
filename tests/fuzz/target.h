// What the fuzz targets share. Each defines libFuzzer's entry point: it may throw nothing, since
// a dmc::Error is how a file is refused, and anything else is a finding.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace dmc::fuzz {

// A directory of this process, removed at its end, in which `name` holds the input.
inline const std::filesystem::path& directory_with(const char* name, const uint8_t* data,
                                                   size_t size) {
  struct Directory {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("dmc_fuzz_" + std::to_string(::getpid()));
    Directory() { std::filesystem::create_directories(path); }
    ~Directory() { std::filesystem::remove_all(path); }
  };
  static const Directory directory;
  std::ofstream(directory.path / name, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  return directory.path;
}

// Runs fn(); a file may be refused.
template <typename Fn>
int accept_errors(Fn fn) {
  try {
    fn();
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace dmc::fuzz
