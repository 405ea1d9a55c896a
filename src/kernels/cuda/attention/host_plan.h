// For tests: the plan of one layer, made by one thread.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/attention/plan.h"

namespace dmc::kernels::cuda {

class HostPlan {
 public:
  // closed: slots of each stream before the step; -1: of a row that is not in use.
  HostPlan(std::span<const int32_t> closed, int32_t max_workers)
      : max_workers_(max_workers), cuts_(static_cast<size_t>(max_workers) + 1) {
    starts_.push_back(0);
    for (int32_t slots : closed) {
      const int cost = slots < 0 ? 0 : planned_tiles(slots) + kStreamCost;
      starts_.push_back(starts_.back() + cost);
    }
    const int64_t total = starts_.back();
    if (total == 0) return;
    const int64_t workers = workers_used(total, max_workers);
    for (size_t item = 0; item < closed.size(); ++item) {
      cut_item(static_cast<int32_t>(item), starts_[item], starts_[item + 1], workers, total,
               cuts_.data());
    }
    cuts_[static_cast<size_t>(workers)] = {static_cast<int32_t>(closed.size()), 0};
  }

  PlanView view() { return {starts_.data(), cuts_.data(), max_workers_}; }

 private:
  int32_t max_workers_;
  std::vector<int32_t> starts_;
  std::vector<Cut> cuts_;
};

}  // namespace dmc::kernels::cuda
