// dmc convert: the same model in another form: dtype, fewer KV heads, or without its decisions.
#include <algorithm>
#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/human.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "model/checkpoint.h"
#include "model/config_file.h"
#include "model/model_files.h"
#include "model/quantization.h"
#include "nn/adapter.h"
#include "nn/decision_channel.h"
#include "nn/kv_heads.h"
#include "nn/weights.h"
#include "ops/threads.h"
#include "text/model_text.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

struct ConvertCommand {
  ModelOptions model;
  fs::path out;
  std::string dtype;  // empty: as it is
  bool int8 = false;
  int64_t kv_heads = 0;  // 0: as many as there are
  bool plain = false;
  bool json = false;
  double shard_gigabytes = static_cast<double>(model::kShardBytes) / 1e9;
};

// Of the weights as they are; what 8 bits and a scale stand for fits into f32 alone.
at::ScalarType stored_dtype(const fs::path& dir) {
  const model::ModelConfig config = model::read_model_config(dir);
  if (config.int8_weights) return at::kFloat;
  const model::Checkpoint checkpoint(dir, model::decoder_layout(config));
  return nn::scalar_type(checkpoint.matrix(checkpoint.layout().token_embedding)->dtype());
}

void require_new_folder(const fs::path& out) {
  std::error_code ignored;
  if (fs::exists(out) && !fs::is_empty(out, ignored)) {
    throw invalid_argument("--out: " + out.string() +
                           " is there already; name a new or empty folder");
  }
}

nn::Decoder make_plain(nn::Decoder model) {
  if (!model.config().dmc) {
    throw invalid_argument(
        "--plain: the model has no dmc_config, so there are no decisions to remove");
  }
  if (model.config().has_adapter()) return nn::without_adapter(model);
  if (const char* const key = model.config().dmc->only_runs()) {
    throw invalid_argument(
        std::string("--plain: the model's decision channel is 0 behind the rotary "
                    "embedding, too (") +
        key + " in config.json), which no dense model can be");
  }
  nn::scale_decision_channel(model, 0.0);
  model.config().dmc.reset();
  return model;
}

// Of all files of weights in `dir`.
int64_t weight_bytes(const fs::path& dir) {
  int64_t sum = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".safetensors") sum += static_cast<int64_t>(entry.file_size());
  }
  return sum;
}

nn::WeightForm weight_form(const ConvertCommand& command, const nn::Decoder& model,
                           at::ScalarType dtype) {
  nn::WeightForm form{dtype, {}, static_cast<int64_t>(command.shard_gigabytes * 1e9)};
  if (!command.int8) return form;
  form.int8 = model::int8_matrices(model.layout());
  if (form.int8.empty()) {
    throw invalid_argument(
        "--weights: a " + model.config().model_type +
        " model stores its matrices transposed, for which there is no common form "
        "in 8 bits; `dmc run --weights int8` rounds them when it loads");
  }
  return form;
}

void print_result(const ConvertCommand& command, const nn::Decoder& model) {
  const auto parameters = model.parameter_count();
  if (command.json) {
    std::cout << nlohmann::ordered_json{{"out", command.out.string()},
                                        {"architecture", model.config().architecture},
                                        {"parameters", parameters},
                                        {"weight_bytes", weight_bytes(command.out)}}
                     .dump()
              << "\n";
    return;
  }
  std::cerr << "the model is in " << command.out.string() << ": "
            << human_count(static_cast<double>(parameters)) << " parameters\n";
}

int run(const ConvertCommand& command) {
  require_model(command.model);
  ops::set_threads(command.model.threads);
  require_new_folder(command.out);
  const fs::path& from = command.model.dir;
  const at::ScalarType dtype =
      command.dtype.empty() ? stored_dtype(from) : nn::float_type(command.dtype);
  nn::Decoder model = nn::Decoder::load(from, dtype);
  if (command.plain) model = make_plain(std::move(model));
  if (command.kv_heads > 0) model = nn::pool_kv_heads(model, command.kv_heads);
  model.save(command.out, weight_form(command, model, dtype));
  text::copy_model_texts(from, command.out);
  print_result(command, model);
  return 0;
}

}  // namespace

std::function<int()> setup_convert(CLI::App& app) {
  auto command = std::make_shared<ConvertCommand>();
  add_model_options(app, command->model, "");
  app.add_option("-o,--out", command->out, "new folder for the converted model")->required();
  app.add_option("--dtype", command->dtype, "of the weights: f32, f16 or bf16 (default: as it is)")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option_function<std::string>(
         "--weights", [command](const std::string&) { command->int8 = true; },
         "int8: matrices in 8 bits with a scale for each output; --dtype is then of the rest")
      ->check(CLI::IsMember({"int8"}));
  app.add_option("--kv-heads", command->kv_heads,
                 "so many KV heads, each the mean of several (train a little afterwards)")
      ->check(CLI::Range(1, 1 << 20));
  app.add_flag("--plain", command->plain,
               "a retrofitted model as a dense one that any program runs, uncompressed");
  app.add_option("--shard-gb", command->shard_gigabytes, "gigabytes a file of weights has at most")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  app.add_flag("--json", command->json, "print what was written as one JSON object");
  app.footer(
      "Examples:\n"
      "  dmc convert -m my-4x -o my-4x-bf16 --dtype bf16\n"
      "  dmc convert -m my-4x -o my-4x-int8 --weights int8\n"
      "  dmc convert -m my-4x -o my-plain --plain\n"
      "  dmc convert -m ~/models/Llama-2-7b -o llama-gqa --kv-heads 8");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
