// HostDevice's part of policies that drop slots.
#include "kernels/cuda/attention/slot_types.h"
#include "runtime/device/host_device.h"

namespace dmc::runtime {

namespace gpu = kernels::cuda;

namespace {

using Team = gpu::SoloTeam;

// fn(item) for the streams of a step's layer.
template <class Fn>
void each_item(const gpu::Batch& batch, Fn&& fn) {
  for (int item = 0; item < batch.items(); ++item) {
    if (batch.active(item)) fn(item);
  }
}

}  // namespace

void HostDevice::evict_slots(const gpu::DecodeShape& shape, const gpu::CacheView& cache,
                             const gpu::Batch& batch, int layer, const gpu::EvictionStep& step) {
  const auto slots = [&](int item) {
    return gpu::StreamSlots{cache.pool, cache.streams, batch.stream(layer, item), shape.head_dim};
  };
  gpu::with_slot_type(shape.slot_type, [&]<DType kType>() {
    if (policy::uses_attention(step.spec.rule)) {
      each_item(batch, [&](int item) {
        const float* const q = step.q + int64_t{item} * shape.group * shape.head_dim;
        gpu::observe<kType, Team>(slots(item), {q, shape.group, step.scale}, step.scores);
      });
    }
    for (int row = 0; step.spec.layer_wide && row < batch.batch; ++row) {
      if (batch.rows[row] < 0) continue;
      gpu::share_attention<Team>(cache.streams, cache.pool.page_slots, batch, layer, row);
    }
    each_item(batch, [&](int item) {
      gpu::evict<kType, Team>(slots(item), cache.stack, step.spec,
                              step.positions[item / batch.kv_heads]);
    });
  });
}

void HostDevice::remember_queries(const gpu::CacheView& cache, const gpu::PromptChunk& chunk,
                                  const float* q) {
  for (int head = 0; head < chunk.kv_heads; ++head) {
    gpu::remember_queries<Team>(cache.streams, chunk, q, head);
  }
}

void HostDevice::keep_of_prompt(DType slot_type, const gpu::CacheView& cache,
                                const gpu::PromptEnd& end) {
  gpu::with_slot_type(slot_type, [&]<DType kType>() {
    for (int head = 0; head < end.kv_heads; ++head) {
      for (int n = 0; n < cache.streams.observes; ++n) {
        gpu::weigh_slots<kType, Team>(cache.pool, cache.streams, end, head, n);
      }
      gpu::choose_slots<Team>(cache.pool, cache.streams, end, head);
      gpu::keep_slots<kType, Team>(cache.pool, cache.stack, cache.streams, end, head);
    }
  });
}

}  // namespace dmc::runtime
