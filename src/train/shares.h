// Which rank updates which parameter, and how gradients and parameters travel between them.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <span>
#include <string>
#include <vector>

#include "dist/group.h"

namespace dmc::train {

struct OwnedParameter {
  std::string name;
  at::Tensor parameter;
  int owner;  // rank
};

// Those that require gradients, ordered by name. Largest first, each goes to the rank that has
// least so far: a rank has at most one tensor more than its equal share.
std::vector<OwnedParameter> share_out(const std::map<std::string, at::Tensor>& parameters,
                                      int ranks);

// Parameters of one owner that travel as one tensor, because every call costs its latency.
struct Bucket {
  int owner;
  std::vector<at::Tensor> parameters;
};

inline constexpr int64_t kBucketElements = int64_t{1} << 24;  // 64 MB of floats

// In an order that is the same on all ranks. A bucket has at most `elements`, or one parameter.
std::vector<Bucket> buckets_of(std::span<const OwnedParameter> parameters, int ranks,
                               int64_t elements = kBucketElements);

// Of each; zeros where the step did not reach it.
std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& parameters);

// Gives the owner the sum of all ranks' gradients and takes them from the others. Nothing for a
// group of one. A collective.
void sum_gradients(const Bucket& bucket, dist::Group& group);
// Gives all ranks the parameters of their owner. A collective.
void spread_parameters(const Bucket& bucket, dist::Group& group);

}  // namespace dmc::train
