// dmc plan: the memory that a model takes, from its config.json or its name alone.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/human.h"
#include "base/table.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "model/config_file.h"
#include "model/families/family.h"
#include "model/published.h"
#include "runtime/plan.h"

namespace dmc::cli {
namespace {

struct PlanCommand {
  std::string model;
  runtime::PlanRequest request;
  double cr = 0.0;  // 0: the model's
  std::string weights = "bf16", slots = "bf16", training = "f32";
  int gpus = 1;
  bool json = false;
};

model::ModelConfig find_model(const std::string& model) {
  if (std::filesystem::is_directory(model)) return model::read_model_config(model);
  if (const auto config = model::published_model(model)) return *config;
  throw invalid_argument("--model: \"" + model + "\" is neither a folder nor one of " +
                         model::published_names());
}

struct Line {
  const char* name;
  double serving, training;  // bytes; 0: has none
};

std::vector<Line> lines(const runtime::Plan& plan) {
  const runtime::ServingPlan& s = plan.serving;
  const runtime::TrainingPlan& t = plan.training;
  return {{"weights", s.weights, t.weights}, {"gradients", 0, t.gradients},
          {"optimizer", 0, t.optimizer},     {"cache", s.cache, 0},
          {"open slots", s.open_slots, 0},   {"activations", s.activations, t.activations},
          {"total", s.total(), t.total()}};
}

// A served model is split evenly; what processes that train together have is dmc's own way.
Line of_each_gpu(const PlanCommand& command, const runtime::Plan& plan) {
  return {"each gpu", plan.serving.total() / command.gpus,
          plan.training.of_process(command.request.batch, command.gpus)};
}

std::string cell(double bytes) { return bytes > 0 ? human_bytes(bytes) : "-"; }

void print(const PlanCommand& command, const model::ModelConfig& c, double parameters,
           const runtime::Plan& plan) {
  const runtime::PlanRequest& r = command.request;
  std::cout << command.model << ": " << human_count(parameters) << " parameters, " << c.num_layers
            << " layers, " << c.num_kv_heads << " KV heads of " << c.head_dim << "\n"
            << r.batch << " x " << r.context << " tokens at CR " << fixed(r.cr, 2)
            << "; a token takes " << human_bytes(plan.token_bytes / r.cr) << " of cache\n\n";
  Table table({{"", Align::kLeft}, {"serving"}, {"training"}});
  for (const Line& line : lines(plan)) {
    table.add_row({line.name, cell(line.serving), cell(line.training)});
  }
  if (command.gpus > 1) {
    const Line each = of_each_gpu(command, plan);
    table.add_row({"each of " + std::to_string(command.gpus) + " GPUs", cell(each.serving),
                   cell(each.training)});
  }
  table.print(std::cout);
}

nlohmann::ordered_json to_json(const PlanCommand& command, double parameters,
                               const runtime::Plan& plan) {
  const runtime::PlanRequest& r = command.request;
  nlohmann::ordered_json json = {{"model", command.model},
                                 {"parameters", parameters},
                                 {"batch", r.batch},
                                 {"context", r.context},
                                 {"cr", r.cr},
                                 {"gpus", command.gpus},
                                 {"cache_bytes_per_dense_token", plan.token_bytes}};
  std::vector<Line> all = lines(plan);
  all.push_back(of_each_gpu(command, plan));
  for (const Line& line : all) {
    std::string key = line.name;
    std::ranges::replace(key, ' ', '_');
    json["serving_bytes"][key] = line.serving;
    json["training_bytes"][key] = line.training;
  }
  return json;
}

int run(PlanCommand command) {
  const model::ModelConfig config = find_model(command.model);
  runtime::PlanRequest& r = command.request;
  if (r.context == 0) r.context = config.context();
  r.cr = command.cr > 0.0 ? command.cr : config.dmc ? config.dmc->target_cr : 1.0;
  r.weights = precision(command.weights);
  r.slots = precision(command.slots);
  r.training = precision(command.training);
  const double parameters = model::parameter_count(model::decoder_layout(config));
  const runtime::Plan plan = runtime::plan(config, parameters, r);
  if (command.json) {
    std::cout << to_json(command, parameters, plan).dump() << "\n";
  } else {
    print(command, config, parameters, plan);
  }
  return 0;
}

}  // namespace

std::function<int()> setup_plan(CLI::App& app) {
  auto command = std::make_shared<PlanCommand>();
  app.add_option("-m,--model", command->model,
                 "model directory (config.json is enough), or one of " + model::published_names())
      ->required();
  app.add_option("--batch", command->request.batch,
                 "sequences served together, or of one training step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--context", command->request.context,
                 "tokens of each (default: the most the model takes)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--cr", command->cr,
                 "compression ratio of the cache (default: what the model was trained for, else 1)")
      ->check(CLI::Range(1.0, 1e6));
  app.add_option(
         "--gpus", command->gpus,
         "GPUs: a served model is split evenly, by an engine that can (dmc serves with one); "
         "training has all weights and gradients on each, and shares out the rest")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  add_precision(app, "--weights", command->weights, "type of the weights when served")
      ->capture_default_str();
  add_slot_precision(app, command->slots, "type of the cache's slots")->capture_default_str();
  app.add_option("--train", command->training,
                 "type that products of training take; bf16 copies stand beside weights in f32")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_flag("--json", command->json, "print one JSON object, in bytes, instead");
  app.footer(
      "Examples:\n"
      "  dmc plan -m llama-2-70b --batch 16 --context 4096 --cr 4 --gpus 8\n"
      "  dmc plan -m models/builtin-4x --kv int8 --json");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
