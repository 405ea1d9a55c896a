// What a compressed cache computes, written down as it is defined: one (sequence, layer, KV head),
// token by token, in f64, with every raw token kept and every mean taken anew. Slow on purpose: the
// oracle that the cache and its kernels are tested against.
#pragma once

#include <cstdint>
#include <vector>

namespace dmc::policy {

using Vector = std::vector<double>;  // [head_dim]

struct ReferenceToken {
  Vector k, v;            // k before rotary, decision channel zeroed
  std::vector<Vector> q;  // one per query head of the group, already rotated
  bool merge;             // ignored for the first token
  double importance;
};

struct ReferenceSlot {
  Vector key, value;  // key rotated
  double mass = 0.0;
};

class ReferenceStream {
 public:
  // window: tokens of a segment its slot averages, 0 for all. rope_theta 0: no rotary embedding.
  // mass_term: the logarithm of the number of a slot's tokens is added to its scores.
  ReferenceStream(int window, double rope_theta, bool mass_term = false)
      : window_(window), rope_theta_(rope_theta), mass_term_(mass_term) {}

  // Appends or merges the token; gives the attention output of each of its queries.
  std::vector<Vector> step(const ReferenceToken& token);
  std::vector<ReferenceSlot> slots() const;  // oldest first, the open one last

 private:
  struct Stored {
    Vector k, v;
    double importance;
    int64_t position;
  };
  ReferenceSlot pooled(const std::vector<Stored>& segment) const;

  int window_;
  double rope_theta_;
  bool mass_term_;
  int64_t length_ = 0;
  std::vector<std::vector<Stored>> segments_;
};

}  // namespace dmc::policy
