// A model is served as it was trained: with decisions all but hard, the logits of training's last
// step are those of inference on the model that the trainer would write, for every method and every
// source of decisions.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "base/temp_folder.h"
#include "nn/adapter.h"
#include "nn/decision_channel.h"
#include "nn/tiny_models.h"
#include "runtime/decoder_runner.h"
#include "train/method_testing.h"

namespace dmc::train {
namespace {

constexpr int64_t kTokens = 70, kVocabulary = 50, kWindow = 9, kDelay = 11;

TrainOptions hard_options(const MethodAndSource& param) {
  TrainOptions options;
  options.length = kTokens;
  options.retrofit.method = std::get<Method>(param).name;
  options.retrofit.decisions = std::get<const char*>(param);
  const Method& method = std::get<Method>(param);
  options.retrofit.window = method.window.can_differ() ? kWindow : method.window.usual;
  options.retrofit.delay = method.delay.can_differ() ? kDelay : 0;
  // High enough for what is merged to count.
  if (method.importance_offset) options.retrofit.importance_offset = -0.5;
  options.retrofit.offset = 0.001;      // random weights: about half of the tokens are decided on
  options.retrofit.temperature = 1e-7;  // no decision is so close to the threshold that it is soft
  return options;
}

std::vector<int32_t> random_tokens() {
  Rng rng(23);
  std::vector<int32_t> tokens(kTokens);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(kVocabulary));
  return tokens;
}

struct Trained {
  std::vector<float> logits;  // [tokens][vocabulary]
  double cr;
};

// From the finetune stage at a step when the noise has gone.
Trained trained(const nn::Decoder& model, const TrainOptions& options,
                const std::vector<int32_t>& tokens) {
  const at::NoGradGuard no_grad;
  const auto attention = find_stage("finetune")->attention(model.config(), options);
  attention->begin_step({9, 10, 9, 1, 1.0, options.retrofit.offset});
  const at::Tensor ids = at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()));
  const at::Tensor logits =
      model.logits(model.hidden(ids.unsqueeze(0), *attention)).flatten().contiguous();
  attention->extra_loss();
  return {{logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + logits.numel()},
          1.0 / (1.0 - attention->served_fraction().item<double>())};
}

nn::Decoder random_model(model::ModelConfig config, const RetrofitOptions& retrofit) {
  if (retrofit.decisions == "adapter") {
    config.dmc = model::DmcConfig{.method = retrofit.method, .decision_source = "adapter"};
  }
  return nn::random_model(config);
}

std::shared_ptr<const runtime::Model> served(nn::Decoder& model, const TrainOptions& options) {
  const RetrofitOptions& r = options.retrofit;
  const auto scale = r.decisions == "adapter" ? nn::scale_adapter : nn::scale_decision_channel;
  scale(model, r.decision_scale);
  model.config().dmc = model::DmcConfig{.target_cr = 2.0,
                                        .window = r.window,
                                        .decision_offset = r.offset,
                                        .stage = "finetune",
                                        .max_trained_length = options.length,
                                        .method = r.method,
                                        .decision_source = r.decisions,
                                        .delay = r.delay,
                                        .importance_offset = r.importance_offset};
  const TempFolder folder;
  model.save(folder.path(), {at::kFloat});
  return runtime::load_model(folder.path(), DType::kF32);
}

void expect_near(std::span<const float> ours, std::span<const float> expected,
                 const std::string& what) {
  ASSERT_EQ(ours.size(), expected.size());
  double largest = 0.0;
  for (size_t i = 0; i < ours.size(); ++i) {
    largest = std::max<double>(largest, std::abs(ours[i] - expected[i]));
  }
  EXPECT_LT(largest, 1e-4) << what;
}

class ServedAsTrained : public testing::TestWithParam<MethodAndSource> {};

TEST_P(ServedAsTrained, InOnePassAndTokenByToken) {
  const TrainOptions options = hard_options(GetParam());
  const std::vector<int32_t> tokens = random_tokens();
  for (const model::ModelConfig& config : nn::tiny_configs()) {
    nn::Decoder model = random_model(config, options.retrofit);
    const auto [expected, cr] = trained(model, options, tokens);
    runtime::DecoderRunner runner(served(model, options), {.chunk = 25});
    EXPECT_EQ(runner.policy().name, options.retrofit.method);

    const auto whole = runner.add_sequence(), steps = runner.add_sequence();
    expect_near(engine::prefill_logits(runner, whole, tokens), expected,
                config.model_type + ", prefill");
    std::vector<float> stepwise;
    for (const int32_t& token : tokens) {
      const auto logits = engine::decode(runner, std::span(&steps, 1), std::span(&token, 1));
      stepwise.insert(stepwise.end(), logits.begin(), logits.end());
    }
    expect_near(stepwise, expected, config.model_type + ", decoding");
    EXPECT_EQ(runner.cache().slots(whole), runner.cache().slots(steps));
    EXPECT_NEAR(runner.compression_ratio(whole), cr, 1e-4 * cr) << config.model_type;
    EXPECT_GT(runner.compression_ratio(whole), 1.2) << "the test needs a model that decides";
  }
}

INSTANTIATE_TEST_SUITE_P(MethodsAndSources, ServedAsTrained, methods_and_sources(), test_name);

}  // namespace
}  // namespace dmc::train
