// What the tests of this folder run on instead of a model.
#pragma once

#include <map>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "engine/model_runner.h"

namespace dmc::eval {

// Its logits are random numbers that depend on all tokens a sequence has seen, in their order: a
// score from a wrong history is a wrong score.
class HistoryRunner : public engine::ModelRunner {
 public:
  static constexpr double kRatio = 2.5;
  HistoryRunner(int64_t vocabulary, int64_t positions)
      : vocabulary_(vocabulary), positions_(positions) {}

  int64_t vocab_size() const override { return vocabulary_; }
  int64_t max_positions() const override { return positions_; }
  engine::SequenceId add_sequence() override { return add({}); }
  engine::SequenceId fork(engine::SequenceId parent) override { return add(states_.at(parent)); }
  void release(engine::SequenceId sequence) override { states_.erase(sequence); }
  double compression_ratio(engine::SequenceId) const override { return kRatio; }

  int64_t length(engine::SequenceId sequence) const override { return states_.at(sequence).length; }
  engine::StepResult step(std::span<const engine::StepItem> items) override {
    engine::StepResult result;
    for (const engine::StepItem& item : items) {
      DMC_CHECK(!item.tokens.empty());
      State& state = states_.at(item.sequence);
      for (const int32_t& token : item.tokens) {
        state.hash = mix64(state.hash ^ static_cast<uint64_t>(token));
        DMC_CHECK(++state.length <= positions_);
        const bool last = &token == &item.tokens.back();
        if (item.logits == engine::Wanted::kAll || (item.logits == engine::Wanted::kLast && last)) {
          add_logits(state.hash, &result.logits);
        }
      }
    }
    return result;
  }

  size_t sequences() const { return states_.size(); }

 private:
  struct State {
    uint64_t hash = 1;
    int64_t length = 0;
  };
  void add_logits(uint64_t hash, std::vector<float>* to) const {
    for (int64_t i = 0; i < vocabulary_; ++i) {
      to->push_back(static_cast<float>(4.0 * random_uniform(hash, 0, static_cast<uint64_t>(i))));
    }
  }
  engine::SequenceId add(State state) {
    states_[next_] = state;
    return next_++;
  }
  int64_t vocabulary_, positions_;
  engine::SequenceId next_ = 1;
  std::map<engine::SequenceId, State> states_;
};

}  // namespace dmc::eval
