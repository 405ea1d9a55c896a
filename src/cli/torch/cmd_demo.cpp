// dmc demo: retrofits the built-in model live, sets it beside the dense one and those that come at
// 4x, and writes a report.
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/human.h"
#include "base/progress.h"
#include "base/table.h"
#include "base/terminal.h"
#include "cli/bench_text.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/torch/train_options.h"
#include "engine/generate.h"
#include "eval/score.h"
#include "report/report.h"
#include "runtime/measure.h"
#include "train/stage.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

// How much work the demo does.
struct DemoSize {
  int64_t zero_out_steps, retrofit_steps, finetune_steps, batch;
  int64_t windows;
  runtime::MeasureOptions measure;
};

const DemoSize kFull = {
    10, 80, 50,
    4,  16, {.contexts = {512, 2048, 8192}, .batches = {1, 8}, .decode_tokens = 16, .repeats = 2}};
const DemoSize kQuick = {
    6, 44, 20,
    2, 4,  {.contexts = {512, 4096}, .batches = {1, 8}, .decode_tokens = 8, .repeats = 1}};

constexpr int64_t kContext = 2048;  // of the scored windows and of the cache sizes compared
constexpr auto kPrompt = "def read_config(path, default=None):\n    \"\"\"";
constexpr int64_t kSampleTokens = 90;

struct DemoCommand {
  fs::path out = "demo-out";
  bool quick = false;
  ModelOptions options;  // threads and device, of all models
};

struct Contender {
  std::string name;
  fs::path dir;
  runtime::PlacedModel placed;
};

void say(const std::string& text) {
  std::cerr << "\n" << bold(text, color_enabled(std::cerr)) << "\n";
}

TrainCommand live_retrofit(const DemoCommand& demo, const DemoSize& size) {
  TrainCommand command;
  command.threads = demo.options.threads;
  train::TrainOptions& o = command.options;
  o.model_dir = shipped_model("builtin");
  o.device = demo.options.device;
  o.out_dir = demo.out / "live-2x";
  o.stages = {{train::find_stage("zero-out"), size.zero_out_steps},
              {train::find_stage("retrofit"), size.retrofit_steps},
              {train::find_stage("finetune"), size.finetune_steps}};
  o.decay_steps = size.finetune_steps;
  o.batch = size.batch;
  o.length = 1024;
  o.learning_rate = 5e-4;
  o.final_learning_rate = 5e-5;
  o.warmup_steps = 5;
  o.retrofit.target_cr = 2.0;
  return command;
}

// Slots a head keeps, on average, as a text grows.
std::vector<report::SlotsPoint> slots_by_tokens(runtime::Runner& runner,
                                                std::span<const int32_t> text) {
  constexpr size_t kPoints = 32;
  const size_t step = text.size() / kPoints;
  const auto sequence = engine::Sequence::add(runner);
  std::vector<report::SlotsPoint> points = {{0, 0.0}};
  for (size_t first = 0; first + step <= text.size(); first += step) {
    engine::prefill(runner, sequence.id(), text.subspan(first, step));
    const auto seen = static_cast<int64_t>(first + step);
    points.push_back({seen, static_cast<double>(seen) / runner.compression_ratio(sequence.id())});
  }
  return points;
}

std::string sample_text(runtime::Runner& runner, const fs::path& dir) {
  const text::Tokenizer tokenizer(dir);
  engine::GenerateOptions options;
  options.max_tokens = kSampleTokens;
  options.stop_ids = runner.model().config.eos_token_ids;
  options.sampling = {.temperature = 0.6, .top_p = 0.9, .seed = 3};
  const auto sequence = engine::Sequence::add(runner);
  const engine::Generation generation = engine::generate(
      runner, sequence.id(), tokenizer.encode(kPrompt), options, [](int32_t) {}, interrupted);
  return tokenizer.decode(generation.tokens);
}

report::Variant describe(const Contender& contender, const text::EvalWindows& windows) {
  const auto runner = contender.placed.make_runner({});
  ProgressBar bar("scoring " + contender.name, windows.total_tokens());
  const eval::Score score = eval::score(*runner, windows, [&](int64_t done) { bar.update(done); });
  bar.finish();
  report::Variant variant;
  variant.name = contender.name;
  variant.bits_per_byte = score.bits_per_byte;
  variant.accuracy = score.next_token_accuracy;
  variant.cr = score.compression_ratio;
  variant.slots = score.slots;
  variant.tokens = score.tokens;
  variant.cr_by_head = score.cr_by_head;
  variant.slots_by_tokens = slots_by_tokens(*runner, windows.tokens.front());
  variant.prompt = kPrompt;
  variant.sample = sample_text(*runner, contender.dir);
  return variant;
}

void add_speed(const std::vector<Contender>& contenders, const DemoSize& size,
               std::vector<report::Variant>* variants) {
  std::vector<runtime::Subject> subjects;
  for (const Contender& c : contenders) subjects.push_back({c.name, c.placed, {}});
  const Contender& first = contenders.front();
  const auto text =
      bench_text({}, first.placed.model(), first.dir, std::ranges::max(size.measure.contexts));
  const size_t points = size.measure.contexts.size() * size.measure.batches.size();
  ProgressBar bar("measuring speed", static_cast<int64_t>(points));
  const auto results = runtime::measure(subjects, text, size.measure,
                                        [&](int64_t done, int64_t) { bar.update(done); });
  for (size_t i = 0; i < results.size(); ++i) {
    const runtime::Measurement& m = results[i];
    report::Variant& variant = (*variants)[i % contenders.size()];
    variant.decode.push_back({m.context, static_cast<int>(m.batch), m.decode_tokens_per_second});
    if (m.batch != 1) continue;
    variant.prefill_tokens_per_second = m.prefill_tokens_per_second;  // of the longest, the last
  }
}

// Bytes of one sequence of kContext tokens.
double cache_bytes(const Contender& contender, std::span<const int32_t> text) {
  const auto runner = contender.placed.make_runner({});
  const auto sequence = engine::Sequence::add(*runner);
  engine::prefill(*runner, sequence.id(), text);
  return static_cast<double>(runner->cache_bytes());
}

void print_summary(const std::vector<report::Variant>& variants) {
  Table table(
      {{"", Align::kLeft}, {"CR"}, {"bits/byte"}, {"accuracy"}, {"cache"}, {"decode tok/s"}});
  for (const report::Variant& v : variants) {
    table.add_row({v.name, fixed(v.cr, 2), fixed(v.bits_per_byte, 4),
                   fixed(100 * v.accuracy, 1) + " %", human_bytes(v.cache_bytes),
                   human_count(v.decode.back().tokens_per_second)});
  }
  std::cout << "\n";
  table.print(std::cout);
  const report::SpeedPoint& speed = variants.front().decode.back();
  std::cout << "cache: one sequence of " << kContext << " tokens; decode: " << speed.batch
            << " sequences of " << speed.context << " tokens\n\n";
  const report::Variant& last = variants.back();
  print_heat_map(std::cout,
                 {"compression ratio of " + last.name + " by layer and KV head", "layer", "head",
                  last.cr_by_head, 1.0, 2 * last.cr},
                 color_enabled(std::cout));
}

std::vector<std::pair<std::string, std::string>> facts(const runtime::Model& model) {
  const model::ModelConfig& c = model.config;
  return {{"parameters", human_count(static_cast<double>(model.parameters))},
          {"layers", std::to_string(c.num_layers)},
          {"heads", std::to_string(c.num_heads) + " (" + std::to_string(c.num_kv_heads) + " KV)"},
          {"head size", std::to_string(c.head_dim)},
          {"context", std::to_string(c.context())}};
}

report::ReportData report_data(const std::vector<train::StepRecord>& records,
                               std::vector<report::Variant> variants, const runtime::Model& dense) {
  report::ReportData data;
  data.title = "A language model that learned to compress its own KV cache";
  data.subtitle =
      "The built-in model on held-out Python source code: dense, retrofitted to 2x while you "
      "watched, and at 4x by two methods. All but the live one have read the same number of "
      "tokens.";
  data.facts = facts(dense);
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
  const DemoSize& size = command.quick ? kQuick : kFull;
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
    contenders.push_back({name, dir, place_model(options)});
  };
  add("dense", shipped_model("builtin"));
  add("live 2x", command.out / "live-2x");
  add("DMC 4x", shipped_model("builtin-4x"));
  add("DMS 4x", shipped_model("builtin-dms"));
  const runtime::Model& dense = contenders[0].placed.model();
  TextOptions text;
  text.windows = size.windows;
  text.length = kContext;
  const text::EvalWindows windows = text_windows(text, dense, contenders[0].dir);
  std::vector<report::Variant> variants;
  for (const Contender& c : contenders) {
    variants.push_back(describe(c, windows));
    variants.back().cache_bytes = cache_bytes(c, windows.tokens.front());
    if (interrupted()) return kExitInterrupted;
  }

  say("3. Speed");
  add_speed(contenders, size, &variants);
  print_summary(variants);
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
  add_threads(app, command->options.threads);
  add_device_option(app, command->options);
  app.footer("Example:\n  dmc demo --quick");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
