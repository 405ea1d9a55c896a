// HumanEval: the model completes Python functions, and unit tests judge them (Chen et al., 2021).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "eval/tasks/task.h"

namespace dmc::eval {

// `text` before the first place where one of `stops` begins.
std::string_view cut_at_stop(std::string_view text, std::span<const std::string_view> stops);

// The chance that one of k samples out of n, c of them right, is right: 1 - C(n-c, k) / C(n, k).
double pass_at_k(int64_t n, int64_t c, int64_t k);

// pass@1, and pass@10 and pass@100 where there are as many samples. One sample is decoded greedily,
// more are drawn at CodeOptions::temperature with top-p 0.95. Prompt, stop words and tests are
// lm-evaluation-harness's, but run apart from what the model wrote (sandbox.h); a prompt that
// leaves no room for 1,024 tokens loses its beginning.
TaskScore run_humaneval(const TaskInput& input);

}  // namespace dmc::eval
