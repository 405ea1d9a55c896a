#include "train/loss.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/named.h"

namespace dmc::train {
namespace {

at::Tensor forward_kl(const at::Tensor& student_NV, const at::Tensor& teacher_NV) {
  return (teacher_NV.exp() * (teacher_NV - student_NV)).sum(-1).mean();
}

at::Tensor reverse_kl(const at::Tensor& student_NV, const at::Tensor& teacher_NV) {
  return (student_NV.exp() * (student_NV - teacher_NV)).sum(-1).mean();
}

constexpr Divergence kDivergences[] = {
    {"forward", "KL(teacher || student)", forward_kl},
    {"reverse", "KL(student || teacher)", reverse_kl},
};

at::Tensor log_probabilities(const nn::Decoder& model, const at::Tensor& hidden_ND) {
  const at::Tensor logits = model.logits(hidden_ND);
  return at::log_softmax(logits, -1, c10::promoteTypes(logits.scalar_type(), at::kFloat));
}

at::Tensor teacher_log_probabilities(const Distillation& distillation, int64_t first,
                                     int64_t count) {
  const at::NoGradGuard no_grad;
  return log_probabilities(*distillation.teacher,
                           distillation.teacher_hidden_ND.narrow(0, first, count));
}

}  // namespace

std::span<const Divergence> divergences() { return kDivergences; }

const Divergence* find_divergence(std::string_view name) { return find_named(kDivergences, name); }

TokenLoss head_backward(const nn::Decoder& model, const at::Tensor& hidden_ND,
                        const at::Tensor& targets_N, const Distillation& distillation,
                        int64_t logits_at_once) {
  // A leaf of its own: each chunk's backward pass ends there, and its logits can go.
  const at::Tensor leaf_ND = hidden_ND.detach().set_requires_grad(true);
  const int64_t tokens = leaf_ND.size(0);
  const int64_t chunk = std::max<int64_t>(1, logits_at_once / model.config().vocab_size);
  const at::Tensor zero = at::zeros({}, leaf_ND.options().dtype(at::kDouble).requires_grad(false));
  TokenLoss result{zero, zero.clone(), {}};
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    const double share = static_cast<double>(count) / static_cast<double>(tokens);
    const at::Tensor student = log_probabilities(model, leaf_ND.narrow(0, first, count));
    const at::Tensor lm_loss = at::nll_loss(student, targets_N.narrow(0, first, count));
    result.language_model += share * lm_loss.detach();
    at::Tensor loss = lm_loss;
    if (distillation.divergence != nullptr) {
      const at::Tensor divergence = distillation.divergence->of(
          student, teacher_log_probabilities(distillation, first, count));
      result.divergence += share * divergence.detach();
      loss = distillation.weight * divergence + (1.0 - distillation.weight) * lm_loss;
    }
    (loss * share).backward();
  }
  result.hidden_grad_ND = leaf_ND.grad();
  return result;
}

}  // namespace dmc::train
