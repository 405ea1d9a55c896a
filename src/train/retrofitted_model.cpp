#include "train/retrofitted_model.h"

#include <ATen/core/grad_mode.h>

#include <set>
#include <sstream>

#include "base/join.h"
#include "model/adapter.h"
#include "nn/adapter.h"
#include "nn/decision_channel.h"
#include "text/model_text.h"
#include "train/model_card.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

constexpr auto kAdapterFile = "adapter.safetensors";  // beside the whole model

// Names of the tensors that compute decisions.
std::set<std::string> decision_tensors(const nn::Decoder& model) {
  if (model.config().has_adapter()) return model::adapter_tensors(model.layout());
  std::set<std::string> names;
  for (const model::LayerLayout& layer : model.layout().layers) {
    names.insert({layer.q.weight, layer.q.bias, layer.q_norm.weight, layer.k.weight, layer.k.bias,
                  layer.k_norm.weight});
  }
  return names;
}

// The same model with tensors of its own where decisions are computed; all others are shared, since
// a second copy of a large model may not fit.
nn::Decoder with_own_decisions(const nn::Decoder& model) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> parameters = model.parameters();
  for (const std::string& name : decision_tensors(model)) {
    const auto found = parameters.find(name);
    if (found != parameters.end()) found->second = found->second.detach().clone();
  }
  return {model.config(), std::move(parameters)};
}

void scale_decisions(nn::Decoder& model, double factor) {
  if (model.config().has_adapter()) {
    nn::scale_adapter(model, factor);
  } else {
    nn::scale_decision_channel(model, factor);
  }
}

std::string decisions_text(const TrainOptions& options) {
  if (options.retrofit.decisions == "neuron") return "the last channel of each head of q and k";
  return options.adapter_alone() ? "an adapter; the base model's weights are as they were"
                                 : "an adapter, trained together with the base model";
}

ModelCard card_of(const nn::Decoder& model, const TrainOptions& options,
                  const RetrofitState& state) {
  ModelCard card;
  card.base_model = options.model_dir.lexically_normal().filename().string();
  card.architecture = model::find_family(model.config().model_type)->dmc_architecture;
  card.data = options.data.empty()
                  ? "the built-in corpus of Python sources"
                  : join(options.data, ", ", [](const fs::path& path) { return path.string(); });
  card.method = find_method(options.retrofit.method);
  card.decisions = decisions_text(options);
  card.target_cr = state.target_cr;
  card.measured_cr = state.last.cr;
  card.window = options.retrofit.window;
  card.delay = options.retrofit.delay;
  card.tokens = state.tokens;
  card.length = options.length;
  card.loss = state.last.loss;
  card.cr_by_head = state.cr_by_head;
  card.verdict = state.verdict;
  card.command = options.command;
  return card;
}

// Where it is not the decisions' offset, which is what a model that says nothing has. Methods that
// pool nothing have none.
std::optional<double> importance_offset(const RetrofitOptions& retrofit,
                                        const RetrofitState& state) {
  if (!find_method(retrofit.method)->window.can_differ()) return retrofit.importance_offset;
  const double offset = retrofit.importance_offset.value_or(retrofit.offset);
  return offset == state.decision_offset ? std::nullopt : std::optional(offset);
}

}  // namespace

void write_retrofitted(const nn::Decoder& model, const TrainOptions& options,
                       const RetrofitState& state, const fs::path& dir) {
  const RetrofitOptions& retrofit = options.retrofit;
  nn::Decoder served = with_own_decisions(model);
  scale_decisions(served, retrofit.decision_scale);
  served.config().dmc = model::DmcConfig{.target_cr = state.target_cr,
                                         .window = retrofit.window,
                                         .decision_offset = state.decision_offset,
                                         .stage = state.stage,
                                         .trained_tokens = state.tokens,
                                         .max_trained_length = options.length,
                                         .method = retrofit.method,
                                         .decision_source = retrofit.decisions,
                                         .delay = retrofit.delay,
                                         .importance_offset = importance_offset(retrofit, state)};
  fs::create_directories(dir);
  write_card(served, options, state, dir);
  served.save(dir, {nn::float_type(options.weights_dtype)});
  if (options.adapter_alone()) nn::save_adapter(served, dir / kAdapterFile);
  text::copy_model_texts(options.model_dir, dir);
}

void write_card(const nn::Decoder& model, const TrainOptions& options, const RetrofitState& state,
                const fs::path& dir) {
  write_file_atomically(dir / "README.md", to_markdown(card_of(model, options, state)));
}

std::string ratio_folder(double cr) {
  std::ostringstream name;
  name << "cr-" << cr;
  return name.str();
}

}  // namespace dmc::train
