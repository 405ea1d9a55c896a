#include "runtime/step_plan.h"

#include <algorithm>

namespace dmc::runtime {
namespace {

using engine::StepItem;
using engine::Wanted;

int64_t rows_wanted(const StepItem& item) {
  switch (item.logits) {
    case Wanted::kNone:
      return 0;
    case Wanted::kLast:
      return 1;
    default:
      return std::ssize(item.tokens);
  }
}

// An item on its way through the passes.
struct Progress {
  const StepItem* item;
  int64_t first_logits;  // row of the step's
  bool chunk;
  int64_t taken = 0;

  int64_t left() const { return std::ssize(item->tokens) - taken; }

  // Takes the next `count` tokens into the pass, whose rows so far are `row`.
  void take(int64_t count, int64_t row, Pass* pass) {
    const bool last = count == left();
    pass->items.push_back(
        {item->sequence,
         item->tokens.subspan(static_cast<size_t>(taken), static_cast<size_t>(count)),
         last && item->ends_prompt});
    if (item->logits == Wanted::kAll) {
      for (int64_t i = 0; i < count; ++i)
        pass->logits.push_back({row + i, first_logits + taken + i});
    } else if (item->logits == Wanted::kLast && last) {
      pass->logits.push_back({row + count - 1, first_logits});
    }
    taken += count;
  }
};

Pass next_pass(std::vector<Progress>& items, const PassLimits& limits) {
  Pass pass;
  int64_t rows = 0;
  for (Progress& item : items) {
    if (item.chunk || item.left() == 0) continue;
    item.take(1, rows++, &pass);
    ++pass.decoding;
  }
  int64_t chunk_rows = 0;
  for (Progress& item : items) {
    const int64_t count = std::min(item.left(), limits.chunk);
    if (count == 0 || (chunk_rows > 0 && chunk_rows + count > limits.chunk_rows)) continue;
    item.take(count, rows + chunk_rows, &pass);
    chunk_rows += count;
  }
  return pass;
}

}  // namespace

int64_t Pass::rows() const {
  int64_t rows = 0;
  for (const PassItem& item : items) rows += std::ssize(item.tokens);
  return rows;
}

StepPlan plan_step(std::span<const StepItem> items, const PassLimits& limits,
                   const std::function<bool(const StepItem&)>& observed) {
  StepPlan plan;
  std::vector<Progress> progress;
  for (const StepItem& item : items) {
    progress.push_back({&item, plan.logit_rows, item.tokens.size() > 1 || observed(item)});
    plan.logit_rows += rows_wanted(item);
  }
  while (std::ranges::any_of(progress, [](const Progress& p) { return p.left() > 0; })) {
    plan.passes.push_back(next_pass(progress, limits));
  }
  return plan;
}

}  // namespace dmc::runtime
