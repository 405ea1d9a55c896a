// A runner's sequence that is given back at the end of its scope, and what caches took.
#pragma once

#include <utility>

#include "engine/model_runner.h"

namespace dmc::eval {

class Sequence {
 public:
  explicit Sequence(engine::ModelRunner& runner) : Sequence(runner, runner.add_sequence()) {}
  ~Sequence() {
    if (runner_ != nullptr) runner_->release(id_);
  }
  Sequence(Sequence&& other) noexcept
      : runner_(std::exchange(other.runner_, nullptr)), id_(other.id_) {}
  Sequence& operator=(Sequence&& other) noexcept {
    std::swap(runner_, other.runner_);
    std::swap(id_, other.id_);
    return *this;
  }

  Sequence fork() const { return {*runner_, runner_->fork(id_)}; }
  engine::SequenceId id() const { return id_; }

 private:
  Sequence(engine::ModelRunner& runner, engine::SequenceId id) : runner_(&runner), id_(id) {}
  engine::ModelRunner* runner_;
  engine::SequenceId id_;
};

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
