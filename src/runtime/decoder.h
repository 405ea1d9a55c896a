// The decoder of inference, written once for every machine: which pieces follow one another. What a
// piece does is its backend's matter. (Training has nn::Decoder, which is differentiable.)
#pragma once

#include <cstdint>
#include <functional>

#include "model/model_config.h"

namespace dmc::runtime {

// Of a layer, but for the first and the last.
enum class NormAt { kEmbedding, kAttention, kMlp, kFinal };

enum class Product { kQkv, kOutput, kUp, kDown };

// The machine that a decoder runs on. It has the weights in its own layout and the numbers of the
// pass in hand, for each row:
//   x          [hidden]                 the residual stream
//   normed     [hidden]                 what a half of a layer takes
//   projected  [q | k | v], [gate | up] or [up]
//   mixed      [query heads][head_dim]  what attention gives
//   inner      [intermediate]           behind the activation
//   delta      [hidden]                 what a half of a layer adds to x
// A device may only note down what is asked for, and do it later, in the same order.
class Backend {
 public:
  // x of the pass's tokens and positions.
  virtual void embed(int64_t rows) = 0;
  virtual bool has_norm(NormAt at) const = 0;
  // x += delta if `adds_delta`; normed = norm(x); x becomes it too if `replaces_x`.
  virtual void norm(NormAt at, int layer, bool adds_delta, bool replaces_x, int64_t rows) = 0;
  // kQkv, kUp: normed to projected. kOutput: mixed to delta. kDown: inner to delta.
  virtual void multiply(Product product, int layer, int64_t rows) = 0;
  // What the layer's adapter says of the tokens, from x.
  virtual void apply_adapter(int layer, int64_t rows) = 0;
  // projected to what the cache takes: queries rotated, decisions made, their channel zeroed.
  virtual void split_heads(int layer, int64_t rows) = 0;
  // projected to inner.
  virtual void activate(int64_t rows) = 0;

 protected:
  ~Backend() = default;
};

// The layers, from tokens to the last hidden states, normed. attend(layer) takes the rows' keys and
// values into the layer's cache and fills mixed.
void run_layers(Backend& backend, const model::ModelConfig& config, int64_t rows,
                const std::function<void(int layer)>& attend);

}  // namespace dmc::runtime
