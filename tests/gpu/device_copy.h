// For tests: a HostCache on the device.
#pragma once

#include "kernels/cuda/cache/host_cache.h"
#include "kernels/cuda/device_memory.h"

namespace dmc::kernels::cuda {

struct DeviceCopy {
  explicit DeviceCopy(const HostCache& host)
      : memory(host.memory),
        free(host.free),
        left(std::vector<int32_t>{host.left}),
        refused(std::vector<int32_t>{host.refused}),
        references(host.references),
        returned(host.returned),
        waiting(std::vector<int32_t>{host.waiting}),
        closed(host.closed),
        tables(host.tables),
        counts(host.counts),
        heads(host.heads),
        weights(host.weights),
        pairs(host.pairs),
        pool{memory.get(), host.pool.page_bytes, host.pool.page_slots},
        stack{free.get(),       left.get(),     refused.get(),
              references.get(), returned.get(), waiting.get()},
        streams{closed.get(),  tables.get(), counts.get(),           heads.get(),
                weights.get(), pairs.get(),  host.streams.max_pages, host.streams.window} {}

  DeviceArray<std::byte> memory;
  DeviceArray<int32_t> free, left, refused, references, returned, waiting, closed, tables, counts,
      heads;
  DeviceArray<float> weights, pairs;
  PagePool pool;
  PageStack stack;
  Streams streams;
};

}  // namespace dmc::kernels::cuda
