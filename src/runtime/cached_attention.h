// Attention for inference: takes the policy's decisions, keeps keys and values in the compressed
// cache, attends over its slots.
#pragma once

#include <span>
#include <vector>

#include "cache/kv_cache.h"
#include "io/model_config.h"
#include "nn/attention.h"
#include "policy/policy.h"

namespace dmc::runtime {

class CachedAttention : public nn::AttentionStrategy {
 public:
  // All three must outlive it.
  CachedAttention(const io::ModelConfig& config, const policy::Policy& policy,
                  cache::KvCache& cache)
      : config_(config), policy_(policy), cache_(cache) {}

  // Says whose tokens the following calls of attend() bring: T of one sequence, shape [1, T, ...],
  // or one of each, shape [n, 1, ...].
  void begin_prefill(cache::SequenceId sequence) { begin({&sequence, 1}, false); }
  void begin_decode(std::span<const cache::SequenceId> sequences) { begin(sequences, true); }

  at::Tensor attend(int64_t layer, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                    const at::Tensor& v_BTKd) override;

 private:
  struct Decisions {
    std::vector<uint8_t> merge;     // [tokens][KV heads]
    std::vector<float> importance;  // the same
  };
  void begin(std::span<const cache::SequenceId> sequences, bool decode);
  Decisions decide(const float* q, const float* k, int64_t tokens) const;
  void rotate_queries(float* q, int64_t tokens) const;

  const io::ModelConfig& config_;
  const policy::Policy& policy_;
  cache::KvCache& cache_;
  std::vector<cache::SequenceId> sequences_;
  bool decode_ = false;
};

}  // namespace dmc::runtime
