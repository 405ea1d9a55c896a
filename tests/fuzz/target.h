// What the fuzz targets share. Each defines libFuzzer's entry point: it may throw nothing, since
// a dmc::Error is how a file is refused, and anything else is a finding.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace dmc::fuzz {

// What one input may take: more is a finding. Each target says it for its own.
struct Limits {
  unsigned seconds;
  size_t megabytes;
};
extern const Limits kLimits;

// Inputs that grow: about n bytes, or n times something that takes a few. Twice the input may take
// twice the time.
struct Family {
  const char* name;
  std::function<std::string(size_t n)> make;
};
std::vector<Family> growing_inputs();  // of the target

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

// A safetensors file of this header and so much data.
inline std::string with_header(const std::string& header, size_t data_bytes = 0) {
  const uint64_t size = header.size();
  std::string file(sizeof size, '\0');
  std::memcpy(file.data(), &size, sizeof size);
  return file + header + std::string(data_bytes, '\0');
}

// Runs fn(); a file may be refused.
template <typename Fn>
int accept_errors(Fn fn) {
  try {
    fn();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal) throw;  // a check of ours failed
  }
  return 0;
}

}  // namespace dmc::fuzz
