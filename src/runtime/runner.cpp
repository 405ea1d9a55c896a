#include "runtime/runner.h"

#include <algorithm>
#include <numeric>
#include <string>

namespace dmc::runtime {

using engine::StepItem;

double Runner::compression_ratio(engine::SequenceId sequence) const {
  const std::vector<int64_t> kept = slots(sequence);
  const int64_t sum = std::accumulate(kept.begin(), kept.end(), int64_t{0});
  if (sum == 0) return 1.0;
  return static_cast<double>(length(sequence)) * static_cast<double>(kept.size()) /
         static_cast<double>(sum);
}

void Runner::check_items(std::span<const StepItem> items) const {
  std::vector<engine::SequenceId> sequences;
  for (const StepItem& item : items) {
    DMC_CHECK(!item.tokens.empty());
    for (const int32_t token : item.tokens) DMC_CHECK(token >= 0 && token < vocab_size());
    sequences.push_back(item.sequence);
    const int64_t tokens = length(item.sequence) + std::ssize(item.tokens);
    if (tokens <= max_positions()) continue;
    throw invalid_argument("the text has at least " + std::to_string(tokens) +
                           " tokens, the model's context is " + std::to_string(max_positions()));
  }
  std::ranges::sort(sequences);
  DMC_CHECK(std::ranges::adjacent_find(sequences) == sequences.end());
}

void Runner::require_pages(std::span<const StepItem> items) const {
  const int64_t free = free_pages();
  if (free == kNoLimit) return;
  int64_t pages = 0;
  for (const StepItem& item : items) pages += pages_for(item.sequence, std::ssize(item.tokens));
  if (pages <= free) return;
  throw too_few_pages(pages);
}

Error Runner::too_few_pages(int64_t pages) const {
  return exhausted("the cache has " + std::to_string(free_pages()) + " of its " +
                   std::to_string(total_pages()) + " pages free, and the next tokens may take " +
                   std::to_string(pages) + "; release sequences, or compress further");
}

engine::StepResult Runner::step(std::span<const StepItem> items) {
  check_items(items);
  require_pages(items);
  const auto observed = [this](const StepItem& item) {
    return policy().observes > 0 && (item.ends_prompt || in_prompt(item.sequence));
  };
  const StepPlan plan = plan_step(items, pass_limits(), observed);
  engine::StepResult result;
  result.logits.resize(static_cast<size_t>(plan.logit_rows * vocab_size()));
  for (const Pass& pass : plan.passes) {
    run(pass, result.logits.data());
    for (const PassItem& item : pass.items) {
      advance(item.sequence, std::ssize(item.tokens));
      if (item.ends_prompt) end_prompt(item.sequence);
    }
  }
  end_step();
  return result;
}

}  // namespace dmc::runtime
