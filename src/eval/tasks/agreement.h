// How far a compressed cache moves what a model says.
#pragma once

#include <span>

#include "eval/tasks/task.h"

namespace dmc::eval {

// KL(p || q) in nats of the distributions that two rows of logits stand for; 0 where p is 0.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

// input.runner against input.reference, token by token of input.text: kl (mean, nats), kl_max, and
// top1 (share of tokens where both have the same first choice).
TaskScore run_agreement(const TaskInput& input);

}  // namespace dmc::eval
