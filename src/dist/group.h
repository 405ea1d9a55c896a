// The processes that train one model together, and what they tell one another.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace dmc::dist {

// Others of the run cannot be reached anymore, so it cannot go on.
class PeerLost : public Error {
 public:
  PeerLost(std::vector<int> ranks, const std::string& sentence)
      : Error(ErrorCode::kInternal, sentence), ranks_(std::move(ranks)) {}
  const std::vector<int>& ranks() const { return ranks_; }  // which; empty: not known

 private:
  std::vector<int> ranks_;
};

// One of size() processes (in tests: threads). Each calls the same collectives in the same order,
// with tensors of the same shape and dtype (f32, f64 or int64) that are contiguous, without
// gradients and on the device the group was made for. A call may return before its result is there
// for the host, but not before it is for LibTorch's next operator. Throws PeerLost.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;  // 0 to size() - 1
  virtual int size() const = 0;

  // x becomes the sum of all ranks' x, the same bits on each.
  virtual void sum(const at::Tensor& x) = 0;
  // The same on rank `to` alone; what the others hold afterwards has no meaning.
  virtual void sum_to(const at::Tensor& x, int to) = 0;
  // x becomes that of rank `from`.
  virtual void broadcast(const at::Tensor& x, int from) = 0;
  // Returns when all calls so far have ended on the device, too. To be called before the host waits
  // for the device by other means, which on a GPU would be forever if a peer is gone.
  virtual void settle() {}

  bool is_first() const { return rank() == 0; }
};

Group& alone();  // a process without others

}  // namespace dmc::dist
