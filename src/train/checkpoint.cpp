#include "train/checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/safetensors.h"
#include "nn/weights.h"

namespace dmc::train {
namespace {

constexpr auto kParameterPrefix = "parameter.";

// `tensors`, the optimizer's, and with them the parameters that train, all under their names in the
// file. (Parameters share memory with the model, on its device: a file may be read on another one
// than it was written on.) What does not train is in the model that the run started from.
nn::TensorsByName with_parameters(nn::TensorsByName tensors, const nn::Decoder& model) {
  for (const auto& [name, parameter] : model.parameters()) {
    if (parameter.requires_grad()) tensors[kParameterPrefix + name] = parameter;
  }
  return tensors;
}

void require_same_run(const TrainOptions& options, const std::string& stored) {
  const auto ours = nlohmann::json::parse(options.identity_json());
  const auto theirs = nlohmann::json::parse(stored);
  for (const auto& [key, value] : ours.items()) {
    const auto found = theirs.contains(key) ? theirs.at(key) : nlohmann::json();
    if (found == value) continue;
    throw invalid_argument("resume", "the run in " + options.out_dir.string() +
                                         " was started with " + key + " " + found.dump() +
                                         ", not " + value.dump() +
                                         "; give the same options or another --out");
  }
}

}  // namespace

std::filesystem::path checkpoint_path(const std::filesystem::path& out_dir) {
  return out_dir / "checkpoint.safetensors";
}

void save_checkpoint(const TrainOptions& options, const nn::Decoder& model, const AdamW& optimizer,
                     const Progress& progress, const dist::Group& group) {
  nn::TensorsByName state_of_optimizer = optimizer.whole_state();
  if (!group.is_first()) return;
  nlohmann::json feeds = nlohmann::json::array();
  for (const auto& feed : progress.feeds) feeds.push_back({feed.epoch, feed.document, feed.offset});
  const nlohmann::json state = {
      {"step", progress.step},
      {"tokens", progress.tokens},
      {"compression_weight", progress.compression_weight},
      {"decision_offset", progress.decision_offset},
      {"ratios_saved", progress.ratios_saved},
      {"feeds", feeds},
  };
  nn::TensorsByName tensors = with_parameters(std::move(state_of_optimizer), model);
  for (auto& [name, tensor] : tensors) tensor = tensor.cpu();
  model::write_safetensors(checkpoint_path(options.out_dir), nn::to_views(tensors),
                           {{"progress", state.dump()}, {"options", options.identity_json()}});
}

Progress load_checkpoint(const TrainOptions& options, nn::Decoder& model, AdamW& optimizer) {
  const std::filesystem::path path = checkpoint_path(options.out_dir);
  const model::SafetensorsFile file(path);
  const auto metadata = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) {
      throw data_error(path.string() + ": no \"" + key + "\" in its metadata; not a checkpoint");
    }
    return found->second;
  };
  require_same_run(options, metadata("options"));

  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : with_parameters(optimizer.state(), model)) {
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end() || found->second.shape != tensor.sizes().vec()) {
      throw data_error(path.string() + ": tensor " + name + " is missing or has another shape");
    }
    tensor.copy_(nn::to_tensor(found->second, tensor.scalar_type()));
  }
  const auto state = nlohmann::json::parse(metadata("progress"));
  Progress progress{state.at("step").get<int64_t>(),
                    state.at("tokens").get<int64_t>(),
                    state.at("compression_weight").get<double>(),
                    state.at("decision_offset").get<double>(),
                    state.at("ratios_saved").get<size_t>(),
                    {}};
  for (const auto& feed : state.at("feeds")) {
    progress.feeds.push_back(
        {feed.at(0).get<int64_t>(), feed.at(1).get<int64_t>(), feed.at(2).get<int64_t>()});
  }
  return progress;
}

}  // namespace dmc::train
