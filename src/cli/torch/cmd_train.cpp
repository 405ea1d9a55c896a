// dmc train: language modelling without compression, from random weights or from a model.
#include "cli/commands.h"
#include "cli/torch/train_options.h"
#include "train/stage.h"

namespace dmc::cli {

std::function<int()> setup_train(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  auto steps = std::make_shared<int64_t>(1000);
  auto decay = std::make_shared<int64_t>(-1);
  add_training_options(app, *command);
  app.add_option("--steps", *steps, "training steps")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--decay-steps", *decay,
                 "last steps over which the learning rate falls (default: all after warm-up)");
  app.add_flag("--fresh", command->options.fresh,
               "start from random weights; --model gives config.json and tokenizer only");
  app.footer(
      "Examples:\n"
      "  dmc train -m models/builtin -o out --steps 200 --lr 1e-4\n"
      "  dmc train -m models/builtin --fresh -o out --steps 5000 --batch 16 --length 512 --lr "
      "3e-3");
  return [command, steps, decay] {
    train::TrainOptions& options = command->options;
    options.stages = {{train::find_stage("dense"), *steps}};
    options.decay_steps = *decay >= 0 ? *decay : *steps - options.warmup_steps;
    return run_training_command(*command);
  };
}

}  // namespace dmc::cli
