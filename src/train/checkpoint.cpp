#include "train/checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/json_fields.h"
#include "base/quoted.h"
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

void require_same_run(const TrainOptions& options, const std::string& stored,
                      const std::string& origin) {
  const auto ours = nlohmann::json::parse(options.identity_json());
  const auto theirs = parse_json(stored, origin);
  for (const auto& [key, value] : ours.items()) {
    const auto found = theirs.contains(key) ? theirs.at(key) : nlohmann::json();
    if (found == value) continue;
    throw invalid_argument(
        "resume", "the run in " + options.out_dir.string() + " was started with " + key + " " +
                      printable(found.dump()) + ", not " + printable(value.dump()) +
                      "; give the same options or another --out");
  }
}

text::TokenFeed::Position read_position(const nlohmann::json& feed, const std::string& origin) {
  const auto is_count = [](const nlohmann::json& n) {
    return n.is_number_unsigned() && n.get<uint64_t>() <= uint64_t{INT64_MAX};
  };
  if (!feed.is_array() || feed.size() != 3 || !std::ranges::all_of(feed, is_count)) {
    throw data_error(origin + ": feeds must be lists of three whole numbers, found " +
                     printable(feed.dump()));
  }
  return {feed[0].get<int64_t>(), feed[1].get<int64_t>(), feed[2].get<int64_t>()};
}

// A checkpoint is a file from somewhere, too.
Progress read_progress(const std::string& text, int64_t rows, const std::string& origin) {
  const nlohmann::json root = parse_json(text, origin);
  const JsonFields state(root, origin);
  Progress progress{state.size("step", 0, INT64_MAX),
                    state.size("tokens", 0, INT64_MAX),
                    state.number("compression_weight"),
                    state.number("decision_offset"),
                    static_cast<size_t>(state.size("ratios_saved", 0)),
                    {}};
  const nlohmann::json& feeds = state.at("feeds");
  if (!feeds.is_array() || static_cast<int64_t>(feeds.size()) != rows) {
    throw state.wrong(
        "feeds", "a list with an entry for each of the batch's " + std::to_string(rows) + " rows");
  }
  for (const auto& feed : feeds) progress.feeds.push_back(read_position(feed, origin));
  return progress;
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
  require_same_run(options, metadata("options"), path.string() + ": options");

  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : with_parameters(optimizer.state(), model)) {
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end() || found->second.shape != tensor.sizes().vec()) {
      throw data_error(path.string() + ": tensor " + name + " is missing or has another shape");
    }
    tensor.copy_(nn::to_tensor(found->second, tensor.scalar_type()));
  }
  file.require_whole();
  return read_progress(metadata("progress"), options.batch, path.string() + ": progress");
}

}  // namespace dmc::train
