#include "train/shares.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>

namespace dmc::train {
namespace {

// All as one vector [elements], of memory of its own unless there is but one.
at::Tensor flattened(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& x : tensors) flat.push_back(x.reshape(-1));
  return flat.size() == 1 ? flat.front() : at::cat(flat);
}

// Views of it with the shapes of `like`.
std::vector<at::Tensor> split_as(const at::Tensor& flat, const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> result;
  int64_t first = 0;
  for (const at::Tensor& x : like) {
    result.push_back(flat.narrow(0, first, x.numel()).view(x.sizes()));
    first += x.numel();
  }
  return result;
}

}  // namespace

std::vector<OwnedParameter> share_out(const std::map<std::string, at::Tensor>& parameters,
                                      int ranks) {
  std::vector<OwnedParameter> result;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.requires_grad()) result.push_back({name, parameter, 0});
  }
  std::vector<size_t> order(result.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [&](size_t i) { return result[i].parameter.numel(); });
  std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
  for (const size_t i : order) {
    const auto least = std::ranges::min_element(load);
    *least += result[i].parameter.numel();
    result[i].owner = static_cast<int>(least - load.begin());
  }
  return result;
}

std::vector<Bucket> buckets_of(std::span<const OwnedParameter> parameters, int ranks,
                               int64_t elements) {
  std::vector<Bucket> result;
  for (int rank = 0; rank < ranks; ++rank) {
    int64_t free = 0;
    for (const OwnedParameter& p : parameters) {
      if (p.owner != rank) continue;
      if (free < p.parameter.numel()) {
        result.push_back({rank, {}});
        free = elements;
      }
      result.back().parameters.push_back(p.parameter);
      free -= p.parameter.numel();
    }
  }
  return result;
}

std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& p : parameters) {
    result.push_back(p.grad().defined() ? p.grad() : at::zeros_like(p));
  }
  return result;
}

void sum_gradients(const Bucket& bucket, dist::Group& group) {
  if (group.size() == 1) return;
  const at::Tensor flat = flattened(gradients(bucket.parameters));
  for (const at::Tensor& p : bucket.parameters) p.mutable_grad().reset();  // their memory, early
  group.sum_to(flat, bucket.owner);
  if (group.rank() != bucket.owner) return;
  const std::vector<at::Tensor> sums = split_as(flat, bucket.parameters);
  for (size_t i = 0; i < sums.size(); ++i) bucket.parameters[i].mutable_grad() = sums[i];
}

void spread_parameters(const Bucket& bucket, dist::Group& group) {
  if (group.size() == 1) return;
  const at::Tensor flat = flattened(bucket.parameters);
  group.broadcast(flat, bucket.owner);
  if (bucket.parameters.size() == 1) return;  // it was sent and received in place
  const std::vector<at::Tensor> received = split_as(flat, bucket.parameters);
  for (size_t i = 0; i < received.size(); ++i) {
    if (group.rank() != bucket.owner) bucket.parameters[i].copy_(received[i]);
  }
}

}  // namespace dmc::train
