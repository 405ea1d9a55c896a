#include "nn/decision_channel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/rope_frequencies.h"
#include "nn/dense_attention.h"
#include "nn/tiny_models.h"

namespace dmc::nn {
namespace {

// Dense attention that keeps what the (one) layer handed over.
class Recorder : public nn::AttentionStrategy {
 public:
  explicit Recorder(const model::ModelConfig& config)
      : dense_(20, model::rope_frequencies(config)) {}
  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    q = in.q_BTHd;
    k = in.k_BTKd;
    return dense_.attend(layer, in);
  }
  at::Tensor q, k;

 private:
  nn::DenseAttention dense_;
};

Recorder record(const Decoder& model) {
  Recorder recorder(model.config());
  model.hidden(at::arange(20, at::kLong).unsqueeze(0), recorder);
  return recorder;
}

// One layer, so that what it hands over does not depend on attention.
std::vector<model::ModelConfig> one_layer_configs() {
  std::vector<model::ModelConfig> configs = tiny_configs();
  for (model::ModelConfig& config : configs) config.num_layers = 1;
  return configs;
}

double largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

TEST(DecisionChannel, ClearedChannelIsZeroAndCanLearn) {
  for (const model::ModelConfig& config : one_layer_configs()) {
    Decoder model = random_model(config);
    EXPECT_GT(largest(record(model).k.select(3, -1)), 0.0);
    clear_decision_channel(model);
    for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
    const Recorder after = record(model);
    EXPECT_EQ(largest(after.q.select(3, -1)), 0.0) << config.model_type;
    EXPECT_EQ(largest(after.k.select(3, -1)), 0.0) << config.model_type;
    EXPECT_GT(largest(after.k.select(3, -2)), 0.0) << config.model_type;

    (after.q.select(3, -1).sum() + after.k.select(3, -1).sum()).backward();
    const model::LayerLayout& layer = model.layout().layers[0];
    for (const model::LinearSource& source : {layer.q, layer.k}) {
      const at::Tensor gradient = model.parameter(source.weight).grad();
      EXPECT_GT(largest(gradient), 0.0) << config.model_type << " " << source.weight;
    }
  }
}

TEST(DecisionChannel, ScalingChangesTheChannelAlone) {
  const at::NoGradGuard no_grad;
  for (const model::ModelConfig& config : one_layer_configs()) {
    Decoder model = random_model(config);
    const Recorder before = record(model);
    scale_decision_channel(model, 3.0);
    const Recorder after = record(model);
    at::Tensor factors = at::ones({config.head_dim});
    factors[-1].fill_(3.0);
    EXPECT_LT(largest(after.q - before.q * factors), 1e-6) << config.model_type;
    EXPECT_LT(largest(after.k - before.k * factors), 1e-6) << config.model_type;
  }
}

}  // namespace
}  // namespace dmc::nn
