#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace dmc::engine {
namespace {

// Ids from the likeliest on; only the first `count` are in order.
std::vector<int32_t> likeliest_first(std::span<const float> logits, size_t count) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<long>(count), ids.end(), likelier);
  ids.resize(count);
  return ids;
}

}  // namespace

void check_sampling_options(const SamplingOptions& options) {
  if (!(options.temperature >= 0.0 && options.temperature <= 100.0)) {
    throw invalid_argument("temperature", "expected a number from 0 to 100");
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    throw invalid_argument("top_p", "expected a number above 0 and at most 1");
  }
  if (options.top_k < 0) throw invalid_argument("top_k", "expected 0 (all) or a positive number");
}

int32_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position) {
  DMC_CHECK(!logits.empty());
  if (std::ranges::any_of(logits, [](float x) { return std::isnan(x); })) {
    throw internal_error("the model's logits at position " + std::to_string(position) +
                         " are not numbers; its weights are damaged");
  }
  if (options.temperature == 0.0) return likeliest_first(logits, 1)[0];

  const size_t all = logits.size();
  const size_t kept = options.top_k > 0 ? std::min(all, static_cast<size_t>(options.top_k)) : all;
  const std::vector<int32_t> ids = likeliest_first(logits, kept);
  std::vector<double> weights;
  const double max = logits[static_cast<size_t>(ids[0])];
  for (int32_t id : ids) {
    weights.push_back(std::exp((logits[static_cast<size_t>(id)] - max) / options.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t nucleus = 0;
  double mass = 0.0;
  while (nucleus < weights.size() && (nucleus == 0 || mass < options.top_p * total)) {
    mass += weights[nucleus++];
  }
  double left = sampling_uniform(options.seed, position) * mass;
  for (size_t i = 0; i + 1 < nucleus; ++i) {
    left -= weights[i];
    if (left < 0.0) return ids[i];
  }
  return ids[nucleus - 1];
}

}  // namespace dmc::engine
