#include "cli/torch/demo_of_model.h"

#include <iostream>

#include "base/file.h"
#include "base/human.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/torch/demo_contender.h"
#include "text/chat_template.h"

namespace dmc::cli {
namespace {

constexpr auto kQuestion = "How do I read a file line by line in Python?";
constexpr auto kBeginning = "def read_config(path, default=None):\n    \"\"\"";

DemoSize demo_size(bool quick, const model::ModelConfig& config) {
  const DemoSize size =
      quick ? DemoSize{1,
                       1024,
                       {.contexts = {2048}, .batches = {1}, .decode_tokens = 8, .repeats = 1}}
            : DemoSize{
                  4,
                  2048,
                  {.contexts = {2048, 8192}, .batches = {1, 4}, .decode_tokens = 16, .repeats = 2}};
  return {size.windows, std::min(size.length, config.context()), size.measure};
}

text::EvalWindows held_out_windows(const DemoSize& size, const Contender& contender) {
  TextOptions text;
  text.windows = size.windows;
  text.length = size.length;
  return text_windows(text, contender.placed.model(), contender.dir);
}

// As many tokens a slot as the model's own policy reached on that text, so that all compare at
// equal memory.
double common_ratio(const DemoCommand& demo, const std::vector<report::Variant>& variants) {
  return variants.size() > 1 ? variants.back().cr : demo.cr;
}

Contender with_policy(const Contender& dense, const policy::Policy& policy, double cr) {
  Contender contender = dense;
  contender.name = policy.name;
  contender.options.compression = {.policy = std::string(policy.name), .cr = cr};
  return contender;
}

report::ReportData report_data(const Contender& dense, std::vector<report::Variant> variants,
                               const DemoSize& size) {
  report::ReportData data;
  data.title = dense.dir.filename().string() + " with a compressed KV cache";
  data.subtitle = "One model, what each policy keeps of its cache, and what that costs.";
  data.facts = model_facts(dense.placed.model());
  data.variants = std::move(variants);
  data.cache_context = size.length;
  data.footnote = "Quality: held-out Python source in windows of " + std::to_string(size.length) +
                  " tokens, taken in with the cache compressed. Speed: all policies in turn in one "
                  "run on this machine, medians.";
  return data;
}

}  // namespace

int demonstrate_model(const DemoCommand& demo) {
  std::vector<Contender> contenders = {{"dense", demo.options.dir, place_model(demo.options)}};
  contenders[0].options.compression.policy = "dense";
  const model::ModelConfig& config = contenders[0].placed.model().config;
  const DemoSize size = demo_size(demo.quick, config);
  const text::EvalWindows windows = held_out_windows(size, contenders[0]);
  const std::string prompt = text::ChatTemplate::find(demo.options.dir) ? kQuestion : kBeginning;
  std::vector<report::Variant> variants;
  const auto show = [&](const Contender& contender) {
    variants.push_back(describe(contender, windows, prompt));
  };

  say("1. Quality on held-out text, with each policy at the same ratio");
  show(contenders[0]);
  if (config.dmc) {
    contenders.push_back(with_policy(contenders[0], *policy::find_policy(config.dmc->method), 0.0));
    show(contenders.back());
  }
  const double cr = common_ratio(demo, variants);
  for (const policy::Policy& policy : policy::policies()) {
    // SnapKV compresses prompts as they end; text that is scored is none.
    if (policy.least_budget == 0 || policy.keep_of_prompt != nullptr) continue;
    if (interrupted()) return kExitInterrupted;
    contenders.push_back(with_policy(contenders[0], policy, cr));
    show(contenders.back());
    variants.back().cr_by_head.clear();  // the same everywhere
  }

  say("2. Speed");
  add_speed(contenders, size, &variants);
  print_summary(variants, size.length);
  if (config.dmc) print_map(variants[1]);
  const std::filesystem::path report = demo.out / "report.html";
  std::filesystem::create_directories(demo.out);
  write_file_atomically(
      report, report::render_report(report_data(contenders[0], std::move(variants), size)));
  std::cout << "\nreport: " << report.string() << "\n";
  return 0;
}

}  // namespace dmc::cli
