#include "cli/commands.h"

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
    {"retrofit", "teach a dense model to compress its own KV cache", setup_retrofit},
    {"train", "train a model without compression", setup_train},
    {"convert", "change a model's dtype or KV heads, or make it dense again", setup_convert},
    {"demo", "retrofit the built-in model live and compare; writes report.html", setup_demo},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

}  // namespace dmc::cli
