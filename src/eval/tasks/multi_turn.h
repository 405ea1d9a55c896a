// A conversation whose cache is kept: does quality last over eight turns?
#pragma once

#include "eval/tasks/task.h"

namespace dmc::eval {

inline constexpr size_t kTurns = 8;

// Each window of input.text is cut into kTurns turns, the first half of a turn being its question,
// the second its answer. Kept: questions and answers come one after another into one cache, a
// question as a prompt. Rebuilt: for each answer a new cache takes in everything before it as one
// prompt. loss (nats a token) and acc of the answers' tokens from kept caches, rebuilt_loss and
// rebuilt_acc from rebuilt ones; the grid has acc by turn.
TaskScore run_multi_turn(const TaskInput& input);

}  // namespace dmc::eval
