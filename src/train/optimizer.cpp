#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace dmc::train {
namespace {

constexpr auto kFirst = "first_moment.", kSecond = "second_moment.", kSteps = "steps.";

at::TensorOptions options_of_steps(const std::vector<OwnedParameter>& parameters) {
  const at::TensorOptions f32 = at::TensorOptions().dtype(at::kFloat);
  return parameters.empty() ? f32 : f32.device(parameters.front().parameter.device());
}

}  // namespace

AdamW::AdamW(const std::map<std::string, at::Tensor>& parameters, const TrainOptions& options,
             dist::Group& group)
    : group_(group),
      parameters_(share_out(parameters, group.size())),
      buckets_(buckets_of(parameters_, group.size())),
      steps_(at::zeros({}, options_of_steps(parameters_))),
      beta1_(options.beta1),
      beta2_(options.beta2),
      epsilon_(options.epsilon),
      clip_(options.clip) {
  decayed_.weight_decay = options.weight_decay;
  for (const OwnedParameter& p : parameters_) {
    if (p.owner != group_.rank()) continue;
    Decay& decay = p.parameter.dim() > 1 ? decayed_ : plain_;
    decay.names.push_back(p.name);
    decay.parameters.push_back(p.parameter);
    decay.first_moments.push_back(at::zeros_like(p.parameter));
    decay.second_moments.push_back(at::zeros_like(p.parameter));
  }
}

// [] in f64, of all ranks' parameters together.
at::Tensor AdamW::norm_of_mean_gradient() const {
  std::vector<at::Tensor> mine = gradients(decayed_.parameters);
  const std::vector<at::Tensor> plain = gradients(plain_.parameters);
  mine.insert(mine.end(), plain.begin(), plain.end());
  at::Tensor norm = mine.empty() ? at::zeros({}, steps_.options().dtype(at::kDouble))
                                 : at::stack(at::_foreach_norm(mine)).to(at::kDouble).norm();
  if (group_.size() == 1) return norm;
  norm = norm * norm;
  group_.sum(norm);
  return norm.sqrt() / group_.size();
}

void AdamW::update(Decay& decay, double learning_rate, const at::Tensor& scale,
                   const at::Tensor& skip) {
  if (decay.parameters.empty()) return;
  const std::vector<at::Tensor> steps(decay.parameters.size(), steps_);  // which are only read
  at::_fused_adamw_(decay.parameters, gradients(decay.parameters), decay.first_moments,
                    decay.second_moments, /*max_exp_avg_sqs=*/{}, steps, learning_rate, beta1_,
                    beta2_, decay.weight_decay, epsilon_, /*amsgrad=*/false, /*maximize=*/false,
                    scale, skip);
  for (at::Tensor& p : decay.parameters) p.mutable_grad().reset();
}

at::Tensor AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (const Bucket& bucket : buckets_) sum_gradients(bucket, group_);
  const at::Tensor norm = norm_of_mean_gradient();
  // The fused step divides gradients by grad_scale, and does nothing where found_inf is 1.
  const at::Tensor scale = ((norm / clip_).clamp_min(1.0) * group_.size()).to(at::kFloat);
  const at::Tensor finite = norm.isfinite().to(at::kFloat);
  steps_ += finite;
  update(decayed_, learning_rate, scale, 1.0 - finite);
  update(plain_, learning_rate, scale, 1.0 - finite);
  for (const Bucket& bucket : buckets_) spread_parameters(bucket, group_);
  return norm;
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> result;
  for (const OwnedParameter& p : parameters_) result[kSteps + p.name] = steps_;
  for (const Decay* decay : {&decayed_, &plain_}) {
    for (size_t i = 0; i < decay->names.size(); ++i) {
      result[kFirst + decay->names[i]] = decay->first_moments[i];
      result[kSecond + decay->names[i]] = decay->second_moments[i];
    }
  }
  return result;
}

std::map<std::string, at::Tensor> AdamW::whole_state() const {
  const at::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> mine = state();
  std::map<std::string, at::Tensor> result;
  for (const OwnedParameter& p : parameters_) {
    for (const char* const kind : {kFirst, kSecond}) {
      const bool here = p.owner == group_.rank();
      const at::Tensor moment = here ? mine.at(kind + p.name) : at::empty_like(p.parameter);
      group_.broadcast(moment, p.owner);
      group_.settle();
      if (group_.is_first()) result[kind + p.name] = moment.cpu();
    }
    if (group_.is_first()) result[kSteps + p.name] = steps_.cpu();
  }
  return result;
}

}  // namespace dmc::train
