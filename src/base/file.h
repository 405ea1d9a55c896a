// Files read and written whole. What is written appears under its name only when all of it is on
// disk, so a failed save never harms the file before it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace dmc {

// Whether something has this name, if only a link that leads nowhere or in a circle: then opening
// it says so. Never throws.
bool is_there(const std::filesystem::path& path) noexcept;

// A file open for reading. Only regular ones are: a FIFO would wait for ever, a device may have no
// end. Error(kData) naming the path and what was found there; links are followed.
class RegularFile {
 public:
  explicit RegularFile(const std::filesystem::path& path);
  ~RegularFile();
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;

  int descriptor() const { return fd_; }
  size_t size() const { return size_; }  // when it was opened

 private:
  int fd_ = -1;
  size_t size_ = 0;
};

// A whole file mapped read-only. Error(kData) naming it as RegularFile, and if it is empty.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  // Error(kData) if the file has been cut short, or its disk failed, since it was mapped: what was
  // read from there were zeros, in place of the SIGBUS that ends the program.
  void require_whole() const;

 private:
  std::filesystem::path path_;
  void* data_;
  size_t size_ = 0;
};

// Writes all bytes to a descriptor; false, with errno, where that is refused.
bool write_all(int descriptor, std::string_view bytes);

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

// The whole file; Error(kData) as RegularFile, and if it is longer than `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{1} << 30);

}  // namespace dmc
