// dmc eval: held-out bits per byte and next-token accuracy, with the cache compressed.
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "runtime/score.h"

namespace dmc::cli {
namespace {

struct EvalCommand {
  ModelOptions model;
  TextOptions text;
  bool json = false;
};

int run(const EvalCommand& command) {
  const auto model = load_model(command.model);
  runtime::DecoderRunner runner(model, {.policy = command.model.policy});
  const io::EvalWindows windows = held_out_windows(command.text, *model, command.model.dir);
  const auto count = static_cast<int64_t>(windows.tokens.size());
  ProgressBar bar("scoring", count);
  const runtime::Score score =
      runtime::score(runner, windows, [&](int64_t done) { bar.update(done); });
  bar.finish();

  if (command.json) {
    std::cout << nlohmann::ordered_json{{"model", command.model.dir.string()},
                                        {"policy", runner.policy().name},
                                        {"windows", count},
                                        {"length", command.text.length},
                                        {"loss", score.loss},
                                        {"bits_per_byte", score.bits_per_byte},
                                        {"next_token_accuracy", score.next_token_accuracy},
                                        {"tokens", score.tokens},
                                        {"slots", score.slots},
                                        {"compression_ratio", score.compression_ratio}}
                     .dump()
              << "\n";
    return 0;
  }
  std::cout << command.model.dir.string() << ", policy " << runner.policy().name << ", " << count
            << " windows of " << command.text.length << " tokens\n"
            << "  bits per byte        " << fixed(score.bits_per_byte, 4) << "\n"
            << "  loss                 " << fixed(score.loss, 4) << " nats a token\n"
            << "  next-token accuracy  " << fixed(100 * score.next_token_accuracy, 2) << " %\n"
            << "  compression ratio    " << fixed(score.compression_ratio, 2) << "  ("
            << score.tokens << " tokens in " << fixed(score.slots, 0) << " slots a head)\n";
  return 0;
}

}  // namespace

std::function<int()> setup_eval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  add_model_options(app, command->model, "builtin-4x", /*with_policy=*/true);
  add_text_options(app, command->text);
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(
      "Examples:\n"
      "  dmc eval -m models/builtin-4x --json\n"
      "  dmc eval -m my-model --data ~/books --windows 8 --length 1024");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
