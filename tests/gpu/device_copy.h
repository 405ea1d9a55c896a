// For tests: a HostCache on the device.
#pragma once

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/host_cache.h"

namespace dmc::kernels::cuda {

struct DeviceCopy {
  explicit DeviceCopy(const HostCache& host)
      : memory(host.memory),
        free(host.free),
        left(std::vector<int32_t>{host.left}),
        refused(std::vector<int32_t>{host.refused}),
        closed(host.closed),
        tables(host.tables),
        counts(host.counts),
        heads(host.heads),
        weights(host.weights),
        pairs(host.pairs),
        pool{memory.get(), host.pool.page_bytes, host.pool.page_slots},
        stack{free.get(), left.get(), refused.get()},
        streams{closed.get(),  tables.get(), counts.get(),           heads.get(),
                weights.get(), pairs.get(),  host.streams.max_pages, host.streams.window} {}

  DeviceArray<std::byte> memory;
  DeviceArray<int32_t> free, left, refused, closed, tables, counts, heads;
  DeviceArray<float> weights, pairs;
  PagePool pool;
  PageStack stack;
  Streams streams;
};

}  // namespace dmc::kernels::cuda
