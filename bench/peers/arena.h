// Memory for a cache, with or without huge pages.
#pragma once

#include <cstddef>

namespace dmc::peers {

class Arena {
 public:
  // Huge pages are asked for with madvise; a kernel that does not grant them is not an error.
  // Error(kInternal) if there is not enough memory.
  Arena(size_t bytes, bool huge_pages);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* take(size_t bytes);  // aligned to 64 bytes
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_;
  size_t size_, used_ = 0;
};

}  // namespace dmc::peers
