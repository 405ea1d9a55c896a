// Files that may be packed (.gz, .bz2, .zst), read whole.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace dmc::text {

// "a.txt" of "a.txt.gz"; a path that names no packed file as it is.
std::filesystem::path unpacked_name(const std::filesystem::path& path);

// The file's bytes, unpacked where its name says that it is packed. Error(kData) naming the file if
// it is missing, damaged or holds more than `limit` bytes: a small file may unpack to terabytes.
std::string read_unpacked(const std::filesystem::path& path, size_t limit = size_t{1} << 30);

}  // namespace dmc::text
