// For tests: the tables of a device cache in host memory.
#pragma once

#include <cstddef>
#include <numeric>
#include <vector>

#include "kernels/cuda/cache/device_cache.h"
#include "kernels/slot_page.h"

namespace dmc::kernels::cuda {

struct HostCache {
  HostCache(const PageFormat& format, int64_t pages, int64_t stream_count, int64_t max_pages,
            int window)
      : memory(static_cast<size_t>(format.bytes() * pages), std::byte{0xff}),
        free(static_cast<size_t>(pages)),
        references(free.size()),
        returned(free.size()),
        left(static_cast<int32_t>(pages)),
        closed(static_cast<size_t>(stream_count)),
        tables(static_cast<size_t>(stream_count * max_pages), -1),
        counts(closed.size()),
        heads(closed.size()) {
    std::iota(free.begin(), free.end(), 0);
    const Streams shape{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, max_pages, window};
    const auto capacity = static_cast<size_t>(shape.capacity());
    weights.resize(closed.size() * capacity);
    pairs.resize(closed.size() * (capacity + 1) * 2 * static_cast<size_t>(format.head_dim));
    pool = {memory.data(), format.bytes(), format.page_slots};
    stack = {free.data(), &left, &refused, references.data(), returned.data(), &waiting};
    streams = {closed.data(),  tables.data(), counts.data(), heads.data(),
               weights.data(), pairs.data(),  max_pages,     window};
  }
  HostCache(const HostCache&) = delete;

  std::vector<std::byte> memory;
  std::vector<int32_t> free;
  std::vector<int32_t> references, returned;
  int32_t left, refused = 0, waiting = 0;
  std::vector<int32_t> closed, tables, counts, heads;
  std::vector<float> weights, pairs;
  PagePool pool;
  PageStack stack;
  Streams streams;
};

}  // namespace dmc::kernels::cuda
