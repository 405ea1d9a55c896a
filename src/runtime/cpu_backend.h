// The decoder's pieces on the CPU, with the compressed cache, on kernels alone: what the
// training-side nn::Decoder means, at the speed inference wants. All numbers f32.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "cache/kv_cache.h"
#include "comm/group.h"
#include "policy/policy.h"
#include "runtime/decoder.h"
#include "runtime/policy_choice.h"
#include "runtime/step_plan.h"
#include "runtime/weights.h"

namespace dmc::runtime {

class CpuBackend final : private Backend {
 public:
  // All must outlive it; `cancelled` as in RunnerOptions. Where the model is a shard, the cache has
  // the shard's heads, and the ranks of `group` call the same functions in the same order.
  CpuBackend(const Model& model, const policy::Policy& policy, const DecisionKnobs& knobs,
             cache::KvCache& cache, comm::Group& group, std::function<bool()> cancelled)
      : shard_(model.shard()),
        config_(model::config_of_shard(model.config, shard_)),
        all_kv_heads_(model.config.num_kv_heads),
        group_(group),
        weights_(model.weights),
        policy_(policy),
        knobs_(knobs),
        cache_(cache),
        cancelled_(std::move(cancelled)) {}

  // The ratio that a sequence's cache goes to from now on, instead of the one of the start.
  void hold_ratio(cache::SequenceId sequence, double cr) { held_[sequence] = cr; }
  void forget(cache::SequenceId sequence) { held_.erase(sequence); }

  // Takes the tokens into the cache (not yet advanced); their last hidden states, normed,
  // [tokens][hidden]. Valid until the next call.
  std::span<const float> hidden(const Pass& pass);
  // Logits [rows][vocab] of hidden states [rows][hidden]; on a rank that does not want them `to` is
  // null.
  void logits(const float* hidden, int64_t rows, float* to) const;

 private:
  void embed(int64_t rows) override;
  bool has_norm(NormAt at) const override { return norm_at(at, 0).present(); }
  void norm(NormAt at, int layer, bool adds_delta, bool replaces_x, int64_t rows) override;
  void multiply(Product product, int layer, int64_t rows) override;
  void apply_adapter(int layer, int64_t rows) override;
  void split_heads(int layer, int64_t rows) override;
  void activate(int64_t rows) override;

  const Norm& norm_at(NormAt at, int layer) const;
  void place_rows(const Pass& pass);
  void reserve(int64_t rows);
  // Takes k and v into the layer's cache and fills mixed_.
  void attend(int layer, const Pass& pass);
  double held_ratio(cache::SequenceId sequence) const;  // 0: none
  // The bias of each item's decisions in this pass.
  std::vector<float> biases_of(const Pass& pass) const;
  // Slots that each item's sequence keeps, over the heads of all ranks.
  std::vector<int64_t> kept_slots(const Pass& pass) const;
  // Of this rank's part of the vocabulary, [rows][its tokens].
  void multiply_head(const float* hidden, int64_t rows, float* to) const;
  void gather_logits(const float* hidden, int64_t rows, float* to) const;
  void read_decision(int64_t row, int64_t head, policy::DecisionInput* in) const;
  policy::Verdict decide(int layer, int64_t row, int64_t head) const;

  const model::ShardPlan shard_;
  const model::ModelConfig config_;  // with the shard's heads and MLP
  const int64_t all_kv_heads_;
  comm::Group& group_;
  const DecoderWeights& weights_;
  const policy::Policy& policy_;
  DecisionKnobs knobs_;
  std::map<cache::SequenceId, double> held_;
  cache::KvCache& cache_;
  std::function<bool()> cancelled_;

  // Of the rows of the pass in hand.
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<float> biases_;
  std::vector<cache::SequenceId> decoding_;  // sequences of the first rows
  std::vector<float> x_, normed_, projected_, mixed_, inner_, delta_;
  std::vector<float> adapted_;  // [adapter outputs], of the layer in hand
  std::vector<float> q_, k_, v_;
  std::vector<policy::Decision> decisions_;
  std::vector<float> importance_;
};

}  // namespace dmc::runtime
