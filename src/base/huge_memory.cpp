#include "base/huge_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace dmc {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void FreeMemory::operator()(std::byte* memory) const { std::free(memory); }

HugeMemory allocate_huge(int64_t bytes) {
  void* memory = nullptr;
  const size_t size = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
  if (posix_memalign(&memory, kHugePage, size) != 0) throw std::bad_alloc();
  madvise(memory, size, MADV_HUGEPAGE);  // advice: failure costs speed only
  return HugeMemory(static_cast<std::byte*>(memory));
}

}  // namespace dmc
