// A model that several ranks share: each has some of the KV heads with their query heads and cache,
// of the MLP and of the vocabulary (model::ShardPlan). Whoever uses it need not know.
#pragma once

#include <memory>
#include <vector>

#include "comm/rank_threads.h"
#include "runtime/decoder_runner.h"

namespace dmc::runtime {

// A step is cut into passes once, and each pass is run by all ranks together. Its pages are
// reserved before, on all ranks: the smallest free pool decides. Pages are counted as those of the
// whole model, so that numbers compare with a DecoderRunner's.
//
// If a rank fails within a pass, which is none of the errors that step() names, the others stop,
// too, and its error is thrown: the step's sequences are then good for release() alone.
class TensorParallelRunner final : public Runner {
 public:
  // The shards of a model, as load_shards() gives them, and a group for each rank.
  // Error(kInvalidArgument) as DecoderRunner, or for a policy that compares the heads of a layer,
  // which are on different ranks.
  TensorParallelRunner(const std::vector<std::shared_ptr<const Model>>& shards,
                       const RunnerOptions& options,
                       std::vector<std::unique_ptr<comm::Group>> groups);
  TensorParallelRunner(const std::vector<std::shared_ptr<const Model>>& shards,
                       const RunnerOptions& options);  // on a thread each

  int64_t max_positions() const override { return first().max_positions(); }
  engine::SequenceId add_sequence() override;
  engine::SequenceId fork(engine::SequenceId parent) override;
  void release(engine::SequenceId sequence) override;
  bool can_hold_ratios() const override { return first().can_hold_ratios(); }
  void hold_ratio(engine::SequenceId sequence, double cr) override;
  int64_t free_pages() const override;
  int64_t total_pages() const override;
  int64_t most_pages(engine::SequenceId sequence, int64_t tokens, int64_t at_once) const override;
  int64_t pages_of(engine::SequenceId sequence) const override;

  // Its weights are the first rank's.
  const Model& model() const override { return first().model(); }
  const policy::Policy& policy() const override { return first().policy(); }
  int64_t length(engine::SequenceId sequence) const override { return first().length(sequence); }
  std::vector<int64_t> slots(engine::SequenceId sequence) const override;
  int64_t cache_bytes() const override;
  const DecoderRunner& rank(int rank) const { return *runners_[static_cast<size_t>(rank)]; }

 private:
  PassLimits pass_limits() const override { return first().pass_limits(); }
  bool in_prompt(engine::SequenceId sequence) const override { return first().in_prompt(sequence); }
  void run(const Pass& pass, float* logits) override;
  void advance(engine::SequenceId sequence, int64_t tokens) override;
  void end_prompt(engine::SequenceId sequence) override;

  const DecoderRunner& first() const { return *runners_.front(); }
  int64_t ranks() const { return std::ssize(runners_); }
  // Of the whole model, by what each rank says of its own.
  template <class Pages>
  int64_t fewest(const Pages& pages) const;

  comm::RankThreads threads_;
  std::vector<std::unique_ptr<DecoderRunner>> runners_;  // by rank
};

}  // namespace dmc::runtime
