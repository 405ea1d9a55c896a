// What a compressed cache computes, written down as it is defined: one (sequence, layer, KV head),
// token by token, in f64, with every raw token kept and every mean taken anew. Slow on purpose: the
// oracle that the cache and its kernels are tested against.
#pragma once

#include <cstdint>
#include <vector>

#include "policy/policy.h"

namespace dmc::policy {

using Vector = std::vector<double>;  // [head_dim]

struct ReferenceToken {
  Vector k, v;            // k before rotary, decision channel zeroed
  std::vector<Vector> q;  // one per query head of the group, already rotated
  Decision decision;      // ignored for the first token
  double importance;
};

struct ReferenceSlot {
  Vector key, value;  // key rotated
  double mass = 0.0;
};

struct ReferenceOptions {
  int window = 0;           // tokens of a segment its slot averages, 0 for all
  double rope_theta = 0.0;  // 0: no rotary embedding
  bool mass_term = false;   // the logarithm of the number of a slot's tokens is added to its scores
  // The newest tokens, so many, are slots of their own; decisions are about the others.
  int64_t delay = 0;
  bool newest_weighs_one = false;  // in its slot, whatever its importance
};

class ReferenceStream {
 public:
  explicit ReferenceStream(const ReferenceOptions& options) : options_(options) {}

  // Takes the token in; gives the attention output of each of its queries.
  std::vector<Vector> step(const ReferenceToken& token);
  // Oldest first: closed slots, the open one, tokens that are raw.
  std::vector<ReferenceSlot> slots() const;

 private:
  struct Stored {
    Vector k, v;
    Decision decision;
    double importance;
    int64_t position;
  };
  using Segment = std::vector<Stored>;
  std::vector<Segment> segments() const;
  ReferenceSlot slot_of(const Segment& segment) const;

  ReferenceOptions options_;
  std::vector<Stored> tokens_;
};

}  // namespace dmc::policy
