// A device cache full of random slots, for benchmarks. Only for .cu files.
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/device_memory.h"

namespace dmc::bench {

struct SceneSpec {
  std::string name;
  DType type;
  int kv_heads, group, batch;
  int slots;    // of a stream; if ragged, of one at CR 1
  bool ragged;  // compression ratios log-uniform from 1 to 8
  int head_dim = 128, page_slots = 16, window = 12;
  int layers = 0;  // 0: so many that the L2 cache does not hold their slots
};

class Scene {
 public:
  // A quarter of the streams append a slot each time append() runs; there is room for `steps`
  // times.
  explicit Scene(const SceneSpec& spec, int steps = 64);

  void plan(kernels::cuda::Stream stream);
  void append(int layer, kernels::cuda::Stream stream);
  void attend(int layer, kernels::cuda::Stream stream);

  int layers() const { return layers_; }
  // Bytes that a layer's attention must read and write: slots with their scales, queries, results.
  double useful_bytes() const;
  int32_t refused() const { return refused_.download()[0]; }

 private:
  template <class T>
  using Array = kernels::cuda::DeviceArray<T>;

  int64_t streams() const { return int64_t{layers_} * spec_.batch * spec_.kv_heads; }
  void draw_lengths();
  void make_cache(int steps);
  void make_tokens();

  SceneSpec spec_;
  int layers_ = 1;
  Rng rng_{1};
  std::vector<int32_t> lengths_;  // slots of each stream, as filled
  kernels::cuda::DecodeShape shape_;
  kernels::cuda::PagePool pool_{};
  kernels::cuda::PageStack stack_{};
  kernels::cuda::Streams streams_{};
  kernels::cuda::Batch batch_{};
  kernels::cuda::DecodeWorkspace workspace_{};
  Array<std::byte> pages_, work_;
  Array<int32_t> free_, left_, refused_, references_, returned_, waiting_;
  Array<int32_t> closed_, tables_, counts_, heads_, rows_, positions_;
  Array<float> weights_, pairs_, q_, k_, v_, importance_, out_;
  Array<uint8_t> merge_;
};

}  // namespace dmc::bench
