// dmc demo: retrofits the built-in model live, sets it beside the dense one and those that come at
// 4x, and writes a report; or, of another model, demo_of_model.h.
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/torch/demo_contender.h"
#include "cli/torch/demo_of_model.h"
#include "cli/torch/train_options.h"
#include "model/config_file.h"
#include "model/families/family.h"
#include "report/report.h"
#include "train/method.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kContext = 2048;  // of the scored windows and of the cache sizes compared

// How much work the demo does.
struct LiveSize {
  int64_t retrofit_steps, finetune_steps, batch;
  DemoSize shown;
};

const LiveSize kFull = {
    80,
    60,
    4,
    {16,
     kContext,
     {.contexts = {512, 2048, 8192}, .batches = {1, 8}, .decode_tokens = 16, .repeats = 2}}};
const LiveSize kQuick = {
    40,
    30,
    2,
    {4, kContext, {.contexts = {512, 4096}, .batches = {1, 8}, .decode_tokens = 8, .repeats = 1}}};

constexpr auto kPrompt = "def read_config(path, default=None):\n    \"\"\"";

// Delayed merging is not served on GPUs yet.
bool serves_delayed(const DemoCommand& demo) { return demo.options.device == "cpu"; }

// As `dmc retrofit` would have them.
void set_rates(train::TrainOptions& o) {
  const model::ModelConfig config = model::read_model_config(o.model_dir);
  const train::Defaults chosen =
      train::choose_defaults({.parameters = model::parameter_count(model::decoder_layout(config)),
                              .context = config.context(),
                              .hidden = config.hidden_size,
                              .ramp_steps = o.ramp_steps()},
                             {.length = o.length, .batch = o.batch});
  o.learning_rate = chosen.learning_rate;
  o.final_learning_rate = chosen.final_learning_rate;
  o.retrofit.decision_scale = chosen.decision_scale;
}

TrainCommand live_retrofit(const DemoCommand& demo, const LiveSize& size) {
  TrainCommand command;
  command.threads = demo.options.threads;
  train::TrainOptions& o = command.options;
  o.model_dir = shipped_model("builtin");
  o.device = demo.options.device;
  o.out_dir = demo.out / "live-2x";
  o.stages = {{train::find_stage("retrofit"), size.retrofit_steps},
              {train::find_stage("finetune"), size.finetune_steps}};
  o.decay_steps = size.finetune_steps;
  o.batch = size.batch;
  o.length = 1024;
  o.warmup_steps = 5;
  o.retrofit.method = serves_delayed(demo) ? "dmc-delayed" : "dms";
  const train::Method& method = *train::find_method(o.retrofit.method);
  o.retrofit.window = method.window.usual;
  o.retrofit.importance_offset = method.importance_offset;
  o.retrofit.decisions = "adapter";
  o.retrofit.train_base = true;
  o.retrofit.delay = 64;
  o.retrofit.target_cr = 2.0;
  set_rates(o);
  return command;
}

report::ReportData report_data(const std::vector<train::StepRecord>& records,
                               std::vector<report::Variant> variants, const runtime::Model& dense) {
  report::ReportData data;
  data.title = "A language model that learned to compress its own KV cache";
  data.subtitle =
      "The built-in model on held-out Python source code: dense, retrofitted to 2x while you "
      "watched, and to 4x with more patience: by Dynamic Memory Compression, by Dynamic Memory "
      "Sparsification and by delayed merging.";
  data.facts = model_facts(dense);
  data.training_name = "live 2x";
  for (const train::StepRecord& r : records) {
    data.training.push_back({r.step, r.loss, r.cr, r.wanted_cr, r.tokens_per_second});
  }
  data.variants = std::move(variants);
  data.cache_context = kContext;
  data.footnote =
      "Quality: held-out files in windows of 2,048 tokens, taken in with the cache compressed. "
      "Speed: all models in turn in one run on this machine, medians.";
  return data;
}

int run(const DemoCommand& command) {
  if (!command.options.dir.empty()) return demonstrate_model(command);
  const LiveSize& size = command.quick ? kQuick : kFull;
  std::error_code ignored;
  fs::remove_all(command.out / "live-2x", ignored);  // an earlier demo's
  say("1. Retrofitting the built-in model to 2x, live");
  std::vector<train::StepRecord> records;
  if (train_with_progress(live_retrofit(command, size), &records) == train::Outcome::kInterrupted) {
    std::cerr << "stopped\n";
    return kExitInterrupted;
  }

  say("2. Dense, live 2x and the models that come with dmc on held-out files");
  std::vector<Contender> contenders;
  const auto add = [&](const std::string& name, const fs::path& dir) {
    ModelOptions options = command.options;
    options.dir = dir;
    options.weights = "f16";  // of all: speeds are to differ by the cache alone
    contenders.push_back({name, dir, place_model(options)});
  };
  add("dense", shipped_model("builtin"));
  add("live 2x", command.out / "live-2x");
  add("DMC 4x", shipped_model("builtin-4x"));
  add("DMS 4x", shipped_model("builtin-dms"));
  if (serves_delayed(command)) add("delayed 4x", shipped_model("builtin-delayed"));
  const runtime::Model& dense = contenders[0].placed.model();
  TextOptions text;
  text.windows = size.shown.windows;
  text.length = size.shown.length;
  const text::EvalWindows windows = text_windows(text, dense, contenders[0].dir);
  std::vector<report::Variant> variants;
  for (const Contender& c : contenders) {
    variants.push_back(describe(c, windows, kPrompt));
    if (interrupted()) return kExitInterrupted;
  }

  say("3. Speed");
  add_speed(contenders, size.shown, &variants);
  print_summary(variants, kContext);
  print_map(variants.back());
  const fs::path report = command.out / "report.html";
  write_file_atomically(report, report::render_report(report_data(records, variants, dense)));
  std::cout << "\nreport: " << report.string() << "\ntalk to it: dmc run -m "
            << contenders.back().dir.string() << " -p 'class Parser:' -n 200\n";
  return 0;
}

}  // namespace

std::function<int()> setup_demo(CLI::App& app) {
  auto command = std::make_shared<DemoCommand>();
  app.add_flag("--quick", command->quick, "under two minutes: less training, fewer measurements");
  app.add_option("-o,--out", command->out, "folder for the live model and report.html")
      ->capture_default_str();
  app.add_option(
      "-m,--model", command->options.dir,
      "a model of yours, directory or GGUF file, instead of the built-in one: nothing is "
      "trained, all policies are compared on it");
  app.add_option("--adapter", command->options.adapter,
                 "adapter.safetensors of `dmc retrofit --decisions adapter` for that model")
      ->check(CLI::ExistingFile)
      ->needs("--model");
  app.add_option(
         "--cr", command->cr,
         "with --model: compression ratio of the policies that need no training, unless the "
         "model has one of its own")
      ->check(CLI::Range(1.0, 64.0))
      ->capture_default_str();
  add_threads(app, command->options.threads);
  add_device_option(app, command->options);
  app.footer(
      "Examples:\n  dmc demo --quick\n  dmc demo -m "
      "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
