#include "runtime/cached_attention.h"

#include <ATen/ops/empty_like.h>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/rope.h"

namespace dmc::runtime {

void CachedAttention::begin(std::span<const cache::SequenceId> sequences, bool decode) {
  sequences_.assign(sequences.begin(), sequences.end());
  decode_ = decode;
}

CachedAttention::Decisions CachedAttention::decide(const float* q, const float* k,
                                                   int64_t tokens) const {
  const int64_t d = config_.head_dim, K = config_.num_kv_heads, G = config_.group_size();
  Decisions decisions;
  decisions.merge.reserve(static_cast<size_t>(tokens * K));
  decisions.importance.reserve(static_cast<size_t>(tokens * K));
  const float offset = config_.dmc ? static_cast<float>(config_.dmc->decision_offset) : 0.0f;
  for (int64_t row = 0; row < tokens * K; ++row) {  // row = token * K + head
    float mean = 0.0f;
    for (int64_t g = 0; g < G; ++g) mean += q[(row * G + g) * d + d - 1];
    const policy::Decision decision =
        policy_.decide({k[row * d + d - 1], mean / static_cast<float>(G), offset});
    decisions.merge.push_back(decision.merge);
    decisions.importance.push_back(decision.importance);
  }
  return decisions;
}

void CachedAttention::rotate_queries(float* q, int64_t tokens) const {
  const kernels::RopeTable* rope = cache_.config().rope;
  if (rope == nullptr) return;
  const int64_t d = config_.head_dim, H = config_.num_heads;
  constexpr int64_t kTokensAtOnce = 64;
  parallel_for(0, tokens, kTokensAtOnce, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t position = decode_ ? cache_.length(sequences_[static_cast<size_t>(t)])
                                       : cache_.length(sequences_[0]) + t;
      for (int64_t h = 0; h < H; ++h) {
        float* const row = q + (t * H + h) * d;
        kernels::rotate(row, row, d, rope->cos_at(position), rope->sin_at(position));
      }
    }
  });
}

at::Tensor CachedAttention::attend(int64_t layer, const at::Tensor& q_BTHd,
                                   const at::Tensor& k_BTKd, const at::Tensor& v_BTKd) {
  DMC_CHECK(q_BTHd.scalar_type() == at::kFloat && q_BTHd.size(decode_ ? 1 : 0) == 1);
  const at::Tensor q = q_BTHd.clone(at::MemoryFormat::Contiguous);
  const at::Tensor k = k_BTKd.clone(at::MemoryFormat::Contiguous);
  const at::Tensor v = v_BTKd.contiguous();
  const at::Tensor out = at::empty_like(q);
  const int64_t tokens = q.size(0) * q.size(1);

  const Decisions decisions = decide(q.const_data_ptr<float>(), k.const_data_ptr<float>(), tokens);
  if (config_.dmc) {  // whatever the policy: a DMC model was trained not to see this channel
    q.select(3, -1).zero_();
    k.select(3, -1).zero_();
  }
  rotate_queries(q.mutable_data_ptr<float>(), tokens);

  const cache::LayerTokens layer_tokens = {tokens,
                                           q.const_data_ptr<float>(),
                                           k.const_data_ptr<float>(),
                                           v.const_data_ptr<float>(),
                                           decisions.merge.data(),
                                           decisions.importance.data(),
                                           out.mutable_data_ptr<float>()};
  if (decode_) {
    cache_.decode(sequences_, static_cast<int>(layer), layer_tokens);
  } else {
    cache_.prefill(sequences_[0], static_cast<int>(layer), layer_tokens);
  }
  return out;
}

}  // namespace dmc::runtime
