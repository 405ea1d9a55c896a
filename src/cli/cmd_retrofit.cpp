// dmc retrofit: teaches a dense model to compress its own KV cache, in three stages.
#include "cli/commands.h"
#include "cli/train_options.h"
#include "train/stage.h"

namespace dmc::cli {
namespace {

struct StageSteps {
  int64_t zero_out = 50, retrofit = 400, finetune = 200;
};

}  // namespace

std::function<int()> setup_retrofit(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  auto steps = std::make_shared<StageSteps>();
  train::RetrofitOptions& r = command->options.retrofit;
  add_training_options(app, *command);
  app.add_option("--cr", r.target_cr, "compression ratio to train for")
      ->check(CLI::Range(1.0, 64.0))
      ->capture_default_str();
  app.add_option("--window", r.window, "tokens of a segment that its slot averages; 0: all")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--zero-out-steps", steps->zero_out, "steps in which the decision channel fades")
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
  app.add_option("--offset", r.offset, "c of the decision and importance logits")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--weight-gain", r.weight_gain, "how fast that weight adapts; 0: not at all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--decision-scale", r.decision_scale,
                 "factor on the decision channels while training; larger ones learn faster")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.footer(
      "Examples:\n"
      "  dmc retrofit -m models/builtin -o my-4x --cr 4\n"
      "  dmc retrofit -m ~/models/TinyLlama -o tiny-2x --cr 2 --data ~/books --length 2048");
  return [command, steps] {
    train::TrainOptions& options = command->options;
    options.stages = {{train::find_stage("zero-out"), steps->zero_out},
                      {train::find_stage("retrofit"), steps->retrofit},
                      {train::find_stage("finetune"), steps->finetune}};
    options.decay_steps = steps->finetune;
    return run_training_command(*command);
  };
}

}  // namespace dmc::cli
