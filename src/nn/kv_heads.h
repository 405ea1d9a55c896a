// Fewer KV heads: grouped-query attention from a model with more of them.
#pragma once

#include "nn/decoder.h"

namespace dmc::nn {

// The model with `kv_heads` KV heads, each the mean of as many neighbouring ones (Ainslie et al.
// 2023, "GQA", section 2.1). It needs some training afterwards. Error(kInvalidArgument) if
// `kv_heads` does not divide the model's own number, if its family has no grouped queries, or if
// the model was retrofitted, since the mean of two heads' decisions is neither's.
Decoder pool_kv_heads(const Decoder& model, int64_t kv_heads);

}  // namespace dmc::nn
