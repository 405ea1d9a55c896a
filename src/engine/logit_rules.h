// What a request changes about a model's logits before a token is drawn from them.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dmc::engine {

struct LogitRules {
  double repetition_penalty = 1.0;  // above 1: tokens of prompt and text become less likely
  // Taken off the logit of a token that the text has, once, and for each time it has it.
  double presence_penalty = 0.0, frequency_penalty = 0.0;
  std::vector<std::pair<int32_t, float>> bias;  // added to the logits of single tokens
  int64_t min_tokens = 0;                       // that the text has before a stop token may come

  bool neutral() const {
    return repetition_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0 &&
           bias.empty() && min_tokens == 0;
  }
};

// Error(kInvalidArgument) naming the rule that is out of range, or whose token is.
void check_logit_rules(const LogitRules& rules, int64_t vocab_size);

// The rules of one text, with what they need to know of it.
class RuledLogits {
 public:
  // `stop_ids` are the tokens that end the text.
  RuledLogits(LogitRules rules, std::span<const int32_t> prompt, std::vector<int64_t> stop_ids);

  // `logits` with the rules applied, valid until the next call; as they are where no rule is.
  std::span<const float> apply(std::span<const float> logits);
  void written(int32_t token);  // the text has one token more

 private:
  void penalize();

  LogitRules rules_;
  std::vector<int64_t> stop_ids_;
  std::unordered_map<int32_t, int64_t> counts_;  // in the text; 0: in the prompt alone
  int64_t tokens_ = 0;                           // of the text
  std::vector<float> ruled_;
};

}  // namespace dmc::engine
