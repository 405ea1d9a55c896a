// What the caches of a score's sequences took.
#pragma once

#include "engine/model_runner.h"

namespace dmc::eval {

using engine::Sequence;

// Tokens seen and slots kept over all sequences that a score came from.
class CacheUse {
 public:
  void add(const engine::ModelRunner& runner, const Sequence& sequence, size_t tokens) {
    tokens_ += static_cast<double>(tokens);
    slots_ += static_cast<double>(tokens) / runner.compression_ratio(sequence.id());
  }
  double compression_ratio() const { return slots_ > 0 ? tokens_ / slots_ : 1.0; }

 private:
  double tokens_ = 0.0, slots_ = 0.0;
};

}  // namespace dmc::eval
