// parity_probe MODEL_DIR INPUT OUTPUT_DIR: runs the model densely on INPUT's "tokens" [B, T] and
// writes OUTPUT_DIR/result.safetensors: "logits", "loss" and the gradient of every parameter under
// its name; and the model itself, saved again, into OUTPUT_DIR/model.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/ones.h>

#include <cstdio>
#include <exception>
#include <filesystem>

#include "model/rope_frequencies.h"
#include "nn/decoder.h"
#include "nn/dense_attention.h"
#include "nn/weights.h"

namespace {

// What a retrofitted model is without its decisions: dense, a decision channel set to 0.
class DensePolicy : public dmc::nn::AttentionStrategy {
 public:
  DensePolicy(const dmc::model::ModelConfig& config, int64_t positions)
      : dense_(positions, dmc::model::rope_frequencies(config)),
        channels_(at::ones({config.head_dim})) {
    if (config.has_decision_channel()) channels_[-1].fill_(0.0);
  }
  at::Tensor attend(int64_t layer, const dmc::nn::AttentionInput& in) override {
    return dense_.attend(layer, {in.q_BTHd * channels_, in.k_BTKd * channels_, in.v_BTKd, {}});
  }

 private:
  dmc::nn::DenseAttention dense_;
  at::Tensor channels_;
};

void probe(const std::filesystem::path& model_dir, const std::filesystem::path& input,
           const std::filesystem::path& output_dir) {
  const dmc::nn::Decoder model = dmc::nn::Decoder::load(model_dir);
  for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  const dmc::model::SafetensorsFile file(input);
  const at::Tensor tokens = dmc::nn::to_tensor(file.tensors().find("tokens")->second, at::kLong);

  const int64_t T = tokens.size(1);
  DensePolicy attention(model.config(), T);
  const at::Tensor logits = model.logits(model.hidden(tokens, attention));
  const at::Tensor loss = at::cross_entropy_loss(logits.narrow(1, 0, T - 1).flatten(0, 1),
                                                 tokens.narrow(1, 1, T - 1).flatten());
  loss.backward();

  dmc::nn::TensorsByName result = {{"logits", logits.detach()}, {"loss", loss.detach()}};
  for (const auto& [name, parameter] : model.parameters()) {
    result[name] = parameter.grad().contiguous();
  }
  dmc::model::write_safetensors(output_dir / "result.safetensors", dmc::nn::to_views(result));
  model.save(output_dir / "model", {at::kFloat});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: parity_probe MODEL_DIR INPUT OUTPUT_DIR\n");
    return 2;
  }
  try {
    probe(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "parity_probe: %s\n", error.what());
    return 1;
  }
}
