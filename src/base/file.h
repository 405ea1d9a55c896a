// Files read and written whole. What is written appears under its name only when all of it is on
// disk, so a failed save never harms the file before it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace dmc {

// A whole file mapped read-only. Error(kData) naming it if it cannot be opened or is empty.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_;
  size_t size_ = 0;
};

// A file that appears under its name only when commit() has seen all of it on disk; without
// commit() it leaves no trace. Error(kInternal) naming the path when the disk refuses (full,
// read-only); the file that was there before is then untouched.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  void commit();

 private:
  [[noreturn]] void fail(const std::string& verb) const;

  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

// AtomicFile's guarantee for bytes in memory.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The whole file, or Error(kData) naming it when it is missing or longer than `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{1} << 30);

}  // namespace dmc
