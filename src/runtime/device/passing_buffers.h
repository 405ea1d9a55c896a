// Memory for the tokens of a prompt that pass by (kernels/cuda/attention/prompt.h), of one layer at
// a time.
#pragma once

#include "runtime/device/sequence_table.h"

namespace dmc::runtime {

struct PassingBuffers {
  int32_t pages = 0;  // of a head
  Buffer<std::byte> memory;
  Buffer<int32_t> from, to, lifted, positions;

  PassingBuffers() = default;  // for policies without such tokens
  // For chunks of so many tokens, and what is still seen of those before them.
  PassingBuffers(kernels::cuda::Device& device, const SequenceTable& table, int64_t chunk) {
    const SequenceTableShape& shape = table.shape();
    const kernels::cuda::CacheView cache = table.view();
    const int64_t tokens = chunk + cache.streams.mark_capacity(), P = cache.pool.page_slots;
    pages = static_cast<int32_t>((tokens + P - 1) / P);
    memory = Buffer<std::byte>(device, shape.kv_heads * pages * cache.pool.page_bytes);
    from = Buffer<int32_t>(device, chunk * shape.kv_heads);
    to = Buffer<int32_t>(device, chunk * shape.kv_heads);
    lifted = Buffer<int32_t>(device, shape.kv_heads);
    positions = Buffer<int32_t>(device, shape.kv_heads * pages * P);
  }

  kernels::cuda::PassingTokens view(kernels::cuda::PagePool pool) const {
    pool.memory = memory.get();
    return {pool, pages, from.get(), to.get(), lifted.get(), positions.get()};
  }
};

}  // namespace dmc::runtime
