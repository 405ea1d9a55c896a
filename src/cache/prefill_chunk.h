// One-pass prefill of one stream: what is computed of a chunk of tokens before it attends.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/kv_cache.h"
#include "cache/raw_window.h"
#include "cache/stream.h"
#include "kernels/attention.h"

namespace dmc::cache {

// What the tokens of a chunk see. Each has a pair of its own, in f32: without a delay its segment's
// mean up to it; with one that of the token `delay` before it, or, while there is none, its own key
// and value.
class PrefillChunk {
 public:
  // The chunk's first token is at `position`, the stream is KV head `head` of its layer. All must
  // outlive this.
  PrefillChunk(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t position,
               int head, const LayerTokens& tokens);

  // In this order. Only one thread at a time may take pages, so streams are pooled side by side
  // between the steps that write slots.
  void begin();  // raw tokens pass by, the open slot is ready for the chunk's first token
  void pool();   // pairs; takes no pages
  void close();  // writes the slots of the segments that end inside the chunk
  kernels::PrefillItem item(int group) const;  // for attention; keeps pointing into this
  void end();                                  // raw tokens are back in the stream

 private:
  int64_t row(int64_t token) const { return token * config_.kv_heads + head_; }
  float* key(int64_t token) { return keys_.data() + token * config_.head_dim; }
  float* value(int64_t token) { return values_.data() + token * config_.head_dim; }
  JoiningToken given(int64_t token) const;
  policy::Decision decision_of_joining(int64_t token) const;
  void pass_by(int64_t token);
  void set_visible();

  const CacheConfig& config_;
  PagePool& pool_;
  Stream& stream_;
  const int64_t position_;
  const int head_;
  const LayerTokens& tokens_;
  // Tokens of the chunk that come before any can join the slots: as many as the delay still lacks.
  const int64_t lead_;
  PassingTokens passing_;
  std::vector<float> keys_, values_;  // [T][d], keys rotated
  std::vector<float> masses_;         // [T], of these
  std::vector<int64_t> visible_;      // [T]: closed slots at that token
};

}  // namespace dmc::cache
