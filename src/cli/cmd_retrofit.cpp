// dmc retrofit: teaches a dense model to compress its own KV cache, in three stages.
#include <algorithm>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/human.h"
#include "base/join.h"
#include "cli/commands.h"
#include "cli/train_options.h"
#include "train/loss.h"
#include "train/method.h"

namespace dmc::cli {
namespace {

struct StageSteps {
  int64_t zero_out = 50, retrofit = 400, finetune = 200;
};

// "dmc: what it does; dms: what it does".
template <class Entry>
std::string explained(std::span<const Entry> table) {
  return join(table, "; ", [](const Entry& entry) {
    return std::string(entry.name) + ": " + std::string(entry.summary);
  });
}

// A flag that takes one of a table's names.
template <class Entry>
CLI::Option* add_name(CLI::App& app, const char* flag, std::string& name, const std::string& help,
                      std::span<const Entry> table) {
  const std::string names = join(table, ",", &Entry::name);
  return app.add_option(flag, name, help + " (" + explained(table) + ")")
      ->type_name("{" + names + "}")
      ->check([table, names](const std::string& given) {
        const bool known = std::ranges::find(table, given, &Entry::name) != table.end();
        return known ? "" : "\"" + given + "\" is not one of " + names;
      });
}

std::string usual_windows() {
  return join(train::methods(), ", ", [](const train::Method& method) {
    return std::to_string(method.usual_window) + " for " + std::string(method.name);
  });
}

std::vector<train::StageRun> choose_stages(const StageSteps& steps, const std::string& decisions) {
  std::vector<train::StageRun> stages = {{train::find_stage("retrofit"), steps.retrofit},
                                         {train::find_stage("finetune"), steps.finetune}};
  if (decisions == "neuron") {  // attention must first learn to do without the channel
    stages.insert(stages.begin(), {train::find_stage("zero-out"), steps.zero_out});
  }
  return stages;
}

void check_decisions(const train::RetrofitOptions& options, bool zero_out_given) {
  if (options.decisions == "adapter" && zero_out_given) {
    throw usage_error(
        "--zero-out-steps: an adapter takes no channel of the model, so none has to fade; leave "
        "the flag out or take --decisions neuron");
  }
  if (options.decisions != "adapter" && options.train_base) {
    throw usage_error("--train-base: --decisions " + options.decisions +
                      " always trains the model's own weights; leave the flag out");
  }
}

void check_options(const train::RetrofitOptions& options, bool distill_weight_given) {
  if (distill_weight_given && options.distill.empty()) {
    throw usage_error("--distill-weight: there is no distillation to weigh; add --distill forward");
  }
  for (const double cr : options.save_at_cr) {
    if (cr > 1.0 && cr < options.target_cr) continue;
    throw usage_error("--save-at-cr: " + fixed(cr, 2) + " is not between 1 and --cr " +
                      fixed(options.target_cr, 2) +
                      "; the model of --cr itself is the run's result");
  }
}

}  // namespace

std::function<int()> setup_retrofit(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  auto steps = std::make_shared<StageSteps>();
  auto window = std::make_shared<std::optional<int64_t>>();
  train::RetrofitOptions& r = command->options.retrofit;
  add_training_options(app, *command);
  app.add_option("--cr", r.target_cr, "compression ratio to train for")
      ->check(CLI::Range(1.0, 64.0))
      ->capture_default_str();
  add_name(app, "--method", r.method, "what a decision does", train::methods())
      ->capture_default_str();
  app.add_option(
         "--window", *window,
         "dmc: tokens of a segment that its slot averages, 0 for all; dms: tokens for which "
         "one that is to go is still seen (default: " +
             usual_windows() + ")")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--decisions", r.decisions,
                 "who takes them: neuron, a channel that each head gives up, or adapter, a small "
                 "projection beside each layer, which alone is trained")
      ->check(CLI::IsMember({"neuron", "adapter"}))
      ->capture_default_str();
  app.add_flag("--train-base", r.train_base,
               "with --decisions adapter: train the model's own weights, too");
  CLI::Option* zero_out = app.add_option("--zero-out-steps", steps->zero_out,
                                         "steps in which the decision channel fades")
                              ->check(CLI::Range(1, 1 << 30))
                              ->capture_default_str();
  app.add_option("--steps", steps->retrofit, "steps in which the ratio rises to --cr")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--finetune-steps", steps->finetune,
                 "steps at the full ratio, while the learning rate decays")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--compression-weight", r.compression_weight,
                 "weight of the compression loss at first; it adapts to the lag behind --cr")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--head-cap", r.head_cr_cap,
                 "a head's compression counts towards --cr up to this ratio")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_option("--save-at-cr", r.save_at_cr,
                 "ratios below --cr, as 2,3: a model for each in OUT/cr-RATIO when it is passed")
      ->delimiter(',');
  add_name(app, "--distill", r.distill,
           "learn from the model as it was at the start, uncompressed, a second copy in memory",
           train::divergences());
  CLI::Option* distill_weight =
      app.add_option("--distill-weight", r.distill_weight,
                     "of --distill in the loss; the language model's loss has the rest")
          ->check(CLI::Range(0.01, 1.0))
          ->capture_default_str();
  app.add_option("--offset", r.offset, "c of the decision and importance logits")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--weight-gain", r.weight_gain, "how fast that weight adapts; 0: not at all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--decision-scale", r.decision_scale,
                 "factor on decision logits while training; larger ones learn faster")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.footer(
      "Examples:\n"
      "  dmc retrofit -m models/builtin -o my-4x --cr 4\n"
      "  dmc retrofit -m models/builtin -o sparse-4x --cr 4 --method dms --window 128\n"
      "  dmc retrofit -m ~/models/TinyLlama -o tiny-2x --cr 2 --data ~/books --length 2048\n"
      "  dmc retrofit -m ~/models/TinyLlama -o tiny-adapter --cr 2 --decisions adapter");
  return [command, steps, window, distill_weight, zero_out] {
    train::TrainOptions& options = command->options;
    train::RetrofitOptions& retrofit = options.retrofit;
    retrofit.window = window->value_or(train::find_method(retrofit.method)->usual_window);
    std::ranges::sort(retrofit.save_at_cr);
    check_options(retrofit, distill_weight->count() > 0);
    check_decisions(retrofit, zero_out->count() > 0);
    options.stages = choose_stages(*steps, retrofit.decisions);
    options.decay_steps = steps->finetune;
    return run_training_command(*command);
  };
}

}  // namespace dmc::cli
