#include "runtime/device/host_device.h"

#include <cstring>
#include <new>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention/late_prompt.h"
#include "kernels/cuda/attention/slot_types.h"
#include "kernels/cuda/copy_stream.h"
#include "kernels/cuda/lanes/team.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/products/products.h"
#include "kernels/cuda/rows/model_ops.h"
#include "kernels/cuda/rows/norm.h"

namespace dmc::runtime {

namespace gpu = kernels::cuda;

namespace {

// __nv_bfloat16, as far as the kernels' templates use it.
struct Bf16 {
  uint16_t bits;
  explicit Bf16(float x) : bits(f32_to_bf16(x)) {}
  explicit operator float() const { return bf16_to_f32(bits); }
};

struct F16 {
  uint16_t bits;
  explicit F16(float x) : bits(f32_to_f16(gpu::clamp_to_f16(x))) {}
  explicit operator float() const { return f16_to_f32(bits); }
};

struct HostNumbers {
  using BF16 = Bf16;
  using F16 = runtime::F16;
};
constexpr gpu::WithNumbers<HostNumbers> with_numbers;

template <DType kType>
void multiply_few_rows(const gpu::FewRows& args) {
  constexpr int64_t kTeamsAtOnce = 16;  // that a thread takes
  const int64_t teams = (args.outputs + gpu::kOutputsAtOnce - 1) / gpu::kOutputsAtOnce;
  gpu::with_few_rows(args.rows, [&]<int kRows>() {
    parallel_for(0, teams, kTeamsAtOnce, [&](int64_t first, int64_t last) {
      for (int64_t team = first; team < last; ++team) {
        gpu::multiply_few_rows<gpu::SoloTeam, kType, kRows>(args, team * gpu::kOutputsAtOnce);
      }
    });
  });
}

void multiply_few_rows(DType type, const gpu::FewRows& args) {
  switch (type) {
    case DType::kF32:
      return multiply_few_rows<DType::kF32>(args);
    case DType::kF16:
      return multiply_few_rows<DType::kF16>(args);
    case DType::kI8:
      return multiply_few_rows<DType::kI8>(args);
    default:
      return multiply_few_rows<DType::kBF16>(args);
  }
}

// Weights of 8 bits whose rows are not aligned, by way of bf16 as on the GPU.
void multiply_widened(const gpu::Matrix& weights, const float* bias, const gpu::Numbers& x,
                      int64_t rows, float* y) {
  const int64_t count = weights.outputs * weights.inputs;
  const auto* const numbers = reinterpret_cast<const int8_t*>(weights.data);
  std::vector<gpu::Packet> wide(static_cast<size_t>(count / gpu::kPacketNumbers<DType::kBF16>) + 1);
  std::transform(numbers, numbers + count, reinterpret_cast<Bf16*>(wide.data()),
                 [](int8_t number) { return Bf16(number); });
  const gpu::Matrix matrix{reinterpret_cast<const std::byte*>(wide.data()), weights.outputs,
                           weights.inputs, DType::kBF16};
  gpu::each_few_rows(matrix, nullptr, x, rows, y,
                     [](const gpu::FewRows& part) { multiply_few_rows<DType::kBF16>(part); });
  for (int64_t i = 0; i < rows * weights.outputs; ++i) {
    const int64_t output = i % weights.outputs;
    y[i] = y[i] * weights.scales[output] + (bias != nullptr ? bias[output] : 0.0f);
  }
}

// The pool as the CPU's attention wants it: a pointer for each page.
class Pages {
 public:
  Pages(const gpu::DecodeShape& shape, const gpu::CacheView& cache, int32_t highest_page) {
    for (int64_t id = 0; id <= highest_page; ++id) {
      pages_.push_back(cache.pool.memory + id * cache.pool.page_bytes);
    }
    format_ = {cache.pool.page_slots, shape.head_dim, shape.slot_type};
  }
  // Those of a head's passing tokens too; returns their numbers.
  std::vector<int32_t> add(const gpu::PassingTokens& passing, int head) {
    std::vector<int32_t> ids;
    for (int32_t n = 0; n < passing.pages; ++n) {
      ids.push_back(static_cast<int32_t>(pages_.size()));
      pages_.push_back(passing.page(head, n));
    }
    return ids;
  }
  kernels::PoolView view() const { return {pages_.data(), format_}; }

 private:
  std::vector<std::byte*> pages_;
  kernels::PageFormat format_;
};

int32_t highest_page(const gpu::CacheView& cache, int64_t stream) {
  const int32_t pages =
      (cache.streams.closed[stream] + cache.pool.page_slots - 1) / cache.pool.page_slots;
  int32_t highest = -1;
  for (int32_t n = 0; n < pages; ++n) highest = std::max(highest, cache.streams.table(stream)[n]);
  return highest;
}

// What a chunk says of one head, token by token.
struct PromptOfHead {
  std::vector<int64_t> visible, from, to;
  std::vector<float> own_key, own_value;

  PromptOfHead(const gpu::PromptChunk& chunk, int head) {
    const int64_t dim = chunk.head_dim;
    for (int t = 0; t < chunk.tokens; ++t) {
      const int64_t row = chunk.row(t, head), at = row * dim;
      visible.push_back(chunk.visible[row]);
      own_key.insert(own_key.end(), chunk.own_key + at, chunk.own_key + at + dim);
      own_value.insert(own_value.end(), chunk.own_value + at, chunk.own_value + at + dim);
      if (chunk.passing.from == nullptr) continue;
      from.push_back(chunk.passing.from[row]);
      to.push_back(chunk.passing.to[row]);
    }
  }
};

// One head's tokens of a prompt, in the order of the kernels of prefill.cu.
template <DType kType>
void take_prompt_of(const gpu::CacheView& cache, const gpu::PromptChunk& chunk, int head) {
  using Team = gpu::SoloTeam;
  const gpu::Streams& streams = cache.streams;
  const int64_t stream = chunk.stream(head);
  if (streams.late()) gpu::lift_marked<kType, Team>(cache.pool, cache.stack, streams, chunk, head);
  for (int t = 0; t < chunk.tokens; ++t) gpu::pool_prompt_token<Team>(streams, chunk, t, head);
  int32_t seen = streams.closed[stream], closing = 0;
  for (int t = 0; t < chunk.tokens; ++t) {
    closing += chunk.closes(streams, t, head) ? 1 : 0;
    chunk.visible[chunk.row(t, head)] = seen + closing;
  }
  if (streams.late()) {
    int32_t passing = chunk.passing.lifted[head];
    for (int t = 0; t < chunk.tokens; ++t) {
      passing += chunk.marks(streams, t, head) ? 1 : 0;
      chunk.passing.to[chunk.row(t, head)] = passing;
      chunk.passing.from[chunk.row(t, head)] = gpu::passed_by(streams, chunk, t, head);
    }
    closing += chunk.passing.left(chunk.row(chunk.tokens - 1, head));
  }
  if (!gpu::reserve_pages<Team>(cache.pool, cache.stack, streams, stream, closing)) {
    for (int t = 0; t < chunk.tokens; ++t) gpu::see_nothing(chunk, t, head);
  }
  for (int t = 0; t < chunk.tokens; ++t) {
    gpu::write_closed<kType, Team>(cache.pool, streams, chunk, t, head);
    if (streams.late()) gpu::write_passing<kType, Team>(streams, chunk, t, head);
  }
  gpu::finish_prompt<Team>(streams, chunk, head);
  if (streams.late()) gpu::return_marked<kType, Team>(cache.pool, streams, chunk, head);
}

class Replay : public gpu::Recording {
 public:
  explicit Replay(std::function<void()> launches) : launches_(std::move(launches)) {}
  void replay() override { launches_(); }

 private:
  std::function<void()> launches_;
};

}  // namespace

void HostDevice::check_running() const { DMC_CHECK(!recording_); }

std::byte* HostDevice::allocate(int64_t bytes) {
  check_running();
  if (bytes > left_) throw exhausted("the device has too little memory left");
  auto* const memory = static_cast<std::byte*>(
      ::operator new (static_cast<size_t>(bytes), std::align_val_t{alignof(gpu::Packet)}));
  std::memset(memory, 0, static_cast<size_t>(bytes));
  allocated_[memory] = bytes;
  left_ -= bytes;
  return memory;
}

void HostDevice::free(std::byte* memory) {
  if (memory == nullptr) return;
  left_ += allocated_.at(memory);
  allocated_.erase(memory);
  ::operator delete (memory, std::align_val_t{alignof(gpu::Packet)});
}

std::byte* HostDevice::allocate_staging(int64_t bytes) {
  return new std::byte[static_cast<size_t>(bytes)];
}

void HostDevice::copy_in(void* to, const void* from, int64_t bytes) {
  check_running();
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void HostDevice::copy_out(void* to, const void* from, int64_t bytes) {
  check_running();
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

// A replay runs them anew, and refuses what a graph could not hold.
std::unique_ptr<gpu::Recording> HostDevice::record(const std::function<void()>& launches) {
  ++recordings_;
  return std::make_unique<Replay>([this, launches] {
    recording_ = true;
    launches();
    recording_ = false;
  });
}

void HostDevice::embed(const gpu::Matrix& table, const gpu::EmbeddingSums& sums,
                       const int32_t* tokens, const int32_t* positions, int64_t rows, float* x) {
  with_numbers.of_table(table, [&]<class In>(const In* numbers) {
    const gpu::EmbeddingTable<In> of{numbers, table.scales, table.outputs, table.inputs};
    for (int64_t row = 0; row < rows; ++row) {
      gpu::embed_row<gpu::SoloTeam>(of, tokens[row], sums, positions[row], x + row * table.inputs);
    }
  });
}

void HostDevice::add_and_norm(const gpu::NormSpec& spec, float* x, const float* y, int64_t rows,
                              const gpu::Numbers& out) {
  with_numbers(out, [&](auto* to) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * spec.width;
      gpu::add_and_norm_row<gpu::SoloTeam>(x + at, y == nullptr ? nullptr : y + at, spec.width,
                                           spec.centred, spec.eps, spec.weight, spec.bias, to + at);
    }
  });
}

void HostDevice::linear(const gpu::Matrix& weights, const float* bias, const gpu::Numbers& x,
                        int64_t rows, float* y) {
  DMC_CHECK(x.type == gpu::row_type(weights.type));
  if (weights.type == DType::kI8 && !gpu::takes_few_rows(weights.type, weights.inputs, 1)) {
    return multiply_widened(weights, bias, x, rows, y);
  }
  DMC_CHECK(gpu::takes_few_rows(weights.type, weights.inputs, 1));
  gpu::each_few_rows(weights, bias, x, rows, y,
                     [&](const gpu::FewRows& part) { multiply_few_rows(weights.type, part); });
}

void HostDevice::split_heads(const gpu::HeadsSpec& spec, const gpu::HeadsRows<float>& io,
                             int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int head = 0; head < spec.kv_heads; ++head) {
      gpu::split_head<gpu::SoloTeam>(spec, io, row, head);
    }
  }
}

void HostDevice::activate(gpu::Activation kind, const float* from, int64_t rows, int64_t width,
                          const gpu::Numbers& out) {
  const int64_t from_width = gpu::activation_inputs(kind) * width;
  with_numbers(out, [&](auto* to) {
    for (int64_t row = 0; row < rows; ++row) {
      gpu::activate_row<gpu::SoloTeam>(kind, from + row * from_width, width, to + row * width);
    }
  });
}

void HostDevice::round(const float* from, int64_t count, const gpu::Numbers& to) {
  with_numbers(to, [&](auto* numbers) {
    for (int64_t i = 0; i < count; ++i) {
      numbers[i] = static_cast<std::remove_reference_t<decltype(*numbers)>>(from[i]);
    }
  });
}

void HostDevice::choose_tokens(const float* logits, int batch, int32_t vocab,
                               const gpu::StepRows& step) {
  const auto bins = std::make_unique<gpu::SearchBins>();
  for (int row = 0; row < batch; ++row) {
    gpu::choose_token<gpu::SoloTeam>(logits, vocab, step, row, *bins);
  }
}

void HostDevice::hold_ratio(const gpu::HoldingSpec& spec, const gpu::CacheView& cache,
                            const gpu::Batch& batch, const int32_t* tokens, float* biases) {
  for (int row = 0; row < batch.batch; ++row) {
    if (batch.rows[row] < 0) continue;
    biases[row] = gpu::held_bias<gpu::SoloTeam>(spec, cache.streams, batch, row, tokens[row]);
  }
}

void HostDevice::take_tokens(const gpu::DecodeShape& shape, const gpu::CacheView& cache,
                             const gpu::Batch& batch, int layer, const gpu::StepTokens& tokens,
                             const gpu::RopeView& rope) {
  gpu::with_slot_type(shape.slot_type, [&]<DType kType>() {
    for (int item = 0; item < batch.items(); ++item) {
      if (!batch.active(item)) continue;
      gpu::take_step_token<kType, gpu::SoloTeam>(cache.pool, cache.stack, cache.streams, batch,
                                                 layer, item, shape.head_dim, tokens, rope);
    }
  });
}

void HostDevice::decode_attention(const gpu::DecodeShape& shape, const gpu::CacheView& cache,
                                  const gpu::Batch& batch, int layer, const float* q, float scale,
                                  float* out, const gpu::DecodeWorkspace&) {
  std::vector<kernels::DecodeItem> items;
  int32_t highest = -1;
  for (int item = 0; item < batch.items(); ++item) {
    if (!batch.active(item)) continue;
    const int64_t stream = batch.stream(layer, item);
    const int64_t at = int64_t{item} * shape.group * shape.head_dim;
    highest = std::max(highest, highest_page(cache, stream));
    items.push_back({cache.streams.table(stream), cache.streams.closed[stream],
                     cache.streams.open_key(stream, shape.head_dim),
                     cache.streams.open_value(stream, shape.head_dim), q + at, out + at});
  }
  kernels::decode_attention(Pages(shape, cache, highest).view(), items, shape.group, scale);
}

void HostDevice::take_prompt(const gpu::DecodeShape& shape, const gpu::CacheView& cache,
                             const gpu::PromptChunk& chunk) {
  gpu::with_slot_type(shape.slot_type, [&]<DType kType>() {
    for (int head = 0; head < chunk.kv_heads; ++head) take_prompt_of<kType>(cache, chunk, head);
  });
}

void HostDevice::prefill_attention(const gpu::DecodeShape& shape, const gpu::CacheView& cache,
                                   const gpu::PromptChunk& chunk, const float* q, float scale,
                                   float* out) {
  const int64_t dim = chunk.head_dim, width = chunk.kv_heads * dim;
  for (int head = 0; head < chunk.kv_heads; ++head) {
    const int64_t stream = chunk.stream(head), queries = head * shape.group * dim;
    const PromptOfHead of(chunk, head);
    Pages pages(shape, cache, highest_page(cache, stream));
    kernels::PrefillItem item{
        cache.streams.table(stream), chunk.tokens, of.visible.data(), of.own_key.data(),
        of.own_value.data(),         q + queries,  out + queries,     width * shape.group};
    std::vector<int32_t> passing;
    if (cache.streams.late()) {
      passing = pages.add(chunk.passing, head);
      item.passing = {passing.data(), of.from.data(), of.to.data()};
    }
    kernels::prefill_attention(pages.view(), {&item, 1}, shape.group, scale);
  }
}

void HostDevice::release_rows(const gpu::CacheView& cache, const gpu::Batch& batch, int layers) {
  for (int layer = 0; layer < layers; ++layer) {
    for (int item = 0; item < batch.items(); ++item) {
      if (!batch.active(item)) continue;
      gpu::release_stream<gpu::SoloTeam>(cache.pool, cache.stack, cache.streams,
                                         batch.stream(layer, item));
    }
  }
}

void HostDevice::collect_pages(const gpu::PageStack& stack) {
  gpu::collect_pages<gpu::SoloTeam>(stack);
}

void HostDevice::copy_row(const gpu::CacheView& cache, const gpu::Batch& two_rows, int layers,
                          int head_dim, bool share) {
  for (int layer = 0; layer < layers; ++layer) {
    for (int head = 0; head < two_rows.kv_heads; ++head) {
      gpu::copy_stream<gpu::SoloTeam>(cache.pool, cache.stack, cache.streams, head_dim,
                                      two_rows.stream(layer, head),
                                      two_rows.stream(layer, two_rows.kv_heads + head), share);
    }
  }
}

}  // namespace dmc::runtime
