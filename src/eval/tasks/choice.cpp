#include "eval/tasks/choice.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "eval/continuation.h"
#include "eval/tasks/statistics.h"
#include "text/strings.h"

namespace dmc::eval {
namespace {

// The first `limit` items of each subject (0: all), in their order.
std::vector<const ChoiceItem*> chosen_items(const std::vector<ChoiceItem>& items, int64_t limit) {
  std::map<std::string, int64_t> taken;
  std::vector<const ChoiceItem*> chosen;
  for (const ChoiceItem& item : items) {
    if (limit == 0 || taken[item.subject]++ < limit) chosen.push_back(&item);
  }
  return chosen;
}

std::vector<double> log_probs(ContinuationScorer& scorer, const ChoiceItem& item) {
  std::vector<double> result;
  for (const std::string& context : item.contexts) {
    for (const LogLikelihood& rating : scorer.score(context, item.endings, item.beginning)) {
      result.push_back(rating.log_prob);
    }
  }
  return result;
}

std::vector<std::vector<double>> values(const std::map<std::string, std::vector<double>>& groups) {
  std::vector<std::vector<double>> result;
  for (const auto& [name, group] : groups) result.push_back(group);
  return result;
}

bool best_is_gold(const std::vector<double>& scores, size_t gold) {
  return static_cast<size_t>(std::ranges::max_element(scores) - scores.begin()) == gold;
}

}  // namespace

ChoiceItem make_choice_item(std::string context, const std::vector<std::string>& choices,
                            size_t gold) {
  ChoiceItem item;
  item.contexts = {std::move(context)};
  for (const std::string& choice : choices) {
    item.endings.push_back(" " + choice);
    item.lengths.push_back(text::count_characters(choice));
  }
  item.gold = gold;
  return item;
}

TaskScore score_choices(const TaskInput& input, const std::vector<ChoiceItem>& items) {
  const auto chosen = chosen_items(items, input.limit);
  ContinuationScorer scorer(input.runner, input.tokenizer);
  std::map<std::string, std::vector<double>> acc, acc_norm;  // by subject
  int64_t done = 0;
  for (const ChoiceItem* item : chosen) {
    std::vector<double> scores = log_probs(scorer, *item);
    DMC_CHECK(scores.size() == item->choices() && item->gold < scores.size());
    acc[item->subject].push_back(best_is_gold(scores, item->gold));
    if (!item->lengths.empty()) {
      for (size_t i = 0; i < scores.size(); ++i) scores[i] /= static_cast<double>(item->lengths[i]);
      acc_norm[item->subject].push_back(best_is_gold(scores, item->gold));
    }
    input.progress(++done, static_cast<int64_t>(chosen.size()));
  }
  TaskScore score{done, {pooled_metric("acc", values(acc))}, scorer.compression_ratio()};
  if (!acc_norm.empty()) score.metrics.push_back(pooled_metric("acc_norm", values(acc_norm)));
  return score;
}

TaskScore score_last_word(const TaskInput& input, const std::vector<ChoiceItem>& items) {
  const auto chosen = chosen_items(items, input.limit);
  ContinuationScorer scorer(input.runner, input.tokenizer);
  std::vector<double> acc, log_prob;
  for (const ChoiceItem* item : chosen) {
    const LogLikelihood rating = scorer.score(item->contexts[0], item->endings).front();
    acc.push_back(rating.greedy);
    log_prob.push_back(rating.log_prob);
    input.progress(static_cast<int64_t>(acc.size()), static_cast<int64_t>(chosen.size()));
  }
  // The standard error of exp(-mean) to first order (the harness resamples instead).
  Metric perplexity = mean_metric("perplexity", log_prob);
  perplexity.value = std::exp(-perplexity.value);
  perplexity.standard_error *= perplexity.value;
  return {static_cast<int64_t>(acc.size()),
          {perplexity, mean_metric("acc", acc)},
          scorer.compression_ratio()};
}

}  // namespace dmc::eval
