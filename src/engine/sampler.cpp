#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/rng.h"

namespace dmc::engine {
namespace {

void require_numbers(std::span<const float> logits, const std::string& where) {
  DMC_CHECK(!logits.empty());
  if (std::ranges::any_of(logits, [](float x) { return std::isnan(x); })) {
    throw data_error("the model's logits" + where + " are not numbers; its weights are damaged");
  }
}

// Ids from the likeliest on, of equals the lower one first. They are sorted only as far as somebody
// asks: a vocabulary is large, and a draw seldom looks beyond its first few.
class Ranking {
 public:
  explicit Ranking(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  int32_t at(size_t place) {
    while (place >= sorted_) sort_more();
    return ids_[place];
  }
  float logit(size_t place) { return logits_[static_cast<size_t>(at(place))]; }

 private:
  void sort_more() {
    const size_t wanted = std::min(ids_.size(), std::max<size_t>(64, sorted_ * 8));
    const auto likelier = [&](int32_t a, int32_t b) {
      const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    };
    std::partial_sort(ids_.begin() + static_cast<long>(sorted_),
                      ids_.begin() + static_cast<long>(wanted), ids_.end(), likelier);
    sorted_ = wanted;
  }

  std::span<const float> logits_;
  std::vector<int32_t> ids_;
  size_t sorted_ = 0;
};

// Probabilities relative to the likeliest token's, which has 1.
class Weights {
 public:
  Weights(std::span<const float> logits, double temperature)
      : logits_(logits), max_(*std::ranges::max_element(logits)), temperature_(temperature) {}
  double of_logit(float logit) const {
    return logit == max_ ? 1.0 : std::exp((static_cast<double>(logit) - max_) / temperature_);
  }
  double sum() const {
    double total = 0.0;
    for (float logit : logits_) total += of_logit(logit);
    return total;
  }

 private:
  std::span<const float> logits_;
  float max_;
  double temperature_;
};

// How many of the likeliest tokens may be drawn, and the sum of their weights.
struct Kept {
  size_t count;
  double mass;
};

Kept kept_by_rank(Ranking& ranking, const Weights& weights, size_t vocabulary,
                  const SamplingOptions& options) {
  const bool all = options.top_k == 0 || static_cast<size_t>(options.top_k) >= vocabulary;
  if (all && options.min_p == 0.0) return {vocabulary, weights.sum()};
  const size_t most = all ? vocabulary : static_cast<size_t>(options.top_k);
  Kept kept{0, 0.0};
  while (kept.count < most) {
    const double weight = weights.of_logit(ranking.logit(kept.count));
    if (weight < options.min_p) break;
    kept.mass += weight;
    ++kept.count;
  }
  return kept;
}

Kept nucleus(Ranking& ranking, const Weights& weights, const Kept& all, double top_p) {
  if (top_p >= 1.0) return all;
  Kept kept{0, 0.0};
  while (kept.count < all.count && (kept.count == 0 || kept.mass < top_p * all.mass)) {
    kept.mass += weights.of_logit(ranking.logit(kept.count++));
  }
  return kept;
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
  if (!(options.min_p >= 0.0 && options.min_p <= 1.0)) {
    throw invalid_argument("min_p", "expected a number from 0 to 1");
  }
}

uint64_t seed_of_choice(uint64_t seed, int64_t choice) {
  return choice == 0 ? seed
                     : random_bits(seed, /*stream=*/0x63686f69, static_cast<uint64_t>(choice));
}

int32_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position) {
  require_numbers(logits, " at position " + std::to_string(position));
  if (options.temperature == 0.0) {  // the first of the largest
    return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
  }
  Ranking ranking(logits);
  const Weights weights(logits, options.temperature);
  const Kept all = kept_by_rank(ranking, weights, logits.size(), options);
  const Kept kept = nucleus(ranking, weights, all, options.top_p);
  double left = sampling_uniform(options.seed, position) * kept.mass;
  for (size_t place = 0; place + 1 < kept.count; ++place) {
    left -= weights.of_logit(ranking.logit(place));
    if (left < 0.0) return ranking.at(place);
  }
  return ranking.at(kept.count - 1);
}

Logprobs logprobs_of(std::span<const float> logits, int32_t token, int64_t top) {
  require_numbers(logits, "");
  const double max = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(logit - max);
  const double normalizer = max + std::log(sum);
  const auto rated = [&](int32_t id) {
    return TokenLogprob{id, static_cast<float>(logits[static_cast<size_t>(id)] - normalizer)};
  };
  Logprobs result{rated(token)};
  const float own = logits[static_cast<size_t>(token)];
  result.rank += std::ranges::count_if(logits, [own](float logit) { return logit > own; });
  Ranking ranking(logits);
  const size_t listed = std::min(logits.size(), static_cast<size_t>(top));
  for (size_t place = 0; place < listed; ++place) result.top.push_back(rated(ranking.at(place)));
  return result;
}

}  // namespace dmc::engine
