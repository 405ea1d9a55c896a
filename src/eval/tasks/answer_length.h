// Does a compressed model ramble? How long its texts get, and how much of them is repetition.
#pragma once

#include <span>

#include "eval/tasks/task.h"

namespace dmc::eval {

// The share of tokens that end a run of eight which stood in `tokens` before; 0 for fewer than nine
// tokens.
double repeated_share(std::span<const int32_t> tokens);

// The first half of each window of input.text (512 tokens at most) is continued greedily by
// input.runner and by input.reference, up to 256 tokens or the end of the text: length and
// reference_length (tokens), unfinished (share that reached 256) and repeated (repeated_share()).
TaskScore run_answer_length(const TaskInput& input);

}  // namespace dmc::eval
