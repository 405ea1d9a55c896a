// Multiple choice: the answer is the ending that the model finds likeliest.
#pragma once

#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace dmc::eval {

// One question. Either one context and several endings, or several contexts and one ending.
struct ChoiceItem {
  std::vector<std::string> contexts;
  std::vector<std::string> endings;  // with the space before them
  size_t gold = 0;                   // index of the right choice
  // Characters of each choice, by which acc_norm divides; empty: the task has no acc_norm.
  std::vector<int64_t> lengths;
  std::string beginning;  // what the contexts of a subject all begin with, or ""
  std::string subject;    // "" where a task has one only

  size_t choices() const { return std::max(contexts.size(), endings.size()); }
};

// "Context" and " choice" for each of `choices`, with their lengths.
ChoiceItem make_choice_item(std::string context, const std::vector<std::string>& choices,
                            size_t gold);

// acc and acc_norm as lm-evaluation-harness computes them. With several subjects, the mean over all
// items with the standard error pooled over subjects; the limit is for each subject.
TaskScore score_choices(const TaskInput& input, const std::vector<ChoiceItem>& items);

// The likelihood of the one ending: acc (it is what greedy decoding gives) and perplexity.
TaskScore score_last_word(const TaskInput& input, const std::vector<ChoiceItem>& items);

}  // namespace dmc::eval
