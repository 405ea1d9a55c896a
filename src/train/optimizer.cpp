#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace dmc::train {
namespace {

// All gradients of a model as one list; parameters the step did not reach count as zero.
std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& p : parameters) {
    result.push_back(p.grad().defined() ? p.grad() : at::zeros_like(p));
  }
  return result;
}

// Of all tensors together, [] in f64.
at::Tensor global_norm(const std::vector<at::Tensor>& tensors) {
  return at::stack(at::_foreach_norm(tensors)).to(at::kDouble).norm();
}

}  // namespace

AdamW::AdamW(const std::map<std::string, at::Tensor>& parameters, const TrainOptions& options)
    : beta1_(options.beta1), beta2_(options.beta2), epsilon_(options.epsilon), clip_(options.clip) {
  decayed_.weight_decay = options.weight_decay;
  for (const auto& [name, parameter] : parameters) {
    if (!parameter.requires_grad()) continue;
    Group& group = parameter.dim() > 1 ? decayed_ : plain_;
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    group.first_moments.push_back(at::zeros_like(parameter));
    group.second_moments.push_back(at::zeros_like(parameter));
    group.steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)));
  }
}

at::Tensor AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  Group* const groups[] = {&decayed_, &plain_};
  std::vector<at::Tensor> all;
  for (Group* group : groups) {
    group->gradients = gradients(group->parameters);
    all.insert(all.end(), group->gradients.begin(), group->gradients.end());
  }
  const at::Tensor norm = global_norm(all);
  // The fused step divides gradients by grad_scale, and does nothing where found_inf is 1.
  const at::Tensor scale = (norm / clip_).clamp_min(1.0).to(at::kFloat);
  const at::Tensor finite = norm.isfinite().to(at::kFloat);
  for (Group* group : groups) {
    if (group->parameters.empty()) continue;
    at::_foreach_add_(group->steps, finite);
    at::_fused_adamw_(group->parameters, group->gradients, group->first_moments,
                      group->second_moments, /*max_exp_avg_sqs=*/{}, group->steps, learning_rate,
                      beta1_, beta2_, group->weight_decay, epsilon_, /*amsgrad=*/false,
                      /*maximize=*/false, scale, /*found_inf=*/1.0 - finite);
    group->gradients.clear();
    for (at::Tensor& p : group->parameters) p.mutable_grad().reset();
  }
  return norm;
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> result;
  for (const Group* group : {&decayed_, &plain_}) {
    for (size_t i = 0; i < group->names.size(); ++i) {
      result["first_moment." + group->names[i]] = group->first_moments[i];
      result["second_moment." + group->names[i]] = group->second_moments[i];
      result["steps." + group->names[i]] = group->steps[i];
    }
  }
  return result;
}

}  // namespace dmc::train
