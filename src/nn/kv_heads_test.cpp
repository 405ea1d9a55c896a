#include "nn/kv_heads.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/rope_frequencies.h"
#include "nn/dense_attention.h"
#include "nn/tiny_models.h"

namespace dmc::nn {
namespace {

at::Tensor hidden(const Decoder& model) {
  nn::DenseAttention attention(20, model::rope_frequencies(model.config()));
  return model.hidden(at::arange(20, at::kLong).unsqueeze(0), attention);
}

// Heads that are alike are their own mean: nothing may change.
TEST(KvHeads, PoolingEqualHeadsKeepsTheModel) {
  const at::NoGradGuard no_grad;
  for (model::ModelConfig config : tiny_configs()) {
    if (!model::find_family(config.model_type)->grouped_queries) continue;
    config.num_heads = 8;
    config.num_kv_heads = 4;
    const Decoder model = random_model(config);
    for (const model::LayerLayout& layer : model.layout().layers) {
      for (const model::LinearSource& source : {layer.k, layer.v}) {
        const auto make_alike = [&](const at::Tensor& rows) {
          const at::Tensor pairs = rows.unflatten(0, at::IntArrayRef{2, 2, config.head_dim});
          pairs.select(1, 1).copy_(pairs.select(1, 0));
        };
        make_alike(model.weight(source));
        if (!source.bias.empty()) make_alike(model.bias(source));
      }
    }
    const Decoder pooled = pool_kv_heads(model, 2);
    EXPECT_EQ(pooled.config().num_kv_heads, 2);
    const double error = (hidden(pooled) - hidden(model)).abs().max().item<double>();
    EXPECT_LT(error, 1e-5) << config.model_type;
  }
}

TEST(KvHeads, RefusesWhatCannotBe) {
  model::ModelConfig config = tiny_configs().front();
  EXPECT_THROW(pool_kv_heads(random_model(config), 3), Error);
  EXPECT_THROW(pool_kv_heads(random_model(config), 0), Error);
  config.dmc = model::DmcConfig{};
  EXPECT_THROW(pool_kv_heads(random_model(config), 1), Error);
  EXPECT_THROW(pool_kv_heads(random_model(tiny_configs().back()), 1), Error) << "BERT";
}

}  // namespace
}  // namespace dmc::nn
