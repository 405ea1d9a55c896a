#include "cli/torch/demo_contender.h"

#include <iostream>

#include "base/human.h"
#include "base/progress.h"
#include "base/table.h"
#include "base/terminal.h"
#include "cli/bench_text.h"
#include "cli/interrupt.h"
#include "engine/conversation.h"
#include "engine/generate.h"
#include "eval/score.h"

namespace dmc::cli {
namespace {

constexpr int64_t kSampleTokens = 90;

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

engine::GenerateOptions sample_options(const runtime::Runner& runner) {
  engine::GenerateOptions options;
  options.max_tokens = kSampleTokens;
  options.stop_ids = runner.model().config.eos_token_ids;
  options.sampling = {.temperature = 0.6, .top_p = 0.9, .seed = 3};
  return options;
}

std::string sample_text(runtime::Runner& runner, const std::filesystem::path& dir,
                        const std::string& prompt) {
  const text::Tokenizer tokenizer(dir, runner.vocab_size());
  const engine::GenerateOptions options = sample_options(runner);
  if (const auto chat = text::ChatTemplate::find(dir)) {
    engine::Conversation conversation(runner, tokenizer, *chat, /*system=*/"");
    return conversation
        .reply(
            prompt, options, [](const std::string&) {}, interrupted)
        .text;
  }
  const auto sequence = engine::Sequence::add(runner);
  const engine::Generation generation = engine::generate(
      runner, sequence.id(), tokenizer.encode(prompt), options, [](int32_t) {}, interrupted);
  return tokenizer.decode(generation.tokens);
}

// Bytes of one sequence of that text.
double cache_bytes(const Contender& contender, std::span<const int32_t> text) {
  const auto runner = contender.placed.make_runner(contender.options);
  const auto sequence = engine::Sequence::add(*runner);
  engine::prefill(*runner, sequence.id(), text);
  return static_cast<double>(runner->cache_bytes());
}

}  // namespace

void say(const std::string& text) {
  std::cerr << "\n" << bold(text, color_enabled(std::cerr)) << "\n";
}

report::Variant describe(const Contender& contender, const text::EvalWindows& windows,
                         const std::string& prompt) {
  const auto runner = contender.placed.make_runner(contender.options);
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
  variant.cache_bytes = cache_bytes(contender, windows.tokens.front());
  variant.prompt = prompt;
  variant.sample = sample_text(*runner, contender.dir, prompt);
  return variant;
}

void add_speed(const std::vector<Contender>& contenders, const DemoSize& size,
               std::vector<report::Variant>* variants) {
  std::vector<runtime::Subject> subjects;
  for (const Contender& c : contenders) subjects.push_back({c.name, c.placed, c.options});
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

void print_summary(const std::vector<report::Variant>& variants, int64_t cache_context) {
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
  std::cout << "cache: one sequence of " << cache_context << " tokens; decode: " << speed.batch
            << " sequences of " << speed.context << " tokens\n\n";
}

void print_map(const report::Variant& variant) {
  print_heat_map(std::cout,
                 {"compression ratio of " + variant.name + " by layer and KV head", "layer", "head",
                  variant.cr_by_head, 1.0, 2 * variant.cr},
                 color_enabled(std::cout));
}

std::vector<std::pair<std::string, std::string>> model_facts(const runtime::Model& model) {
  const model::ModelConfig& c = model.config;
  return {{"parameters", human_count(static_cast<double>(model.parameters))},
          {"layers", std::to_string(c.num_layers)},
          {"heads", std::to_string(c.num_heads) + " (" + std::to_string(c.num_kv_heads) + " KV)"},
          {"head size", std::to_string(c.head_dim)},
          {"context", std::to_string(c.context())}};
}

}  // namespace dmc::cli
