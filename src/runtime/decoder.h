// One pass of a decoder over some tokens with the compressed cache, on kernels alone: what the
// training-side nn::Decoder means, at the speed inference wants. All numbers f32, rows of
// [hidden].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/kv_cache.h"
#include "policy/policy.h"
#include "runtime/policy_choice.h"
#include "runtime/step_plan.h"
#include "runtime/weights.h"

namespace dmc::runtime {

class Decoder {
 public:
  // All must outlive it.
  Decoder(const Model& model, const policy::Policy& policy, const DecisionKnobs& knobs,
          cache::KvCache& cache)
      : config_(model.config),
        weights_(model.weights),
        policy_(policy),
        knobs_(knobs),
        cache_(cache) {}

  // Takes the tokens into the cache (not yet advanced); their last hidden states, normed,
  // [tokens][hidden]. Valid until the next call.
  std::span<const float> hidden(const Pass& pass);
  // Logits [rows][vocab] of hidden states [rows][hidden].
  void logits(const float* hidden, int64_t rows, float* to) const;

 private:
  void place_rows(const Pass& pass);
  void embed();
  void attention(int layer, const Pass& pass);
  // Takes k and v into the layer's cache and fills mixed_.
  void attend(int layer, const Pass& pass);
  void mlp(int layer);
  void apply_adapter(const LayerWeights& layer);
  void split_heads(int layer);
  float bias_of(cache::SequenceId sequence) const;  // of its decisions in this pass
  void read_decision(int64_t row, int64_t head, policy::DecisionInput* in) const;
  policy::Decision decide(int layer, int64_t row, int64_t head) const;

  const model::ModelConfig& config_;
  const DecoderWeights& weights_;
  const policy::Policy& policy_;
  DecisionKnobs knobs_;
  cache::KvCache& cache_;

  int64_t rows_ = 0;  // of the pass in hand
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<float> biases_;
  std::vector<cache::SequenceId> decoding_;  // sequences of the first rows
  std::vector<float> x_, normed_, projected_, inner_;
  std::vector<float> adapted_;  // [rows][adapter outputs], of the layer in hand
  std::vector<float> q_, k_, v_, mixed_;
  std::vector<uint8_t> merge_;
  std::vector<float> importance_;
};

}  // namespace dmc::runtime
