#include "runtime/score.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace dmc::runtime {
namespace {

// Logits exist for so many tokens at a time: a whole window's would need gigabytes on a large
// vocabulary.
constexpr int64_t kRowsAtOnce = 256;

struct Sums {
  double loss = 0.0;
  int64_t hits = 0, predictions = 0, bytes = 0, tokens = 0;
};

void add_predictions(const models::Decoder& model, const at::Tensor& hidden,
                     const std::vector<int32_t>& window, Sums* sums) {
  const auto predictions = static_cast<int64_t>(window.size()) - 1;
  const at::Tensor ids = at::empty({static_cast<int64_t>(window.size())}, at::kLong);
  std::copy(window.begin(), window.end(), ids.mutable_data_ptr<int64_t>());
  for (int64_t first = 0; first < predictions; first += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, predictions - first);
    const at::Tensor log_p = at::log_softmax(model.logits(hidden.narrow(0, first, rows)), -1);
    const at::Tensor target = ids.narrow(0, first + 1, rows);
    sums->loss -= log_p.gather(1, target.unsqueeze(1)).sum(at::kDouble).item<double>();
    sums->hits += log_p.argmax(1).eq(target).sum().item<int64_t>();
  }
  sums->predictions += predictions;
  sums->tokens += static_cast<int64_t>(window.size());
}

}  // namespace

Score score(DecoderRunner& runner, const io::EvalWindows& windows,
            const std::function<void(int64_t)>& on_window) {
  const c10::InferenceMode inference;
  const cache::CacheConfig& config = runner.cache().config();
  std::vector<std::vector<int64_t>> slots(
      static_cast<size_t>(config.layers),
      std::vector<int64_t>(static_cast<size_t>(config.kv_heads)));
  Sums sums;
  for (size_t i = 0; i < windows.tokens.size(); ++i) {
    const engine::SequenceId sequence = runner.add_sequence();
    const at::Tensor hidden = runner.prefill_hidden(sequence, windows.tokens[i]);
    add_predictions(runner.model(), hidden, windows.tokens[i], &sums);
    sums.bytes += windows.bytes[i];
    for (int layer = 0; layer < config.layers; ++layer) {
      for (int head = 0; head < config.kv_heads; ++head) {
        slots[static_cast<size_t>(layer)][static_cast<size_t>(head)] +=
            runner.cache().slots(sequence, layer, head);
      }
    }
    runner.release(sequence);
    on_window(static_cast<int64_t>(i) + 1);
  }

  Score result;
  result.loss = sums.loss / static_cast<double>(sums.predictions);
  result.bits_per_byte = sums.loss / std::numbers::ln2 / static_cast<double>(sums.bytes);
  result.next_token_accuracy =
      static_cast<double>(sums.hits) / static_cast<double>(sums.predictions);
  result.tokens = sums.tokens;
  int64_t total_slots = 0;
  for (const auto& layer : slots) {
    result.cr_by_head.emplace_back();
    for (int64_t count : layer) {
      total_slots += count;
      result.cr_by_head.back().push_back(static_cast<double>(sums.tokens) /
                                         static_cast<double>(count));
    }
  }
  result.slots = static_cast<double>(total_slots) / (config.layers * config.kv_heads);
  result.compression_ratio = static_cast<double>(result.tokens) / result.slots;
  return result;
}

}  // namespace dmc::runtime
