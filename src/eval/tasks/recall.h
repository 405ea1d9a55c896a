// Recall: does the model still know a name it saw long ago? Scored on exactly those tokens of real
// source text where only distant context helps.
#pragma once

#include <span>
#include <vector>

#include "eval/tasks/task.h"

namespace dmc::eval {

// An occurrence of an identifier: tokens [first, last) of a window.
struct Recall {
  size_t first, last;
};

// Occurrences of identifiers ([A-Za-z_][A-Za-z0-9_]*, five characters or more) that occur earlier
// in the window, but not within the `distance` tokens before. A token of `end_of_text` begins a new
// document. A token that reaches into an identifier (a space and its first letters) counts as its.
std::vector<Recall> find_recalls(const text::Tokenizer& tokenizer, std::span<const int32_t> tokens,
                                 size_t distance, std::span<const int64_t> end_of_text);

// On the recalls of input.text at distance 256: local_loss (nats a token when the model sees the
// last 256 tokens alone), loss and acc (the whole window in the compressed cache), and names (share
// of identifiers with every token right). loss - local_loss is what distant context brings.
TaskScore run_recall(const TaskInput& input);

}  // namespace dmc::eval
