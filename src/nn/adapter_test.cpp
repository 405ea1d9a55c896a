#include "nn/adapter.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"
#include "model/adapter.h"
#include "model/config_file.h"
#include "model/rope_frequencies.h"
#include "nn/dense_attention.h"
#include "nn/tiny_models.h"

namespace dmc::nn {
namespace {

constexpr int64_t kTokens = 20;

// Dense attention that keeps what the adapters said.
class Recorder : public nn::AttentionStrategy {
 public:
  explicit Recorder(const model::ModelConfig& config)
      : dense_(kTokens, model::rope_frequencies(config)) {}
  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    decisions.push_back(in.decisions_BTR);
    return dense_.attend(layer, in);
  }
  std::vector<at::Tensor> decisions;  // a layer each

 private:
  nn::DenseAttention dense_;
};

at::Tensor tokens() { return at::arange(kTokens, at::kLong).unsqueeze(0); }

model::ModelConfig with_decisions(model::ModelConfig config, const std::string& source) {
  config.dmc = model::DmcConfig{};
  config.dmc->decision_source = source;
  return config;
}

TEST(Adapter, SaysNothingAtFirstAndLeavesTheModelAlone) {
  const at::NoGradGuard no_grad;
  for (const model::ModelConfig& config : tiny_configs()) {
    const Decoder base = random_model(config), adapted = with_adapter(base, {});
    Recorder of_base(config), of_adapted(config);
    const at::Tensor before = base.hidden(tokens(), of_base);
    EXPECT_TRUE(at::equal(adapted.hidden(tokens(), of_adapted), before)) << config.model_type;
    for (const at::Tensor& said : of_base.decisions) EXPECT_FALSE(said.defined());
    for (const at::Tensor& said : of_adapted.decisions) {
      EXPECT_EQ(said.sizes(), (std::vector<int64_t>{1, kTokens, 2 * config.num_kv_heads}));
      EXPECT_EQ(said.abs().max().item<float>(), 0.0f);
    }
    const Decoder again = without_adapter(adapted);
    EXPECT_FALSE(again.config().dmc);
    EXPECT_EQ(again.parameters().size(), base.parameters().size());
    for (const auto& [name, parameter] : base.parameters()) {
      EXPECT_TRUE(again.parameter(name).is_same(parameter)) << name;
    }
  }
}

TEST(Adapter, ScalesAllItSays) {
  const at::NoGradGuard no_grad;
  Decoder model = random_model(with_decisions(tiny_configs().front(), "adapter"));
  Recorder before(model.config()), after(model.config());
  model.hidden(tokens(), before);
  scale_adapter(model, 8.0);
  model.hidden(tokens(), after);
  for (size_t layer = 0; layer < before.decisions.size(); ++layer) {
    EXPECT_TRUE(at::equal(after.decisions[layer], before.decisions[layer] * 8.0));
  }
}

// Of a weighted sum of all that the adapters say, in f64.
double objective(const Decoder& model) {
  const at::NoGradGuard no_grad;
  Recorder recorder(model.config());
  model.hidden(tokens(), recorder);
  double sum = 0.0;
  for (const at::Tensor& said : recorder.decisions) sum += said.pow(2).sum().item<double>();
  return sum;
}

TEST(Adapter, GradientIsTheNumericOne) {
  const Decoder in_f32 = random_model(with_decisions(tiny_configs().front(), "adapter"));
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, parameter] : in_f32.parameters())
    parameters[name] = parameter.to(at::kDouble);
  const Decoder model(in_f32.config(), parameters);
  const std::set<std::string> names = model::adapter_tensors(model.layout());
  for (const std::string& name : names) model.parameter(name).set_requires_grad(true);
  Recorder recorder(model.config());
  model.hidden(tokens(), recorder);
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (const at::Tensor& said : recorder.decisions) sum = sum + said.pow(2).sum();
  sum.backward();

  const double step = 1e-5;
  for (const std::string& name : names) {
    const at::Tensor flat = model.parameter(name).detach().view({-1});
    const at::Tensor gradient = model.parameter(name).grad().view({-1});
    for (int64_t i = 0; i < flat.numel(); i += 7) {
      const double value = flat[i].item<double>();
      flat[i].fill_(value + step);
      const double up = objective(model);
      flat[i].fill_(value - step);
      const double down = objective(model);
      flat[i].fill_(value);
      EXPECT_NEAR(gradient[i].item<double>(), (up - down) / (2 * step), 1e-6) << name << " " << i;
    }
  }
  for (const auto& [name, parameter] : model.parameters()) {
    EXPECT_EQ(parameter.grad().defined(), names.contains(name)) << name;
  }
}

TEST(Adapter, AModelThatDecidesByAChannelIsNoBase) {
  const Decoder model = random_model(with_decisions(tiny_configs().front(), "neuron"));
  try {
    with_adapter(model, {});
    FAIL() << "attention does not know the decision channel";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("--plain"), std::string::npos);
  }
}

// What a model directory says when config.json tells of an adapter and the weights hold another.
std::string complaint(const Decoder& stored, const model::ModelConfig& config) {
  const TempFolder folder;
  stored.save(folder.path(), {at::kFloat});
  std::ofstream(folder.path() / "config.json") << model::model_config_json(config);
  try {
    Decoder::load(folder.path());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    return error.what();
  }
  return "";
}

TEST(Adapter, FilesWithoutItOrWithAnotherAreRefused) {
  const Decoder base = random_model(tiny_configs().front());
  const Decoder adapted = with_adapter(base, {});
  EXPECT_EQ(complaint(adapted, adapted.config()), "");
  EXPECT_NE(complaint(base, adapted.config()).find("decision_norm.weight is missing"),
            std::string::npos)
      << complaint(base, adapted.config());
  model::ModelConfig dms = adapted.config();
  dms.dmc->method = "dms";
  EXPECT_NE(complaint(adapted, dms).find("decision_proj.weight has shape [4, 48]"),
            std::string::npos)
      << complaint(adapted, dms);
}

}  // namespace
}  // namespace dmc::nn
