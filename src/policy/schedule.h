// How training changes over its steps: pure functions of the step number.
#pragma once

#include <cstdint>

namespace dmc::policy {

// What is left, at `step` of `steps`, of something a stage takes away: the decision channel in the
// zero-out stage (paper, section 3.2), the noise in the finetune stage. It reaches 0 after four
// fifths of the stage, so that the model also trains without it.
double fade(int64_t step, int64_t steps);

// Compression ratio wanted at `step` of `steps` of the retrofit stage: linear from 1 to `target`.
double ramped_cr(int64_t step, int64_t steps, double target);

// The fraction of tokens that must merge for a compression ratio: 1 - 1/CR.
double merge_fraction(double cr);

// The compression loss's weight for the next step: it rises while the model merges less than wanted
// and falls while it merges more, as a Lagrange multiplier does in dual ascent. A fixed weight is
// either too weak for the target or so strong that heads learn to merge everything before the
// language-model loss can tell tokens apart.
double adapted_weight(double weight, double gain, double wanted_cr, double measured_cr);

// The decision offset for the next step of the finetune stage, from the ratio that decisions have
// as they are served: tokens merge or go where their logit is over the offset, so it rises while
// too many do and falls while too few do, and the model lands on the ratio that was asked for. It
// stays above 0.
double adapted_offset(double offset, double gain, double wanted_cr, double served_cr);

// Linear warm-up over `warmup` steps to `peak`, constant, then a cosine over the last `decay` of
// `total` steps down to `floor`.
double learning_rate(int64_t step, int64_t total, int64_t warmup, int64_t decay, double peak,
                     double floor);

}  // namespace dmc::policy
