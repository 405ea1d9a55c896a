// dmc plan: the memory that a model takes, from its config.json or its name alone.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/human.h"
#include "base/named.h"
#include "base/table.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "model/config_file.h"
#include "model/families/family.h"
#include "model/model_path.h"
#include "model/published.h"
#include "model/shard_plan.h"
#include "runtime/plan.h"

namespace dmc::cli {
namespace {

struct PlanCommand {
  std::string model;
  runtime::PlanRequest request;
  double cr = 0.0;  // 0: the model's
  std::string weights = "bf16", slots = "bf16", training = "f32";
  int gpus = 1;
  std::string memory;  // empty: not given
  bool fsdp = false, json = false;
};

// Bytes of "24GiB", "24GB", "24G" (as 24GiB, which is what GPUs are sold by) or "800MiB".
double bytes_of(const std::string& memory) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
                             {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},   {"T", 0x1p40},
                             {"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
  double number = 0.0;
  const char* const end = memory.data() + memory.size();
  const auto [rest, error] = std::from_chars(memory.data(), end, number);
  const Unit* const unit = find_named(kUnits, std::string_view(rest, end));
  if (error != std::errc() || unit == nullptr || !(number > 0.0)) {
    throw invalid_argument("memory", "expected a number with a unit, as 24GiB, found " + memory);
  }
  return number * unit->bytes;
}

model::ModelConfig find_model(const std::string& model) {
  const std::filesystem::path path = model::find_model(model);
  if (is_there(path)) {
    model::require_model_path(path);
    return model::read_model_config(path);
  }
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

// Why the GPUs cannot share the model when it is served; empty: they can.
std::string why_not_shared(const PlanCommand& command, const model::ModelConfig& config) {
  try {
    model::plan_shard(config, 0, command.gpus);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// Of a GPU; no serving where the GPUs cannot share the model.
Line of_each_gpu(const PlanCommand& command, const model::ModelConfig& config, double parameters,
                 const runtime::Plan& plan) {
  const double training =
      command.fsdp ? runtime::sharded_training(config, parameters, command.request, command.gpus)
                   : plan.training.of_process(command.request.batch, command.gpus);
  const bool shared = why_not_shared(command, config).empty();
  return {"each gpu",
          shared
              ? runtime::serving_of_rank(config, parameters, command.request, command.gpus).total()
              : 0.0,
          training};
}

std::string cell(double bytes) { return bytes > 0 ? human_bytes(bytes) : "-"; }

std::string behind_delay(const model::ModelConfig& config) {
  if (!config.dmc || config.dmc->delay == 0) return "";
  return " behind the newest " + std::to_string(config.dmc->delay);
}

void print(const PlanCommand& command, const model::ModelConfig& c, double parameters,
           const runtime::Plan& plan) {
  const runtime::PlanRequest& r = command.request;
  std::cout << command.model << ": " << human_count(parameters) << " parameters, " << c.num_layers
            << " layers, " << c.num_kv_heads << " KV heads of " << c.head_dim << "\n"
            << r.batch << " x " << r.context << " tokens at CR " << fixed(r.cr, 2)
            << behind_delay(c) << "; a token takes " << human_bytes(plan.token_bytes / r.cr)
            << " of cache\n\n";
  Table table({{"", Align::kLeft}, {"serving"}, {"training"}});
  for (const Line& line : lines(plan)) {
    table.add_row({line.name, cell(line.serving), cell(line.training)});
  }
  if (command.gpus > 1 || command.fsdp) {
    const Line each = of_each_gpu(command, c, parameters, plan);
    table.add_row({"each of " + std::to_string(command.gpus) + " GPUs", cell(each.serving),
                   cell(each.training)});
  }
  table.print(std::cout);
  const std::string why = why_not_shared(command, c);
  if (!why.empty()) std::cout << "no serving on " << command.gpus << " GPUs: " << why << "\n";
}

// What a memory of `bytes` has room for.
struct Room {
  double cr;
  int64_t context;  // of request.batch sequences, the model's at most; 0: not even one token
  int64_t batch;    // sequences of request.context
};

// The largest number up to `most` for which `fits`, which holds up to some number, does; else 0.
int64_t largest(int64_t most, const std::function<bool(int64_t)>& fits) {
  int64_t least = 0;
  while (least < most) {
    const int64_t middle = most - (most - least) / 2;
    const bool yes = fits(middle);
    (yes ? least : most) = yes ? middle : middle - 1;
  }
  return least;
}

std::vector<Room> rooms(const PlanCommand& command, const model::ModelConfig& config,
                        double parameters) {
  constexpr double kRatios[] = {1, 2, 4, 8};
  constexpr int64_t kMostSequences = 1 << 20;
  const double bytes = bytes_of(command.memory);
  if (const std::string why = why_not_shared(command, config); !why.empty()) {
    throw invalid_argument("gpus", why);
  }
  std::vector<double> ratios(std::begin(kRatios), std::end(kRatios));
  if (command.cr > 0.0) ratios = {command.cr};
  std::vector<Room> result;
  for (const double cr : ratios) {
    const auto fits = [&](int64_t batch, int64_t context) {
      runtime::PlanRequest request = command.request;
      request.cr = cr;
      request.batch = batch;
      request.context = context;
      return runtime::serving_of_rank(config, parameters, request, command.gpus).total() <= bytes;
    };
    result.push_back(
        {cr, largest(config.context(), [&](int64_t n) { return fits(command.request.batch, n); }),
         largest(kMostSequences, [&](int64_t n) { return fits(n, command.request.context); })});
  }
  return result;
}

void print(const PlanCommand& command, const model::ModelConfig& config,
           const std::vector<Room>& all) {
  const runtime::PlanRequest& r = command.request;
  std::cout << "\nwhat " << command.memory << (command.gpus > 1 ? " on each GPU" : "")
            << " has room for when serving\n";
  Table table({{"CR"},
               {r.batch == 1 ? "one sequence of" : std::to_string(r.batch) + " sequences of"},
               {"or sequences of " + std::to_string(r.context)}});
  for (const Room& room : all) {
    const std::string bound = room.context == config.context() ? " (the model's most)" : "";
    table.add_row(
        {fixed(room.cr, 2), std::to_string(room.context) + bound, std::to_string(room.batch)});
  }
  table.print(std::cout);
}

nlohmann::ordered_json to_json(const PlanCommand& command, const model::ModelConfig& config,
                               double parameters, const runtime::Plan& plan) {
  const runtime::PlanRequest& r = command.request;
  nlohmann::ordered_json json = {{"model", command.model},
                                 {"parameters", parameters},
                                 {"batch", r.batch},
                                 {"context", r.context},
                                 {"cr", r.cr},
                                 {"gpus", command.gpus},
                                 {"fsdp", command.fsdp},
                                 {"cache_bytes_per_dense_token", plan.token_bytes}};
  std::vector<Line> all = lines(plan);
  all.push_back(of_each_gpu(command, config, parameters, plan));
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
  model::require_context(config, "context", r.context);
  if (r.context == 0) r.context = config.context();
  r.cr = command.cr > 0.0 ? command.cr : config.dmc ? config.dmc->target_cr : 1.0;
  r.weights = precision(command.weights);
  r.slots = precision(command.slots);
  r.training = precision(command.training);
  const double parameters = model::parameter_count(model::decoder_layout(config));
  const runtime::Plan plan = runtime::plan(config, parameters, r);
  const std::vector<Room> room =
      command.memory.empty() ? std::vector<Room>() : rooms(command, config, parameters);
  if (command.json) {
    nlohmann::ordered_json json = to_json(command, config, parameters, plan);
    for (const Room& fit : room) {
      json["fits"].push_back({{"cr", fit.cr}, {"context", fit.context}, {"batch", fit.batch}});
    }
    std::cout << json.dump() << "\n";
  } else {
    print(command, config, parameters, plan);
    if (!room.empty()) print(command, config, room);
  }
  return 0;
}

}  // namespace

std::function<int()> setup_plan(CLI::App& app) {
  auto command = std::make_shared<PlanCommand>();
  app.add_option("-m,--model", command->model,
                 "model directory (config.json is enough), or a published model's name, see below")
      ->required();
  app.add_option("--batch", command->request.batch,
                 "sequences served together, or of one training step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--context,--ctx", command->request.context,
                 "tokens of each (default: the most the model takes)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--cr", command->cr,
                 "compression ratio of the cache (default: what the model was trained for, else 1)")
      ->check(CLI::Range(1.0, 1e6));
  app.add_option(
         "--gpus", command->gpus,
         "GPUs: a served model's heads, MLP and vocabulary are shared out, by an engine that can "
         "(dmc serves with one); "
         "training has all weights and gradients on each, and shares out the rest")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag(
      "--fsdp", command->fsdp,
      "of training on each GPU: by dmc.torch, which shares out weights and gradients, too");
  add_weight_precision(app, "--weights", command->weights, "type of the weights when served")
      ->capture_default_str();
  add_slot_precision(app, command->slots, "type of the cache's slots")->capture_default_str();
  app.add_option("--train", command->training,
                 "type that products of training take; bf16 copies stand beside weights in f32")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--memory", command->memory,
                 "of a GPU, as 24GiB: also say what it has room for when serving");
  app.add_flag("--json", command->json, "print one JSON object, in bytes, instead");
  app.footer("Models: " + model::published_names() +
             "\n"
             "Examples:\n"
             "  dmc plan -m qwen3-8b --context 32768 --memory 24GiB\n"
             "  dmc plan -m llama-2-70b --batch 16 --context 4096 --cr 4 --gpus 8\n"
             "  dmc plan -m llama-2-70b --batch 32 --context 4096 --train bf16 --gpus 32 --fsdp\n"
             "  dmc plan -m models/builtin-4x --kv int8 --json");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
