#include "engine/logit_rules.h"

#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"

namespace dmc::engine {
namespace {

void require_between(const char* field, double value, double least, double most) {
  if (value >= least && value <= most) return;
  throw invalid_argument(field, "expected a number from " +
                                    std::to_string(static_cast<int>(least)) + " to " +
                                    std::to_string(static_cast<int>(most)));
}

}  // namespace

void check_logit_rules(const LogitRules& rules, int64_t vocab_size) {
  if (!(rules.repetition_penalty > 0.0 && rules.repetition_penalty <= 100.0)) {
    throw invalid_argument("repetition_penalty", "expected a number above 0 and at most 100");
  }
  require_between("presence_penalty", rules.presence_penalty, -2.0, 2.0);
  require_between("frequency_penalty", rules.frequency_penalty, -2.0, 2.0);
  for (const auto& [token, bias] : rules.bias) {
    require_between("logit_bias", bias, -100.0, 100.0);
    if (token < 0 || token >= vocab_size) {
      throw invalid_argument("logit_bias", "there is no token " + std::to_string(token) +
                                               "; the vocabulary has " +
                                               std::to_string(vocab_size));
    }
  }
  if (rules.min_tokens < 0) throw invalid_argument("min_tokens", "expected 0 or more");
}

RuledLogits::RuledLogits(LogitRules rules, std::span<const int32_t> prompt,
                         std::vector<int64_t> stop_ids)
    : rules_(std::move(rules)), stop_ids_(std::move(stop_ids)) {
  if (rules_.repetition_penalty == 1.0) return;
  for (int32_t token : prompt) counts_.try_emplace(token, 0);
}

std::span<const float> RuledLogits::apply(std::span<const float> logits) {
  if (rules_.neutral()) return logits;
  ruled_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : rules_.bias) ruled_[static_cast<size_t>(token)] += bias;
  penalize();
  if (tokens_ < rules_.min_tokens) {
    for (int64_t id : stop_ids_) {
      const auto place = static_cast<size_t>(id);
      if (place < ruled_.size()) ruled_[place] = -std::numeric_limits<float>::infinity();
    }
  }
  return ruled_;
}

void RuledLogits::penalize() {
  const auto repetition = static_cast<float>(rules_.repetition_penalty);
  for (const auto& [token, count] : counts_) {
    float& logit = ruled_[static_cast<size_t>(token)];
    logit = logit > 0.0f ? logit / repetition : logit * repetition;
    if (count == 0) continue;
    logit -= static_cast<float>(rules_.presence_penalty +
                                rules_.frequency_penalty * static_cast<double>(count));
  }
}

void RuledLogits::written(int32_t token) {
  ++tokens_;
  if (!rules_.neutral()) ++counts_[token];
}

}  // namespace dmc::engine
