#include "train/retrofitted_model.h"

#include <ATen/core/grad_mode.h>

#include <sstream>

#include "base/join.h"
#include "families/family.h"
#include "io/model_files.h"
#include "models/decision_channel.h"
#include "train/model_card.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

// The same model with tensors of its own where decisions are computed; all others are shared, since
// a second copy of a large model may not fit.
models::Decoder with_own_decisions(const models::Decoder& model) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> parameters = model.parameters();
  for (const families::LayerLayout& layer : model.layout().layers) {
    for (const std::string& name : {layer.q.weight, layer.q.bias, layer.q_norm.weight,
                                    layer.k.weight, layer.k.bias, layer.k_norm.weight}) {
      const auto found = parameters.find(name);
      if (found != parameters.end()) found->second = found->second.detach().clone();
    }
  }
  return {model.config(), std::move(parameters)};
}

ModelCard card_of(const models::Decoder& model, const TrainOptions& options,
                  const RetrofitState& state) {
  ModelCard card;
  card.base_model = options.model_dir.lexically_normal().filename().string();
  card.architecture = families::find_family(model.config().model_type)->dmc_architecture;
  card.data = options.data.empty()
                  ? "the built-in corpus of Python sources"
                  : join(options.data, ", ", [](const fs::path& path) { return path.string(); });
  card.method = find_method(options.retrofit.method);
  card.target_cr = state.target_cr;
  card.measured_cr = state.last.cr;
  card.window = options.retrofit.window;
  card.tokens = state.tokens;
  card.length = options.length;
  card.loss = state.last.loss;
  card.cr_by_head = state.cr_by_head;
  card.command = options.command;
  return card;
}

}  // namespace

void write_retrofitted(const models::Decoder& model, const TrainOptions& options,
                       const RetrofitState& state, const fs::path& dir) {
  const RetrofitOptions& retrofit = options.retrofit;
  models::Decoder served = with_own_decisions(model);
  models::scale_decision_channel(served, retrofit.decision_scale);
  served.config().dmc =
      io::DmcConfig{state.target_cr, retrofit.window, retrofit.offset, state.stage,
                    state.tokens,    options.length,  retrofit.method};
  fs::create_directories(dir);
  io::write_file_atomically(dir / "README.md", to_markdown(card_of(served, options, state)));
  served.save(dir, {nn::float_type(options.weights_dtype)});
  io::copy_companions(options.model_dir, dir);
}

std::string ratio_folder(double cr) {
  std::ostringstream name;
  name << "cr-" << cr;
  return name.str();
}

}  // namespace dmc::train
