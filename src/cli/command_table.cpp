#include "cli/commands.h"
#include "cli/training_program.h"

namespace dmc::cli {
namespace {

constexpr Command kCommands[] = {
    {"run", "continue a text, and say what its cache took", setup_run},
    {"serve", "serve a model over HTTP, as the OpenAI API has it", setup_serve},
    {"eval", "score a model on held-out text with its cache compressed", setup_eval},
    {"sweep", "compare policies over models, ratios and tasks; writes a report", setup_sweep},
    {"bench", "measure speed and cache size, dense against compressed", setup_bench},
    {"inspect", "show a model's facts and its compression by layer and head", setup_inspect},
    {"plan", "tell the memory a model takes, from its shape alone", setup_plan},
};

}  // namespace

std::vector<Command> commands() {
  std::vector<Command> all(std::begin(kCommands), std::end(kCommands));
  const std::vector<Command> training = training_commands();
  all.insert(all.end(), training.begin(), training.end());
  return all;
}

}  // namespace dmc::cli
