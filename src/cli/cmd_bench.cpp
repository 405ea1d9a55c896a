// dmc bench: speed and cache size of one model, dense against compressed, in one run.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/human.h"
#include "base/progress.h"
#include "base/table.h"
#include "cli/bench_text.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "runtime/measure.h"

namespace dmc::cli {
namespace {

struct BenchCommand {
  ModelOptions model;
  std::vector<std::filesystem::path> data;
  runtime::MeasureOptions measure;
  std::vector<double> forced_crs;
  double kv_budget = 0.0;  // MiB
  bool json = false;
};

nlohmann::ordered_json to_json(const runtime::Measurement& m) {
  return {{"policy", m.subject},
          {"context", m.context},
          {"batch", m.batch},
          {"prefill_tokens_per_second", m.prefill_tokens_per_second},
          {"decode_tokens_per_second", m.decode_tokens_per_second},
          {"cache_bytes", m.cache_bytes},
          {"compression_ratio", m.compression_ratio}};
}

std::string ratio(double value, double baseline) { return fixed(value / baseline, 2) + "x"; }

// "4.33x", what `value` is of the baseline's; nothing if they are the same, as batches mostly are.
std::string ratio_unless_same(int64_t value, int64_t baseline) {
  return value == baseline ? "" : ratio(static_cast<double>(value), static_cast<double>(baseline));
}

// Rows come in groups of one a subject, the dense one first.
void print(const std::vector<runtime::Measurement>& results, size_t subjects) {
  Table table({{"context"},
               {"batch"},
               {""},
               {"policy", Align::kLeft},
               {"CR"},
               {"cache"},
               {"prefill tok/s"},
               {""},
               {"decode tok/s"},
               {""}});
  for (size_t i = 0; i < results.size(); ++i) {
    const runtime::Measurement &m = results[i], &base = results[i - i % subjects];
    const bool is_base = &m == &base;
    table.add_row(
        {std::to_string(m.context), std::to_string(m.batch), ratio_unless_same(m.batch, base.batch),
         m.subject, fixed(m.compression_ratio, 2), human_bytes(static_cast<double>(m.cache_bytes)),
         human_count(m.prefill_tokens_per_second),
         is_base ? "" : ratio(m.prefill_tokens_per_second, base.prefill_tokens_per_second),
         human_count(m.decode_tokens_per_second),
         is_base ? "" : ratio(m.decode_tokens_per_second, base.decode_tokens_per_second)});
  }
  table.print(std::cout);
}

int run(BenchCommand command) {
  if (command.kv_budget > 0.0 && command.model.device != "cpu") {
    throw invalid_argument(
        "--kv-budget: a GPU's room is made before the first prompt; give --batch");
  }
  const runtime::PlacedModel placed = place_model(command.model);
  const runtime::Model& model = placed.model();
  runtime::RunnerOptions options = runner_options(command.model);
  const auto subject = [&](const char* policy, double forced_cr = 1.0) {
    options.compression.policy = policy;
    options.compression.forced_cr = forced_cr;
    return runtime::Subject{policy, placed, options};
  };
  std::vector<runtime::Subject> subjects = {subject("dense")};
  if (model.config.dmc) subjects.push_back(subject(model.config.dmc->method.c_str()));
  for (double cr : command.forced_crs) subjects.push_back(subject("forced", cr));
  command.measure.kv_budget = static_cast<int64_t>(command.kv_budget * (1 << 20));
  const int64_t longest = std::ranges::max(command.measure.contexts);
  if (longest > model.config.context()) {
    std::cerr << "note: contexts above the model's " << model.config.context()
              << " tokens are timed too; their text would make no sense\n";
  }
  const std::vector<int32_t> text = bench_text(command.data, model, command.model.dir, longest);
  const size_t points = command.measure.contexts.size() *
                        (command.kv_budget > 0.0 ? 1 : command.measure.batches.size());
  ProgressBar bar("measuring", static_cast<int64_t>(points));
  const auto results = runtime::measure(subjects, text, command.measure,
                                        [&](int64_t done, int64_t) { bar.update(done); });
  bar.finish();
  if (command.json) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const auto& m : results) rows.push_back(to_json(m));
    std::cout
        << nlohmann::ordered_json{{"model", command.model.dir.string()}, {"results", rows}}.dump()
        << "\n";
  } else {
    print(results, subjects.size());
  }
  return 0;
}

}  // namespace

std::function<int()> setup_bench(CLI::App& app) {
  auto command = std::make_shared<BenchCommand>();
  runtime::MeasureOptions& o = command->measure;
  add_model_options(app, command->model, "builtin-4x");
  add_inference_options(app, command->model, /*with_policy=*/false);
  add_device_option(app, command->model);
  app.add_option("--data", command->data, "text to fill the cache with (default: held-out files)");
  app.add_option("--contexts", o.contexts, "tokens in the cache before decoding")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--batch", o.batches, "sequences decoded together")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--kv-budget", command->kv_budget,
                 "MiB of cache: instead of --batch, decode as many sequences as fit into it")
      ->check(CLI::Range(1e-3, 1e9));
  app.add_option("--force-cr", command->forced_crs, kForceCrHelp)
      ->delimiter(',')
      ->check(CLI::Range(1.0, 64.0));
  app.add_option("--decode", o.decode_tokens, "decode steps to time")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--repeats", o.repeats, "times each point is measured; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(
      "Examples:\n"
      "  dmc bench -m models/builtin-4x\n"
      "  dmc bench --contexts 1024,4096,16384 --batch 1,16 --json\n"
      "  dmc bench -m models/builtin --contexts 8192 --force-cr 2,4,8 --kv-budget 256");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
