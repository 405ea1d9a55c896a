#include "eval/tasks/agreement.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/predictions.h"
#include "eval/tasks/statistics.h"

namespace dmc::eval {
namespace {

double log_total(std::span<const float> logits, float largest) {
  double total = 0.0;
  for (float x : logits) total += std::exp(static_cast<double>(x - largest));
  return largest + std::log(total);
}

struct Values {
  std::vector<double> kl, same;  // by token
};

void compare(std::span<const float> reference, std::span<const float> compressed, Values* values) {
  values->kl.push_back(kl_divergence(reference, compressed));
  values->same.push_back(std::ranges::max_element(reference) - reference.begin() ==
                         std::ranges::max_element(compressed) - compressed.begin());
}

void compare_window(const TaskInput& input, std::span<const int32_t> window, CacheUse* cache_use,
                    Values* values) {
  const auto compressed = Sequence::add(input.runner);
  const auto reference = Sequence::add(*input.reference);
  const auto row = static_cast<size_t>(input.runner.vocab_size());
  for (size_t first = 0; first < window.size(); first += kPredictionsAtOnce) {
    const auto piece = window.subspan(first, std::min(kPredictionsAtOnce, window.size() - first));
    const std::vector<float> a = engine::prefill_logits(*input.reference, reference.id(), piece);
    const std::vector<float> b = engine::prefill_logits(input.runner, compressed.id(), piece);
    for (size_t i = 0; i < piece.size(); ++i) {
      compare(std::span(a).subspan(i * row, row), std::span(b).subspan(i * row, row), values);
    }
  }
  cache_use->add(input.runner, compressed, window.size());
}

}  // namespace

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  DMC_CHECK(p_logits.size() == q_logits.size());
  const double p_total = log_total(p_logits, std::ranges::max(p_logits));
  const double q_total = log_total(q_logits, std::ranges::max(q_logits));
  double sum = 0.0;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = p_logits[i] - p_total, log_q = q_logits[i] - q_total;
    const double p = std::exp(log_p);
    if (p > 0) sum += p * (log_p - log_q);
  }
  return std::max(0.0, sum);  // rounding may take it below
}

TaskScore run_agreement(const TaskInput& input) {
  DMC_CHECK(input.text != nullptr && input.reference != nullptr);
  if (input.reference->vocab_size() != input.runner.vocab_size()) {
    throw invalid_argument(
        "reference", "its vocabulary has " + std::to_string(input.reference->vocab_size()) +
                         " tokens, the model's has " + std::to_string(input.runner.vocab_size()));
  }
  const auto& windows = input.text->tokens;
  CacheUse cache_use;
  Values values;
  for (size_t i = 0; i < windows.size(); ++i) {
    compare_window(input, windows[i], &cache_use, &values);
    input.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(windows.size()));
  }
  return {static_cast<int64_t>(values.kl.size()),
          {mean_metric("kl", values.kl),
           {"kl_max", std::ranges::max(values.kl)},
           mean_metric("top1", values.same)},
          cache_use.compression_ratio()};
}

}  // namespace dmc::eval
