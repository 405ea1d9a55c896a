// Memory that is streamed through: what decoding reads would otherwise wait for address
// translation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace dmc {

struct FreeMemory {
  void operator()(std::byte* memory) const;
};
using HugeMemory = std::unique_ptr<std::byte[], FreeMemory>;

// `bytes` of memory, aligned to a huge page (2 MiB), that the system may back by huge pages. Not
// initialized. Throws std::bad_alloc.
HugeMemory allocate_huge(int64_t bytes);

}  // namespace dmc
