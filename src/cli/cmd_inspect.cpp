// dmc inspect: a model's facts, and how much each head compresses.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/join.h"
#include "base/progress.h"
#include "base/table.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "eval/score.h"
#include "model/checkpoint.h"

namespace dmc::cli {
namespace {

struct InspectCommand {
  ModelOptions model;
  TextOptions text;
  bool check = false, values = false;
  bool json = false;
};

nlohmann::ordered_json to_json(const model::ModelConfig& c, double parameters) {
  nlohmann::ordered_json json = {
      {"architecture", c.architecture}, {"parameters", static_cast<int64_t>(parameters)},
      {"layers", c.num_layers},         {"hidden_size", c.hidden_size},
      {"heads", c.num_heads},           {"kv_heads", c.num_kv_heads},
      {"head_dim", c.head_dim},         {"vocab_size", c.vocab_size},
      {"context", c.context()}};
  if (c.dmc) {
    json["dmc"] = {{"method", c.dmc->method},
                   {"target_cr", c.dmc->target_cr},
                   {"decision_source", c.dmc->decision_source},
                   {"window", c.dmc->window},
                   {"delay", c.dmc->delay},
                   {"decision_offset", c.dmc->decision_offset},
                   {"stage", c.dmc->stage},
                   {"trained_tokens", c.dmc->trained_tokens},
                   {"max_trained_length", c.dmc->max_trained_length}};
  }
  return json;
}

const char* decider(const model::DmcConfig& dmc) {
  if (dmc.decision_source == "adapter") return "an adapter";
  return dmc.decision_source == "query" ? "the last channel of each group's first query head"
                                        : "the last channel of each head of q and k";
}

void print(const model::ModelConfig& c, double parameters) {
  std::cout << c.architecture << ", " << human_count(parameters) << " parameters: " << c.num_layers
            << " layers, hidden " << c.hidden_size << ", " << c.num_heads << " heads, "
            << c.num_kv_heads << " KV heads of " << c.head_dim << ", vocabulary " << c.vocab_size
            << ", context " << c.context() << "\n";
  if (c.dmc) {
    std::cout << "retrofitted for " << c.dmc->method << ", CR " << fixed(c.dmc->target_cr, 2)
              << " on " << human_count(static_cast<double>(c.dmc->trained_tokens))
              << " tokens of up to " << c.dmc->max_trained_length << ", window " << c.dmc->window
              << ", delay " << c.dmc->delay << ", stage " << c.dmc->stage << ", decided by "
              << decider(*c.dmc) << "\n";
  } else {
    std::cout << "no dmc_config: the model is dense; `dmc retrofit` teaches it to compress\n";
  }
}

void print(const eval::Score& score) {
  double largest = 2.0;
  for (const auto& layer : score.cr_by_head) largest = std::max(largest, std::ranges::max(layer));
  std::cout << "\n";
  print_heat_map(
      std::cout,
      {"compression ratio " + fixed(score.compression_ratio, 2) + ", by layer and KV head", "layer",
       "head", score.cr_by_head, 1.0, largest},
      color_enabled(std::cout));
}

int check_files(const InspectCommand& command) {
  require_model(command.model);
  const auto [config, checkpoint] = model::open_model(command.model.dir, command.model.adapter);
  const model::CheckpointFacts facts = checkpoint.facts();
  if (command.values) checkpoint.require_finite();
  const double parameters = model::parameter_count(checkpoint.layout());
  if (command.json) {
    nlohmann::ordered_json json = to_json(config, parameters);
    json["tensors"] = facts.tensors;
    json["bytes"] = facts.bytes;
    json["dtypes"] = facts.types;
    std::cout << json.dump() << "\n";
    return 0;
  }
  print(config, parameters);
  std::cout << "weights: all " << facts.tensors << " tensors that config.json implies are there, "
            << human_bytes(static_cast<double>(facts.bytes)) << " of " << join(facts.types, ", ")
            << (command.values ? ", and all numbers are finite" : "") << "\n";
  return 0;
}

int run(const InspectCommand& command) {
  if (command.check) return check_files(command);
  const runtime::PlacedModel placed = place_model(command.model);
  const runtime::Model& model = placed.model();
  const auto runner = placed.make_runner(runner_options(command.model));
  const text::EvalWindows windows = text_windows(command.text, model, command.model.dir);
  ProgressBar bar("reading held-out text", windows.total_tokens());
  const eval::Score score = eval::score(*runner, windows, [&](int64_t done) { bar.update(done); });
  bar.finish();
  if (command.json) {
    nlohmann::ordered_json json = to_json(model.config, static_cast<double>(model.parameters));
    json["tokens"] = score.tokens;
    json["compression_ratio"] = score.compression_ratio;
    json["cr_by_head"] = score.cr_by_head;
    std::cout << json.dump() << "\n";
  } else {
    print(model.config, static_cast<double>(model.parameters));
    print(score);
  }
  return 0;
}

}  // namespace

std::function<int()> setup_inspect(CLI::App& app) {
  auto command = std::make_shared<InspectCommand>();
  command->text.windows = 8;
  add_model_options(app, command->model, "builtin-4x");
  add_inference_options(app, command->model, /*with_policy=*/true);
  add_device_option(app, command->model);
  add_text_options(app, command->text);
  CLI::Option* const check = app.add_flag(
      "--check", command->check,
      "only check that the weights are all there with the right shapes, without reading "
      "them: takes no memory, however large the model");
  app.add_flag(
         "--values", command->values,
         "with --check: read all weights, too, and name the first tensor in which a number is "
         "not finite")
      ->needs(check);
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(list_of_policies() +
             "Examples:\n"
             "  dmc inspect -m models/builtin-4x\n"
             "  dmc inspect -m ~/models/Llama-2-70b-hf --check");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
