#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/constant_pad_nd.h>

#include "ops/attention_pair.h"

namespace dmc::ops {
namespace {

constexpr int64_t kChannelMultiple = 8;  // of a head, which the library asks for

// Zeros in the channels that are added change no score and no gradient.
at::Tensor padded(const at::Tensor& x) {
  const int64_t missing = -x.size(-1) & (kChannelMultiple - 1);
  return missing == 0 ? x : at::constant_pad_nd(x, {0, missing});
}

at::Tensor without_padding(const at::Tensor& x, int64_t channels) {
  return x.size(-1) == channels ? x : x.narrow(-1, 0, channels);
}

// Typed, because a plain nullopt would fit several of the library's overloads.
struct Window {
  std::optional<int64_t> left, right;
};

Window window_of(const CausalMask& mask) {
  return mask.window ? Window{mask.window, int64_t{0}} : Window{};
}

Attended flash_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const CausalMask& mask) {
  const Window window = window_of(mask);
  const auto [out, lse, rng_state, unused, debug_mask] = at::_flash_attention_forward(
      padded(q), padded(k), padded(v), /*cum_seq_q=*/std::optional<at::Tensor>(),
      /*cum_seq_k=*/std::optional<at::Tensor>(), q.size(1), k.size(1), /*dropout_p=*/0.0,
      /*is_causal=*/true, /*return_debug_mask=*/false, std::optional<double>(mask.scale),
      window.left, window.right);
  return {without_padding(out, q.size(-1)), lse};
}

AttentionGradients flash_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const Attended& attended,
                                  const CausalMask& mask) {
  const Window window = window_of(mask);
  const at::Tensor none;  // of dropout's random state, and of lengths that differ
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      padded(grad), padded(q), padded(k), padded(v), padded(attended.out_BTHd),
      attended.lse_BHT.contiguous(), none, none, q.size(1), k.size(1), /*dropout_p=*/0.0,
      /*is_causal=*/true, none, none, std::optional<double>(mask.scale), window.left, window.right);
  const int64_t channels = q.size(-1);
  return {without_padding(dq, channels), without_padding(dk, channels),
          without_padding(dv, channels)};
}

}  // namespace

const AttentionPair& flash_pair() {
  static constexpr AttentionPair kPair{flash_forward, flash_backward};
  return kPair;
}

}  // namespace dmc::ops
