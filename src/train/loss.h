// What a step minimizes besides the stage's own loss: the language-model loss, or the divergence
// from a teacher. Logits of a whole batch may be larger than all else that training holds, so they
// exist for a chunk of tokens at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string_view>

#include "nn/decoder.h"

namespace dmc::train {

// A divergence of the student's next-token distributions from the teacher's, both as logarithms
// [N, V]: nats, the mean over N tokens. Differentiable in the student. The forward one makes it
// cover all that the teacher holds possible, the reverse one settle on what the teacher holds
// likely.
struct Divergence {
  std::string_view name;
  std::string_view summary;  // for --help
  at::Tensor (*of)(const at::Tensor& student_NV, const at::Tensor& teacher_NV);
};

std::span<const Divergence> divergences();
const Divergence* find_divergence(std::string_view name);

// What a student is held to: `weight` of its loss is the divergence, the rest the language model's.
struct Distillation {
  const Divergence* divergence = nullptr;  // null: none
  double weight = 0.0;
  const nn::Decoder* teacher = nullptr;
  at::Tensor teacher_hidden_ND;  // last hidden states of the same tokens
};

// Nats per token, means over the batch: f64 numbers on the model's device, where they stay so that
// nobody waits for them.
struct TokenLoss {
  at::Tensor language_model;  // []
  at::Tensor divergence;      // []; 0 without a teacher
  at::Tensor hidden_grad_ND;  // what is left to propagate below the last hidden states
};

inline constexpr int64_t kLogitsAtOnce = int64_t{1} << 24;  // 64 MB of floats

// hidden_ND: the model's last hidden states of N tokens; targets_N: the tokens that follow.
// Adds to the gradients of what is above the hidden states.
TokenLoss head_backward(const nn::Decoder& model, const at::Tensor& hidden_ND,
                        const at::Tensor& targets_N, const Distillation& distillation,
                        int64_t logits_at_once = kLogitsAtOnce);

}  // namespace dmc::train
