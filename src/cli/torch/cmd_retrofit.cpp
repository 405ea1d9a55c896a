// dmc retrofit: teaches a dense model to compress its own KV cache, in three stages.
#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/human.h"
#include "base/join.h"
#include "base/named.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/torch/train_options.h"
#include "policy/policy.h"
#include "train/loss.h"
#include "train/method.h"

namespace dmc::cli {
namespace {

constexpr int64_t kMostSteps = 1 << 30;

struct RetrofitCommand {
  TrainCommand train;
  int64_t ramp = 200;  // steps
  std::optional<int64_t> zero_out, finetune;
  // If not given, what the method is used with.
  std::optional<int64_t> window, delay;
  std::optional<std::string> decisions;
  CLI::Option* distill_weight_flag = nullptr;

  train::RetrofitOptions& options() { return train.options.retrofit; }
};

// A flag that takes one of a table's names.
template <class Entry>
CLI::Option* add_name(CLI::App& app, const char* flag, std::string& name, const std::string& help,
                      std::span<const Entry> table) {
  const std::string names = join(table, ",", &Entry::name);
  return app.add_option(flag, name, help + " (" + names_explained(table) + ")")
      ->type_name("{" + names + "}")
      ->check([table, names](const std::string& given) {
        return find_named(table, given) ? "" : "\"" + given + "\" is not one of " + names;
      });
}

// "12 for dmc, 64 for dms", of the methods that leave it open.
std::string usual_sizes(train::Method::Size train::Method::*size) {
  std::vector<std::string> usual;
  for (const train::Method& method : train::methods()) {
    if (!(method.*size).can_differ()) continue;
    usual.push_back(std::to_string((method.*size).usual) + " for " + std::string(method.name));
  }
  return join(usual, ", ");
}

// Methods that pool nothing have one window alone, their delay.
void set_windows(RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  const train::Method& method = *train::find_method(r.method);
  if (command.window && command.delay && !method.window.can_differ()) {
    throw invalid_argument(
        "window", "is the delay of method " + r.method + ", which is given, too; give one of them");
  }
  if (!method.window.can_differ() && command.window) std::swap(command.window, command.delay);
  r.window = command.window.value_or(method.window.usual);
  if (!r.importance_offset) r.importance_offset = method.importance_offset;
}

void add_ratio_options(CLI::App& app, RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  app.add_option("--cr", r.target_cr, "compression ratio to train for")
      ->check(CLI::Range(1.0, 64.0))
      ->capture_default_str();
  app.add_option("--save-at-cr", r.save_at_cr,
                 "ratios below --cr, as 2,3: a model for each in OUT/cr-RATIO when it is passed")
      ->delimiter(',');
  app.add_option("--compression-weight", r.compression_weight,
                 "weight of the compression loss at first; it adapts to the lag behind --cr")
      ->check(positive())
      ->capture_default_str();
  app.add_option("--weight-gain", r.weight_gain, "how fast that weight adapts; 0: not at all")
      ->check(not_negative())
      ->capture_default_str();
  app.add_option("--head-cap", r.head_cr_cap,
                 "a head's compression counts towards --cr up to this ratio")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_option(
         "--offset-gain", r.offset_gain,
         "how fast the decisions' offset follows the served ratio in the finetune steps, so "
         "that it ends at --cr; 0: not at all")
      ->check(not_negative())
      ->capture_default_str();
}

void add_decision_options(CLI::App& app, RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  add_name(app, "--method", r.method, "what a decision does", train::methods())
      ->capture_default_str();
  app.add_option("--window", command.window,
                 "tokens of a segment that its slot averages, 0 for all (default: " +
                     usual_sizes(&train::Method::window) + "); dms: the same as --delay")
      ->check(not_negative());
  app.add_option("--delay", command.delay,
                 "newest tokens that stay as they are; one that is decided against is dropped or "
                 "merged when it is no longer among them (default: " +
                     usual_sizes(&train::Method::delay) +
                     "; at most half of the slots that --cr leaves)")
      ->check(not_negative());
  app.add_option("--decisions", command.decisions,
                 "who takes them: neuron, a channel that each head gives up, or adapter, a small "
                 "projection beside each layer, which alone is trained (default: an adapter, "
                 "trained together with the model)")
      ->check(CLI::IsMember({"neuron", "adapter"}));
  app.add_flag("--train-base", r.train_base,
               "with --decisions adapter: train the model's own weights, too");
  app.add_option("--offset", r.offset, "c of the decision and importance logits")
      ->check(positive())
      ->capture_default_str();
  app.add_option("--importance-offset", r.importance_offset,
                 "c of the importance logits alone (default: --offset; -4 for dmc-delayed, whose "
                 "merged tokens thus start at a weight of 0.02, beside 1 for a slot's newest)");
  app.add_option(
         "--decision-scale", command.train.given.decision_scale,
         "factor on decision logits while training; larger ones learn faster (default: from "
         "the learning rate, the model's size and --steps)")
      ->check(positive());
}

void add_stage_options(CLI::App& app, RetrofitCommand& command) {
  const auto steps = CLI::Range(int64_t{1}, kMostSteps);
  app.add_option(
         "--zero-out-steps", command.zero_out,
         "steps in which the decision channel of --decisions neuron fades (default: a sixth "
         "of --steps)")
      ->check(steps);
  app.add_option("--steps", command.ramp, "steps in which the ratio rises to --cr")
      ->check(steps)
      ->capture_default_str();
  app.add_option("--finetune-steps", command.finetune,
                 "steps at the full ratio, while the learning rate decays (default: as many as "
                 "--steps)")
      ->check(steps);
}

void add_distillation_options(CLI::App& app, RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  add_name(
      app, "--distill", r.distill,
      "learn from the model as it was at the start, uncompressed; takes a second copy of it in "
      "memory unless only an adapter is trained",
      train::divergences());
  command.distill_weight_flag =
      app.add_option("--distill-weight", r.distill_weight,
                     "of --distill in the loss; the language model's loss has the rest")
          ->check(CLI::Range(0.01, 1.0))
          ->capture_default_str();
}

std::vector<train::StageRun> choose_stages(RetrofitCommand& command) {
  std::vector<train::StageRun> stages = {
      {train::find_stage("retrofit"), command.ramp},
      {train::find_stage("finetune"), command.finetune.value_or(command.ramp)}};
  if (command.options().decisions == "neuron") {  // attention must first learn to do without it
    const int64_t usual = std::max<int64_t>(command.ramp / 6, 1);
    stages.insert(stages.begin(),
                  {train::find_stage("zero-out"), command.zero_out.value_or(usual)});
  }
  return stages;
}

// A channel is dear where heads are small, and a frozen model learns little: unless the user says
// who decides, or for how long a channel is to fade, it is an adapter, and everything trains.
void choose_decisions(RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  const bool fades = command.zero_out.has_value();
  r.decisions = command.decisions.value_or(fades ? "neuron" : "adapter");
  if (!command.decisions && !fades) r.train_base = true;
}

void check_decisions(const train::RetrofitOptions& options, bool zero_out_given) {
  if (options.decisions == "adapter" && zero_out_given) {
    throw invalid_argument(
        "--zero-out-steps: an adapter takes no channel of the model, so none has to fade; leave "
        "the flag out or take --decisions neuron");
  }
  if (options.decisions != "adapter" && options.train_base) {
    throw invalid_argument("--train-base: --decisions " + options.decisions +
                           " always trains the model's own weights; leave the flag out");
  }
}

void check_options(const train::RetrofitOptions& options, bool distill_weight_given) {
  if (distill_weight_given && options.distill.empty()) {
    throw invalid_argument(
        "--distill-weight: there is no distillation to weigh; add --distill forward");
  }
  for (const double cr : options.save_at_cr) {
    if (cr > 1.0 && cr < options.target_cr) continue;
    throw invalid_argument("--save-at-cr: " + fixed(cr, 2) + " is not between 1 and --cr " +
                           fixed(options.target_cr, 2) +
                           "; the model of --cr itself is the run's result");
  }
}

// Raw tokens are kept whole, so they may take half of the slots at most.
int64_t usual_delay(const train::TrainOptions& options) {
  const train::RetrofitOptions& r = options.retrofit;
  const int64_t usual = train::find_method(r.method)->delay.usual;
  const auto half = static_cast<int64_t>(static_cast<double>(options.length) / (2 * r.target_cr));
  return usual > 0 ? std::clamp<int64_t>(half, 1, usual) : 0;
}

int run_retrofit(RetrofitCommand& command) {
  train::RetrofitOptions& r = command.options();
  set_windows(command);
  std::ranges::sort(r.save_at_cr);
  check_options(r, command.distill_weight_flag->count() > 0);
  choose_decisions(command);
  check_decisions(r, command.zero_out.has_value());
  command.train.options.stages = choose_stages(command);
  command.train.options.decay_steps = command.train.options.stages.back().steps;
  return run_training_command(command.train, [&](train::TrainOptions& options) {
    options.retrofit.delay = command.delay.value_or(usual_delay(options));
  });
}

}  // namespace

std::function<int()> setup_retrofit(CLI::App& app) {
  auto command = std::make_shared<RetrofitCommand>();
  command->options().method = "dmc-delayed";
  add_training_options(app, command->train);
  add_ratio_options(app, *command);
  add_decision_options(app, *command);
  add_stage_options(app, *command);
  add_distillation_options(app, *command);
  app.footer(
      "Examples:\n"
      "  dmc retrofit -m models/builtin -o my-4x --cr 4\n"
      "  dmc retrofit -m models/builtin -o sparse-4x --cr 4 --method dms --delay 128\n"
      "  dmc retrofit -m ~/models/TinyLlama -o tiny-2x --cr 2 --data ~/books --length 2048\n"
      "  dmc retrofit -m ~/models/TinyLlama -o tiny-adapter --cr 2 --decisions adapter");
  return [command] { return run_retrofit(*command); };
}

}  // namespace dmc::cli
