#include "arena.h"

#include <sys/mman.h>

#include "base/error.h"

namespace dmc::peers {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kAlignment = 64;

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

// The kernel aligns a mapping of whole huge pages itself (or backs all but its edges by them).
Arena::Arena(size_t bytes, bool huge_pages) : size_(round_up(bytes, kHugePage)) {
  void* const mapped =
      mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw internal_error("not enough memory for the caches to measure");
  data_ = static_cast<std::byte*>(mapped);
  madvise(data_, size_, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

Arena::~Arena() { munmap(data_, size_); }

std::byte* Arena::take(size_t bytes) {
  std::byte* const taken = data_ + used_;
  used_ += round_up(bytes, kAlignment);
  DMC_CHECK(used_ <= size_);
  return taken;
}

}  // namespace dmc::peers
